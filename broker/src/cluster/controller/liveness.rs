//! Who is alive: what was heard of brokers, by a clock of one's own.
//!
//! Every broker tells every other that it is alive, whoever is controller, so that a new one has heard it itself. Silence
//! counts from when one began to act, for it may have been deaf before; or from the last word, where a third broker was heard
//! all the while: who hears that one is neither deaf nor asleep. So a controller's own death costs no session more.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use taffrail_crds::BrokerSpec;
use tokio::sync::Notify;
use uuid::Uuid;

use super::frozen::{Epochs, highest};
use super::members::{LogEnd, Member, Members};
use crate::replication::proposals::ByPartition;

/// How long after a broker was first heard in its session leaderships go back to it. Its address may be another one, and for
/// so long the name by which clients know it may lead to the one before (CoreDNS caches for 30 s).
const SETTLED: Duration = Duration::from_secs(30);

/// What a broker said last.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Beat {
    /// Its session.
    pub incarnation: i64,
    /// It is about to stop, or its storage takes no records now: others shall lead, and acknowledge without it.
    pub stopping: bool,
    /// Partitions that it cannot serve, and why.
    pub faults: BTreeMap<(Uuid, i32), String>,
    /// Partitions of which stored records are damaged there, and under which leader epochs it leads or follows.
    pub damaged: BTreeMap<(Uuid, i32), i32>,
    /// Partitions that it was elected for without proof, and whose log it has found and serves: under which leader epochs.
    pub recovered: BTreeMap<(Uuid, i32), i32>,
    /// In-sync replicas that it asks for where it leads.
    pub proposals: ByPartition,
    /// Where its logs end of partitions that nobody leads and that name it as one of those that were eligible last.
    pub ends: BTreeMap<(Uuid, i32), LogEnd>,
    /// Partitions of which it has seen later states than the metadata shows, with the partition epochs of these.
    pub seen: Epochs,
}

/// What was heard, and when, by a clock that only goes forward.
#[derive(Clone, Debug)]
pub struct Liveness {
    me: i32,
    session: Duration,
    heard: BTreeMap<i32, Heard>,
    news: Arc<Notify>,
}

/// What was heard of one broker.
#[derive(Clone, Debug)]
struct Heard {
    /// When last.
    at: Duration,
    /// Since when it has never been silent for half a session.
    since: Duration,
    /// When this session of it was first heard.
    joined: Duration,
    beat: Beat,
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
    /// What broker `me` hears, itself too; another is dead after so much silence.
    pub fn new(me: i32, session: Duration) -> Self {
        Self { me, session, heard: BTreeMap::new(), news: Arc::default() }
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
        let last = self.heard.get(&broker);
        if last.is_some_and(|last| last.beat.incarnation > beat.incarnation) {
            return;
        }
        if last.map(|last| &last.beat) != Some(&beat) {
            self.news.notify_one();
        }
        let since = last.filter(|last| self.is_unbroken(last.at, now)).map_or(now, |last| last.since);
        let joined = last.filter(|last| last.beat.incarnation == beat.incarnation).map_or(now, |last| last.joined);
        self.heard.insert(broker, Heard { at: now, since, joined, beat });
    }

    fn is_unbroken(&self, last: Duration, now: Duration) -> bool {
        now.saturating_sub(last) < self.session / 2
    }

    /// Since when a third broker proves that `broker` would have been heard, if one does.
    fn listening(&self, broker: i32, now: Duration) -> Option<Duration> {
        let others =
            self.heard.iter().filter(|(id, heard)| ![self.me, broker].contains(id) && self.is_unbroken(heard.at, now));
        others.map(|(_, heard)| heard.since).min()
    }

    /// What is to become of a registration, for one that acts since `acting`.
    pub fn fencing(&self, spec: &BrokerSpec, acting: Duration, now: Duration) -> Fencing {
        let last = self.last(spec).map(|last| last.at);
        let alive = last.is_some_and(|at| now.saturating_sub(at) < self.session);
        let silent_since = last.map_or(acting, |at| {
            let listening = self.listening(spec.id, now).unwrap_or(Duration::MAX);
            at.max(acting.min(listening))
        });
        let silent = now.saturating_sub(silent_since) >= self.session;
        match spec.fenced {
            true if alive => Fencing::Unfence,
            false if !alive && silent => Fencing::Fence,
            _ => Fencing::Right,
        }
    }

    /// How long nothing has been heard of a broker, in whatever session, by one that acts since `acting`.
    pub fn silence(&self, broker: i32, acting: Duration, now: Duration) -> Duration {
        let last = self.heard.get(&broker).map(|last| last.at).unwrap_or_default();
        now.saturating_sub(last.max(acting))
    }

