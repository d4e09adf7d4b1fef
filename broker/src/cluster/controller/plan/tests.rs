use std::time::SystemTime;

use taffrail_crds::cluster_state::NextIds;
use taffrail_crds::slice::Tombstone;

use super::super::liveness::Beat;
use super::super::slices::tests::wanted;
use super::*;

fn state() -> ClusterStateSpec {
    ClusterStateSpec {
        cluster_id: Id(Uuid::from_u128(1)),
        controller: Some(0),
        controller_epoch: 1,
        feature_level: 1,
        next_ids: NextIds { producer: 0, incarnation: 0, operation: 0 },
        internal_topics: Vec::new(),
        topics: BTreeMap::new(),
    }
}

fn broker(id: i32) -> BrokerSpec {
    BrokerSpec {
        cluster_name: "main".to_owned(),
        id,
        incarnation: 5,
        continues: None,
        storage_id: Id(Uuid::from_u128(10 + id as u128)),
        boot_id: Id(Uuid::from_u128(2)),
        zone: None,
        endpoints: Vec::new(),
        version: "0.1.0".to_owned(),
        feature_level: 1,
        fenced: false,
    }
}

/// A cluster whose plans are carried out at once.
struct World {
    state: ClusterStateSpec,
    brokers: Vec<BrokerSpec>,
    slices: BTreeMap<(Uuid, i32), PartitionSliceSpec>,
    topics: Vec<Wanted>,
    recoveries: BTreeMap<(Uuid, i32), Recovery>,
    seen: Epochs,
    liveness: Liveness,
    now: u64,
    replicas: i32,
    balance: bool,
    rebalance: bool,
}

impl World {
    fn of(brokers: i32) -> Self {
        let mut world = Self {
            state: state(),
            brokers: (0..brokers).map(broker).collect(),
            slices: BTreeMap::new(),
            topics: Vec::new(),
            recoveries: BTreeMap::new(),
            seen: Epochs::new(),
            liveness: Liveness::new(0, Duration::from_secs(6)),
            now: 100,
            replicas: brokers,
            balance: false,
            rebalance: false,
        };
        world.hear(0..brokers);
        world
    }

    fn hear(&mut self, brokers: impl IntoIterator<Item = i32>) {
        for id in brokers {
            let incarnation = self.brokers[id as usize].incarnation;
            self.liveness.hear(id, Beat { incarnation, ..Beat::default() }, Duration::from_secs(self.now));
        }
    }

    fn facts(&self) -> Facts<'_> {
        Facts {
            cluster: "main",
            replicas: Some(self.replicas),
            state: &self.state,
            brokers: self.brokers.iter().collect(),
            slices: self.slices.iter().map(|(key, slice)| (*key, slice)).collect(),
            topics: self.topics.clone(),
            recoveries: self.recoveries.clone(),
            seen: self.seen.clone(),
            liveness: &self.liveness,
            balance: self.balance,
            rebalance: self.rebalance,
            acting: Duration::from_secs(50),
            now: Duration::from_secs(self.now),
            wall_millis: self.now as i64 * 1_000,
            fresh_id: Uuid::from_u128(77),
        }
    }

    fn plan(&self) -> Plan {
        plan(&self.facts())
    }

    fn carry_out(&mut self, plan: Plan) {
        self.state = plan.state.unwrap_or_else(|| self.state.clone());
        for broker in plan.brokers {
            let id = broker.id as usize;
            self.brokers[id] = broker;
        }
        self.slices.extend(plan.slices.into_iter().map(|slice| ((slice.topic_id.0, slice.first_index), slice)));
    }

    /// Rounds until there is nothing left to do.
    fn settle(&mut self) -> usize {
        for round in 0..10 {
            let plan = self.plan();
            if (Plan { unplaced: Vec::new(), ..plan.clone() }) == Plan::default() {
                return round;
            }
            self.carry_out(plan);
        }
        panic!("it does not end: {:?}", self.plan());
    }

    fn leaders(&self, topic: Uuid) -> Vec<Option<i32>> {
        let slices = self.slices.range((topic, 0)..=(topic, i32::MAX)).map(|(_, slice)| slice);
        slices.flat_map(|slice| &slice.partitions).map(|partition| partition.leader).collect()
    }
}

