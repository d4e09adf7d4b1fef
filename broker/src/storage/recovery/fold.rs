//! All footers, folded into the state of each log. Two threads read and decode ahead of the one that folds.

use std::collections::{BTreeMap, HashMap};

use crossbeam_channel::{Receiver, bounded};
use rocksdb::DB;

use crate::storage::footer::{Footer, Piece};
use crate::storage::front::{Copies, Front};
use crate::storage::keys::FIRST_REWRITTEN;
use crate::storage::state::LogState;
use crate::storage::{LogId, StorageError};

const THREADS: usize = 2;
/// Epochs that a thread reads ahead.
const AHEAD: usize = 2;

type Footers = Vec<(LogId, Vec<Piece>)>;

/// The state of each log that has a footer.
#[derive(Debug, Default)]
pub(super) struct Fold {
    states: HashMap<LogId, LogState>,
    newest_origin: u32,
}

impl Fold {
    /// Of these epochs, which are sealed and rise.
    pub(super) fn of(data: &DB, copies: &Copies, epochs: &[u32]) -> Result<Self, StorageError> {
        let (filled, rewritten) = epochs.split_at(epochs.partition_point(|&epoch| epoch < FIRST_REWRITTEN));
        let mut fold = Self::default();
        // Pieces in rewritten epochs are put between those of other epochs, by their origins.
        let mut moved: BTreeMap<u32, Vec<(LogId, Piece, u32)>> = BTreeMap::new();
        read_ahead(data, copies, rewritten, |container, footers| {
            for (log, pieces) in footers {
                for piece in pieces {
                    moved.entry(piece.origin).or_default().push((log, piece, container));
                }
            }
        })?;
        read_ahead(data, copies, filled, |epoch, footers| {
            let after = moved.split_off(&epoch);
            for moved in std::mem::replace(&mut moved, after).into_values().flatten() {
                fold.apply_moved(&moved);
            }
            for (log, pieces) in footers {
                for piece in &pieces {
                    fold.apply(log, piece, epoch);
                }
            }
        })?;
        for moved in moved.into_values().flatten() {
            fold.apply_moved(&moved);
        }
        Ok(fold)
    }

    /// Highest number of an epoch in which a piece was written.
    pub(super) fn newest_origin(&self) -> u32 {
        self.newest_origin
    }

    /// The state of a log; that of a new one if it has no footer.
    pub(super) fn state_mut(&mut self, log: LogId) -> &mut LogState {
        self.states.entry(log).or_insert_with(LogState::new)
    }

    /// Takes the state of a log out.
    pub(super) fn take(&mut self, log: LogId) -> LogState {
        let mut state = self.states.remove(&log).unwrap_or_else(LogState::new);
        state.index_mut().shrink();
        state
    }

    fn apply(&mut self, log: LogId, piece: &Piece, container: u32) {
        self.newest_origin = self.newest_origin.max(piece.origin);
        self.state_mut(log).apply(piece, container);
    }

    fn apply_moved(&mut self, (log, piece, container): &(LogId, Piece, u32)) {
        self.apply(*log, piece, *container);
    }
}

/// Calls `each` with the footers of each epoch, in order.
fn read_ahead(
    data: &DB,
    copies: &Copies,
    epochs: &[u32],
    mut each: impl FnMut(u32, Footers),
) -> Result<(), StorageError> {
    std::thread::scope(|scope| {
        let read = |thread: usize| -> Receiver<Result<Footers, StorageError>> {
            let (send, receive) = bounded(AHEAD);
            scope.spawn(move || {
                for &epoch in epochs.iter().skip(thread).step_by(THREADS) {
                    // The folding thread went away: it has found a fault.
                    if send.send(footers(data, copies, epoch)).is_err() {
                        return;
                    }
                }
            });
            receive
        };
        let readers: Vec<_> = (0..THREADS).map(read).collect();
        for (at, &epoch) in epochs.iter().enumerate() {
            let footers = readers[at % THREADS].recv().map_err(|gone| StorageError::io("read footers", &gone))?;
            each(epoch, footers?);
        }
        Ok(())
    })
}

fn footers(data: &DB, copies: &Copies, epoch: u32) -> Result<Footers, StorageError> {
    let summary = |(log, footer): &(LogId, Vec<u8>)| {
        let malformed = || {
            let part = format!("footer of log {} in storage epoch {epoch}", log.0);
            StorageError::damaged(data.path(), &part, &"malformed")
        };
        Ok((*log, Footer::decode_summary(footer).ok_or_else(malformed)?.pieces))
    };
    Front::read(data, copies, epoch)?.footers().iter().map(summary).collect()
}
