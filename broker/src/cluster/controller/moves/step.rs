//! The steps of one partition that moves.
//!
//! Each that is being added stands in `adding` at the place at which the one that it is to replace stands in `removing`.

use taffrail_crds::PartitionState;
use uuid::Uuid;

use super::super::place::Load;
use super::super::replicas::{arrange, release, with_epochs};
use super::{MAX_TO_BROKER, Mover};

/// One of the replicas begins to move: the new broker takes its place in the order of preference.
pub(super) fn begin(next: &mut PartitionState, from: i32, to: i32) {
    if let Some(place) = next.replicas.iter_mut().find(|broker| **broker == from) {
        *place = to;
        next.adding.push(to);
        next.removing.push(from);
        next.replicas.push(from);
    }
}

impl Mover<'_, '_> {
    /// What becomes of a partition that moves; `None`: it waits.
    pub(super) fn advance(
        &mut self,
        topic: Uuid,
        partition: &PartitionState,
        of_topic: &mut Load,
    ) -> Option<PartitionState> {
        let mut next = partition.clone();
        for broker in &partition.removing {
            if !self.is_to_go(*broker, partition) {
                self.take_back(topic, &mut next, *broker, of_topic);
            }
        }
        for broker in &partition.adding {
            if self.is_hopeless(*broker) {
                self.send_on(topic, &mut next, *broker, of_topic);
            }
        }
        let went_back = next != *partition;
        let has_moved = next.is_moving() && complete(&mut next, topic, self.room.members());
        self.tally.cancelled += usize::from(went_back);
        self.tally.completed += usize::from(has_moved);
        with_epochs(partition, next)
    }

    /// Whether somebody wants that replica to go, and there is hope for the one that is to take its place.
    fn is_to_go(&self, broker: i32, partition: &PartitionState) -> bool {
        let place = partition.removing.iter().position(|other| *other == broker);
        let heir = place.and_then(|place| partition.adding.get(place));
        self.room.goes(broker) || self.wishes.rebalance && !heir.is_some_and(|heir| self.is_hopeless(*heir))
    }

    /// It is to go itself, or has been away for long.
    fn is_hopeless(&self, broker: i32) -> bool {
        self.room.goes(broker) || self.wishes.lost.contains(&broker)
    }

    /// A replica that was to go stays, in its old place, and the one that was to have that leaves.
    fn take_back(&mut self, topic: Uuid, next: &mut PartitionState, broker: i32, of_topic: &mut Load) {
        let Some(place) = next.removing.iter().position(|other| *other == broker) else { return };
        let mut back = next.clone();
        back.removing.remove(place);
        if let Some(heir) = back.adding.get(place).copied() {
            back.replicas.retain(|other| *other != broker);
            let at = back.replicas.iter().position(|other| *other == heir).unwrap_or(back.replicas.len());
            back.replicas.insert(at, broker);
            if !release(&mut back, &[heir], topic, self.room.members()) {
                return;
            }
            self.room.shift(of_topic, (heir, broker), at == 0);
            self.arrives_no_more(heir);
        } else {
            self.room.keep(of_topic, broker);
        }
        if back.removing.is_empty() {
            back.adding.clear();
        }
        arrange(&mut back);
        *next = back;
    }

    /// Another broker takes the place of one that is being added, if there is one. Otherwise that is waited for.
    fn send_on(&mut self, topic: Uuid, next: &mut PartitionState, broker: i32, of_topic: &mut Load) {
        let Some(at) = next.replicas.iter().position(|other| *other == broker) else { return };
        let Some(place) = next.adding.iter().position(|other| *other == broker) else { return };
        let kept: Vec<_> = next.wanted().filter(|other| *other != broker).collect();
        let Some(to) = self.room.replacement(of_topic, &kept, at == 0) else { return };
        let is_full = self.incoming.get(&to).is_some_and(|incoming| *incoming >= MAX_TO_BROKER);
        let mut other = next.clone();
        other.replicas.insert(at, to);
        other.adding.insert(place, to);
        if is_full || next.replicas.contains(&to) || !release(&mut other, &[broker], topic, self.room.members()) {
            return;
        }
        self.room.shift(of_topic, (broker, to), at == 0);
        self.arrives_no_more(broker);
        *self.incoming.entry(to).or_default() += 1;
        self.tally.begun += 1;
        *next = other;
    }

    fn arrives_no_more(&mut self, broker: i32) {
        if let Some(incoming) = self.incoming.get_mut(&broker) {
            *incoming = incoming.saturating_sub(1);
        }
    }
}

/// Those that go leave, once all that are being added are in sync, and as many as a write needs (I10): also where those that go
/// count for nothing.
fn complete(next: &mut PartitionState, topic: Uuid, members: &super::super::members::Members) -> bool {
    let gone = next.removing.clone();
    let in_sync = |broker: &i32| next.isr.iter().any(|replica| replica.broker == *broker);
    let stay = next.isr.iter().filter(|replica| !gone.contains(&replica.broker)).count();
    if !next.adding.iter().all(in_sync) || stay < next.min_in_sync_replicas as usize {
        return false;
    }
    if !release(next, &gone, topic, members) {
        return false;
    }
    next.adding.clear();
    true
}
