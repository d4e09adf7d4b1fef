//! Records by timestamp.

use super::*;
use crate::storage::TimestampHit;

/// Three batches: offsets 0–2 at 100, 110, 120; 3–5 at 300, 310, 320; 6–8 at 200, 210, 220.
fn filled(subject: &Subject) -> Arc<dyn Log> {
    let log = subject.log(0);
    for (base, timestamp) in [(0, 100), (3, 300), (6, 200)] {
        subject.done(log.append(Batch { base, records: 3, timestamp, ..Batch::default() }.append())).unwrap();
    }
    log
}

pub(in crate::storage) fn a_record_is_found_by_its_timestamp(subject: &mut Subject) {
    drop(filled(subject));
    for start in [0, 1, 4] {
        let log = subject.log(0);
        subject.done(log.trim(start)).unwrap();
        let find = |timestamp, before| {
            let hit = subject.wait(log.find_timestamp(timestamp, before)).unwrap();
            hit.map(|TimestampHit { offset, timestamp }| (offset, timestamp))
        };
        let first = |offset: i64| {
            if start > offset {
                [(0, 0), (1, 110), (4, 310)].into_iter().find(|f| f.0 == start)
            } else {
                Some((offset, 100 + offset * 10))
            }
        };
        assert_eq!(find(i64::MIN, 9), first(0), "start {start}");
        assert_eq!(find(105, 9), first(1));
        assert_eq!(find(315, 9), Some((5, 320)));
        assert_eq!(find(315, 5), None, "the bound is exclusive");
        assert_eq!((find(321, 9), find(i64::MAX, 9)), (None, None));
        drop(log);
        subject.reopen();
    }
}

pub(in crate::storage) fn the_newest_timestamp_is_found(subject: &mut Subject) {
    assert_eq!(subject.wait(subject.log(0).max_timestamp(10)).unwrap(), None);
    drop(filled(subject));
    for _ in 0..2 {
        let log = subject.log(0);
        let newest = |before| subject.wait(log.max_timestamp(before)).unwrap().map(|hit| (hit.offset, hit.timestamp));
        assert_eq!(newest(9), Some((5, 320)));
        assert_eq!(newest(5), Some((4, 310)), "only records below the bound count");
        assert_eq!((newest(2), newest(0)), (Some((1, 110)), None));
        drop(log);
        subject.reopen();
    }
    let log = subject.log(0);
    subject.done(log.trim(6)).unwrap();
    assert_eq!(subject.wait(log.max_timestamp(9)).unwrap().map(|hit| hit.offset), Some(8));
    subject.done(log.trim(9)).unwrap();
    assert_eq!(subject.wait(log.max_timestamp(9)).unwrap(), None);
}
