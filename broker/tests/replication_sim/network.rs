//! The network between brokers and to the API: what is cut.

use std::collections::BTreeSet;

/// The API's place in the network.
pub(crate) const API: i32 = -1;
/// Clients are numbered from here on; nothing cuts them off.
pub(crate) const CLIENTS: i32 = 1_000;

/// Directed cuts, each with a number by which it is mended.
#[derive(Debug, Default)]
pub(crate) struct Network {
    cuts: BTreeSet<(i32, i32, u32)>,
    made: u32,
}

impl Network {
    /// Cuts these ways; the number of the cut.
    pub(crate) fn cut(&mut self, ways: impl IntoIterator<Item = (i32, i32)>) -> u32 {
        self.made += 1;
        let number = self.made;
        self.cuts.extend(ways.into_iter().map(|(from, to)| (from, to, number)));
        number
    }

    pub(crate) fn mend(&mut self, number: u32) {
        self.cuts.retain(|(_, _, cut)| *cut != number);
    }

    pub(crate) fn mend_all(&mut self) {
        self.cuts.clear();
    }

    pub(crate) fn is_cut(&self, from: i32, to: i32) -> bool {
        self.cuts.range((from, to, 0)..=(from, to, u32::MAX)).next().is_some()
    }
}
