//! Brokers as processes: they register, see the metadata late, tell each other that they are alive, and end in all ways.

use std::collections::BTreeMap;
use std::time::Duration;

use taffrail_broker::cluster::Session;
use taffrail_broker::cluster::controller::liveness::{Beat, Liveness};
use taffrail_broker::cluster::serving::{has_recovered, is_asked, log_end};
use taffrail_broker::election::core::Core;
use taffrail_broker::registration::decide::{Kept, session};
use taffrail_broker::storage::{Extent, Identity};
use taffrail_crds::id::Id;
use taffrail_crds::revision::Revisions;
use taffrail_crds::slice::{PartitionState, Replica, UncleanRecovery};
use taffrail_crds::{BrokerSpec, PartitionSliceSpec};
use uuid::Uuid;

use super::clocks::Clocks;
use super::control::Control;
use super::counts::Seen;
use super::log::{Operation, ReplicaLog};
use super::network::API;
use super::options::Options;
use super::planted::Planted;
use super::replica::Slot;
use super::store::{Answer, Request};
use super::world::{Event, Message, Micros, Watched, World};

/// Identity of the one topic.
pub(crate) const TOPIC: Uuid = Uuid::from_u128(7);
/// After so much silence a broker is dead.
const SESSION: Duration = Duration::from_secs(6);
const BEAT: Micros = 1_000_000;
const TICK: Micros = 500_000;

/// A machine with a disk, and what runs there.
pub(crate) struct Node {
    pub(crate) id: i32,
    /// Grows with each start.
    pub(crate) life: u32,
    pub(crate) booted: Micros,
    pub(crate) paused_until: Micros,
    pub(crate) slow_until: Micros,
    pub(crate) disk: Disk,
    pub(crate) clocks: Clocks,
    /// `None`: it is down.
    pub(crate) process: Option<Process>,
    /// It stays as it is.
    pub(crate) broken: bool,
    /// It has been taken away.
    pub(crate) gone: bool,
}

/// What outlives a process.
pub(crate) struct Disk {
    pub(crate) volume: Uuid,
    pub(crate) kept: Kept,
    /// Nothing was lost since the last registration.
    pub(crate) complete: bool,
    pub(crate) logs: Vec<ReplicaLog>,
    /// The slice as it was seen last, never going back in time: kept where the API may.
    pub(crate) seen: Option<PartitionSliceSpec>,
    /// Sessions before this one are not vouched for: their records may be gone. For the checks.
    pub(crate) sound_from: i64,
}

/// What ends with a process.
pub(crate) struct Process {
    /// 0: not registered yet.
    pub(crate) incarnation: i64,
    /// The session that it continues.
    pub(crate) continues: Option<i64>,
    /// Versions that its watches have shown.
    pub(crate) slice: usize,
    pub(crate) brokers: usize,
    pub(crate) cluster: usize,
    pub(crate) stopping: bool,
    pub(crate) slots: Vec<Slot>,
    pub(crate) liveness: Liveness,
    pub(crate) calls: BTreeMap<u64, Purpose>,
    pub(crate) control: Option<Control>,
    /// What was told last.
    pub(crate) told: Option<Beat>,
    /// Leadership is being confirmed.
    pub(crate) confirming: bool,
    pub(crate) terms: u32,
    /// Its watches tell nothing more: all has to be listed anew.
    pub(crate) deaf: bool,
    /// The API has asked it to call no earlier.
    pub(crate) quiet_until: Micros,
    /// What it was told of the API's revision, if it was.
    pub(crate) revisions: Option<Revisions>,
    /// Its part in the election, where clocks differ.
    pub(crate) election: Option<Core>,
    /// How often it has looked at the Lease, or planned to.
    pub(crate) looks: u64,
}

/// What a call was made for.
#[derive(Clone, Debug)]
pub(crate) enum Purpose {
    Find,
    Register(Box<BrokerSpec>),
    ConfirmSession(Vec<usize>),
    ConfirmSlice(Vec<usize>),
    Plan(Request),
    List,
    Revision,
    Settle,
    Settled,
    ReadLease,
    WriteLease,
}

