//! Links between machines, of which each has one fault at a time.

use turmoil::Sim;

use super::options::Options;

/// How a link is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum LinkState {
    Whole,
    /// Nothing gets through.
    Cut,
    /// Nothing gets from the first to the second.
    CutOneWay,
    /// What is sent waits.
    Held,
    Slow,
}

/// Between two machines.
#[derive(Clone, Debug)]
pub(crate) struct Link {
    pub(crate) ends: (String, String),
    pub(crate) state: LinkState,
    /// When the fault ends, in ticks.
    pub(crate) until: u32,
}

impl Link {
    /// Between all of these, but for those from `clients` on among themselves.
    pub(crate) fn among(hosts: &[String], clients: usize) -> Vec<Self> {
        let mut links = vec![];
        for (number, second) in hosts.iter().enumerate() {
            for first in &hosts[..number.min(clients)] {
                links.push(Self { ends: (first.clone(), second.clone()), state: LinkState::Whole, until: 0 });
            }
        }
        links
    }

    /// Whether it leads there.
    pub(crate) fn is_of(&self, host: &str) -> bool {
        self.ends.0 == host || self.ends.1 == host
    }

    /// Breaks one that is whole.
    pub(crate) fn spoil(&mut self, sim: &Sim<'_>, state: LinkState, until: u32, options: &Options) {
        let (first, second) = (self.ends.0.as_str(), self.ends.1.as_str());
        match state {
            LinkState::Whole => {}
            LinkState::Cut => sim.partition(first, second),
            LinkState::CutOneWay => sim.partition_oneway(first, second),
            LinkState::Held => sim.hold(first, second),
            LinkState::Slow => sim.set_link_max_message_latency(first, second, options.latency * 50),
        }
        (self.state, self.until) = (state, until);
    }

    /// Makes it whole again.
    pub(crate) fn mend(&mut self, sim: &Sim<'_>, options: &Options) {
        let (first, second) = (self.ends.0.as_str(), self.ends.1.as_str());
        match std::mem::replace(&mut self.state, LinkState::Whole) {
            LinkState::Whole => {}
            LinkState::Cut | LinkState::CutOneWay => sim.repair(first, second),
            LinkState::Held => sim.release(first, second),
            LinkState::Slow => sim.set_link_max_message_latency(first, second, options.latency),
        }
    }
}
