//! Changes of in-sync replicas that leaders ask the controller for. They stand here until the slice shows a higher partition
//! epoch, and every heartbeat carries them: so no controller's death and no lost call matters.

use std::collections::BTreeMap;

use taffrail_crds::slice::Replica;
use tokio::sync::watch;
use uuid::Uuid;

use crate::storage::PartitionId;

/// The in-sync replicas that a leader asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Proposal {
    /// Under which it leads.
    pub leader_epoch: i32,
    /// The state that it is to follow on.
    pub partition_epoch: i32,
    /// All of them, the leader too, in their sessions.
    pub isr: Vec<Replica>,
}

/// Those of one broker, by topic and partition.
pub type ByPartition = BTreeMap<(Uuid, i32), Proposal>;

/// Where a broker's leaders put them.
#[derive(Debug, Default)]
pub struct Proposals {
    all: watch::Sender<ByPartition>,
}

impl Proposals {
    /// What the leader of a partition asks for now; `None`: nothing. Cheap if that is as before.
    pub fn set(&self, partition: PartitionId, proposal: Option<Proposal>) {
        let key = (partition.topic, partition.index);
        self.all.send_if_modified(|all| match proposal {
            Some(proposal) if all.get(&key) == Some(&proposal) => false,
            Some(proposal) => {
                all.insert(key, proposal);
                true
            }
            None => all.remove(&key).is_some(),
        });
    }

    /// What was asked for last of a partition. It may still be taken up, also when nobody leads here any more.
    pub fn get(&self, partition: PartitionId) -> Option<Proposal> {
        self.all.borrow().get(&(partition.topic, partition.index)).cloned()
    }

    /// Forgets what was asked for under another leader epoch than this: nobody takes it up any more.
    pub fn forget_others(&self, partition: PartitionId, leader_epoch: i32) {
        if self.get(partition).is_some_and(|proposal| proposal.leader_epoch != leader_epoch) {
            self.set(partition, None);
        }
    }

    /// All of them, now and later.
    pub fn follow(&self) -> watch::Receiver<ByPartition> {
        self.all.subscribe()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_proposal_stands_until_it_is_taken_back_and_only_a_change_is_told() {
        let (proposals, id) = (Proposals::default(), PartitionId { topic: Uuid::from_u128(1), index: 2 });
        let proposal = Proposal { leader_epoch: 3, partition_epoch: 4, isr: vec![] };
        let mut told = proposals.follow();
        proposals.set(id, Some(proposal.clone()));
        assert!(told.has_changed().unwrap());
        assert_eq!(told.borrow_and_update().get(&(id.topic, 2)), Some(&proposal));
        proposals.set(id, Some(proposal));
        assert!(!told.has_changed().unwrap());
        proposals.forget_others(id, 3);
        assert!(proposals.get(id).is_some());
        proposals.forget_others(id, 4);
        assert!(told.borrow_and_update().is_empty());
        proposals.set(id, None);
        assert!(!told.has_changed().unwrap());
    }
}
