//! What the acting controller writes next: a pure function of what it has read, what it has heard and the time.
//!
//! Each round plans everything that can be done now; what stands on another write (a topic's name once its slices are there)
//! is planned by a later round. Two controllers that plan at once do no harm: every write is a compare-and-swap on what the
//! plan was made of, and slices carry the epoch of the controller (M14).

use std::collections::BTreeMap;
use std::time::Duration;

use taffrail_crds::cluster_state::{InternalTopic, MAX_TOPICS};
use taffrail_crds::id::Id;
use taffrail_crds::recover::Recovery;
use taffrail_crds::topic::TopicConfig;
use taffrail_crds::{BrokerSpec, ClusterStateSpec, PartitionSliceSpec};
use uuid::Uuid;

use super::elect::{command, settle};
use super::frozen::{Epochs, freeze, highest, is_older};
use super::liveness::{Fencing, Liveness};
use super::members::{Member, Members, can_take};
use super::moves::{LOST, Tally, Wishes, moves};
use super::place::{Load, Room};
use super::slices::{Unplaced, Wanted, slices};
use crate::cluster::purge::is_over;
use crate::coordinator::groups;

/// Slices by topic and first index.
pub type Slices<'a> = BTreeMap<(Uuid, i32), &'a PartitionSliceSpec>;

/// Slices that are to be written, in the same order.
pub type Changed = BTreeMap<(Uuid, i32), PartitionSliceSpec>;

/// How long after it began to act a controller waits for brokers that have never been there before it places partitions on
/// those that are: a cluster and its topics are often made together, and the first broker shall not get everything. For
/// brokers that were there it waits one session, after which it knows who is alive: often the one that is missing is the
/// controller before.
const PLACEMENT_PATIENCE: Duration = Duration::from_secs(20);

/// Replicas of the partitions of internal topics, if there are so many brokers.
const INTERNAL_REPLICAS: i32 = 3;

/// What a plan is made of.
pub struct Facts<'a> {
    /// Name of the cluster.
    pub cluster: &'a str,
    /// How many brokers there shall be; `None`: the Cluster is not there, and nothing is placed or moved until it is.
    pub replicas: Option<i32>,
    /// What the cluster remembers.
    pub state: &'a ClusterStateSpec,
    /// The registered brokers.
    pub brokers: Vec<&'a BrokerSpec>,
    /// All slices of the cluster.
    pub slices: Slices<'a>,
    /// The accepted topics, and those to be deleted.
    pub topics: Vec<Wanted>,
    /// What people command for partitions that wait for them.
    pub recoveries: BTreeMap<(Uuid, i32), Recovery>,
    /// Partitions of which this broker has seen later states than `slices` show, with the partition epochs of these.
    pub seen: Epochs,
    /// What was heard of brokers.
    pub liveness: &'a Liveness,
    /// Leadership goes back to the preferred replicas now, where all are in sync, and it is looked at how even brokers are.
    pub balance: bool,
    /// Replicas move from brokers that have more of them to those that have less.
    pub rebalance: bool,
    /// Since when this controller acts, by the clock of `liveness`.
    pub acting: Duration,
    /// Now, by that clock.
    pub now: Duration,
    /// Now, for people, in milliseconds since 1970.
    pub wall_millis: i64,
    /// Identity for a topic that is to be made.
    pub fresh_id: Uuid,
}

/// What is to be written, in the order of the fields.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Plan {
    /// What the cluster remembers.
    pub state: Option<ClusterStateSpec>,
    /// Registrations that are fenced, or not any more.
    pub brokers: Vec<BrokerSpec>,
    /// New slices, and others in the place of those that are there.
    pub slices: Vec<PartitionSliceSpec>,
    /// Topics whose time in the trash is over.
    pub purge: Vec<Uuid>,
    /// Topics that get no slices, and why.
    pub unplaced: Vec<(String, Unplaced)>,
    /// Moves of replicas among what is written.
    pub moves: Tally,
}

