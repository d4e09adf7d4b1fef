//! The API goes back in time, as when its etcd is restored from a backup (M5, M11): all brokers notice it, register again and
//! freeze what they know later states of, and a person brings that back from what they saw last.
//!
//! What is promised is promised of brokers that had seen all that was there, and are well until it is over: so nothing else goes
//! wrong meanwhile but messages and calls. Who is away then may have acknowledged what nobody else knows of. Nor is it promised
//! where revisions have passed the old ones before anybody asks: many other objects are in an API, and those of before the restore
//! are far ahead. No version is given out twice here, which in an API is as good as impossible.

use std::collections::BTreeSet;

use taffrail_broker::cluster::controller::frozen::Epochs;
use taffrail_broker::registration::decide::{Decision, register};
use taffrail_crds::last_seen;
use taffrail_crds::slice::PartitionState;

use super::counts::Seen;
use super::network::API;
use super::planted::Planted;
use super::process::{Node, Purpose, TOPIC};
use super::store::{Answer, Request};
use super::world::{Event, Micros, Watched, World};

/// How often brokers ask for the newest revision.
const INTERVAL: Micros = 2_000_000;
/// How many revisions the API falls by: more than are written until everybody has asked.
const REVISIONS: u64 = 10_000;
/// Within which all must be frozen. Long, as calls get lost.
const FROZEN_WITHIN: Micros = 180_000_000;
/// For how long it is waited for that nothing else is wrong.
const CALM_WITHIN: Micros = 60_000_000;

/// Where a restore stands.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) enum Rewind {
    #[default]
    No,
    /// It comes once nothing else is wrong, if that is before then.
    Wanted { until: Micros },
    /// The API is away, by this cut.
    Away { cut: u32 },
    /// The API is back. These partitions must be frozen before then.
    Restored { partitions: Vec<usize>, until: Micros },
    /// A person has deleted the slice.
    Deleted,
}

impl World {
    pub(crate) fn start_rewinding(&mut self) {
        if self.options.api.rewinds {
            let after = self.chaos_millis(8_000, 25_000);
            self.schedule(after, Event::Rewind);
        }
    }

    pub(crate) fn is_rewinding(&self) -> bool {
        self.rewind != Rewind::No
    }

    /// Goes on until the restore that has begun is over.
    pub(crate) fn end_rewind(&mut self) {
        while self.is_rewinding() {
            self.run(self.now + 500_000);
        }
    }

    /// The next step.
    pub(crate) fn rewind(&mut self) {
        let after = match std::mem::take(&mut self.rewind) {
            Rewind::No if !self.faulty => return,
            Rewind::No => self.calm_down(),
            Rewind::Wanted { until } => self.take_away(until),
            Rewind::Away { cut } => self.restore(cut),
            Rewind::Restored { partitions, until } => self.await_freeze(partitions, until),
            Rewind::Deleted => self.bring_back(),
        };
        self.schedule(after, Event::Rewind);
    }

    /// Nothing new goes wrong from now on.
    fn calm_down(&mut self) -> Micros {
        self.network.mend_all();
        self.rewind = Rewind::Wanted { until: self.now + CALM_WITHIN };
        500_000
    }

    /// The API is away from everybody, once all is well and all brokers have seen everything.
    fn take_away(&mut self, until: Micros) -> Micros {
        let (now, newest) = (self.now, self.store.slices.len() - 1);
        let is_well = |node: &Node| {
            let sees = node.at_work().filter(|process| process.slice == newest && process.revisions.is_some());
            node.paused_until <= now && sees.is_some_and(|process| !process.stopping && !process.deaf)
        };
        if !self.nodes.iter().all(is_well) || !self.recovered.is_empty() {
            if now < until {
                self.rewind = Rewind::Wanted { until };
                return 500_000;
            }
            return self.chaos_millis(10_000, 20_000);
        }
        self.counts.saw(Seen::ApiAway);
        let ways = (0..self.options.brokers).flat_map(|broker| [(broker, API), (API, broker)]);
        self.rewind = Rewind::Away { cut: self.network.cut(ways) };
        // What was under way to watches and from callers has got there, or never will.
        self.chaos_millis(12_000, 20_000)
    }

