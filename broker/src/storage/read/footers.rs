//! Decoded footers, a few of them: a reader that goes through a log needs each some dozen times.

use std::collections::HashMap;
use std::sync::Arc;

use parking_lot::Mutex;

use crate::storage::footer::{BatchRef, Footer};
use crate::storage::keys::DataKey;
use crate::storage::shared::Shared;
use crate::storage::{LogId, StorageError};

/// Batches that cached footers may list together: 12 MiB.
const BATCHES: usize = (12 << 20) / size_of::<BatchRef>();
/// What a footer counts beside its batches.
const OVERHEAD: usize = 16;

/// Least recently used goes first.
#[derive(Debug, Default)]
pub(crate) struct FooterCache {
    inner: Mutex<Inner>,
}

#[derive(Debug, Default)]
struct Inner {
    footers: HashMap<(u32, LogId), (Arc<Footer>, u64)>,
    weight: usize,
    clock: u64,
}

impl FooterCache {
    fn get(&self, epoch: u32, log: LogId) -> Option<Arc<Footer>> {
        let mut inner = self.inner.lock();
        inner.clock += 1;
        let clock = inner.clock;
        let (footer, used) = inner.footers.get_mut(&(epoch, log))?;
        *used = clock;
        Some(Arc::clone(footer))
    }

    fn put(&self, epoch: u32, log: LogId, footer: &Arc<Footer>) {
        let mut inner = self.inner.lock();
        inner.clock += 1;
        let clock = inner.clock;
        inner.weight += weight(footer);
        if let Some((before, _)) = inner.footers.insert((epoch, log), (Arc::clone(footer), clock)) {
            inner.weight -= weight(&before);
        }
        while inner.weight > BATCHES && inner.footers.len() > 1 {
            let Some((&oldest, _)) = inner.footers.iter().min_by_key(|(_, (_, used))| *used) else { break };
            if let Some((gone, _)) = inner.footers.remove(&oldest) {
                inner.weight -= weight(&gone);
            }
        }
    }
}

fn weight(footer: &Footer) -> usize {
    footer.pieces.iter().map(|piece| piece.batches.len() + OVERHEAD).sum::<usize>() + OVERHEAD
}

/// A log's footer in a sealed epoch, or the copy of it if it is damaged; `None` if it is not there (any more). Blocks.
pub(crate) fn footer(shared: &Shared, epoch: u32, log: LogId) -> Result<Option<Arc<Footer>>, StorageError> {
    if let Some(cached) = shared.footers.get(epoch, log) {
        return Ok(Some(cached));
    }
    let found = match original(shared, epoch, log) {
        Err(damage @ StorageError::Damaged { .. }) => {
            let copy = shared.copies.read(epoch).and_then(|front| front.footer(log));
            Some(copy.ok_or(damage)?)
        }
        read => read?,
    };
    let footer = found.map(Arc::new);
    if let Some(footer) = &footer {
        shared.footers.put(epoch, log, footer);
    }
    Ok(footer)
}

fn original(shared: &Shared, epoch: u32, log: LogId) -> Result<Option<Footer>, StorageError> {
    let (dir, part) = (shared.data().path(), format!("footer of log {} in storage epoch {epoch}", log.0));
    let bytes = shared.data().get_pinned(DataKey::Footer { epoch, log }.encode());
    let bytes = bytes.map_err(|cause| StorageError::by_rocksdb(dir, &part, &cause))?;
    let decode = |bytes: &[u8]| Footer::decode(bytes).ok_or_else(|| StorageError::damaged(dir, &part, &"malformed"));
    bytes.map(|bytes| decode(&bytes)).transpose()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_least_recently_used_footers_go_when_the_weight_is_reached() {
        let cache = FooterCache::default();
        let footer = Arc::new(Footer::default());
        let room = (BATCHES / OVERHEAD) as u32;
        for epoch in 1..=room {
            cache.put(epoch, LogId(1), &footer);
        }
        assert!(cache.get(1, LogId(1)).is_some());
        cache.put(room + 1, LogId(1), &footer);
        assert!(cache.get(1, LogId(1)).is_some());
        assert!(cache.get(2, LogId(1)).is_none());
        assert!(cache.inner.lock().weight <= BATCHES);
    }
}
