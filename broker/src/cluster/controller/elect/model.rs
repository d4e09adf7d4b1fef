//! The controller's decisions together with leaders and followers as plain as they can be: whoever leads without `recovering`
//! has every committed record.
//!
//! A log is a list of records with the epochs under which they were appended. A leader commits what its maximal ISR has
//! written. Everybody acts by the slice as it has last seen it, so that any of them can be late.

use std::collections::BTreeMap;

use proptest::prelude::*;

use super::super::members::tests::members;
use super::super::members::{LogEnd, can_take};
use super::super::place::{Load, Room};
use super::super::replicas::adapt;
use super::super::slices::Wanted;
use super::super::slices::tests::{spread, wanted};
use super::*;
use crate::cluster::serving::begins_anew;
use crate::replication::Proposal;

const BROKERS: i32 = 4;

/// Epoch and identity.
type Record = (i32, u32);

#[derive(Clone, Debug)]
enum Step {
    /// Everybody who is up is heard and hears, followers have what leaders have, and that is committed.
    Calm,
    Append(i32),
    See(i32),
    Fetch(i32),
    Commit(i32),
    Propose(i32, i32),
    Tell(i32),
    Crash(i32, Down),
    Start(i32),
    Fence(i32),
    Unfence(i32),
    Stopping(i32),
    /// Some of its log cannot be read any more: it says so, and begins anew when it may.
    Damage(i32),
    Found(i32),
    Settle(bool),
    Ask(i32, i32),
}

fn step() -> impl Strategy<Value = Step> {
    let broker = || 0..BROKERS;
    prop_oneof![
        8 => Just(Step::Calm),
        6 => broker().prop_map(Step::Append),
        8 => broker().prop_map(Step::See),
        10 => broker().prop_map(Step::Fetch),
        8 => broker().prop_map(Step::Commit),
        8 => (broker(), broker()).prop_map(|(leader, other)| Step::Propose(leader, other)),
        6 => broker().prop_map(Step::Tell),
        1 => broker().prop_map(|broker| Step::Crash(broker, Down::Whole)),
        1 => (broker(), 0..3usize).prop_map(|(broker, lost)| Step::Crash(broker, Down::Lost(lost))),
        3 => broker().prop_map(Step::Start),
        2 => broker().prop_map(Step::Fence),
        4 => broker().prop_map(Step::Unfence),
        1 => broker().prop_map(Step::Stopping),
        2 => broker().prop_map(Step::Damage),
        1 => broker().prop_map(Step::Found),
        14 => prop::bool::weighted(0.1).prop_map(Step::Settle),
        1 => (1..=BROKERS, 1..3).prop_map(|(factor, min_in_sync)| Step::Ask(factor, min_in_sync)),
    ]
}

/// What is wrong with a world, so that the model can be seen to notice it.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Flaw {
    None,
    /// Leaders commit by the in-sync replicas of the slice alone, not by those they have asked for (I2).
    OnlyTheSlice,
    /// A damaged replica begins anew in the epoch in which its leader has heard what it had (D5, H1).
    AnewInTheSameEpoch,
    /// Volumes that lost records say that they did not (L5).
    NoticelessLoss,
}

/// How a broker stopped.
#[derive(Clone, Copy, Debug)]
enum Down {
    /// Its log is as it was.
    Whole,
    /// With its machine it has lost so many of its last records, or none and cannot prove it.
    Lost(usize),
}

#[derive(Clone, Debug)]
struct Broker {
    log: Vec<Record>,
    seen: PartitionState,
    term: Option<Term>,
    down: Option<Down>,
    /// Under which leader epoch it led or followed last with a damaged log.
    damaged: Option<i32>,
}

#[derive(Clone, Debug)]
struct Term {
    epoch: i32,
    begin: usize,
    high_watermark: usize,
    written: BTreeMap<(i32, i64), usize>,
    proposal: Option<Proposal>,
}

struct World {
    flaw: Flaw,
    members: Members,
    brokers: Vec<Broker>,
    slice: PartitionState,
    asked: (i32, i32),
    committed: Vec<Record>,
    appended: u32,
}

