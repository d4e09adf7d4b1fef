use proptest::prelude::*;
use serde_json::{Value, json};
use taffrail_crds::slice::{Replica, Tombstone};
use taffrail_crds::{Kind, PartitionSlice, PartitionSliceSpec, admission};

use super::super::members::tests::members;
use super::super::members::{Members, can_take};
use super::super::replicas::adapt;
use super::super::slices::Wanted;
use super::super::slices::tests::{spread, wanted};
use super::*;
use crate::cluster::serving::has_recovered;

const TOPIC: Uuid = Uuid::from_u128(9);

/// A cluster whose slices are written at once, and whose every step is checked.
pub(super) struct World {
    members: Members,
    slices: BTreeMap<(Uuid, i32), PartitionSliceSpec>,
    staying: i32,
    wishes: Wishes,
    wanted: Wanted,
    tally: Tally,
    /// Replicas that were copied.
    copied: usize,
}

fn session(broker: i32) -> Replica {
    Replica { broker, incarnation: 10 + i64::from(broker) }
}

/// All in sync, led by the first.
fn partition(index: i32, replicas: &[i32], min_in_sync: i32) -> PartitionState {
    let of = Wanted { min_in_sync_replicas: min_in_sync, ..wanted(1) };
    let state = spread(&of).remove(0).partitions.remove(0);
    PartitionState {
        index,
        replicas: replicas.to_vec(),
        leader: replicas.first().copied(),
        isr: replicas.iter().copied().map(session).collect(),
        replication_factor: replicas.len() as i32,
        min_in_sync_replicas: min_in_sync,
        ..state
    }
}

fn document(slice: &PartitionSliceSpec) -> Value {
    let mut slice = PartitionSlice::new("slice", slice.clone());
    slice.metadata.namespace = Some("default".to_owned());
    json!(slice)
}

fn check(before: &PartitionSliceSpec, next: &PartitionSliceSpec) {
    let faults = admission::admit_kind(Kind::PartitionSlice, &document(next), Some(&document(before)));
    assert!(faults.is_empty(), "{faults:?}: {before:?} to {next:?}");
    for (before, next) in before.partitions.iter().zip(&next.partitions) {
        let gone = |broker: &&i32| !next.replicas.contains(*broker);
        if before.replicas.iter().any(|broker| gone(&broker)) {
            assert!(next.leader_epoch > before.leader_epoch, "i10: {before:?} to {next:?}");
            assert!(!next.recovering && next.leader.is_some(), "{before:?} to {next:?}");
        }
        let counted = before.isr.iter().chain(&before.elr).chain(&before.last_known_elr);
        if counted.map(|replica| &replica.broker).any(|broker| gone(&broker)) {
            assert!(next.isr.len() >= next.min_in_sync_replicas as usize, "i10: {before:?} to {next:?}");
        }
        assert!(next.removing.len() <= next.replicas.len() && next.wanted().count() > 0, "{next:?}");
        let stand: Vec<_> = next.wanted().chain(next.removing.iter().copied()).collect();
        assert_eq!(stand, next.replicas, "those that go stand last");
    }
}

impl World {
    /// With a topic of these partitions.
    pub(super) fn of(brokers: i32, partitions: &[&[i32]]) -> Self {
        let mut slices = BTreeMap::new();
        for (index, replicas) in (0..).zip(partitions) {
            let key = (TOPIC, index - index % 64);
            let empty =
                || PartitionSliceSpec { first_index: key.1, partitions: vec![], ..spread(&wanted(1)).remove(0) };
            let min_in_sync = if replicas.len() > 2 { 2 } else { 1 };
            slices.entry(key).or_insert_with(empty).partitions.push(partition(index, replicas, min_in_sync));
        }
        Self {
            members: members(brokers),
            slices,
            staying: brokers,
            wishes: Wishes { served: [TOPIC].into(), judge: true, ..Wishes::default() },
            wanted: wanted(partitions.len() as i32),
            tally: Tally::default(),
            copied: 0,
        }
    }

    fn one(&mut self) -> &mut PartitionState {
        &mut self.slices.get_mut(&(TOPIC, 0)).unwrap().partitions[0]
    }

    fn member(&mut self, broker: i32) -> &mut super::super::members::Member {
        self.members.get_mut(&broker).unwrap()
    }

    fn partitions(&self) -> impl Iterator<Item = &PartitionState> {
        self.slices.values().flat_map(|slice| &slice.partitions)
    }

