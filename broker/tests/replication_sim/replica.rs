//! One broker's replica of one partition: what it is to be by the metadata, and the way from one role to the next. As the
//! broker itself does: a role ends before the next begins, writes under way included, and leadership is taken only after a
//! quorum read.

use std::collections::BTreeMap;
use std::sync::Arc;

use taffrail_broker::replication::follower::{Follower, Held, Position};
use taffrail_broker::replication::leader::Leader;
use taffrail_broker::replication::{KnownEnd, Proposal, View, follower};
use taffrail_broker::storage::Extent;
use taffrail_crds::slice::{PartitionState, Replica};

use super::clients::Batched;
use super::counts::Seen;
use super::log::{Operation, ReplicaLog};
use super::planted::Planted;
use super::process::Purpose;
use super::store::{Answer, Request};
use super::world::{Event, Message, Micros, Refusal, World};

/// A follower tells where it stands.
#[derive(Clone, Debug)]
pub(crate) struct Fetch {
    pub(crate) from: Replica,
    pub(crate) partition: usize,
    pub(crate) leader_epoch: i32,
    /// Of which stream of its process, and the place there.
    pub(crate) stream: (u32, u32, u32),
    pub(crate) position: Position,
}

/// What a leader answers.
#[derive(Clone, Debug)]
pub(crate) struct Fetched {
    pub(crate) partition: usize,
    /// The stream that the follower opened, and the place there.
    pub(crate) stream: (u32, u32, u32),
    pub(crate) answer: follower::Answer,
}

/// A replica in memory.
#[derive(Default)]
pub(crate) struct Slot {
    pub(crate) role: Role,
    /// High watermark that it knew when its last role ended.
    pub(crate) known: KnownEnd,
    /// When the last of its writes under way will be over.
    pub(crate) writes_until: Micros,
}

#[derive(Default)]
pub(crate) enum Role {
    #[default]
    Idle,
    /// The epoch is being written.
    Taking(Box<Taking>),
    Leading(Box<Leading>),
    Following(Box<Following>),
}

pub(crate) struct Taking {
    state: PartitionState,
    /// How many versions of the slice there were when it began to look.
    versions: usize,
}

pub(crate) struct Leading {
    pub(crate) leader: Leader,
    pub(crate) epoch: i32,
    /// Batches that are not acknowledged: end, base, and which.
    pub(crate) waiting: Vec<(i64, i64, Batched)>,
    /// Demands that wait for something.
    pub(crate) demands: BTreeMap<i32, Fetch>,
    /// The newest streams of followers.
    pub(crate) streams: BTreeMap<i32, Stream>,
    /// Who has fetched, and how far its log is written.
    pub(crate) positions: BTreeMap<i32, (i64, i64)>,
    /// As it was told last.
    pub(crate) high_watermark: i64,
    pub(crate) proposed_at: Option<Micros>,
}

/// A follower's stream, at its leader.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Stream {
    /// The follower's process and the stream there.
    pub(crate) id: (u32, u32),
    /// Places of what was heard and said last.
    pub(crate) heard: u32,
    pub(crate) said: u32,
    /// The follower's history is this log's.
    pub(crate) matched: bool,
}

pub(crate) struct Following {
    pub(crate) follower: Follower,
    pub(crate) leader: i32,
    pub(crate) epoch: i32,
    pub(crate) term: u32,
    /// Its stream, the place of what it said last there, and of what it heard.
    pub(crate) stream: u32,
    pub(crate) said: u32,
    pub(crate) last: u32,
    pub(crate) heard: Micros,
}

/// What a broker is to do.
enum Target {
    Lead,
    Follow(i32),
    Nothing,
}

impl Slot {
    pub(crate) fn leading(&self) -> Option<&Leading> {
        if let Role::Leading(leading) = &self.role { Some(leading) } else { None }
    }

