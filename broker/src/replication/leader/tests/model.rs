//! A leader among followers, and a controller, at random, with what is really there known to the test.

use proptest::prelude::*;

use super::*;

const BROKERS: i32 = 4;

#[derive(Clone, Copy, Debug)]
enum Step {
    /// The leader writes so many records.
    Append(i64),
    /// A follower writes so many of what it lacks.
    Replicate(i32, i64),
    /// And says so.
    Report(i32),
    /// What it said in an earlier session arrives late.
    Late(usize),
    /// Milliseconds pass.
    Wait(u64),
    /// The controller takes up what is asked for; what it cannot apply it refuses.
    Settle,
    /// The controller refuses whatever is asked for.
    Refuse,
    /// The controller removes a dead replica.
    Remove(i32),
    /// A follower begins another session; one that has only so many records left is out of sync.
    Restart(i32, Option<i64>),
    /// The leader sees the slice.
    See,
}

fn step() -> impl Strategy<Value = Step> {
    let follower = 1..BROKERS;
    prop_oneof![
        4 => (1i64..20).prop_map(Step::Append),
        6 => (follower.clone(), 1i64..40).prop_map(|(broker, records)| Step::Replicate(broker, records)),
        8 => follower.clone().prop_map(Step::Report),
        2 => (0usize..20).prop_map(Step::Late),
        3 => (1u64..6_000).prop_map(Step::Wait),
        4 => Just(Step::Settle),
        1 => Just(Step::Refuse),
        1 => follower.clone().prop_map(Step::Remove),
        1 => (follower, prop::option::of(0i64..100)).prop_map(|(broker, left)| Step::Restart(broker, left)),
        5 => Just(Step::See),
    ]
}

struct World {
    leader: Leader,
    now: Duration,
    log_end: i64,
    /// By broker: its session, and what it has.
    followers: Vec<(Replica, i64)>,
    said: Vec<(Replica, i64)>,
    slice: View,
    /// All that was asked for at the leader's present partition epoch.
    asked: Vec<Proposal>,
}

impl World {
    fn new(isr: &[i32], min_in_sync_replicas: i32) -> Self {
        let replicas = (0..BROKERS).collect();
        let slice = View { replicas, ..view(isr, min_in_sync_replicas) };
        let leader = Leader::new(slice.clone(), 40, Extent { start: 0, end: 100 }, at(0));
        // Whoever is in sync has at least what is known to be committed; the leader is one of them.
        let followers = (0..BROKERS).map(|broker| (replica(broker), if isr.contains(&broker) { 40 } else { 0 }));
        let (followers, now) = (followers.collect(), at(0));
        Self { leader, now, log_end: 100, followers, said: vec![], slice, asked: vec![] }
    }

    fn take(&mut self, step: Step) {
        let now = self.now;
        match step {
            Step::Append(records) => {
                self.log_end += records;
                self.leader.written(self.log_end, now);
            }
            Step::Replicate(broker, records) => {
                let (_, written) = &mut self.followers[broker as usize];
                *written = (*written + records).min(self.log_end);
            }
            Step::Report(broker) => {
                let (by, written) = self.followers[broker as usize];
                self.said.push((by, written));
                self.leader.fetched(by, written, now);
            }
            Step::Late(back) => {
                let late = self.said.len().checked_sub(back + 1).map(|at| self.said[at]);
                if let Some((by, written)) = late.filter(|(by, _)| self.followers[by.broker as usize].0 != *by) {
                    self.leader.fetched(by, written, now);
                }
            }
            Step::Wait(millis) => {
                self.now += at(millis);
                self.leader.tick(self.now);
            }
            Step::Settle => self.settle(),
            Step::Refuse => self.slice.partition_epoch += 1,
            Step::Remove(broker) => self.remove(broker),
            Step::Restart(broker, left) => self.restart(broker, left),
            Step::See => {
                self.leader.adopt(self.slice.clone(), now);
                self.asked.retain(|asked| asked.partition_epoch == self.leader.view().partition_epoch);
            }
        }
    }

    fn settle(&mut self) {
        let Some(proposal) = self.leader.proposal() else { return };
        if proposal.partition_epoch != self.slice.partition_epoch {
            return;
        }
        let present = |replica: &Replica| self.followers[replica.broker as usize].0 == *replica;
        if proposal.isr.iter().all(present) {
            self.slice.isr.clone_from(&proposal.isr);
        }
        self.slice.partition_epoch += 1;
    }

    fn remove(&mut self, broker: i32) {
        self.slice.isr.retain(|replica| replica.broker != broker);
        self.slice.partition_epoch += 1;
    }

    fn restart(&mut self, broker: i32, left: Option<i64>) {
        let (session, written) = &mut self.followers[broker as usize];
        session.incarnation += 10;
        let session = *session;
        if let Some(left) = left {
            *written = left.min(*written);
            return self.remove(broker);
        }
        for replica in self.slice.isr.iter_mut().filter(|replica| replica.broker == broker) {
            *replica = session;
        }
        self.slice.partition_epoch += 1;
    }

    fn check(&mut self, before: i64) -> Result<(), TestCaseError> {
        let committed = self.leader.high_watermark();
        prop_assert!((before..=self.log_end).contains(&committed), "H1: from {before} to {committed}");
        let maximal: Vec<_> = self.leader.maximal_isr().collect();
        for replica in self.slice.isr.iter().chain(&maximal).filter(|replica| replica.broker != 0) {
            let (session, written) = self.followers[replica.broker as usize];
            prop_assert!(session != *replica || written >= committed, "H1: {replica:?} lacks what is committed");
        }
        let asked = self.leader.proposal().cloned();
        let new = asked.filter(|asked| !self.asked.contains(asked));
        self.asked.extend(new);
        prop_assert!(self.asked.len() <= 1, "I6: {:?}", self.asked);
        let may_be_in_sync = self.leader.view().isr.iter().chain(self.asked.iter().flat_map(|asked| &asked.isr));
        for replica in may_be_in_sync {
            prop_assert!(maximal.contains(replica), "I1, I2, I5: {replica:?} is missing");
        }
        for replica in &self.slice.isr {
            prop_assert!(maximal.iter().any(|r| r.broker == replica.broker), "I8: {replica:?} is missing");
        }
        Ok(())
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2_000, ..ProptestConfig::default() })]

    #[test]
    fn h1_i1_i2_i5_i6_whoever_may_be_in_sync_has_all_that_is_committed(
        isr in prop::sample::select(vec![vec![0], vec![0, 1], vec![0, 1, 2], vec![0, 1, 2, 3]]),
        min_in_sync in 1..4,
        steps in prop::collection::vec(step(), 1..150),
    ) {
        let mut world = World::new(&isr, min_in_sync);
        for step in steps {
            let before = world.leader.high_watermark();
            world.take(step);
            world.check(before)?;
        }
    }
}