    /// What the controller does with this; whether it is anything.
    fn round(&mut self, adapting: bool) -> bool {
        let slices: Slices<'_> = self.slices.iter().map(|(key, slice)| (*key, slice)).collect();
        let mut changed = Changed::new();
        let mut load = Load::default();
        self.partitions().for_each(|partition| load.count(partition));
        let takers = self.members.values().filter(|member| member.id < self.staying && can_take(member)).collect();
        let mut room = Room::new(&self.members, takers, load).with_staying(self.staying);
        for (key, slice) in slices.iter().filter(|(_, slice)| slice.tombstone.is_none()) {
            for (place, partition) in slice.partitions.iter().enumerate() {
                let mut of_topic = load_of(TOPIC, &slices, &changed);
                let settled = settle(key.0, partition, &self.members, false);
                let base = settled.as_ref().unwrap_or(partition);
                let adapted = adapting.then(|| adapt(base, &self.wanted, &mut of_topic, &mut room)).flatten();
                if let Some(next) = adapted.or(settled) {
                    changed.entry(*key).or_insert_with(|| (*slice).clone()).partitions[place] = next;
                }
            }
        }
        let tally = moves(&self.wishes, &slices, &mut changed, &mut room);
        self.tally.begun += tally.begun;
        self.tally.completed += tally.completed;
        self.tally.cancelled += tally.cancelled;
        let any = !changed.is_empty();
        for (key, next) in changed {
            check(&self.slices[&key], &next);
            self.slices.insert(key, next);
        }
        any
    }

    /// All replicas of brokers that are alive are in sync.
    fn catch_up(&mut self) {
        for partition in self.slices.values_mut().flat_map(|slice| &mut slice.partitions) {
            let missing =
                partition.replicas.iter().filter(|broker| !partition.isr.iter().any(|r| r.broker == **broker));
            let alive = missing.filter(|broker| self.members.get(broker).is_some_and(|member| !member.fenced));
            let joined: Vec<_> = alive.map(|broker| session(*broker)).collect();
            self.copied += joined.len();
            if !joined.is_empty() && partition.leader.is_some() {
                partition.isr.extend(joined);
                partition.partition_epoch += 1;
            }
        }
    }

    /// Until there is nothing left to do; how many rounds.
    fn settle(&mut self) -> usize {
        for round in 0..2_000 {
            let (any, copied) = (self.round(false), self.copied);
            self.catch_up();
            if !any && copied == self.copied {
                return round;
            }
        }
        panic!("it does not end: {:?}", self.slices);
    }

    fn replicas(&self, broker: i32) -> usize {
        self.partitions().filter(|partition| partition.replicas.contains(&broker)).count()
    }

    fn leaders(&self, broker: i32) -> usize {
        self.partitions().filter(|partition| partition.replicas[0] == broker).count()
    }
}

#[test]
fn brokers_that_are_to_go_are_emptied_and_the_others_have_as_many() {
    let partitions: [&[i32]; 9] = [&[0, 1], &[1, 2], &[2, 0], &[0, 2], &[1, 0], &[2, 1], &[0, 1], &[1, 2], &[2, 0]];
    let mut world = World::of(3, &partitions);
    assert!(!world.round(false), "nothing is to move");
    world.members = members(4);
    world.staying = 4;
    world.settle();
    assert_eq!(world.replicas(3), 0, "without rebalance nothing moves to a new broker");

    world.staying = 2;
    world.settle();
    assert_eq!((0..4).map(|broker| world.replicas(broker)).collect::<Vec<_>>(), [9, 9, 0, 0]);
    assert!(world.leaders(0).abs_diff(world.leaders(1)) <= 1, "{:?}", world.slices);
    assert_eq!((world.tally.begun, world.tally.completed, world.copied), (6, 6, 6));
    assert!(world.partitions().all(|partition| partition.leader.is_some_and(|leader| leader < 2)));
}

