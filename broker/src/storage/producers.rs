//! State of the idempotent producers of one log: which batches came last from each, so that what is sent twice is stored
//! once. A pure function of the log's batches (P5): [`Producers::check`] decides, [`Producers::record`] replays.
//!
//! # Format
//!
//! Footers and checkpoints hold it as: version `u8` = 1, count `u32`, then for each producer: id `i64`, epoch `i16`, flags
//! `u8` (0; room for an open transaction), last append time `i64`, number of batches `u8` (1 to 5), and for each batch: first
//! and last sequence `i32`, base and last offset `i64`, timestamp `i64`. Big endian.

use std::collections::BTreeMap;

use taffrail_proto::record::BatchHeader;

/// Batches that are remembered for each producer, as in Kafka: a client may have that many in flight on a partition and be
/// told the offset of each on a retry (P1).
pub const BATCHES_KEPT: usize = 5;
/// Producers that are remembered in one log, so that a client cannot fill the memory by taking ids: the longest idle goes.
pub const PRODUCERS_KEPT: usize = 10_000;
/// A producer that has not appended for this long, by the append times of the log's later batches, is forgotten:
/// milliseconds. Longer than any client's delivery timeout (P7; Kafka: one day).
pub const EXPIRY_MS: i64 = 24 * 60 * 60 * 1000;
const VERSION: u8 = 1;

/// What a batch's header says about its producer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sequenced {
    /// Producer id, not negative.
    pub id: i64,
    /// Producer epoch, not negative.
    pub epoch: i16,
    /// Which records, where.
    pub batch: SequencedBatch,
}

/// One appended batch of a producer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SequencedBatch {
    /// Sequence number of the first record.
    pub first_sequence: i32,
    /// Sequence number of the last record; less than the first where they wrap.
    pub last_sequence: i32,
    /// Offset of the first record.
    pub base_offset: i64,
    /// Offset of the last record.
    pub last_offset: i64,
    /// Newest record timestamp, milliseconds.
    pub timestamp: i64,
}

impl Sequenced {
    /// Of a batch; `None` if its producer is not idempotent.
    pub fn of(header: &BatchHeader) -> Option<Self> {
        let producer = header.producer()?;
        let last_sequence = advance(producer.first_sequence, header.record_count - 1);
        let batch = SequencedBatch {
            first_sequence: producer.first_sequence,
            last_sequence,
            base_offset: header.base_offset,
            last_offset: header.last_offset(),
            timestamp: header.max_timestamp,
        };
        Some(Self { id: producer.id, epoch: producer.epoch, batch })
    }
}

/// The sequence number `by` after `sequence`; they wrap at 2^31 (as Kafka's `DefaultRecordBatch.incrementSequence`).
pub fn advance(sequence: i32, by: i32) -> i32 {
    ((i64::from(sequence) + i64::from(by)) % (1 << 31)) as i32
}

/// What to do with a batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Check {
    /// It comes next.
    Append,
    /// It has been appended before.
    Duplicate {
        /// The offset it got then, if that is still known.
        base_offset: Option<i64>,
        /// The original is committed when the high watermark is at or above this (P2).
        end: i64,
    },
}

/// Why a batch is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SequenceError {
    /// A newer epoch of the producer has appended (P4).
    #[error("producer epoch is fenced: {current} is the current one")]
    Fenced {
        /// The newest epoch.
        current: i16,
    },
    /// A batch is missing before this one, or it overlaps one that is there (P3).
    #[error("sequence {found} is not the expected {expected}: resend from there, in order")]
    OutOfSequence {
        /// What comes next.
        expected: i32,
        /// What came.
        found: i32,
    },
    /// Nothing is known of the producer (P6).
    #[error("producer is not known in this partition: run InitProducer again when nothing is in flight")]
    Unknown,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Producer {
    epoch: i16,
    last_append_time: i64,
    /// Oldest first, 1 to [`BATCHES_KEPT`].
    batches: Vec<SequencedBatch>,
}

