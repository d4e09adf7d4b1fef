//! SIGKILL at named points: a child process does operations one after the other and counts those that were acknowledged; what
//! a start finds is the state after them, or after one more.

use std::io::Write;
use std::process::{Command, Stdio};

use super::*;
use crate::crash::{VARIABLE, arm_from_environment};
use crate::storage::Extent;
use crate::storage::keys::{DataKey, epoch_last, epoch_start};
use crate::storage::memory::Disk;
use crate::storage::producers::Producers;
use crate::storage::rewrite::rewrite;

const CHILD: &str = "TAFFRAIL_TEST_CRASH_DIR";
const OPERATIONS: usize = 300;

/// One step of a fixed sequence; the same on each storage.
fn operate(storage: &dyn Storage, at: usize) {
    let log = storage.create(partition(0)).unwrap();
    let extent = log.extent();
    let done = match at % 12 {
        // Made above: one operation may leave one trace.
        _ if at == 0 => return,
        5 => log.begin_epoch(at as i32),
        7 => log.trim(extent.start + (extent.end - extent.start) / 3),
        10 if extent.end - extent.start > 6 => log.truncate(last_base(&log)),
        11 => {
            let other = storage.create(partition(at as i32)).unwrap();
            return storage.delete(other.id()).unwrap();
        }
        _ => {
            let producer = BatchProducer { id: (at % 3) as i64, epoch: at as i16, first_sequence: 0 };
            let batch = batch(extent.end, 1 + at as i64 % 3, at as i64, Some(producer));
            let header = BatchHeader::parse(&batch).unwrap();
            let durability = if at.is_multiple_of(2) { Durability::Os } else { Durability::Disk };
            log.append(Append { batch, header, append_time: 7, durability })
        }
    };
    block_on(done).unwrap().unwrap();
}

fn last_base(log: &Arc<dyn Log>) -> i64 {
    let last = block_on(log.read(log.extent().end - 1, i64::MAX, 1)).unwrap();
    BatchHeader::parse(&last[0]).unwrap().base_offset
}

type Seen = Vec<(i64, i64, Vec<(i32, i64)>, Producers, Vec<Bytes>)>;

fn seen(storage: &dyn Storage) -> Seen {
    let see = |log: &Arc<dyn Log>| {
        let (extent, epochs) = (log.extent(), log.leader_epochs().entries().to_vec());
        (extent.start, extent.end, epochs, log.producers(), read_all(log))
    };
    storage.logs().iter().filter(|log| log.partition() == partition(0)).map(see).collect()
}

/// What the child process runs; without its variable it does nothing.
#[test]
fn child() {
    let Some(dir) = std::env::var_os(CHILD) else { return };
    let engine = Engine::open(Path::new(&dir), small()).unwrap();
    arm_from_environment().unwrap();
    for at in 0..OPERATIONS {
        operate(&*engine, at);
        // One byte for each that was acknowledged.
        std::io::stderr().write_all(b".").unwrap();
    }
}

/// Runs a child until it dies, and says how many operations it acknowledged.
fn die(dir: &TempDir, point: CrashPoint, times: u32) -> usize {
    let child = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "storage::engine::tests::crash::child", "--nocapture", "--quiet"])
        .env(CHILD, dir.path())
        .env(VARIABLE, format!("{}:{times}", point.name()))
        .stdout(Stdio::null())
        .output()
        .unwrap();
    assert!(child.status.code().is_none(), "{} was not reached: {:?}", point.name(), child.status);
    child.stderr.split(|&byte| byte == b'.').count() - 1
}

fn survives(point: CrashPoint, times: u32) {
    let dir = tempfile::tempdir().unwrap();
    let acknowledged = die(&dir, point, times);
    let engine = open(&dir);
    assert!(!engine.identity().clean && engine.identity().complete);
    let found = seen(&*engine);
    let model = Disk::new().open();
    (0..acknowledged).for_each(|at| operate(&*model, at));
    let before = seen(&*model);
    operate(&*model, acknowledged);
    let after = seen(&*model);
    assert!(found == before || found == after, "{} {times}: {acknowledged} acknowledged", point.name());
}

#[test]
fn d2_nothing_acknowledged_is_lost_at_any_crash_point_of_the_writer() {
    use CrashPoint::{Append, Delete, Footer, LedgerRecord, MetadataWrite, Seal, Trim, Truncate};
    for point in [Append, Seal, Footer, LedgerRecord, Trim, Truncate, Delete, MetadataWrite] {
        for times in [1, 3] {
            survives(point, times);
        }
    }
}

#[test]
fn d2_what_a_cut_drop_has_left_is_not_taken_for_the_epoch_that_was_open() {
    let dir = tempfile::tempdir().unwrap();
    let engine = open(&dir);
    let (log, shared) = (engine.create(partition(0)).unwrap(), engine.shared());
    let dead = shared.open_epoch.load(Ordering::Relaxed);
    append(&log, 3);
    append(&log, 3);
    shared.seal().unwrap();
    shared.wait_for_files();
    block_on(log.trim(6)).unwrap().unwrap();
    shared.checkpoint(&[shared.cell(log.id()).unwrap()]).unwrap();
    let after = shared.open_epoch.load(Ordering::Relaxed);
    shared.seal().unwrap();
    shared.wait_for_files();
    // What came after it is rewritten and dropped, and of its own files only that with the seal went.
    rewrite(shared, &[after]).unwrap();
    shared.data().delete_file_in_range(epoch_start(after), epoch_last(after)).unwrap();
    for key in [DataKey::Seal { epoch: dead }, DataKey::Footer { epoch: dead, log: log.id() }] {
        shared.data().delete(key.encode()).unwrap();
    }
    drop((log, engine));
    let engine = open(&dir);
    let log = engine.create(partition(0)).unwrap();
    assert_eq!(log.extent(), Extent { start: 6, end: 6 });
    let again = append(&log, 2);
    assert_eq!(read_all(&log), [again]);
}

#[test]
fn d2_a_log_whose_earlier_epochs_were_dropped_goes_on_with_what_its_open_epoch_has() {
    let dir = tempfile::tempdir().unwrap();
    let engine = open(&dir);
    let log = engine.create(partition(0)).unwrap();
    append(&log, 3);
    engine.shared().seal().unwrap();
    engine.shared().wait_for_files();
    let kept = append(&log, 2);
    block_on(log.trim(3)).unwrap().unwrap();
    assert_eq!(engine.maintain(0).unwrap().dropped, 1);
    drop((log, engine));
    let engine = open(&dir);
    let log = engine.create(partition(0)).unwrap();
    assert_eq!(log.extent(), Extent { start: 3, end: 5 });
    assert_eq!(read_all(&log), [kept]);
}
