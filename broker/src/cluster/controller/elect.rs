//! Who is in sync and who leads: what becomes of a partition when brokers come, go or fail.
//!
//! A pure function of the partition and the brokers (KIP-841: fenced brokers are never in sync; KIP-966: eligible leaders).
//! The order of `replicas` is the order of preference.

use std::collections::BTreeSet;

use taffrail_crds::slice::{PartitionState, Replica, UncleanRecovery};
use uuid::Uuid;

use super::members::{Member, Members};

/// The partition as it is to be now, with the epochs that the change asks for; `None`: it stays as it is.
pub fn settle(topic: Uuid, partition: &PartitionState, members: &Members) -> Option<PartitionState> {
    let mut next = partition.clone();
    let view = View { topic, index: partition.index, members };
    view.refresh(&mut next);
    view.shrink(&mut next);
    view.elect(&mut next);
    if next == *partition {
        return None;
    }
    if leadership(&next) != leadership(partition) {
        next.leader_epoch += 1;
    }
    next.partition_epoch += 1;
    Some(next)
}

/// The leader in its session: another session of the same broker is another leadership.
fn leadership(partition: &PartitionState) -> Option<Replica> {
    partition.isr.iter().copied().find(|replica| Some(replica.broker) == partition.leader)
}

struct View<'a> {
    topic: Uuid,
    index: i32,
    members: &'a Members,
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
    /// have every acknowledged record: they stay eligible (KIP-966).
    fn shrink(&self, next: &mut PartitionState) {
        let (isr, out): (Vec<_>, Vec<_>) = next.isr.iter().partition(|replica| self.serves(**replica));
        next.isr = isr;
        if next.isr.len() >= next.min_in_sync_replicas as usize {
            next.elr.clear();
            next.last_known_elr.clear();
            return;
        }
        next.elr.extend(out);
        let (elr, lost): (Vec<_>, Vec<_>) = next.elr.iter().partition(|replica| !self.has_lost(**replica));
        next.elr = elr;
        for replica in lost {
            next.last_known_elr.retain(|known| known.broker != replica.broker);
            next.last_known_elr.push(replica);
        }
        // Whoever is eligible again, or was the only one left and leads, needs no asking.
        let present: BTreeSet<_> = next.isr.iter().chain(&next.elr).map(|replica| replica.broker).collect();
        next.last_known_elr.retain(|known| !present.contains(&known.broker));
    }

    fn elect(&self, next: &mut PartitionState) {
        if let Some(leader) = leadership(next) {
            let member = self.members.get(&leader.broker);
            // What was elected without proof stays so, over all elections, until a leader has found its log.
            next.recovering &= !member.is_some_and(|member| member.recovered.contains(&(self.topic, self.index)));
            return;
        }
        next.leader = self.candidate(next, &next.isr).or_else(|| self.take_eligible(next));
        if next.leader.is_none() {
            self.recover(next);
        }
        next.fault = if next.leader.is_some() { None } else { Some(self.fault(next)) };
    }

    /// The preferred one of these replicas that can lead; one that is about to stop only if there is no other.
    fn candidate(&self, next: &PartitionState, among: &[Replica]) -> Option<i32> {
        let able = |broker: &i32| among.iter().any(|replica| replica.broker == *broker && self.serves(*replica));
        let stopping = |broker: &i32| self.members.get(broker).is_some_and(|member| member.stopping);
        let (stopping, staying): (Vec<i32>, Vec<i32>) = next.replicas.iter().copied().filter(able).partition(stopping);
        staying.first().or_else(|| stopping.first()).copied()
    }

    /// An eligible replica becomes the one in-sync replica: the others may lack what it has (I7).
    fn take_eligible(&self, next: &mut PartitionState) -> Option<i32> {
        let leader = self.candidate(next, &next.elr)?;
        let taken = next.elr.iter().position(|replica| replica.broker == leader)?;
        next.isr.push(next.elr.remove(taken));
        if next.isr.len() >= next.min_in_sync_replicas as usize {
            next.elr.clear();
            next.last_known_elr.clear();
        }
        Some(leader)
    }

    /// Nobody is left who is known to have every acknowledged record. If only one replica was there at last, its log is the
    /// longest there is, whatever it has lost; of several, all would have to be asked (L8).
    fn recover(&self, next: &mut PartitionState) {
        let [last] = next.last_known_elr[..] else { return };
        let alive = self.members.get(&last.broker).filter(|member| !member.fenced && !self.is_faulty(member));
        let nobody = next.isr.is_empty() && next.elr.is_empty();
        let (Some(member), true, UncleanRecovery::Balanced) = (alive, nobody, next.unclean_recovery) else { return };
        next.isr = vec![Replica { broker: last.broker, incarnation: member.incarnation }];
        next.leader = Some(last.broker);
        next.last_known_elr.clear();
        next.recovering = true;
    }

    fn serves(&self, replica: Replica) -> bool {
        let member = self.members.get(&replica.broker);
        member.is_some_and(|member| {
            !member.fenced && member.incarnation == replica.incarnation && !self.is_faulty(member)
        })
    }

    /// Its broker has come back and does not vouch for it.
    fn has_lost(&self, replica: Replica) -> bool {
        self.members.get(&replica.broker).is_some_and(|member| member.incarnation != replica.incarnation)
    }

    fn is_faulty(&self, member: &Member) -> bool {
        member.faults.contains_key(&(self.topic, self.index))
    }

    fn fault(&self, next: &PartitionState) -> String {
        let waits_for = next.elr.iter().chain(&next.last_known_elr).map(|replica| replica.broker);
        let mut reasons: Vec<_> = waits_for.map(|broker| self.reason(broker, next)).collect();
        reasons.dedup();
        let text = if reasons.is_empty() { "no replica is left".to_owned() } else { reasons.join("; ") };
        text.chars().take(1_000).collect()
    }

    fn reason(&self, broker: i32, next: &PartitionState) -> String {
        match self.members.get(&broker) {
            None => format!("broker {broker} is not registered"),
            Some(member) => match member.faults.get(&(self.topic, self.index)) {
                Some(fault) => format!("broker {broker}: {fault}"),
                None if member.fenced => format!("broker {broker} does not answer"),
                None if next.unclean_recovery == UncleanRecovery::None => format!(
                    "broker {broker} stopped without notice and may have lost acknowledged records, and uncleanRecovery is None"
                ),
                None => format!("broker {broker} may lack acknowledged records that another replica has"),
            },
        }
    }
}

#[cfg(test)]
mod tests;
