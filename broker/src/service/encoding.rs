//! Plain records on their way to partitions: which record goes where, and the batches they become.

use std::collections::BTreeMap;

use bytes::Bytes;
use taffrail_proto::partitioner::partition_for_key;
use taffrail_proto::record::walk::MAX_NAMED_RECORDS;
use taffrail_proto::record::{
    BatchBuilder, BatchError, BatchHeader, BatchProducer, Compression, InvalidRecord, Limits, RecordFault,
};
use taffrail_proto::v1;

use super::status::{IntoLogError, Refused, invalid};
use crate::partition::Acks;
use crate::topics::Topic;

/// Encoded where they arrived up to this size, if they are not to be compressed.
const ENCODED_ON_THE_SPOT: usize = 256 << 10;

/// A produce request whose fields are known to make sense together.
#[derive(Debug)]
pub(super) struct Plan {
    pub(super) records: Vec<v1::Record>,
    pub(super) partition: Option<i32>,
    pub(super) acks: Acks,
    pub(super) compression: Compression,
    pub(super) producer: Option<BatchProducer>,
}

impl Plan {
    /// Checks what can be checked without the topic.
    pub(super) fn of(request: v1::ProduceRequest, default_acks: Acks) -> Result<Self, Refused> {
        let acks = acks(request.acks, default_acks)?;
        let compression = v1::Compression::try_from(request.compression)
            .map_err(|unknown| Refused::of(invalid("compression", format_args!("{} is not known", unknown.0))))?;
        let producer = match (request.producer, request.first_sequence, request.partition) {
            (None, None, _) => None,
            (Some(identity), Some(first), Some(_)) => Some(BatchProducer::from_plain(identity, first)?),
            _ => {
                let fault = "needs partition, producer and first_sequence together, or neither of the last two";
                return Err(Refused::of(invalid("producer", fault)));
            }
        };
        if request.records.is_empty() {
            return Err(Refused::of(invalid("records", "there are none: give at least one")));
        }
        let (records, partition) = (request.records, request.partition);
        Ok(Self { records, partition, acks, compression: compression.into(), producer })
    }

    /// Which records go to which partition, by index, in their order. `sticky` chooses for records without a key.
    pub(super) fn split(
        &self,
        topic: &Topic,
        mut sticky: impl FnMut() -> i32,
    ) -> Result<BTreeMap<i32, Vec<u32>>, Refused> {
        if let Some(partition) = self.partition {
            topic.partition(partition)?;
            return Ok(BTreeMap::from([(partition, (0..self.records.len() as u32).collect())]));
        }
        let count = topic.partitions.len() as i32;
        let mut shares = BTreeMap::<i32, Vec<u32>>::new();
        for (index, record) in self.records.iter().enumerate() {
            let partition = record.key.as_ref().map_or_else(&mut sticky, |key| partition_for_key(key, count));
            shares.entry(partition).or_default().push(index as u32);
        }
        Ok(shares)
    }

    /// About what the records hold in memory; more than the batches will have.
    pub(super) fn size(&self) -> usize {
        held(&self.records)
    }
}

/// About what records hold in memory.
pub(super) fn held(records: &[v1::Record]) -> usize {
    records.iter().map(size).sum()
}

/// Beside their content.
const RECORD_BYTES: usize = 112;
const HEADER_BYTES: usize = 56;

fn size(record: &v1::Record) -> usize {
    let length = |bytes: &Option<Bytes>| bytes.as_ref().map_or(0, Bytes::len);
    let headers: usize =
        record.headers.iter().map(|header| header.name.len() + length(&header.value) + HEADER_BYTES).sum();
    length(&record.key) + length(&record.value) + headers + RECORD_BYTES
}

/// The level that a request asks for.
pub(super) fn acks(asked: i32, default: Acks) -> Result<Acks, Refused> {
    match v1::Acks::try_from(asked) {
        Ok(v1::Acks::Unspecified) => Ok(default),
        Ok(v1::Acks::None) => Ok(Acks::None),
        Ok(v1::Acks::Leader) => Ok(Acks::Leader),
        Ok(v1::Acks::All) => Ok(Acks::All),
        Err(unknown) => Err(Refused::of(invalid("acks", format_args!("{} is not known", unknown.0)))),
    }
}

/// What becomes of the records that go to one partition.
#[derive(Debug)]
pub(super) struct Encoded {
    pub(super) partition: i32,
    pub(super) indexes: Vec<u32>,
    pub(super) batch: Result<(Bytes, BatchHeader), Refused>,
}

