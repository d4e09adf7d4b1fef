//! The storage engine against SIGKILL: a child process appends, truncates, trims, deletes and runs maintenance, and is
//! killed, at random or at a named crash point. It notes in a journal what it asks for and what was acknowledged. After each
//! death everything acknowledged must be there, byte for byte, and of the rest a prefix of what was asked.

#![allow(clippy::unwrap_used)]

mod child;
mod journal;

use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use taffrail_broker::crash::{CrashPoint, VARIABLE};
use taffrail_broker::storage::producers::{Check, Sequenced};
use taffrail_broker::storage::{Engine, Log, Storage};
use taffrail_proto::record::BatchHeader;

use child::{DIRECTORY, SEED, options, partition, read_all};
use journal::{LogModel, Model, Operation, PARTITIONS, batch};

/// A child that was told to die at a crash point must get there in this time, on a busy machine too.
const PATIENCE: Duration = Duration::from_mins(2);
/// Deaths by chance, and operations that they must have interrupted: where little is done in a life, there are more.
const KILLS: usize = 20;
const OPERATIONS: usize = 500;

/// Not a test of its own: what the child processes run.
#[test]
fn child() {
    if std::env::var_os(DIRECTORY).is_some() {
        child::run();
    }
}

/// A data directory that is killed again and again.
struct Victim {
    dir: tempfile::TempDir,
    model: Model,
    rng: StdRng,
}

impl Victim {
    fn new(seed: u64) -> Self {
        Self { dir: tempfile::tempdir().unwrap(), model: Model::default(), rng: StdRng::seed_from_u64(seed) }
    }

    fn start(&mut self, crash_point: Option<String>) -> Child {
        let mut command = Command::new(std::env::current_exe().unwrap());
        command.args(["--exact", "child", "--nocapture"]).stdout(Stdio::null());
        command.env(DIRECTORY, self.dir.path()).env(SEED, self.rng.random::<u64>().to_string());
        match crash_point {
            Some(point) => command.env(VARIABLE, point),
            None => command.env_remove(VARIABLE),
        };
        command.spawn().unwrap()
    }

    /// Looks at what a death has left; it becomes what the next one must leave.
    fn examine(&mut self, death: &str) {
        let (acknowledged, asked) = journal::take(&journal::path(self.dir.path()));
        for operation in &acknowledged {
            self.model.apply(operation);
        }
        let engine = Engine::open(&self.dir.path().join("data"), options()).unwrap();
        assert!(engine.identity().complete, "{death}");
        let mut found = engine.logs();
        for index in 0..PARTITIONS {
            let at = found.iter().position(|log| log.partition() == partition(index));
            let log = at.map(|at| found.swap_remove(at));
            let asked = asked.iter().filter(|operation| operation.partition() == index);
            let left = possible(self.model.log(index), asked).find(|model| is(log.as_deref(), model.as_ref()));
            let left = left.unwrap_or_else(|| panic!("{death}: {}", differs(log.as_deref(), self.model.log(index))));
            self.model.set(index, left);
        }
        assert!(found.is_empty(), "{death}: logs that nobody made");
    }
}

/// What a log may be: all that was acknowledged, and then a prefix of what was asked.
fn possible<'a>(
    acknowledged: Option<&LogModel>,
    asked: impl Iterator<Item = &'a Operation> + 'a,
) -> impl Iterator<Item = Option<LogModel>> + 'a {
    let mut now = acknowledged.cloned();
    std::iter::once(now.clone()).chain(asked.map(move |operation| {
        journal::apply(&mut now, operation);
        now.clone()
    }))
}

fn is(log: Option<&dyn Log>, model: Option<&LogModel>) -> bool {
    let (Some(log), Some(model)) = (log, model) else { return log.is_none() && model.is_none() };
    log.extent() == model.extent()
        && *log.leader_epochs() == model.epochs
        && read_all(log) == model.stored()
        && knows_its_producer(log, model)
}