/// The producers of one log.
#[derive(Clone, Debug)]
pub struct Producers {
    by_id: BTreeMap<i64, Producer>,
    /// None of them has been idle since before this append time: until then nothing can expire, and nobody looks.
    idle_since: i64,
}

impl Default for Producers {
    fn default() -> Self {
        Self { by_id: BTreeMap::new(), idle_since: i64::MAX }
    }
}

impl PartialEq for Producers {
    fn eq(&self, other: &Self) -> bool {
        self.by_id == other.by_id
    }
}

impl Eq for Producers {}

impl Producers {
    /// No producers.
    pub fn new() -> Self {
        Self::default()
    }

    /// How many are known.
    pub fn len(&self) -> usize {
        self.by_id.len()
    }

    /// None is known.
    pub fn is_empty(&self) -> bool {
        self.by_id.is_empty()
    }

    /// Newest epoch of a producer in this log.
    pub fn epoch(&self, id: i64) -> Option<i16> {
        self.by_id.get(&id).map(|p| p.epoch)
    }

    /// Whether a batch comes next, was there before, or is refused. Changes nothing.
    pub fn check(&self, found: &Sequenced) -> Result<Check, SequenceError> {
        let (batch, first) = (&found.batch, found.batch.first_sequence);
        let Some(producer) = self.by_id.get(&found.id) else {
            return if first == 0 { Ok(Check::Append) } else { Err(SequenceError::Unknown) };
        };
        if found.epoch < producer.epoch {
            return Err(SequenceError::Fenced { current: producer.epoch });
        }
        if found.epoch > producer.epoch {
            let fault = SequenceError::OutOfSequence { expected: 0, found: first };
            return if first == 0 { Ok(Check::Append) } else { Err(fault) };
        }
        let same = |b: &&SequencedBatch| b.first_sequence == first && b.last_sequence == batch.last_sequence;
        if let Some(original) = producer.batches.iter().find(same) {
            return Ok(Check::Duplicate { base_offset: Some(original.base_offset), end: original.last_offset + 1 });
        }
        let (Some(oldest), Some(last)) = (producer.batches.first(), producer.batches.last()) else {
            return Err(SequenceError::Unknown);
        };
        let expected = advance(last.last_sequence, 1);
        if first == expected {
            return Ok(Check::Append);
        }
        // Sequences are compared on the circle: what lies less than half of it behind has been appended.
        let behind = |of: i32, sequence: i32| (i64::from(of) - i64::from(sequence)).rem_euclid(1 << 31) < 1 << 30;
        let older =
            behind(oldest.first_sequence, first) && behind(oldest.first_sequence, advance(batch.last_sequence, 1));
        if older {
            return Ok(Check::Duplicate { base_offset: None, end: oldest.base_offset });
        }
        Err(SequenceError::OutOfSequence { expected, found: first })
    }

    /// Takes note of an appended batch.
    pub fn record(&mut self, appended: &Sequenced, append_time: i64) {
        let fresh =
            || Producer { epoch: appended.epoch, last_append_time: append_time, batches: Vec::with_capacity(1) };
        let producer = self.by_id.entry(appended.id).or_insert_with(fresh);
        if appended.epoch != producer.epoch {
            *producer = fresh();
        }
        if producer.batches.len() == BATCHES_KEPT {
            producer.batches.remove(0);
        }
        producer.batches.push(appended.batch);
        producer.last_append_time = producer.last_append_time.max(append_time);
        self.idle_since = self.idle_since.min(append_time);
        if self.by_id.len() > PRODUCERS_KEPT {
            self.forget_longest_idle();
        }
    }

    /// Adds what happened after: `later` is the state of batches that follow all of these.
    pub fn extend(&mut self, later: &Producers) {
        for (&id, producer) in &later.by_id {
            for &batch in &producer.batches {
                self.record(&Sequenced { id, epoch: producer.epoch, batch }, producer.last_append_time);
            }
        }
    }

