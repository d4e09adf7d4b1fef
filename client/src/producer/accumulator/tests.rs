use std::time::Duration;

use super::*;
use crate::producer::builder::{Acks, Delivery};
use taffrail_proto::record::{BatchHeader, Compression};

fn settings() -> Settings {
    Settings {
        delivery: Delivery::ExactlyOnce,
        acks: Acks::All,
        compression: Compression::None,
        linger: Duration::from_millis(5),
        batch_size: 1_024,
        buffer_memory: 10_000,
        delivery_timeout: Duration::from_mins(1),
        max_in_flight: 5,
    }
}

fn buffer(slot: u32) -> Arc<PartitionBuffer> {
    PartitionBuffer::new("t".into(), slot as i32, slot)
}

fn add(accumulator: &Accumulator, buffer: &Arc<PartitionBuffer>, value: &[u8]) -> Result<Added> {
    let record = Record::to("t").value(value).timestamp_ms(1);
    let memory = record.size_bound();
    assert!(accumulator.try_reserve(memory));
    accumulator.add(buffer, &record, memory, usize::MAX, true)
}

/// What the sender would take: slot, records, bytes.
fn take(accumulator: &Accumulator) -> Vec<(u32, i32, usize)> {
    let mut taken = Vec::new();
    accumulator.take_sealed(|buffer, batch| {
        assert_eq!(BatchHeader::parse(&batch.bytes).unwrap().record_count, batch.records);
        taken.push((buffer.slot, batch.records, batch.bytes.len()));
    });
    taken
}

#[tokio::test]
async fn a_batch_leaves_when_it_is_full_or_its_linger_has_passed() {
    let (accumulator, buffer) = (Accumulator::new(settings()), buffer(1));
    let sealed: Vec<_> = (0..12).map(|_| add(&accumulator, &buffer, &[0; 90]).unwrap().sealed).collect();
    assert_eq!(sealed.iter().filter(|s| **s).count(), 1);
    let taken = take(&accumulator);
    assert_eq!(taken.len(), 1);
    let (_, records, bytes) = taken[0];
    assert!(bytes <= 1_024, "{bytes}");

    let early = Instant::now().checked_sub(Duration::from_secs(1)).unwrap();
    let end = accumulator.seal_lingered(early).expect("a batch is open");
    assert!(take(&accumulator).is_empty());
    assert_eq!(accumulator.seal_lingered(end + Duration::from_secs(1)), None);
    assert_eq!(take(&accumulator).iter().map(|t| t.1).sum::<i32>() + records, 12);
}

#[tokio::test]
async fn batches_of_a_partition_leave_in_their_order_and_flush_takes_all() {
    let accumulator = Accumulator::new(settings());
    let buffers = [buffer(1), buffer(2)];
    for size in [500, 600, 700, 10] {
        for buffer in &buffers {
            let _ = add(&accumulator, buffer, &vec![0; size]).unwrap();
        }
    }
    accumulator.seal_all();
    let taken = take(&accumulator);
    for slot in [1, 2] {
        let records: Vec<_> = taken.iter().filter(|t| t.0 == slot).map(|t| t.1).collect();
        assert_eq!(records, [1, 1, 2], "500, 600, then 700 with 10");
    }
}

#[tokio::test]
async fn a_record_that_does_not_fit_the_topic_is_refused_and_leaves_nothing_behind() {
    let (accumulator, buffer) = (Accumulator::new(settings()), buffer(1));
    let record = Record::to("t").value(&[0; 200]);
    let refused = accumulator.add(&buffer, &record, record.size_bound(), 100, false);
    assert_eq!(refused.err().unwrap().kind(), ErrorKind::RecordRefused);
    let key = vec![0; 70_000];
    let record = Record::to("t").key(&key);
    let refused = accumulator.add(&buffer, &record, record.size_bound(), usize::MAX, false);
    assert_eq!(refused.err().unwrap().kind(), ErrorKind::RecordRefused);
    accumulator.seal_all();
    assert!(take(&accumulator).is_empty());
}

#[tokio::test]
async fn a_full_buffer_makes_senders_wait_until_bytes_come_back() {
    let accumulator = Arc::new(Accumulator::new(settings()));
    let buffer = buffer(1);
    while accumulator.buffered() < 10_000 {
        let _ = add(&accumulator, &buffer, &[0; 100]).unwrap();
    }
    let full = accumulator.buffered();
    assert!(!accumulator.try_reserve(1));
    let waiting = tokio::spawn({
        let accumulator = accumulator.clone();
        async move { accumulator.reserve(140).await }
    });
    tokio::task::yield_now().await;
    assert!(!waiting.is_finished());
    assert_eq!(accumulator.seal_lingered(Instant::now()), None, "what was open was sealed, since nobody can fill it");
    accumulator.release(1_400);
    waiting.await.unwrap();
    assert_eq!(accumulator.buffered(), full - 1_400 + 140);
}