/// Each log has one producer, whose sequence numbers are the offsets: the batch at the end comes next, and the last one is
/// known (P1, P5).
fn knows_its_producer(log: &dyn Log, model: &LogModel) -> bool {
    let check = |header: &BatchHeader| log.producers().check(&Sequenced::of(header).unwrap());
    let next = BatchHeader::parse(&batch(log.partition().index, model.extent().end, 1, 10, 0, 0)).unwrap();
    let last = model.stored().last().map(|last| BatchHeader::parse(last).unwrap());
    check(&next) == Ok(Check::Append)
        && last.is_none_or(|last| {
            let (base_offset, end) = (Some(last.base_offset), last.next_offset());
            check(&last) == Ok(Check::Duplicate { base_offset, end })
        })
}

fn differs(log: Option<&dyn Log>, acknowledged: Option<&LogModel>) -> String {
    let found = log.map(|log| {
        let bases = read_all(log).iter().map(|batch| BatchHeader::parse(batch).unwrap().base_offset).collect();
        (log.id(), log.extent(), log.leader_epochs(), bases)
    });
    let found: Option<(_, _, _, Vec<i64>)> = found;
    let wanted = acknowledged.map(|model| (model.extent(), &model.epochs, model.bases()));
    format!("found {found:?}, acknowledged was {wanted:?}")
}

#[test]
fn d2_nothing_acknowledged_is_lost_by_random_kills() {
    let mut victim = Victim::new(1);
    let deadline = Instant::now() + PATIENCE;
    for round in 0.. {
        if round >= KILLS && victim.model.operations() > OPERATIONS {
            break;
        }
        assert!(Instant::now() < deadline, "only {} operations in {round} lives", victim.model.operations());
        let mut child = victim.start(None);
        let life = Duration::from_millis(victim.rng.random_range(20..400));
        std::thread::sleep(life);
        assert!(child.try_wait().unwrap().is_none(), "round {round}: the child ended by itself");
        child.kill().unwrap();
        child.wait().unwrap();
        victim.examine(&format!("round {round}, killed after {life:?}"));
    }
}

#[test]
fn d2_nothing_acknowledged_is_lost_at_any_crash_point() {
    let mut victim = Victim::new(2);
    for times in [1, 3] {
        for point in CrashPoint::STORAGE {
            let name = format!("{}:{times}", point.name());
            let mut child = victim.start(Some(name.clone()));
            die(&mut child, &name);
            victim.examine(&name);
        }
    }
}

/// Waits until the child has killed itself.
fn die(child: &mut Child, point: &str) {
    use std::os::unix::process::ExitStatusExt;
    let started = Instant::now();
    loop {
        if let Some(status) = child.try_wait().unwrap() {
            assert_eq!(status.signal(), Some(9), "{point}: {status}");
            return;
        }
        if started.elapsed() > PATIENCE {
            child.kill().unwrap();
            child.wait().unwrap();
            panic!("{point} was not reached");
        }
        std::thread::sleep(Duration::from_millis(5));
    }
}

#[test]
fn what_was_given_back_stays_given_back() {
    let mut victim = Victim::new(3);
    for round in 0..3 {
        let mut child = victim.start(None);
        std::thread::sleep(Duration::from_millis(400));
        child.kill().unwrap();
        child.wait().unwrap();
        victim.examine(&format!("round {round}"));
    }
    let engine = Engine::open(&victim.dir.path().join("data"), options()).unwrap();
    let log: Arc<dyn Log> = engine.create(partition(0)).unwrap();
    for log in engine.logs() {
        child::wait(log.trim(log.extent().end)).unwrap();
    }
    child::fill_an_epoch(&*log);
    let deadline = Instant::now() + PATIENCE;
    while engine.status().epochs > 4 {
        assert!(Instant::now() < deadline, "{:?}", engine.status());
        engine.maintain(0).unwrap();
        std::thread::sleep(Duration::from_millis(10));
    }
    assert!(Path::new(&victim.dir.path().join("data/data")).exists());
}
