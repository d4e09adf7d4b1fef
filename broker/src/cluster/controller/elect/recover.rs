//! When nobody is left who is known to have every acknowledged record: balanced recovery (L7, L8).

use std::cmp::Reverse;

use taffrail_crds::recover::Recovery;
use taffrail_crds::slice::{PartitionState, Replica, UncleanRecovery};
use uuid::Uuid;

use super::super::members::{LogEnd, Member, Members};
use super::{View, forget_others, note_lost};

/// What a person commands for a partition without a leader (L8): the replica of this broker leads, though it may lack acknowledged
/// records, which is reported as after any recovery (L7). `None`: it holds for another epoch, or the broker cannot lead.
///
/// The epoch ends with it, so that a command decides once, however often it is read.
pub fn command(
    topic: Uuid,
    partition: &PartitionState,
    members: &Members,
    command: Recovery,
) -> Option<PartitionState> {
    let view = View { topic, index: partition.index, members, was_led: partition.leader.is_some() };
    let member = members.get(&command.broker).filter(|member| !member.fenced && !view.is_faulty(member))?;
    let waits = partition.leader.is_none() && partition.leader_epoch == command.leader_epoch;
    if !waits || !partition.replicas.contains(&command.broker) {
        return None;
    }
    let mut next = partition.clone();
    let given_up = std::mem::take(&mut next.elr);
    next.isr = vec![Replica { broker: member.id, incarnation: member.incarnation }];
    (next.leader, next.fault, next.recovering) = (Some(member.id), None, true);
    note_lost(&mut next, given_up);
    forget_others(&mut next);
    (next.leader_epoch, next.partition_epoch) = (next.leader_epoch + 1, next.partition_epoch + 1);
    // Whoever took more for committed, and was away or followed, gives that up instead of refusing to truncate (T4).
    next.unclean_leader_epoch = Some(next.leader_epoch);
    Some(next)
}

impl View<'_> {
    /// The longest log of those that were eligible last leads, once all of these have told where theirs ends. If only one is
    /// left, its log is the longest there is, whatever it has lost.
    pub(super) fn recover(&self, next: &mut PartitionState) {
        let nobody = next.isr.is_empty() && next.elr.is_empty();
        if !nobody || next.unclean_recovery != UncleanRecovery::Balanced {
            return;
        }
        let Some(longest) = self.longest(next) else { return };
        next.isr = vec![longest];
        next.leader = Some(longest.broker);
        next.recovering = true;
        // Of the epoch that it leads under, as another leader than before.
        next.unclean_leader_epoch = Some(next.leader_epoch + 1);
        // Those whose logs are shorter are asked again, should this one be lost before enough have followed it.
        note_lost(next, Vec::new());
        forget_others(next);
    }

    /// Not known before all have answered, nor if it is one that cannot be served: then somebody has to look.
    fn longest(&self, next: &PartitionState) -> Option<Replica> {
        let known = &next.last_known_elr;
        let answers: Option<Vec<_>> = known.iter().map(|replica| self.answer_of(replica.broker, next)).collect();
        let preference = |broker: i32| next.replicas.iter().position(|other| *other == broker);
        let key = |(member, end): &(&Member, LogEnd)| (end.epoch, end.end, Reverse(preference(member.id)));
        let (member, _) = answers?.into_iter().max_by_key(key).filter(|(member, _)| !self.is_faulty(member))?;
        Some(Replica { broker: member.id, incarnation: member.incarnation })
    }

    /// Where its log ends, if it is alive and has told so; that of the only one does not matter.
    fn answer_of(&self, broker: i32, next: &PartitionState) -> Option<(&Member, LogEnd)> {
        let member = self.members.get(&broker).filter(|member| !member.fenced)?;
        let is_only_one = next.last_known_elr.len() == 1;
        let end = self.told(member, next).or_else(|| is_only_one.then_some(LogEnd::none(next.leader_epoch)))?;
        Some((member, end))
    }

    /// What it has told in this session since the partition lost its leader: what it told before has been written to since.
    fn told(&self, member: &Member, next: &PartitionState) -> Option<LogEnd> {
        let told = member.ends.get(&(self.topic, self.index)).copied();
        told.filter(|end| !self.was_led && end.leader_epoch == next.leader_epoch)
    }

    /// Why nobody leads.
    pub(super) fn fault(&self, next: &PartitionState) -> String {
        let waits_for = next.elr.iter().chain(&next.last_known_elr).map(|replica| replica.broker);
        let mut reasons: Vec<_> = waits_for.map(|broker| self.reason(broker, next)).collect();
        reasons.dedup();
        let text = if reasons.is_empty() { "no replica is left".to_owned() } else { reasons.join("; ") };
        text.chars().take(1_000).collect()
    }

    fn reason(&self, broker: i32, next: &PartitionState) -> String {
        let key = (self.topic, self.index);
        match self.members.get(&broker) {
            None => format!("broker {broker} is not registered"),
            Some(member) => match member.faults.get(&key) {
                Some(fault) => format!("broker {broker}: {fault}"),
                None if member.fenced => format!("broker {broker} does not answer"),
                None if next.unclean_recovery == UncleanRecovery::None => format!(
                    "broker {broker} stopped without notice and may have lost acknowledged records, and uncleanRecovery is None"
                ),
                None if next.elr.is_empty() && self.told(member, next).is_none() => {
                    format!("broker {broker} has not told yet where its log ends")
                }
                None => format!("broker {broker} may lack acknowledged records that another replica has"),
            },
        }
    }
}