    pub(crate) fn following(&self) -> Option<&Following> {
        if let Role::Following(following) = &self.role { Some(following) } else { None }
    }

    pub(crate) fn proposal(&self) -> Option<&Proposal> {
        self.leading().and_then(|leading| leading.leader.proposal())
    }

    pub(crate) fn fault(&self) -> Option<&str> {
        self.following().and_then(|following| following.follower.fault())
    }

    pub(crate) fn is_idle(&self) -> bool {
        matches!(self.role, Role::Idle)
    }
}

/// What a log holds when nothing is under way.
pub(crate) fn held(log: &ReplicaLog) -> Held {
    Held { start: log.all.start, end: log.all.end, epochs: Arc::new(log.all.epochs.clone()) }
}

fn target(state: &PartitionState, me: Replica) -> Target {
    match state.leader {
        Some(leader) if leader == me.broker && state.isr.contains(&me) => Target::Lead,
        Some(leader) if leader != me.broker && state.replicas.contains(&me.broker) => Target::Follow(leader),
        _ => Target::Nothing,
    }
}

impl World {
    pub(crate) fn slot(&mut self, broker: i32, partition: usize) -> Option<&mut Slot> {
        self.process(broker).map(|process| &mut process.slots[partition])
    }

    /// A partition as the broker sees it.
    pub(crate) fn seen(&self, broker: i32, partition: usize) -> Option<PartitionState> {
        let process = self.nodes[broker as usize].at_work()?;
        Some(self.store.slices[process.slice].partitions[partition].clone())
    }

    /// Does what the metadata says.
    pub(crate) fn serve(&mut self, broker: i32) {
        let mut to_lead = Vec::new();
        for partition in 0..self.options.partitions as usize {
            let Some(state) = self.seen(broker, partition) else { return };
            let me = self.replica(broker);
            // By what is older than what it has seen a broker does nothing (M5).
            let is_older = self.is_older(broker, &state);
            if !is_older && self.goes_on(broker, partition, &state, me) {
                continue;
            }
            self.end_role(broker, partition);
            if is_older {
                continue;
            }
            let log = self.log(broker, partition);
            // The old role's writes come first; a list that is older than the log says nothing of it.
            let newest = log.all.epochs.latest().unwrap_or(-1);
            if log.pending() > 0 || newest > state.leader_epoch {
                continue;
            }
            match target(&state, me) {
                Target::Lead => to_lead.push(partition),
                Target::Follow(leader) => self.follow(broker, partition, leader, &state),
                Target::Nothing => {}
            }
        }
        self.confirm(broker, to_lead);
        self.tell_news(broker);
    }

    /// Whether the role stays; a leader takes note of the new state.
    fn goes_on(&mut self, broker: i32, partition: usize, state: &PartitionState, me: Replica) -> bool {
        let (target, clock, view) = (target(state, me), self.clock(broker), self.view(state, me));
        let Some(slot) = self.slot(broker, partition) else { return false };
        match (&mut slot.role, target) {
            (Role::Idle, Target::Nothing) => true,
            (Role::Taking(taking), Target::Lead) => taking.state.leader_epoch == state.leader_epoch,
            (Role::Following(following), Target::Follow(leader)) => {
                (following.leader, following.epoch) == (leader, state.leader_epoch)
            }
            (Role::Leading(leading), Target::Lead) if leading.epoch == state.leader_epoch => {
                leading.leader.adopt(view, clock);
                self.led(broker, partition);
                true
            }
            _ => false,
        }
    }

    fn view(&self, state: &PartitionState, me: Replica) -> View {
        let mut view = View::of(state, me);
        if self.options.planted == Some(Planted::AckBelowMinIsr) {
            view.min_in_sync_replicas = 1;
        }
        view
    }

