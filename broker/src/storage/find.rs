//! Which storage epochs a database holds. One seek for each, so that no data is read. If one of them meets damage, each
//! number that a file can hold is looked at on its own: what one epoch has lost must not hide another (D5).

use std::collections::BTreeSet;

use rocksdb::{DB, LiveFile};

use super::footer::Seal;
use super::front::Copies;
use super::keys::{DataKey, epoch_end, epoch_last, epoch_start};
use super::{StorageError, options};

/// A storage epoch that is there.
#[derive(Debug)]
pub(crate) struct Found {
    pub(crate) number: u32,
    pub(crate) state: State,
}

/// What its seal says.
#[derive(Debug)]
pub(crate) enum State {
    /// Complete. If the seal itself is damaged it is that of the copy, and the damage is named.
    Sealed(Seal, Option<StorageError>),
    /// It has no seal.
    Open,
    /// Its seal is damaged and there is no copy.
    Lost(StorageError),
}

/// All epochs, in the order of their numbers.
pub(crate) fn find(data: &DB, copies: &Copies) -> Result<Vec<Found>, StorageError> {
    match by_seeks(data) {
        Err(StorageError::Damaged { .. }) => by_numbers(data, copies),
        found => found,
    }
}

fn by_seeks(data: &DB) -> Result<Vec<Found>, StorageError> {
    let mut found = vec![];
    let mut next = Some(0);
    while let Some(from) = next {
        let mut keys = data.raw_iterator_opt(options::read_once());
        keys.seek(epoch_start(from));
        keys.status().map_err(|cause| StorageError::by_rocksdb(data.path(), "storage epochs", &cause))?;
        let Some((key, value)) = keys.item() else { break };
        let key = DataKey::decode(key);
        let key = key.ok_or_else(|| StorageError::damaged(data.path(), "a key", &"malformed"))?;
        let number = key.epoch();
        let state = match key {
            DataKey::Seal { .. } => {
                let malformed = || StorageError::damaged(data.path(), &seal_of(number), &"malformed");
                State::Sealed(Seal::decode(value).ok_or_else(malformed)?, None)
            }
            _ => State::Open,
        };
        found.push(Found { number, state });
        next = number.checked_add(1);
    }
    Ok(found)
}

fn by_numbers(data: &DB, copies: &Copies) -> Result<Vec<Found>, StorageError> {
    let files = data.live_files().map_err(|cause| StorageError::io("list the database's files", &cause))?;
    let ends: Vec<(u32, u32)> = files.iter().filter_map(epochs_of).collect();
    // Neighbours: a file that spans many numbers holds many epochs, but for some that a start has left out.
    let numbers: BTreeSet<u32> = ends.iter().flat_map(|&(first, last)| first..=last).collect();
    let mut found = vec![];
    for number in numbers {
        let is_end = ends.iter().any(|&(first, last)| first == number || last == number);
        if let Some(state) = look_at(data, copies, number, is_end)? {
            found.push(Found { number, state });
        }
    }
    Ok(found)
}

fn epochs_of(file: &LiveFile) -> Option<(u32, u32)> {
    let epoch = |key: &Option<Vec<u8>>| Some(DataKey::decode(key.as_ref()?)?.epoch());
    Some((epoch(&file.start_key)?, epoch(&file.end_key)?))
}

/// `is_end`: some file begins or ends with the epoch, so it is there.
fn look_at(data: &DB, copies: &Copies, number: u32, is_end: bool) -> Result<Option<State>, StorageError> {
    let damage = match data.get_opt(DataKey::Seal { epoch: number }.encode(), &options::read_once()) {
        Ok(Some(seal)) => match Seal::decode(&seal) {
            Some(seal) => return Ok(Some(State::Sealed(seal, None))),
            None => StorageError::damaged(data.path(), &seal_of(number), &"malformed"),
        },
        Ok(None) => return Ok((is_end || has_keys(data, number)?).then_some(State::Open)),
        Err(cause) => StorageError::by_rocksdb(data.path(), &seal_of(number), &cause),
    };
    if !matches!(damage, StorageError::Damaged { .. }) {
        return Err(damage);
    }
    if let Some(seal) = copies.read(number).and_then(|front| front.seal()) {
        return Ok(Some(State::Sealed(seal, Some(damage))));
    }
    let is_there = is_end || !matches!(has_keys(data, number), Ok(false));
    Ok(is_there.then_some(State::Lost(damage)))
}

/// Whether an epoch has a key, by whatever end of it can be read.
pub(crate) fn has_keys(data: &DB, epoch: u32) -> Result<bool, StorageError> {
    let mut bounded = options::read_once();
    bounded.set_iterate_upper_bound(epoch_end(epoch));
    let mut keys = data.raw_iterator_opt(bounded);
    keys.seek(epoch_start(epoch));
    if keys.valid() || keys.status().is_ok() {
        return Ok(keys.valid());
    }
    let mut keys = data.raw_iterator_opt(options::read_once());
    keys.seek_for_prev(epoch_last(epoch));
    let what = format!("storage epoch {epoch}");
    keys.status().map_err(|cause| StorageError::by_rocksdb(data.path(), &what, &cause))?;
    Ok(keys.key().and_then(DataKey::decode).is_some_and(|key| key.epoch() == epoch))
}

fn seal_of(epoch: u32) -> String {
    format!("the seal of storage epoch {epoch}")
}
