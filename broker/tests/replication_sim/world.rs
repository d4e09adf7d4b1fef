//! One schedule: brokers, clients, a network and a metadata store in virtual time, with faults, until all is well again.

use std::cmp::Ordering;
use std::collections::{BTreeMap, BTreeSet, BinaryHeap};
use std::time::Duration;

use taffrail_broker::cluster::controller::liveness::Beat;
use taffrail_broker::replication::Proposal;
use taffrail_crds::PartitionSliceSpec;
use taffrail_crds::slice::Replica;

use super::clients::{Batched, Producer, Reader};
use super::clocks::Clocks;
use super::counts::{Counts, Seen};
use super::history::History;
use super::log::ReplicaLog;
use super::moving::ClusterSpec;
use super::network::{API, CLIENTS, Network};
use super::options::Options;
use super::process::{Node, first_slice};
use super::replica::{Fetch, Fetched};
use super::rewinding::Rewind;
use super::rng::Rng;
use super::store::{Answer, Request, Store};

/// Microseconds of virtual time.
pub(crate) type Micros = u64;

/// What goes over the network between processes.
#[derive(Clone, Debug)]
pub(crate) enum Message {
    /// A broker is alive.
    Beat(i32, Box<Beat>),
    /// A follower tells where it stands.
    Fetch(Box<Fetch>),
    /// What a leader answers.
    Fetched(Box<Fetched>),
    /// A batch for a partition's leader.
    Produce(Batched),
    /// Whether it is stored.
    Produced(Batched, Result<i64, Refusal>),
}

/// Why a batch is not stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Refusal {
    NotLeader,
    NotEnoughReplicas,
    OutOfSequence,
    /// It was appended, and may be lost.
    Unknown,
}

/// What is going to happen. Lives say of which process of a broker it is: what an earlier one began ends with it.
#[derive(Clone, Debug)]
pub(crate) enum Event {
    Message {
        from: i32,
        to: i32,
        message: Message,
    },
    /// The oldest write under way of a replica is over.
    Written {
        broker: i32,
        life: u32,
        partition: usize,
    },
    Sync {
        broker: i32,
        life: u32,
    },
    /// A call gets to the API.
    Call {
        broker: i32,
        life: u32,
        call: u64,
        request: Request,
    },
    Answered {
        broker: i32,
        life: u32,
        call: u64,
        answer: Answer,
    },
    /// The watch shows the newest slice, or the newest registrations.
    WatchSlice {
        broker: i32,
        life: u32,
        version: usize,
    },
    WatchBrokers {
        broker: i32,
        life: u32,
        version: usize,
    },
    WatchCluster {
        broker: i32,
        life: u32,
        version: usize,
    },
    Beat {
        broker: i32,
        life: u32,
    },
    Tick {
        broker: i32,
        life: u32,
    },
    /// The pause of a follower is over.
    Again {
        broker: i32,
        life: u32,
        partition: usize,
        term: u32,
    },
    /// A controller looks around.
    Round {
        broker: i32,
        life: u32,
        epoch: i32,
    },
    /// The volume of a stopping broker is flushed.
    Stopped {
        broker: i32,
        life: u32,
    },
    Start {
        broker: i32,
    },
    /// The Lease is looked at.
    Lease,
    Produce {
        producer: usize,
    },
    Read {
        reader: usize,
    },
    Fault,
    /// Other brokers shall be there.
    Scale,
    /// The operator looks around.
    Operate,
    Mend {
        cut: u32,
    },
    Retain,
    /// The API refuses something.
    Refuse,
    /// A broker lists everything anew.
    List {
        broker: i32,
        life: u32,
    },
    /// The next step of the API's way back in time.
    Rewind,
    /// A broker asks how far the API is.
    AskRevision {
        broker: i32,
        life: u32,
    },
    /// A wall clock jumps.
    WallClock,
    /// A broker looks at the Lease, if it has not since this was planned.
    Look {
        broker: i32,
        life: u32,
        number: u64,
    },
}

/// Objects that are watched.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Watched {
    Slice,
    Brokers,
    Cluster,
}

struct Scheduled {
    at: Micros,
    number: u64,
    event: Event,
}

impl PartialEq for Scheduled {
    fn eq(&self, other: &Self) -> bool {
        self.number == other.number
    }
}

impl Eq for Scheduled {}

