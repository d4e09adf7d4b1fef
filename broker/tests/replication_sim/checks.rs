//! What is checked at every step: that nobody believes, writes or says what the rules forbid. The checks see everything.

use taffrail_crds::slice::{PartitionState, Replica};

use super::counts::Seen;
use super::replica::Leading;
use super::world::World;

impl World {
    /// A leader says that all below is committed: what is so is so everywhere, for ever.
    pub(crate) fn committed(&mut self, broker: i32, partition: usize, high_watermark: i64) {
        let current = self.store.partition(partition).clone();
        let me = self.replica(broker);
        let Some(leading) = self.nodes[broker as usize].process.as_ref().and_then(|it| it.slots[partition].leading())
        else {
            return;
        };
        let deposed = leading.epoch < current.leader_epoch;
        if self.options.planted.is_none() {
            check_positions(leading, me, high_watermark);
        }
        let by = format!("leader {broker} of epoch {}", leading.epoch);
        let short = (leading.leader.view().isr.len() as i32) < self.options.min_in_sync_replicas;
        assert!(!short, "H2: {by} commits up to {high_watermark} with fewer than min ISR in sync");
        let log = &mut self.nodes[broker as usize].disk.logs[partition];
        assert!(log.written_end >= high_watermark, "H1: {by} commits up to {high_watermark}, which is not written");
        self.histories[partition].commit(log, high_watermark, &by);
        self.check_candidates(partition, if deposed { "E6" } else { "H1" });
    }

    /// Whoever may be elected has everything that is committed.
    pub(crate) fn check_candidates(&self, partition: usize, rule: &str) {
        if self.recovered.contains_key(&partition) || self.rewound.contains(&partition) {
            return;
        }
        let state = self.store.partition(partition);
        for replica in state.isr.iter().chain(&state.elr) {
            let node = &self.nodes[replica.broker as usize];
            let registered = self.store.registered()[&replica.broker].1.incarnation;
            // One of an older session that nobody continues is never elected.
            if !node.vouches(*replica) || replica.incarnation > registered {
                continue;
            }
            let log = &node.disk.logs[partition];
            assert!(
                self.histories[partition].is_complete(log),
                "{rule}: {replica:?} may be elected and lacks what is committed up to {}; it has {} to {}; {state:?}",
                self.histories[partition].end(),
                log.all.start,
                log.written_end,
            );
        }
    }

    /// A slice was written.
    pub(crate) fn check_slice(&mut self) {
        let versions = self.store.slices.len();
        let (before, after) = (self.store.slices[versions - 2].clone(), self.store.slices[versions - 1].clone());
        for (partition, (before, after)) in before.partitions.iter().zip(&after.partitions).enumerate() {
            if before == after {
                continue;
            }
            self.count_change(partition, before, after);
            self.count_move(before, after);
            let known = |leader: &i32| before.isr.iter().chain(&before.elr).find(|replica| replica.broker == *leader);
            let elected = after.leader.filter(|_| after.leader_epoch > before.leader_epoch);
            let nobody = before.leader.is_none() && elected.is_some_and(|leader| known(&leader).is_none());
            assert!(after.recovering || !nobody, "L7: elected without proof, and not said: {before:?}, {after:?}");
            let whole = |leader: i32| known(&leader).is_some_and(|it| self.nodes[leader as usize].vouches(*it));
            if after.recovering && elected.is_some_and(|leader| !whole(leader)) {
                assert!(
                    !self.options.careful,
                    "L4: a leader without proof, though fewer than min ISR lost records: {before:?}"
                );
                self.check_longest(partition, before, after);
                self.counts.saw(Seen::Recovering);
                self.recovered.insert(partition, after.leader_epoch);
            }
            self.check_candidates(partition, "I4");
        }
    }

    /// L8: nobody who was eligible last has a longer log than the one that is chosen. One that has died since it was asked does
    /// not lead: all are asked again.
    fn check_longest(&self, partition: usize, before: &PartitionState, after: &PartitionState) {
        let Some(chosen) = after.leader else { return };
        if !after.isr.contains(&self.replica(chosen)) {
            return;
        }
        let length = |broker: i32| {
            let log = &self.nodes[broker as usize].disk.logs[partition].all;
            (log.last_epoch(), log.end)
        };
        for known in &before.last_known_elr {
            let node = &self.nodes[known.broker as usize];
            if node.at_work().is_some() {
                let (longest, chosen) = (length(known.broker), length(chosen));
                assert!(longest <= chosen, "L8: {known:?} has a longer log than the chosen one: {after:?}");
            }
        }
    }

