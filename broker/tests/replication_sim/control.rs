//! Controllers at work, around the real plan: as many at once as believe to be one.

use std::collections::{BTreeMap, VecDeque};
use std::rc::Rc;
use std::time::Duration;

use taffrail_broker::cluster::controller::plan::{Facts, plan};
use taffrail_crds::ClusterStateSpec;
use taffrail_crds::cluster_state::NextIds;
use taffrail_crds::id::Id;
use uuid::Uuid;

use super::counts::Seen;
use super::moving::wanted;
use super::network::API;
use super::process::{Purpose, TOPIC};
use super::store::{Answer, Request};
use super::world::{Event, Micros, World};

/// Time between rounds that nothing triggers.
const ROUND: Micros = 500_000;
/// How long a round waits for the watch to show what it wrote.
const CATCH_UP: Micros = 2_000_000;
/// How often leadership goes back to the preferred replicas.
const BALANCE: Micros = 15_000_000;

/// A broker that acts as controller.
pub(crate) struct Control {
    pub(crate) epoch: i32,
    since: Duration,
    /// It writes nothing that it begins later.
    pub(crate) until: Micros,
    /// The term of the real election by which it acts, where clocks differ.
    pub(crate) term: Option<u64>,
    balanced: Micros,
    writes: VecDeque<Request>,
    under_way: bool,
    /// It waits until its watches show at least this, and no longer than that.
    catch_up: Option<(usize, usize, Micros)>,
}

impl World {
    /// The holder of the Lease acts until it is away for a while; then another one does.
    pub(crate) fn look_at_lease(&mut self) {
        self.schedule(500_000, Event::Lease);
        let now = self.now;
        let (holder, away, _) = self.lease;
        let well = |world: &Self, broker: i32| {
            let node = &world.nodes[broker as usize];
            let reaches = !world.network.is_cut(broker, API) && !world.network.is_cut(API, broker);
            node.at_work().is_some_and(|process| !process.stopping) && node.paused_until <= world.now && reaches
        };
        if let Some(holder) = holder.filter(|holder| well(self, *holder)) {
            self.lease.1 = None;
            if self.nodes[holder as usize].process.as_ref().is_some_and(|process| process.control.is_none()) {
                self.act(holder);
            }
            let until = self.now + 5_000_000;
            if let Some(control) = self.process(holder).and_then(|process| process.control.as_mut()) {
                control.until = control.until.max(until);
            }
            return;
        }
        if holder.is_some() && away.is_none() {
            self.lease.1 = Some(now);
        }
        let free = holder.is_none() || self.lease.1.is_some_and(|away| now - away > 5_000_000);
        let able: Vec<i32> = (0..self.options.brokers).filter(|broker| well(self, *broker)).collect();
        if free && !able.is_empty() {
            let next = able[self.rng.index(able.len())];
            self.lease = (Some(next), None, self.lease.2);
            self.act(next);
        }
    }

    /// A broker begins to act as controller.
    pub(crate) fn act(&mut self, broker: i32) {
        self.lease.2 += 1;
        let (epoch, since, life, now) = (self.lease.2, self.clock(broker), self.life(broker), self.now);
        let Some(process) = self.process(broker) else { return };
        let (until, writes) = (now + 5_000_000, VecDeque::new());
        process.control =
            Some(Control { epoch, since, until, term: None, balanced: now, writes, under_way: false, catch_up: None });
        self.schedule(1_000, Event::Round { broker, life, epoch });
    }

    pub(crate) fn round(&mut self, broker: i32, epoch: i32) {
        let (now, life) = (self.now, self.life(broker));
        let Some(process) = self.process(broker) else { return };
        let Some(control) = process.control.as_mut().filter(|control| control.epoch == epoch) else { return };
        if control.until <= now {
            process.control = None;
            return;
        }
        self.schedule(ROUND, Event::Round { broker, life, epoch });
        self.plan(broker);
    }

    /// The watches show something new.
    pub(crate) fn control_sees(&mut self, broker: i32) {
        let now = self.now;
        let Some(process) = self.process(broker) else { return };
        if process.control.as_ref().is_some_and(|control| control.until > now) {
            self.plan(broker);
        }
    }