#[test]
fn a_cluster_settles_with_its_internal_topic_and_then_with_a_topic() {
    let mut world = World::of(3);
    assert!(world.settle() <= 3);
    let internal = &world.state.internal_topics[0];
    assert_eq!((internal.name.as_str(), internal.partitions), ("__consumer_offsets", 16));
    assert_eq!(world.leaders(internal.topic_id.0).len(), 16);

    world.topics.push(wanted(6));
    world.settle();
    assert_eq!(world.state.topics[&Id(wanted(6).id)], "flights");
    let leaders = world.leaders(wanted(6).id);
    assert_eq!((0..3).map(|id| leaders.iter().filter(|leader| **leader == Some(id)).count()).max(), Some(2));
}

#[test]
fn partitions_wait_for_all_brokers_but_not_for_ever() {
    // One broker of two has never been there, or was and is silent.
    for (registered, waits_at, goes_on_at) in [(1, 69, 71), (2, 55, 57)] {
        let mut world = World::of(registered);
        world.replicas = 2;
        world.brokers.iter_mut().skip(1).for_each(|broker| broker.fenced = true);
        world.liveness = Liveness::new(0, Duration::from_secs(6));
        world.now = waits_at;
        world.hear([0]);
        world.settle();
        assert_eq!(world.plan().unplaced, [("__consumer_offsets".to_owned(), Unplaced::NoBroker)], "{registered}");
        world.now = goes_on_at;
        world.hear([0]);
        world.settle();
        assert_eq!(world.slices.len(), 1, "{registered}");
        let partitions = || world.slices.values().flat_map(|slice| &slice.partitions);
        assert!(partitions().all(|partition| (partition.replicas.len(), partition.replication_factor) == (1, 2)));
    }
}

#[test]
fn a_cluster_that_grows_gives_its_internal_topics_more_replicas_and_then_min_isr() {
    let mut world = World::of(1);
    world.settle();
    world.brokers.extend((1..3).map(broker));
    world.replicas = 3;
    world.hear(0..3);
    world.settle();
    let shape = |world: &World| {
        let partition = world.slices.values().next().unwrap().partitions[0].clone();
        (partition.replicas.len(), partition.isr.len(), partition.min_in_sync_replicas)
    };
    assert_eq!(shape(&world), (3, 1, 1));
    // Each leader asks for one that has caught up.
    let key = (world.state.internal_topics[0].topic_id.0, 0);
    for state in &mut world.slices.get_mut(&key).unwrap().partitions {
        state.isr.push(taffrail_crds::slice::Replica { broker: state.replicas[1], incarnation: 5 });
        state.partition_epoch += 1;
    }
    world.settle();
    assert_eq!(shape(&world), (3, 2, 2));
    world.replicas = 1;
    world.settle();
    assert_eq!(shape(&world), (1, 1, 1));
}

#[test]
fn without_the_cluster_object_nothing_is_placed_or_moved() {
    let mut world = World::of(3);
    world.settle();
    world.topics.push(wanted(3));
    let plan = plan(&Facts { replicas: None, ..world.facts() });
    assert_eq!(plan.slices, []);
    assert_eq!(plan.unplaced, [("flights".to_owned(), Unplaced::NoBroker)]);
}

#[test]
fn i7_a_dead_brokers_leaderships_move_in_one_round() {
    let mut world = World::of(3);
    world.topics.push(Wanted { replication_factor: 3, min_in_sync_replicas: 2, ..wanted(300) });
    world.settle();
    world.now += 10;
    world.hear([0, 1]);
    let plan = world.plan();
    assert_eq!(plan.slices.len(), 6, "five of the topic and one of the internal one");
    world.carry_out(plan);
    assert_eq!(world.settle(), 0);
    let leaders = world.leaders(wanted(1).id);
    assert!(leaders.iter().all(|leader| [Some(0), Some(1)].contains(leader)));

    // It is back, and leads what it prefers to lead once all have it in sync.
    world.now += 20;
    world.hear(0..3);
    world.settle();
    let key = wanted(1).id;
    for (_, slice) in world.slices.range_mut((key, 0)..=(key, i32::MAX)) {
        for state in &mut slice.partitions {
            state.isr.push(taffrail_crds::slice::Replica { broker: 2, incarnation: 5 });
            state.partition_epoch += 1;
        }
    }
    assert_eq!(world.settle(), 0);
    world.balance = true;
    world.settle();
    let led = |broker| world.leaders(key).iter().filter(|leader| **leader == Some(broker)).count();
    assert_eq!([led(0), led(1), led(2)], [100, 100, 100]);
}