    /// It is back, and as it was at some time.
    fn restore(&mut self, cut: u32) -> Micros {
        self.counts.saw(Seen::ApiRestored);
        let newest = self.store.slices.len() - 1;
        let place = self.store.restored + self.chaos.index(newest - self.store.restored + 1);
        let before = self.store.slice().clone();
        self.store.restore(place);
        self.store.revision -= REVISIONS;
        self.network.mend(cut);
        for process in self.nodes.iter_mut().filter_map(|node| node.process.as_mut()) {
            process.deaf = true;
        }
        let partitions = 0..self.options.partitions as usize;
        let fell = |partition: &usize| before.partitions[*partition] != *self.store.partition(*partition);
        let rewound: BTreeSet<usize> = partitions.clone().filter(fell).collect();
        let is_known = |partition: &usize| {
            let given = self.store.partition(*partition).partition_epoch;
            self.nodes.iter().any(|node| node.seen_epoch(*partition).is_some_and(|seen| seen > given))
        };
        let partitions = partitions.filter(is_known).collect();
        self.rewound = rewound;
        self.rewind = Rewind::Restored { partitions, until: self.now + FROZEN_WITHIN };
        1_000_000
    }

    /// M5: what brokers know later states of is frozen. M11: all are registered in the sessions that they run.
    fn await_freeze(&mut self, partitions: Vec<usize>, until: Micros) -> Micros {
        let is_frozen = |partition: &usize| self.store.partition(*partition).is_frozen();
        let knows = |node: &Node| {
            let registered = self.store.registered()[&node.id].1.incarnation;
            node.at_work().is_some_and(|process| !process.deaf && process.incarnation == registered)
        };
        if !partitions.iter().all(is_frozen) || !self.nodes.iter().all(knows) {
            let state = &self.store.slice().partitions;
            assert!(self.now < until, "M5: {partitions:?} are not frozen, or brokers not registered: {state:?}");
            self.rewind = Rewind::Restored { partitions, until };
            return 1_000_000;
        }
        for (node, partition) in self.nodes.iter().flat_map(|node| partitions.iter().map(move |it| (node, *it))) {
            let serves = node.process.as_ref().is_some_and(|process| !process.slots[partition].is_idle());
            let id = node.id;
            assert!(!serves, "M5: broker {id} serves partition {partition}, which is frozen");
        }
        if partitions.is_empty() {
            return self.is_over();
        }
        for _ in &partitions {
            self.counts.saw(Seen::Frozen);
        }
        self.store.is_deleted = true;
        self.rewind = Rewind::Deleted;
        // Whoever brings it back asks when brokers have seen what there was.
        self.chaos_millis(12_000, 20_000)
    }

    /// What brokers saw last is put together and made again. It says of nobody that it may be elected who lacks what is committed.
    fn bring_back(&mut self) -> Micros {
        let seen = self.nodes.iter().filter_map(|node| node.disk.seen.clone());
        let newest = seen.reduce(last_seen::slice).expect("every broker has seen the slice");
        self.store.create(last_seen::brought_back(newest));
        self.counts.saw(Seen::BroughtBack);
        // Under the same partition epochs leaders may ask for something else now.
        self.asked.clear();
        let after = self.is_over();
        for partition in 0..self.options.partitions as usize {
            self.check_candidates(partition, "M5");
        }
        self.show(Watched::Slice);
        after
    }

    fn is_over(&mut self) -> Micros {
        self.rewound.clear();
        self.rewind = Rewind::No;
        self.chaos_millis(10_000, 40_000)
    }

    /// Asks for the newest revision, one call after another.
    pub(crate) fn ask_revision(&mut self, broker: i32) {
        let call = self.call(broker, Request::ReadRevision);
        self.await_answer(broker, call, Purpose::Revision);
    }

