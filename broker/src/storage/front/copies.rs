//! The copies of fronts, one file for each sealed epoch.
//!
//! They are not synced: what a power failure may have torn is found by its checksum. A copy that cannot be written is no
//! fault of the storage, which is whole without it; it is tried again at the next round.

use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use parking_lot::Mutex;
use rocksdb::DB;

use super::Front;

/// The directory that holds them.
#[derive(Debug)]
pub(crate) struct Copies {
    dir: PathBuf,
    /// Held while something is written: the draft's name is the same for all.
    writing: Mutex<()>,
}

impl Copies {
    /// Those of a data directory.
    pub(crate) fn of(dir: &Path) -> Self {
        Self { dir: dir.join("fronts"), writing: Mutex::new(()) }
    }

    /// The directory; it is made with the first copy.
    pub(crate) fn dir(&self) -> &Path {
        &self.dir
    }

    /// Epochs that have one, whole or not.
    pub(crate) fn epochs(&self) -> BTreeSet<u32> {
        let Ok(files) = fs::read_dir(&self.dir) else { return BTreeSet::new() };
        files.filter_map(|file| file.ok()?.file_name().to_str()?.parse().ok()).collect()
    }

    /// The copy of an epoch's front; `None` if there is none that is whole.
    pub(crate) fn read(&self, epoch: u32) -> Option<Front> {
        Front::decode(&fs::read(self.path(epoch)).ok()?, epoch)
    }

    /// The file of an epoch's copy.
    pub(crate) fn path(&self, epoch: u32) -> PathBuf {
        self.dir.join(epoch.to_string())
    }

    /// Makes the copies that are missing of these epochs, and removes those of others. Fronts that cannot be read get none.
    pub(crate) fn keep(&self, data: &DB, epochs: &BTreeSet<u32>) {
        let there = self.epochs();
        for &epoch in epochs.difference(&there) {
            let Ok(front) = Front::original(data, epoch) else { continue };
            if !self.add(epoch, &front) {
                return;
            }
        }
        there.difference(epochs).for_each(|&epoch| self.remove(epoch));
    }

    /// Makes the copy of an epoch's front. False if it cannot be written.
    pub(crate) fn add(&self, epoch: u32, front: &Front) -> bool {
        let written = self.write(epoch, front);
        if let Err(cause) = &written {
            tracing::warn!(epoch, %cause, "no copy of the storage epoch's footers could be made");
        }
        written.is_ok()
    }

    /// Removes those that are not whole.
    pub(crate) fn remove_torn(&self) {
        self.epochs().into_iter().filter(|&epoch| self.read(epoch).is_none()).for_each(|epoch| self.remove(epoch));
    }

    fn write(&self, epoch: u32, front: &Front) -> io::Result<()> {
        let _writing = self.writing.lock();
        fs::create_dir_all(&self.dir)?;
        // Under another name first: whatever has a number is meant to be whole.
        let draft = self.dir.join("draft");
        fs::write(&draft, front.encode(epoch))?;
        fs::rename(draft, self.path(epoch))
    }

    fn remove(&self, epoch: u32) {
        if let Err(cause) = fs::remove_file(self.path(epoch)) {
            tracing::warn!(epoch, %cause, "the copy of a storage epoch's footers could not be removed");
        }
    }
}

#[cfg(test)]
mod tests {
    use rocksdb::Options;

    use super::*;
    use crate::storage::footer::Seal;
    use crate::storage::keys::DataKey;

    #[test]
    fn copies_follow_the_epochs_and_torn_ones_are_made_again() {
        let dir = tempfile::tempdir().unwrap();
        let mut options = Options::default();
        options.create_if_missing(true);
        let data = DB::open(&options, dir.path().join("data")).unwrap();
        for epoch in 1..=3 {
            data.put(DataKey::Seal { epoch }.encode(), Seal::default().encode()).unwrap();
        }
        let copies = Copies::of(dir.path());
        copies.keep(&data, &BTreeSet::from([1, 2]));
        assert_eq!(copies.epochs(), BTreeSet::from([1, 2]));
        copies.keep(&data, &BTreeSet::from([2, 3, 4]));
        assert_eq!(copies.epochs(), BTreeSet::from([2, 3]), "4 has no seal to copy");
        let whole = copies.read(2);
        assert_eq!(whole.as_ref().and_then(Front::seal), Some(Seal::default()));
        fs::write(copies.path(2), b"torn").unwrap();
        copies.remove_torn();
        assert_eq!(copies.epochs(), BTreeSet::from([3]));
        copies.keep(&data, &BTreeSet::from([2, 3]));
        assert_eq!(copies.read(2), whole);
    }
}
