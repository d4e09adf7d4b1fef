//! The replica of a partition that another broker leads, as readers see it who may be answered by a follower (KIP-392).
//!
//! It serves only while it is in sync (R3), and what is committed for all that it knows: up to the leader's high watermark, as
//! far as that is written here. Whatever it cannot vouch for it asks of the leader: an offset that is not here, a history that
//! is not this log's, a record that is damaged here, what comes next while it does not hear its leader, and everything while
//! its log was not found to be the leader's. So a reader is told by a leader only that its offset is out of range, or its
//! history cut, and nobody waits at a replica that is cut off.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Weak};
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::watch;

use super::damage::Damage;
use super::read::divergence;
use super::remote::Remote;
use super::state::check_epoch;
use super::waiters::{Waiter, Waiters};
use super::{FetchError, Isolation, ReadData, ReadRequest, Snapshot};
use crate::replication::fetcher::{Follow, Progress};
use crate::storage::Log;

/// Before a leader that could not be asked to tell of more is asked again.
const PAUSE: Duration = Duration::from_millis(500);

/// The log of a partition that is followed here, and how far it is.
pub(super) struct Replica {
    log: Arc<dyn Log>,
    progress: watch::Receiver<Progress>,
    in_sync: watch::Receiver<bool>,
    waiters: Waiters,
    /// Somebody looks after those who wait.
    watching: AtomicBool,
    largest_read_batch: AtomicUsize,
    damage: Damage,
}

/// A partition that is read here, and led elsewhere.
#[derive(Clone)]
pub(super) struct Here {
    pub(super) leader: Arc<Remote>,
    pub(super) replica: Arc<Replica>,
}

/// What a replica does with a request to read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Answer {
    /// It has records for it, up to this end.
    Here(i64),
    /// What is wanted may become visible: there is nothing yet.
    Later,
    /// The leader knows better.
    Leader,
}

impl Replica {
    pub(super) fn new(log: Arc<dyn Log>, follow: &Follow) -> Self {
        Self {
            log,
            progress: follow.progress(),
            in_sync: follow.in_sync(),
            waiters: Waiters::default(),
            watching: AtomicBool::new(false),
            largest_read_batch: AtomicUsize::new(0),
            damage: Damage::default(),
        }
    }

    /// The slice has it in sync.
    pub(super) fn is_in_sync(&self) -> bool {
        *self.in_sync.borrow()
    }

    /// Records that it lacked when it heard of its leader last.
    pub(super) fn lag(&self) -> i64 {
        self.progress.borrow().lag
    }

    /// Records that are stored here were found to be damaged.
    pub(super) fn is_damaged(&self) -> bool {
        self.damage.is_found()
    }

    fn is_awaited(&self) -> bool {
        self.waiters.any(Isolation::ReadUncommitted) || self.waiters.any(Isolation::ReadCommitted)
    }

    fn is_heard(&self) -> bool {
        self.progress.borrow().is_heard
    }

    /// What it can vouch for; `None`: nothing. `leader` is what is known of its leader, under the same leader epoch.
    fn snapshot(&self, leader: &Snapshot) -> Option<Snapshot> {
        let progress = *self.progress.borrow();
        // The leader may have told its high watermark to those who wait before it told this replica (H4).
        let high_watermark = progress.high_watermark.max(leader.high_watermark.min(progress.written));
        progress.is_proven.then_some(Snapshot {
            log_start: progress.log_start,
            high_watermark,
            last_stable: high_watermark,
            log_end: progress.written,
            ..*leader
        })
    }

    fn decide(&self, snapshot: &Snapshot, request: &ReadRequest) -> Answer {
        let ReadRequest { offset, last_epoch, .. } = *request;
        let end = snapshot.visible_end(request.isolation);
        if offset < snapshot.log_start || offset > snapshot.log_end {
            return Answer::Leader;
        }
        // What lies above the end is not known to be what was read elsewhere, nor not to be.
        let parted = |epoch| divergence(&self.log.leader_epochs(), snapshot, offset, epoch).is_some();
        if offset <= end && last_epoch.is_some_and(parted) {
            return Answer::Leader;
        }
        if offset < end {
            Answer::Here(end)
        } else if self.is_heard() {
            Answer::Later
        } else {
            Answer::Leader
        }
    }
}

impl Here {
    /// What the replica can vouch for, or else what the leader has said: what is waited for.
    pub(super) fn snapshot(&self) -> Snapshot {
        let (leader, replica) = (self.leader.snapshot(), &self.replica);
        replica.snapshot(&leader).filter(|_| replica.is_heard()).unwrap_or(leader)
    }

