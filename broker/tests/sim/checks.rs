//! What is checked of answers, and of the end.

use std::collections::BTreeSet;
use std::time::Duration;

use taffrail_broker::coordinator::group::{Answer, Answered, GroupError, TopicPartition};
use taffrail_broker::coordinator::runtime::{Failure, Input};

use super::client::{Reply, State, What};
use super::counts::Seen;
use super::members::{LONGEST_REBALANCE, SESSIONS};
use super::simulation::Simulation;

/// The latest request and its answer are there after so long.
const LATEST: Duration = Duration::from_millis(5_100);

/// After faults end and the last late request: a late answer, a session, a rebalance, and a few turns.
const PATIENCE: Duration = Duration::from_millis(5_000 + 2 * SESSIONS[1] + LONGEST_REBALANCE + 4_000);

/// How long offsets are kept of what is gone, and time for members to be missed.
const RETENTION: Duration = Duration::from_hours(7 * 24);

impl Simulation {
    /// An answer leaves the broker.
    pub(crate) fn check_answer(&mut self, reply: Reply, answer: &Result<Answer, Failure>) {
        let client = &self.clients[reply.client];
        let (group, is_open) = (&client.group, client.session == reply.session);
        match (reply.what, answer) {
            (What::Commit(partition, offset), Ok(Ok(Answered::Committed(refused)))) => {
                if let Some((_, error)) = refused.first() {
                    let stale = matches!(error, GroupError::StaleEpoch { .. });
                    self.counts.saw(if stale { Seen::StaleCommit } else { Seen::UnknownPartition });
                    return;
                }
                let kept = self.broker.model.kept.contains(&(group.clone(), partition, offset));
                assert!(kept, "C4: commit {offset} of {partition:?} is acknowledged and not in the log");
                let outside = matches!(self.broker.model.sent[&offset], super::model::Committer::Outside);
                self.counts.saw(if outside { Seen::OutsideCommit } else { Seen::Committed });
                self.acknowledged.entry((group.clone(), partition)).or_insert(self.now);
            }
            (What::Commit(..), Ok(Err(GroupError::NotEmpty { .. }))) => self.counts.saw(Seen::OutsideRefused),
            (What::Membership, Ok(Ok(Answered::Membership(membership)))) if is_open => {
                let group = self.broker.model.groups.get(group);
                let member = group.and_then(|group| group.members.get(&client.member));
                // With a higher epoch in the log, what it is told was true when it asked.
                if let Some(member) = member.filter(|member| member.epoch == membership.epoch) {
                    assert!(member.assigned.keys().eq(&membership.assigned), "C4: told what is not in the log");
                }
            }
            (What::Fetch(partition), Ok(Ok(Answered::Offsets(offsets)))) => {
                self.check_offset(reply, partition, offsets[0].1.as_ref().map(|committed| committed.offset));
            }
            _ => {}
        }
    }

    /// C6: what a member does not hold any more by the log, it has let go of itself: the next owner may have it at once.
    pub(crate) fn check_released(&mut self) {
        for (group, member, partition) in std::mem::take(&mut self.broker.model.released) {
            for client in self.clients.iter().filter(|client| client.group == group && client.member == member) {
                let is_current = self.broker.model.is_current(&group, &member, client.epoch);
                let holds = is_current && client.owned.contains(&partition);
                assert!(!holds, "C6: {partition:?} was taken from {member}, which owns it");
            }
        }
    }

    /// C8 and no lost commit: what was acknowledged before it was asked for is there, and nothing else ever.
    fn check_offset(&mut self, reply: Reply, partition: TopicPartition, offset: Option<i64>) {
        let group = &self.clients[reply.client].group;
        let key = (group.clone(), partition);
        if let Some(offset) = offset {
            self.counts.saw(Seen::Fetched);
            let kept = self.broker.model.kept.contains(&(group.clone(), partition, offset));
            assert!(kept, "C8: offset {offset} of {partition:?} was never committed");
        } else {
            self.counts.saw(Seen::NothingCommitted);
            let acknowledged = self.acknowledged.get(&key).is_some_and(|at| *at < reply.sent);
            let there = self.broker.model.groups.get(group).is_some_and(|group| group.offsets.contains_key(&partition));
            let removed = self.broker.model.removals > 0;
            assert!(!acknowledged || !there || removed, "C8: a commit of {partition:?} was acknowledged and is lost");
        }
    }

