//! Replicas that move: off brokers that are about to go for good, and from brokers that have more than others.
//!
//! What moves stands in the partition's own state (`adding`, `removing`), and why in the Cluster: nothing else is remembered,
//! so that a controller that comes next goes on where this one was. All of it is a pure function of slices and brokers:
//!
//! - `step`: what one partition does next: begins to move, completes, goes back;
//! - `balance`: which replicas move so that all brokers have as many.

use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use taffrail_crds::{PartitionSliceSpec, PartitionState};
use uuid::Uuid;

use self::balance::{Balance, Move, Spot, SpotId};
use self::step::begin;
use super::elect::settle;
use super::place::{Load, Room};
use super::plan::{Changed, Slices};
use super::replicas::{release, with_epochs};

mod balance;
mod leaders;
mod step;

/// Partitions that move to one broker at a time. What it copies at a time does not make it faster, for it copies at one rate for
/// all together, and each partition has its old replicas until it is whole; more than one, so that small ones need not wait for
/// one another's changes of the slice.
pub const MAX_TO_BROKER: usize = 8;

/// A broker that has been silent for so long is not waited for as a place to move to. Longer than a broker takes to start again,
/// on another node too: until then nothing is lost but time, for those that go are still in sync.
pub const LOST: Duration = Duration::from_mins(5);

/// Why replicas move.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Wishes {
    /// Brokers shall have as many as others.
    pub rebalance: bool,
    /// That is looked at now. Otherwise only when a move has completed.
    pub judge: bool,
    /// Topics that brokers serve. Others have no leaders at work from which anything could be copied.
    pub served: BTreeSet<Uuid>,
    /// Brokers that have been silent for [`LOST`].
    pub lost: BTreeSet<i32>,
}

impl Wishes {
    fn are_served(&self, key: (Uuid, i32), slice: &PartitionSliceSpec) -> bool {
        slice.tombstone.is_none() && self.served.contains(&key.0)
    }
}

/// How many partitions began to move, have moved, or went back.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    /// Began.
    pub begun: usize,
    /// Have moved.
    pub completed: usize,
    /// Went back to where they were, or on to another broker.
    pub cancelled: usize,
}

/// Adds to `changed` what moves ask for.
pub fn moves(wishes: &Wishes, slices: &Slices<'_>, changed: &mut Changed, room: &mut Room<'_>) -> Tally {
    let mut mover =
        Mover { wishes, room, incoming: BTreeMap::new(), moving: false, drains: false, tally: Tally::default() };
    mover.count(slices, changed);
    mover.go_on(slices, changed);
    let looked_at = wishes.judge || mover.tally.completed > 0;
    // Brokers that are away for a moment would look as if they had less to do.
    let whole = mover.room.takers().len() == usize::try_from(mover.room.staying()).unwrap_or(usize::MAX);
    if wishes.rebalance && looked_at && whole && !mover.drains {
        mover.rebalance(slices, changed);
    }
    mover.tally
}

struct Mover<'a, 'b> {
    wishes: &'a Wishes,
    room: &'a mut Room<'b>,
    /// By broker: partitions that move to it.
    incoming: BTreeMap<i32, usize>,
    /// Something moves.
    moving: bool,
    /// Brokers that are about to go have something yet that can move.
    drains: bool,
    tally: Tally,
}

impl Mover<'_, '_> {
    fn count(&mut self, slices: &Slices<'_>, changed: &Changed) {
        let served = current(slices, changed).filter(|(key, slice)| self.wishes.are_served(*key, slice));
        for partition in served.flat_map(|(_, slice)| &slice.partitions) {
            self.moving |= partition.is_moving();
            for broker in &partition.adding {
                *self.incoming.entry(*broker).or_default() += 1;
            }
        }
    }

    /// Partitions that move, and those on brokers that are about to go: nothing else is looked at.
    fn go_on(&mut self, slices: &Slices<'_>, changed: &mut Changed) {
        let mut topics: BTreeMap<Uuid, Load> = BTreeMap::new();
        for (key, slice) in slices {
            for place in 0..slice.partitions.len() {
                let partition = &changed.get(key).unwrap_or(slice).partitions[place];
                let goes = partition.replicas.iter().any(|broker| self.room.goes(*broker));
                if !goes && !partition.is_moving() {
                    continue;
                }
                let of_topic = topics.entry(key.0).or_insert_with(|| load_of(key.0, slices, changed));
                let is_served = self.wishes.are_served(*key, slice);
                let next = match is_served {
                    false => self.lay_off(key.0, partition),
                    true if partition.is_moving() => self.advance(key.0, partition, of_topic),
                    true => self.drain(partition, of_topic),
                };
                self.drains |= is_served && goes;
                if let Some(next) = next {
                    changed.entry(*key).or_insert_with(|| (*slice).clone()).partitions[place] = next;
                }
            }
        }
    }

