//! What a leader knows of its followers, and what follows from that: where the high watermark stands, and which change of the
//! in-sync replicas to ask for. No task, no clock, no log: it is fed what happens, with the time (since boot) where it matters.
//!
//! Positions count per session and in this leadership only (H1, M6): who leads anew, or anew under the same broker, begins
//! with none.

use std::time::Duration;

use taffrail_crds::slice::Replica;

use super::{Proposal, View};
use crate::storage::Extent;

/// An in-sync replica that has not had all that the leader has for this long is to leave.
pub const MAX_LAG: Duration = Duration::from_secs(10);
/// A change that was refused is not asked for again for this long.
pub const HOLD: Duration = Duration::from_secs(5);
/// The high watermark waits for a replica that had all that the leader had this short a time ago, so that it can join while
/// appends never pause (H3). Short: it is waited for no longer, should it stop.
pub const JOINING: Duration = Duration::from_secs(1);

/// State of a partition's leadership.
#[derive(Debug)]
pub struct Leader {
    view: View,
    /// When `view` was taken.
    viewed_at: Duration,
    /// Asked for at the partition epoch of `view`. It may have been applied, or may yet be (I5).
    proposal: Option<Proposal>,
    /// The log's end when the epoch was taken (LESO).
    epoch_start: i64,
    /// End of what is written here at the topic's durability.
    log_end: i64,
    high_watermark: i64,
    /// By broker at most one, in its newest session that was heard of: those that are in sync or have fetched.
    followers: Vec<Follower>,
}

#[derive(Clone, Copy, Debug)]
struct Follower {
    replica: Replica,
    /// How far its log is written, as it said last.
    written: Option<i64>,
    /// When it last had all that the leader had.
    caught_up_at: Option<Duration>,
    /// A moment, and the leader's end then: once it has that much, it lags no further than that moment. Kept until then, for
    /// reports come faster than they catch up.
    mark: (Duration, i64),
    /// No change that concerns it is asked for before.
    not_before: Duration,
}

impl Follower {
    fn new(replica: Replica, caught_up_at: Option<Duration>, mark: (Duration, i64)) -> Self {
        Self { replica, written: None, caught_up_at, mark, not_before: Duration::ZERO }
    }

    fn has(&self, end: i64) -> bool {
        self.written.is_some_and(|written| written >= end)
    }

    /// Whether it has all that the leader had less than `lag` ago.
    fn keeps_up(&self, lag: Duration, log_end: i64, now: Duration) -> bool {
        self.has(log_end) || self.caught_up_at.is_some_and(|at| now.saturating_sub(at) < lag)
    }
}

impl Leader {
    /// Of one that takes its epoch `now` with this log. `high_watermark` is what it knew as follower, 0 if nothing.
    pub fn new(view: View, high_watermark: i64, log: Extent, now: Duration) -> Self {
        let high_watermark = high_watermark.max(log.start).min(log.end);
        let mut leader = Self {
            view,
            viewed_at: now,
            proposal: None,
            epoch_start: log.end,
            log_end: log.end,
            high_watermark,
            followers: Vec::new(),
        };
        for replica in leader.view.isr.clone() {
            leader.joined(replica, now);
        }
        leader.advance(now);
        leader
    }

    /// Goes on with what was asked for before, under the same leader epoch: it may have been heard, and be taken up yet (I5).
    pub fn resume(&mut self, proposal: Proposal) {
        let epochs = (proposal.leader_epoch, proposal.partition_epoch);
        if epochs == (self.view.leader_epoch, self.view.partition_epoch) {
            self.proposal = Some(proposal);
        }
    }

    /// The state that it goes by.
    pub fn view(&self) -> &View {
        &self.view
    }

    /// Exclusive end of what every member of the maximal ISR has (HW).
    pub fn high_watermark(&self) -> i64 {
        self.high_watermark
    }

    /// The in-sync replicas that it asks for; it stands until the view has a higher partition epoch (I5).
    pub fn proposal(&self) -> Option<&Proposal> {
        self.proposal.as_ref()
    }

