//! Clocks of brokers: each runs at its own rate, wall clocks jump, and the real election goes by them (M15, M16).
//!
//! Where all clocks run alike, who holds the Lease is settled without one, see `control`.

use std::time::Duration;

use taffrail_broker::election::core::{Core, Effect, Event as Elected, Term};
use taffrail_broker::election::{Times, WriteError};

use super::counts::Seen;
use super::options::Options;
use super::planted::Planted;
use super::process::Purpose;
use super::rng::Rng;
use super::store::{Answer, Request};
use super::world::{Event, Micros, World};

/// As a Cluster says nothing else.
const TIMES: Times =
    Times { lease: Duration::from_secs(6), renew_deadline: Duration::from_secs(4), retry: Duration::from_secs(1) };
/// Rate of a clock that runs as time does.
const TRUE: u64 = 1_000;
/// Farthest that a wall clock jumps, in milliseconds.
const FARTHEST: u64 = 3_600_000;
/// What wall clocks show at the beginning, in milliseconds since 1970.
const BEGINNING: i64 = 1_700_000_000_000;

/// A machine's clocks.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Clocks {
    /// In thousandths of true time.
    rate: u64,
    /// The wall clock is ahead by so many milliseconds.
    ahead: i64,
}

impl Clocks {
    pub(crate) fn of(options: &Options, rng: &mut Rng) -> Self {
        let rate = match options.clock_rates {
            [only] => *only,
            rates => rates[rng.index(rates.len())],
        };
        Self { rate, ahead: 0 }
    }

    /// So long by this clock.
    pub(crate) fn shows(self, time: Micros) -> Micros {
        time * self.rate / TRUE
    }

    /// How long it takes until this clock has gone on by so much.
    pub(crate) fn takes(self, shown: Micros) -> Micros {
        shown * TRUE / self.rate
    }
}

/// Name of a process in the election: no other ever has it (M15).
fn candidate(broker: i32, life: u32) -> String {
    format!("broker-{broker}_{life}")
}

impl World {
    pub(crate) fn start_clocks(&mut self) {
        if !self.options.clocks_differ() {
            return;
        }
        self.counts.saw(Seen::ClocksDiffer);
        if !self.options.lease_holds() {
            self.counts.saw(Seen::ClocksBeyondLease);
        }
        self.schedule(2_000_000, Event::WallClock);
    }

    /// A wall clock is set, for better or worse.
    pub(crate) fn jump(&mut self) {
        if !self.faulty {
            return;
        }
        let after = self.chaos_millis(1_000, 10_000);
        self.schedule(after, Event::WallClock);
        self.counts.saw(Seen::WallClockJumps);
        let ahead = self.chaos.below(2 * FARTHEST) as i64 - FARTHEST as i64;
        let broker = self.chaos.index(self.nodes.len());
        self.nodes[broker].clocks.ahead = ahead;
    }

    /// Milliseconds since 1970, by a broker's wall clock.
    pub(crate) fn wall_millis(&self, broker: i32) -> i64 {
        BEGINNING + (self.now / 1_000) as i64 + self.nodes[broker as usize].clocks.ahead
    }

    /// What a broker's election goes by.
    fn election_clock(&self, broker: i32) -> Duration {
        if self.options.planted == Some(Planted::LeaseByWallClock) {
            return Duration::from_millis(self.wall_millis(broker) as u64);
        }
        self.clock(broker)
    }

    /// A process takes part in the election.
    pub(crate) fn stand(&mut self, broker: i32) {
        let candidate = candidate(broker, self.life(broker));
        if self.options.clocks_differ()
            && let Some(process) = self.process(broker)
        {
            process.election = Some(Core::new(candidate, TIMES));
            self.elect(broker, Elected::Tick);
        }
    }

    /// It is time to look at the Lease; that of an earlier plan is not any more.
    pub(crate) fn look(&mut self, broker: i32, number: u64) {
        if self.process(broker).is_some_and(|process| process.looks == number) {
            self.elect(broker, Elected::Tick);
        }
    }