impl Node {
    pub(crate) fn new(id: i32, options: &Options, clocks: Clocks) -> Self {
        let kept = Kept { cluster: Uuid::from_u128(1), broker: id, incarnation: 1, registered: 1 };
        let log = || {
            let mut log = ReplicaLog::default();
            log.submit(Operation::Epoch(0));
            log.write();
            log.sync();
            log
        };
        let logs = (0..options.partitions).map(|_| log()).collect();
        let volume = Uuid::from_u128(100 + id as u128);
        let disk = Disk { volume, kept, complete: true, logs, seen: None, sound_from: 0 };
        Self {
            id,
            life: 0,
            booted: 0,
            paused_until: 0,
            slow_until: 0,
            disk,
            clocks,
            process: None,
            broken: false,
            gone: false,
        }
    }

    pub(crate) fn first_registration(&self) -> BrokerSpec {
        self.registration(1, None, false)
    }

    /// Of the session that it runs.
    pub(crate) fn present_registration(&self) -> Option<BrokerSpec> {
        let process = self.at_work()?;
        Some(self.registration(process.incarnation, process.continues, false))
    }

    fn registration(&self, incarnation: i64, continues: Option<i64>, fenced: bool) -> BrokerSpec {
        BrokerSpec {
            cluster_name: "main".to_owned(),
            id: self.id,
            incarnation,
            continues,
            storage_id: Id(self.disk.volume),
            boot_id: Id(Uuid::from_u128(2)),
            zone: None,
            endpoints: Vec::new(),
            version: "0.1.0".to_owned(),
            feature_level: 1,
            fenced,
        }
    }

    /// Registered and at work.
    pub(crate) fn at_work(&self) -> Option<&Process> {
        self.process.as_ref().filter(|process| process.incarnation > 0)
    }

    /// Whether this replica's log has all that it had: it is of a session since which nothing was lost.
    pub(crate) fn vouches(&self, replica: Replica) -> bool {
        replica.incarnation >= self.disk.sound_from
    }
}

/// All replicas in sync, led by the first.
pub(crate) fn first_slice(options: &Options) -> PartitionSliceSpec {
    let partition = |index: i32| {
        let replicas: Vec<_> = (0..options.replication_factor).map(|place| (index + place) % options.brokers).collect();
        PartitionState {
            index,
            leader: replicas.first().copied(),
            isr: replicas.iter().map(|broker| Replica { broker: *broker, incarnation: 1 }).collect(),
            replicas,
            adding: Vec::new(),
            removing: Vec::new(),
            leader_epoch: 0,
            partition_epoch: 0,
            elr: Vec::new(),
            last_known_elr: Vec::new(),
            fault: None,
            recovering: false,
            unclean_leader_epoch: None,
            seen_epoch: None,
            min_in_sync_replicas: options.min_in_sync_replicas,
            replication_factor: options.replication_factor,
            unclean_recovery: UncleanRecovery::Balanced,
        }
    };
    PartitionSliceSpec {
        cluster_name: "main".to_owned(),
        topic_id: Id(TOPIC),
        topic_name: "flights".to_owned(),
        first_index: 0,
        controller_epoch: 0,
        operation_id: 0,
        tombstone: None,
        partitions: (0..options.partitions).map(partition).collect(),
    }
}

impl World {
    pub(crate) fn process(&mut self, broker: i32) -> Option<&mut Process> {
        self.nodes[broker as usize].process.as_mut()
    }

    fn new_process(&mut self, broker: i32) {
        let slots = (0..self.options.partitions).map(|_| Slot::default()).collect();
        let now = self.now;
        let node = &mut self.nodes[broker as usize];
        node.life += 1;
        node.paused_until = 0;
        node.booted = now;
        node.process = Some(Process {
            incarnation: 0,
            continues: None,
            slice: 0,
            brokers: 0,
            cluster: 0,
            stopping: false,
            slots,
            liveness: Liveness::new(broker, SESSION),
            calls: BTreeMap::new(),
            control: None,
            told: None,
            confirming: false,
            terms: 0,
            deaf: false,
            quiet_until: 0,
            revisions: None,
            election: None,
            looks: 0,
        });
    }

