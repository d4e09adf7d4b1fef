//! Which replicas move so that all brokers have as many.
//!
//! Every move makes the whole better by an order in which nothing comes back: partitions over zones, then each topic over
//! brokers, then all topics together. So it ends, and never goes to and fro. Replicas go from who has most to who has least: so
//! no more move than must, where zones do not stand in the way.

use std::collections::BTreeMap;

use taffrail_crds::PartitionState;
use uuid::Uuid;

use super::super::place::{Load, Room};
use super::MAX_TO_BROKER;

/// A partition: its slice, and its place there.
pub(super) type SpotId = ((Uuid, i32), usize);

/// A partition as it shall be.
#[derive(Clone, Debug)]
pub(super) struct Spot {
    pub id: SpotId,
    /// The brokers that it shall have, the preferred leader first.
    pub replicas: Vec<i32>,
    /// It is whole, so that one of its replicas can move.
    pub movable: bool,
}

/// A replica that is to move.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Move {
    pub spot: SpotId,
    pub from: i32,
    pub to: i32,
}

/// What is chosen in one go.
pub(super) struct Balance<'a> {
    zones: BTreeMap<i32, Option<&'a str>>,
    all: Load,
    incoming: BTreeMap<i32, usize>,
    pub chosen: Vec<Move>,
    /// More is to move, to brokers to which enough moves now.
    pub waits: bool,
}

impl Spot {
    /// Only what is served, and where all are in sync: what catches up shall not be held up by more of it.
    pub(super) fn of(id: SpotId, partition: &PartitionState, is_served: bool) -> Self {
        let replicas: Vec<_> = partition.wanted().collect();
        let is_whole = partition.isr.len() == replicas.len() && replicas.len() == partition.replication_factor as usize;
        let movable =
            is_served && is_whole && !partition.is_moving() && partition.leader.is_some() && !partition.recovering;
        Self { id, replicas, movable }
    }
}

/// What a topic's brokers have of it.
pub(super) fn load_of(spots: &[Spot]) -> Load {
    let mut load = Load::default();
    for spot in spots {
        load.add(&spot.replicas);
    }
    load
}

impl<'a> Balance<'a> {
    /// Among the brokers of `room` that can take something, to which so many partitions move already.
    pub(super) fn new(room: &Room<'a>, incoming: &BTreeMap<i32, usize>) -> Self {
        let zones = room.takers().iter().map(|member| (member.id, member.zone.as_deref())).collect();
        Self { zones, all: room.load().clone(), incoming: incoming.clone(), chosen: Vec::new(), waits: false }
    }

    /// Chooses as much as may move now.
    pub(super) fn even(&mut self, topics: &mut [Vec<Spot>]) {
        let mut loads: Vec<_> = topics.iter().map(|spots| load_of(spots)).collect();
        for (spots, load) in topics.iter_mut().zip(&mut loads) {
            self.spread_over_zones(spots, load);
        }
        for (spots, load) in topics.iter_mut().zip(&mut loads) {
            self.even_topic(spots, load);
        }
        // The topics' own evenness comes first: what is chosen for that can serve this too.
        if self.chosen.is_empty() && !self.waits {
            self.even_all(topics, &mut loads);
        }
    }

    /// A replica that shares its zone moves to one that has less of the partition.
    fn spread_over_zones(&mut self, spots: &mut [Spot], load: &mut Load) {
        for spot in spots.iter_mut().filter(|spot| spot.movable) {
            let weight = |broker: i32| (load.replicas(broker), self.all.replicas(broker), broker);
            let crowd = |broker: &i32| self.in_zone(&spot.replicas, *broker);
            let from = spot.replicas.iter().copied().max_by_key(|broker| (crowd(broker), weight(*broker)));
            let others = self.zones.keys().copied().filter(|broker| !spot.replicas.contains(broker));
            let to = others.min_by_key(|broker| (crowd(broker), weight(*broker)));
            if let (Some(from), Some(to)) = (from, to)
                && crowd(&to) + 2 <= crowd(&from)
            {
                self.choose(spot, load, (from, to));
            }
        }
    }