    /// Reads whole batches. Does not wait for data.
    pub(super) async fn read(&self, request: ReadRequest) -> Result<ReadData, FetchError> {
        let Self { leader, replica } = self;
        let known = leader.snapshot();
        if known.closed {
            return Err(FetchError::Closed);
        }
        if !replica.is_in_sync() {
            return Err(FetchError::NotInSync { leader: leader.leader() });
        }
        if let Some(given) = request.leader_epoch {
            check_epoch(given, known.leader_epoch)?;
        }
        let Some(snapshot) = replica.snapshot(&known) else { return leader.read(request).await };
        let end = match replica.decide(&snapshot, &request) {
            Answer::Leader => return leader.read(request).await,
            Answer::Later => return Ok(ReadData { batches: Vec::new(), snapshot }),
            Answer::Here(end) => end,
        };
        match replica.log.read(request.offset, end, request.max_bytes).await {
            Ok(batches) => {
                let largest = batches.iter().map(Bytes::len).max().unwrap_or(0);
                if largest > replica.largest_read_batch.load(Ordering::Relaxed) {
                    replica.largest_read_batch.fetch_max(largest, Ordering::Relaxed);
                }
                Ok(ReadData { batches, snapshot })
            }
            Err(error) => {
                replica.damage.note(leader.id(), &error);
                tracing::debug!(partition = ?leader.id(), %error, "asks the leader for what cannot be read here");
                leader.read(request).await
            }
        }
    }

    /// Bytes of the largest batch that was read.
    pub(super) fn largest_read_batch(&self) -> usize {
        self.replica.largest_read_batch.load(Ordering::Relaxed).max(self.leader.largest_read_batch())
    }

    /// As with a partition that is led here. One that is to be read elsewhere is not waited for: who reads is told.
    pub(super) fn arm(&self, beyond: i64, isolation: Isolation, waiter: &Arc<Waiter>, token: u64) -> bool {
        let replica = &self.replica;
        let load = || Snapshot { closed: !replica.is_in_sync(), ..self.snapshot() };
        let armed = !self.leader.snapshot().closed && replica.waiters.arm((beyond, isolation), waiter, token, load);
        if armed && !replica.watching.swap(true, Ordering::AcqRel) {
            tokio::spawn(watch_over(Arc::downgrade(&self.leader), replica.clone()));
        }
        armed
    }
}

/// Wakes those who wait at a replica, as long as there are any.
///
/// A follower hears of a high watermark with the next records, or a while later where there are none. So that readers need not
/// wait for that, the leader is asked to tell of it at once, as it is for those who wait at its own records.
async fn watch_over(leader: Weak<Remote>, replica: Arc<Replica>) {
    let (mut progress, mut in_sync) = (replica.progress.clone(), replica.in_sync.clone());
    let (told, isolation) = (Waiter::new(), Isolation::ReadUncommitted);
    let (mut armed, mut asked, mut was_heard) = (false, None, replica.is_heard());
    loop {
        progress.mark_unchanged();
        in_sync.mark_unchanged();
        let Some(leader) = leader.upgrade() else { return };
        let here = Here { leader, replica: replica.clone() };
        let (snapshot, heard) = (here.snapshot(), here.leader.snapshot().visible_end(isolation));
        let is_over = snapshot.closed || !replica.is_in_sync();
        // Who waited for this replica alone asks the leader, too.
        let is_lost = std::mem::replace(&mut was_heard, replica.is_heard()) && !was_heard;
        replica.waiters.wake(&Snapshot { closed: is_over || is_lost, ..snapshot });
        if is_over || !replica.is_awaited() {
            replica.watching.store(false, Ordering::Release);
            // Who came meanwhile has found somebody watching.
            if !replica.is_awaited() || replica.watching.swap(true, Ordering::AcqRel) {
                return;
            }
            continue;
        }
        // A leader that could not be asked tells nothing: not at once again.
        if !armed && asked != Some(heard) {
            asked = Some(heard);
            armed = here.leader.arm(heard, isolation, &told, 0);
            if !armed {
                continue;
            }
        }
        drop(here);
        let changed = tokio::select! {
            _ = told.ready(), if armed => {
                armed = false;
                Ok(())
            }
            () = tokio::time::sleep(PAUSE), if !armed => {
                asked = None;
                Ok(())
            }
            changed = progress.changed() => changed,
            changed = in_sync.changed() => changed,
        };
        if changed.is_err() {
            // It is followed here no more, and about to be closed.
            replica.waiters.wake(&Snapshot { closed: true, ..Snapshot::UNKNOWN });
            return;
        }
    }
}

#[cfg(test)]
mod tests;