    /// At the very beginning all are registered.
    pub(crate) fn begin_first(&mut self, broker: i32) {
        self.new_process(broker);
        self.go(broker, 1);
    }

    pub(crate) fn start(&mut self, broker: i32) {
        let node = &self.nodes[broker as usize];
        if node.process.is_some() || node.broken || node.gone {
            return;
        }
        self.new_process(broker);
        self.find(broker);
    }

    fn find(&mut self, broker: i32) {
        let call = self.call(broker, Request::ReadBroker(broker));
        self.await_answer(broker, call, Purpose::Find);
    }

    pub(crate) fn await_answer(&mut self, broker: i32, call: u64, purpose: Purpose) {
        if let Some(process) = self.process(broker) {
            process.calls.insert(call, purpose);
        }
    }

    pub(crate) fn answered(&mut self, broker: i32, call: u64, answer: Answer) {
        let now = self.now;
        let Some(process) = self.process(broker) else { return };
        let Some(purpose) = process.calls.remove(&call) else { return };
        if let Answer::TooMany(quiet) = answer {
            process.quiet_until = process.quiet_until.max(now + quiet);
        }
        match (purpose, answer) {
            (Purpose::Find, Answer::Broker(found)) => self.register(broker, found),
            (Purpose::Register(own), Answer::Written(_)) => {
                self.nodes[broker as usize].disk.kept.registered = own.incarnation;
                self.nodes[broker as usize].disk.complete = true;
                if let Some(process) = self.process(broker) {
                    process.continues = own.continues;
                }
                self.go(broker, own.incarnation);
            }
            (Purpose::Find | Purpose::Register(_), _) => self.find(broker),
            (Purpose::ConfirmSession(partitions), answer) => self.session_read(broker, partitions, answer),
            (Purpose::ConfirmSlice(partitions), answer) => self.slice_read(broker, &partitions, answer),
            (Purpose::Plan(request), answer) => self.plan_written(broker, &request, &answer),
            (Purpose::List, answer) => self.listed(broker, &answer),
            (Purpose::Revision, answer) => self.revision_read(broker, &answer),
            (Purpose::Settle, answer) => self.settle_read(broker, answer),
            (Purpose::Settled, answer) => self.settled(broker, &answer),
            (Purpose::ReadLease, answer) => self.lease_read(broker, answer),
            (Purpose::WriteLease, answer) => self.lease_written(broker, answer),
        }
    }

    /// The real decision about a session, with what the disk proves.
    fn register(&mut self, broker: i32, found: Option<(u64, BrokerSpec)>) {
        let planted = self.options.planted == Some(Planted::EligibleAfterLoss);
        let node = &mut self.nodes[broker as usize];
        let complete = node.disk.complete || planted;
        let identity = Identity { storage: node.disk.volume, incarnation: 1, clean: false, complete };
        let before = found.as_ref().map(|(_, spec)| spec);
        let (incarnation, continues) = session(&node.disk.kept, before, &identity);
        node.disk.kept.incarnation = incarnation;
        let fenced = before.is_some_and(|spec| spec.fenced);
        let own = node.registration(incarnation, continues, fenced);
        let version = found.map_or(0, |(version, _)| version);
        let call = self.call(broker, Request::WriteBroker(version, Box::new(own.clone())));
        self.await_answer(broker, call, Purpose::Register(Box::new(own)));
    }

    /// Registered: takes part, with a list of objects that may be old.
    fn go(&mut self, broker: i32, incarnation: i64) {
        let (slices, brokers) = (self.store.slices.len(), self.store.brokers.len());
        let clusters = self.store.clusters.len();
        let stale = if self.faulty && self.rng.once_in(3) { self.rng.index(4) } else { 0 };
        if stale > 0 && slices > stale {
            self.counts.saw(Seen::StaleList);
        }
        // An API that has just been restored has no older list.
        let slice = slices.saturating_sub(1 + stale).max(self.store.restored);
        let life = self.life(broker);
        let node = &mut self.nodes[broker as usize];
        node.disk.sound_from = node.disk.sound_from.min(incarnation);
        if let Some(process) = &mut node.process {
            process.incarnation = incarnation;
            process.slice = slice;
            process.brokers = brokers - 1;
            process.cluster = clusters - 1;
        }
        let beat = self.rng.below(BEAT);
        self.schedule(beat / 10, Event::Beat { broker, life });
        let tick = self.rng.below(TICK);
        self.schedule(tick, Event::Tick { broker, life });
        let sync = self.options.sync_every * 1_000;
        self.schedule(sync, Event::Sync { broker, life });
        if self.options.api.rewinds {
            self.schedule(10_000, Event::AskRevision { broker, life });
        }
        self.remember(broker);
        self.serve(broker);
        self.stand(broker);
    }

