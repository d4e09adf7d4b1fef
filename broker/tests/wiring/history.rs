//! What writers were told and readers saw, and whether the two agree.
//!
//! Each record's value names itself by a number that no other record has. A writer numbers its records upward, from its own
//! number times [`WRITER`].

use std::collections::{BTreeMap, BTreeSet};

use taffrail_client::{ConsumerRecord, RecordMetadata, RequestOutcome};

/// Digits of the number that a value begins with.
const NUMBER: usize = 16;
/// Numbers of one writer.
pub(crate) const WRITER: u64 = 1 << 32;

/// A partition, and an offset in it.
pub(crate) type Place = (i32, i64);

/// The value of record `id`.
pub(crate) fn value(id: u64, padding: usize) -> Vec<u8> {
    let mut bytes = format!("{id:0NUMBER$x}").into_bytes();
    bytes.resize(NUMBER + padding, id as u8);
    bytes
}

/// The number of a value, if every byte of it is as [`value`] made it.
fn id_of(bytes: &[u8]) -> Option<u64> {
    let number = std::str::from_utf8(bytes.get(..NUMBER)?).ok()?;
    let id = u64::from_str_radix(number, 16).ok()?;
    (value(id, bytes.len() - NUMBER) == bytes).then_some(id)
}

/// What became of a record, as its writer was told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Told {
    /// It is stored; an offset is not told for repeats of old batches.
    Acked(i32, Option<i64>),
    /// It may be stored.
    Unknown,
    /// It is not and will not be.
    Refused,
}

impl Told {
    pub(crate) fn of(answer: taffrail_client::Result<RecordMetadata>) -> Self {
        match answer {
            Ok(stored) => Self::Acked(stored.partition, stored.offset),
            Err(error) if error.outcome() == RequestOutcome::NotApplied => Self::Refused,
            Err(_) => Self::Unknown,
        }
    }
}

/// Of one topic.
#[derive(Debug, Default)]
pub(crate) struct History {
    told: BTreeMap<u64, Told>,
    /// All that anybody read.
    seen: BTreeMap<Place, u64>,
    /// What is there at the end.
    last: Option<BTreeMap<Place, u64>>,
    /// What the group went through.
    processed: BTreeSet<Place>,
    epochs: BTreeSet<(i32, i32)>,
    /// What was wrong as it was read.
    wrong: Vec<String>,
}

impl History {
    /// A writer was told what became of a record.
    pub(crate) fn tell(&mut self, id: u64, told: Told) {
        self.told.insert(id, told);
    }

    /// A record was read.
    pub(crate) fn see(&mut self, record: &ConsumerRecord) {
        let place = (record.partition, record.offset);
        self.epochs.insert((record.partition, record.leader_epoch));
        match record.value.as_deref().and_then(id_of) {
            Some(id) => self.put(place, id),
            None => self.wrong.push(format!("foreign: nobody wrote what is at {place:?}")),
        }
    }

    fn put(&mut self, place: Place, id: u64) {
        let known = *self.seen.entry(place).or_insert(id);
        if known != id {
            self.wrong.push(format!("inconsistent-offsets: {known:#x} and {id:#x} were read at {place:?}"));
        }
    }

    /// A member of the group is through with a record.
    pub(crate) fn process(&mut self, place: Place) {
        self.processed.insert(place);
    }

    /// All that there is at the end.
    pub(crate) fn end(&mut self, places: &BTreeSet<Place>) {
        let at = |place: &Place| self.seen.get(place).map(|id| (*place, *id));
        self.last = Some(places.iter().filter_map(at).collect());
    }

    /// Whether the group is through with all that there is at the end, as far as that is known.
    pub(crate) fn is_processed(&self) -> bool {
        self.last.as_ref().is_some_and(|last| last.keys().all(|place| self.processed.contains(place)))
    }

    /// Records of which the writer was told so, and whether they are there.
    pub(crate) fn count(&self, told: impl Fn(Told) -> bool) -> (usize, usize) {
        let there: BTreeSet<u64> = self.last.iter().flat_map(BTreeMap::values).copied().collect();
        let such: Vec<u64> = self.told.iter().filter(|(_, answer)| told(**answer)).map(|(id, _)| *id).collect();
        (such.len(), such.iter().filter(|id| there.contains(id)).count())
    }

    /// Partitions of which records were read that came under different leaders.
    pub(crate) fn led_by_several(&self) -> usize {
        let partitions: BTreeSet<i32> = self.epochs.iter().map(|(partition, _)| *partition).collect();
        self.epochs.len() - partitions.len()
    }

