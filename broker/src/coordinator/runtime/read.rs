//! Reads a shard's log.

use taffrail_proto::record::{Scratch, records};

use super::load::{LoadError, Loaded, Loader};
use crate::coordinator::StateMachine;
use crate::partition::{DeleteRecordsError, FetchError, Isolation, Partition, ReadRequest};

/// Bytes of the log read at a time.
const LOAD_BYTES: usize = 1 << 20;

/// Why there is no shard.
#[derive(Debug, thiserror::Error)]
pub(super) enum NotLoaded {
    #[error(transparent)]
    Settle(DeleteRecordsError),
    #[error(transparent)]
    Fetch(FetchError),
    #[error(transparent)]
    Log(LoadError),
}

impl NotLoaded {
    /// Trying again does not help.
    pub(super) fn is_lasting(&self) -> bool {
        matches!(self, Self::Log(_) | Self::Fetch(FetchError::Corrupt { .. }))
    }
}

/// Reads the log up to where it ends now, which is committed then (C2); what it gives, and how many records were read.
pub(super) async fn read_log<M: StateMachine>(
    partition: &Partition,
    make: fn() -> M,
) -> Result<(Loaded<M>, u64), NotLoaded> {
    // A trim of nothing stands in line behind what the shard before this one left in flight, and is taken when all of that
    // is settled: only then is the log's end what it will be.
    partition.delete_records(0).await.map_err(NotLoaded::Settle)?;
    let snapshot = partition.snapshot();
    let mut loader = Loader::new(make, snapshot.log_start);
    let (mut offset, mut count_read) = (snapshot.log_start, 0);
    let mut scratch = Scratch::new();
    while offset < snapshot.log_end {
        let request = ReadRequest {
            offset,
            max_bytes: LOAD_BYTES,
            isolation: Isolation::ReadUncommitted,
            last_epoch: None,
            leader_epoch: Some(snapshot.leader_epoch),
        };
        let read = partition.read(request).await.map_err(NotLoaded::Fetch)?;
        if read.batches.is_empty() {
            partition.wait_beyond(offset, Isolation::ReadUncommitted).await;
        }
        for batch in &read.batches {
            let at = offset;
            let unreadable = move |_| NotLoaded::Log(LoadError::Unreadable(at));
            for record in records(batch, LOAD_BYTES, &mut scratch).map_err(unreadable)? {
                let record = record.map_err(unreadable)?;
                let (key, value) = (record.key.unwrap_or_default(), record.value.unwrap_or_default());
                loader.record(record.offset, &key, &value).map_err(NotLoaded::Log)?;
                offset = record.offset + 1;
                count_read += 1;
            }
        }
        tokio::task::yield_now().await;
    }
    Ok((loader.finish().map_err(NotLoaded::Log)?, count_read))
}