    fn count_change(&mut self, partition: usize, before: &PartitionState, after: &PartitionState) {
        let brokers = |replicas: &[Replica]| replicas.iter().map(|replica| replica.broker).collect::<Vec<_>>();
        let led = |state: &PartitionState| state.leader.filter(|_| before.leader_epoch != after.leader_epoch);
        if let Some(leader) = led(after) {
            self.counts.saw(Seen::Elected);
            if brokers(&before.elr).contains(&leader) && !brokers(&before.isr).contains(&leader) {
                self.counts.saw(Seen::ElectedFromElr);
            }
        }
        if after.leader.is_none() && before.leader.is_some() {
            self.counts.saw(Seen::NoLeader);
        }
        if after.last_known_elr.len() > before.last_known_elr.len() {
            self.counts.saw(Seen::LostSession);
        }
        let same = |one: &Replica, other: &Replica| one.broker == other.broker && one.incarnation < other.incarnation;
        if before.isr.iter().chain(&before.elr).any(|one| after.isr.iter().chain(&after.elr).any(|two| same(one, two)))
        {
            self.counts.saw(Seen::Refreshed);
        }
        let Some(leader) = before.leader.filter(|_| before.leader_epoch == after.leader_epoch) else { return };
        let Some(leading) = self.nodes[leader as usize].process.as_ref().and_then(|it| it.slots[partition].leading())
        else {
            return;
        };
        let asked = leading.leader.proposal().filter(|asked| asked.partition_epoch == before.partition_epoch);
        let Some(asked) = asked else { return };
        self.counts.saw(match (asked.isr == after.isr, after.isr.len() > before.isr.len()) {
            (true, true) => Seen::Expanded,
            (true, false) => Seen::Shrunk,
            _ if before.isr == after.isr => Seen::Refused,
            _ => return,
        });
    }

    /// Somebody begins to lead: the slice said so when it looked (M7), and it has everything that is committed.
    pub(crate) fn check_taking(&mut self, broker: i32, partition: usize, state: &PartitionState, versions: usize) {
        let since = versions.saturating_sub(1);
        let is_current = |slice: &std::rc::Rc<taffrail_crds::PartitionSliceSpec>| {
            slice.partitions[partition].partition_epoch == state.partition_epoch
        };
        assert!(
            self.store.slices[since..].iter().any(is_current),
            "M7: broker {broker} takes leadership by {state:?}, which was over when it looked"
        );
        let unproven = self.recovered.get(&partition).is_some_and(|epoch| *epoch <= state.leader_epoch);
        if unproven {
            self.recovered.remove(&partition);
            let log = &self.nodes[broker as usize].disk.logs[partition];
            if self.histories[partition].recover(log) > 0 {
                self.counts.saw(Seen::Lost);
            }
        } else if state.leader_epoch == self.store.partition(partition).leader_epoch {
            let log = &self.nodes[broker as usize].disk.logs[partition];
            assert!(
                self.recovered.contains_key(&partition) || self.histories[partition].is_complete(log),
                "lost-write: broker {broker} leads epoch {} and lacks what is committed up to {}, it has up to {}",
                state.leader_epoch,
                self.histories[partition].end(),
                log.written_end
            );
        }
    }

    /// I8: a leader that is not deposed counts with everybody who may be elected.
    pub(crate) fn check_step(&mut self) {
        for partition in (0..self.options.partitions as usize).filter(|partition| !self.rewound.contains(partition)) {
            let state = self.store.partition(partition);
            let mut deposed = 0;
            for node in &self.nodes {
                let Some(leading) = node.process.as_ref().and_then(|it| it.slots[partition].leading()) else {
                    continue;
                };
                if leading.epoch < state.leader_epoch {
                    deposed += 1;
                }
                if leading.epoch != state.leader_epoch || state.isr.len() < state.min_in_sync_replicas as usize {
                    continue;
                }
                let counted = |replica: &Replica| leading.leader.maximal_isr().any(|it| it.broker == replica.broker);
                assert!(
                    state.isr.iter().chain(&state.elr).all(counted),
                    "I8: leader {} of epoch {} goes by {:?}, and the slice has {state:?}",
                    node.id,
                    leading.epoch,
                    leading.leader.maximal_isr().collect::<Vec<_>>()
                );
            }
            if deposed > 0 {
                self.counts.saw(Seen::DeposedRan);
            }
        }
    }
}

/// H1: every member of the maximal ISR has said, in this epoch and session, that it has as much.
fn check_positions(leading: &Leading, me: Replica, high_watermark: i64) {
    for replica in leading.leader.maximal_isr().filter(|replica| *replica != me) {
        let position = leading.positions.get(&replica.broker);
        let has = position
            .is_some_and(|(incarnation, written)| *incarnation >= replica.incarnation && *written >= high_watermark);
        assert!(has, "H1: committed up to {high_watermark}, and {replica:?} said {position:?}");
    }
}
