//! What writers were told and readers saw, and whether the two agree: the checker behind the tests that kill brokers.
//!
//! Each record's value names itself: a number that no other record has, and bytes that follow from it. So a value that was
//! read proves what it is and that no byte of it changed, and a history keeps numbers only.

use std::collections::{BTreeMap, HashMap};
use std::time::{Duration, Instant};

/// Digits of the number that a value begins with.
const NUMBER: usize = 16;

/// The value of record `id`: its number, then `padding` bytes that follow from it.
pub fn value(id: u64, padding: usize) -> Vec<u8> {
    let mut bytes = format!("{id:0NUMBER$x}").into_bytes();
    let mut state = id.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    bytes.extend((0..padding).map(|_| {
        // xorshift64 (Marsaglia, 2003)
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state as u8
    }));
    bytes
}

/// The number of a value, if every byte of it is as [`value`] made it.
pub fn id_of(bytes: &[u8]) -> Option<u64> {
    let number = std::str::from_utf8(bytes.get(..NUMBER)?).ok()?;
    let id = u64::from_str_radix(number, 16).ok()?;
    (value(id, bytes.len() - NUMBER) == bytes).then_some(id)
}

/// What became of a record, as its writer was told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Told {
    /// It is stored; an offset is not told for repeats of old batches.
    Acked { partition: i32, offset: Option<i64> },
    /// It may be stored.
    Unknown,
    /// It is not and will not be.
    Refused,
}

/// One record of a load: what its writer was told of it, and when.
#[derive(Clone, Copy, Debug)]
pub struct Answer {
    /// Number of the record.
    pub id: u64,
    /// What became of it.
    pub told: Told,
    /// When it was handed to the producer.
    pub sent: Instant,
    /// When the writer was told.
    pub at: Instant,
}

impl Answer {
    /// Of a record that was sent then, told now.
    pub fn now(id: u64, sent: Instant, told: Told) -> Self {
        Self { id, told, sent, at: Instant::now() }
    }
}

/// What readers of a topic saw: partition → offset → number of the record; `None` is a value that nobody wrote so.
pub type Seen = BTreeMap<i32, BTreeMap<i64, Option<u64>>>;

/// Something that must never happen.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Violation {
    /// Acknowledged, and not there (D2).
    Lost { id: u64, told: Told },
    /// Acknowledged at an offset, and something else is there (R2).
    Elsewhere { id: u64, told: Told, found: (i32, i64) },
    /// Stored twice although its writer is idempotent (P1).
    Duplicate { id: u64, found: [(i32, i64); 2] },
    /// There although the writer was told that it would never be (G1a).
    RefusedButStored { id: u64, found: (i32, i64) },
    /// A value that nobody wrote, or not so.
    Foreign { partition: i32, offset: i64 },
    /// Offsets do not follow each other (R1).
    Gap { partition: i32, after: i64, next: i64 },
    /// Behind a record that the same writer sent later (P1).
    Disordered { id: u64, after: u64, found: (i32, i64) },
}

/// Numbers of one load: those of another begin at a multiple of it.
pub const LOAD: u64 = 1 << 32;

/// All that was told, by record.
#[derive(Debug, Default)]
pub struct History {
    told: HashMap<u64, Told>,
    /// When each was sent and told of, where that is known.
    times: HashMap<u64, (Instant, Instant)>,
    /// Writers of each load, who number their records alternately and upward; 0: it is not known who wrote what.
    writers: u64,
}

impl History {
    /// Of writers' records; numbers must not repeat.
    pub fn new(told: impl IntoIterator<Item = (u64, Told)>) -> Self {
        Self { told: told.into_iter().collect(), ..Self::default() }
    }

    /// Of so many writers, each of whom sent its records in the order of their numbers.
    pub fn by_writers(told: impl IntoIterator<Item = (u64, Told)>, writers: u64) -> Self {
        Self { writers, ..Self::new(told) }
    }

    /// As [`by_writers`](Self::by_writers), with times.
    pub fn of_answers(answers: &[Answer], writers: u64) -> Self {
        let told = answers.iter().map(|answer| (answer.id, answer.told));
        let times = answers.iter().map(|answer| (answer.id, (answer.sent, answer.at))).collect();
        Self { times, ..Self::by_writers(told, writers) }
    }

    /// Adds what others were told.
    pub fn extend(&mut self, other: Self) {
        let same = self.told.is_empty() || self.writers == other.writers;
        self.writers = if same { other.writers } else { 0 };
        self.told.extend(other.told);
        self.times.extend(other.times);
    }

