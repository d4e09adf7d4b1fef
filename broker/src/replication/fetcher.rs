//! Followed partitions: the tasks and streams around [`Follower`].
//!
//! - [`Followers`]: all partitions that this broker follows; [`Follow`]: one of them;
//! - `task`: owns the writes to the log of one followed partition;
//! - `line`: one stream for each leader, for all partitions that it leads; made anew when it breaks.
//!
//! What was received and is not written yet is bounded for all together: a line reads on when there is room.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};

use arc_swap::{ArcSwap, ArcSwapOption};
use parking_lot::Mutex;
use tokio::sync::{Semaphore, mpsc};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use self::line::ToLine;
use self::task::Task;
use super::follower::{Follower, Held};
use crate::cluster::Session;
use crate::context::Context;
use crate::peers::Peers;
use crate::storage::Log;
use crate::topics::Settings;

mod line;
mod task;

/// What to follow.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Following {
    /// The leader's broker.
    pub leader: i32,
    /// Under which it leads.
    pub leader_epoch: i32,
    /// The high watermark that this replica has known so far; 0: none.
    pub high_watermark: i64,
    /// Records may have been lost before this leader was chosen.
    pub recovering: bool,
}

/// Partitions that this broker follows.
pub struct Followers {
    context: Context,
    peers: Arc<Peers>,
    me: Session,
    /// Bytes that may be received and not be written yet.
    room: Arc<Semaphore>,
    lines: Mutex<BTreeMap<i32, mpsc::UnboundedSender<ToLine>>>,
    /// Numbers what is followed.
    last: AtomicU64,
}

impl Followers {
    /// None yet.
    pub fn new(context: Context, peers: &Arc<Peers>, me: Session) -> Arc<Self> {
        let room = Arc::new(Semaphore::new(peers.max_in_flight()));
        let (peers, lines) = (Arc::clone(peers), Mutex::default());
        Arc::new(Self { context, peers, me, room, lines, last: AtomicU64::new(0) })
    }

    /// Follows a partition with this log, to which nobody else writes until it is [stopped](Follow::stop).
    pub fn follow(&self, log: Arc<dyn Log>, settings: Arc<ArcSwap<Settings>>, following: Following) -> Follow {
        let Following { leader, leader_epoch, high_watermark, recovering } = following;
        let follower = Follower::new(leader_epoch, recovering, high_watermark, Held::of(&*log));
        let known = Arc::new(Known {
            high_watermark: AtomicI64::new(follower.high_watermark()),
            fault: ArcSwapOption::default(),
        });
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
        let task = Task::new(log, self.context.clone(), settings, follower, known.clone());
        let task = tokio::spawn(task.run(followed, line, received, stop.clone()));
        Follow { known, stop, task: Some(task) }
    }

    fn line(&self, leader: i32) -> mpsc::UnboundedSender<ToLine> {
        let mut lines = self.lines.lock();
        lines.entry(leader).or_insert_with(|| line::start(self.peers.peer(leader), self.me, self.room.clone())).clone()
    }
}

impl Held {
    /// What a log holds to which nothing is in flight.
    pub fn of(log: &dyn Log) -> Self {
        let extent = log.extent();
        Self { start: extent.start, end: extent.end, epochs: log.leader_epochs() }
    }
}

/// What is known of a followed partition.
#[derive(Debug)]
struct Known {
    high_watermark: AtomicI64,
    fault: ArcSwapOption<String>,
}

/// A partition that is followed until this is stopped, or dropped.
#[derive(Debug)]
pub struct Follow {
    known: Arc<Known>,
    stop: CancellationToken,
    task: Option<JoinHandle<()>>,
}

impl Follow {
    /// The high watermark as this replica knows it (H4).
    pub fn high_watermark(&self) -> i64 {
        self.known.high_watermark.load(Ordering::Acquire)
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