#[test]
fn i10_those_who_go_leave_once_the_new_ones_are_in_sync_and_the_new_one_leads_in_their_place() {
    let mut world = World::of(4, &[&[3, 1, 2]]);
    world.staying = 3;
    world.round(false);
    let begun = world.one().clone();
    assert_eq!((&begun.replicas, &begun.adding, &begun.removing), (&vec![0, 1, 2, 3], &vec![0], &vec![3]));
    assert_eq!((begun.leader, begun.leader_epoch, begun.isr.len()), (Some(3), 0, 3));
    assert!(!world.round(false), "it waits");
    world.catch_up();
    world.round(false);
    let moved = world.one().clone();
    assert_eq!((&moved.replicas, moved.is_moving(), moved.leader), (&vec![0, 1, 2], false, Some(0)));
    assert_eq!((moved.isr.len(), moved.leader_epoch), (3, 1));
    assert!(!world.round(false));

    let mut world = World::of(4, &[&[1, 3, 2]]);
    world.staying = 3;
    world.settle();
    assert_eq!((world.one().leader, world.one().leader_epoch), (Some(1), 1), "the epoch rises though the leader stays");
}

#[test]
fn i10_nothing_completes_while_too_few_would_be_in_sync_or_nobody_leads_for_sure() {
    let moving = || {
        let mut world = World::of(4, &[&[3, 1, 2]]);
        world.staying = 3;
        world.round(false);
        world.one().isr = [3, 0].map(session).to_vec();
        world
    };
    let mut world = moving();
    assert!(!world.round(false), "one would be left of two");
    world.one().isr.push(session(2));
    assert!(world.round(false));

    let mut world = moving();
    (world.one().leader, world.one().isr) = (Some(0), vec![session(0)]);
    assert!(!world.round(false), "one is left, though the one that goes counts for nothing");
    world.one().isr.push(session(2));
    assert!(world.round(false));

    let mut world = moving();
    world.catch_up();
    world.one().recovering = true;
    assert!(!world.round(false));
    world.one().recovering = false;
    (0..3).for_each(|broker| world.member(broker).stopping = true);
    world.one().partition_epoch += 1;
    world.round(false);
    assert!(world.one().is_moving(), "there is nobody to hand over to: {:?}", world.slices);

    let mut world = World::of(4, &[&[3, 1]]);
    (world.one().leader, world.one().fault) = (None, Some("nobody".to_owned()));
    world.one().elr = std::mem::take(&mut world.one().isr);
    (0..4).for_each(|broker| world.member(broker).fenced = true);
    (0..1).for_each(|broker| world.member(broker).fenced = false);
    world.staying = 3;
    world.round(false);
    assert!(!world.one().is_moving(), "there is nobody to copy from");
}

#[test]
fn l9_a_leader_without_proof_whose_other_replica_does_not_come_back_gets_a_new_one() {
    let mut world = World::of(4, &[&[0, 3]]);
    world.member(3).fenced = true;
    world.one().isr.truncate(1);
    world.one().recovering = true;
    world.staying = 3;
    assert!(!has_recovered(world.one()) && world.round(false));
    let begun = world.one().clone();
    assert_eq!((begun.replicas, begun.adding), (vec![0, 1, 3], vec![1]));
    world.catch_up();
    assert!(has_recovered(world.one()) && !world.round(false), "nobody leaves before the leader has said so");
    let epoch = world.one().leader_epoch;
    world.member(0).recovered.insert((TOPIC, 0), epoch);
    assert!(world.round(false));
    assert_eq!((world.one().replicas.clone(), world.one().recovering), (vec![0, 1], false));
}

#[test]
fn a_drain_that_nobody_wants_any_more_goes_back() {
    let mut world = World::of(4, &[&[3, 1, 2]]);
    let before = world.one().clone();
    world.staying = 3;
    world.round(false);
    world.staying = 4;
    assert!(world.round(false));
    let back = world.one().clone();
    assert_eq!((&back.replicas, &back.isr, world.tally.cancelled), (&before.replicas, &before.isr, 1));
    assert_eq!((back.is_moving(), back.leader_epoch), (false, 1));

    // The new one is in sync already, and leads.
    world.staying = 3;
    world.round(false);
    world.catch_up();
    world.one().leader = Some(0);
    world.staying = 4;
    assert!(world.round(false));
    assert_eq!((world.one().replicas.clone(), world.one().leader), (vec![3, 1, 2], Some(3)));
    assert!(!world.round(false));
}

#[test]
fn a_rebalance_that_is_switched_off_goes_back() {
    let mut world = World::of(3, &[&[0, 1], &[1, 0], &[0, 1]]);
    world.wishes.rebalance = true;
    world.round(false);
    assert!(world.partitions().any(PartitionState::is_moving));
    world.wishes.rebalance = false;
    world.settle();
    assert_eq!(world.replicas(2), 0);
    assert_eq!(world.tally.begun, world.tally.cancelled);
}

