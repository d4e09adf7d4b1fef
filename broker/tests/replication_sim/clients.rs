//! Idempotent producers, each batch of which ends acknowledged, failed or unknown; and readers below the high watermark.

use std::collections::{BTreeMap, VecDeque};

use bytes::{Bytes, BytesMut};
use taffrail_proto::record::header::{BatchProducer, set_base_offset, set_leader_epoch};
use taffrail_proto::record::{BatchBuilder, BatchHeader, Compression};

use super::counts::Seen;
use super::network::CLIENTS;
use super::world::{Event, Message, Micros, Refusal, World};

/// When an answer is not waited for any longer.
const ANSWER: Micros = 1_000_000;
/// When a producer gives a batch up.
const DELIVERY: Micros = 15_000_000;
/// When it gives up a batch that is out of sequence though it is the first.
const SEQUENCE: Micros = 3_000_000;

/// A batch on its way to a leader.
#[derive(Clone, Debug)]
pub(crate) struct Batched {
    pub(crate) producer: usize,
    pub(crate) partition: usize,
    pub(crate) id: i64,
    pub(crate) sequence: i32,
    pub(crate) attempt: u32,
    bytes: Bytes,
}

impl Batched {
    pub(crate) fn client(&self) -> i32 {
        CLIENTS + self.producer as i32
    }

    /// As a leader stores it.
    pub(crate) fn placed(&self, base: i64, epoch: i32) -> (Bytes, BatchHeader) {
        let mut bytes = BytesMut::from(&self.bytes[..]);
        set_base_offset(&mut bytes, base);
        set_leader_epoch(&mut bytes, epoch);
        let header = BatchHeader::parse(&bytes).expect("it was built");
        (bytes.freeze(), header)
    }
}

/// A batch that has not ended.
struct Open {
    batch: Batched,
    since: Micros,
    /// When the last attempt was made, if its answer is not there.
    asked: Option<Micros>,
    /// An attempt may have succeeded.
    unknown: bool,
    /// Since when it is out of sequence.
    out_of_sequence: Option<Micros>,
}

pub(crate) struct Producer {
    partition: usize,
    id: i64,
    next: i32,
    open: VecDeque<Open>,
    builder: BatchBuilder,
    /// Acknowledged so far.
    pub(crate) done: u64,
}

impl Producer {
    pub(crate) fn open(&self) -> usize {
        self.open.len()
    }
}

/// Reads what is committed, from whoever leads.
#[derive(Debug)]
pub(crate) struct Reader {
    partition: usize,
    /// Highest high watermark seen in each leader epoch.
    seen: BTreeMap<i32, i64>,
}

impl Reader {
    pub(crate) fn new(partition: usize) -> Self {
        Self { partition, seen: BTreeMap::new() }
    }
}

impl World {
    pub(crate) fn start_clients(&mut self) {
        for at in 0..self.options.producers {
            let partition = at % self.options.partitions as usize;
            let (id, builder) = (self.new_producer_id(), BatchBuilder::with_capacity(256));
            self.producers.push(Producer { partition, id, next: 0, open: VecDeque::new(), builder, done: 0 });
            self.schedule(1_000, Event::Produce { producer: at });
        }
        for at in 0..self.readers.len() {
            self.schedule(1_000_000, Event::Read { reader: at });
        }
    }

    fn new_producer_id(&mut self) -> i64 {
        self.next_producer += 1;
        self.next_producer
    }

    /// A leader as some broker knows it, or just some broker.
    fn believed_leader(&mut self, partition: usize) -> i32 {
        let any = self.rng.index(self.nodes.len()) as i32;
        self.seen(any, partition).and_then(|state| state.leader).unwrap_or(any)
    }

    pub(crate) fn produce(&mut self, at: usize) {
        let after = self.millis(10, 100);
        self.schedule(after, Event::Produce { producer: at });
        self.give_up(at);
        let (now, count) = (self.now, 1 + self.rng.index(3) as i32);
        let due = !self.faulty || self.rng.once_in(self.options.pace / 100);
        let producer = &mut self.producers[at];
        if producer.open.len() < self.options.in_flight && !self.closing && due {
            let batch = producer.build(at, count);
            producer.open.push_back(Open { batch, since: now, asked: None, unknown: false, out_of_sequence: None });
        }
        // Only what is due is sent again.
        let waits = |open: &Open| open.asked.is_some_and(|asked| now - asked < ANSWER);
        if self.producers[at].open.iter().all(waits) {
            return;
        }
        let target = self.believed_leader(self.producers[at].partition);
        let mut sent = Vec::new();
        for open in &mut self.producers[at].open {
            if waits(open) {
                continue;
            }
            // What was asked before was not answered: it may have been done.
            open.unknown |= open.asked.is_some();
            open.asked = Some(now);
            open.batch.attempt += 1;
            sent.push(open.batch.clone());
        }
        for batch in sent {
            self.send(batch.client(), target, Message::Produce(batch));
        }
    }

