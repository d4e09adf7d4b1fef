//! The check of batches before they are appended, without letting one connection hold up the others.
//!
//! Uncompressed batches are walked where they arrive: 64 KiB take 10 to 30 µs. Unpacking is given a small bound there; a
//! batch that needs more is checked on a thread for blocking work.

use std::cell::RefCell;

use bytes::Bytes;
use taffrail_proto::record::walk::MAX_FUTURE_MILLIS;
use taffrail_proto::record::{BatchError, Limits, Scratch, TimestampType, Walked, validate};

use crate::topics::Settings;

/// Unpacked on the spot up to this size: well below a millisecond.
const UNPACKED_ON_THE_SPOT: usize = 512 << 10;
/// A thread's scratch buffer is given back when one batch has made it larger than this.
const SCRATCH_KEPT: usize = 4 << 20;
/// Checked on the spot up to this size, compressed or not.
const CHECKED_ON_THE_SPOT: usize = 2 << 20;

thread_local! {
    static SCRATCH: RefCell<Scratch> = RefCell::new(Scratch::new());
}

/// What the topic accepts now.
pub(super) fn limits(settings: &Settings, now_millis: i64) -> Limits {
    let latest_timestamp = match settings.timestamp_type {
        TimestampType::CreateTime => now_millis.saturating_add(MAX_FUTURE_MILLIS),
        // The broker overwrites it.
        TimestampType::LogAppendTime => i64::MAX,
    };
    Limits { latest_timestamp, ..Limits::new(settings.max_message_bytes, now_millis) }
}

/// Checks a batch as [`validate`] does.
pub(super) async fn check(batch: &Bytes, limits: Limits) -> Result<Walked, BatchError> {
    let on_the_spot = Limits { max_unpacked_bytes: limits.max_unpacked_bytes.min(UNPACKED_ON_THE_SPOT), ..limits };
    if batch.len() <= CHECKED_ON_THE_SPOT || batch.len() > limits.max_batch_bytes {
        match with_scratch(|scratch| validate(batch, &on_the_spot, scratch)) {
            Err(BatchError::TooLargeUnpacked { limit }) if limit < limits.max_unpacked_bytes => {}
            checked => return checked,
        }
    }
    let batch = batch.clone();
    let check = move || with_scratch(|scratch| validate(&batch, &limits, scratch));
    tokio::task::spawn_blocking(check).await.unwrap_or_else(|panic| std::panic::resume_unwind(panic.into_panic()))
}

/// Runs `work` with this thread's scratch memory.
pub(super) fn with_scratch<T>(work: impl FnOnce(&mut Scratch) -> T) -> T {
    SCRATCH.with_borrow_mut(|scratch| {
        let result = work(scratch);
        if scratch.capacity() > SCRATCH_KEPT {
            *scratch = Scratch::new();
        }
        result
    })
}

#[cfg(test)]
mod tests {
    use taffrail_proto::record::{BatchBuilder, Compression};

    use super::*;

    fn batch(value_bytes: usize) -> Bytes {
        let mut builder = BatchBuilder::new();
        builder.push(None, Some(&vec![7; value_bytes]), [], 1).unwrap();
        builder.build(Compression::Zstd, None).unwrap()
    }

    fn topic(max_message_bytes: usize) -> Limits {
        Limits::new(max_message_bytes, 1_000)
    }

    #[tokio::test]
    async fn what_unpacks_to_much_is_checked_as_well_as_what_unpacks_to_little() {
        for size in [100, UNPACKED_ON_THE_SPOT - 100, UNPACKED_ON_THE_SPOT + 1, 15 << 20] {
            let walked = check(&batch(size), topic(1_000_000)).await.unwrap();
            assert!(walked.unpacked_bytes > size);
        }
    }

    #[tokio::test]
    async fn a_bomb_is_refused_by_the_topics_bound() {
        let refused = check(&batch(17 << 20), topic(1_000_000)).await;
        assert_eq!(refused, Err(BatchError::TooLargeUnpacked { limit: 16 << 20 }));
    }

    #[test]
    fn append_time_topics_take_any_timestamp() {
        let settings = |timestamp_type| Settings {
            max_message_bytes: 100,
            timestamp_type,
            durability: crate::storage::Durability::Os,
            retention_ms: None,
            retention_bytes: None,
        };
        assert_eq!(limits(&settings(TimestampType::CreateTime), 5).latest_timestamp, 5 + MAX_FUTURE_MILLIS);
        assert_eq!(limits(&settings(TimestampType::LogAppendTime), 5).latest_timestamp, i64::MAX);
    }
}