#[test]
fn m5_what_this_broker_or_another_has_seen_later_is_frozen_and_not_elected() {
    let mut world = World::of(3);
    world.topics.push(Wanted { replication_factor: 3, min_in_sync_replicas: 2, ..wanted(3) });
    world.settle();
    let topic = wanted(1).id;
    world.seen.insert((topic, 0), 1);
    let seen = [((topic, 1), 4), ((topic, 2), 0)].into();
    world.liveness.hear(1, Beat { incarnation: 5, seen, ..Beat::default() }, Duration::from_secs(world.now));
    world.settle();
    assert_eq!(world.leaders(topic).iter().map(Option::is_some).collect::<Vec<_>>(), [false, false, true]);
    // Whatever becomes of those who know.
    world.seen.clear();
    world.now += 10;
    world.hear([0, 2]);
    world.settle();
    let states = |world: &World| world.slices[&(topic, 0)].partitions.clone();
    assert!(states(&world)[..2].iter().all(|state| state.is_frozen() && state.leader.is_none()));
    assert!(states(&world)[2].leader.is_some_and(|leader| leader != 1));
}

#[test]
fn a_plan_of_ten_thousand_partitions_in_which_nothing_changes_is_quick() {
    let mut world = World::of(3);
    world.topics.push(Wanted { replication_factor: 3, min_in_sync_replicas: 2, ..wanted(10_000) });
    world.settle();
    let begun = std::time::Instant::now();
    assert_eq!(world.plan(), Plan::default());
    // A fiftieth of this where it is optimized and has a processor for itself.
    assert!(begun.elapsed() < Duration::from_secs(1), "{:?}", begun.elapsed());
}

#[test]
fn a_broker_that_is_to_go_gets_nothing_new() {
    let mut world = World::of(3);
    world.settle();
    world.replicas = 2;
    world.topics.push(wanted(6));
    world.settle();
    assert!(world.leaders(wanted(6).id).iter().all(|leader| [Some(0), Some(1)].contains(leader)));
}

/// All replicas are in sync, as far as the world is concerned.
fn catch_up(world: &mut World) {
    for state in world.slices.values_mut().flat_map(|slice| &mut slice.partitions) {
        let in_sync = |broker: &i32| state.isr.iter().any(|replica| replica.broker == *broker);
        let missing: Vec<_> = state.replicas.iter().copied().filter(|broker| !in_sync(broker)).collect();
        state.partition_epoch += i32::from(!missing.is_empty());
        let session = |broker| taffrail_crds::slice::Replica { broker, incarnation: 5 };
        state.isr.extend(missing.into_iter().map(session));
    }
}

fn replicas(world: &World, broker: i32) -> usize {
    let partitions = world.slices.values().flat_map(|slice| &slice.partitions);
    partitions.filter(|partition| partition.replicas.contains(&broker)).count()
}

#[test]
fn i10_a_broker_that_is_to_go_is_emptied_and_one_that_comes_is_filled_where_that_is_wanted() {
    let mut world = World::of(3);
    world.topics.push(Wanted { replication_factor: 2, ..wanted(60) });
    world.settle();
    world.replicas = 2;
    let mut moves = Tally::default();
    for _ in 0..50 {
        let plan = world.plan();
        moves.begun += plan.moves.begun;
        moves.completed += plan.moves.completed;
        world.carry_out(plan);
        catch_up(&mut world);
    }
    assert_eq!((replicas(&world, 2), moves), (0, Tally { begun: 40, completed: 40, cancelled: 0 }));
    assert_eq!(plan(&Facts { replicas: None, ..world.facts() }).slices, [], "nobody knows who is to go");

    world.replicas = 3;
    assert_eq!(replicas(&world, 2), 0);
    world.settle();
    catch_up(&mut world);
    world.settle();
    assert_eq!(replicas(&world, 2), 16, "the internal topic has one more everywhere, and nothing else moves");
    (world.rebalance, world.balance) = (true, true);
    for _ in 0..50 {
        let plan = world.plan();
        world.carry_out(plan);
        catch_up(&mut world);
    }
    assert_eq!([0, 1, 2].map(|broker| replicas(&world, broker)), [56; 3]);
    assert_eq!(world.plan(), Plan::default());
}

#[test]
fn what_moves_to_a_broker_that_is_silent_for_long_goes_elsewhere() {
    let mut world = World::of(4);
    world.replicas = 4;
    world.topics.push(Wanted { replication_factor: 2, ..wanted(4) });
    world.settle();
    world.replicas = 3;
    let plan = world.plan();
    assert!(plan.moves.begun > 0);
    world.carry_out(plan);
    let silent = world.slices[&(wanted(1).id, 0)].partitions.iter().find_map(|state| state.adding.first().copied());
    let (silent, begun) = (silent.unwrap(), world.now);
    for (after, is_left) in [(200, true), (301, false)] {
        world.now = begun + after;
        world.hear((0..4).filter(|broker| *broker != silent));
        world.settle();
        let partitions = &world.slices[&(wanted(1).id, 0)].partitions;
        assert_eq!(partitions.iter().any(|state| state.adding.contains(&silent)), is_left, "after {after} s");
    }
}