    /// Nobody serves the partition, so that nothing can be copied: those who go leave one after another while as many as a
    /// write needs have all of it. The others wait until it is served again, or deleted for good.
    fn lay_off(&mut self, topic: Uuid, partition: &PartitionState) -> Option<PartitionState> {
        let members = self.room.members();
        let settled = settle(topic, partition, members, false).unwrap_or_else(|| partition.clone());
        let mut next = settled.clone();
        for broker in settled.replicas.iter().filter(|broker| self.room.goes(**broker)) {
            release(&mut next, &[*broker], topic, members);
        }
        // Without this a partition that nobody has deleted would be settled here, and not where that is decided.
        let left = next.replicas.len() < settled.replicas.len();
        left.then(|| with_epochs(&settled, next)).flatten()
    }

    /// Replicas of brokers that are about to go begin to move.
    fn drain(&mut self, partition: &PartitionState, of_topic: &mut Load) -> Option<PartitionState> {
        // Without a leader there is nobody to copy from. One that was elected without proof may be alone with its log until
        // another has it: where the other replicas do not come back, only a new one can.
        partition.leader?;
        let mut next = partition.clone();
        for (place, broker) in partition.wanted().enumerate() {
            if !self.room.goes(broker) {
                continue;
            }
            let kept: Vec<_> = next.wanted().filter(|other| !self.room.goes(*other)).collect();
            let Some(to) = self.target(of_topic, &kept, place == 0) else { continue };
            self.room.shift(of_topic, (broker, to), place == 0);
            begin(&mut next, broker, to);
        }
        self.tally.begun += usize::from(next.is_moving());
        with_epochs(partition, next)
    }

    /// The best place for one more replica, counted as one more that moves there. One that has enough of that is waited for.
    fn target(&mut self, of_topic: &Load, kept: &[i32], leads: bool) -> Option<i32> {
        let to = self.room.replacement(of_topic, kept, leads)?;
        let incoming = self.incoming.entry(to).or_default();
        let has_room = *incoming < MAX_TO_BROKER;
        *incoming += usize::from(has_room);
        has_room.then_some(to)
    }

    fn rebalance(&mut self, slices: &Slices<'_>, changed: &mut Changed) {
        let mut topics: BTreeMap<Uuid, Vec<Spot>> = BTreeMap::new();
        for (key, slice) in current(slices, changed).collect::<BTreeMap<_, _>>() {
            let is_served = self.wishes.are_served(key, slice);
            let spot = |(place, partition)| Spot::of((key, place), partition, is_served);
            topics.entry(key.0).or_default().extend(slice.partitions.iter().enumerate().map(spot));
        }
        let mut topics: Vec<_> = topics.into_values().collect();
        let mut balance = Balance::new(self.room, &self.incoming);
        balance.even(&mut topics);
        let (chosen, waits) = (balance.chosen, balance.waits);
        self.tally.begun += chosen.len();
        if chosen.is_empty() && !waits && !self.moving {
            for ((key, place), replicas) in leaders::even(&mut topics, self.room.load().clone()) {
                change(slices, changed, (key, place), |next| next.replicas.clone_from(&replicas));
            }
        }
        for Move { spot, from, to } in chosen {
            change(slices, changed, spot, |next| begin(next, from, to));
        }
    }
}

/// Changes one partition, by its slice and its place there.
fn change(slices: &Slices<'_>, changed: &mut Changed, (key, place): SpotId, act: impl FnOnce(&mut PartitionState)) {
    if let (Entry::Vacant(entry), Some(slice)) = (changed.entry(key), slices.get(&key)) {
        entry.insert((*slice).clone());
    }
    let Some(partition) = changed.get_mut(&key).and_then(|slice| slice.partitions.get_mut(place)) else { return };
    let mut next = partition.clone();
    act(&mut next);
    if let Some(next) = with_epochs(partition, next) {
        *partition = next;
    }
}

/// All slices as they are to be.
fn current<'a>(
    slices: &'a Slices<'_>,
    changed: &'a Changed,
) -> impl Iterator<Item = ((Uuid, i32), &'a PartitionSliceSpec)> {
    let there = slices.iter().filter(|(key, _)| !changed.contains_key(key)).map(|(key, slice)| (*key, *slice));
    there.chain(changed.iter().map(|(key, slice)| (*key, slice)))
}

fn load_of(topic: Uuid, slices: &Slices<'_>, changed: &Changed) -> Load {
    let mut load = Load::default();
    let range = (topic, 0)..=(topic, i32::MAX);
    let there = slices.range(range.clone()).filter(|(key, _)| !changed.contains_key(key)).map(|(_, slice)| *slice);
    let of_topic = there.chain(changed.range(range).map(|(_, slice)| slice));
    of_topic.flat_map(|slice| &slice.partitions).for_each(|partition| load.count(partition));
    load
}

#[cfg(test)]
mod tests;
