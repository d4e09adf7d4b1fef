//! Appends, reads, leader epochs, producers.

use super::*;
use crate::storage::producers::{Check, EXPIRY_MS, SequenceError, Sequenced};

pub(in crate::storage) fn batches_come_back_byte_for_byte(subject: &mut Subject) {
    let mut written = [Vec::new(), Vec::new()];
    for round in 0..3 {
        for (index, written) in written.iter_mut().enumerate() {
            let log = subject.log(index as i32);
            written.extend(subject.fill(&*log, &[1 + index, 5, 2]));
            assert_eq!(subject.all(&*log), *written, "round {round}");
            assert_eq!(log.size_bytes(), written.iter().map(|batch| batch.len() as u64).sum::<u64>());
        }
        let log = subject.log(0);
        let synced = Batch { base: log.extent().end, durability: Durability::Disk, ..Batch::default() };
        subject.done(log.append(synced.append())).unwrap();
        written[0].push(synced.bytes());
        drop(log);
        subject.reopen();
        assert_eq!(subject.all(&*subject.log(0)), written[0], "round {round}");
        assert_eq!(subject.all(&*subject.log(1)), written[1], "round {round}");
    }
}

pub(in crate::storage) fn r5_a_batch_that_is_not_at_the_end_changes_nothing(subject: &mut Subject) {
    let log = subject.log(0);
    let batches = subject.fill(&*log, &[2, 3]);
    let (before, epochs, producers) = (log.extent(), log.leader_epochs(), log.producers());
    for base in [0, 4, 6, i64::MAX - 10] {
        let wrong = Batch { base, leader_epoch: 9, producer: Some((1, 0, 0)), ..Batch::default() };
        let refused = subject.done(log.append(wrong.append()));
        assert!(matches!(refused, Err(StorageError::WrongOffset { end: 5, base: b }) if b == base), "{refused:?}");
    }
    assert_eq!((log.extent(), log.leader_epochs(), log.producers()), (before, epochs, producers));
    assert_eq!(subject.all(&*log), batches);
}

pub(in crate::storage) fn tickets_resolve_in_order(subject: &mut Subject) {
    let log = subject.log(0);
    let mut tickets = Vec::new();
    for base in 0..20 {
        let durability = if base % 3 == 0 { Durability::Disk } else { Durability::Os };
        tickets.push(log.append(Batch { base, durability, ..Batch::default() }.append()));
    }
    tickets.push(log.truncate(10));
    tickets.push(log.trim(5));
    tickets.push(log.append(Batch { base: 10, leader_epoch: 1, ..Batch::default() }.append()));
    tickets.push(log.begin_epoch(2));
    while let Some(last) = tickets.pop() {
        subject.done(last).unwrap();
        for earlier in &mut tickets {
            assert!(matches!(earlier.try_recv(), Ok(Ok(()))), "an operation is behind a later one");
        }
        tickets.clear();
    }
    assert_eq!(log.extent(), Extent { start: 5, end: 11 });
    assert_eq!(log.leader_epochs().entries().last(), Some(&(2, 11)));
}

pub(in crate::storage) fn a_read_returns_whole_batches_within_its_bounds(subject: &mut Subject) {
    let batches = subject.fill(&*subject.log(0), &[3, 2, 4, 1]);
    let size = batches[0].len();
    for _ in 0..2 {
        let log = subject.log(0);
        let read = |from, before, max| subject.read(&*log, from, before, max).unwrap();
        assert_eq!(read(0, 10, 1 << 20), batches);
        assert_eq!(read(2, 10, 0), batches[..1], "the batch that contains the offset, whatever its size");
        assert_eq!(read(3, 10, batches[1].len() + batches[2].len() - 1), batches[1..2]);
        assert_eq!(read(0, 10, size + batches[1].len()), batches[..2]);
        assert_eq!(read(4, 5, 1 << 20), batches[1..2]);
        assert_eq!(read(0, 6, 1 << 20), batches[..3], "a batch that begins below the bound is whole");
        assert!(read(10, 10, 1 << 20).is_empty());
        assert!(read(5, 5, 1 << 20).is_empty());
        for offset in [-1, 11, i64::MIN, i64::MAX] {
            let refused = subject.read(&*log, offset, 20, 1 << 20);
            assert!(matches!(refused, Err(ReadError::OutOfRange { start: 0, end: 10, .. })), "{refused:?}");
        }
        drop(log);
        subject.reopen();
    }
}

pub(in crate::storage) fn e1_a_leader_epoch_begins_at_the_end_and_survives(subject: &mut Subject) {
    let log = subject.log(0);
    subject.done(log.begin_epoch(3)).unwrap();
    subject.done(log.append(Batch { records: 2, leader_epoch: 3, ..Batch::default() }.append())).unwrap();
    // A follower learns of an epoch by its first batch.
    subject.done(log.append(Batch { base: 2, leader_epoch: 5, ..Batch::default() }.append())).unwrap();
    subject.done(log.begin_epoch(8)).unwrap();
    for epoch in [8, 5, -1] {
        assert!(matches!(subject.done(log.begin_epoch(epoch)), Err(StorageError::OutOfBounds { .. })));
    }
    drop(log);
    for _ in 0..2 {
        assert_eq!(subject.log(0).leader_epochs().entries(), [(3, 0), (5, 2), (8, 3)]);
        subject.reopen();
    }
    subject.done(subject.log(0).truncate(2)).unwrap();
    subject.reopen();
    assert_eq!(subject.log(0).leader_epochs().entries(), [(3, 0), (8, 2)], "fencing never goes back (E5)");
}

pub(in crate::storage) fn p5_producers_survive(subject: &mut Subject) {
    let log = subject.log(0);
    let sent = |base, id, sequence| Batch { base, records: 2, producer: Some((id, 1, sequence)), ..Batch::default() };
    for (i, (id, sequence)) in [(7, 0), (8, 0), (7, 2), (7, 4)].into_iter().enumerate() {
        subject.done(log.append(sent(i as i64 * 2, id, sequence).append())).unwrap();
    }
    let before = log.producers();
    drop(log);
    for _ in 0..2 {
        subject.reopen();
        let producers = subject.log(0).producers();
        assert_eq!(producers, before);
        let check = |batch: Batch| producers.check(&Sequenced::of(&batch.append().header).unwrap());
        assert_eq!(check(sent(8, 7, 2)), Ok(Check::Duplicate { base_offset: Some(4), end: 6 }));
        assert_eq!(check(sent(8, 7, 6)), Ok(Check::Append));
        assert_eq!(check(sent(8, 9, 6)), Err(SequenceError::Unknown));
    }
}

pub(in crate::storage) fn p7_idle_producers_are_forgotten_by_append_times(subject: &mut Subject) {
    let log = subject.log(0);
    let sent = |base, id, append_time| Batch { base, producer: Some((id, 0, 0)), append_time, ..Batch::default() };
    subject.done(log.append(sent(0, 1, 1_000).append())).unwrap();
    subject.done(log.append(sent(1, 2, EXPIRY_MS).append())).unwrap();
    assert_eq!(log.producers().len(), 2);
    subject.done(log.append(sent(2, 3, 1_000 + EXPIRY_MS).append())).unwrap();
    drop(log);
    for _ in 0..2 {
        let producers = subject.log(0).producers();
        assert_eq!([1, 2, 3].map(|id| producers.epoch(id)), [None, Some(0), Some(0)]);
        // After a crash append times are known for each storage epoch only, the newest.
        subject.close();
        subject.reopen();
    }
}