    pub(crate) fn see_slice(&mut self, broker: i32, version: usize) {
        if let Some(process) = self.process(broker)
            && version > process.slice
            && process.incarnation > 0
            && !process.deaf
        {
            process.slice = version;
            self.remember(broker);
            self.serve(broker);
            self.control_sees(broker);
        }
    }

    pub(crate) fn see_brokers(&mut self, broker: i32, version: usize) {
        if let Some(process) = self.process(broker)
            && version > process.brokers
            && !process.deaf
        {
            process.brokers = version;
            self.control_sees(broker);
        }
    }

    pub(crate) fn see_cluster(&mut self, broker: i32, version: usize) {
        if let Some(process) = self.process(broker)
            && version > process.cluster
            && !process.deaf
        {
            process.cluster = version;
            self.control_sees(broker);
        }
    }

    /// Once in a while, and when there is something new to tell.
    pub(crate) fn beat(&mut self, broker: i32) {
        let (life, after) = (self.life(broker), self.nodes[broker as usize].clocks.takes(BEAT));
        self.schedule(after, Event::Beat { broker, life });
        self.tell(broker);
    }

    pub(crate) fn tell_news(&mut self, broker: i32) {
        let beat = self.own_beat(broker);
        if self.process(broker).is_some_and(|process| process.incarnation > 0 && process.told != beat) {
            self.tell(broker);
        }
    }

    fn tell(&mut self, broker: i32) {
        let Some(beat) = self.own_beat(broker) else { return };
        for ((_, index), proposal) in &beat.proposals {
            let asked = self.asked.entry(*index as usize).or_insert_with(|| proposal.clone());
            if asked.partition_epoch < proposal.partition_epoch {
                asked.clone_from(proposal);
            }
        }
        let clock = self.clock(broker);
        let Some(process) = self.process(broker) else { return };
        process.liveness.hear(broker, beat.clone(), clock);
        process.told = Some(beat.clone());
        let known = process.brokers;
        let others: Vec<_> = self.store.brokers[known].keys().copied().filter(|other| *other != broker).collect();
        for other in others {
            self.send(broker, other, Message::Beat(broker, Box::new(beat.clone())));
        }
    }

    fn own_beat(&self, broker: i32) -> Option<Beat> {
        let node = &self.nodes[broker as usize];
        let process = node.at_work()?;
        let (incarnation, stopping, seen) = (process.incarnation, process.stopping, self.ahead(broker));
        let mut beat = Beat { incarnation, stopping, seen, ..Beat::default() };
        for (index, (slot, state)) in process.slots.iter().zip(&self.store.slices[process.slice].partitions).enumerate()
        {
            let key = (TOPIC, index as i32);
            beat.proposals.extend(slot.proposal().map(|proposal| (key, proposal.clone())));
            beat.faults.extend(slot.fault().map(|fault| (key, fault.to_owned())));
            if slot.leading().is_some() && has_recovered(state) {
                beat.recovered.insert(key, state.leader_epoch);
            }
            let me = Session { broker, incarnation: process.incarnation };
            if is_asked(state, me) && slot.is_idle() && node.disk.logs[index].pending() == 0 {
                let log = &node.disk.logs[index].all;
                let extent = Extent { start: log.start, end: log.end };
                beat.ends.insert(key, log_end(state, Some((extent, &log.epochs))));
            }
        }
        Some(beat)
    }

