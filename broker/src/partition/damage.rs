//! Stored records of a replica that cannot be read any more (D5).
//!
//! Other replicas have them whole. So whoever meets the first of them has it noted, for the controller to be told: then another
//! replica leads, and this one begins anew once it counts for nothing (`docs/replication.md`, "Damaged logs").

use std::sync::OnceLock;
use std::time::Duration;

use tokio::time::Instant;

use crate::storage::{PartitionId, ReadError};

/// How long readers are told to try again: more than it takes until another replica leads, should the controller fail too. If
/// this one leads even then, nobody can take over, and readers are told what is wrong.
const PATIENCE: Duration = Duration::from_mins(1);

/// Since when it is known.
#[derive(Debug, Default)]
pub(super) struct Damage(OnceLock<Instant>);

impl Damage {
    /// Takes note of what a read of the replica's log met. It is said once.
    pub(super) fn note(&self, partition: PartitionId, error: &ReadError) {
        let ReadError::Corrupt { first, last, what } = error else { return };
        if self.0.set(Instant::now()).is_ok() {
            let PartitionId { topic, index } = partition;
            tracing::error!(%topic, partition = index, first, last, what,
                "stored records are damaged: others are to lead, and this replica is to begin anew");
        }
    }

    /// Some was found.
    pub(super) fn is_found(&self) -> bool {
        self.0.get().is_some()
    }

    /// It was found, and not so long ago that others had led since if they could.
    pub(super) fn may_pass(&self, now: Instant) -> bool {
        self.0.get().is_some_and(|found| now.saturating_duration_since(*found) < PATIENCE)
    }
}

#[cfg(test)]
mod tests {
    use uuid::Uuid;

    use super::*;
    use crate::storage::StorageError;

    #[test]
    fn d5_only_damage_is_noted_and_readers_are_put_off_for_a_while() {
        let (damage, id) = (Damage::default(), PartitionId { topic: Uuid::from_u128(1), index: 2 });
        damage.note(id, &ReadError::OutOfRange { offset: 9, start: 0, end: 3 });
        damage.note(id, &StorageError::Closed.into());
        assert!(!damage.is_found() && !damage.may_pass(Instant::now()));
        damage.note(id, &ReadError::Corrupt { first: 0, last: 3, what: "a bit".to_owned() });
        let now = Instant::now();
        assert!(damage.is_found() && damage.may_pass(now));
        assert!(!damage.may_pass(now + PATIENCE));
        damage.note(id, &ReadError::Corrupt { first: 4, last: 5, what: "another".to_owned() });
        assert!(!damage.may_pass(now + PATIENCE), "since the first");
    }
}