/// Encodes each share into one batch, on a thread for blocking work if that may take long.
pub(super) async fn encode(plan: Plan, shares: BTreeMap<i32, Vec<u32>>, limits: Limits, now: i64) -> Vec<Encoded> {
    let quick = plan.compression == Compression::None && plan.size() <= ENCODED_ON_THE_SPOT;
    let work = move || encode_shares(&plan, shares, &limits, now);
    if quick {
        return work();
    }
    tokio::task::spawn_blocking(work).await.unwrap_or_else(|panic| std::panic::resume_unwind(panic.into_panic()))
}

fn encode_shares(plan: &Plan, shares: BTreeMap<i32, Vec<u32>>, limits: &Limits, now: i64) -> Vec<Encoded> {
    let mut builder = BatchBuilder::new();
    let mut encode = |(partition, indexes): (i32, Vec<u32>)| {
        let batch = encode_share(plan, &indexes, limits, now, &mut builder);
        Encoded { partition, indexes, batch: batch.map_err(|error| Refused::of(error.into_log_error())) }
    };
    shares.into_iter().map(&mut encode).collect()
}

/// Refused records are named by their index in the request.
fn encode_share(
    plan: &Plan,
    indexes: &[u32],
    limits: &Limits,
    now: i64,
    builder: &mut BatchBuilder,
) -> Result<(Bytes, BatchHeader), BatchError> {
    builder.clear();
    let mut invalid = Vec::new();
    for index in indexes {
        let record = &plan.records[*index as usize];
        let timestamp = record.timestamp_ms.unwrap_or(now);
        if !builder.would_fit_plain(record, now, limits.max_batch_bytes) {
            let size = builder.size() + size(record);
            return Err(BatchError::TooLarge {
                size: size.max(limits.max_batch_bytes + 1),
                limit: limits.max_batch_bytes,
            });
        }
        let pushed = if timestamp > limits.latest_timestamp {
            Err(RecordFault::TimestampInFuture { timestamp, latest: limits.latest_timestamp })
        } else {
            builder.push_plain(record, now)
        };
        if let Err(fault) = pushed {
            invalid.push(InvalidRecord { index: *index as i32, fault });
            if invalid.len() == MAX_NAMED_RECORDS {
                break;
            }
        }
    }
    if !invalid.is_empty() {
        return Err(BatchError::InvalidRecords(invalid));
    }
    let batch = builder.build(plan.compression, plan.producer)?;
    let header = BatchHeader::parse(&batch)?;
    Ok((batch, header))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(value: usize) -> v1::Record {
        v1::Record { value: Some(vec![1; value].into()), ..v1::Record::default() }
    }

    fn plan(records: Vec<v1::Record>) -> Plan {
        Plan::of(v1::ProduceRequest { records, ..v1::ProduceRequest::default() }, Acks::All).unwrap()
    }

    fn faults(plan: &Plan, limits: &Limits) -> BatchError {
        let indexes: Vec<u32> = (0..plan.records.len() as u32).collect();
        encode_share(plan, &indexes, limits, 1_000, &mut BatchBuilder::new()).unwrap_err()
    }

    #[test]
    fn more_than_the_topic_accepts_is_refused_whole() {
        let error = faults(&plan(vec![record(400), record(400), record(400)]), &Limits::new(1_000, 0));
        assert!(matches!(error, BatchError::TooLarge { size, limit: 1_000 } if size > 1_000), "{error:?}");
    }

    #[test]
    fn refused_records_keep_the_index_they_have_in_the_request() {
        let late = v1::Record { timestamp_ms: Some(i64::MAX), ..v1::Record::default() };
        let error = faults(&plan(vec![record(1), late, record(1)]), &Limits::new(1_000, 0));
        assert!(matches!(&error, BatchError::InvalidRecords(records) if records[0].index == 1), "{error:?}");
    }

    #[test]
    fn p10_identity_sequence_and_partition_go_together() {
        let identity = Some(v1::ProducerIdentity { id: 1, epoch: 0 });
        for (producer, first_sequence, partition) in
            [(identity, None, Some(0)), (identity, Some(0), None), (None, Some(0), Some(0))]
        {
            let records = vec![record(1)];
            let request = v1::ProduceRequest { producer, first_sequence, partition, records, ..Default::default() };
            let refused = Plan::of(request, Acks::All).unwrap_err();
            assert!(refused.0.message.starts_with("producer: "), "{}", refused.0.message);
        }
    }
}
