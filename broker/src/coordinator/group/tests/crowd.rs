use std::collections::BTreeMap;
use std::time::Duration;

use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

use super::super::*;
use super::harness::{Harness, join};

/// No partition is held by two, and what each member of the crowd was told it owns is its own.
fn check(harness: &mut Harness, told: &BTreeMap<String, Membership>) {
    let mut holders = BTreeMap::new();
    for member in harness.describe().unwrap().members {
        for partition in member.assigned.iter().chain(&member.revoking) {
            let other = holders.insert(*partition, member.member.clone());
            assert_eq!(other, None, "C6: {partition:?} has two owners");
        }
    }
    for (id, membership) in told {
        for partition in membership.assigned.iter().chain(&membership.revoking) {
            assert_eq!(holders.get(partition), Some(id), "C6: {id} was told that {partition:?} is its own");
        }
    }
}

/// A member asks, and does what it is told.
fn turn(harness: &mut Harness, id: &str, told: &mut BTreeMap<String, Membership>) {
    let epoch = told[id].epoch;
    let answer = harness.refresh(id, epoch).unwrap();
    let answer = harness.heartbeat(id, answer.epoch, Some(answer.assigned)).unwrap();
    told.insert(id.to_owned(), answer);
}

#[test]
fn c6_a_thousand_random_joins_and_leaves() {
    let mut rng = StdRng::seed_from_u64(1);
    let mut harness = Harness::new(&[("a", 1, 40)]);
    let mut told: BTreeMap<String, Membership> = BTreeMap::new();
    for step in 0..1_000 {
        harness.pass(Duration::from_millis(100));
        let ids: Vec<String> = told.keys().cloned().collect();
        let any = |rng: &mut StdRng| ids[rng.random_range(0..ids.len())].clone();
        if ids.is_empty() || ids.len() < 20 && rng.random_bool(0.5) {
            let id = format!("m{step}");
            let joined = harness.join(join(&id)).unwrap();
            told.insert(id, joined);
        } else {
            let id = any(&mut rng);
            let epoch = told.remove(&id).unwrap().epoch;
            harness.leave(&id, epoch, false).unwrap();
        }
        for id in told.keys().cloned().collect::<Vec<_>>() {
            if rng.random_bool(0.3) {
                turn(&mut harness, &id, &mut told);
            }
        }
        check(&mut harness, &told);
    }
    if told.is_empty() {
        told.insert("last".to_owned(), harness.join(join("last")).unwrap());
    }
    for _ in 0..3 {
        for id in told.keys().cloned().collect::<Vec<_>>() {
            turn(&mut harness, &id, &mut told);
        }
    }
    let owned: usize = told.values().map(|membership| membership.assigned.len()).sum();
    assert_eq!(owned, 40, "each partition is owned three turns later");
    check(&mut harness, &told);
}

#[test]
fn group_is_full_at_its_bound() {
    let mut shard = GroupShard::new();
    let of_group = |change| Record::Group { group: "g".into(), change };
    crate::coordinator::StateMachine::replay(&mut shard, &of_group(Change::Standing(Standing::default())));
    let profile = Box::new(Profile::of(&join("m")));
    for at in 0..MAX_MEMBERS {
        let change = Change::Profile { member: format!("m{at}").into(), profile: profile.clone() };
        crate::coordinator::StateMachine::replay(&mut shard, &of_group(change));
    }
    let mut harness = Harness::new(&[("a", 1, 1)]);
    harness.shard = shard;
    let full = GroupError::Full { group: "g".to_owned(), members: MAX_MEMBERS };
    let world = std::mem::take(&mut harness.world);
    let env = crate::coordinator::Env { now: Duration::ZERO, log_millis: 0, wall_millis: 0, world: &world };
    let effects =
        crate::coordinator::StateMachine::handle(&harness.shard, Request::Join(Box::new(join("one more"))), &env);
    assert_eq!(effects.answer, Some(Err(full)));
    assert!(effects.records.is_empty());
}
