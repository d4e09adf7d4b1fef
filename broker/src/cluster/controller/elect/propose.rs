//! What a leader asks for: taken up, or refused for good.
//!
//! A proposal names the partition epoch that it is to follow on. Whatever is decided raises that epoch, so that no copy of the
//! proposal, told to whatever controller, can be taken up later: a leader that sees a higher epoch knows the outcome (I5).

use taffrail_crds::slice::{PartitionState, Replica};

use super::{View, forget_others, leadership, note_lost};
use crate::replication::Proposal;

impl View<'_> {
    /// Takes up what the leader asks for, if it is possible. Answers whether it asked for something: then the partition epoch
    /// rises, whatever was decided.
    pub(super) fn answer(&self, next: &mut PartitionState) -> bool {
        let Some(proposal) = self.proposal(next) else { return false };
        if self.is_possible(next, proposal) {
            take_up(next, &proposal.isr);
        }
        true
    }

    /// Of this very state: one of an earlier is answered already, and one of a later is for whoever knows that.
    fn proposal(&self, partition: &PartitionState) -> Option<&Proposal> {
        let leader = self.member(leadership(partition)?)?;
        let proposal = leader.proposals.get(&(self.topic, self.index))?;
        (proposal.partition_epoch == partition.partition_epoch).then_some(proposal)
    }

    fn is_possible(&self, partition: &PartitionState, proposal: &Proposal) -> bool {
        let once = |replica: &Replica| proposal.isr.iter().filter(|other| other.broker == replica.broker).count() == 1;
        let has_replica = |replica: &Replica| partition.replicas.contains(&replica.broker);
        proposal.leader_epoch == partition.leader_epoch
            && leadership(partition).is_some_and(|leader| proposal.isr.contains(&leader))
            && proposal.isr.iter().all(|replica| has_replica(replica) && once(replica))
            && proposal.isr.iter().all(|replica| partition.isr.contains(replica) || self.may_join(*replica))
            && proposal.isr.iter().all(|replica| self.serves(*replica))
    }

    /// Registered in that session, alive, able, and not about to stop (I4, I9).
    fn may_join(&self, replica: Replica) -> bool {
        self.serves(replica) && !self.is_stopping(replica.broker)
    }
}

/// Those who leave stay eligible while too few are left to acknowledge anything (L2).
fn take_up(next: &mut PartitionState, isr: &[Replica]) {
    let out: Vec<_> = next.isr.iter().filter(|replica| !isr.contains(replica)).copied().collect();
    next.isr = isr.to_vec();
    next.elr.retain(|eligible| !isr.iter().any(|replica| replica.broker == eligible.broker));
    next.elr.extend(out);
    forget_others(next);
    note_lost(next, Vec::new());
}