#[test]
fn ten_thousand_partitions_are_made_even_in_quick_plans() {
    let mut world = World::of(3);
    world.topics.push(Wanted { replication_factor: 2, ..wanted(10_000) });
    world.settle();
    world.brokers.push(broker(3));
    world.replicas = 4;
    world.hear(0..4);
    (world.rebalance, world.balance) = (true, true);
    let begun = std::time::Instant::now();
    assert_eq!(world.plan().moves.begun, 8);
    // A fiftieth of this where it is optimized and has a processor for itself.
    assert!(begun.elapsed() < Duration::from_secs(3), "{:?}", begun.elapsed());
}

#[test]
fn a_silent_brokers_partitions_are_offline_in_one_round_and_come_back() {
    let mut world = World::of(2);
    world.topics.push(wanted(4));
    world.settle();
    world.now += 10;
    world.hear([0]);
    let plan = world.plan();
    assert_eq!(plan.brokers.iter().map(|broker| (broker.id, broker.fenced)).collect::<Vec<_>>(), [(1, true)]);
    assert_eq!(plan.slices.len(), 2, "of the topic and of the internal one");
    world.carry_out(plan);
    assert_eq!(world.leaders(wanted(4).id).iter().filter(|leader| leader.is_none()).count(), 2);
    assert_eq!(world.settle(), 0);

    world.hear([1]);
    world.settle();
    assert!(world.leaders(wanted(4).id).iter().all(Option::is_some));
}

#[test]
fn m9_lost_slices_are_not_made_anew() {
    let mut world = World::of(1);
    world.topics.push(wanted(2));
    world.settle();
    world.slices.retain(|key, _| key.0 != wanted(2).id);
    let plan = world.plan();
    assert_eq!(plan.slices, []);
    assert_eq!(plan.unplaced, [("flights".to_owned(), Unplaced::Lost { first_index: 0 })]);
}

#[test]
fn a_topic_object_that_is_gone_takes_nothing_with_it() {
    let mut world = World::of(1);
    world.topics.push(wanted(2));
    world.settle();
    world.topics.clear();
    assert_eq!(world.plan(), Plan::default());
}

#[test]
fn a_deleted_topic_is_purged_when_its_time_has_come_and_not_before() {
    let mut world = World::of(1);
    world.topics.push(wanted(2));
    world.settle();
    let at = |seconds| humantime::format_rfc3339(SystemTime::UNIX_EPOCH + Duration::from_secs(seconds)).to_string();
    world.topics[0].tombstone = Some(Tombstone { deleted_at: at(100), purge_at: at(103) });
    world.settle();
    world.topics.clear();
    assert!(world.plan().purge.is_empty());
    world.now = 103;
    assert_eq!(world.plan().purge, [wanted(2).id]);
    world.topics = vec![wanted(2)];
    assert!(world.plan().purge.is_empty(), "it was adopted in the last moment");
}

#[test]
fn l8_what_a_person_commands_is_planned_once() {
    let mut world = World::of(3);
    world.topics.push(Wanted { replication_factor: 3, min_in_sync_replicas: 2, ..wanted(1) });
    world.settle();
    let key = (wanted(1).id, 0);
    let partition = &mut world.slices.get_mut(&key).unwrap().partitions[0];
    (partition.leader, partition.elr) = (None, partition.isr.split_off(2));
    partition.isr.clear();
    let gone = partition.elr[0].broker;
    world.brokers[gone as usize].fenced = true;
    world.now += 60;
    world.hear((0..3).filter(|broker| *broker != gone));
    world.settle();
    assert_eq!(world.leaders(key.0), [None], "it waits for broker {gone}");
    let (broker, leader_epoch) = ((gone + 1) % 3, world.slices[&key].partitions[0].leader_epoch);
    world.recoveries.insert(key, Recovery { partition: 0, broker, leader_epoch });
    assert!(world.settle() > 0);
    assert_eq!(world.leaders(key.0), [Some(broker)]);
    assert!(world.slices[&key].partitions[0].recovering, "a loss is possible");
    assert_eq!(world.plan(), Plan::default(), "the command stays and has nothing left to say");
}
