//! When nobody is left who is known to have every acknowledged record: balanced recovery (L7, L8).

use std::cmp::Reverse;

use taffrail_crds::slice::{PartitionState, Replica, UncleanRecovery};

use super::super::members::{LogEnd, Member};
use super::{View, forget_others, note_lost};

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
        // Those whose logs are shorter are asked again, should this one be lost before enough have followed it.
        note_lost(next, Vec::new());
        forget_others(next);
    }

    /// Not known before all have answered, nor if it is one that cannot be served: then somebody has to look.
    fn longest(&self, next: &PartitionState) -> Option<Replica> {
        let known = &next.last_known_elr;
        let answers: Option<Vec<_>> = known.iter().map(|replica| self.answer_of(replica.broker, known.len())).collect();
        let preference = |broker: i32| next.replicas.iter().position(|other| *other == broker);
        let key = |(member, end): &(&Member, LogEnd)| (end.epoch, end.end, Reverse(preference(member.id)));
        let (member, _) = answers?.into_iter().max_by_key(key).filter(|(member, _)| !self.is_faulty(member))?;
        Some(Replica { broker: member.id, incarnation: member.incarnation })
    }

    /// Where its log ends, if it is alive and has told so in this session; that of the only one does not matter.
    fn answer_of(&self, broker: i32, of: usize) -> Option<(&Member, LogEnd)> {
        let member = self.members.get(&broker).filter(|member| !member.fenced)?;
        let told = member.ends.get(&(self.topic, self.index)).copied();
        let end = told.or_else(|| (of == 1).then_some(LogEnd::NONE))?;
        Some((member, end))
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
                None if next.elr.is_empty() && !member.ends.contains_key(&key) => {
                    format!("broker {broker} has not told yet where its log ends")
                }
                None => format!("broker {broker} may lack acknowledged records that another replica has"),
            },
        }
    }
}
