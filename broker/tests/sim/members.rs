//! What clients do, and what they make of answers.

use std::time::Duration;

use taffrail_broker::coordinator::group::{
    Answer, Answered, AssignorName, Commit, CommittedOffset, GroupError, Request, TopicPartition,
};
use taffrail_broker::coordinator::runtime::Failure;

use super::client::{Client, Reply, State, What};
use super::counts::Seen;
use super::model::Committer;
use super::simulation::{Happening, Simulation};
use super::topics::any_subscription;

pub(crate) const SESSIONS: [u64; 2] = [2_000, 4_000];
pub(crate) const LONGEST_REBALANCE: u64 = 5_000;

impl Simulation {
    /// Two to six clients in one or two groups, some static, two of them perhaps under one name.
    pub(crate) fn people(&mut self) {
        let groups = 1 + self.rng.index(2);
        let assignor = [None, Some(AssignorName::Uniform), Some(AssignorName::Range)][self.rng.index(3)];
        for at in 0..2 + self.rng.index(5) {
            let instance = match self.rng.below(6) {
                0 | 1 => Some(format!("i{at}")),
                2 => Some("shared".to_owned()),
                _ => None,
            };
            let client = Client {
                group: format!("g{}", self.rng.index(groups)),
                member: String::new(),
                instance,
                assignor,
                session_timeout: Duration::from_millis(SESSIONS[self.rng.index(2)]),
                rebalance_timeout: self.millis(2_000, LONGEST_REBALANCE),
                is_watchful: self.rng.once_in(2),
                holds_on: self.rng.once_in(6),
                subscription: any_subscription(&mut self.rng),
                state: State::Dead(self.now),
                session: 0,
                epoch: 0,
                told: [].into(),
                owned: [].into(),
                lost: None,
                paused_until: Duration::ZERO,
                heard: Duration::ZERO,
                reconnects: false,
            };
            self.clients.push(client);
            let after = self.millis(1, 3_000);
            self.schedule(after, Happening::Act(at));
        }
    }

    /// The next turn of a client.
    pub(crate) fn act(&mut self, at: usize) {
        if self.clients[at].state == State::Dead(Duration::MAX) {
            return;
        }
        let interval = self.clients[at].session_timeout / 4;
        let after = interval + self.millis(0, 100);
        self.schedule(after, Happening::Act(at));
        let (now, client) = (self.now, &mut self.clients[at]);
        if client.paused_until > now {
            return;
        }
        match client.state {
            State::Dead(until) if until > now => {}
            State::Dead(_) => {
                self.processes += 1;
                let client = &mut self.clients[at];
                client.member = format!("m{at}-{}", self.processes);
                client.reset();
                self.join(at);
            }
            State::Out => self.join(at),
            State::In if client.is_watchful && now.saturating_sub(client.heard) > client.session_timeout => {
                self.counts.saw(Seen::MemberGaveUp);
                self.clients[at].reset();
                self.join(at);
            }
            State::In => self.take_part(at),
        }
    }

    fn join(&mut self, at: usize) {
        self.clients[at].heard = self.now;
        let request = self.clients[at].join();
        self.send(at, What::Membership, request);
    }

    fn take_part(&mut self, at: usize) {
        let slow = self.faulty && self.rng.once_in(3);
        let client = &mut self.clients[at];
        if !slow && !client.holds_on {
            client.release();
        }
        if client.releasing().next().is_some() && client.holds_on {
            self.counts.saw(Seen::MemberHoldsOn);
        }
        if self.faulty {
            self.work(at);
        }
        let reconnects = std::mem::take(&mut self.clients[at].reconnects);
        let request = if reconnects || self.faulty && self.rng.once_in(8) {
            self.counts.saw(Seen::Resumed);
            let resume = self.clients[at].resume();
            if self.faulty && self.rng.once_in(3) {
                // On a stream before, which the client has given up.
                self.send_late(at, What::Membership, resume.clone());
            }
            resume
        } else {
            let new = (self.faulty && self.rng.once_in(40)).then(|| any_subscription(&mut self.rng));
            if let Some(new) = &new {
                self.clients[at].subscription = new.clone();
            }
            let says_owned = !self.rng.once_in(8);
            self.clients[at].heartbeat(says_owned, new)
        };
        self.send(at, What::Membership, request);
    }

