//! How fast replicas copy while they are not in sync: all of a broker's together no faster than the Cluster's `catchUpRate`.
//!
//! Such a replica asks for more when it is its [`Turn`]; turns are taken in the order in which they were asked for. In-sync
//! replicas ask as they like, and so does one that had all that its leader had less than a second ago: it is about to join, and
//! copies no faster than producers write (Kafka does the same).

use std::sync::Arc;
use std::time::Duration;

use futures::FutureExt as _;
use futures::future::BoxFuture;
use parking_lot::Mutex;
use tokio::sync::{Notify, watch};
use tokio::time::Instant;

use crate::metrics::ReplicationMetrics;
use crate::replication::follower::DEMAND_BYTES;
use crate::replication::leader::JOINING;
use crate::replication::throttle::Bucket;

/// Asked for by a replica whose log was not found to be the leader's yet, which most often lacks little.
const PROBE_BYTES: u32 = 64 << 10;

/// Turns of all replicas that catch up.
pub(super) struct Turns {
    bucket: Mutex<Bucket>,
    begun: Instant,
    /// Whoever holds it is next.
    next: tokio::sync::Mutex<()>,
    /// The next may go on sooner than was said.
    sooner: Notify,
    metrics: ReplicationMetrics,
}

/// Bytes that are set aside for a demand, until they have come or nobody wants them any more.
struct Turn {
    turns: Arc<Turns>,
    bytes: u32,
}

impl Turns {
    /// At so many bytes a second.
    pub(super) fn new(rate: u64, metrics: ReplicationMetrics) -> Arc<Self> {
        Arc::new(Self {
            bucket: Mutex::new(Bucket::new(rate, Duration::ZERO)),
            begun: Instant::now(),
            next: tokio::sync::Mutex::default(),
            sooner: Notify::new(),
            metrics,
        })
    }

    /// At another rate from now on.
    pub(super) fn set_rate(&self, rate: u64) {
        self.bucket.lock().set_rate(rate, self.begun.elapsed());
        self.sooner.notify_one();
    }

    async fn turn(self: Arc<Self>, bytes: u32) -> Turn {
        let asked = Instant::now();
        {
            let _next = self.next.lock().await;
            loop {
                let taken = self.bucket.lock().take(bytes.into(), self.begun.elapsed());
                let Err(wait) = taken else { break };
                tokio::select! {
                    () = tokio::time::sleep(wait) => {}
                    () = self.sooner.notified() => {}
                }
            }
        }
        self.metrics.waited(asked.elapsed());
        Turn { turns: self, bytes }
    }

    fn settle(&self, taken: u32, used: u64) {
        self.bucket.lock().settle(taken.into(), used, self.begun.elapsed());
        if used < taken.into() {
            self.sooner.notify_one();
        }
    }
}

impl Turn {
    fn used(mut self, bytes: u64) {
        self.turns.settle(self.bytes, bytes);
        self.bytes = 0;
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        if self.bytes > 0 {
            self.turns.settle(self.bytes, 0);
        }
    }
}

/// Of one replica: when it may ask for more.
pub(super) struct Pace {
    turns: Arc<Turns>,
    in_sync: watch::Receiver<bool>,
    /// When it last had all that the leader had.
    at_end: Option<Instant>,
    /// It had, when that was heard of last.
    is_at_end: bool,
    turn: Wanted,
}

#[derive(Default)]
enum Wanted {
    #[default]
    Nothing,
    /// It stands in line.
    InLine(BoxFuture<'static, Turn>),
    /// It may ask, or has.
    Given(Turn),
}

impl Pace {
    pub(super) fn new(turns: Arc<Turns>, in_sync: watch::Receiver<bool>) -> Self {
        Self { turns, in_sync, at_end: None, is_at_end: false, turn: Wanted::Nothing }
    }

    /// How much it may ask for now; `None`: it is to wait for its [turn](Self::turn). `is_proven`: what it has is the leader's.
    pub(super) fn allows(&mut self, is_proven: bool, now: Instant) -> Option<u32> {
        if self.is_free(now) {
            self.turn = Wanted::Nothing;
            return Some(DEMAND_BYTES);
        }
        match &self.turn {
            Wanted::Given(turn) => Some(turn.bytes),
            Wanted::InLine(_) => None,
            Wanted::Nothing => {
                let bytes = if is_proven { DEMAND_BYTES } else { PROBE_BYTES };
                self.turn = Wanted::InLine(self.turns.clone().turn(bytes).boxed());
                None
            }
        }
    }

    fn is_free(&self, now: Instant) -> bool {
        *self.in_sync.borrow() || self.at_end.is_some_and(|at| now.saturating_duration_since(at) < JOINING)
    }

    /// Until it may ask for more, or may without its turn; never, if it waits for nothing. Cancel safe.
    pub(super) async fn turn(&mut self) {
        let Self { in_sync, turn, .. } = self;
        let Wanted::InLine(waiting) = turn else { return std::future::pending().await };
        tokio::select! {
            given = waiting => *turn = Wanted::Given(given),
            // The sender lives as long as the replica is followed.
            Ok(_) = in_sync.wait_for(|in_sync| *in_sync) => *turn = Wanted::Nothing,
        }
    }

    /// The leader has told how far it is, and sent so many bytes if that answered a demand: `lag` records are lacking still.
    pub(super) fn heard(&mut self, answered: Option<u64>, lag: Option<i64>, now: Instant) {
        // Who had everything had it until now.
        if std::mem::replace(&mut self.is_at_end, lag == Some(0)) || self.is_at_end {
            self.at_end = Some(now);
        }
        match (std::mem::take(&mut self.turn), answered) {
            (Wanted::Given(turn), Some(bytes)) => turn.used(bytes),
            // The demand stands, and waits for what producers write.
            (Wanted::Given(_), None) if self.is_at_end => {}
            (other, _) => self.turn = other,
        }
    }

