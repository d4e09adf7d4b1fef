//! What goes wrong beside messages and calls, and the end of it.

use taffrail_broker::cluster::controller::moves::LOST;
use taffrail_broker::cluster::serving::has_recovered;
use taffrail_crds::slice::Replica;
use uuid::Uuid;

use super::counts::Seen;
use super::log::ReplicaLog;
use super::network::API;
use super::world::{Event, Micros, World};

/// In which everything must come to its end once a sufficient set of brokers is healed.
const PATIENCE: Micros = 90_000_000;
/// In which all replicas must have the same once nothing more is produced.
const PATIENCE_WITH_LOGS: Micros = 30_000_000;

impl World {
    pub(crate) fn fault(&mut self) {
        if !self.faulty {
            return;
        }
        if self.is_rewinding() {
            return self.schedule(1_000_000, Event::Fault);
        }
        let mean = self.options.fault_every;
        let after = self.millis(mean / 4, 2 * mean);
        self.schedule(after, Event::Fault);
        let broker = self.rng.index(self.nodes.len()) as i32;
        match self.rng.below(20) {
            0..=2 => self.dies(broker, false),
            3 | 4 => self.dies(broker, true),
            5 => self.all_die(),
            6 => self.stop(broker),
            7..=9 => self.pause(broker),
            10 => {
                self.counts.saw(Seen::SlowDisk);
                let until = self.now + self.millis(1_000, 12_000);
                self.nodes[broker as usize].slow_until = until;
            }
            11 | 12 => self.second_controller(broker),
            _ => self.cut(broker),
        }
    }

    fn dies(&mut self, broker: i32, power_is_lost: bool) {
        if self.nodes[broker as usize].process.is_none() || power_is_lost && !self.may_lose(broker) {
            return;
        }
        self.crash(broker, power_is_lost);
        if power_is_lost && self.rng.once_in(4) && self.may_lose_volume(broker) {
            self.counts.saw(Seen::VolumeLost);
            let id = Uuid::from_u128(u128::from(self.rng.next()));
            let disk = &mut self.nodes[broker as usize].disk;
            disk.volume = id;
            (disk.kept.incarnation, disk.kept.registered, disk.seen) = (0, 0, None);
            disk.logs.iter_mut().for_each(|log| *log = ReplicaLog::default());
        }
        let after = if self.rng.once_in(4) { self.millis(7_000, 15_000) } else { self.millis(50, 3_000) };
        self.schedule(after, Event::Start { broker });
    }

    /// Whether one more may lose records now (L4).
    fn may_lose(&self, broker: i32) -> bool {
        if !self.options.careful {
            return true;
        }
        (0..self.options.partitions as usize).all(|partition| {
            let state = self.store.partition(partition);
            // Who has lost records, and is not in sync since.
            let behind = |other: &i32| {
                let node = &self.nodes[*other as usize];
                let there = state.isr.iter().find(|replica| replica.broker == *other);
                node.disk.sound_from > 1 && there.is_none_or(|replica| !node.vouches(*replica))
            };
            let lost = state.replicas.iter().filter(|other| **other == broker || behind(other)).count();
            lost < self.options.min_in_sync_replicas as usize
        })
    }

    /// A lost volume is no shorter log but none: whoever is asked for its log's end must have one.
    fn may_lose_volume(&self, broker: i32) -> bool {
        (0..self.options.partitions as usize).all(|partition| {
            let state = self.store.partition(partition);
            let others = state.isr.iter().filter(|replica| replica.broker != broker);
            let whole = others.filter(|replica| self.nodes[replica.broker as usize].vouches(**replica));
            whole.count() >= self.options.min_in_sync_replicas as usize
        })
    }

    fn all_die(&mut self) {
        let power = !self.options.careful && self.rng.once_in(2);
        if power {
            self.counts.saw(Seen::PowerLossOfAll);
        }
        for broker in 0..self.options.brokers {
            if self.nodes[broker as usize].process.is_some() {
                self.crash(broker, power);
                let after = self.millis(50, 8_000);
                self.schedule(after, Event::Start { broker });
            }
        }
    }

    fn pause(&mut self, broker: i32) {
        if self.nodes[broker as usize].process.is_some() {
            self.counts.saw(Seen::Paused);
            let until = self.now + self.millis(100, 14_000);
            self.nodes[broker as usize].paused_until = until;
        }
    }