    fn end_role(&mut self, broker: i32, partition: usize) {
        let Some(slot) = self.slot(broker, partition) else { return };
        let waiting = match std::mem::take(&mut slot.role) {
            Role::Leading(leading) => {
                let (high_watermark, leader_epoch) = (leading.high_watermark, leading.epoch);
                slot.known = KnownEnd { high_watermark, leader_epoch };
                self.counts.saw(Seen::LeaderDeposed);
                leading.waiting
            }
            Role::Following(following) => {
                let high_watermark = following.follower.high_watermark();
                slot.known = KnownEnd { high_watermark, leader_epoch: following.epoch };
                return;
            }
            Role::Idle | Role::Taking(_) => return,
        };
        for (_, _, batch) in waiting {
            self.refuse(broker, batch, Refusal::Unknown);
        }
    }

    pub(crate) fn refuse(&mut self, broker: i32, batch: Batched, why: Refusal) {
        self.send(broker, batch.client(), Message::Produced(batch, Err(why)));
    }

    /// Asks the store, past all caches, whether this broker leads (M7).
    fn confirm(&mut self, broker: i32, partitions: Vec<usize>) {
        let confirming = self.process(broker).is_none_or(|process| process.confirming);
        if partitions.is_empty() || confirming {
            return;
        }
        if self.options.planted == Some(Planted::NoQuorumRead) {
            let versions = self.store.slices.len();
            for partition in partitions {
                self.take(broker, partition, versions);
            }
            return;
        }
        if let Some(process) = self.process(broker) {
            process.confirming = true;
        }
        let call = self.call(broker, Request::ReadBroker(broker));
        self.await_answer(broker, call, Purpose::ConfirmSession(partitions));
    }

    pub(crate) fn session_read(&mut self, broker: i32, partitions: Vec<usize>, answer: Answer) {
        let own = self.replica(broker).incarnation;
        if matches!(answer, Answer::Broker(Some((_, spec))) if spec.incarnation == own) {
            let call = self.call(broker, Request::ReadSlice);
            self.await_answer(broker, call, Purpose::ConfirmSlice(partitions));
        } else if let Some(process) = self.process(broker) {
            process.confirming = false;
        }
    }

    pub(crate) fn slice_read(&mut self, broker: i32, partitions: &[usize], answer: Answer) {
        if let Some(process) = self.process(broker) {
            process.confirming = false;
        }
        let (Answer::Slice(slice), me) = (answer, self.replica(broker)) else { return };
        for partition in partitions.iter().copied() {
            let (Some(seen), read) = (self.seen(broker, partition), &slice.partitions[partition]) else { return };
            if read.partition_epoch > seen.partition_epoch && matches!(target(&seen, me), Target::Lead) {
                self.counts.saw(Seen::StaleLead);
            }
            let version = self.store.slices.iter().position(|version| std::rc::Rc::ptr_eq(version, &slice));
            if read == &seen && matches!(target(&seen, me), Target::Lead) && !self.is_older(broker, &seen) {
                self.take(broker, partition, version.map_or(0, |version| version + 1));
            }
        }
    }

    /// Writes the epoch, and leads once that is durable (E1, E5).
    fn take(&mut self, broker: i32, partition: usize, versions: usize) {
        let Some(state) = self.seen(broker, partition) else { return };
        let idle = self.slot(broker, partition).is_some_and(|slot| slot.is_idle());
        if !idle || self.log(broker, partition).pending() > 0 {
            return;
        }
        let epoch = state.leader_epoch;
        if let Some(slot) = self.slot(broker, partition) {
            slot.role = Role::Taking(Box::new(Taking { state, versions }));
        }
        self.submit(broker, partition, Operation::Epoch(epoch));
    }