impl PartialOrd for Scheduled {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Scheduled {
    /// The earliest is the greatest.
    fn cmp(&self, other: &Self) -> Ordering {
        (other.at, other.number).cmp(&(self.at, self.number))
    }
}

pub(crate) struct World {
    pub(crate) options: Options,
    pub(crate) rng: Rng,
    /// Of faults that came later: they change nothing in schedules without them.
    pub(crate) chaos: Rng,
    pub(crate) now: Micros,
    pub(crate) nodes: Vec<Node>,
    pub(crate) network: Network,
    pub(crate) store: Store,
    pub(crate) histories: Vec<History>,
    pub(crate) producers: Vec<Producer>,
    pub(crate) readers: Vec<Reader>,
    pub(crate) counts: Counts,
    /// Things go wrong.
    pub(crate) faulty: bool,
    /// Nothing new is produced.
    pub(crate) closing: bool,
    pub(crate) next_producer: i64,
    pub(crate) calls: u64,
    /// Who holds the Lease, since when it is away, and the last epoch given.
    pub(crate) lease: (Option<i32>, Option<Micros>, i32),
    pub(crate) steps: u32,
    /// Partitions in which somebody was elected without proof, and nobody has led since: the leader epoch.
    pub(crate) recovered: BTreeMap<usize, i32>,
    /// What the leaders of partitions have asked for last.
    pub(crate) asked: BTreeMap<usize, Proposal>,
    /// Until then the API refuses calls.
    pub(crate) refuses_until: Micros,
    pub(crate) rewind: Rewind,
    /// Partitions whose states went back in time, and are not there again: the slice says nothing of who has their records.
    pub(crate) rewound: BTreeSet<usize>,
    /// When the last message of a stream gets there.
    links: BTreeMap<(i32, i32), Micros>,
    scheduled: u64,
    events: BinaryHeap<Scheduled>,
    pub(crate) trace: bool,
}

impl World {
    pub(crate) fn new(options: Options) -> Self {
        let rng = Rng::new(options.seed);
        let mut chaos = Rng::new(options.seed ^ 0xc4a0_5c4a);
        let slice: PartitionSliceSpec = first_slice(&options);
        let node = |id| Node::new(id, &options, Clocks::of(&options, &mut chaos));
        let nodes: Vec<_> = (0..options.brokers).map(node).collect();
        let brokers = nodes.iter().map(|node| (node.id, (0, node.first_registration()))).collect();
        let mut world = Self {
            rng,
            chaos,
            now: 1_000_000,
            network: Network::default(),
            store: Store::new(slice, brokers, ClusterSpec::first(&options)),
            histories: (0..options.partitions).map(|_| History::default()).collect(),
            producers: Vec::new(),
            readers: (0..options.partitions as usize).map(Reader::new).collect(),
            counts: Counts::default(),
            faulty: true,
            closing: false,
            next_producer: 1,
            calls: 0,
            lease: (None, None, 0),
            steps: 0,
            recovered: BTreeMap::new(),
            asked: BTreeMap::new(),
            refuses_until: 0,
            rewind: Rewind::No,
            rewound: BTreeSet::new(),
            links: BTreeMap::new(),
            scheduled: 0,
            events: BinaryHeap::new(),
            trace: false,
            nodes,
            options,
        };
        for id in 0..world.options.brokers {
            world.begin_first(id);
        }
        world.start_clients();
        if !world.options.clocks_differ() {
            world.schedule(0, Event::Lease);
        }
        world.schedule(2_000_000, Event::Fault);
        world.schedule(5_000_000, Event::Retain);
        world.start_moving();
        world.start_refusing();
        world.start_rewinding();
        world.start_clocks();
        world
    }

    /// A time between these, in microseconds, from milliseconds.
    pub(crate) fn millis(&mut self, from: u64, to: u64) -> Micros {
        from * 1_000 + self.rng.below((to - from) * 1_000)
    }

    pub(crate) fn schedule(&mut self, after: Micros, event: Event) {
        self.scheduled += 1;
        self.events.push(Scheduled { at: self.now + after, number: self.scheduled, event });
    }

    /// Until then.
    pub(crate) fn run(&mut self, until: Micros) {
        while self.events.peek().is_some_and(|next| next.at <= until) {
            self.step();
        }
        self.now = self.now.max(until);
    }

    fn step(&mut self) {
        let Some(Scheduled { at, event, .. }) = self.events.pop() else { return };
        self.now = self.now.max(at);
        if let Some(until) = self.paused(&event) {
            self.schedule(until.saturating_sub(self.now), event);
            return;
        }
        self.steps += 1;
        if self.trace {
            eprintln!("{:>10} {event:?}", self.now);
        }
        self.dispatch(event);
        self.check_step();
    }