    fn second_controller(&mut self, broker: i32) {
        let free = self.nodes[broker as usize].at_work().is_some_and(|process| process.control.is_none());
        if !free {
            return;
        }
        self.counts.saw(Seen::SecondController);
        self.act(broker);
        let until = self.now + self.millis(2_000, 20_000);
        if let Some(control) = self.process(broker).and_then(|process| process.control.as_mut()) {
            control.until = until;
        }
    }

    fn cut(&mut self, broker: i32) {
        let other = (broker + 1 + self.rng.index(self.nodes.len() - 1) as i32) % self.options.brokers;
        let all: Vec<i32> = (API..self.options.brokers).filter(|it| *it != broker).collect();
        let (seen, ways): (_, Vec<(i32, i32)>) = match self.rng.below(6) {
            0 => (Seen::CutPair, vec![(broker, other), (other, broker)]),
            1 => (Seen::CutOneWay, vec![(broker, other)]),
            2 => (Seen::CutBroker, all.iter().flat_map(|it| [(broker, *it), (*it, broker)]).collect()),
            3 => (Seen::CutOneWay, all.iter().map(|it| (broker, *it)).collect()),
            4 => {
                // Each reaches its neighbours only.
                let far = |one: i32, two: i32| (one - two).abs() > 1;
                let pairs = all.iter().chain([&broker]).flat_map(|one| all.iter().map(move |two| (*one, *two)));
                (Seen::CutChain, pairs.filter(|(one, two)| *one >= 0 && *two >= 0 && far(*one, *two)).collect())
            }
            _ => (Seen::CutApi, vec![(broker, API), (API, broker)]),
        };
        self.counts.saw(seen);
        let cut = self.network.cut(ways);
        let after = self.millis(500, 15_000);
        self.schedule(after, Event::Mend { cut });
    }

    /// Heals a set of brokers that suffices, for good; the rest stays broken. Then everything must end well.
    pub(crate) fn heal(&mut self) {
        (self.faulty, self.refuses_until) = (false, 0);
        self.network.mend_all();
        let broken = self.rng.once_in(2).then(|| self.dispensable()).flatten();
        for broker in 0..self.options.brokers {
            let node = &mut self.nodes[broker as usize];
            node.slow_until = 0;
            node.paused_until = node.paused_until.min(self.now);
            if Some(broker) != broken {
                self.schedule(1_000, Event::Start { broker });
            }
        }
        if let Some(broker) = broken {
            self.break_for_good(broker);
        }
        let done: Vec<u64> = self.producers.iter().map(|producer| producer.done).collect();
        let until = self.now + self.patience(PATIENCE + self.patience_with_moves());
        while self.now < until && !(self.is_well(broken) && self.have_gone_on(&done)) {
            self.run(self.now + 1_000_000);
        }
        self.check_end(broken, &done);
    }

    /// Replicas may be on their way to a broker that stays broken, for so long that is waited for; or may begin to move there as
    /// long as nobody has noticed.
    fn patience_with_moves(&self) -> Micros {
        if self.options.moves { LOST.as_micros() as Micros } else { 0 }
    }

    /// A broker without which all partitions can have a leader and enough in sync.
    fn dispensable(&mut self) -> Option<i32> {
        let first = self.rng.index(self.nodes.len()) as i32;
        let count = self.options.brokers;
        (0..count).map(|step| (first + step) % count).find(|broker| {
            let staying = (0..self.store.cluster().replicas).filter(|other| other != broker).count();
            let replaceable = !self.options.moves || staying >= self.options.replication_factor as usize;
            replaceable && (0..self.options.partitions as usize).all(|partition| self.does_without(*broker, partition))
        })
    }