    pub(crate) fn lease_read(&mut self, broker: i32, answer: Answer) {
        let read = if let Answer::Lease(lease) = answer { Ok(lease) } else { Err(()) };
        self.elect(broker, Elected::Read(read));
    }

    pub(crate) fn lease_written(&mut self, broker: i32, answer: Answer) {
        let written = match answer {
            Answer::Lease(Some(lease)) => Ok(lease),
            Answer::Conflict => Err(WriteError::Conflict),
            Answer::TooMany(_) => Err(WriteError::Unavailable),
            _ => Err(WriteError::Unknown),
        };
        self.elect(broker, Elected::Wrote(written));
    }

    /// It is about to stop: somebody else shall act.
    pub(crate) fn resign(&mut self, broker: i32) {
        self.elect(broker, Elected::Stop);
    }

    fn elect(&mut self, broker: i32, event: Elected) {
        let (clock, life) = (self.election_clock(broker), self.life(broker));
        let Some(core) = self.process(broker).and_then(|process| process.election.as_mut()) else { return };
        let effect = core.apply(event, clock);
        let (term, wake) = (core.term(clock), core.wake());
        self.go_by(broker, term, clock);
        let (request, purpose) = match effect {
            None => (None, Purpose::ReadLease),
            Some(Effect::Read) => (Some(Request::ReadLease), Purpose::ReadLease),
            Some(Effect::Write { over, held }) => {
                let holder = held.then(|| candidate(broker, life));
                (Some(Request::WriteLease(over, holder)), Purpose::WriteLease)
            }
        };
        if let Some(request) = request {
            let call = self.call(broker, request);
            self.await_answer(broker, call, purpose);
        }
        let takes = wake.map(|wake| self.takes(broker, wake.saturating_sub(clock)));
        let Some(process) = self.process(broker) else { return };
        process.looks += 1;
        let number = process.looks;
        if let Some(takes) = takes {
            self.schedule(takes.max(1_000), Event::Look { broker, life, number });
        }
    }

    fn takes(&self, broker: i32, shown: Duration) -> Micros {
        self.nodes[broker as usize].clocks.takes(shown.as_micros() as Micros)
    }

    /// Acts while there is a term, and no longer.
    fn go_by(&mut self, broker: i32, term: Option<Term>, clock: Duration) {
        let Some(process) = self.process(broker) else { return };
        let acting = process.control.as_ref().and_then(|control| control.term);
        let Some(term) = term else {
            if acting.is_some() {
                process.control = None;
            }
            return;
        };
        if acting != Some(term.number) {
            self.counts.saw(Seen::TermBegun);
            self.act(broker);
        }
        let until = self.now + self.takes(broker, term.write_until.saturating_sub(clock));
        if let Some(control) = self.process(broker).and_then(|process| process.control.as_mut()) {
            (control.term, control.until) = (Some(term.number), until);
        }
    }

    /// M16: who begins a write by its Lease has it, as long as clocks do not run too differently.
    pub(crate) fn check_lease(&self, broker: i32) {
        let control = self.nodes[broker as usize].process.as_ref().and_then(|process| process.control.as_ref());
        if !self.options.lease_holds() || control.is_none_or(|control| control.term.is_none()) {
            return;
        }
        let holder = self.store.lease.as_ref().and_then(|lease| lease.holder.as_ref());
        assert!(
            holder == Some(&candidate(broker, self.life(broker))),
            "M16: broker {broker} begins a write as controller, and the Lease is {holder:?}'s"
        );
    }

    /// How long something may take by brokers' clocks that usually takes this long.
    pub(crate) fn patience(&self, usual: Micros) -> Micros {
        if self.options.clocks_differ() { 2 * usual } else { usual }
    }

    /// As `millis`, for what came later than the schedules that are kept: drawn apart.
    pub(crate) fn chaos_millis(&mut self, from: u64, to: u64) -> Micros {
        from * 1_000 + self.chaos.below((to - from) * 1_000)
    }
}