impl World {
    fn new(flaw: Flaw) -> Self {
        let wanted = Wanted { replication_factor: 3, min_in_sync_replicas: 2, ..wanted(1) };
        let slice = spread(&wanted).remove(0).partitions.remove(0);
        let broker = Broker { log: vec![], seen: slice.clone(), term: None, down: None, damaged: None };
        let brokers = vec![broker; BROKERS as usize];
        Self { flaw, members: members(BROKERS), brokers, slice, asked: (3, 2), committed: vec![], appended: 0 }
    }

    fn take(&mut self, step: &Step) -> Result<(), String> {
        match *step {
            Step::Calm => return self.calm(),
            Step::Append(broker) => self.append(broker),
            Step::See(broker) => return self.see(broker),
            Step::Fetch(broker) => self.fetch(broker),
            Step::Commit(broker) => return self.commit(broker),
            Step::Propose(leader, other) => self.propose(leader, other),
            Step::Tell(broker) => self.tell(broker),
            Step::Crash(broker, how) => {
                let broker = self.broker(broker);
                (broker.term, broker.down) = (None, broker.down.or(Some(how)));
            }
            Step::Start(broker) => self.start(broker),
            Step::Fence(broker) => self.member(broker).fenced = true,
            Step::Unfence(broker) if self.broker(broker).down.is_none() => self.member(broker).fenced = false,
            Step::Unfence(_) => {}
            Step::Stopping(broker) => self.member(broker).stopping = true,
            Step::Damage(broker) => {
                let broker = self.broker(broker);
                broker.damaged = broker.down.is_none().then_some(broker.seen.leader_epoch);
            }
            Step::Found(broker) => {
                if let Some(epoch) = self.broker(broker).term.as_ref().map(|term| term.epoch) {
                    self.member(broker).recovered.insert((wanted(1).id, 0), epoch);
                }
            }
            Step::Settle(balance) => self.settle(balance),
            Step::Ask(factor, min_in_sync) => self.asked = (factor, min_in_sync.min(factor)),
        }
        Ok(())
    }

    fn broker(&mut self, broker: i32) -> &mut Broker {
        &mut self.brokers[broker as usize]
    }

    fn member(&mut self, broker: i32) -> &mut Member {
        self.members.get_mut(&broker).unwrap()
    }

    fn session(&self, broker: i32) -> Replica {
        Replica { broker, incarnation: self.members[&broker].incarnation }
    }

    fn calm(&mut self) -> Result<(), String> {
        (0..BROKERS).for_each(|broker| self.tell(broker));
        self.settle(false);
        for broker in 0..BROKERS {
            self.see(broker)?;
        }
        (0..BROKERS).for_each(|broker| self.fetch(broker));
        (0..BROKERS).try_for_each(|broker| self.commit(broker))
    }

    fn append(&mut self, broker: i32) {
        self.appended += 1;
        let record = self.appended;
        let broker = self.broker(broker);
        if let Some(term) = &broker.term {
            broker.log.push((term.epoch, record));
        }
    }

    /// The broker sees the slice as it is and leads, or leads no more (M7). Here it is seen whether it may.
    fn see(&mut self, id: i32) -> Result<(), String> {
        let (slice, me, flaw) = (self.slice.clone(), self.session(id), self.flaw);
        let broker = self.broker(id);
        if broker.down.is_some() {
            return Ok(());
        }
        broker.seen = slice.clone();
        let under = broker.damaged.map(|under| if flaw == Flaw::AnewInTheSameEpoch { -1 } else { under });
        if begins_anew(&slice, id, under) {
            broker.log.clear();
            broker.damaged = None;
        }
        // While nobody leads it is as it was.
        if slice.leader.is_some() {
            broker.damaged = broker.damaged.map(|_| slice.leader_epoch);
        }
        if leadership(&slice) != Some(me) {
            broker.term = None;
            return Ok(());
        }
        match &mut broker.term {
            Some(term) if term.epoch == slice.leader_epoch => {
                term.proposal = term.proposal.take().filter(|asked| asked.partition_epoch == slice.partition_epoch);
                return Ok(());
            }
            term => {
                let (epoch, begin) = (slice.leader_epoch, broker.log.len());
                *term = Some(Term { epoch, begin, high_watermark: 0, written: BTreeMap::new(), proposal: None });
            }
        }
        let log = self.broker(id).log.clone();
        if slice.recovering {
            let common = common(&self.committed, &log);
            self.committed.truncate(common);
            return Ok(());
        }
        if log.starts_with(&self.committed) {
            Ok(())
        } else {
            Err(format!("{id} leads with {log:?} and lacks of {:?}: {slice:?}", self.committed))
        }
    }