#[test]
fn a_broker_that_is_away_for_long_is_not_waited_for() {
    let mut world = World::of(5, &[&[3, 1]]);
    world.member(4).zone = Some("a".to_owned());
    world.staying = 3;
    world.round(false);
    assert_eq!(world.one().adding, [0]);
    world.member(0).fenced = true;
    assert!(!world.round(false), "it may come back");
    world.wishes.lost.insert(0);
    assert!(world.round(false));
    assert_eq!((world.one().replicas.clone(), world.one().adding.clone()), (vec![2, 1, 3], vec![2]));
    world.member(2).fenced = true;
    world.wishes.lost.insert(2);
    assert!(!world.round(false), "there is no other");
    world.member(2).fenced = false;
    world.wishes.lost.clear();
    world.settle();
    assert_eq!(world.one().replicas, [2, 1]);

    // Of a rebalance nothing is so urgent: it goes back.
    let mut world = World::of(3, &[&[0], &[0]]);
    world.wishes.rebalance = true;
    world.round(false);
    world.member(1).fenced = true;
    world.member(2).fenced = true;
    world.wishes.lost = [1, 2].into();
    world.round(false);
    assert!(world.partitions().all(|partition| partition.replicas == [0]), "{:?}", world.slices);
}

#[test]
fn a_target_that_is_to_go_itself_is_exchanged() {
    let mut world = World::of(5, &[&[4, 0]]);
    world.staying = 4;
    (1..3).for_each(|broker| world.member(broker).fenced = true);
    world.round(false);
    assert_eq!(world.one().adding, [3]);
    (1..3).for_each(|broker| world.member(broker).fenced = false);
    world.staying = 3;
    world.settle();
    assert_eq!((world.one().replicas.clone(), world.copied), (vec![1, 0], 1));
}

#[test]
fn a_partition_with_more_replicas_than_brokers_that_stay_waits() {
    let mut world = World::of(3, &[&[0, 1, 2]]);
    world.staying = 2;
    assert!(!world.round(false));
    // One of two finds a place.
    let mut world = World::of(4, &[&[2, 3, 0]]);
    world.staying = 2;
    world.settle();
    assert_eq!(world.one().replicas, [1, 3, 0]);
}

#[test]
fn a_factor_that_falls_takes_the_replicas_of_brokers_that_go_even_the_leaders() {
    let mut world = World::of(3, &[&[2, 0, 1]]);
    world.wanted = Wanted { replication_factor: 2, min_in_sync_replicas: 1, ..world.wanted };
    world.staying = 2;
    assert!(world.round(true));
    assert_eq!((world.one().replicas.clone(), world.one().leader), (vec![0, 1], Some(0)));
    assert!(!world.round(true));
    assert_eq!(world.copied, 0);
}

#[test]
fn a_factor_that_changes_while_replicas_move_is_carried_out() {
    let moving = || {
        let mut world = World::of(5, &[&[0, 1, 2], &[0, 1, 2], &[0, 1, 2]]);
        world.wishes.rebalance = true;
        world.wanted = Wanted { replication_factor: 3, min_in_sync_replicas: 2, ..world.wanted };
        world.round(true);
        world
    };
    let mut world = moving();
    assert!(world.partitions().any(PartitionState::is_moving));
    world.wanted.replication_factor = 4;
    world.round(true);
    assert!(world.partitions().all(|partition| partition.wanted().count() == 4 && !partition.is_moving()));

    let mut world = moving();
    world.wanted = Wanted { replication_factor: 2, min_in_sync_replicas: 1, ..world.wanted };
    world.settle();
    world.round(true);
    world.settle();
    assert!(world.partitions().all(|partition| partition.replicas.len() == 2), "{:?}", world.slices);
}

#[test]
fn only_so_many_partitions_move_to_a_broker_at_a_time() {
    let partitions: Vec<&[i32]> = vec![&[1]; 50];
    let mut world = World::of(2, &partitions);
    world.staying = 1;
    world.round(false);
    assert_eq!(world.partitions().filter(|partition| partition.is_moving()).count(), MAX_TO_BROKER);
    assert!(!world.round(false));
    world.settle();
    assert_eq!((world.replicas(0), world.replicas(1)), (50, 0));
}

