//! Followed partitions: the tasks and streams around [`Follower`].
//!
//! - [`Followers`]: all partitions that this broker follows; [`Follow`]: one of them;
//! - `task`: owns the writes to the log of one followed partition;
//! - `pace`: how fast it copies while it is not in sync;
//! - `line`: one stream for each leader, for all partitions that it leads; made anew when it breaks.
//!
//! What was received and is not written yet is bounded for all together: a line reads on when there is room.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use arc_swap::{ArcSwap, ArcSwapOption};
use parking_lot::Mutex;
use taffrail_crds::ClusterSpec;
use tokio::sync::{Semaphore, mpsc, watch};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use self::line::ToLine;
use self::pace::{Pace, Turns};
use self::task::Task;
use super::follower::{Follower, Held};
use crate::cluster::Session;
use crate::context::Context;
use crate::metrics::ReplicationMetrics;
use crate::peers::Peers;
use crate::storage::Log;
use crate::topics::Settings;

mod line;
mod pace;
mod task;

/// What to follow.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Following {
    /// The leader's broker.
    pub leader: i32,
    /// Under which it leads.
    pub leader_epoch: i32,
    /// The high watermark that this replica has known so far, as far as it [still holds](super::KnownEnd); 0: none.
    pub high_watermark: i64,
    /// This replica is in sync as the slice has it: see [`Follow::set_in_sync`].
    pub in_sync: bool,
}

/// Partitions that this broker follows.
pub struct Followers {
    context: Context,
    peers: Arc<Peers>,
    me: Session,
    /// Bytes that may be received and not be written yet.
    room: Arc<Semaphore>,
    turns: Arc<Turns>,
    metrics: ReplicationMetrics,
    lines: Mutex<BTreeMap<i32, mpsc::UnboundedSender<ToLine>>>,
    /// Numbers what is followed.
    last: AtomicU64,
}

impl Followers {
    /// None yet.
    pub fn new(context: Context, peers: &Arc<Peers>, me: Session, metrics: ReplicationMetrics) -> Arc<Self> {
        let room = Arc::new(Semaphore::new(peers.max_in_flight()));
        let turns = Turns::new(ClusterSpec::DEFAULT_CATCH_UP_RATE, metrics.clone());
        let (peers, lines) = (Arc::clone(peers), Mutex::default());
        Arc::new(Self { context, peers, me, room, turns, metrics, lines, last: AtomicU64::new(0) })
    }

    /// All replicas here that are not in sync copy no faster than so many bytes a second together, from now on.
    pub fn set_catch_up_rate(&self, bytes: u64) {
        self.turns.set_rate(bytes);
    }

    /// Follows a partition with this log, to which nobody else writes until it is [stopped](Follow::stop).
    pub fn follow(&self, log: Arc<dyn Log>, settings: Arc<ArcSwap<Settings>>, following: Following) -> Follow {
        let Following { leader, leader_epoch, high_watermark, in_sync } = following;
        let follower = Follower::new(leader_epoch, high_watermark, Held::of(&*log));
        let progress = Progress { high_watermark: follower.high_watermark(), ..Progress::default() };
        let known = Arc::new(Known { progress: watch::Sender::new(progress), fault: ArcSwapOption::default() });
        let in_sync = watch::Sender::new(in_sync);
        let pace = Pace::new(self.turns.clone(), in_sync.subscribe());
        let stop = CancellationToken::new();
        let (events, received) = mpsc::unbounded_channel();
        let followed = line::Followed {
            partition: log.partition(),
            leader_epoch,
            number: self.last.fetch_add(1, Ordering::Relaxed),
        };
        let line = self.line(leader);
        // A line ends with the runtime only.
        let _ = line.send(ToLine::Follow(followed, events));
        let task = Task::new(log, self.context.clone(), settings, follower, known.clone(), pace);
        let task = tokio::spawn(task.run(followed, line, received, stop.clone()));
        Follow { known, in_sync, stop, task: Some(task) }
    }

    fn line(&self, leader: i32) -> mpsc::UnboundedSender<ToLine> {
        let mut lines = self.lines.lock();
        let start = || {
            let room = (self.room.clone(), self.peers.max_in_flight());
            line::start(self.peers.peer(leader), self.me, room, self.metrics.clone())
        };
        lines.entry(leader).or_insert_with(start).clone()
    }
}

impl Held {
    /// What a log holds to which nothing is in flight.
    pub fn of(log: &dyn Log) -> Self {
        let extent = log.extent();
        Self { start: extent.start, end: extent.end, epochs: log.leader_epochs() }
    }
}

/// How far the replica of a followed partition is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Progress {
    /// What is here was found to be the leader's, and nothing is wrong with it.
    pub is_proven: bool,
    /// The leader is heard.
    pub is_heard: bool,
    /// First offset that is here.
    pub log_start: i64,
    /// The high watermark as this replica knows it (H4).
    pub high_watermark: i64,
    /// Exclusive end of what is written here.
    pub written: i64,
    /// Records that it lacked of the leader's when it last heard of them.
    pub lag: i64,
}

/// What is known of a followed partition.
#[derive(Debug)]
struct Known {
    progress: watch::Sender<Progress>,
    fault: ArcSwapOption<String>,
}

/// A partition that is followed until this is stopped, or dropped.
#[derive(Debug)]
pub struct Follow {
    known: Arc<Known>,
    in_sync: watch::Sender<bool>,
    stop: CancellationToken,
    task: Option<JoinHandle<()>>,
}

impl Follow {
    /// The high watermark as this replica knows it (H4).
    pub fn high_watermark(&self) -> i64 {
        self.known.progress.borrow().high_watermark
    }

    /// How far it is, now and later.
    pub fn progress(&self) -> watch::Receiver<Progress> {
        self.known.progress.subscribe()
    }

    /// The slice says whether this replica is in sync: then it copies as fast as it can.
    pub fn set_in_sync(&self, in_sync: bool) {
        self.in_sync.send_if_modified(|known| std::mem::replace(known, in_sync) != in_sync);
    }

    /// Whether it is, now and later.
    pub fn in_sync(&self) -> watch::Receiver<bool> {
        self.in_sync.subscribe()
    }

    /// Why the replica does not follow any more.
    pub fn fault(&self) -> Option<String> {
        self.known.fault.load().as_deref().cloned()
    }

    /// Ends it, after what is in flight to the log has been answered; the high watermark that it knew.
    pub async fn stop(mut self) -> i64 {
        self.stop.cancel();
        if let Some(task) = self.task.take() {
            // It panics only with the broker.
            let _ = task.await;
        }
        self.high_watermark()
    }
}

impl Drop for Follow {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}