    /// No more faults: everybody who lives gets what is theirs, in time.
    pub(crate) fn heal(&mut self) {
        self.faulty = false;
        for client in &mut self.clients {
            client.holds_on = false;
            client.paused_until = client.paused_until.min(self.now);
        }
        // A late request may still bring an old subscription back: everybody says what they want once the last has arrived.
        self.run(self.now + LATEST);
        for client in &mut self.clients {
            client.reconnects = true;
        }
        let until = self.now + PATIENCE;
        while self.now < until {
            self.run(self.now + Duration::from_secs(1));
            if self.unrest().is_none() {
                return;
            }
        }
        let unrest = self.unrest();
        assert!(unrest.is_none(), "no convergence after faults ended: {}", unrest.unwrap_or_default());
    }

    /// Why it is not well yet.
    fn unrest(&self) -> Option<String> {
        let groups: BTreeSet<&String> = self.clients.iter().map(|client| &client.group).collect();
        groups.into_iter().find_map(|group| self.unrest_in(group))
    }

    fn unrest_in(&self, group: &str) -> Option<String> {
        let clients = || self.clients.iter().filter(|client| client.group == group);
        let Some(state) = self.broker.model.groups.get(group) else { return Some(format!("{group} is not there")) };
        let mut wanted = BTreeSet::new();
        let mut owned = BTreeSet::new();
        for client in clients() {
            if client.state != State::In {
                let used =
                    |other: &&super::client::Client| other.state == State::In && other.instance == client.instance;
                if client.instance.is_some() && clients().any(|other| used(&other)) {
                    continue;
                }
                return Some(format!("{} is {:?}", client.member, client.state));
            }
            wanted.extend(self.topics.partitions(&client.subscription));
            let count = owned.len() + client.owned.len();
            owned.extend(client.owned.iter().copied());
            if owned.len() != count {
                return Some(format!("{} owns what another owns", client.member));
            }
            let Some(current) = state.members.get(&client.member) else {
                return Some(format!("{} is no member", client.member));
            };
            let settled = current.revoking.is_empty() && current.assigned.keys().eq(&client.owned);
            let target = state.targets.get(&client.member);
            if !settled || !target.into_iter().flatten().eq(&client.owned) {
                return Some(format!("{} owns {:?}, stands at {current:?}", client.member, client.owned));
            }
        }
        let members = clients().filter(|client| client.state == State::In).count();
        if state.members.len() != members {
            return Some(format!("{:?} are members", state.members.keys()));
        }
        (owned != wanted).then(|| format!("{wanted:?} should be owned, {owned:?} is"))
    }

    /// C10: when everybody has gone, offsets stay for seven days and then go with their groups.
    pub(crate) fn expire(&mut self) {
        self.change_topics();
        // Commits that are late have arrived then.
        self.run(self.now + Duration::from_secs(6));
        let kept: Vec<_> =
            self.broker.model.groups.iter().map(|(id, group)| (id.clone(), group.offsets.len())).collect();
        for client in &mut self.clients {
            client.reset();
            client.state = State::Dead(Duration::MAX);
            client.paused_until = Duration::MAX;
        }
        self.broker.model.expiring = true;
        self.run(self.now + RETENTION.saturating_sub(Duration::from_mins(1)));
        for (id, offsets) in kept {
            let now = self.broker.model.groups.get(&id).map(|group| group.offsets.len());
            assert_eq!(now, Some(offsets), "C10: offsets of {id} went too early");
        }
        self.run(self.now + Duration::from_mins(2));
        assert!(self.broker.model.groups.is_empty(), "C10: {:?} did not expire", self.broker.model.groups.keys());
        self.apply(Input::Tick);
    }
}
