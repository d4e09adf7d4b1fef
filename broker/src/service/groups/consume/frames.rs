//! A Consume stream's frames: what the client says, and the records it gets.

use std::time::Instant as StdInstant;

use taffrail_proto::v1::{self, ConsumeRequest, OffsetReset, StoredRecord, consume_request as request};
use tokio::time::Instant;

use super::super::member::PAUSE;
use super::{CHUNK_BYTES, Consume, Ended, Heard, READS_AHEAD, check, offsets, start};
use crate::coordinator::group::TopicPartition;
use crate::memory::Charge;
use crate::partition::{FetchError, Snapshot};
use crate::service::fetch::{Reader, Room, room, settle, size};
use crate::service::status::{Refused, invalid};

/// A read that has ended.
pub(super) struct Read {
    token: u64,
    began: StdInstant,
    /// Credit that was set aside for it.
    reserved: usize,
    charge: Charge,
    result: Result<Piece, ReadFault>,
}

/// A piece of a partition.
struct Piece {
    records: Vec<StoredRecord>,
    /// Where to go on if there are none.
    next: i64,
    snapshot: Snapshot,
}

enum ReadFault {
    Fetch(FetchError),
    Decode(Refused),
}

impl Consume<'_> {
    /// Carries out a frame; whether it was the last. A client that says no more without leaving is a broken stream: the member
    /// stays until its session timeout.
    pub(super) async fn take(&mut self, frame: Option<ConsumeRequest>) -> Result<bool, Ended> {
        let Some(frame) = frame else {
            self.answer_commits().await?;
            return Ok(true);
        };
        self.alive();
        match frame.frame {
            Some(request::Frame::Heartbeat(v1::ConsumeHeartbeat {})) => {}
            Some(request::Frame::Credit(credit)) => self.credit.add(credit.bytes),
            Some(request::Frame::Commit(commit)) => self.commit(&commit)?,
            Some(request::Frame::Released(released)) => {
                let released = check::owned(&self.groups.directory(), &released.partitions)?;
                self.ask.owned |= self.partitions.released(&released);
            }
            Some(request::Frame::Pause(named)) => self.pause(&named, true)?,
            Some(request::Frame::Resume(named)) => self.pause(&named, false)?,
            Some(request::Frame::Seek(seek)) => self.seek(&seek)?,
            Some(request::Frame::Subscribe(subscription)) => {
                self.ask.subscription = Some(check::subscription(self.call, subscription)?);
            }
            Some(request::Frame::Leave(leave)) => {
                self.member.leave(leave.returning).await.map_err(Refused::from)?;
                self.answer_commits().await?;
                return Ok(true);
            }
            Some(request::Frame::Open(_)) => {
                return Err(Refused::of(invalid("frame", "the stream is open already")).into());
            }
            None => {
                let fault = "it is empty, or of a kind that this broker does not know";
                return Err(Refused::of(invalid("frame", fault)).into());
            }
        }
        Ok(false)
    }

    /// The client has shown that it is alive; the coordinator hears of it often enough.
    fn alive(&mut self) {
        let now = Instant::now();
        if now.duration_since(self.last_heartbeat) >= self.heartbeat_interval / 2 {
            self.last_heartbeat = now;
            self.ask.heartbeat = true;
        }
    }

    fn commit(&mut self, commit: &v1::ConsumeCommit) -> Result<(), Ended> {
        self.rpc.requests.inc();
        let named = offsets::named(&self.groups.directory(), &commit.offsets)?;
        let of = |asked: &v1::OffsetCommit| (asked.topic.clone(), asked.partition);
        let is_known = |asked: &&v1::OffsetCommit| {
            !named.errors.iter().any(|error| error.topic == asked.topic && error.partition == asked.partition)
        };
        let partitions = commit.offsets.iter().filter(is_known).map(of).collect();
        let (id, errors, answered) = (commit.id, named.errors, self.member.commit(named.offsets));
        self.commits += 1;
        self.asks.push(Box::pin(async move { Heard::Committed { id, partitions, errors, answered: answered.await } }));
        Ok(())
    }

    fn pause(&mut self, named: &v1::ConsumePartitions, paused: bool) -> Result<(), Ended> {
        let partitions = check::owned(&self.groups.directory(), &named.partitions)?;
        self.partitions.pause(&partitions, paused);
        Ok(())
    }

    fn seek(&mut self, seek: &v1::ConsumeSeek) -> Result<(), Ended> {
        if seek.offset < 0 {
            return Err(Refused::of(invalid("seek.offset", format_args!("is from 0, not {}", seek.offset))).into());
        }
        if let Some(topic) = self.groups.directory().named(&seek.topic) {
            self.partitions.seek(TopicPartition { topic: topic.id, partition: seek.partition }, seek.offset);
        }
        Ok(())
    }

    /// Begins reads while there is credit and something to look at.
    pub(super) fn read_ahead(&mut self) {
        while self.reads.len() < READS_AHEAD && !self.outbox.has_records() && self.credit.left() > 0 {
            let Some((token, reader)) = self.partitions.next_ready() else { return };
            let (call, broker) = (self.call, self.broker);
            let reserved = self.credit.left().min(CHUNK_BYTES);
            self.credit.spend(reserved);
            self.reads.push(Box::pin(async move {
                let Room { mut charge, bytes } = room(call, &reader, reserved).await;
                let began = StdInstant::now();
                let result = read(&reader, bytes).await;
                if let Ok(piece) = &result {
                    settle(call, &mut charge, piece.records.iter().map(size).sum());
                    let numbers = broker.metrics.topic(&reader.topic);
                    numbers.fetched_records.inc_by(piece.records.len() as u64);
                    numbers.fetched_bytes.inc_by(charge.bytes() as u64);
                }
                Read { token, began, reserved, charge, result }
            }));
        }
    }

    /// Puts what was read in line to be sent, or waits for more.
    pub(super) fn deliver(&mut self, read: Read) -> Result<(), Ended> {
        let Read { token, began, reserved, charge, result } = read;
        self.credit.add(reserved as u64);
        let isolation = self.settings.isolation;
        let Some(reading) = self.partitions.reading(token) else { return Ok(()) };
        reading.busy = false;
        if reading.paused {
            return Ok(());
        }
        let piece = match result {
            Ok(piece) => piece,
            Err(ReadFault::Decode(refused)) => return Err(refused.into()),
            Err(ReadFault::Fetch(error)) => return self.go_on_anew(token, error),
        };
        let end = piece.snapshot.visible_end(isolation);
        let reader = &mut reading.reader;
        match piece.records.last() {
            Some(last) => (reader.offset, reader.last_epoch) = (last.offset + 1, Some(last.leader_epoch)),
            None => reader.offset = piece.next.min(end).max(reader.offset),
        }
        if reader.offset < end || !reader.partition.arm(end, isolation, &self.waiter, token) {
            self.partitions.wake(token);
        }
        if !piece.records.is_empty() {
            self.credit.spend(piece.records.iter().map(size).sum());
            self.rpc.requests.inc();
            self.rpc.latency.observe(began.elapsed());
            self.send_records(token, piece, charge);
        }
        Ok(())
    }

    fn send_records(&mut self, token: u64, piece: Piece, charge: Charge) {
        let Some(reading) = self.partitions.reading(token) else { return };
        let records = v1::ConsumeRecords {
            topic: reading.reader.topic.to_string(),
            partition: reading.reader.index,
            high_watermark: piece.snapshot.high_watermark,
            records: piece.records,
        };
        self.push_records(records, charge);
    }

    fn again(&self, token: u64) {
        self.asks.push(Box::pin(async move {
            tokio::time::sleep(PAUSE).await;
            Heard::Again(token)
        }));
    }

    /// The position is gone, or the partition is.
    fn go_on_anew(&mut self, token: u64, error: FetchError) -> Result<(), Ended> {
        let (reset, isolation) = (self.settings.reset, self.settings.isolation);
        let Some(reading) = self.partitions.reading(token) else { return Ok(()) };
        let reader = &mut reading.reader;
        let anew = match &error {
            // Its topic was deleted, or the broker stops: the coordinator, or the connection, says so next. Or its leader has
            // moved, or cannot be reached: it is looked for again.
            FetchError::Closed
            | FetchError::NoLeader(_)
            | FetchError::NotInSync { .. }
            | FetchError::OffsetNotAvailable => {
                self.again(token);
                return Ok(());
            }
            FetchError::Leader(error) if error.retriable => {
                self.again(token);
                return Ok(());
            }
            FetchError::OutOfRange { .. } => start::anew(reset, &reader.partition.snapshot(), isolation),
            // What was read behind it is gone: where the histories part nothing is skipped.
            FetchError::Truncated { at, .. } => (reset != OffsetReset::Fail).then_some(*at),
            FetchError::Epoch(_) | FetchError::Corrupt { .. } | FetchError::Storage(_) | FetchError::Leader(_) => None,
        };
        let Some(offset) = anew else { return Err(Refused::of(reader.error(self.broker, error)).into()) };
        tracing::info!(topic = &*reader.topic, partition = reader.index, from = reader.offset, to = offset, %error,
            "a member of a group goes on elsewhere");
        (reader.offset, reader.last_epoch) = (offset, None);
        self.partitions.wake(token);
        Ok(())
    }
}

async fn read(reader: &Reader, max_bytes: usize) -> Result<Piece, ReadFault> {
    let read = reader.read(max_bytes).await.map_err(ReadFault::Fetch)?;
    let end = read.snapshot.visible_end(reader.isolation);
    let mut behind = reader.clone();
    behind.advance(&read.batches);
    let records = reader.plain(read.batches, end, max_bytes).await.map_err(ReadFault::Decode)?;
    Ok(Piece { records, next: behind.offset, snapshot: read.snapshot })
}