    /// Everything that is wrong.
    pub(crate) fn check(&self) -> Vec<String> {
        let Some(last) = &self.last else { return vec!["nobody has read it to the end".to_owned()] };
        let mut wrong = self.wrong.clone();
        let gone = self.seen.iter().filter(|(place, _)| !last.contains_key(place));
        wrong.extend(gone.map(|(place, id)| format!("lost: {id:#x} was read at {place:?} and is gone")));
        let mut places: BTreeMap<u64, Place> = BTreeMap::new();
        let mut before: Option<Place> = None;
        // By partition and writer.
        let mut newest: BTreeMap<(i32, u64), u64> = BTreeMap::new();
        for (&(partition, offset), &id) in last {
            let expected = before.filter(|(same, _)| *same == partition).map_or(0, |(_, offset)| offset + 1);
            if offset != expected {
                wrong.push(format!("gap: partition {partition} goes on at {offset} and not at {expected}"));
            }
            before = Some((partition, offset));
            if let Some(first) = places.insert(id, (partition, offset)) {
                wrong.push(format!("duplicate: {id:#x} is at {first:?} and at {:?}", (partition, offset)));
            }
            if let Some(later) = newest.insert((partition, id / WRITER), id).filter(|before| *before > id) {
                wrong.push(format!("order: {id:#x} is behind {later:#x} at {:?}", (partition, offset)));
            }
            if !self.told.contains_key(&id) {
                wrong.push(format!("foreign: nobody sent {id:#x}"));
            }
        }
        for (id, told) in &self.told {
            let found = places.get(id);
            match (*told, found) {
                (Told::Acked(..), None) => wrong.push(format!("lost-write: {id:#x}, {told:?}")),
                (Told::Acked(partition, offset), Some(found))
                    if partition != found.0 || offset.is_some_and(|offset| offset != found.1) =>
                {
                    wrong.push(format!("inconsistent-offsets: {id:#x}, {told:?}, is at {found:?}"));
                }
                (Told::Refused, Some(found)) => wrong.push(format!("definite failure: {id:#x} is at {found:?}")),
                _ => {}
            }
        }
        wrong
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// 1 and 2 are acknowledged, 3 unknown, 4 refused; this is read, and is what there is at the end.
    fn found(ids: &[u64]) -> Vec<String> {
        let mut history = History::default();
        let answers = [Told::Acked(0, Some(0)), Told::Acked(0, None), Told::Unknown, Told::Refused];
        for (id, told) in (1..).zip(answers) {
            history.tell(id, told);
        }
        let places: BTreeSet<Place> = (0..).zip(ids).map(|(offset, _)| (0, offset)).collect();
        for (place, id) in places.iter().zip(ids) {
            history.put(*place, *id);
        }
        history.end(&places);
        history.check()
    }

    #[test]
    fn a_value_names_itself_and_shows_any_change() {
        let made = value(0x77, 50);
        assert_eq!(id_of(&made), Some(0x77));
        for at in 0..made.len() {
            let mut changed = made.clone();
            changed[at] ^= 1;
            assert_ne!(id_of(&changed), Some(0x77), "byte {at}");
        }
    }

    #[test]
    fn each_violation_is_found() {
        assert_eq!(found(&[1, 2]), Vec::<String>::new());
        assert_eq!(found(&[1, 2, 3]), Vec::<String>::new());
        for (ids, rule) in [
            (&[1][..], "lost-write"),
            (&[1, 2, 2][..], "duplicate"),
            (&[1, 3, 2][..], "order"),
            (&[3, 1, 2][..], "inconsistent-offsets"),
            (&[1, 2, 4][..], "definite failure"),
            (&[1, 2, 9][..], "foreign"),
        ] {
            let wrong = found(ids);
            assert!(wrong.iter().any(|wrong| wrong.starts_with(rule)), "{ids:?}: {wrong:?}");
        }
    }

    #[test]
    fn what_was_read_once_is_there_for_ever_and_nothing_else_in_its_place() {
        let mut history = History::default();
        for id in [1, 2] {
            history.tell(id, Told::Unknown);
        }
        history.put((0, 0), 1);
        history.put((0, 0), 2);
        history.put((0, 1), 2);
        history.end(&BTreeSet::from([(0, 0)]));
        let wrong = history.check();
        assert!(wrong[0].starts_with("inconsistent-offsets") && wrong[1].starts_with("lost:"), "{wrong:?}");
    }
}