    /// The broker makes its log that of the leader whom it knows of.
    fn fetch(&mut self, id: i32) {
        let (me, follower) = (self.session(id), self.broker(id).clone());
        let Some(leader) = follower.seen.leader.filter(|leader| *leader != id && follower.down.is_none()) else {
            return;
        };
        if !follower.seen.replicas.contains(&id) {
            return;
        }
        let source = self.broker(leader);
        let log = source.log.clone();
        let Some(term) = source.term.as_mut().filter(|term| term.epoch == follower.seen.leader_epoch) else { return };
        term.written.insert((id, me.incarnation), log.len());
        self.broker(id).log = log;
    }

    fn commit(&mut self, id: i32) -> Result<(), String> {
        let (flaw, me) = (self.flaw, self.session(id));
        let Broker { log, seen, term, .. } = self.broker(id);
        let Some(term) = term else { return Ok(()) };
        if seen.isr.len() < seen.min_in_sync_replicas as usize {
            return Ok(());
        }
        let asked = term.proposal.iter().flat_map(|asked| &asked.isr).filter(|_| flaw != Flaw::OnlyTheSlice);
        let written = |replica: &Replica| {
            let of = term.written.get(&(replica.broker, replica.incarnation)).copied().unwrap_or(0);
            if *replica == me { log.len() } else { of }
        };
        let all = seen.isr.iter().chain(asked).map(written).min().unwrap_or(0);
        term.high_watermark = term.high_watermark.max(all);
        let committed = log[..term.high_watermark].to_vec();
        if committed.len() > self.committed.len() {
            if !committed.starts_with(&self.committed) {
                return Err(format!("{id} commits {committed:?} against {:?}", self.committed));
            }
            self.committed = committed;
        }
        Ok(())
    }

    /// The leader asks for another replica, if it has caught up (I3), or not to wait for one any more.
    fn propose(&mut self, id: i32, other: i32) {
        let Broker { seen, term, .. } = self.broker(id);
        let Some(term) = term.as_mut().filter(|term| term.proposal.is_none() && other != id) else { return };
        let mut isr = seen.isr.clone();
        if isr.iter().any(|replica| replica.broker == other) {
            isr.retain(|replica| replica.broker != other);
        } else {
            let (first, last) = ((other, 0), (other, i64::MAX));
            let Some((session, written)) = term.written.range(first..=last).next_back() else { return };
            if *written < term.high_watermark.max(term.begin) {
                return;
            }
            isr.push(Replica { broker: other, incarnation: session.1 });
        }
        let (leader_epoch, partition_epoch) = (term.epoch, seen.partition_epoch);
        term.proposal = Some(Proposal { leader_epoch, partition_epoch, isr });
    }

    /// What those that may be controller have heard of a broker last.
    fn tell(&mut self, id: i32) {
        let Broker { log, seen, term, down, damaged } = self.broker(id).clone();
        if down.is_some() {
            return;
        }
        let key = (wanted(1).id, 0);
        let (leader_epoch, epoch) = (seen.leader_epoch, log.last().map_or(-1, |(epoch, _)| *epoch));
        let end = LogEnd { leader_epoch, epoch, end: log.len() as i64 };
        let is_asked = seen.leader.is_none() && seen.last_known_elr.iter().any(|known| known.broker == id);
        let proposal = term.and_then(|term| term.proposal);
        let member = self.member(id);
        member.damaged = damaged.map(|under| (key, under)).into_iter().collect();
        member.proposals = proposal.map(|proposal| (key, proposal)).into_iter().collect();
        member.ends = is_asked.then_some((key, end)).into_iter().collect();
    }