    fn does_without(&self, broker: i32, partition: usize) -> bool {
        let state = self.store.partition(partition);
        // Where it goes and need not, it may stay after all, as nobody wants the move any more; then its heir leaves.
        let mut moves = state.removing.iter().zip(&state.adding);
        let may_stay = broker < self.store.cluster().replicas;
        let heir = moves.find(|(from, _)| may_stay && **from == broker).map(|(_, to)| *to);
        // Those that go cannot before enough of the others are in sync.
        let stays = |it: &&i32| **it != broker && Some(**it) != heir && !state.removing.contains(it);
        let others = state.replicas.iter().filter(stays).count();
        // One that is about to stop gives away what it has, maybe to this one, or to others that are not yet known to have lost
        // theirs.
        let keeps = |it: &Replica| {
            let node = &self.nodes[it.broker as usize];
            let stops = node.process.as_ref().is_some_and(|process| process.stopping);
            it.broker != broker && node.vouches(*it) && !stops
        };
        let is_kept = state.isr.iter().chain(&state.elr).any(keeps);
        // One that has lost what it had counts as in sync until that is known. Where it is enough together with this one, those that
        // are whole may be left behind before.
        let has_lost = |it: &&Replica| it.broker != broker && !self.nodes[it.broker as usize].vouches(**it);
        let lost = state.isr.iter().filter(has_lost).count();
        let in_sync = lost + usize::from(state.isr.iter().any(|it| it.broker == broker));
        let is_left_behind = lost > 0 && in_sync >= state.min_in_sync_replicas as usize;
        let is_kept = is_kept && !is_left_behind;
        // It may be left alone with what is acknowledged, if one is enough to acknowledge: also where it is about to be in sync,
        // and the leader has died since it asked for that.
        let asked = self.asked.get(&partition).filter(|asked| asked.partition_epoch == state.partition_epoch);
        let asked = asked.into_iter().flat_map(|asked| &asked.isr);
        let is_known = state.isr.iter().chain(&state.elr).chain(asked).any(|it| it.broker == broker);
        let alone = state.min_in_sync_replicas == 1 && is_known;
        !state.replicas.contains(&broker) || !alone && others >= state.min_in_sync_replicas as usize && is_kept
    }

    fn break_for_good(&mut self, broker: i32) {
        self.counts.saw(Seen::LeftBroken);
        let all: Vec<i32> = (API..self.options.brokers).filter(|it| *it != broker).collect();
        match self.rng.below(3) {
            0 => {
                if self.nodes[broker as usize].process.is_some() {
                    self.crash(broker, false);
                }
                self.nodes[broker as usize].broken = true;
            }
            1 => {
                self.network.cut(all.iter().map(|it| (broker, *it)));
            }
            _ => {
                self.network.cut(all.iter().flat_map(|it| [(broker, *it), (*it, broker)]));
            }
        }
    }

    fn have_gone_on(&self, done: &[u64]) -> bool {
        self.producers.iter().zip(done).all(|(producer, before)| producer.done > before + 5)
    }

    /// All replicas of healed brokers are in sync and have what the leader has, as good as all.
    fn is_well(&self, broken: Option<i32>) -> bool {
        (0..self.options.partitions as usize).all(|partition| {
            let state = self.store.partition(partition);
            let healed = state.replicas.iter().filter(|broker| Some(**broker) != broken);
            let all_in = healed.clone().all(|broker| state.isr.contains(&self.replica(*broker)));
            // One that is left alone with its log does not say that it has found it.
            let recovered = !state.recovering || !has_recovered(state) && healed.count() < state.replicas.len();
            all_in && state.leader.is_some() && recovered && state.elr.is_empty() && self.has_moved(state)
        })
    }

    fn check_end(&mut self, broken: Option<i32>, done: &[u64]) {
        let options = self.options.clone();
        let partitions = &self.store.slice().partitions;
        assert!(self.is_well(broken), "liveness: not in sync, {broken:?} broken: {partitions:?}");
        assert!(self.have_gone_on(done), "liveness: a producer does not go on, {broken:?} is broken");
        // Nothing more is produced; what is there gets to all.
        let until = self.now + self.patience(PATIENCE_WITH_LOGS + self.patience_with_moves());
        // Who is not in sync may have as much by chance, and other records.
        let quiet = |world: &Self| {
            let same = (0..options.partitions as usize).all(|partition| {
                let state = world.store.partition(partition);
                let healed: Vec<i32> = state.replicas.iter().copied().filter(|it| Some(*it) != broken).collect();
                let end = |broker: &i32| world.nodes[*broker as usize].disk.logs[partition].written_end;
                healed.windows(2).all(|two| end(&two[0]) == end(&two[1]))
                    && world.histories[partition].end() >= healed.iter().map(end).max().unwrap_or(0)
            });
            same && world.is_well(broken)
        };
        self.closing = true;
        while self.now < until && !(self.producers.iter().all(|producer| producer.open() == 0) && quiet(self)) {
            self.run(self.now + 500_000);
        }
        assert!(self.producers.iter().all(|producer| producer.open() == 0), "liveness: a batch does not end");
        assert!(quiet(self), "liveness: logs of healed brokers are not the same");
        for partition in 0..options.partitions as usize {
            for broker in self.store.partition(partition).replicas.clone() {
                if Some(broker) != broken {
                    let log = &self.nodes[broker as usize].disk.logs[partition];
                    self.histories[partition].check_final(log, &format!("broker {broker}"));
                }
            }
        }
    }
}
