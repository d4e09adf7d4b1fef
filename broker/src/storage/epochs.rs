//! Which storage epochs there are. Pure.

use std::collections::{BTreeMap, BTreeSet};

/// A storage epoch that is sealed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct EpochInfo {
    /// Bytes of its batches.
    pub(crate) bytes: u64,
    /// Epochs that are dead because it is there.
    pub(crate) replaces: Vec<u32>,
}

/// All sealed epochs. The one that the writer fills is not among them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Epochs {
    sealed: BTreeMap<u32, EpochInfo>,
    dead: BTreeSet<u32>,
}

impl Epochs {
    /// Adds a sealed epoch. What it replaces is dead.
    pub(crate) fn add(&mut self, epoch: u32, info: EpochInfo) {
        self.dead.extend(&info.replaces);
        self.sealed.insert(epoch, info);
    }

    /// Marks an epoch from which nothing is needed.
    pub(crate) fn kill(&mut self, epoch: u32) {
        self.dead.insert(epoch);
    }

    /// Its files are gone.
    pub(crate) fn dropped(&mut self, epoch: u32) {
        self.sealed.remove(&epoch);
        self.dead.remove(&epoch);
        for info in self.sealed.values_mut() {
            info.replaces.retain(|&replaced| replaced != epoch);
        }
    }

    /// Nothing of it is needed.
    pub(crate) fn is_dead(&self, epoch: u32) -> bool {
        self.dead.contains(&epoch)
    }

    /// Sealed epochs, dead ones included, in the order of their numbers.
    pub(crate) fn sealed(&self) -> impl Iterator<Item = (u32, &EpochInfo)> {
        self.sealed.iter().map(|(&epoch, info)| (epoch, info))
    }

    /// An epoch.
    pub(crate) fn get(&self, epoch: u32) -> Option<&EpochInfo> {
        self.sealed.get(&epoch)
    }

    /// How many there are.
    pub(crate) fn len(&self) -> usize {
        self.sealed.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_replaced_is_dead_until_it_is_dropped() {
        let mut epochs = Epochs::default();
        for epoch in 1..4 {
            epochs.add(epoch, EpochInfo::default());
        }
        epochs.add(1 << 31, EpochInfo { bytes: 5, replaces: vec![1, 2] });
        assert_eq!((1..4).map(|epoch| epochs.is_dead(epoch)).collect::<Vec<_>>(), [true, true, false]);
        epochs.dropped(1);
        assert!(epochs.get(1).is_none() && !epochs.is_dead(1));
        assert_eq!(epochs.get(1 << 31).map(|info| info.replaces.clone()), Some(vec![2]));
        assert_eq!(epochs.sealed().map(|(epoch, _)| epoch).collect::<Vec<_>>(), [2, 3, 1 << 31]);
    }
}
