//! Why a broker cannot serve a partition that it has: pure, so that what is reported is what is so now.

use taffrail_crds::PartitionState;

use crate::cluster::Session;

/// A replica that must not be served.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum Fault {
    /// The log was here, or should be, and is not. An empty one in its place would hide the loss (M9).
    #[error(
        "its log is not on this broker's volume, which was lost or exchanged: put the volume back, or delete the topic and \
         make it again"
    )]
    MissingLog,
    /// The metadata is older than what was led here, as after a restored backup (M5).
    #[error(
        "the cluster's metadata went back in time (partition epoch {given}, and {led} was led here): \
         \"taffrail cluster recover\" writes what the brokers saw last"
    )]
    OlderMetadata {
        /// The metadata's.
        given: i32,
        /// Under which this broker led last.
        led: i32,
    },
    /// The same, seen by the log.
    #[error(
        "the cluster's metadata went back in time (leader epoch {given}, and the log has {newest}): \
         \"taffrail cluster recover\" writes what the brokers saw last"
    )]
    OlderEpoch {
        /// The metadata's.
        given: i32,
        /// The log's.
        newest: i32,
    },
}

/// Why `me` cannot serve its replica; `None`: it can, or has none.
///
/// `log`: the newest leader epoch of the log, −1 for one that has none, if there is a log; `led`: the partition epoch under which it was led here last.
pub(super) fn fault(state: &PartitionState, me: Session, log: Option<i32>, led: Option<i32>) -> Option<Fault> {
    if !state.replicas.contains(&me.broker) {
        return None;
    }
    if let Some(led) = led.filter(|led| *led > state.partition_epoch) {
        return Some(Fault::OlderMetadata { given: state.partition_epoch, led });
    }
    let given = state.leader_epoch;
    match log {
        Some(newest) => (newest > given).then_some(Fault::OlderEpoch { given, newest }),
        // A leader that was elected without proof had a log, if it ever led.
        None => (led.is_some() || state.recovering).then_some(Fault::MissingLog),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cluster::controller::slices::tests::{spread, wanted};

    const ME: Session = Session { broker: 0, incarnation: 10 };

    fn state(leader_epoch: i32, partition_epoch: i32) -> PartitionState {
        let mut state = spread(&wanted(1)).remove(0).partitions.remove(0);
        (state.replicas, state.leader) = (vec![0], Some(0));
        PartitionState { leader_epoch, partition_epoch, ..state }
    }

    #[test]
    fn m9_a_log_is_made_only_where_there_never_was_one() {
        assert_eq!(fault(&state(0, 0), ME, None, None), None);
        assert_eq!(fault(&state(3, 8), ME, None, None), None, "elected again before it made its log");
        assert_eq!(fault(&state(3, 8), ME, None, Some(7)), Some(Fault::MissingLog));
        let recovering = PartitionState { recovering: true, ..state(3, 8) };
        assert_eq!(fault(&recovering, ME, None, None), Some(Fault::MissingLog));
        assert_eq!(fault(&recovering, ME, Some(2), None), None);
    }

    #[test]
    fn m5_metadata_that_went_back_is_noticed() {
        assert_eq!(fault(&state(3, 8), ME, Some(3), Some(8)), None);
        let older = Some(Fault::OlderMetadata { given: 8, led: 9 });
        assert_eq!(fault(&state(3, 8), ME, Some(3), Some(9)), older);
        let older = Some(Fault::OlderEpoch { given: 3, newest: 4 });
        assert_eq!(fault(&state(3, 8), ME, Some(4), None), older);
    }

    #[test]
    fn partitions_of_others_are_none_of_its_business() {
        assert_eq!(fault(&state(3, 8), Session { broker: 1, incarnation: 1 }, None, Some(9)), None);
    }
}