    /// How many records were told so.
    pub fn count(&self, told: impl Fn(Told) -> bool) -> usize {
        self.told.values().filter(|answer| told(**answer)).count()
    }

    /// When a record was sent, and when its writer was told what became of it.
    pub fn times(&self, id: u64) -> Option<(Instant, Instant)> {
        self.times.get(&id).copied()
    }

    /// Acknowledged within a time, and sent within it.
    pub fn sent_and_acked(&self, from: Instant, to: Instant) -> usize {
        let within = |id: &u64| self.times.get(id).is_some_and(|(sent, at)| *sent >= from && *at <= to);
        self.told.iter().filter(|(id, told)| matches!(told, Told::Acked { .. }) && within(id)).count()
    }

    /// The time from send to acknowledgement that so many of a thousand records did not exceed.
    pub fn latency(&self, per_mille: usize) -> Option<Duration> {
        let acked = self.told.iter().filter(|(_, told)| matches!(told, Told::Acked { .. }));
        let mut taken: Vec<_> = acked.filter_map(|(id, _)| self.times(*id)).map(|(sent, at)| at - sent).collect();
        taken.sort_unstable();
        taken.get((taken.len() * per_mille / 1000).min(taken.len().saturating_sub(1))).copied()
    }

    /// Records that were acknowledged.
    pub fn acked(&self) -> usize {
        self.count(|told| matches!(told, Told::Acked { .. }))
    }

    /// Records of all kinds.
    pub fn len(&self) -> usize {
        self.told.len()
    }

    /// Nothing was written.
    pub fn is_empty(&self) -> bool {
        self.told.is_empty()
    }

    /// Everything that is wrong with what was seen. `starts` are the first offsets that must be there, by partition; what
    /// was acknowledged below them, or without an offset while some are above 0, may be gone.
    pub fn check(&self, seen: &Seen, starts: &BTreeMap<i32, i64>) -> Vec<Violation> {
        let mut violations = gaps(seen, starts);
        violations.extend(self.disordered(seen));
        let mut places: HashMap<u64, (i32, i64)> = HashMap::new();
        for (&partition, records) in seen {
            for (&offset, id) in records {
                let found = (partition, offset);
                match id.filter(|id| self.told.contains_key(id)) {
                    None => violations.push(Violation::Foreign { partition, offset }),
                    Some(id) => {
                        if let Some(first) = places.insert(id, found) {
                            violations.push(Violation::Duplicate { id, found: [first, found] });
                        }
                    }
                }
            }
        }
        let trimmed = starts.values().any(|&start| start > 0);
        let start = |partition| starts.get(&partition).copied().unwrap_or(0);
        for (&id, &told) in &self.told {
            match (told, places.get(&id)) {
                (Told::Acked { partition, offset: Some(offset) }, None) if offset >= start(partition) => {
                    violations.push(Violation::Lost { id, told });
                }
                (Told::Acked { offset: None, .. }, None) if !trimmed => violations.push(Violation::Lost { id, told }),
                (Told::Acked { partition, offset }, Some(&found))
                    if partition != found.0 || offset.is_some_and(|offset| offset != found.1) =>
                {
                    violations.push(Violation::Elsewhere { id, told, found });
                }
                (Told::Refused, Some(&found)) => violations.push(Violation::RefusedButStored { id, found }),
                _ => {}
            }
        }
        violations
    }

    /// What stands behind a later record of its writer.
    fn disordered(&self, seen: &Seen) -> Vec<Violation> {
        let mut found = vec![];
        for (&partition, records) in seen.iter().filter(|_| self.writers > 0) {
            let mut newest: HashMap<(u64, u64), u64> = HashMap::new();
            for (&offset, id) in records {
                let Some(id) = *id else { continue };
                let after = newest.entry((id / LOAD, id % self.writers)).or_insert(id);
                if *after > id {
                    found.push(Violation::Disordered { id, after: *after, found: (partition, offset) });
                }
                *after = id.max(*after);
            }
        }
        found
    }
}

/// Offsets begin at the start and rise by one.
fn gaps(seen: &Seen, starts: &BTreeMap<i32, i64>) -> Vec<Violation> {
    let mut gaps = vec![];
    for (&partition, records) in seen {
        let mut after = starts.get(&partition).copied().unwrap_or(0) - 1;
        for &next in records.keys() {
            if next != after + 1 {
                gaps.push(Violation::Gap { partition, after, next });
            }
            after = next;
        }
    }
    gaps
}

#[cfg(test)]
mod tests {
    use super::*;