    /// The registered brokers with what was heard of them.
    pub fn members<'a>(&self, registered: impl Iterator<Item = &'a BrokerSpec>, now: Duration) -> Members {
        let member = |spec: &BrokerSpec| {
            let mut member = Member::registered(spec);
            if let Some(Heard { joined, beat, .. }) = self.last(spec) {
                member.settled = now.saturating_sub(*joined) >= SETTLED;
                member.stopping = beat.stopping;
                member.faults.clone_from(&beat.faults);
                member.damaged.clone_from(&beat.damaged);
                member.recovered.clone_from(&beat.recovered);
                member.proposals.clone_from(&beat.proposals);
                member.ends.clone_from(&beat.ends);
            }
            (spec.id, member)
        };
        registered.map(member).collect()
    }

    /// Of which partitions living brokers have seen later states than the metadata shows, with the highest partition epochs. In
    /// whatever session: metadata that went back in time may not know the present ones.
    pub fn seen(&self, now: Duration) -> Epochs {
        let alive = self.heard.values().filter(|heard| now.saturating_sub(heard.at) < self.session);
        highest(alive.flat_map(|heard| &heard.beat.seen).map(|(partition, epoch)| (*partition, *epoch)))
    }

    /// Of the registered session only: an earlier one is over.
    fn last(&self, spec: &BrokerSpec) -> Option<&Heard> {
        self.heard.get(&spec.id).filter(|last| last.beat.incarnation == spec.incarnation)
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
        let mut liveness = Liveness::new(0, secs(6));
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
        let liveness = Liveness::new(0, secs(6));
        assert_eq!(liveness.fencing(&registered(false), secs(50), secs(55)), Fencing::Right);
        assert_eq!(liveness.fencing(&registered(false), secs(50), secs(56)), Fencing::Fence);
    }

    /// What broker 0 heard of broker 1 until 100 s, of itself all the time, and of broker 2 at `beats`.
    fn heard(beats: &[u64]) -> Liveness {
        let mut liveness = Liveness::new(0, secs(6));
        for now in 90..=110 {
            if now <= 100 {
                liveness.hear(1, beat(5), secs(now));
            }
            if beats.contains(&now) {
                liveness.hear(2, beat(3), secs(now));
            }
            liveness.hear(0, beat(1), secs(now));
        }
        liveness
    }

    #[test]
    fn a_new_controller_that_heard_a_third_broker_all_the_while_counts_silence_from_the_last_word() {
        let all: Vec<u64> = (90..=110).collect();
        let of = |liveness: &Liveness, now| liveness.fencing(&registered(false), secs(105), secs(now));
        assert_eq!(of(&heard(&all), 106), Fencing::Fence);
        let deaf_until = |end: u64| all.iter().copied().filter(|beat| *beat >= end).collect::<Vec<_>>();
        assert_eq!(of(&heard(&deaf_until(103)), 108), Fencing::Right, "it may have been deaf until 103");
        assert_eq!(of(&heard(&deaf_until(103)), 109), Fencing::Fence);
        let gap: Vec<u64> = all.iter().copied().filter(|beat| !(100..104).contains(beat)).collect();
        assert_eq!(of(&heard(&gap), 109), Fencing::Right, "a pause of all");
        assert_eq!(of(&heard(&[]), 110), Fencing::Right, "nobody else was heard: from when it began to act");
        assert_eq!(of(&heard(&[]), 111), Fencing::Fence);
        let fell_silent: Vec<u64> = (90..=104).collect();
        assert_eq!(of(&heard(&fell_silent), 108), Fencing::Right, "the third is silent now as well");
    }

    #[test]
    fn a_session_that_was_never_heard_is_given_one_from_when_the_controller_began() {
        let mut liveness = heard(&(90..=110).collect::<Vec<_>>());
        liveness.heard.remove(&1);
        assert_eq!(liveness.fencing(&registered(false), secs(105), secs(110)), Fencing::Right);
        assert_eq!(liveness.fencing(&registered(false), secs(105), secs(111)), Fencing::Fence);
    }

    #[test]
    fn a_session_is_settled_when_names_lead_to_it_everywhere() {
        let mut liveness = Liveness::new(0, secs(6));
        let settled = |liveness: &Liveness, now| {
            let registered = registered(false);
            liveness.members(std::iter::once(&registered), secs(now))[&1].settled
        };
        for (incarnation, heard, now, expected, why) in [
            (4, 100, 200, false, "an earlier session"),
            (5, 200, 229, false, "it has just come"),
            (5, 228, 230, true, "it was heard again meanwhile"),
            (5, 300, 300, true, "it was silent: its address is the same"),
        ] {
            liveness.hear(1, beat(incarnation), secs(heard));
            assert_eq!(settled(&liveness, now), expected, "{why}");
        }
    }

    #[test]
    fn m5_what_any_living_broker_has_seen_counts_in_whatever_session() {
        let mut liveness = Liveness::new(0, secs(6));
        let (a, b) = ((Uuid::from_u128(1), 0), (Uuid::from_u128(1), 1));
        liveness.hear(1, Beat { seen: [(a, 4), (b, 2)].into(), ..beat(5) }, secs(100));
        liveness.hear(2, Beat { seen: [(a, 3)].into(), ..beat(7) }, secs(103));
        assert_eq!(liveness.seen(secs(105)), Epochs::from([(a, 4), (b, 2)]));
        assert_eq!(liveness.seen(secs(106)), Epochs::from([(a, 3)]), "one that is gone for good holds up nobody");
        assert_eq!(liveness.seen(secs(109)), Epochs::new());
    }

    #[test]
    fn an_earlier_session_of_a_broker_says_nothing_of_this_one() {
        let mut liveness = Liveness::new(0, secs(6));
        liveness.hear(1, beat(4), secs(100));
        assert_eq!(liveness.fencing(&registered(true), secs(50), secs(101)), Fencing::Right);
        liveness.hear(1, beat(5), secs(101));
        liveness.hear(1, beat(4), secs(102));
        assert_eq!(liveness.fencing(&registered(true), secs(50), secs(103)), Fencing::Unfence);
    }
}