    /// It asks for nothing any more.
    pub(super) fn give_up(&mut self) {
        self.turn = Wanted::Nothing;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const DEMAND: u64 = DEMAND_BYTES as u64;

    fn replica(turns: &Arc<Turns>) -> (Pace, watch::Sender<bool>) {
        let (tell, in_sync) = watch::channel(false);
        (Pace::new(turns.clone(), in_sync), tell)
    }

    /// Of a rate at which nobody gets a turn while the test runs.
    fn used_up() -> Arc<Turns> {
        let turns = Turns::new(1, ReplicationMetrics::default());
        turns.settle(0, 100 << 20);
        turns
    }

    fn raise(turns: &Turns) {
        turns.set_rate(u64::MAX);
    }

    #[tokio::test]
    async fn turns_are_given_in_the_order_in_which_they_were_asked_for() {
        let turns = used_up();
        let (given, mut order) = tokio::sync::mpsc::unbounded_channel();
        let waiting = (0..20).map(|number| {
            let (turns, given) = (turns.clone(), given.clone());
            async move {
                let turn = turns.turn(DEMAND_BYTES).await;
                given.send(number).unwrap();
                turn.used(DEMAND);
            }
        });
        let waiting = futures::future::join_all(waiting);
        tokio::pin!(waiting);
        assert!(futures::poll!(&mut waiting).is_pending());
        assert!(order.try_recv().is_err(), "there is nothing to give");
        raise(&turns);
        waiting.await;
        let order: Vec<_> = std::iter::from_fn(|| order.try_recv().ok()).collect();
        assert_eq!(order, (0..20).collect::<Vec<_>>());
    }

    #[tokio::test]
    async fn in_sync_replicas_are_never_throttled_and_take_nothing_from_others() {
        let (turns, now) = (used_up(), Instant::now());
        let (mut pace, tell) = replica(&turns);
        tell.send_replace(true);
        let before = turns.bucket.lock().take(1, Duration::ZERO);
        for _ in 0..100 {
            assert_eq!(pace.allows(false, now), Some(DEMAND_BYTES));
            pace.heard(Some(DEMAND), Some(5), now);
        }
        assert_eq!(turns.bucket.lock().take(1, Duration::ZERO), before);
        tell.send_replace(false);
        assert_eq!(pace.allows(true, now), None, "it is not in sync any more");
    }

    #[tokio::test]
    async fn one_that_is_about_to_join_follows_producers_whoever_else_waits() {
        let (turns, mut now) = (used_up(), Instant::now());
        let (mut pace, _tell) = replica(&turns);
        assert_eq!(pace.allows(true, now), None);
        raise(&turns);
        pace.turn().await;
        assert_eq!(pace.allows(true, now), Some(DEMAND_BYTES));
        turns.set_rate(1);
        turns.settle(0, 100 << 20);
        // It reaches the leader's end, and from then on is there only now and then, since appends never pause.
        pace.heard(Some(70_000), Some(0), now);
        for round in 0..100 {
            assert_eq!(pace.allows(true, now), Some(DEMAND_BYTES), "{round}");
            now += JOINING / 11;
            pace.heard(Some(500_000), Some(if round % 10 == 9 { 0 } else { 3 }), now);
        }
        // Idle for long, and then a burst: until then it had everything.
        now += 100 * JOINING;
        pace.heard(Some(DEMAND), Some(50), now);
        assert_eq!(pace.allows(true, now), Some(DEMAND_BYTES));
        // One that has fallen behind for good is throttled again.
        now += JOINING / 2;
        pace.heard(Some(DEMAND), Some(500), now);
        now += JOINING / 2;
        pace.heard(Some(DEMAND), Some(5_000), now);
        assert_eq!(pace.allows(true, now), None);
    }

    #[tokio::test]
    async fn a_demand_that_waits_at_the_leader_s_end_holds_nothing() {
        let (turns, now) = (Turns::new(DEMAND, ReplicationMetrics::default()), Instant::now());
        let (mut pace, _tell) = replica(&turns);
        assert_eq!(pace.allows(false, now), None);
        pace.turn().await;
        assert_eq!(pace.allows(false, now), Some(PROBE_BYTES), "before it is known whether it lacks much");
        turns.set_rate(1);
        turns.settle(0, u64::from(PROBE_BYTES) / 2);
        assert!(turns.bucket.lock().take(1, Duration::ZERO).is_err());
        // The leader has nothing for it, and says so.
        pace.heard(None, Some(0), now);
        assert_eq!(turns.bucket.lock().take(1, Duration::ZERO), Ok(()), "what was set aside is given back");
    }

    #[tokio::test]
    async fn who_waits_goes_on_once_it_is_in_sync_and_what_is_given_up_is_given_back() {
        let (turns, now) = (used_up(), Instant::now());
        let (mut pace, tell) = replica(&turns);
        assert_eq!(pace.allows(true, now), None);
        tokio::join!(pace.turn(), async { tell.send_replace(true) });
        assert_eq!(pace.allows(true, now), Some(DEMAND_BYTES));
        tell.send_replace(false);
        assert_eq!(pace.allows(true, now), None);
        raise(&turns);
        pace.turn().await;
        assert_eq!(pace.allows(true, now), Some(DEMAND_BYTES));
        turns.set_rate(1);
        turns.settle(0, 10 * DEMAND);
        let owed = |turns: &Turns| turns.bucket.lock().take(1, Duration::ZERO).unwrap_err();
        let before = owed(&turns);
        pace.give_up();
        assert!(before > owed(&turns) + Duration::from_secs(DEMAND - 1), "at a byte a second");
    }
}
