//! Makes a data directory with everything in it that the format knows. Runs once for each version.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use bytes::BytesMut;
use futures::executor::block_on;
use taffrail_broker::controller::NewTopic;
use taffrail_broker::storage::producers::{Check, Sequenced, SequencedBatch};
use taffrail_broker::storage::{Append, Durability, Engine, Log, PartitionId, Storage, Ticket};
use taffrail_proto::record::header::{set_base_offset, set_leader_epoch};
use taffrail_proto::record::{BatchBuilder, BatchHeader, BatchProducer, Compression};
use uuid::Uuid;

use crate::pack::Pack;
use crate::{describe, options, with_controller};

const CODECS: [Compression; 5] =
    [Compression::None, Compression::Gzip, Compression::Snappy, Compression::Lz4, Compression::Zstd];

/// Fills the directory and leaves it as a death would; answers what its logs are.
pub(crate) fn make(dir: &Path) -> Pack {
    let mut time = 0;
    topics(dir);
    {
        let engine = Engine::open(dir, options()).unwrap();
        fill(&engine, &mut time, 30);
        delete_a_log(&engine, &mut time);
        // What is left of the first epochs is rewritten.
        trim_most(&engine);
        fill(&engine, &mut time, 10);
        rewrite(&engine);
        // Ends as by a death: the next start seals what is open.
    }
    {
        let engine = Engine::open(dir, options()).unwrap();
        with_controller(&engine, async |controller| {
            controller.delete("trashed", None).await.unwrap();
        });
        fill(&engine, &mut time, 8);
        engine.close().unwrap();
    }
    let engine = Engine::open(dir, options()).unwrap();
    fill(&engine, &mut time, 3);
    change_what_is_open(&engine, &mut time);
    describe(&engine)
}

fn topics(dir: &Path) {
    let engine = Engine::open(dir, options()).unwrap();
    with_controller(&engine, async |controller| {
        for (name, partitions) in [("orders", 3), ("payments", 1), ("trashed", 2)] {
            let config = vec![("retention".to_owned(), "7d".to_owned())];
            let topic = NewTopic { name: name.to_owned(), partitions: Some(partitions), config, ..NewTopic::default() };
            controller.create(topic, false).await.unwrap();
        }
    });
    engine.close().unwrap();
}

fn done(ticket: Ticket) {
    block_on(ticket).unwrap().unwrap();
}

/// Appends to all logs in turn.
fn fill(engine: &Engine, time: &mut i64, rounds: usize) {
    for round in 0..rounds {
        for log in engine.logs() {
            append(&log, time, round);
        }
    }
    for log in engine.logs().iter().skip(1) {
        done(log.begin_epoch(log.leader_epochs().latest().map_or(0, |epoch| epoch + 1)));
    }
}

/// A batch of a few records; every other one of an idempotent producer, and with a codec of its own. Append times are whole
/// seconds apart, for a start knows no more of those in the open epoch.
fn append(log: &Arc<dyn Log>, time: &mut i64, round: usize) {
    *time += 1000;
    let base = log.extent().end;
    let mut builder = BatchBuilder::new();
    for record in 0..=round % 3 {
        let value: Vec<u8> = (0..250).map(|at| (base as u8).wrapping_mul(31) ^ (at as u8 >> (record + 2))).collect();
        let key = format!("key-{record}");
        let headers = [("trace", Some(&b"golden"[..]))];
        builder.push(Some(key.as_bytes()), Some(&value), headers, 1_700_000_000_000 + base).unwrap();
    }
    let id = i64::from(log.id().0) * 10 + (round % 2) as i64;
    let next = next_sequence(log, id);
    let producer = round.is_multiple_of(2).then_some(BatchProducer { id, epoch: 3, first_sequence: next });
    let built = builder.build(CODECS[(round + log.id().0 as usize) % CODECS.len()], producer).unwrap();
    let mut bytes = BytesMut::from(&built[..]);
    set_base_offset(&mut bytes, base);
    set_leader_epoch(&mut bytes, log.leader_epochs().latest().unwrap_or(0));
    let batch = bytes.freeze();
    let header = BatchHeader::parse(&batch).unwrap();
    done(log.append(Append { batch, header, append_time: *time, durability: Durability::Disk }));
}

/// By trying, for what is known of a producer can only be asked about a batch.
fn next_sequence(log: &Arc<dyn Log>, id: i64) -> i32 {
    let sequenced = |first_sequence| {
        let batch = SequencedBatch {
            first_sequence,
            last_sequence: first_sequence,
            base_offset: 0,
            last_offset: 0,
            timestamp: 0,
        };
        Sequenced { id, epoch: 3, batch }
    };
    let producers = log.producers();
    (0..1000).find(|&first| producers.check(&sequenced(first)) == Ok(Check::Append)).unwrap()
}

fn delete_a_log(engine: &Engine, time: &mut i64) {
    let log = engine.create(PartitionId { topic: Uuid::from_u128(99), index: 0 }).unwrap();
    (0..20).for_each(|round| append(&log, time, round));
    engine.delete(log.id()).unwrap();
}

fn trim_most(engine: &Engine) {
    for log in engine.logs().iter().skip(1) {
        done(log.trim(log.extent().end - 5));
    }
}

/// Rounds until something was rewritten: files must reach their level first.
fn rewrite(engine: &Engine) {
    for _ in 0..200 {
        if engine.maintain(0).unwrap().rewritten > 0 {
            return;
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    panic!("nothing was rewritten");
}

/// Ledger records in the epoch that stays open.
fn change_what_is_open(engine: &Engine, time: &mut i64) {
    let logs = engine.logs();
    done(logs[0].trim(logs[0].extent().start + 3));
    append(&logs[1], time, 0);
    let end = logs[1].extent().end - 1;
    let last = block_on(logs[1].read(end, i64::MAX, 1)).unwrap();
    done(logs[1].truncate(BatchHeader::parse(&last[0]).unwrap().base_offset));
    append(&logs[1], time, 1);
    done(logs[2].begin_epoch(40));
    append(&logs[2], time, 4);
}