#[test]
fn what_nobody_serves_loses_replicas_that_go_while_enough_have_all_of_it() {
    for tombstone in [false, true] {
        let mut world = World::of(3, &[&[2, 0, 1], &[2, 1], &[2]]);
        world.wishes.served.clear();
        let times = Tombstone { deleted_at: "2026-01-01T00:00:00Z".into(), purge_at: "2026-01-02T00:00:00Z".into() };
        world.slices.get_mut(&(TOPIC, 0)).unwrap().tombstone = tombstone.then_some(times);
        assert!(!world.round(false));
        world.staying = 2;
        assert!(world.round(false));
        let replicas: Vec<_> = world.partitions().map(|partition| partition.replicas.clone()).collect();
        assert_eq!(replicas, [vec![0, 1], vec![1], vec![2]], "the last waits");
        assert!(!world.round(false));
    }

    // It was about to move to a broker that is to go too.
    let mut world = World::of(3, &[&[2]]);
    world.staying = 2;
    world.round(false);
    assert!(world.one().is_moving());
    world.wishes.served.clear();
    world.staying = 0;
    assert!(!world.round(false));

    // The one that had all of it may have lost something since.
    let mut world = World::of(3, &[&[2, 0]]);
    world.wishes.served.clear();
    world.staying = 2;
    world.member(0).incarnation += 100;
    world.round(false);
    assert_eq!(world.one().replicas, [2, 0]);
}

#[test]
fn all_have_as_many_in_the_end_and_then_nothing_moves() {
    let partitions: Vec<&[i32]> = vec![&[0, 1, 2]; 30];
    let mut world = World::of(6, &partitions);
    world.wishes.rebalance = true;
    world.settle();
    assert_eq!((0..6).map(|broker| world.replicas(broker)).collect::<Vec<_>>(), [15; 6]);
    assert_eq!((0..6).map(|broker| world.leaders(broker)).collect::<Vec<_>>(), [5; 6]);
    assert_eq!(world.copied, 45, "no more than must");
    for partition in world.partitions() {
        let zones: BTreeSet<_> = partition.replicas.iter().map(|broker| broker % 3).collect();
        assert_eq!(zones.len(), 3, "{partition:?}");
    }
}

#[test]
fn nothing_is_made_even_while_a_broker_is_away_or_between_looks() {
    let partitions: Vec<&[i32]> = vec![&[0]; 9];
    for away in [true, false] {
        let mut world = World::of(3, &partitions);
        world.wishes.rebalance = true;
        world.member(1).fenced = away;
        world.wishes.judge = away;
        assert!(!world.round(false), "{away}");
    }
}

#[derive(Clone, Debug)]
enum Step {
    Staying(i32),
    Rebalance(bool),
    Fence(i32),
    Return(i32),
    Restart(i32),
    Lost(i32, bool),
    Stop(i32),
    Fault(i32, bool),
    Served(bool),
    Factor(i32, i32),
    Drop(usize, usize),
    CatchUp,
}

fn step() -> impl Strategy<Value = Step> {
    let broker = || 0..5i32;
    prop_oneof![
        2 => (1..6i32).prop_map(Step::Staying),
        2 => any::<bool>().prop_map(Step::Rebalance),
        2 => broker().prop_map(Step::Fence),
        3 => broker().prop_map(Step::Return),
        1 => broker().prop_map(Step::Restart),
        1 => (broker(), any::<bool>()).prop_map(|(broker, lost)| Step::Lost(broker, lost)),
        1 => broker().prop_map(Step::Stop),
        1 => (broker(), any::<bool>()).prop_map(|(broker, there)| Step::Fault(broker, there)),
        1 => any::<bool>().prop_map(Step::Served),
        2 => (1..5i32, 1..3i32).prop_map(|(factor, min_in_sync)| Step::Factor(factor, min_in_sync)),
        2 => (0..6usize, 0..4usize).prop_map(|(partition, replica)| Step::Drop(partition, replica)),
        6 => Just(Step::CatchUp),
    ]
}