    /// Too few replicas are in sync to acknowledge anything (L1, H2).
    pub fn is_short(&self) -> bool {
        self.in_sync() < self.view.min_in_sync_replicas
    }

    /// How many replicas are in sync.
    pub fn in_sync(&self) -> i32 {
        i32::try_from(self.view.isr.len()).unwrap_or(i32::MAX)
    }

    /// The log's end when the epoch was taken (LESO). Below it the high watermark may lie behind what a leader before this
    /// one has committed (H5).
    pub fn epoch_start(&self) -> i64 {
        self.epoch_start
    }

    /// Whether all that was committed before this leadership is known to be (H5).
    pub fn latest_known(&self) -> bool {
        self.high_watermark >= self.epoch_start
    }

    /// Those that may be in sync: the committed ones, and those of the proposal that may have been applied (I1, I2, I5).
    pub fn maximal_isr(&self) -> impl Iterator<Item = Replica> + '_ {
        let proposed = self.proposal.iter().flat_map(|proposal| &proposal.isr);
        let added = proposed.filter(|replica| !self.view.isr.contains(replica));
        self.view.isr.iter().chain(added).copied()
    }

    /// Its own log is written up to `end` now.
    pub fn written(&mut self, end: i64, now: Duration) {
        if end <= self.log_end {
            return;
        }
        let before = self.log_end;
        // Who had everything had it until now.
        for follower in self.followers.iter_mut().filter(|follower| follower.has(before)) {
            follower.caught_up_at = Some(now);
        }
        self.log_end = end;
        self.advance(now);
    }

    /// A follower's log is written up to here, as it said in this leader epoch. Nothing that cannot be is believed, nor what
    /// a session says that another one has followed.
    pub fn fetched(&mut self, by: Replica, written: i64, now: Duration) {
        // One that is not among the replicas here may have seen a newer state than this. One that has all there is says so once.
        if by.broker == self.view.me.broker || !(0..=self.log_end).contains(&written) {
            return;
        }
        let log_end = self.log_end;
        let Some(follower) = self.session(by, now) else { return };
        // It may have less than before: a log that was lost begins anew.
        follower.written = Some(written);
        if written >= log_end {
            follower.caught_up_at = Some(now);
        }
        if written >= follower.mark.1 {
            follower.caught_up_at = follower.caught_up_at.max(Some(follower.mark.0));
            follower.mark = (now, log_end);
        }
        self.propose(now);
        self.advance(now);
    }

    /// The follower of this session; a newer one takes the place of an older. `None`: it is the older.
    fn session(&mut self, of: Replica, now: Duration) -> Option<&mut Follower> {
        let new = Follower::new(of, None, (now, self.log_end));
        let found = self.followers.iter().position(|follower| follower.replica.broker == of.broker);
        let index = found.unwrap_or_else(|| {
            self.followers.push(new);
            self.followers.len() - 1
        });
        let follower = &mut self.followers[index];
        if follower.replica.incarnation < of.incarnation {
            *follower = new;
        }
        (follower.replica == of).then_some(follower)
    }

    /// A replica is in sync since now, at the latest.
    fn joined(&mut self, replica: Replica, now: Duration) {
        if replica != self.view.me
            && let Some(follower) = self.session(replica, now)
        {
            follower.caught_up_at = Some(now);
        }
    }

    /// The slice shows another state of the same leadership. What was asked for before has been applied, or never will be,
    /// whatever copies of it are under way (I5). A state that is not newer changes nothing.
    pub fn adopt(&mut self, view: View, now: Duration) {
        let same = view.me == self.view.me && view.leader_epoch == self.view.leader_epoch;
        if !same || view.partition_epoch <= self.view.partition_epoch {
            return;
        }
        let before = std::mem::replace(&mut self.view, view);
        self.viewed_at = now;
        // Who was none before is ahead of this state too.
        let gone = |broker: &i32| before.replicas.contains(broker) && !self.view.replicas.contains(broker);
        self.followers.retain(|follower| !gone(&follower.replica.broker));
        let isr = self.view.isr.clone();
        for replica in isr.iter().filter(|replica| !before.isr.contains(replica)) {
            self.joined(*replica, now);
        }
        let refused = self.proposal.take().filter(|_| are_same(&before.isr, &isr));
        for follower in &mut self.followers {
            let asked = refused.as_ref().map(|proposal| proposal.isr.contains(&follower.replica));
            if asked.is_some_and(|asked| asked != isr.contains(&follower.replica)) {
                follower.not_before = now + HOLD;
            }
        }
        self.propose(now);
        self.advance(now);
    }

    /// Time has passed. To be called every second or so.
    pub fn tick(&mut self, now: Duration) {
        self.propose(now);
        self.advance(now);
    }

    /// Asks for a change where one is due, one at a time (I6). One that brings a replica in comes first: so the other need
    /// not leave too few.
    fn propose(&mut self, now: Duration) {
        if self.proposal.is_some() {
            return;
        }
        if let Some(isr) = self.expanded(now).or_else(|| self.shrunk(now)) {
            let (leader_epoch, partition_epoch) = (self.view.leader_epoch, self.view.partition_epoch);
            self.proposal = Some(Proposal { leader_epoch, partition_epoch, isr });
        }
    }

    /// With the first replica that can join (I3): one, so that nobody else waits if it is refused.
    fn expanded(&self, now: Duration) -> Option<Vec<Replica>> {
        let end = self.high_watermark.max(self.epoch_start);
        let ready = |broker: &i32| {
            self.followers.iter().find(|follower| {
                let joins = follower.replica.broker == *broker && self.may_join(follower, now);
                joins && follower.has(end) && follower.keeps_up(MAX_LAG, self.log_end, now)
            })
        };
        let joins = self.view.replicas.iter().find_map(ready)?;
        Some(self.view.isr.iter().copied().chain([joins.replica]).collect())
    }

    /// Whether it is a replica and not in sync, in whatever session, and was not refused just now. A session that has been
    /// followed by another leaves first.
    fn may_join(&self, follower: &Follower, now: Duration) -> bool {
        let broker = follower.replica.broker;
        let in_sync = self.view.isr.iter().any(|replica| replica.broker == broker);
        self.view.replicas.contains(&broker) && !in_sync && now >= follower.not_before
    }

    /// Without all that lag.
    fn shrunk(&self, now: Duration) -> Option<Vec<Replica>> {
        let isr: Vec<_> = self.view.isr.iter().copied().filter(|replica| self.stays(*replica, now)).collect();
        (isr.len() < self.view.isr.len()).then_some(isr)
    }

    fn stays(&self, replica: Replica, now: Duration) -> bool {
        match self.follower(replica) {
            _ if replica == self.view.me => true,
            Some(follower) => follower.keeps_up(MAX_LAG, self.log_end, now) || now < follower.not_before,
            // Its broker has begun another session: the controller finds out, or this does.
            None => now.saturating_sub(self.viewed_at) < MAX_LAG,
        }
    }

    fn follower(&self, replica: Replica) -> Option<&Follower> {
        self.followers.iter().find(|follower| follower.replica == replica)
    }

    /// Raises the high watermark to what every member of the maximal ISR has (H1), unless too few are in sync (H2). It waits
    /// for those that are about to join (H3).
    fn advance(&mut self, now: Duration) {
        if self.is_short() {
            return;
        }
        let mut end = self.log_end;
        for replica in self.maximal_isr().filter(|replica| *replica != self.view.me) {
            let Some(written) = self.follower(replica).and_then(|follower| follower.written) else { return };
            end = end.min(written);
        }
        let joining = self.followers.iter().filter(|follower| {
            let keeps_up = follower.has(self.epoch_start) && follower.keeps_up(JOINING, self.log_end, now);
            keeps_up && self.may_join(follower, now)
        });
        end = joining.filter_map(|follower| follower.written).fold(end, i64::min);
        self.high_watermark = self.high_watermark.max(end);
    }
}

/// Whether these are the same replicas, in whatever order.
fn are_same(one: &[Replica], other: &[Replica]) -> bool {
    one.len() == other.len() && one.iter().all(|replica| other.contains(replica))
}

#[cfg(test)]
mod tests;
