//! Who is in sync and who leads: what becomes of a partition when brokers come, go or fail, and when its leader asks for other
//! in-sync replicas.
//!
//! A pure function of the partition and the brokers (KIP-841: fenced brokers are never in sync; KIP-966: eligible leaders).
//! The order of `replicas` is the order of preference.
//!
//! - [`propose`]: what leaders ask for;
//! - [`recover`]: when nobody is left who is known to have every acknowledged record.

use std::collections::BTreeSet;

use taffrail_crds::slice::{PartitionState, Replica};
use uuid::Uuid;

use super::members::{Member, Members};

mod propose;
mod recover;

pub use recover::command;

/// The partition as it is to be now, with the epochs that the change asks for; `None`: it stays as it is.
///
/// `balance`: leadership goes back to the preferred replicas where all are in sync.
pub fn settle(topic: Uuid, partition: &PartitionState, members: &Members, balance: bool) -> Option<PartitionState> {
    let mut next = partition.clone();
    let view = View { topic, index: partition.index, members, was_led: partition.leader.is_some() };
    view.refresh(&mut next);
    view.shrink(&mut next);
    view.elect(&mut next);
    view.withdraw(&mut next);
    // Whatever has changed is another state than the leader spoke of: then the higher epoch is its answer.
    let answered = next == *partition && view.answer(&mut next);
    view.hand_over(&mut next);
    view.retire(&mut next);
    if balance {
        view.prefer(&mut next);
    }
    let anew = view.is_anew(&next);
    if next == *partition && !answered && !anew {
        return None;
    }
    if leadership(&next) != leadership(partition) || anew {
        next.leader_epoch += 1;
    }
    next.partition_epoch += 1;
    Some(next)
}

/// The leader in its session: another session of the same broker is another leadership.
fn leadership(partition: &PartitionState) -> Option<Replica> {
    partition.isr.iter().copied().find(|replica| Some(replica.broker) == partition.leader)
}

/// While enough are in sync, the high watermark moves without the others: nobody else is eligible, or need be asked.
pub(super) fn forget_others(next: &mut PartitionState) {
    if next.isr.len() >= next.min_in_sync_replicas as usize {
        next.elr.clear();
        next.last_known_elr.clear();
    }
}

struct View<'a> {
    topic: Uuid,
    index: i32,
    members: &'a Members,
    /// Somebody led until now: where logs end was told of another epoch than the one without a leader that may begin.
    was_led: bool,
}

/// Why another replica would be better: the later, the worse.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Blemish {
    None,
    /// Some of its records cannot be read.
    Damaged,
    /// Its broker is about to stop.
    Stopping,
}