    pub(crate) fn hear(&mut self, broker: i32, from: i32, mut beat: Beat) {
        let clock = self.clock(broker);
        let known = self.process(broker).map_or(0, |process| process.brokers);
        let brokers = self.store.brokers[known].clone();
        if !brokers.contains_key(&from) {
            return;
        }
        if self.options.planted == Some(Planted::IncarnationNotChecked) {
            for replica in beat.proposals.values_mut().flat_map(|proposal| &mut proposal.isr) {
                replica.incarnation = brokers[&replica.broker].1.incarnation;
            }
        }
        if let Some(process) = self.process(broker) {
            process.liveness.hear(from, beat, clock);
        }
    }

    pub(crate) fn tick(&mut self, broker: i32) {
        let (life, after) = (self.life(broker), self.nodes[broker as usize].clocks.takes(TICK));
        self.schedule(after, Event::Tick { broker, life });
        // A watch that was cut off comes back.
        let is_deaf = self.process(broker).is_some_and(|process| process.deaf);
        if !is_deaf && !self.network.is_cut(API, broker) && !self.network.is_cut(broker, API) {
            let process = self.nodes[broker as usize].process.as_ref();
            if process.is_some_and(|process| process.slice + 1 < self.store.slices.len()) {
                self.watch(broker, Watched::Slice);
            }
            let process = self.nodes[broker as usize].process.as_ref();
            if process.is_some_and(|process| process.brokers + 1 < self.store.brokers.len()) {
                self.watch(broker, Watched::Brokers);
            }
            let process = self.nodes[broker as usize].process.as_ref();
            if process.is_some_and(|process| process.cluster + 1 < self.store.clusters.len()) {
                self.watch(broker, Watched::Cluster);
            }
        }
        self.serve(broker);
        for partition in 0..self.options.partitions as usize {
            self.tick_replica(broker, partition);
        }
        self.tell_news(broker);
        self.stop_if_ready(broker);
    }

    pub(crate) fn sync(&mut self, broker: i32) {
        let (life, after) = (self.life(broker), self.options.sync_every * 1_000);
        self.schedule(after, Event::Sync { broker, life });
        self.nodes[broker as usize].disk.logs.iter_mut().for_each(ReplicaLog::sync);
    }

    /// The process dies; with the power gone, what is not synced too.
    pub(crate) fn crash(&mut self, broker: i32, power_is_lost: bool) {
        for partition in 0..self.options.partitions as usize {
            let (least, most) = self.log(broker, partition).survivors(power_is_lost);
            let pending = self.log(broker, partition).pending();
            let kept = least + self.rng.index(most - least + 1);
            if self.log(broker, partition).crash(kept) {
                self.counts.saw(Seen::PowerLossOfRecords);
            } else if pending > 0 && kept < most {
                self.counts.saw(Seen::CrashPendingLost);
            }
        }
        self.counts.saw(if power_is_lost { Seen::PowerLoss } else { Seen::Crash });
        let node = &mut self.nodes[broker as usize];
        node.process = None;
        node.life += 1;
        if power_is_lost {
            node.disk.complete = false;
            node.disk.sound_from = i64::MAX;
        }
    }

    /// An orderly stop begins: it gives its leaderships away first.
    pub(crate) fn stop(&mut self, broker: i32) {
        if let Some(process) = self.process(broker).filter(|process| process.incarnation > 0 && !process.stopping) {
            process.stopping = true;
            self.counts.saw(Seen::CleanStop);
            self.tell_news(broker);
            self.resign(broker);
            let (life, after) = (self.life(broker), self.millis(5_000, 10_000));
            self.schedule(after, Event::Stopped { broker, life });
        }
    }

    fn stop_if_ready(&mut self, broker: i32) {
        let leads = |process: &Process| process.slots.iter().any(|slot| slot.leading().is_some());
        if self.process(broker).is_some_and(|process| process.stopping && !leads(process)) && self.rng.once_in(3) {
            self.stopped(broker);
        }
    }

    /// All writes under way end, the disk is synced, and the process is gone.
    pub(crate) fn stopped(&mut self, broker: i32) {
        for log in &mut self.nodes[broker as usize].disk.logs {
            while log.pending() > 0 {
                log.write();
            }
            log.sync();
        }
        self.nodes[broker as usize].process = None;
        let after = self.millis(100, 4_000);
        self.schedule(after, Event::Start { broker });
    }
}