    fn history() -> History {
        let acked = |offset| Told::Acked { partition: 0, offset: Some(offset) };
        History::new([(1, acked(0)), (2, acked(1)), (3, Told::Unknown), (4, Told::Refused)])
    }

    fn seen(ids: &[Option<u64>]) -> Seen {
        Seen::from([(0, (0..).zip(ids.iter().copied()).collect())])
    }

    #[test]
    fn a_value_names_itself_and_shows_any_change() {
        let made = value(77, 100);
        assert_eq!(id_of(&made), Some(77));
        for at in 0..made.len() {
            let mut changed = made.clone();
            changed[at] ^= 1;
            assert_ne!(id_of(&changed), Some(77), "byte {at}");
        }
    }

    #[test]
    fn what_is_right_passes_whether_or_not_the_unknown_is_there() {
        let starts = BTreeMap::new();
        assert_eq!(history().check(&seen(&[Some(1), Some(2)]), &starts), []);
        assert_eq!(history().check(&seen(&[Some(1), Some(2), Some(3)]), &starts), []);
    }

    #[test]
    fn each_violation_is_found() {
        let starts = BTreeMap::new();
        let found = |ids: &[Option<u64>]| history().check(&seen(ids), &starts);
        assert!(matches!(found(&[Some(1)])[..], [Violation::Lost { id: 2, .. }]));
        assert!(matches!(found(&[Some(1), Some(3), Some(2)])[..], [Violation::Elsewhere { id: 2, found: (0, 2), .. }]));
        assert!(matches!(found(&[Some(1), Some(2), Some(2)])[0], Violation::Duplicate { id: 2, .. }));
        assert!(matches!(found(&[Some(1), Some(2), Some(4)])[..], [Violation::RefusedButStored { id: 4, .. }]));
        assert!(matches!(found(&[Some(1), Some(2), None])[..], [Violation::Foreign { offset: 2, .. }]));
        assert!(matches!(found(&[Some(1), Some(2), Some(9)])[..], [Violation::Foreign { offset: 2, .. }]));
        let hole = Seen::from([(0, BTreeMap::from([(0, Some(1)), (1, Some(2)), (5, Some(3))]))]);
        assert_eq!(history().check(&hole, &starts), [Violation::Gap { partition: 0, after: 1, next: 5 }]);
    }

    #[test]
    fn records_of_a_writer_stand_in_the_order_of_its_sends() {
        let unknown = |ids: &[u64]| ids.iter().map(|id| (*id, Told::Unknown)).collect::<Vec<_>>();
        let check = |ids: &[u64]| {
            let history = History::by_writers(unknown(ids), 2);
            history.check(&seen(&ids.iter().map(|id| Some(*id)).collect::<Vec<_>>()), &BTreeMap::new())
        };
        assert_eq!(check(&[0, 3, 2, 5, 7, 4]), [], "two writers in each other's way");
        assert_eq!(check(&[0, 4, 2]), [Violation::Disordered { id: 2, after: 4, found: (0, 2) }]);
        assert_eq!(check(&[LOAD, LOAD + 2, 0, 2]), [], "another load is another writer");
    }

    #[test]
    fn times_tell_what_was_acknowledged_when_and_how_fast() {
        let begin = Instant::now();
        let after = |millis| begin + Duration::from_millis(millis);
        let acked = Told::Acked { partition: 0, offset: None };
        let answer = |id, told, sent, at| Answer { id, told, sent: after(sent), at: after(at) };
        let answers = [answer(0, acked, 0, 10), answer(1, acked, 20, 50), answer(2, Told::Unknown, 20, 30)];
        let history = History::of_answers(&answers, 1);
        assert_eq!(history.sent_and_acked(begin, after(49)), 1);
        assert_eq!(history.sent_and_acked(after(1), after(50)), 1);
        assert_eq!(history.count(|told| told == Told::Unknown), 1);
        let millis = |per_mille| history.latency(per_mille).map(|taken| taken.as_millis());
        assert_eq!((millis(0), millis(499), millis(500), millis(1000)), (Some(10), Some(10), Some(30), Some(30)));
        assert_eq!(History::default().latency(500), None);
    }

    #[test]
    fn what_retention_may_take_is_not_missed_but_the_rest_is() {
        let starts = BTreeMap::from([(0, 1)]);
        let kept = Seen::from([(0, BTreeMap::from([(1, Some(2))]))]);
        assert_eq!(history().check(&kept, &starts), []);
        assert!(matches!(history().check(&Seen::new(), &starts)[..], [Violation::Lost { id: 2, .. }]));
    }
}