    /// The topic's replicas go from the broker that has most of them to the one that has least.
    fn even_topic(&mut self, spots: &mut [Spot], load: &mut Load) {
        while let Some((at, from, to)) = self.uneven(spots, load) {
            if !self.choose(&mut spots[at], load, (from, to)) {
                return;
            }
        }
    }

    fn uneven(&self, spots: &[Spot], load: &Load) -> Option<(usize, i32, i32)> {
        let mut brokers: Vec<_> = self.zones.keys().copied().collect();
        brokers.sort_by_key(|broker| (load.replicas(*broker), self.all.replicas(*broker), *broker));
        for from in brokers.iter().rev() {
            let less = brokers.iter().take_while(|to| load.replicas(**to) + 2 <= load.replicas(*from));
            for to in less {
                if let Some(at) = self.spot(spots, *from, *to) {
                    return Some((at, *from, *to));
                }
            }
        }
        None
    }

    /// Replicas go from the broker that has most of all to the one that has least, of topics of which it has one less: so these
    /// stay as even as they are.
    fn even_all(&mut self, topics: &mut [Vec<Spot>], loads: &mut [Load]) {
        while let Some((topic, at, from, to)) = self.uneven_in_all(topics, loads) {
            if !self.choose(&mut topics[topic][at], &mut loads[topic], (from, to)) {
                return;
            }
        }
    }

    fn uneven_in_all(&self, topics: &[Vec<Spot>], loads: &[Load]) -> Option<(usize, usize, i32, i32)> {
        let mut brokers: Vec<_> = self.zones.keys().copied().collect();
        brokers.sort_by_key(|broker| (self.all.replicas(*broker), *broker));
        for from in brokers.iter().rev() {
            let less = brokers.iter().take_while(|to| self.all.replicas(**to) + 2 <= self.all.replicas(*from));
            for to in less {
                let has_less = |(_, load): &(usize, &Load)| load.replicas(*to) < load.replicas(*from);
                for (topic, _) in loads.iter().enumerate().filter(has_less) {
                    if let Some(at) = self.spot(&topics[topic], *from, *to) {
                        return Some((topic, at, *from, *to));
                    }
                }
            }
        }
        None
    }

    /// Which of a topic's partitions had best move its replica, if its zones are not worse for it: one whose leader it does not
    /// prefer there, for that moves without anybody noticing.
    fn spot(&self, spots: &[Spot], from: i32, to: i32) -> Option<usize> {
        let can = |spot: &Spot| {
            let here = spot.replicas.contains(&from) && !spot.replicas.contains(&to);
            let same = self.zone(from) == self.zone(to);
            here && (same || self.in_zone(&spot.replicas, to) < self.in_zone(&spot.replicas, from))
        };
        let able = spots.iter().enumerate().filter(|(_, spot)| spot.movable && can(spot));
        able.min_by_key(|(at, spot)| (spot.replicas.first() == Some(&from), *at)).map(|(at, _)| at)
    }

    /// `false`: enough moves to that broker now.
    fn choose(&mut self, spot: &mut Spot, load: &mut Load, (from, to): (i32, i32)) -> bool {
        let incoming = self.incoming.entry(to).or_default();
        if *incoming >= MAX_TO_BROKER {
            self.waits = true;
            return false;
        }
        *incoming += 1;
        let Some(place) = spot.replicas.iter().position(|broker| *broker == from) else { return false };
        load.shift(from, to, place == 0);
        self.all.shift(from, to, place == 0);
        spot.replicas[place] = to;
        spot.movable = false;
        self.chosen.push(Move { spot: spot.id, from, to });
        true
    }

    fn zone(&self, broker: i32) -> Option<&'a str> {
        self.zones.get(&broker).copied().flatten()
    }

    /// How many of these are in the broker's zone.
    fn in_zone(&self, brokers: &[i32], broker: i32) -> usize {
        brokers.iter().filter(|other| self.zone(**other) == self.zone(broker)).count()
    }
}

#[cfg(test)]
mod tests;