    /// Until when the process is stopped that this concerns.
    fn paused(&self, event: &Event) -> Option<Micros> {
        let broker = match event {
            Event::Message { to, .. } => *to,
            Event::Written { broker, .. }
            | Event::Answered { broker, .. }
            | Event::WatchSlice { broker, .. }
            | Event::WatchBrokers { broker, .. }
            | Event::WatchCluster { broker, .. }
            | Event::Beat { broker, .. }
            | Event::Tick { broker, .. }
            | Event::Again { broker, .. }
            | Event::Round { broker, .. }
            | Event::Stopped { broker, .. }
            | Event::List { broker, .. }
            | Event::AskRevision { broker, .. }
            | Event::Look { broker, .. } => *broker,
            _ => return None,
        };
        let node = self.nodes.get(usize::try_from(broker).ok()?)?;
        (node.process.is_some() && node.paused_until > self.now).then_some(node.paused_until)
    }

    fn dispatch(&mut self, event: Event) {
        match event {
            Event::Message { from, to, message } => self.deliver(from, to, message),
            Event::Call { broker, life, call, request } => self.call_arrives(broker, life, call, &request),
            Event::Start { broker } => self.start(broker),
            Event::Lease => self.look_at_lease(),
            Event::Produce { producer } => self.produce(producer),
            Event::Read { reader } => self.read(reader),
            Event::Fault => self.fault(),
            Event::Scale => self.scale(),
            Event::Operate => self.operate(),
            Event::Mend { cut } => self.network.mend(cut),
            Event::Retain => self.retain(),
            Event::Refuse => self.refuse_for_a_while(),
            Event::Rewind => self.rewind(),
            Event::WallClock => self.jump(),
            Event::List { broker, life } => self.if_alive(broker, life, |world| world.list(broker)),
            Event::AskRevision { broker, life } => self.if_alive(broker, life, |world| world.ask_revision(broker)),
            Event::Look { broker, life, number } => self.if_alive(broker, life, |world| world.look(broker, number)),
            Event::Sync { broker, life } => self.if_alive(broker, life, |world| world.sync(broker)),
            Event::Written { broker, life, partition } => {
                self.if_alive(broker, life, |world| world.is_written(broker, partition));
            }
            Event::Answered { broker, life, call, answer } => {
                self.if_alive(broker, life, |world| world.answered(broker, call, answer));
            }
            Event::WatchSlice { broker, life, version } => {
                self.if_alive(broker, life, |world| world.see_slice(broker, version));
            }
            Event::WatchBrokers { broker, life, version } => {
                self.if_alive(broker, life, |world| world.see_brokers(broker, version));
            }
            Event::WatchCluster { broker, life, version } => {
                self.if_alive(broker, life, |world| world.see_cluster(broker, version));
            }
            Event::Beat { broker, life } => self.if_alive(broker, life, |world| world.beat(broker)),
            Event::Tick { broker, life } => self.if_alive(broker, life, |world| world.tick(broker)),
            Event::Again { broker, life, partition, term } => {
                self.if_alive(broker, life, |world| world.again(broker, partition, term));
            }
            Event::Round { broker, life, epoch } => self.if_alive(broker, life, |world| world.round(broker, epoch)),
            Event::Stopped { broker, life } => self.if_alive(broker, life, |world| world.stopped(broker)),
        }
    }

    fn if_alive(&mut self, broker: i32, life: u32, then: impl FnOnce(&mut Self)) {
        let node = &self.nodes[broker as usize];
        if node.process.is_some() && node.life == life {
            then(self);
        }
    }

    pub(crate) fn life(&self, broker: i32) -> u32 {
        self.nodes[broker as usize].life
    }

    /// A broker's own clock.
    pub(crate) fn clock(&self, broker: i32) -> Duration {
        let node = &self.nodes[broker as usize];
        Duration::from_micros(node.clocks.shows(self.now - node.booted))
    }

    pub(crate) fn log(&mut self, broker: i32, partition: usize) -> &mut ReplicaLog {
        &mut self.nodes[broker as usize].disk.logs[partition]
    }

    /// Over the network, where messages are lost, come twice, late, and in any order.
    pub(crate) fn send(&mut self, from: i32, to: i32, message: Message) {
        if self.network.is_cut(from, to) {
            self.counts.saw(Seen::MessageCut);
            return;
        }
        let Options { lost, doubled, late, .. } = self.options;
        if self.faulty && self.rng.once_in(lost) {
            self.counts.saw(Seen::MessageLost);
            return;
        }
        // What was refused for sure must not be appended by a copy: clients' streams give no copies.
        let single = matches!(message, Message::Produce(_));
        if self.faulty && !single && self.rng.once_in(doubled) {
            self.counts.saw(Seen::MessageDoubled);
            let after = self.delay(late);
            self.schedule(after, Event::Message { from, to, message: message.clone() });
        }
        let usual = 50 + self.rng.below(self.options.latency);
        let mut at = self.now + usual;
        if self.faulty && self.rng.once_in(late) {
            self.counts.saw(Seen::MessageLate);
            at += self.millis(500, 6_000);
        } else if matches!(message, Message::Fetch(_) | Message::Fetched(_)) {
            // Streams keep the order of what is not lost or late.
            let last = self.links.entry((from, to)).or_default();
            *last = at.max(*last);
            at = *last;
        }
        self.schedule(at - self.now, Event::Message { from, to, message });
    }

