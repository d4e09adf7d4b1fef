//! Brokers come and go for good, and replicas even out: what the Cluster asks for, an operator that takes a broker away once no
//! slice names it, and what must hold when replicas move (I10).

use taffrail_broker::cluster::controller::slices::Wanted;
use taffrail_crds::PartitionSliceSpec;
use taffrail_crds::slice::PartitionState;

use super::counts::Seen;
use super::options::Options;
use super::planted::Planted;
use super::process::TOPIC;
use super::world::{Event, Micros, Watched, World};

/// How often the operator looks.
const LOOK: Micros = 1_000_000;

/// The Cluster, as far as the controller reads it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct ClusterSpec {
    /// How many brokers there shall be.
    pub(crate) replicas: i32,
    /// Replicas move to where there are less.
    pub(crate) rebalance: bool,
}

impl ClusterSpec {
    pub(crate) fn first(options: &Options) -> Self {
        Self { replicas: options.brokers, rebalance: false }
    }
}

/// The one topic, where replicas may move: as it is.
pub(crate) fn wanted(options: &Options) -> Option<Wanted> {
    options.moves.then(|| Wanted {
        id: TOPIC,
        name: "flights".to_owned(),
        partitions: options.partitions,
        made: options.partitions,
        replication_factor: options.replication_factor,
        min_in_sync_replicas: options.min_in_sync_replicas,
        current: true,
        tombstone: None,
    })
}

impl World {
    pub(crate) fn start_moving(&mut self) {
        if self.options.moves {
            self.schedule(3_000_000, Event::Scale);
            self.schedule(LOOK, Event::Operate);
        }
    }

    /// Somebody asks for more brokers or less, or for replicas to even out, or not any more.
    pub(crate) fn scale(&mut self) {
        if !self.faulty {
            return;
        }
        let after = self.millis(2_000, 25_000);
        self.schedule(after, Event::Scale);
        let (mut next, least) = (self.store.cluster(), self.options.replication_factor);
        if self.rng.once_in(3) {
            next.rebalance = !next.rebalance;
        } else {
            next.replicas = least + self.rng.index((self.options.brokers - least + 1) as usize) as i32;
        }
        self.store.clusters.push(next);
        for broker in 0..self.options.brokers {
            self.watch(broker, Watched::Cluster);
        }
    }

    /// Takes the last broker away that is not to stay, once nothing needs it, and brings those back that are to be there.
    pub(crate) fn operate(&mut self) {
        self.schedule(LOOK, Event::Operate);
        let staying = self.store.cluster().replicas;
        let named = |broker| self.store.slice().partitions.iter().any(|state| state.replicas.contains(&broker));
        let last = (staying..self.options.brokers).rev().find(|broker| !self.nodes[*broker as usize].gone);
        if let Some(broker) = last.filter(|broker| !named(*broker)) {
            self.counts.saw(Seen::Drained);
            self.nodes[broker as usize].gone = true;
            self.stop(broker);
        }
        for broker in 0..staying {
            if std::mem::take(&mut self.nodes[broker as usize].gone) {
                self.schedule(1_000, Event::Start { broker });
            }
        }
    }

    /// Nothing moves any more, and nothing is where it shall not be.
    pub(crate) fn has_moved(&self, state: &PartitionState) -> bool {
        let is_over = state.adding.is_empty() && state.removing.is_empty();
        let stays = |broker: &i32| *broker < self.store.cluster().replicas;
        !self.options.moves || is_over && state.replicas.iter().all(stays)
    }

    pub(crate) fn count_move(&mut self, before: &PartitionState, after: &PartitionState) {
        let has =
            |state: &PartitionState, brokers: &[i32]| brokers.iter().all(|broker| state.replicas.contains(broker));
        if before.removing.is_empty() && !after.removing.is_empty() {
            self.counts.saw(Seen::MoveBegun);
        }
        if !before.removing.is_empty() && after.removing.is_empty() {
            self.counts.saw(if has(after, &before.removing) { Seen::MoveCancelled } else { Seen::MoveCompleted });
        }
    }

    /// Faults of a controller that moves replicas.
    pub(crate) fn plant_moves(&self, slice: &mut PartitionSliceSpec) {
        if self.options.planted == Some(Planted::MovedBeforeCaughtUp) {
            slice.partitions.iter_mut().filter(|state| !state.adding.is_empty()).for_each(complete);
        }
    }
}

/// I10: replicas leave with a higher leader epoch only; a move is completed once those that come are in sync and enough are.
pub(crate) fn check_move(before: &PartitionState, after: &PartitionState) {
    let say = |what: &str| format!("I10: {what}: from {before:?} to {after:?}");
    let left: Vec<_> = before.replicas.iter().filter(|broker| !after.replicas.contains(broker)).collect();
    assert!(
        left.is_empty() || after.leader_epoch > before.leader_epoch,
        "{}",
        say("a replica leaves in the same epoch")
    );
    let shall = after.replicas.iter().filter(|broker| !after.removing.contains(broker)).count();
    assert_eq!(shall, after.replication_factor as usize, "{}", say("more or less replicas than there shall be"));
    if left.iter().any(|broker| before.removing.contains(broker)) {
        let in_sync = |broker: &i32| after.isr.iter().any(|replica| replica.broker == *broker);
        assert!(before.adding.iter().all(in_sync), "{}", say("completed before those that come are in sync"));
        let enough = after.isr.len() >= after.min_in_sync_replicas as usize;
        assert!(enough && !after.recovering, "{}", say("completed while a write could not be acknowledged"));
    }
}

/// Takes those away that go, whether or not the others have caught up.
fn complete(state: &mut PartitionState) {
    let stays = |broker: &i32| !state.removing.contains(broker);
    let isr: Vec<_> = state.isr.iter().copied().filter(|replica| stays(&replica.broker)).collect();
    let (Some(heir), Some(leader)) = (isr.first(), state.leader) else { return };
    state.leader = Some(if stays(&leader) { leader } else { heir.broker });
    state.replicas = state.replicas.iter().copied().filter(stays).collect();
    state.elr.retain(|replica| stays(&replica.broker));
    state.last_known_elr.retain(|replica| stays(&replica.broker));
    state.isr = isr;
    (state.adding, state.removing) = (Vec::new(), Vec::new());
    (state.leader_epoch, state.partition_epoch) = (state.leader_epoch + 1, state.partition_epoch + 1);
}
