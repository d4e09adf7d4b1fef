//! Why a broker cannot serve a partition that it has: pure, so that what is reported is what is so now.

use taffrail_crds::PartitionState;
use taffrail_crds::slice::Replica;

use crate::cluster::Session;
use crate::cluster::controller::members::LogEnd;
use crate::storage::Extent;
use crate::storage::leader_epochs::LeaderEpochs;

/// A replica that must not be served.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum Fault {
    /// The log was here, or should be, and is not. An empty one in its place would hide the loss (M9).
    #[error(
        "its log is not on this broker's volume, which was lost or exchanged: put the volume back, or delete the topic and \
         make it again"
    )]
    MissingLog,
    /// The metadata is older than what was seen here, as when etcd is restored from a backup (M5).
    #[error(
        "the cluster's metadata went back in time (partition epoch {given}, and {seen} was seen here): \
         \"taffrail cluster recover\" writes what the brokers saw last"
    )]
    OlderMetadata {
        /// The metadata's.
        given: i32,
        /// The highest that was seen.
        seen: i32,
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

/// What the broker remembers of a partition.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Known {
    /// It was led or followed here.
    pub was_here: bool,
    /// The highest partition epoch.
    pub seen: Option<i32>,
}

/// Why `me` cannot serve its replica; `None`: it can, or has none.
///
/// `log`: the newest leader epoch of the log, −1 for one that has none, if there is a log. What is frozen already nobody serves.
pub(super) fn fault(state: &PartitionState, me: Session, log: Option<i32>, known: Known) -> Option<Fault> {
    if !state.replicas.contains(&me.broker) || state.is_frozen() {
        return None;
    }
    if let Some(seen) = known.seen.filter(|seen| *seen > state.partition_epoch) {
        return Some(Fault::OlderMetadata { given: state.partition_epoch, seen });
    }
    let given = state.leader_epoch;
    match log {
        Some(newest) => (newest > given).then_some(Fault::OlderEpoch { given, newest }),
        None => must_have_log(state, me, known.was_here).then_some(Fault::MissingLog),
    }
}

/// A log in the place of the one that is not here would pass for it. A replica that counts for nothing is made anew (L6).
fn must_have_log(state: &PartitionState, me: Session, was_here: bool) -> bool {
    let present = Replica { broker: me.broker, incarnation: me.incarnation };
    let counts = state.isr.contains(&present) || state.elr.contains(&present);
    // Whoever was elected without proof, or is asked for what it has, was last known to have it.
    let was_elected = state.recovering && state.leader == Some(me.broker);
    counts && was_here || was_elected || is_asked(state, me)
}

/// Whether the controller wants to know where this broker's log ends: nobody leads, and it was last known to have every
/// acknowledged record.
pub fn is_asked(state: &PartitionState, me: Session) -> bool {
    state.leader.is_none() && state.last_known_elr.iter().any(|known| known.broker == me.broker)
}

/// Whether the replica of broker `me`, whose log was found to be damaged when it led or followed last, under the leader epoch
/// `damaged`, gives that log up now and is copied anew (D5): somebody else leads, and no acknowledged record may depend on it.
/// Only under a later epoch, in which its leader has heard nothing of it yet: nobody takes it into the in-sync replicas for what
/// it had (H1).
pub fn begins_anew(state: &PartitionState, me: i32, damaged: Option<i32>) -> bool {
    damaged.is_some_and(|under| state.leader_epoch > under) && state.leader.is_some() && !state.counts(me)
}

/// What the controller is told of the log, if there is one, of a partition that it [asks](is_asked) for. To be read when what
/// this broker did for the partition before has ended.
pub fn log_end(state: &PartitionState, log: Option<(Extent, &LeaderEpochs)>) -> LogEnd {
    let none = LogEnd::none(state.leader_epoch);
    log.map_or(none, |(extent, epochs)| LogEnd::of(state.leader_epoch, extent, epochs))
}

