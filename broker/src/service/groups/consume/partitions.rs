//! The partitions that a Consume stream holds in its member's name. No I/O.
//!
//! A partition is *starting* until it is known where to begin, then *reading*; once it is to go to someone else it is
//! *revoked*: nothing is delivered any more, and it is held until the client has let go. Tokens are never used again, so what
//! is still under way for a partition that was taken away or sought anew finds nothing.

use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};

use crate::coordinator::group::{Membership, TopicPartition};
use crate::service::fetch::Reader;

/// A partition that is held.
struct Held {
    token: u64,
    state: State,
}

enum State {
    Starting,
    Reading(Box<Reading>),
    Revoked,
}

/// A partition that is read.
pub(super) struct Reading {
    pub(super) reader: Reader,
    pub(super) paused: bool,
    /// A read is under way.
    pub(super) busy: bool,
    queued: bool,
}

/// What follows from where the member stands now.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Changes {
    /// To be started, with their tokens.
    pub(super) start: Vec<(TopicPartition, u64)>,
    /// The client is to let go of.
    pub(super) revoke: Vec<TopicPartition>,
    /// The client has lost.
    pub(super) lost: Vec<TopicPartition>,
    /// The coordinator waits for what is not held any more: to be told.
    pub(super) tell_owned: bool,
}

/// All partitions of a stream.
#[derive(Default)]
pub(super) struct Partitions {
    held: BTreeMap<TopicPartition, Held>,
    by_token: HashMap<u64, TopicPartition>,
    ready: VecDeque<u64>,
    last_token: u64,
}

impl Partitions {
    /// Everything that is held: what the member owns.
    pub(super) fn owned(&self) -> BTreeSet<TopicPartition> {
        self.held.keys().copied().collect()
    }

    /// Takes in where the member stands.
    pub(super) fn follow(&mut self, membership: &Membership) -> Changes {
        let mut changes = Changes::default();
        let Membership { assigned, revoking, .. } = membership;
        let gone: Vec<_> = self.held.keys().filter(|id| !assigned.contains(id)).copied().collect();
        for id in gone {
            self.take_away(id, revoking.contains(&id), &mut changes);
        }
        for id in assigned.iter().filter(|id| !self.held.contains_key(id)).copied().collect::<Vec<_>>() {
            let token = self.new_token(id);
            self.held.insert(id, Held { token, state: State::Starting });
            changes.start.push((id, token));
        }
        changes.tell_owned = revoking.iter().any(|id| !self.held.contains_key(id));
        changes
    }

    fn take_away(&mut self, id: TopicPartition, is_waited_for: bool, changes: &mut Changes) {
        let Some(held) = self.held.get_mut(&id) else { return };
        match held.state {
            // The client has not heard of it.
            State::Starting => self.drop_held(id),
            State::Reading(_) if is_waited_for => {
                held.state = State::Revoked;
                self.by_token.remove(&held.token);
                changes.revoke.push(id);
            }
            State::Revoked if is_waited_for => {}
            State::Reading(_) | State::Revoked => {
                self.drop_held(id);
                changes.lost.push(id);
            }
        }
    }

    fn drop_held(&mut self, id: TopicPartition) {
        if let Some(held) = self.held.remove(&id) {
            self.by_token.remove(&held.token);
        }
    }

    fn new_token(&mut self, id: TopicPartition) -> u64 {
        self.last_token += 1;
        self.by_token.insert(self.last_token, id);
        self.last_token
    }

    /// The client has let go of these; whether any of them was waited for.
    pub(super) fn released(&mut self, partitions: &BTreeSet<TopicPartition>) -> bool {
        let is_revoked = |id: &&TopicPartition| matches!(self.held.get(id), Some(Held { state: State::Revoked, .. }));
        let released: Vec<_> = partitions.iter().filter(is_revoked).copied().collect();
        for id in &released {
            self.held.remove(id);
        }
        !released.is_empty()
    }

    /// Takes everything away; what the client had heard of.
    pub(super) fn lose_all(&mut self) -> Vec<TopicPartition> {
        self.by_token.clear();
        let held = std::mem::take(&mut self.held).into_iter();
        held.filter(|(_, held)| !matches!(held.state, State::Starting)).map(|(id, _)| id).collect()
    }

    /// It is known where a starting partition begins; false if it was taken away in between.
    pub(super) fn begin(&mut self, token: u64, reader: Reader) -> bool {
        let Some(held) = self.by_token.get(&token).and_then(|id| self.held.get_mut(id)) else { return false };
        held.state = State::Reading(Box::new(Reading { reader, paused: false, busy: false, queued: false }));
        self.wake(token);
        true
    }

    /// Stops the delivery of partitions, or goes on with it.
    pub(super) fn pause(&mut self, partitions: &BTreeSet<TopicPartition>, paused: bool) {
        for id in partitions {
            let Some(Held { token, state: State::Reading(reading) }) = self.held.get_mut(id) else { continue };
            reading.paused = paused;
            let token = *token;
            self.wake(token);
        }
    }

    /// Reads a partition from another offset.
    pub(super) fn seek(&mut self, id: TopicPartition, offset: i64) {
        let Some(Held { token: old, state: State::Reading(_) }) = self.held.get(&id) else { return };
        self.by_token.remove(old);
        let token = self.new_token(id);
        let Some(Held { token: current, state: State::Reading(reading) }) = self.held.get_mut(&id) else { return };
        *current = token;
        (reading.reader.offset, reading.reader.last_epoch) = (offset, None);
        (reading.busy, reading.queued) = (false, false);
        self.wake(token);
    }

    /// What is read under a token, if it still is.
    pub(super) fn reading(&mut self, token: u64) -> Option<&mut Reading> {
        match &mut self.held.get_mut(self.by_token.get(&token)?)?.state {
            State::Reading(reading) => Some(reading),
            State::Starting | State::Revoked => None,
        }
    }

    /// A partition is worth a look.
    pub(super) fn wake(&mut self, token: u64) {
        let Some(reading) = self.reading(token) else { return };
        // A read under way looks again when it has ended.
        if !reading.busy && !reading.queued {
            reading.queued = true;
            self.ready.push_back(token);
        }
    }

    /// The partition that has waited longest for a look: its read begins.
    pub(super) fn next_ready(&mut self) -> Option<(u64, Reader)> {
        while let Some(token) = self.ready.pop_front() {
            let Some(reading) = self.reading(token) else { continue };
            reading.queued = false;
            if !reading.paused {
                reading.busy = true;
                return Some((token, reading.reader.clone()));
            }
        }
        None
    }
}

#[cfg(test)]
mod tests;
