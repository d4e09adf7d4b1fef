//! Which replicas are preferred to lead, so that all brokers lead as many: an order of what is there already. Nothing is copied.

use std::collections::BTreeSet;

use super::super::place::Load;
use super::balance::{Spot, SpotId, load_of};

/// Partitions whose order of preference is to be another, and that.
///
/// Each change makes a topic's leaders more even, or those of all topics while the topic's stay as even as they are: so it
/// ends.
pub(super) fn even(topics: &mut [Vec<Spot>], mut all: Load) -> Vec<(SpotId, Vec<i32>)> {
    let mut changed = Vec::new();
    for spots in topics {
        let mut load = load_of(spots);
        let before: Vec<Vec<i32>> = spots.iter().map(|spot| spot.replicas.clone()).collect();
        while pass(spots, &mut load, &mut all) {}
        let others = spots.iter().zip(before).filter(|(spot, before)| spot.replicas != *before);
        changed.extend(others.map(|(spot, _)| (spot.id, spot.replicas.clone())));
    }
    changed
}

/// Whether anything has changed. Brokers that lead more than their share give first, so that nothing is given twice.
fn pass(spots: &mut [Spot], load: &mut Load, all: &mut Load) -> bool {
    let brokers: BTreeSet<_> = spots.iter().flat_map(|spot| &spot.replicas).copied().collect();
    let share = spots.len() / brokers.len().max(1);
    let mut any = false;
    for least in [share + 1, 1] {
        for spot in spots.iter_mut().filter(|spot| spot.movable) {
            let from = spot.replicas.first().copied().filter(|from| load.leaders(*from) >= least);
            let weight = |broker: i32| (load.leaders(broker), all.leaders(broker), broker);
            let heir = spot.replicas.iter().copied().enumerate().skip(1).min_by_key(|(_, broker)| weight(*broker));
            let (Some(from), Some((place, to))) = (from, heir) else { continue };
            if is_better((from, to), load, all) {
                load.prefer(from, to);
                all.prefer(from, to);
                spot.replicas.swap(0, place);
                any = true;
            }
        }
    }
    any
}

fn is_better((from, to): (i32, i32), load: &Load, all: &Load) -> bool {
    let (has, would_have) = (load.leaders(from), load.leaders(to) + 1);
    would_have < has || would_have == has && all.leaders(to) + 2 <= all.leaders(from)
}

#[cfg(test)]
mod tests;
