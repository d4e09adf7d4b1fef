use proptest::prelude::*;

use super::super::super::members::Members;
use super::super::super::members::tests::members;
use super::*;

/// Topics of partitions with these replicas, all of them whole.
fn topics(replicas: &[Vec<Vec<i32>>]) -> Vec<Vec<Spot>> {
    let spot = |topic: usize, place: usize, replicas: &Vec<i32>| Spot {
        id: ((Uuid::from_u128(topic as u128 + 1), 0), place),
        replicas: replicas.clone(),
        movable: true,
    };
    let topic = |(topic, all): (usize, &Vec<Vec<i32>>)| {
        all.iter().enumerate().map(|(place, replicas)| spot(topic, place, replicas)).collect()
    };
    replicas.iter().enumerate().map(topic).collect()
}

fn all_of(topics: &[Vec<Spot>]) -> Load {
    let mut load = Load::default();
    topics.iter().flatten().for_each(|spot| load.add(&spot.replicas));
    load
}

/// Moves until nothing is left to move; how many moved.
fn run(topics: &mut [Vec<Spot>], members: &Members) -> usize {
    let mut moved = 0;
    for _ in 0..10_000 {
        let room = Room::new(members, members.values().collect(), all_of(topics));
        let mut balance = Balance::new(&room, &BTreeMap::new());
        balance.even(topics);
        if balance.chosen.is_empty() {
            assert!(!balance.waits);
            return moved;
        }
        moved += balance.chosen.len();
        topics.iter_mut().flatten().for_each(|spot| spot.movable = true);
    }
    panic!("it does not end");
}

fn range(load: &Load, brokers: i32) -> usize {
    let all = || (0..brokers).map(|broker| load.replicas(broker));
    all().max().unwrap_or(0) - all().min().unwrap_or(0)
}

fn crowd(spot: &Spot, members: &Members) -> usize {
    let zone = |broker: &i32| &members[broker].zone;
    let squares = spot.replicas.iter().map(|one| spot.replicas.iter().filter(|other| zone(one) == zone(other)).count());
    squares.sum()
}

/// Distinct brokers for each partition of some topics.
fn placements(brokers: i32, factors: std::ops::RangeInclusive<usize>) -> impl Strategy<Value = Vec<Vec<Vec<i32>>>> {
    let replicas = move |factor: usize| {
        let all: Vec<i32> = (0..brokers).collect();
        Just(all).prop_shuffle().prop_map(move |all| all[..factor].to_vec())
    };
    let topic = factors.prop_flat_map(move |factor| proptest::collection::vec(replicas(factor), 1..40));
    proptest::collection::vec(topic, 1..5)
}

fn in_zones(brokers: i32, zones: i32) -> Members {
    let mut members = members(brokers);
    for member in members.values_mut() {
        member.zone = (zones > 0).then(|| format!("zone-{}", member.id % zones));
    }
    members
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]
    /// Where zones do not stand in the way, all brokers have as many of each topic and of all, and it takes no more than those
    /// that are too many somewhere.
    #[test]
    fn without_zones_all_end_with_as_many((brokers, placed) in (2..7i32).prop_flat_map(|brokers| {
        (Just(brokers), placements(brokers, 1..=(brokers as usize).min(3)))
    })) {
        for zones in [0, 1, brokers] {
            let (members, mut topics) = (in_zones(brokers, zones), topics(&placed));
            let too_many: usize = topics.iter().map(|spots| {
                let (load, replicas) = (load_of(spots), spots.iter().map(|spot| spot.replicas.len()).sum::<usize>());
                let most = replicas.div_ceil(brokers as usize);
                let least = replicas / brokers as usize;
                let over: usize = (0..brokers).map(|broker| load.replicas(broker).saturating_sub(most)).sum();
                let under: usize = (0..brokers).map(|broker| least.saturating_sub(load.replicas(broker))).sum();
                over.max(under)
            }).sum();
            let moved = run(&mut topics, &members);
            prop_assert!(moved <= too_many + topics.len() * brokers as usize, "{} of {}", moved, too_many);
            for spots in &topics {
                prop_assert!(range(&load_of(spots), brokers) <= 1, "{:?}", load_of(spots));
                for spot in spots {
                    let mut distinct = spot.replicas.clone();
                    distinct.sort_unstable();
                    distinct.dedup();
                    prop_assert_eq!(distinct.len(), spot.replicas.len());
                }
            }
            prop_assert!(range(&all_of(&topics), brokers) <= 1, "{:?}", all_of(&topics));
        }
    }

    /// With zones it ends too, no partition's zones are worse for it, and where each zone has as many brokers and each
    /// partition a replica in each, all brokers of a zone have as many.
    #[test]
    fn zones_are_never_worse_and_it_ends(
        placed in placements(6, 1..=4),
        zones in 2..5i32,
    ) {
        let (members, mut topics) = (in_zones(6, zones), topics(&placed));
        let before: Vec<_> = topics.iter().flatten().map(|spot| crowd(spot, &members)).collect();
        run(&mut topics, &members);
        for (spot, before) in topics.iter().flatten().zip(before) {
            prop_assert!(crowd(spot, &members) <= before, "{:?}", spot);
            if zones == 3 {
                let best = if spot.replicas.len() == 4 { 6 } else { spot.replicas.len() };
                prop_assert_eq!(crowd(spot, &members), best, "{:?}", spot);
            }
        }
        for spots in topics.iter().filter(|spots| zones == 3 && spots[0].replicas.len() == 3) {
            prop_assert!(range(&load_of(spots), 6) <= 1, "{:?}", load_of(spots));
        }
    }
}

#[test]
fn no_more_moves_than_must() {
    let members = in_zones(3, 0);
    let mut topics = topics(&[[vec![vec![0]; 6], vec![vec![1]; 3]].concat()]);
    assert_eq!(run(&mut topics, &members), 3);
}

#[test]
fn a_topic_waits_for_the_broker_that_has_least() {
    let members = in_zones(3, 0);
    let mut topics = topics(&[[vec![vec![0]; 60], vec![vec![1]; 30]].concat()]);
    let room = Room::new(&members, members.values().collect(), all_of(&topics));
    let mut balance = Balance::new(&room, &BTreeMap::new());
    balance.even(&mut topics);
    assert_eq!((balance.chosen.len(), balance.waits), (MAX_TO_BROKER, true));
    assert!(balance.chosen.iter().all(|chosen| (chosen.from, chosen.to) == (0, 2)));
}

#[test]
fn a_follower_moves_before_a_leader() {
    let members = in_zones(3, 0);
    let mut topics = topics(&[vec![vec![0, 1], vec![1, 0], vec![0, 1]]]);
    run(&mut topics, &members);
    let leaders: Vec<_> = topics[0].iter().map(|spot| spot.replicas[0]).collect();
    assert_eq!(leaders, [0, 1, 0]);
}

#[test]
fn partitions_that_are_not_whole_stay_where_they_are() {
    let members = in_zones(2, 0);
    let mut topics = topics(&[vec![vec![0]; 4]]);
    for spot in &mut topics[0] {
        spot.movable = false;
    }
    let room = Room::new(&members, members.values().collect(), all_of(&topics));
    let mut balance = Balance::new(&room, &BTreeMap::new());
    balance.even(&mut topics);
    assert_eq!(balance.chosen, []);
}