    /// A new session, with what is left of the log.
    fn start(&mut self, id: i32) {
        let flaw = self.flaw;
        let broker = self.broker(id);
        let Some(down) = broker.down.take() else { return };
        broker.damaged = None;
        if let Down::Lost(records) = down {
            broker.log.truncate(broker.log.len().saturating_sub(records));
        }
        let member = self.member(id);
        let before = member.continues.unwrap_or(member.incarnation);
        member.continues = (matches!(down, Down::Whole) || flaw == Flaw::NoticelessLoss).then_some(before);
        (member.incarnation, member.fenced, member.stopping) = (member.incarnation + 100, true, false);
        member.proposals.clear();
        member.ends.clear();
        member.damaged.clear();
        member.recovered.clear();
    }

    fn settle(&mut self, balance: bool) {
        let topic = wanted(1).id;
        if let Some(next) = settle(topic, &self.slice, &self.members, balance) {
            self.slice = next;
        }
        let (factor, min_in_sync) = self.asked;
        let wanted = Wanted { replication_factor: factor, min_in_sync_replicas: min_in_sync, ..wanted(1) };
        let takers = self.members.values().filter(|member| can_take(member)).collect();
        let mut room = Room::new(&self.members, takers, Load::default());
        if let Some(next) = adapt(&self.slice, &wanted, &mut Load::default(), &mut room) {
            self.slice = next;
        }
    }
}

fn common(one: &[Record], other: &[Record]) -> usize {
    one.iter().zip(other).take_while(|(one, other)| one == other).count()
}

fn run(flaw: Flaw, steps: &[Step]) -> Result<(), String> {
    let mut world = World::new(flaw);
    steps.iter().try_for_each(|step| world.take(step))
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(4_000))]
    #[test]
    fn l4_whoever_leads_without_recovering_has_every_committed_record(
        steps in proptest::collection::vec(step(), 1..150),
    ) {
        prop_assert_eq!(run(Flaw::None, &steps), Ok(()));
    }
}

#[test]
fn the_model_notices_what_is_wrong() {
    // 1 leaves and is to come back; meanwhile 0 commits a record that 1 has not, and 1 leads.
    let only_the_slice = [
        [Step::Calm, Step::Propose(0, 1), Step::Calm, Step::Propose(0, 1), Step::Tell(0), Step::Settle(false)],
        [Step::Append(0), Step::Fetch(2), Step::Commit(0), Step::Fence(0), Step::Settle(false), Step::See(1)],
    ];
    // 1 loses a committed record and leads as if it had not.
    let noticeless_loss = [
        [Step::Calm, Step::Append(0), Step::Calm, Step::Crash(1, Down::Lost(1)), Step::Start(1), Step::Unfence(1)],
        [Step::Settle(false), Step::Fence(0), Step::Settle(false), Step::See(1), Step::See(2), Step::Calm],
    ];
    // 1 begins anew as soon as it is not in sync; 0 has asked to have it back for what it had, and 1 leads.
    let anew_in_the_same_epoch = [
        [Step::Calm, Step::Append(0), Step::Calm, Step::Damage(1), Step::Propose(0, 1), Step::Tell(0)],
        [Step::Settle(false), Step::See(0), Step::Propose(0, 1), Step::See(1), Step::Tell(0), Step::Settle(false)],
        [Step::Fence(0), Step::Settle(false), Step::See(1), Step::See(2), Step::Calm, Step::Calm],
    ];
    for (flaw, steps) in [
        (Flaw::OnlyTheSlice, only_the_slice.as_flattened()),
        (Flaw::NoticelessLoss, noticeless_loss.as_flattened()),
        (Flaw::AnewInTheSameEpoch, anew_in_the_same_epoch.as_flattened()),
    ] {
        assert!(run(flaw, steps).is_err(), "{flaw:?}");
        assert_eq!(run(Flaw::None, steps), Ok(()), "{flaw:?}");
    }
}