    /// All batches that are remembered lie below `offset`. The newest of each producer is always remembered: then none has
    /// appended at or above it.
    pub fn ends_below(&self, offset: i64) -> bool {
        self.by_id.values().all(|p| p.batches.iter().all(|batch| batch.last_offset < offset))
    }

    /// Forgets those that have been idle for [`EXPIRY_MS`] at `append_time`, the newest of the log (P7). Cheap enough to be
    /// called for each append.
    pub fn expire(&mut self, append_time: i64) {
        if append_time.saturating_sub(self.idle_since) < EXPIRY_MS {
            return;
        }
        self.by_id.retain(|_, p| append_time.saturating_sub(p.last_append_time) < EXPIRY_MS);
        self.idle_since = self.longest_idle();
    }

    fn longest_idle(&self) -> i64 {
        self.by_id.values().map(|p| p.last_append_time).min().unwrap_or(i64::MAX)
    }

    fn forget_longest_idle(&mut self) {
        let idle = self.by_id.iter().min_by_key(|(id, p)| (p.last_append_time, **id)).map(|(id, _)| *id);
        if let Some(id) = idle {
            self.by_id.remove(&id);
        }
    }

    /// Appends the encoded state to `out`; see the module for the format.
    pub fn encode(&self, out: &mut Vec<u8>) {
        out.push(VERSION);
        out.extend((self.by_id.len() as u32).to_be_bytes());
        for (id, producer) in &self.by_id {
            out.extend(id.to_be_bytes());
            out.extend(producer.epoch.to_be_bytes());
            out.push(0);
            out.extend(producer.last_append_time.to_be_bytes());
            out.push(producer.batches.len() as u8);
            for batch in &producer.batches {
                out.extend(batch.first_sequence.to_be_bytes());
                out.extend(batch.last_sequence.to_be_bytes());
                out.extend(batch.base_offset.to_be_bytes());
                out.extend(batch.last_offset.to_be_bytes());
                out.extend(batch.timestamp.to_be_bytes());
            }
        }
    }

    /// Takes the state from the front of `bytes` and leaves what follows. `None` if it is malformed or of another version.
    pub fn decode(bytes: &mut &[u8]) -> Option<Self> {
        if u8::from_be_bytes(take(bytes)?) != VERSION {
            return None;
        }
        let (count, mut by_id) = (u32::from_be_bytes(take(bytes)?), BTreeMap::new());
        for _ in 0..count {
            let id = i64::from_be_bytes(take(bytes)?);
            let epoch = i16::from_be_bytes(take(bytes)?);
            let (flags, last_append_time) = (u8::from_be_bytes(take(bytes)?), i64::from_be_bytes(take(bytes)?));
            let kept = usize::from(u8::from_be_bytes(take(bytes)?));
            if flags != 0 || kept == 0 || kept > BATCHES_KEPT {
                return None;
            }
            let batches = (0..kept).map(|_| decode_batch(bytes)).collect::<Option<Vec<_>>>()?;
            by_id.insert(id, Producer { epoch, last_append_time, batches });
        }
        let mut producers = Self { by_id, idle_since: i64::MAX };
        producers.idle_since = producers.longest_idle();
        Some(producers)
    }
}

fn decode_batch(bytes: &mut &[u8]) -> Option<SequencedBatch> {
    Some(SequencedBatch {
        first_sequence: i32::from_be_bytes(take(bytes)?),
        last_sequence: i32::from_be_bytes(take(bytes)?),
        base_offset: i64::from_be_bytes(take(bytes)?),
        last_offset: i64::from_be_bytes(take(bytes)?),
        timestamp: i64::from_be_bytes(take(bytes)?),
    })
}

fn take<const N: usize>(bytes: &mut &[u8]) -> Option<[u8; N]> {
    let (head, tail) = bytes.split_first_chunk::<N>()?;
    *bytes = tail;
    Some(*head)
}

#[cfg(test)]
mod tests;