    fn begin_leading(&mut self, broker: i32, partition: usize) {
        let (me, clock) = (self.replica(broker), self.clock(broker));
        let Some(slot) = self.slot(broker, partition) else { return };
        let (Role::Taking(taking), known) = (std::mem::take(&mut slot.role), slot.known.high_watermark) else { return };
        self.check_newest(broker, partition);
        self.check_taking(broker, partition, &taking.state, taking.versions);
        let (epoch, view) = (taking.state.leader_epoch, self.view(&taking.state, me));
        let log = self.log(broker, partition);
        let extent = Extent { start: log.all.start, end: log.all.end };
        let leader = Leader::new(view, known, extent, clock);
        let leading = Leading {
            high_watermark: known.clamp(extent.start, extent.end),
            leader,
            epoch,
            waiting: Vec::new(),
            demands: BTreeMap::new(),
            streams: BTreeMap::new(),
            positions: BTreeMap::new(),
            proposed_at: None,
        };
        if let Some(slot) = self.slot(broker, partition) {
            slot.role = Role::Leading(Box::new(leading));
        }
        self.counts.saw(Seen::LeaderTook);
        self.led(broker, partition);
        self.serve(broker);
    }

    fn follow(&mut self, broker: i32, partition: usize, leader: i32, state: &PartitionState) {
        let now = self.now;
        let planted = self.options.planted == Some(Planted::TruncateToHighWatermark);
        let known = self.slot(broker, partition).map(|slot| slot.known);
        let high_watermark = known.map_or(0, |known| known.under(state));
        if known.is_some_and(|known| known.high_watermark > high_watermark) {
            self.counts.saw(Seen::KnownGivenUp);
        }
        let log = self.log(broker, partition);
        if planted && high_watermark > log.all.start && log.all.end > high_watermark {
            self.submit(broker, partition, Operation::Truncate(high_watermark));
            return;
        }
        let held = held(log);
        let Some(process) = self.process(broker) else { return };
        process.terms += 1;
        let term = process.terms;
        let follower = Follower::new(state.leader_epoch, high_watermark, held);
        let epoch = state.leader_epoch;
        let following = Following { follower, leader, epoch, term, stream: term, said: 0, last: 0, heard: now };
        process.slots[partition].role = Role::Following(Box::new(following));
        self.ask(broker, partition);
    }

    /// Hands a change to the log; it is written after a while, after those before it.
    pub(crate) fn submit(&mut self, broker: i32, partition: usize, operation: Operation) {
        let slow = self.nodes[broker as usize].slow_until > self.now;
        let usual = 50 + self.rng.below(self.options.write_time);
        let takes = if slow { usual + self.millis(200, 3_000) } else { usual };
        self.log(broker, partition).submit(operation);
        let (now, life) = (self.now, self.life(broker));
        let Some(slot) = self.slot(broker, partition) else { return };
        slot.writes_until = slot.writes_until.max(now + takes);
        let after = slot.writes_until - now;
        self.schedule(after, Event::Written { broker, life, partition });
    }

    pub(crate) fn is_written(&mut self, broker: i32, partition: usize) {
        self.log(broker, partition).write();
        let idle = self.log(broker, partition).pending() == 0;
        let Some(slot) = self.slot(broker, partition) else { return };
        match slot.role {
            Role::Idle if idle => self.serve(broker),
            Role::Taking(_) if idle => self.begin_leading(broker, partition),
            Role::Idle | Role::Taking(_) => {}
            Role::Leading(_) => self.leader_wrote(broker, partition),
            Role::Following(_) => self.follower_wrote(broker, partition),
        }
    }

    pub(crate) fn tick_replica(&mut self, broker: i32, partition: usize) {
        let (now, clock) = (self.now, self.clock(broker));
        let Some(slot) = self.slot(broker, partition) else { return };
        match &mut slot.role {
            Role::Leading(leading) => {
                leading.leader.tick(clock);
                self.led(broker, partition);
            }
            // The stream breaks when nothing is heard, and is opened anew.
            Role::Following(following) if now - following.heard > 1_500_000 => {
                following.heard = now;
                following.follower.again();
                self.new_stream(broker, partition);
                self.ask(broker, partition);
            }
            _ => {}
        }
    }
}