    /// Commits, fetches, leaves.
    fn work(&mut self, at: usize) {
        let client = &self.clients[at];
        let (group, count) = (client.group.clone(), client.owned.len());
        match self.rng.below(12) {
            0..4 if count > 0 => {
                let nth = self.rng.index(count);
                let partition = *self.clients[at].owned.iter().nth(nth).expect("it owns so many");
                self.commit(at, partition);
            }
            4 => {
                let lost = client.lost;
                let partition = lost.unwrap_or_else(|| self.topics.any_partition(&mut self.rng));
                self.commit(at, partition);
            }
            5 => {
                let partition = self.topics.any_partition(&mut self.rng);
                let request = Request::FetchOffsets { group, partitions: Some(vec![partition]) };
                self.send(at, What::Fetch(partition), request);
            }
            6 if self.rng.once_in(3) => self.leave(at),
            _ => {}
        }
    }

    fn commit(&mut self, at: usize, partition: TopicPartition) {
        let client = &self.clients[at];
        let (member, epoch) = (client.member.clone(), client.epoch);
        let (group, committer) = (client.group.clone(), Committer::Member(member.clone(), epoch));
        let offset = self.next_offset(committer);
        let commit = Commit { group, member: Some((member, epoch)), offsets: vec![(partition, offset.clone())] };
        self.send(at, What::Commit(partition, offset.offset), Request::Commit(commit));
    }

    /// An offset that nobody has committed before.
    pub(crate) fn next_offset(&mut self, committer: Committer) -> CommittedOffset {
        let offset = self.next_commit;
        self.next_commit += 1;
        self.broker.model.sent.insert(offset, committer);
        CommittedOffset { offset, leader_epoch: None, metadata: String::new(), committed_at: 0 }
    }

    pub(crate) fn leave(&mut self, at: usize) {
        let returning = self.rng.once_in(2);
        let back = self.now + self.millis(100, 3_000);
        let client = &mut self.clients[at];
        let (group, member, epoch) = (client.group.clone(), client.member.clone(), client.epoch);
        let goes_away = returning && client.instance.is_some();
        client.reset();
        client.state = State::Dead(back);
        self.counts.saw(if goes_away { Seen::WentAway } else { Seen::Left });
        if !goes_away {
            self.broker.model.leaving.insert(member.clone());
        }
        self.send(at, What::Leave, Request::Leave { group, member, epoch, returning });
    }

    /// Between heartbeats: lets go and says so.
    pub(crate) fn react(&mut self, at: usize, session: u32) {
        let (now, client) = (self.now, &mut self.clients[at]);
        let may = client.session == session && client.state == State::In && client.paused_until <= now;
        if may && !client.holds_on {
            client.release();
            let request = client.heartbeat(true, None);
            self.send(at, What::Membership, request);
        }
    }

    /// The client gets an answer.
    pub(crate) fn answered(&mut self, reply: Reply, answer: Result<Answer, Failure>) {
        let client = &mut self.clients[reply.client];
        if client.paused_until > self.now {
            let after = client.paused_until.saturating_sub(self.now);
            self.schedule(after, Happening::Answer(reply, answer));
            return;
        }
        if client.session != reply.session || matches!(client.state, State::Dead(_)) {
            return;
        }
        match (reply.what, answer) {
            (What::Membership, Ok(Ok(Answered::Membership(membership)))) => {
                let joins = client.state == State::Out;
                let same_life = self.broker.model.is_current(&client.group, &client.member, client.epoch);
                let Some(gained) = client.adopt(&membership, reply.sent, same_life) else { return };
                let (lets_go, session) = (client.releasing().next().is_some(), client.session);
                if joins {
                    let returns = client.instance.is_some() && !gained.is_empty();
                    self.counts.saw(if returns { Seen::CameBack } else { Seen::Joined });
                }
                for partition in gained {
                    self.take(reply.client, partition);
                }
                if lets_go {
                    let after = self.millis(1, 300);
                    self.schedule(after, Happening::React(reply.client, session));
                }
            }
            (What::Membership | What::Commit(..), Ok(Err(error))) => self.refused(reply, &error),
            _ => {}
        }
    }

    fn refused(&mut self, reply: Reply, error: &GroupError) {
        match error {
            GroupError::Fenced { .. } => self.counts.saw(Seen::Fenced),
            GroupError::UnknownMember { .. } => self.counts.saw(Seen::UnknownMember),
            GroupError::InstanceInUse { .. } => return self.counts.saw(Seen::InstanceInUse),
            _ => return,
        }
        if matches!(self.clients[reply.client].state, State::In) {
            self.clients[reply.client].reset();
        }
    }
}