    fn plan(&mut self, broker: i32) {
        let (now, clock) = (self.now, self.clock(broker));
        let Some(process) = self.process(broker) else { return };
        let (slice, brokers, cluster) = (process.slice, process.brokers, process.cluster);
        let Some(control) = process.control.as_mut() else { return };
        let behind = control.catch_up.is_some_and(|(s, b, until)| (slice < s || brokers < b) && now < until);
        if control.under_way || behind {
            return;
        }
        control.catch_up = None;
        let balance = now - control.balanced > BALANCE;
        if balance {
            control.balanced = now;
        }
        let (epoch, acting) = (control.epoch, control.since);
        let (spec, registered) = (self.store.slices[slice].clone(), self.store.brokers[brokers].clone());
        let cluster = self.store.clusters[cluster];
        let (seen, wall_millis) = (self.ahead(broker), self.wall_millis(broker));
        if spec.controller_epoch > epoch {
            // It has been replaced: it may only be elected anew.
            if let Some(process) = self.process(broker) {
                process.control = None;
            }
            return;
        }
        let Some(process) = self.nodes[broker as usize].process.as_ref() else { return };
        let plan = plan(&Facts {
            cluster: "main",
            replicas: Some(cluster.replicas),
            state: &cluster_state(epoch),
            brokers: registered.values().map(|(_, spec)| spec).collect(),
            slices: [((TOPIC, 0), &*spec)].into(),
            topics: wanted(&self.options).into_iter().collect(),
            recoveries: BTreeMap::new(),
            seen,
            liveness: &process.liveness,
            balance,
            rebalance: cluster.rebalance,
            acting,
            now: clock,
            wall_millis,
            fresh_id: Uuid::from_u128(99),
        });
        assert!(plan.purge.is_empty(), "M9: data of a topic that nobody deletes is to go: {:?}", plan.purge);
        let mut writes = VecDeque::new();
        for next in plan.brokers {
            self.counts.saw(if next.fenced { Seen::Fenced } else { Seen::Unfenced });
            writes.push_back(Request::WriteBroker(registered[&next.id].0, Box::new(next)));
        }
        for mut next in plan.slices {
            self.plant_moves(&mut next);
            next.controller_epoch = epoch;
            next.operation_id += 1;
            writes.push_back(Request::WriteSlice(slice as u64, Rc::new(next)));
        }
        if let Some(control) = self.process(broker).and_then(|process| process.control.as_mut()) {
            control.writes = writes;
        }
        self.write_next(broker);
    }

    fn write_next(&mut self, broker: i32) {
        let now = self.now;
        let Some(control) = self.process(broker).and_then(|process| process.control.as_mut()) else { return };
        control.under_way = false;
        if control.until <= now {
            return;
        }
        let Some(request) = control.writes.pop_front() else { return };
        control.under_way = true;
        self.check_lease(broker);
        let call = self.call(broker, request.clone());
        self.await_answer(broker, call, Purpose::Plan(request));
    }

    /// What could not be written, or may not have been, is planned anew with what is seen then (M3).
    pub(crate) fn plan_written(&mut self, broker: i32, request: &Request, answer: &Answer) {
        let until = self.now + CATCH_UP;
        let Some(control) = self.process(broker).and_then(|process| process.control.as_mut()) else { return };
        if let Answer::Written(version) = answer {
            let (slice, brokers) = control.catch_up.map_or((0, 0), |(slice, brokers, _)| (slice, brokers));
            let version = *version as usize;
            let is_slice = matches!(request, Request::WriteSlice(..));
            let shown = if is_slice { (version, brokers) } else { (slice, version) };
            control.catch_up = Some((shown.0, shown.1, until));
        } else {
            control.writes.clear();
        }
        self.write_next(broker);
    }
}

fn cluster_state(epoch: i32) -> ClusterStateSpec {
    ClusterStateSpec {
        cluster_id: Id(Uuid::from_u128(1)),
        controller: None,
        controller_epoch: epoch,
        feature_level: 1,
        next_ids: NextIds { producer: 0, incarnation: 0, operation: 0 },
        internal_topics: Vec::new(),
        topics: BTreeMap::new(),
    }
}