/// Whether one that leads, and was elected without proof, says that it has found its log: once so many are in sync that it is
/// not alone with it. The only one that there shall be need not wait for the one to which it moves.
pub fn has_recovered(state: &PartitionState) -> bool {
    let enough = state.min_in_sync_replicas.max(2).min(state.wanted().count() as i32);
    state.recovering && state.isr.len() as i32 >= enough
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cluster::controller::slices::tests::{spread, wanted};

    const ME: Session = Session { broker: 0, incarnation: 10 };

    /// It was never here.
    const NONE: Known = Known { was_here: false, seen: None };

    fn led(epoch: i32) -> Known {
        Known { was_here: true, seen: Some(epoch) }
    }

    fn state(leader_epoch: i32, partition_epoch: i32) -> PartitionState {
        let mut state = spread(&wanted(1)).remove(0).partitions.remove(0);
        (state.replicas, state.leader) = (vec![0], Some(0));
        PartitionState { leader_epoch, partition_epoch, ..state }
    }

    #[test]
    fn m9_a_log_is_made_only_where_there_never_was_one() {
        assert_eq!(fault(&state(0, 0), ME, None, NONE), None);
        assert_eq!(fault(&state(3, 8), ME, None, NONE), None, "elected again before it made its log");
        assert_eq!(fault(&state(3, 8), ME, None, led(7)), Some(Fault::MissingLog));
        let eligible = PartitionState { elr: state(3, 8).isr, isr: vec![], leader: None, ..state(3, 8) };
        assert_eq!(fault(&eligible, ME, None, led(7)), Some(Fault::MissingLog));
        let recovering = PartitionState { recovering: true, ..state(3, 8) };
        assert_eq!(fault(&recovering, ME, None, NONE), Some(Fault::MissingLog));
        assert_eq!(fault(&recovering, ME, Some(2), NONE), None);
    }

    #[test]
    fn l6_a_replica_that_counts_for_nothing_is_made_anew_unless_it_is_asked_what_it_has() {
        let others = vec![Replica { broker: 1, incarnation: 11 }];
        let lost = PartitionState { isr: others, leader: Some(1), replicas: vec![0, 1], ..state(3, 8) };
        assert_eq!(fault(&lost, ME, None, led(7)), None);
        let before = Replica { broker: 0, incarnation: 9 };
        let asked = PartitionState { isr: vec![], leader: None, last_known_elr: vec![before], ..lost.clone() };
        assert_eq!(fault(&asked, ME, None, NONE), Some(Fault::MissingLog));
        assert!(is_asked(&asked, ME) && !is_asked(&lost, ME));
        assert_eq!(log_end(&asked, None), LogEnd::none(3));
        let (mut epochs, extent) = (LeaderEpochs::new(), Extent { start: 0, end: 70 });
        epochs.appended(2, 0, 70);
        let end = LogEnd { leader_epoch: 3, epoch: 2, end: 70 };
        assert_eq!(log_end(&asked, Some((extent, &epochs))), end);
    }

    #[test]
    fn d5_h1_a_damaged_log_is_given_up_under_a_later_epoch_where_nothing_depends_on_it() {
        let of = |broker| vec![Replica { broker, incarnation: 7 }];
        let out = PartitionState { isr: of(1), leader: Some(1), replicas: vec![0, 1], ..state(3, 8) };
        for (damaged, anew) in [(None, false), (Some(2), true), (Some(3), false), (Some(4), false)] {
            assert_eq!(begins_anew(&out, ME.broker, damaged), anew, "{damaged:?}");
        }
        for (what, state) in [
            ("in sync, in whatever session", PartitionState { isr: [of(1), of(0)].concat(), ..out.clone() }),
            ("eligible", PartitionState { elr: of(0), ..out.clone() }),
            ("it is asked if nobody is left", PartitionState { last_known_elr: of(0), ..out.clone() }),
            ("nobody leads", PartitionState { leader: None, ..out }),
        ] {
            assert!(!begins_anew(&state, ME.broker, Some(2)), "{what}");
        }
    }

    #[test]
    fn l9_one_that_was_elected_without_proof_has_found_its_log_when_it_is_not_alone_with_it() {
        let of = |replicas: i32, in_sync: i32, min_in_sync_replicas| {
            let isr = (0..in_sync).map(|broker| Replica { broker, incarnation: 10 }).collect();
            let replicas = (0..replicas).collect();
            PartitionState { replicas, isr, min_in_sync_replicas, recovering: true, ..state(3, 8) }
        };
        for (replicas, in_sync, min_in_sync, found) in
            [(1, 1, 1, true), (2, 1, 1, false), (2, 2, 1, true), (3, 2, 3, false), (3, 3, 3, true), (3, 2, 2, true)]
        {
            assert_eq!(has_recovered(&of(replicas, in_sync, min_in_sync)), found, "{in_sync} of {replicas}");
        }
        let moving = |replicas| PartitionState { adding: vec![1], removing: vec![0], ..of(replicas, 1, 1) };
        assert_eq!([2, 3].map(|replicas| has_recovered(&moving(replicas))), [true, false]);
        assert!(!has_recovered(&PartitionState { recovering: false, ..of(1, 1, 1) }));
    }

    #[test]
    fn m5_metadata_that_went_back_is_noticed() {
        assert_eq!(fault(&state(3, 8), ME, Some(3), led(8)), None);
        let older = Some(Fault::OlderMetadata { given: 8, seen: 9 });
        assert_eq!(fault(&state(3, 8), ME, Some(3), led(9)), older);
        let only_seen = Known { was_here: false, seen: Some(9) };
        assert_eq!(fault(&state(3, 8), ME, None, only_seen), older, "a replica that came later");
        let frozen = PartitionState { seen_epoch: Some(9), ..state(3, 8) };
        assert_eq!(fault(&frozen, ME, Some(3), led(9)), None, "all know of it");
        let older = Some(Fault::OlderEpoch { given: 3, newest: 4 });
        assert_eq!(fault(&state(3, 8), ME, Some(4), NONE), older);
    }

    #[test]
    fn partitions_of_others_are_none_of_its_business() {
        assert_eq!(fault(&state(3, 8), Session { broker: 1, incarnation: 1 }, None, led(9)), None);
    }
}