impl View<'_> {
    /// Replicas go on under the present session of their broker where that has lost nothing.
    fn refresh(&self, next: &mut PartitionState) {
        for replica in next.isr.iter_mut().chain(&mut next.elr) {
            let Some(member) = self.members.get(&replica.broker) else { continue };
            if member.vouches_for(*replica) {
                replica.incarnation = member.incarnation;
            }
        }
    }

    /// Takes those out of the in-sync replicas that cannot be there. While too few are left to acknowledge anything, they
    /// have every acknowledged record: they stay eligible (L2).
    fn shrink(&self, next: &mut PartitionState) {
        let (isr, out): (Vec<_>, Vec<_>) = next.isr.iter().partition(|replica| self.serves(**replica));
        next.isr = isr;
        next.elr.extend(out);
        forget_others(next);
        let (elr, lost): (Vec<_>, Vec<_>) = next.elr.iter().partition(|replica| !self.has_lost(**replica));
        next.elr = elr;
        note_lost(next, lost);
    }

    fn elect(&self, next: &mut PartitionState) {
        if let Some(leader) = leadership(next) {
            let found = self.members.get(&leader.broker).and_then(|it| it.recovered.get(&(self.topic, self.index)));
            // What was elected without proof stays so, over all elections, until a leader has found its log. One that said so
            // under an earlier epoch has not said it of this.
            next.recovering &= found != Some(&next.leader_epoch);
            return;
        }
        next.leader = self.candidate(next, &next.isr).or_else(|| self.take_eligible(next));
        if next.leader.is_none() {
            self.recover(next);
        }
        next.fault = if next.leader.is_some() { None } else { Some(self.fault(next)) };
    }

    /// The preferred one of these replicas that can lead; one that is damaged or about to stop only if nobody better is there.
    fn candidate(&self, next: &PartitionState, among: &[Replica]) -> Option<i32> {
        let able = |broker: &i32| among.iter().any(|replica| replica.broker == *broker && self.serves(*replica));
        next.replicas.iter().copied().filter(able).min_by_key(|broker| self.blemish(*broker))
    }

    /// An eligible replica becomes the one in-sync replica: the others may lack what it has (I7).
    fn take_eligible(&self, next: &mut PartitionState) -> Option<i32> {
        let leader = self.candidate(next, &next.elr)?;
        let taken = next.elr.iter().position(|replica| replica.broker == leader)?;
        next.isr.push(next.elr.remove(taken));
        forget_others(next);
        Some(leader)
    }

    /// An eligible replica that its broker cannot serve is not waited for where another leads: it begins anew as a follower.
    fn withdraw(&self, next: &mut PartitionState) {
        if next.leader.is_none() {
            return;
        }
        let is_faulty = |replica: &Replica| self.member(*replica).is_some_and(|member| self.is_faulty(member));
        let (faulty, elr): (Vec<_>, Vec<_>) = next.elr.iter().partition(|replica| is_faulty(replica));
        next.elr = elr;
        note_lost(next, faulty);
    }

    /// A leader that is damaged or about to stop gives way to a better in-sync replica, if there is one.
    fn hand_over(&self, next: &mut PartitionState) {
        let Some(leader) = next.leader.filter(|leader| self.blemish(*leader) > Blemish::None) else { return };
        let is_better = |heir: &i32| self.blemish(*heir) < self.blemish(leader);
        next.leader = self.candidate(next, &next.isr).filter(is_better).or(next.leader);
    }

    /// Followers that are damaged or about to stop, and their leader is not, leave the in-sync replicas while enough are left to
    /// acknowledge without them. So nobody waits for one until its silence is noticed, and a damaged one begins anew (D5).
    fn retire(&self, next: &mut PartitionState) {
        let Some(leader) = next.leader.map(|leader| self.blemish(leader)) else { return };
        for broker in next.replicas.iter().rev().filter(|broker| self.blemish(**broker) > leader) {
            if next.isr.len() > next.min_in_sync_replicas as usize {
                next.isr.retain(|replica| replica.broker != *broker);
            }
        }
    }

    /// The first of the replicas leads, if all are in sync. Where some move, who leads is decided when they have. One that has
    /// only just come is left alone: nobody needs it to lead yet.
    fn prefer(&self, next: &mut PartitionState) {
        let all = next.isr.len() == next.replicas.len() && !next.is_moving();
        let is_settled = |broker: &&i32| self.members.get(*broker).is_some_and(|member| member.settled);
        let preferred =
            next.replicas.first().filter(is_settled).filter(|broker| self.blemish(**broker) == Blemish::None);
        if let (true, true, false, Some(preferred)) = (all, next.leader.is_some(), next.recovering, preferred) {
            next.leader = Some(*preferred);
        }
    }

    fn serves(&self, replica: Replica) -> bool {
        self.member(replica).is_some_and(|member| !member.fenced && !self.is_faulty(member))
    }

    /// Its broker, if that is in the very session.
    fn member(&self, replica: Replica) -> Option<&Member> {
        self.members.get(&replica.broker).filter(|member| member.incarnation == replica.incarnation)
    }

    /// Its broker has come back and does not vouch for it. A session that is newer than the registration that is seen says only
    /// that the watch is behind: the registration and the slice are objects of their own.
    fn has_lost(&self, replica: Replica) -> bool {
        self.members.get(&replica.broker).is_some_and(|member| member.incarnation > replica.incarnation)
    }

    fn is_faulty(&self, member: &Member) -> bool {
        member.faults.contains_key(&(self.topic, self.index))
    }

    fn is_stopping(&self, broker: i32) -> bool {
        self.members.get(&broker).is_some_and(|member| member.stopping)
    }

    /// Under which leader epoch its broker has said that records of it are damaged there.
    fn damaged(&self, broker: i32) -> Option<i32> {
        self.members.get(&broker)?.damaged.get(&(self.topic, self.index)).copied()
    }

    fn blemish(&self, broker: i32) -> Blemish {
        match self.damaged(broker) {
            _ if self.is_stopping(broker) => Blemish::Stopping,
            Some(_) => Blemish::Damaged,
            None => Blemish::None,
        }
    }

    /// A damaged replica that counts for nothing now is to begin anew: under another leader epoch, in which nobody takes it for
    /// one that has what it had (H1). Not where its leader is damaged too: it may have what that lacks.
    fn is_anew(&self, next: &PartitionState) -> bool {
        let is_damaged = |broker: &&i32| self.damaged(**broker) == Some(next.leader_epoch);
        next.leader.is_some_and(|leader| self.damaged(leader).is_none())
            && next.replicas.iter().filter(is_damaged).any(|broker| !next.counts(*broker))
    }
}

/// These were eligible last: they are asked when nobody else is left. Whoever is in sync or eligible need not be.
fn note_lost(next: &mut PartitionState, lost: Vec<Replica>) {
    for replica in lost {
        next.last_known_elr.retain(|known| known.broker != replica.broker);
        next.last_known_elr.push(replica);
    }
    let present: BTreeSet<_> = next.isr.iter().chain(&next.elr).map(|replica| replica.broker).collect();
    next.last_known_elr.retain(|known| !present.contains(&known.broker));
}

#[cfg(test)]
mod model;
#[cfg(test)]
mod tests;