impl World {
    fn take(&mut self, step: &Step) {
        match *step {
            Step::Staying(brokers) => self.staying = brokers,
            Step::Rebalance(on) => self.wishes.rebalance = on,
            Step::Fence(broker) => self.member(broker).fenced = true,
            Step::Return(broker) => {
                let member = self.member(broker);
                (member.fenced, member.stopping) = (false, false);
                self.wishes.lost.remove(&broker);
            }
            Step::Restart(broker) => {
                let member = self.member(broker);
                member.incarnation += 100;
                (member.continues, member.stopping) = (None, false);
                member.faults.clear();
            }
            Step::Lost(broker, lost) => {
                if lost && self.members[&broker].fenced {
                    self.wishes.lost.insert(broker);
                }
            }
            Step::Stop(broker) => self.member(broker).stopping = true,
            Step::Fault(broker, true) => {
                self.member(broker).faults.insert((TOPIC, 1), "broken".to_owned());
            }
            Step::Fault(broker, false) => self.member(broker).faults.clear(),
            Step::Served(true) => {
                self.wishes.served.insert(TOPIC);
            }
            Step::Served(false) => self.wishes.served.clear(),
            Step::Factor(factor, min_in_sync) => {
                let min_in_sync_replicas = min_in_sync.min(factor);
                self.wanted = Wanted { replication_factor: factor, min_in_sync_replicas, ..self.wanted.clone() };
            }
            Step::Drop(place, replica) => self.lag(place, replica),
            Step::CatchUp => {
                self.catch_up_as_registered();
            }
        }
    }

    /// A follower leaves the in-sync replicas, as its leader asked for.
    fn lag(&mut self, place: usize, replica: usize) {
        let partitions = &mut self.slices.get_mut(&(TOPIC, 0)).unwrap().partitions;
        let count = partitions.len();
        let partition = &mut partitions[place % count];
        if partition.isr.len() > partition.min_in_sync_replicas as usize {
            let at = replica % partition.isr.len();
            if Some(partition.isr[at].broker) != partition.leader {
                partition.isr.remove(at);
                partition.partition_epoch += 1;
            }
        }
    }

    fn catch_up_as_registered(&mut self) -> bool {
        let mut any = false;
        for partition in self.slices.values_mut().flat_map(|slice| &mut slice.partitions) {
            let is_missing = |broker: &&i32| !partition.isr.iter().any(|replica| replica.broker == **broker);
            let able = |broker: &i32| {
                let member = &self.members[broker];
                let broken = member.faults.contains_key(&(TOPIC, partition.index));
                (can_take(member) && !broken).then_some(Replica { broker: *broker, incarnation: member.incarnation })
            };
            let joined: Vec<_> = partition.replicas.iter().filter(is_missing).filter_map(able).collect();
            if partition.leader.is_some() && !joined.is_empty() {
                let eligible = |replica: &Replica| !joined.iter().any(|other| other.broker == replica.broker);
                partition.elr.retain(eligible);
                partition.last_known_elr.retain(eligible);
                partition.isr.extend(joined);
                super::super::elect::forget_others(partition);
                partition.partition_epoch += 1;
                any = true;
            }
        }
        any
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]
    /// Whatever brokers do and people want: the API admits each step (M2), nobody leaves without a higher leader epoch and as
    /// many in sync as a write needs (I10). And once all are well, it ends, with all brokers that go empty.
    #[test]
    fn i10_every_step_of_every_move_is_legal_and_it_ends(steps in proptest::collection::vec(step(), 1..60)) {
        let mut world = World::of(5, &[&[0, 1, 2], &[1, 2, 3], &[4, 3, 0], &[0, 4], &[2, 3], &[1]]);
        world.wanted = Wanted { replication_factor: 3, min_in_sync_replicas: 2, ..world.wanted };
        for step in &steps {
            world.take(step);
            world.round(true);
        }
        for broker in 0..5 {
            let member = world.member(broker);
            (member.fenced, member.stopping) = (false, false);
            member.faults.clear();
        }
        world.wishes.lost.clear();
        world.wishes.served.insert(TOPIC);
        let (mut rounds, mut any) = (0, true);
        while any {
            any = world.round(true);
            any |= world.catch_up_as_registered();
            // A leader that was elected without proof says so when it has found its log.
            for partition in world.slices.values_mut().flat_map(|slice| &mut slice.partitions) {
                any |= std::mem::take(&mut partition.recovering);
            }
            rounds += 1;
            prop_assert!(rounds < 100, "{:?}", world.slices);
        }
        let factor = world.wanted.replication_factor.min(world.staying);
        let has_place = world.wanted.replication_factor <= world.staying;
        for partition in world.partitions().filter(|partition| partition.leader.is_some() && has_place) {
            prop_assert!(partition.replicas.iter().all(|broker| *broker < world.staying), "{:?}", partition);
            prop_assert_eq!((partition.replicas.len() as i32, partition.is_moving()), (factor, false));
        }
    }
}
