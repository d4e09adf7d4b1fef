//! Decoded footers, a few of them: a reader that goes through a log needs each some dozen times.

use std::collections::HashMap;
use std::sync::Arc;

use parking_lot::Mutex;
use rocksdb::ErrorKind;

use crate::storage::footer::{BatchRef, Footer};
use crate::storage::keys::DataKey;
use crate::storage::shared::Shared;
use crate::storage::{LogId, ReadError, StorageError};

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

/// A log's footer in a sealed epoch; `None` if it is not there (any more). Blocks.
pub(crate) fn footer(shared: &Shared, epoch: u32, log: LogId) -> Result<Option<Arc<Footer>>, ReadError> {
    if let Some(cached) = shared.footers.get(epoch, log) {
        return Ok(Some(cached));
    }
    let damaged = |what: String| StorageError::Damaged {
        file: format!("{}, footer of log {} in storage epoch {epoch}", shared.data().path().display(), log.0),
        at: 0,
        what,
    };
    let key = DataKey::Footer { epoch, log }.encode();
    let bytes = shared.data().get_pinned(key).map_err(|cause| match cause.kind() {
        ErrorKind::Corruption => damaged(cause.to_string()),
        _ => StorageError::io("read a footer", &cause),
    })?;
    let Some(bytes) = bytes else { return Ok(None) };
    let footer = Footer::decode(&bytes).ok_or_else(|| damaged("malformed".to_owned()))?;
    let footer = Arc::new(footer);
    shared.footers.put(epoch, log, &footer);
    Ok(Some(footer))
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
