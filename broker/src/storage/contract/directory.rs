//! Logs as a whole, metadata, identity.

use super::*;

pub(in crate::storage) fn a_partition_has_one_log(subject: &mut Subject) {
    let (one, two) = (subject.log(0), subject.log(1));
    assert_ne!(one.id(), two.id());
    assert_eq!((one.partition(), one.extent()), (partition(0), Extent::default()));
    subject.fill(&*one, &[3]);
    assert_eq!((subject.log(0).id(), subject.log(0).extent().end), (one.id(), 3));
    let ids = [one.id(), two.id()];
    drop((one, two));
    subject.reopen();
    assert_eq!([subject.log(0).id(), subject.log(1).id()], ids);
    assert_eq!(subject.storage().logs().len(), 2);
}

pub(in crate::storage) fn many_logs_are_made_at_once_in_the_order_asked_for(subject: &mut Subject) {
    let there = subject.log(7);
    subject.fill(&*there, &[2]);
    let asked: Vec<_> = (0..300).rev().map(partition).chain([partition(5)]).collect();
    let made = subject.storage().create_all(&asked).unwrap();
    let holds: Vec<_> = made.iter().map(|log| log.partition()).collect();
    assert_eq!(holds, asked);
    assert_eq!((made[292].id(), made[292].extent().end), (there.id(), 2), "what was there stays");
    assert_eq!(made[300].id(), made[294].id(), "asked for twice, made once");
    let ids: std::collections::BTreeSet<_> = made.iter().map(|log| log.id()).collect();
    assert_eq!((ids.len(), subject.storage().logs().len()), (300, 300));
    assert!(subject.storage().create_all(&[]).unwrap().is_empty());
    drop((there, made));
    subject.reopen();
    let again: std::collections::BTreeSet<_> = subject.storage().logs().iter().map(|log| log.id()).collect();
    assert_eq!(again, ids);
}

pub(in crate::storage) fn a_deleted_log_is_gone_for_good(subject: &mut Subject) {
    let (log, other) = (subject.log(0), subject.log(1));
    subject.fill(&*log, &[2, 2]);
    let kept = subject.fill(&*other, &[3]);
    let id = log.id();
    subject.storage().delete(id).unwrap();
    assert!(matches!(subject.storage().delete(id), Err(StorageError::NoSuchLog(_))));
    let late = subject.done(log.append(Batch { base: 4, ..Batch::default() }.append()));
    assert!(matches!(late, Err(StorageError::NoSuchLog(_))), "{late:?}");
    drop((log, other));
    for round in 0..2 {
        assert_eq!(subject.storage().logs().len(), 1 + round.min(1));
        let again = subject.log(0);
        assert!(again.id() > id);
        assert_eq!((again.extent().start, again.extent().end), (0, round as i64));
        subject.fill(&*again, &[1]);
        assert_eq!(subject.all(&*again).len(), round + 1);
        assert_eq!(subject.all(&*subject.log(1)), kept);
        drop(again);
        subject.reopen();
    }
}

pub(in crate::storage) fn metadata_survives(subject: &mut Subject) {
    let set = |key: &str, value: &str| (key.as_bytes().to_vec(), Some(value.as_bytes().to_vec()));
    subject.storage().meta().write(vec![set("a/2", "two"), set("a/1", "one"), set("b", "x"), set("a", "")]).unwrap();
    subject.storage().meta().write(vec![(b"b".to_vec(), None), set("a/2", "zwei"), (b"none".to_vec(), None)]).unwrap();
    for _ in 0..2 {
        let meta = subject.storage().meta();
        assert_eq!((meta.get(b"b").unwrap(), meta.get(b"a/2").unwrap()), (None, Some(b"zwei".to_vec())));
        let below: Vec<_> = meta.scan(b"a/").unwrap();
        assert_eq!(below, [(b"a/1".to_vec(), b"one".to_vec()), (b"a/2".to_vec(), b"zwei".to_vec())]);
        assert_eq!(meta.scan(b"").unwrap().len(), 3);
        drop(meta);
        subject.reopen();
    }
}

pub(in crate::storage) fn identity_tells_how_it_was_left(subject: &mut Subject) {
    let first = subject.storage().identity();
    assert_eq!((first.incarnation, first.complete), (1, true));
    subject.fill(&*subject.log(0), &[1]);
    subject.reopen();
    let killed = subject.storage().identity();
    assert_eq!((killed.incarnation, killed.clean, killed.complete), (2, false, true));
    subject.close();
    subject.reopen();
    let closed = subject.storage().identity();
    assert_eq!((closed.incarnation, closed.clean, closed.complete), (3, true, true));
    assert_eq!((first.storage, killed.storage), (closed.storage, closed.storage));
}

pub(in crate::storage) fn a_closed_storage_takes_no_writes(subject: &mut Subject) {
    let log = subject.log(0);
    let batches = subject.fill(&*log, &[2]);
    subject.close();
    // The outcome of a write that reaches a closed storage: refused, or the sender is gone.
    let late = subject.wait(log.append(Batch { base: 2, ..Batch::default() }.append()));
    assert!(matches!(late, Err(_) | Ok(Err(StorageError::Closed))), "{late:?}");
    assert!(subject.storage().create(partition(1)).is_err());
    drop(log);
    subject.reopen();
    assert_eq!(subject.all(&*subject.log(0)), batches);
}
