//! What goes wrong beside the network and the broker: processes, topics, clocks, people.

use std::sync::Arc;
use std::time::Duration;

use taffrail_broker::coordinator::group::{Commit, Heartbeat, Request};
use taffrail_broker::coordinator::runtime::Input;

use super::client::{State, What};
use super::counts::Seen;
use super::model::Committer;
use super::simulation::{Happening, Simulation};

impl Simulation {
    pub(crate) fn fault(&mut self) {
        if !self.faulty {
            return;
        }
        let after = self.millis(50, 800);
        self.schedule(after, Happening::Fault);
        let at = self.rng.index(self.clients.len());
        match self.rng.below(10) {
            0 | 1 => self.change_topics(),
            2 => {
                self.counts.saw(Seen::WallClockJump);
                self.broker.wall_millis = (self.rng.next() >> 12) as i64 - (1 << 50);
            }
            3 if self.clients[at].state == State::In => {
                self.counts.saw(Seen::MemberPaused);
                let client = &self.clients[at];
                let pause = client.session_timeout + Duration::from_millis(100);
                self.clients[at].paused_until = self.now + pause + self.millis(0, 3_000);
            }
            4 if self.clients[at].state == State::In => {
                self.counts.saw(Seen::MemberKilled);
                let back = self.now + self.millis(50, 5_000);
                self.clients[at].reset();
                self.clients[at].state = State::Dead(back);
            }
            5 => self.clients[at].holds_on = self.rng.once_in(3),
            6 => self.administrate(at),
            7 | 8 => self.hostile(at),
            _ => {}
        }
    }

    pub(crate) fn change_topics(&mut self) {
        self.topics.change(&mut self.rng, &mut self.counts);
        self.broker.world = Arc::new(self.topics.view());
        self.apply(Input::World);
    }

    fn administrate(&mut self, at: usize) {
        let group = self.clients[at].group.clone();
        let partition = self.topics.any_partition(&mut self.rng);
        let (what, request) = match self.rng.below(6) {
            0 => (What::Other, Request::Delete(group)),
            1 => (What::Other, Request::Describe(group)),
            2 => (What::Other, Request::List),
            3 => {
                let offset = self.next_offset(Committer::Reset);
                (What::Other, Request::Reset { group, offsets: vec![(partition, offset)], force: true })
            }
            _ => {
                let offset = self.next_offset(Committer::Outside);
                let what = What::Commit(partition, offset.offset);
                (what, Request::Commit(Commit { group, member: None, offsets: vec![(partition, offset)] }))
            }
        };
        self.send(at, what, request);
    }

    /// In another's name, with epochs that are not its own, and with what nobody has.
    fn hostile(&mut self, at: usize) {
        self.counts.saw(Seen::Hostile);
        let victim = &self.clients[self.rng.index(self.clients.len())];
        let epoch = [i32::MIN, -2, -1, i32::MAX][self.rng.index(4)];
        let (group, member) = (victim.group.clone(), victim.member.clone());
        let mut join = victim.resume();
        let junk = || "\0\u{202e}".repeat(40);
        let owned = Some([self.topics.any_partition(&mut self.rng)].into());
        let request = match self.rng.below(6) {
            0 => Request::Heartbeat(Heartbeat { group, member, epoch, owned, subscription: None }),
            1 => Request::Leave { group, member, epoch, returning: self.rng.once_in(2) },
            2 => Request::Refresh { group: junk(), member: junk(), epoch },
            3 => {
                let partition = self.topics.any_partition(&mut self.rng);
                let offset = self.next_offset(Committer::Member(member.clone(), epoch));
                let member = Some((member, epoch));
                Request::Commit(Commit { group, member, offsets: vec![(partition, offset)] })
            }
            4 => Request::Delete(junk()),
            _ => {
                if let Request::Join(join) = &mut join {
                    join.epoch = epoch;
                    join.owned.extend(owned.into_iter().flatten());
                }
                join
            }
        };
        self.send(at, What::Other, request);
    }
}