    /// A batch that has waited for too long ends the producer's session, and with it all its batches.
    fn give_up(&mut self, at: usize) {
        let (now, faulty) = (self.now, self.faulty);
        let producer = &self.producers[at];
        let late = producer.open.iter().any(|open| faulty && now - open.since > DELIVERY);
        let first = producer.open.front().and_then(|open| open.out_of_sequence);
        if !late && first.is_none_or(|since| now - since < SEQUENCE) {
            return;
        }
        let id = self.new_producer_id();
        let producer = &mut self.producers[at];
        (producer.id, producer.next) = (id, 0);
        for open in std::mem::take(&mut producer.open) {
            let history = &mut self.histories[open.batch.partition];
            if open.unknown || open.asked.is_some() {
                self.counts.saw(Seen::Unknown);
            } else {
                self.counts.saw(Seen::Failed);
                history.fail((open.batch.id, open.batch.sequence));
            }
        }
    }

    /// An answer gets to a producer.
    pub(crate) fn produced(&mut self, batch: &Batched, result: Result<i64, Refusal>) {
        let now = self.now;
        let producer = &mut self.producers[batch.producer];
        let found =
            producer.open.iter().position(|open| (open.batch.id, open.batch.sequence) == (batch.id, batch.sequence));
        if let Ok(base) = result {
            self.histories[batch.partition].acknowledge((batch.id, batch.sequence), base);
        }
        let Some(place) = found else { return };
        let open = &mut producer.open[place];
        if result.is_ok() {
            producer.open.remove(place);
            producer.done += 1;
            self.counts.saw(Seen::Acknowledged);
            return;
        }
        if open.batch.attempt != batch.attempt {
            return;
        }
        open.asked = None;
        match result {
            Err(Refusal::Unknown) => open.unknown = true,
            Err(Refusal::OutOfSequence) => {
                open.out_of_sequence.get_or_insert(now);
            }
            _ => {}
        }
    }

    /// Looks at a leader, and at any replica.
    pub(crate) fn read(&mut self, at: usize) {
        let after = self.millis(100, 500);
        self.schedule(after, Event::Read { reader: at });
        let (partition, broker) = (self.readers[at].partition, self.rng.index(self.nodes.len()) as i32);
        if self.nodes[broker as usize].paused_until > self.now {
            return;
        }
        let current = self.store.partition(partition).leader_epoch;
        let acknowledged = self.histories[partition].acknowledged_end();
        let Some(slot) = self.slot(broker, partition) else { return };
        if slot.following().is_some() {
            self.counts.saw(Seen::ReadFollower);
            return;
        }
        let Some(leading) = slot.leading() else { return };
        let (epoch, high_watermark) = (leading.epoch, leading.high_watermark);
        let known = leading.leader.latest_known();
        if known {
            let newer = epoch == current && acknowledged > high_watermark;
            assert!(!newer, "H5: {high_watermark} told as latest offset, and {acknowledged} is acknowledged");
        } else {
            self.counts.saw(Seen::HeldBack);
        }
        let seen = self.readers[at].seen.entry(epoch).or_insert(high_watermark);
        assert!(
            *seen <= high_watermark,
            "non-monotonic: high watermark {high_watermark} after {seen} in epoch {epoch}"
        );
        *seen = high_watermark;
    }
}

impl Producer {
    fn build(&mut self, at: usize, count: i32) -> Batched {
        let (id, sequence) = (self.id, self.next);
        for record in 0..count {
            let value = [id.to_be_bytes(), i64::from(sequence + record).to_be_bytes()].concat();
            self.builder.push(None, Some(&value), [], 0).expect("a small record");
        }
        self.next += count;
        let producer = BatchProducer::new(id, 0, sequence).expect("in range");
        let bytes = self.builder.build(Compression::None, Some(producer)).expect("not empty");
        Batched { producer: at, partition: self.partition, id, sequence, attempt: 0, bytes }
    }
}