/// The writes that these facts ask for.
pub fn plan(facts: &Facts<'_>) -> Plan {
    let brokers = fence(facts);
    let mut members = facts.liveness.members(facts.brokers.iter().copied(), facts.now);
    for changed in &brokers {
        if let Some(member) = members.get_mut(&changed.id) {
            member.fenced = changed.fenced;
        }
    }
    let mut changed = settle_all(facts, &members);
    let mut room = room(facts, &members);
    let mut unplaced = place_all(facts, &mut room, &mut changed);
    let moves = match facts.replicas {
        Some(_) => moves(&wishes(facts, &members), &facts.slices, &mut changed, &mut room),
        None => Tally::default(),
    };
    let seen = seen(facts);
    unplaced.extend(freeze(&facts.slices, &seen, &mut changed));
    let mut purge = overdue(facts);
    purge.retain(|topic| !is_older(*topic, &facts.slices, &seen));
    let slices = changed.into_values().collect();
    Plan { state: remember(facts), brokers, slices, purge, unplaced, moves }
}

/// Partitions of which anybody has seen later states.
fn seen(facts: &Facts<'_>) -> Epochs {
    let own = facts.seen.iter().map(|(partition, epoch)| (*partition, *epoch));
    highest(facts.liveness.seen(facts.now).into_iter().chain(own))
}

/// Where there is room, and for what.
fn room<'a>(facts: &Facts<'_>, members: &'a Members) -> Room<'a> {
    let mut load = Load::default();
    facts.slices.values().flat_map(|slice| &slice.partitions).for_each(|partition| load.count(partition));
    Room::new(members, takers(facts, members), load).with_staying(facts.replicas.unwrap_or(i32::MAX))
}

fn wishes(facts: &Facts<'_>, members: &Members) -> Wishes {
    let internal = facts.state.internal_topics.iter().map(|topic| topic.topic_id.0);
    let of_users = facts.topics.iter().filter(|wanted| wanted.tombstone.is_none()).map(|wanted| wanted.id);
    let is_lost = |broker: &i32| {
        let is_away = members.get(broker).is_none_or(|member| member.fenced);
        is_away && facts.liveness.silence(*broker, facts.acting, facts.now) >= LOST
    };
    Wishes {
        rebalance: facts.rebalance,
        judge: facts.balance,
        served: of_users.chain(internal).collect(),
        lost: (0..facts.replicas.unwrap_or(0)).filter(is_lost).collect(),
    }
}

fn fence(facts: &Facts<'_>) -> Vec<BrokerSpec> {
    let changed = |spec: &&BrokerSpec| {
        let fenced = match facts.liveness.fencing(spec, facts.acting, facts.now) {
            Fencing::Right => return None,
            Fencing::Fence => true,
            Fencing::Unfence => false,
        };
        Some(BrokerSpec { fenced, ..(*spec).clone() })
    };
    facts.brokers.iter().filter_map(changed).collect()
}

/// Slices whose partitions change with the brokers.
fn settle_all(facts: &Facts<'_>, members: &Members) -> Changed {
    let mut changed = BTreeMap::new();
    for (key, slice) in facts.slices.iter().filter(|(_, slice)| slice.tombstone.is_none()) {
        let mut next: Option<PartitionSliceSpec> = None;
        for (place, partition) in slice.partitions.iter().enumerate() {
            let settled = settle(key.0, partition, members, facts.balance);
            let commanded = facts
                .recoveries
                .get(&(key.0, partition.index))
                .and_then(|recovery| command(key.0, settled.as_ref().unwrap_or(partition), members, *recovery));
            if let Some(settled) = commanded.or(settled) {
                next.get_or_insert_with(|| (*slice).clone()).partitions[place] = settled;
            }
        }
        changed.extend(next.map(|next| (*key, next)));
    }
    changed
}