    fn delay(&mut self, late: u64) -> Micros {
        if self.faulty && self.rng.once_in(late) {
            self.counts.saw(Seen::MessageLate);
            return self.millis(500, 6_000);
        }
        50 + self.rng.below(self.options.latency)
    }

    fn deliver(&mut self, from: i32, to: i32, message: Message) {
        if to >= CLIENTS {
            if let Message::Produced(batch, result) = message {
                self.produced(&batch, result);
            }
            return;
        }
        // What was under way when it was cut may still get there; what is delivered to a dead process is gone.
        if self.nodes[to as usize].process.as_ref().is_none_or(|process| process.incarnation == 0) {
            return;
        }
        match message {
            Message::Beat(broker, beat) => self.hear(to, broker, *beat),
            Message::Fetch(fetch) => self.fetch(to, *fetch),
            Message::Fetched(fetched) => self.fetched(to, from, *fetched),
            Message::Produce(batch) => self.append(to, batch),
            Message::Produced(..) => {}
        }
    }

    /// Calls the API; the answer comes with this number, or [`Answer::Unknown`] after a while.
    pub(crate) fn call(&mut self, broker: i32, request: Request) -> u64 {
        self.calls += 1;
        let (call, life, lost) = (self.calls, self.life(broker), self.options.api_lost);
        self.schedule(1_500_000, Event::Answered { broker, life, call, answer: Answer::Unknown });
        let Some(waits) = self.waits(broker) else { return call };
        if self.network.is_cut(broker, API) || self.faulty && self.rng.once_in(lost) {
            self.counts.saw(Seen::ApiRequestLost);
        } else {
            let late = self.faulty && self.rng.once_in(2 * lost);
            let after = if late { self.millis(500, 5_000) } else { self.millis(1, 20) };
            self.schedule(waits + after, Event::Call { broker, life, call, request });
        }
        call
    }

    /// The API does what it is asked, whatever has become of who asked.
    fn call_arrives(&mut self, broker: i32, life: u32, call: u64, request: &Request) {
        let answer = self.refuses().unwrap_or_else(|| self.store.serve(request));
        if matches!(answer, Answer::Conflict) {
            self.counts.saw(Seen::ApiConflict);
        }
        if matches!(answer, Answer::Written(_)) {
            self.wrote(request);
            let process = self.nodes[broker as usize].process.as_ref();
            if process.is_none_or(|process| !process.calls.contains_key(&call)) {
                self.counts.saw(Seen::ApiLate);
            }
        }
        if self.network.is_cut(API, broker) || self.faulty && self.rng.once_in(self.options.api_lost) {
            self.counts.saw(Seen::ApiAnswerLost);
            if matches!(answer, Answer::Written(_)) {
                self.counts.saw(Seen::ApiWriteAnswerLost);
            }
            return;
        }
        let after = self.millis(1, 20);
        self.schedule(after, Event::Answered { broker, life, call, answer });
    }

    /// Something new is to be seen by all watches.
    fn wrote(&mut self, request: &Request) {
        let slice = matches!(request, Request::WriteSlice(..));
        if slice {
            self.check_slice();
        }
        self.show(if slice { Watched::Slice } else { Watched::Brokers });
    }

    /// All watches tell the newest.
    pub(crate) fn show(&mut self, what: Watched) {
        for broker in 0..self.options.brokers {
            self.watch(broker, what);
        }
    }

    pub(crate) fn watch(&mut self, broker: i32, what: Watched) {
        let lag = if self.faulty { self.options.watch_lag } else { 10 };
        let (life, after) = (self.life(broker), self.millis(1, 1 + lag));
        let event = match what {
            Watched::Slice => Event::WatchSlice { broker, life, version: self.store.slices.len() - 1 },
            Watched::Brokers => Event::WatchBrokers { broker, life, version: self.store.brokers.len() - 1 },
            Watched::Cluster => Event::WatchCluster { broker, life, version: self.store.clusters.len() - 1 },
        };
        if !self.network.is_cut(API, broker) {
            self.schedule(after, event);
        }
    }

    /// The replica of a broker in its present session.
    pub(crate) fn replica(&self, broker: i32) -> Replica {
        let process = self.nodes[broker as usize].process.as_ref();
        Replica { broker, incarnation: process.map_or(0, |process| process.incarnation) }
    }
}
