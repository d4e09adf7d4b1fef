//! What goes wrong, and its end.

use std::time::Duration;

use super::api::Way;
use super::counts::Seen;
use super::links::LinkState;
use super::world::{World, ticks};

/// A power is lost so long after the one before at the earliest: its broker is in sync again.
const BETWEEN_POWER_LOSSES: Duration = Duration::from_secs(30);
/// An orderly stop is waited for so long; then the process is killed.
const STOPPING: Duration = Duration::from_secs(40);
/// Wall clocks are set by so much at most, in milliseconds: records that come from an hour ahead would be refused.
const WALL_CLOCK: u64 = 300_000;

/// What becomes of a broker's machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Life {
    /// It works.
    Running,
    /// No process runs on it until then.
    Down(u32),
    /// Its process has been told to stop, and is killed then.
    Stopping(u32),
    /// Its disk takes no more writes; it is started again then.
    Failed(u32),
    /// Its disk is full until then.
    Full(u32),
    /// It has no way, or half a way, to the API until then.
    Apart(u32),
}

impl World {
    /// Everything goes wrong, for as long as that is to go on.
    pub(crate) fn spoil(&mut self) {
        let end = self.now + ticks(self.options.length);
        if self.options.lost > 0 {
            self.counts.saw(Seen::Lossy);
            self.sim.set_fail_rate(1.0 / f64::from(self.options.lost));
        }
        let mut next = self.now + self.after(self.options.fault_every * 2);
        while self.now < end {
            self.step();
            self.mend();
            if self.now >= next {
                self.fault();
                next = self.now + self.after(self.options.fault_every * 2);
            }
        }
    }

    /// Everything works again, and goes on to.
    pub(crate) fn heal(&mut self) {
        self.sim.set_fail_rate(0.0);
        for link in &mut self.links {
            link.mend(&self.sim, &self.options);
            // It may have broken by itself.
            self.sim.repair(link.ends.0.as_str(), link.ends.1.as_str());
        }
        for broker in 0..self.brokers.len() {
            match self.lives[broker] {
                Life::Running => {}
                Life::Down(_) | Life::Stopping(_) | Life::Failed(_) => self.restart(broker),
                Life::Full(_) | Life::Apart(_) => self.recover(broker),
            }
        }
    }

    /// Some time up to `most`, in ticks; at least one.
    fn after(&mut self, most: Duration) -> u32 {
        1 + self.rng.below(u64::from(ticks(most)).max(1)) as u32
    }

    /// Ends what is over.
    fn mend(&mut self) {
        let now = self.now;
        for link in self.links.iter_mut().filter(|link| link.until <= now) {
            link.mend(&self.sim, &self.options);
        }
        for broker in 0..self.brokers.len() {
            let (life, is_running) = (self.lives[broker], self.sim.is_host_running(self.brokers[broker].name.as_str()));
            match life {
                Life::Stopping(_) if !is_running => {
                    self.lives[broker] = Life::Down(now + self.after(Duration::from_secs(2)));
                }
                Life::Down(until) | Life::Stopping(until) | Life::Failed(until) if until <= now => self.restart(broker),
                Life::Full(until) | Life::Apart(until) if until <= now => self.recover(broker),
                _ => {}
            }
        }
    }

    /// Starts a process anew, after the one that there may be was killed.
    fn restart(&mut self, broker: usize) {
        let name = self.brokers[broker].name.as_str();
        self.sim.crash(name);
        self.sim.bounce(name);
        self.lives[broker] = Life::Running;
    }

    /// Ends a fault that the process has lived through.
    fn recover(&mut self, broker: usize) {
        self.brokers[broker].disk.set_full(false);
        self.brokers[broker].ways.send_replace(Way::Open);
        self.lives[broker] = Life::Running;
    }

    fn fault(&mut self) {
        let kind = self.rng.below(20);
        if kind >= 11 {
            return self.spoil_link(kind);
        }
        let broker = self.rng.index(self.brokers.len());
        if self.lives[broker] != Life::Running {
            return;
        }
        let until = self.now + self.after(Duration::from_secs(8));
        let machine = self.brokers[broker].clone();
        let (seen, life) = match kind {
            0..=3 => {
                self.sim.crash(machine.name.as_str());
                (Seen::Killed, Life::Down(until))
            }
            4 => return self.lose_power(broker, until),
            5 => {
                machine.stop();
                (Seen::Stopped, Life::Stopping(self.now + ticks(STOPPING)))
            }
            6 => {
                machine.disk.set_full(true);
                (Seen::DiskFull, Life::Full(until))
            }
            7 => {
                machine.disk.fail_next_write("simulated");
                (Seen::DiskFailed, Life::Failed(until))
            }
            8 => {
                machine.ways.send_replace(Way::Cut);
                (Seen::ApiCut, Life::Apart(until))
            }
            9 => {
                machine.ways.send_replace(Way::Deaf);
                (Seen::ApiDeaf, Life::Apart(until))
            }
            _ => {
                machine.step_wall(self.rng.below(2 * WALL_CLOCK) as i64 - WALL_CLOCK as i64);
                (Seen::ClockSet, Life::Running)
            }
        };
        self.counts.saw(seen);
        self.lives[broker] = life;
    }

    /// Without a word to anybody: what a dying process says to its peers does not leave the machine.
    fn lose_power(&mut self, broker: usize, until: u32) {
        let apart = ticks(BETWEEN_POWER_LOSSES);
        if self.power_lost.is_some_and(|before| self.now - before < apart) {
            return;
        }
        self.power_lost = Some(self.now);
        let machine = self.brokers[broker].clone();
        let wall = self.wall_millis();
        for link in self.links.iter_mut().filter(|link| link.is_of(&machine.name)) {
            link.mend(&self.sim, &self.options);
            self.sim.partition(link.ends.0.as_str(), link.ends.1.as_str());
        }
        self.sim.crash(machine.name.as_str());
        for link in self.links.iter().filter(|link| link.is_of(&machine.name)) {
            self.sim.repair(link.ends.0.as_str(), link.ends.1.as_str());
        }
        machine.lose_power(wall);
        self.counts.saw(Seen::PowerLost);
        self.lives[broker] = Life::Down(until);
    }

    fn spoil_link(&mut self, kind: u64) {
        let link = self.rng.index(self.links.len());
        if self.links[link].state != LinkState::Whole {
            return;
        }
        let (seen, state) = match kind {
            11..=13 => (Seen::Cut, LinkState::Cut),
            14 | 15 => (Seen::CutOneWay, LinkState::CutOneWay),
            16 | 17 => (Seen::Held, LinkState::Held),
            _ => (Seen::Slow, LinkState::Slow),
        };
        if self.rng.once_in(2) {
            let ends = &mut self.links[link].ends;
            std::mem::swap(&mut ends.0, &mut ends.1);
        }
        let until = self.now + self.after(Duration::from_secs(12));
        self.links[link].spoil(&self.sim, state, until, &self.options);
        self.counts.saw(seen);
    }
}
