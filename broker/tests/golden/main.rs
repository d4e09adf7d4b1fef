//! A data directory of each version of the format, as a broker of its time left it: whoever changes how something is stored
//! sees here whether what people have on their disks is still read, byte for byte.
//!
//! `v1/directory.pack` is the directory, `v1/expected.pack` what its logs must be. They hold: topics, one of them in the
//! trash; logs that were trimmed, truncated, deleted; sealed epochs, a rewritten one, one that was sealed by a recovery and
//! one that was open when the process died; leader epochs, idempotent producers, every compression.
//!
//! A new version gets a folder of its own, made by
//!
//! ```text
//! cargo test -p taffrail-broker --test golden -- --ignored make_the_golden_directory
//! ```
//!
//! which writes into `v<FORMAT_VERSION>` if there is none yet. Those of earlier versions are never made anew: that their
//! makers are gone is what makes them worth keeping.

#![allow(clippy::unwrap_used)]

mod make;
mod pack;

use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;
use futures::executor::block_on;
use taffrail_broker::context::Context;
use taffrail_broker::controller::{Controller, Deleted};
use taffrail_broker::metadata::embedded::EmbeddedStore;
use taffrail_broker::storage::inspect::{Depth, Directory};
use taffrail_broker::storage::{Engine, EngineOptions, FORMAT_VERSION, Log, Storage};
use taffrail_broker::topics::Topics;
use taffrail_proto::record::BatchHeader;

use pack::Pack;

/// Versions that are read.
const VERSIONS: [u32; 1] = [1];

fn folder(version: u32) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("tests/golden/v{version}"))
}

fn options() -> EngineOptions {
    EngineOptions { epoch_bytes: 16 << 10, reader_threads: 2, recent_bytes: 0, ..EngineOptions::default() }
}

/// Runs a controller on an engine for as long as `with` takes. The engine itself is asked outside of the runtime, for it is
/// waited for by blocking.
fn with_controller(engine: &Arc<Engine>, with: impl AsyncFnOnce(&Controller)) {
    let storage: Arc<dyn Storage> = engine.clone();
    let context = Context::system(&*storage.meta()).unwrap();
    let metadata = Arc::new(EmbeddedStore::new(context.clone(), storage.meta()));
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(async {
        let controller = Controller::start(context, storage, metadata, Topics::new()).await.unwrap();
        with(&controller).await;
        controller.stop().await;
    });
}

/// All batches of a log.
fn read_all(log: &dyn Log) -> Vec<(i64, Bytes)> {
    let (mut at, end, mut found) = (log.extent().start, log.extent().end, vec![]);
    while at < end {
        for batch in block_on(log.read(at, end, 1 << 20)).unwrap() {
            let header = BatchHeader::parse(&batch).unwrap();
            at = header.next_offset();
            found.push((header.base_offset, batch));
        }
    }
    found
}

/// What the logs are, as files: state, producers, each batch.
fn describe(engine: &Engine) -> Pack {
    let mut described = Pack::default();
    for log in engine.logs() {
        let (id, partition, extent) = (log.id().0, log.partition(), log.extent());
        let epochs = log.leader_epochs().entries().to_vec();
        let state = format!("{} {} {} {} {epochs:?}", partition.topic, partition.index, extent.start, extent.end);
        described.add(&format!("{id}/state"), state.as_bytes());
        let mut producers = vec![];
        log.producers().encode(&mut producers);
        described.add(&format!("{id}/producers"), &producers);
        for (base, batch) in read_all(&*log) {
            described.add(&format!("{id}/{base}"), &batch);
        }
    }
    described
}

#[test]
fn every_version_of_the_format_is_read_byte_for_byte() {
    for version in VERSIONS {
        let dir = tempfile::tempdir().unwrap();
        let directory = Pack::read(&folder(version).join("directory.pack"));
        directory.unpack(dir.path());
        // Rewritten epochs number from 2^31.
        assert!(directory.names().iter().any(|name| name.starts_with("fronts/21474836")), "version {version}");
        let expected = Pack::read(&folder(version).join("expected.pack"));
        assert!(expected.len() > 100, "{}", expected.len());
        let left = Directory::open(dir.path()).unwrap().inspect(Depth::EveryByte);
        assert_eq!((left.format_version, left.clean, left.open_epochs, &left.faults), (version, false, 1, &vec![]));
        assert!(left.sealed_epochs > 3, "{left:?}");
        // As it was left, then after a close and after a death of this version.
        for close in [true, false, true] {
            let engine = Engine::open(dir.path(), options()).unwrap();
            let found = describe(&engine);
            assert_eq!(found.names(), expected.names(), "version {version}");
            for name in expected.names() {
                assert_eq!(found.file(name), expected.file(name), "version {version}: {name}");
            }
            if close {
                engine.close().unwrap();
            }
        }
        let found = Directory::open(dir.path()).unwrap().inspect(Depth::EveryByte);
        assert_eq!(found.faults, [], "version {version}");
    }
}

#[test]
fn topics_of_every_version_are_served_and_come_back_from_the_trash() {
    for version in VERSIONS {
        let dir = tempfile::tempdir().unwrap();
        Pack::read(&folder(version).join("directory.pack")).unpack(dir.path());
        let engine = Engine::open(dir.path(), options()).unwrap();
        with_controller(&engine, async |controller| {
            let topics = controller.list(true).await.unwrap();
            let topics: Vec<_> = topics.iter().map(|t| (t.name.as_str(), t.partitions, t.trash.is_some())).collect();
            assert_eq!(
                topics,
                [("orders", 3, false), ("payments", 1, false), ("trashed", 2, true)],
                "version {version}"
            );
            let back = controller.undelete(Deleted::Name("trashed".to_owned()), None).await.unwrap();
            assert_eq!((back.partitions, back.trash), (2, None));
            assert!(controller.orphans().await.is_empty());
        });
        engine.close().unwrap();
    }
}

#[test]
fn the_version_that_is_written_is_among_them() {
    assert_eq!(VERSIONS.last(), Some(&FORMAT_VERSION));
    assert!(VERSIONS.iter().all(|&version| folder(version).is_dir()));
}

#[test]
#[ignore = "makes the files that the other tests read"]
fn make_the_golden_directory() {
    let to = folder(FORMAT_VERSION);
    assert!(!to.join("directory.pack").exists(), "{} is there: it stays as it is", to.display());
    let dir = tempfile::tempdir().unwrap();
    let expected = make::make(dir.path());
    std::fs::create_dir_all(&to).unwrap();
    Pack::of(dir.path()).write(&to.join("directory.pack"));
    expected.write(&to.join("expected.pack"));
}
