//! A Consume stream and its group's coordinator: what is asked in the member's name, and what follows from the answers.

use std::collections::HashMap;
use std::sync::Arc;

use futures::stream::StreamExt as _;
use taffrail_proto::v1::{self, OffsetReset, consume_response as response};
use tokio::time::Instant;

use super::partitions::Changes;
use super::{Consume, Ended, Settings, names, offsets, start};
use crate::coordinator::group::{Answered, CommittedOffset, Membership, Subscription, TopicPartition};
use crate::coordinator::groups::{Groups, GroupsError};
use crate::partition::Snapshot;
use crate::security::Verb;
use crate::service::call::count;
use crate::service::groups::member::{PAUSE, is_passing};
use crate::service::status::{IntoLogError as _, Refused};

/// What the coordinator is to be told or asked next.
#[derive(Default)]
pub(super) struct Ask {
    pub(super) heartbeat: bool,
    /// With all that is owned.
    pub(super) owned: bool,
    pub(super) subscription: Option<Subscription>,
    pub(super) refresh: bool,
}

impl Ask {
    fn is_empty(&self) -> bool {
        !(self.heartbeat || self.owned || self.refresh || self.subscription.is_some())
    }

    /// With what could not be asked before.
    fn merge(&mut self, before: Self) {
        self.heartbeat |= before.heartbeat;
        self.owned |= before.owned;
        self.refresh |= before.refresh;
        self.subscription = self.subscription.take().or(before.subscription);
    }
}

/// Partitions that are to be started, with their tokens.
pub(super) struct Starting {
    partitions: Vec<(TopicPartition, u64)>,
    /// Where they begin that nobody has read before was committed, or need not be.
    is_begun: bool,
}

impl Starting {
    fn ids(&self) -> Vec<TopicPartition> {
        self.partitions.iter().map(|(id, _)| *id).collect()
    }
}

/// Where partitions begin and end now, of those whose leaders have said so.
pub(super) type Ends = HashMap<TopicPartition, Snapshot>;

/// What a leader says of its partitions is heard along with what the group has committed for them.
async fn with_ends(
    groups: Arc<Groups>,
    starting: Starting,
    asked: impl Future<Output = Result<Answered, GroupsError>>,
) -> Heard {
    let answered = asked.await;
    let directory = groups.directory();
    let ends = starting.ids().into_iter().map(async |id| {
        let partition = directory.topic_of(id)?.partition(id.partition).ok()?;
        Some((id, partition.current().await.ok()?.snapshot))
    });
    let ends = futures::future::join_all(ends).await.into_iter().flatten().collect();
    Heard::Offsets(starting, answered, ends)
}

/// What the coordinator has answered.
pub(super) enum Heard {
    Membership(Ask, Result<Membership, GroupsError>),
    /// What the group has committed for partitions that are to be started.
    Offsets(Starting, Result<Answered, GroupsError>, Ends),
    /// A partition that could not be read a moment ago.
    Again(u64),
    Committed {
        id: u64,
        /// All partitions of the commit, for when it fails as a whole.
        partitions: Vec<(String, i32)>,
        /// Refused before the coordinator was asked.
        errors: Vec<v1::OffsetCommitError>,
        answered: Result<Answered, GroupsError>,
    },
}