/// Adds the slices that topics need.
fn place_all(facts: &Facts<'_>, room: &mut Room<'_>, changed: &mut Changed) -> Vec<(String, Unplaced)> {
    let internal: Vec<_> = internal(facts, room.takers().len()).collect();
    let mut unplaced = Vec::new();
    for wanted in facts.topics.iter().chain(&internal) {
        let registered = facts.state.topics.contains_key(&Id(wanted.id));
        let of_topic = (wanted.id, 0)..=(wanted.id, i32::MAX);
        let mut present: BTreeMap<_, _> =
            facts.slices.range(of_topic.clone()).map(|(key, slice)| (key.1, *slice)).collect();
        present.extend(changed.range(of_topic).map(|(key, slice)| (key.1, slice)));
        match slices(facts.cluster, wanted, &present, registered, room) {
            Ok(slices) => changed.extend(slices.into_iter().map(|slice| ((wanted.id, slice.first_index), slice))),
            Err(reason) => unplaced.push((wanted.name.clone(), reason)),
        }
    }
    unplaced
}

/// Brokers that can take replicas now: none while some are missing for which it pays to wait.
fn takers<'a>(facts: &Facts<'_>, members: &'a Members) -> Vec<&'a Member> {
    // Brokers above the number that there shall be are about to go.
    let expected = facts.replicas.unwrap_or(0).max(0);
    let staying = || members.range(..expected).map(|(_, member)| member);
    let able: Vec<_> = staying().filter(|member| can_take(member)).collect();
    let expected = expected as usize;
    let patience = if staying().count() < expected { PLACEMENT_PATIENCE } else { facts.liveness.session() };
    let patient = facts.now.saturating_sub(facts.acting) < patience;
    if patient && able.len() < expected { Vec::new() } else { able }
}

/// The internal topics, which no object asks for. They are made with fewer replicas if not all brokers are there, of which so
/// many can take one, and get the others later: groups shall not wait for a broker that does not come.
fn internal(facts: &Facts<'_>, able: usize) -> impl Iterator<Item = Wanted> {
    let full = facts.replicas.unwrap_or(1).clamp(1, INTERNAL_REPLICAS);
    facts.state.internal_topics.iter().map(move |topic| {
        let is_there = facts.slices.contains_key(&(topic.topic_id.0, 0));
        let replication_factor = if is_there { full } else { full.min(able.max(1) as i32) };
        Wanted {
            id: topic.topic_id.0,
            name: topic.name.clone(),
            partitions: topic.partitions,
            made: 0,
            replication_factor,
            min_in_sync_replicas: TopicConfig::default_min_in_sync_replicas(full),
            current: facts.replicas.is_some(),
            tombstone: None,
        }
    })
}

/// Internal topics that are missing, and the names of topics whose slices are there.
fn remember(facts: &Facts<'_>) -> Option<ClusterStateSpec> {
    let mut next: Option<ClusterStateSpec> = None;
    if !facts.state.internal_topics.iter().any(|topic| topic.name == groups::TOPIC) {
        let (name, topic_id) = (groups::TOPIC.to_owned(), Id(facts.fresh_id));
        let made = InternalTopic { name, topic_id, partitions: groups::PARTITIONS };
        next.get_or_insert_with(|| facts.state.clone()).internal_topics.push(made);
    }
    let internal: Vec<_> = internal(facts, 0).collect();
    for wanted in facts.topics.iter().chain(&internal) {
        let known = &next.as_ref().unwrap_or(facts.state).topics;
        let is_new = !known.contains_key(&Id(wanted.id)) && known.len() < MAX_TOPICS;
        if is_new && wanted.tombstone.is_none() && facts.slices.contains_key(&(wanted.id, 0)) {
            let topics = &mut next.get_or_insert_with(|| facts.state.clone()).topics;
            topics.insert(Id(wanted.id), wanted.name.clone());
        }
    }
    next
}

/// Topics whose every slice is marked and due. One that cannot be read is not: somebody has to look.
fn overdue(facts: &Facts<'_>) -> Vec<Uuid> {
    let mut topics: BTreeMap<Uuid, bool> = BTreeMap::new();
    for (key, slice) in &facts.slices {
        *topics.entry(key.0).or_insert(true) &= is_over(slice, facts.wall_millis);
    }
    // One that comes back in this very round is not due any more.
    for wanted in facts.topics.iter().filter(|wanted| wanted.tombstone.is_none()) {
        topics.remove(&wanted.id);
    }
    topics.into_iter().filter(|(_, due)| *due).map(|(topic, _)| topic).collect()
}

#[cfg(test)]
mod tests;