    pub(crate) fn revision_read(&mut self, broker: i32, answer: &Answer) {
        let life = self.life(broker);
        self.schedule(INTERVAL, Event::AskRevision { broker, life });
        let Answer::Revision(revision) = answer else { return };
        let Some(process) = self.process(broker) else { return };
        let told = revision.to_string();
        if process.revisions.get_or_insert_default().take(Some(&told)).is_ok() {
            return;
        }
        process.deaf = true;
        // The ClusterState went back with the rest: who acted by it has to be elected anew.
        process.control = None;
        self.counts.saw(Seen::WentBackNoticed);
        self.list(broker);
        self.settle(broker);
    }

    /// Sees to it that it is registered as it is.
    fn settle(&mut self, broker: i32) {
        let call = self.call(broker, Request::ReadBroker(broker));
        self.await_answer(broker, call, Purpose::Settle);
    }

    pub(crate) fn settle_read(&mut self, broker: i32, answer: Answer) {
        let Answer::Broker(found) = answer else { return self.settle(broker) };
        let Some(own) = self.nodes[broker as usize].present_registration() else { return };
        match register(&format!("main-{broker}"), &own, found.as_ref().map(|(_, spec)| spec)) {
            Decision::Keep => {}
            Decision::Write(spec) => {
                let version = found.map_or(0, |(version, _)| version);
                let call = self.call(broker, Request::WriteBroker(version, spec));
                self.await_answer(broker, call, Purpose::Settled);
            }
            Decision::Refuse(why) => panic!("M11: broker {broker} gives way to a session that never was: {why}"),
        }
    }

    pub(crate) fn settled(&mut self, broker: i32, answer: &Answer) {
        if matches!(answer, Answer::Written(_)) {
            self.counts.saw(Seen::RegisteredAgain);
        } else {
            self.settle(broker);
        }
    }

    /// Keeps the slice as it is seen; what is older than what was seen before is not kept (M5).
    pub(crate) fn remember(&mut self, broker: i32) {
        if !self.options.api.rewinds {
            return;
        }
        let node = &mut self.nodes[broker as usize];
        let Some(shown) = node.process.as_ref().map(|process| &self.store.slices[process.slice]) else { return };
        let shown = (**shown).clone();
        let newest = match node.disk.seen.take() {
            Some(known) => last_seen::slice(shown, known),
            None => shown,
        };
        node.disk.seen = Some(newest);
    }

    /// Partitions of which a broker has seen later states than it is shown, with the partition epochs of those.
    pub(crate) fn ahead(&self, broker: i32) -> Epochs {
        let node = &self.nodes[broker as usize];
        let Some(process) = &node.process else { return Epochs::new() };
        let shown = &self.store.slices[process.slice].partitions;
        let is_ahead = |state: &&PartitionState| self.is_older(broker, state);
        let seen =
            |state: &PartitionState| Some(((TOPIC, state.index), node.seen_epoch(usize::try_from(state.index).ok()?)?));
        shown.iter().filter(is_ahead).filter_map(seen).collect()
    }

    /// Whether a broker has seen a later state than this: it does nothing by it.
    pub(crate) fn is_older(&self, broker: i32, state: &PartitionState) -> bool {
        let obeyed = self.options.planted == Some(Planted::OlderMetadataObeyed);
        let seen = self.nodes[broker as usize].seen_epoch(state.index as usize);
        !obeyed && !state.is_frozen() && seen.is_some_and(|seen| seen > state.partition_epoch)
    }

    /// M5: nobody leads by a state that is older than what it has seen.
    pub(crate) fn check_newest(&self, broker: i32, partition: usize) {
        let Some(shown) = self.seen(broker, partition) else { return };
        let seen = self.nodes[broker as usize].seen_epoch(partition);
        assert!(
            seen.is_none_or(|seen| seen <= shown.partition_epoch),
            "M5: broker {broker} has seen partition epoch {seen:?} and leads by {shown:?}"
        );
    }
}

impl Node {
    /// Partition epoch of the latest state that this broker has seen of a partition, not counting that it was frozen.
    fn seen_epoch(&self, partition: usize) -> Option<i32> {
        let state = self.disk.seen.as_ref()?.partitions.get(partition)?;
        (!state.is_frozen()).then_some(state.partition_epoch)
    }
}
