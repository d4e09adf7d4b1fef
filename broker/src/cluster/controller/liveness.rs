//! Who is alive: what was heard of brokers, by a clock of one's own.
//!
//! Every broker tells every other that it is alive, whoever is controller, so that a new one has heard it itself. Who has
//! just begun to act waits a whole session before it takes silence for death: it may have been deaf before.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use taffrail_crds::BrokerSpec;
use tokio::sync::Notify;
use uuid::Uuid;

use super::members::{LogEnd, Member, Members};
use crate::replication::proposals::ByPartition;

/// What a broker said last.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Beat {
    /// Its session.
    pub incarnation: i64,
    /// It is about to stop.
    pub stopping: bool,
    /// Partitions that it cannot serve, and why.
    pub faults: BTreeMap<(Uuid, i32), String>,
    /// Partitions that it was elected for without proof, and whose log it has found and serves.
    pub recovered: BTreeSet<(Uuid, i32)>,
    /// In-sync replicas that it asks for where it leads.
    pub proposals: ByPartition,
    /// Where its logs end of partitions that nobody leads and that name it as one of those that were eligible last.
    pub ends: BTreeMap<(Uuid, i32), LogEnd>,
}

/// What was heard, and when, by a clock that only goes forward.
#[derive(Clone, Debug)]
pub struct Liveness {
    session: Duration,
    heard: BTreeMap<i32, (Duration, Beat)>,
    news: Arc<Notify>,
}

/// Whether a broker's registration says what is so.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fencing {
    /// It does.
    Right,
    /// It is silent and counts as alive.
    Fence,
    /// It is alive and counts as dead.
    Unfence,
}

impl Liveness {
    /// A broker is dead after so much silence.
    pub fn new(session: Duration) -> Self {
        Self { session, heard: BTreeMap::new(), news: Arc::default() }
    }

    /// After how much silence a broker is dead.
    pub fn session(&self) -> Duration {
        self.session
    }

    /// Told when a broker says something else than before.
    pub fn news(&self) -> Arc<Notify> {
        self.news.clone()
    }

    /// A broker was heard now.
    pub fn hear(&mut self, broker: i32, beat: Beat, now: Duration) {
        let last = self.heard.get(&broker).map(|(_, last)| last);
        if last.is_some_and(|last| last.incarnation > beat.incarnation) {
            return;
        }
        if last != Some(&beat) {
            self.news.notify_one();
        }
        self.heard.insert(broker, (now, beat));
    }

    /// What is to become of a registration, for one that acts since `acting`.
    pub fn fencing(&self, spec: &BrokerSpec, acting: Duration, now: Duration) -> Fencing {
        let last = self.last(spec).map(|(at, _)| *at);
        let alive = last.is_some_and(|at| now.saturating_sub(at) < self.session);
        let silent = now.saturating_sub(last.unwrap_or_default().max(acting)) >= self.session;
        match spec.fenced {
            true if alive => Fencing::Unfence,
            false if !alive && silent => Fencing::Fence,
            _ => Fencing::Right,
        }
    }

    /// The registered brokers with what was heard of them.
    pub fn members<'a>(&self, registered: impl Iterator<Item = &'a BrokerSpec>) -> Members {
        let member = |spec: &BrokerSpec| {
            let mut member = Member::registered(spec);
            if let Some((_, beat)) = self.last(spec) {
                member.stopping = beat.stopping;
                member.faults.clone_from(&beat.faults);
                member.recovered.clone_from(&beat.recovered);
                member.proposals.clone_from(&beat.proposals);
                member.ends.clone_from(&beat.ends);
            }
            (spec.id, member)
        };
        registered.map(member).collect()
    }

    /// Of the registered session only: an earlier one is over.
    fn last(&self, spec: &BrokerSpec) -> Option<&(Duration, Beat)> {
        self.heard.get(&spec.id).filter(|(_, beat)| beat.incarnation == spec.incarnation)
    }
}

#[cfg(test)]
mod tests {
    use taffrail_crds::id::Id;

    use super::*;

    fn registered(fenced: bool) -> BrokerSpec {
        BrokerSpec {
            cluster_name: "main".to_owned(),
            id: 1,
            incarnation: 5,
            continues: None,
            storage_id: Id(Uuid::from_u128(1)),
            boot_id: Id(Uuid::from_u128(2)),
            zone: None,
            endpoints: Vec::new(),
            version: "0.1.0".to_owned(),
            feature_level: 1,
            fenced,
        }
    }

    fn secs(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    fn beat(incarnation: i64) -> Beat {
        Beat { incarnation, ..Beat::default() }
    }

    #[test]
    fn silence_for_a_session_is_death() {
        let mut liveness = Liveness::new(secs(6));
        liveness.hear(1, beat(5), secs(100));
        let of = |liveness: &Liveness, fenced, now| liveness.fencing(&registered(fenced), secs(50), secs(now));
        assert_eq!(of(&liveness, false, 105), Fencing::Right);
        assert_eq!(of(&liveness, false, 106), Fencing::Fence);
        assert_eq!(of(&liveness, true, 106), Fencing::Right);
        liveness.hear(1, beat(5), secs(200));
        assert_eq!(of(&liveness, true, 201), Fencing::Unfence);
    }

    #[test]
    fn a_new_controller_fences_nobody_before_one_session() {
        let liveness = Liveness::new(secs(6));
        assert_eq!(liveness.fencing(&registered(false), secs(50), secs(55)), Fencing::Right);
        assert_eq!(liveness.fencing(&registered(false), secs(50), secs(56)), Fencing::Fence);
    }

    #[test]
    fn an_earlier_session_of_a_broker_says_nothing_of_this_one() {
        let mut liveness = Liveness::new(secs(6));
        liveness.hear(1, beat(4), secs(100));
        assert_eq!(liveness.fencing(&registered(true), secs(50), secs(101)), Fencing::Right);
        liveness.hear(1, beat(5), secs(101));
        liveness.hear(1, beat(4), secs(102));
        assert_eq!(liveness.fencing(&registered(true), secs(50), secs(103)), Fencing::Unfence);
    }
}