impl Consume<'_> {
    /// Asks the coordinator what there is to ask, if nothing is under way.
    pub(super) fn ask_coordinator(&mut self) {
        if self.is_asking || self.ask_again.is_some() || self.ask.is_empty() {
            return;
        }
        let ask = std::mem::take(&mut self.ask);
        self.is_asking = true;
        if ask.heartbeat || ask.owned || ask.subscription.is_some() {
            let owned = ask.owned.then(|| self.partitions.owned());
            let asked = self.member.heartbeat(owned, ask.subscription.clone());
            self.asks.push(Box::pin(async move { Heard::Membership(ask, asked.await) }));
        } else {
            let asked = self.member.refresh();
            self.asks.push(Box::pin(async move { Heard::Membership(ask, asked.await) }));
        }
    }

    pub(super) fn hear(&mut self, heard: Heard) -> Result<(), Ended> {
        match heard {
            Heard::Membership(ask, answered) => {
                self.is_asking = false;
                match answered {
                    Ok(membership) => {
                        if self.member.note(&membership) {
                            self.tell(response::Frame::Joined(self.member.joined(&membership)));
                        }
                        self.follow(&membership);
                    }
                    Err(error) if is_passing(&error) => {
                        self.ask.merge(ask);
                        self.ask_again = Some(Instant::now() + PAUSE);
                    }
                    Err(error) => return Err(self.lose(error)),
                }
                Ok(())
            }
            Heard::Offsets(starting, answered, ends) => self.start(starting, answered, &ends),
            Heard::Again(token) => {
                self.read_again(token);
                Ok(())
            }
            Heard::Committed { id, partitions, errors, answered } => {
                self.commits -= 1;
                self.committed(id, partitions, errors, answered);
                Ok(())
            }
        }
    }

    /// The member cannot go on: what it had may be others'.
    fn lose(&mut self, error: GroupsError) -> Ended {
        let lost = self.partitions.lose_all();
        self.tell_partitions(&lost, response::Frame::Lost);
        Refused::from(error).into()
    }

    /// Waits for the answers to all commits: the client has said its last word, and wants to know what became of them.
    pub(super) async fn answer_commits(&mut self) -> Result<(), Ended> {
        while self.commits > 0
            && let Some(heard) = self.asks.next().await
        {
            if matches!(heard, Heard::Committed { .. }) {
                self.hear(heard)?;
            }
        }
        Ok(())
    }

    /// Takes in where the member stands.
    pub(super) fn follow(&mut self, membership: &Membership) {
        self.heartbeat_interval = membership.heartbeat_interval;
        let Changes { start, revoke, lost, tell_owned } = self.partitions.follow(membership);
        self.tell_partitions(&lost, response::Frame::Lost);
        self.tell_partitions(&revoke, response::Frame::Revoke);
        self.ask.owned |= tell_owned;
        if !start.is_empty() {
            self.ask_offsets(start);
        }
    }

    fn ask_offsets(&mut self, partitions: Vec<(TopicPartition, u64)>) {
        let is_begun = self.settings.reset != OffsetReset::Latest;
        let starting = Starting { partitions, is_begun };
        let asked = self.member.offsets(starting.ids());
        self.asks.push(Box::pin(with_ends(self.groups.clone(), starting, asked)));
    }

    /// Looks for a partition where it is led now, and goes on reading it.
    fn read_again(&mut self, token: u64) {
        let directory = self.groups.directory();
        let Some(reading) = self.partitions.reading(token) else { return };
        let reader = &mut reading.reader;
        let id = TopicPartition { topic: reader.partition.id().topic, partition: reader.index };
        // A topic that is gone the coordinator takes away.
        let Some(partition) = directory.topic_of(id).and_then(|topic| topic.partition(id.partition).ok()) else {
            return;
        };
        reader.partition = partition.clone();
        self.partitions.wake(token);
    }

    /// Has the beginnings of partitions asked for again after a moment.
    fn start_later(&mut self, starting: Starting) {
        let again = self.member.offsets_after(PAUSE, starting.ids());
        self.asks.push(Box::pin(with_ends(self.groups.clone(), starting, again)));
    }

    fn tell_partitions(&mut self, partitions: &[TopicPartition], frame: fn(v1::ConsumePartitions) -> response::Frame) {
        if !partitions.is_empty() {
            let partitions = names::by_topic(&self.groups.directory(), partitions);
            self.tell(frame(v1::ConsumePartitions { partitions }));
        }
    }

    /// Where "latest" is now for those of which nothing is committed. That is kept before anything is read: whoever comes next,
    /// should this member die before its first commit, goes on from there and skips nothing.
    fn beginnings(
        &self,
        offsets: &[(TopicPartition, Option<CommittedOffset>)],
        ends: &Ends,
    ) -> Result<Vec<(TopicPartition, CommittedOffset)>, Ended> {
        let directory = self.groups.directory();
        let mut beginnings = vec![];
        for (id, _) in offsets.iter().filter(|(_, committed)| committed.is_none()) {
            let Some(snapshot) = ends.get(id) else { continue };
            let Some(reader) = start::at_end(&directory, *id, snapshot, self.settings.isolation)? else { continue };
            self.call.authorize_topic(Verb::Consume, &reader.topic)?;
            let (offset, metadata) = (reader.offset, String::new());
            beginnings.push((*id, CommittedOffset { offset, leader_epoch: None, metadata, committed_at: 0 }));
        }
        Ok(beginnings)
    }

    /// Begins to read partitions, now that it is known what is committed.
    fn start(
        &mut self,
        mut starting: Starting,
        answered: Result<Answered, GroupsError>,
        ends: &Ends,
    ) -> Result<(), Ended> {
        let offsets = match answered {
            Ok(Answered::Offsets(offsets)) => offsets,
            Ok(_) => return Ok(()),
            Err(error) if is_passing(&error) => {
                starting.is_begun = self.settings.reset != OffsetReset::Latest;
                self.start_later(starting);
                return Ok(());
            }
            Err(error) => return Err(self.lose(error)),
        };
        let directory = self.groups.directory();
        let is_known = |id: &TopicPartition| ends.contains_key(id) || directory.topic_of(*id).is_none();
        let (known, unknown): (Vec<_>, Vec<_>) =
            starting.partitions.into_iter().zip(offsets).partition(|((id, _), _)| is_known(id));
        if !unknown.is_empty() {
            let partitions = unknown.into_iter().map(|(partition, _)| partition).collect();
            self.start_later(Starting { partitions, is_begun: self.settings.reset != OffsetReset::Latest });
        }
        let offsets: Vec<_>;
        (starting.partitions, offsets) = known.into_iter().unzip();
        if !starting.is_begun {
            let beginnings = self.beginnings(&offsets, ends)?;
            if !beginnings.is_empty() {
                starting.is_begun = true;
                let begun = self.member.begin(beginnings, starting.ids());
                self.asks.push(Box::pin(with_ends(self.groups.clone(), starting, begun)));
                return Ok(());
            }
        }
        let mut assigned = Vec::new();
        let Settings { reset, isolation } = self.settings;
        for ((id, token), (_, committed)) in starting.partitions.into_iter().zip(offsets) {
            let Some(snapshot) = ends.get(&id) else { continue };
            let place = start::place(&directory, id, (committed.as_ref(), snapshot), (reset, isolation))?;
            let Some((reader, place)) = place else {
                continue;
            };
            self.call.authorize_topic(Verb::Consume, &reader.topic)?;
            if self.partitions.begin(token, reader) {
                assigned.push(place);
            }
        }
        if !assigned.is_empty() {
            self.tell(response::Frame::Assigned(v1::ConsumeAssigned { partitions: assigned }));
        }
        Ok(())
    }

    /// Tells the client what became of a commit.
    fn committed(
        &mut self,
        id: u64,
        partitions: Vec<(String, i32)>,
        errors: Vec<v1::OffsetCommitError>,
        answered: Result<Answered, GroupsError>,
    ) {
        let errors = match answered {
            Ok(answered) => {
                let before = errors.len();
                let errors = offsets::refusals(&self.groups.directory(), answered, errors);
                let kept = partitions.len().saturating_sub(errors.len() - before);
                self.broker.metrics.groups.commits.inc_by(kept as u64);
                errors
            }
            Err(error) => {
                // Perhaps the member is not in the group any more.
                self.ask.refresh = true;
                let error = error.into_log_error();
                count(&self.broker.metrics, &error);
                let refused =
                    |(topic, partition)| v1::OffsetCommitError { topic, partition, error: Some(error.clone()) };
                errors.into_iter().chain(partitions.into_iter().map(refused)).collect()
            }
        };
        self.tell(response::Frame::Committed(v1::ConsumeCommitted { id, errors }));
    }
}
