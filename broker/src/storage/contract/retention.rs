//! Truncation, trim, and what they leave.

use super::*;

pub(in crate::storage) fn r2_offsets_never_restart(subject: &mut Subject) {
    let log = subject.log(0);
    subject.done(log.begin_epoch(4)).unwrap();
    subject.done(log.append(Batch { records: 3, leader_epoch: 4, ..Batch::default() }.append())).unwrap();
    subject.fill(&*log, &[3]);
    subject.done(log.trim(6)).unwrap();
    drop(log);
    for round in 0..3 {
        subject.storage().maintain(1_000).unwrap();
        subject.reopen();
        let log = subject.log(0);
        assert_eq!(log.extent(), Extent { start: 6, end: 6 }, "round {round}");
        assert_eq!((log.leader_epochs().latest(), log.size_bytes()), (Some(4), 0));
    }
    let log = subject.log(0);
    let batches = subject.fill(&*log, &[2]);
    assert_eq!(BatchHeader::parse(&batches[0]).unwrap().base_offset, 6);
    assert_eq!(subject.all(&*log), batches);
}

pub(in crate::storage) fn q1_the_start_only_rises(subject: &mut Subject) {
    let log = subject.log(0);
    let batches = subject.fill(&*log, &[4, 4, 4]);
    subject.done(log.trim(5)).unwrap();
    for start in [4, -1, 13] {
        let refused = subject.done(log.trim(start));
        assert!(matches!(refused, Err(StorageError::OutOfBounds { .. })), "{start}: {refused:?}");
    }
    subject.done(log.trim(5)).unwrap();
    drop(log);
    for _ in 0..2 {
        let log = subject.log(0);
        assert_eq!(log.extent(), Extent { start: 5, end: 12 });
        assert_eq!(subject.all(&*log), batches[1..], "the batch that holds the start is whole");
        let refused = subject.read(&*log, 4, 12, 1 << 20);
        assert!(matches!(refused, Err(ReadError::OutOfRange { start: 5, end: 12, .. })), "{refused:?}");
        drop(log);
        subject.reopen();
    }
}

pub(in crate::storage) fn truncation_removes_the_end(subject: &mut Subject) {
    let log = subject.log(0);
    let batches = subject.fill(&*log, &[4, 4, 4]);
    subject.done(log.truncate(12)).unwrap();
    assert_eq!(subject.all(&*log), batches);
    subject.done(log.truncate(4)).unwrap();
    assert_eq!((log.extent().end, subject.all(&*log)), (4, batches[..1].to_vec()));
    // Other records at the same offsets, with other batch boundaries.
    let other = Batch { base: 4, records: 6, leader_epoch: 1, ..Batch::default() };
    subject.done(log.append(other.append())).unwrap();
    drop(log);
    for _ in 0..2 {
        let log = subject.log(0);
        assert_eq!(subject.all(&*log), [batches[0].clone(), other.bytes()]);
        assert_eq!(log.extent(), Extent { start: 0, end: 10 });
        drop(log);
        subject.reopen();
    }
    // To the beginning, after a restart, and on.
    let log = subject.log(0);
    subject.done(log.truncate(0)).unwrap();
    assert_eq!((log.extent(), log.size_bytes()), (Extent::default(), 0));
    let batches = subject.fill(&*log, &[1, 1]);
    drop(log);
    subject.reopen();
    assert_eq!(subject.all(&*subject.log(0)), batches);
}

pub(in crate::storage) fn truncation_outside_changes_nothing(subject: &mut Subject) {
    let log = subject.log(0);
    let batches = subject.fill(&*log, &[4, 4]);
    subject.done(log.trim(4)).unwrap();
    for end in [3, -1, 9] {
        let refused = subject.done(log.truncate(end));
        assert!(matches!(refused, Err(StorageError::OutOfBounds { .. })), "{end}: {refused:?}");
    }
    assert_eq!(subject.all(&*log), batches[1..]);
}

pub(in crate::storage) fn r2_a_log_that_begins_anew_is_empty_and_goes_on_there(subject: &mut Subject) {
    let log = subject.log(0);
    subject.done(log.append(Batch { records: 4, producer: Some((3, 2, 0)), ..Batch::default() }.append())).unwrap();
    subject.done(log.append(Batch { base: 4, leader_epoch: 3, ..Batch::default() }.append())).unwrap();
    subject.done(log.trim(2)).unwrap();
    assert!(matches!(subject.done(log.restart(1)), Err(StorageError::OutOfBounds { .. })));
    drop(log);
    // Above the end, and, with batches of the same storage epoch, within a batch.
    for (at, records) in [(100, 6), (103, 1)] {
        subject.done(subject.log(0).restart(at)).unwrap();
        for _ in 0..2 {
            let log = subject.log(0);
            assert_eq!((log.extent(), log.size_bytes()), (Extent { start: at, end: at }, 0));
            assert_eq!(log.leader_epochs().entries(), [(3, at)], "fencing never goes back (E5)");
            assert!(log.producers().is_empty() && log.spans().is_empty() && subject.all(&*log).is_empty());
            let refused = subject.read(&*log, 0, at, 1 << 20);
            assert!(matches!(refused, Err(ReadError::OutOfRange { .. })), "{refused:?}");
            drop(log);
            subject.reopen();
        }
        let log = subject.log(0);
        let batches = subject.fill(&*log, &[records]);
        assert_eq!(subject.all(&*log), batches);
        // Followers get older batches than the newest epoch that was begun here: history tells theirs.
        assert_eq!(log.leader_epochs().at(at), Some(0));
        assert_eq!(log.leader_epochs().latest(), Some(3));
        drop(log);
        subject.reopen();
        assert_eq!(subject.all(&*subject.log(0)), batches);
        assert_eq!(subject.log(0).leader_epochs().entries(), [(0, at), (3, at + records as i64)]);
        subject.storage().maintain(1_000).unwrap();
    }
}

pub(in crate::storage) fn spans_cover_the_log_in_order(subject: &mut Subject) {
    let big = Batch { value: 20_000, ..Batch::default() };
    let mut base = 0;
    for round in 0..3 {
        let log = subject.log(0);
        for _ in 0..10 {
            subject.done(log.append(Batch { base, append_time: base * 1000, ..big }.append())).unwrap();
            base += 1;
        }
        let spans = log.spans();
        let mut next = 0;
        for span in &spans {
            assert_eq!(span.first, next, "round {round}: {spans:?}");
            assert!(span.last >= span.first && span.max_append_time == span.last * 1000, "{span:?}");
            assert!(span.bytes >= (span.last - span.first + 1) as u64 * 20_000);
            next = span.last + 1;
        }
        assert!(next <= base);
        drop(log);
        subject.close();
        subject.reopen();
    }
    let log = subject.log(0);
    let spans = log.spans();
    assert!(!spans.is_empty(), "what a start found is sealed");
    subject.done(log.trim(spans[0].last + 1)).unwrap();
    assert!(log.spans().first().is_none_or(|span| span.first == spans[0].last + 1));
}

pub(in crate::storage) fn p6_producers_outlive_their_batches(subject: &mut Subject) {
    let log = subject.log(0);
    subject.done(log.append(Batch { records: 2, producer: Some((3, 2, 0)), ..Batch::default() }.append())).unwrap();
    let before = log.producers();
    subject.done(log.trim(2)).unwrap();
    drop(log);
    for _ in 0..3 {
        assert_eq!(subject.log(0).producers(), before);
        subject.storage().maintain(1_000).unwrap();
        subject.reopen();
    }
}
