//! The real program as a process: start, readiness, signals, exit codes, the manifest, the data directory's lock.

mod groups;
mod program;

use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use futures::{StreamExt, stream};
use program::{Broker, run};
use rustix::process::Signal;
use taffrail_proto::v1::consumer_client::ConsumerClient;
use taffrail_proto::v1::fetch_stream_request::Frame;
use taffrail_proto::v1::producer_client::ProducerClient;
use taffrail_proto::v1::{FetchOpen, FetchStreamRequest, ProduceRequest, Record};
use tempfile::TempDir;

const TOPICS: &str =
    "apiVersion: taffrail.dev/v1alpha1\nkind: Topic\nmetadata:\n  name: orders\nspec:\n  partitions: 3\n";

#[test]
fn it_gets_ready_and_stops_properly_on_either_signal() {
    let dir = TempDir::new().unwrap();
    for (signal, clean) in [(Signal::TERM, true), (Signal::INT, true)] {
        let mut broker = Broker::start(dir.path(), &[]);
        let opened = broker.wait_for("storage is open");
        assert_eq!(opened["clean"], clean, "{opened}");
        broker.wait_for("ready");
        assert_eq!(broker.get("/readyz"), (200, "ready\n".to_owned()));
        assert_eq!(broker.get("/livez").0, 200);
        broker.signal(signal);
        broker.wait_for("draining: not ready any more");
        assert_eq!(broker.exit_code(), 0);
        broker.wait_for("stopped");
    }
}

#[test]
fn after_sigkill_it_starts_again_and_knows_that_it_was_not_closed() {
    let dir = TempDir::new().unwrap();
    let mut broker = Broker::start(dir.path(), &[]);
    broker.wait_for("ready");
    broker.signal(Signal::KILL);
    broker.exit_code();
    let mut broker = Broker::start(dir.path(), &[]);
    assert_eq!(broker.wait_for("storage is open")["clean"], false);
    broker.wait_for("ready");
}

#[test]
fn a_second_start_on_the_same_directory_is_refused_with_the_holders_pid() {
    let dir = TempDir::new().unwrap();
    let mut broker = Broker::start(dir.path(), &[]);
    broker.wait_for("ready");
    let mut second = Broker::start(dir.path(), &[]);
    assert_eq!(second.exit_code(), 3);
    let pid = format!("in use by process {}", broker.pid());
    second.wait_for_part(&pid);
    for command in ["inspect", "verify"] {
        let tool = run(&[command, "--data-dir", dir.path().to_str().unwrap()], &[]);
        assert_eq!(tool.code, 3, "{command}: {}", tool.stderr);
        assert!(tool.stderr.contains(&pid), "{}", tool.stderr);
    }
    assert_eq!(broker.get("/readyz").0, 200);
}

#[test]
fn a_second_signal_ends_it_at_once() {
    let dir = TempDir::new().unwrap();
    let mut broker = Broker::start(dir.path(), &[]);
    broker.wait_for("ready");
    // A client that does not leave when it is told to keeps the drain waiting.
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let endpoint = format!("http://{}", broker.listener());
    let open = FetchStreamRequest { frame: Some(Frame::Open(FetchOpen::default())) };
    let frames = stream::iter([open]).chain(stream::pending());
    let stays = runtime.block_on(async {
        let mut client = ConsumerClient::connect(endpoint).await.unwrap();
        client.fetch_stream(frames).await.unwrap()
    });
    broker.signal(Signal::TERM);
    // The same wish again, as `timeout` sends it: no second thought.
    std::thread::sleep(Duration::from_millis(50));
    broker.signal(Signal::TERM);
    broker.wait_for("draining: not ready any more");
    assert_eq!(broker.get("/readyz").0, 503);
    std::thread::sleep(Duration::from_millis(1100));
    assert_eq!(broker.get("/livez").0, 200);
    let asked = Instant::now();
    broker.signal(Signal::TERM);
    assert_eq!(broker.exit_code(), 143);
    assert!(asked.elapsed() < Duration::from_secs(3), "{:?}", asked.elapsed());
    drop(stays);
}

#[test]
fn a_wrong_manifest_keeps_it_from_starting_and_every_fault_has_its_line() {
    let dir = TempDir::new().unwrap();
    let file = dir.path().join("topics.yaml");
    fs::write(&file, TOPICS.replace("partitions: 3", "partitions: 0\n  colour: red")).unwrap();
    let mut broker = Broker::start(&dir.path().join("data"), &["--manifest", file.to_str().unwrap()]);
    assert_eq!(broker.exit_code(), 2);
    for line in ["topics.yaml:6:", "topics.yaml:7:"] {
        broker.wait_for_part(line);
    }
}

/// The manifest with other partitions, whole at any moment.
fn replace(file: &Path, partitions: &str) {
    let next = file.with_extension("next");
    fs::write(&next, TOPICS.replace("partitions: 3", partitions)).expect("a file beside it");
    fs::rename(next, file).expect("the same file system");
}

#[test]
fn the_manifest_is_followed_and_what_is_wrong_in_it_changes_nothing() {
    let dir = TempDir::new().unwrap();
    let file = dir.path().join("topics.yaml");
    fs::write(&file, TOPICS).unwrap();
    let mut broker = Broker::start(&dir.path().join("data"), &["--manifest", file.to_str().unwrap()]);
    assert_eq!(broker.wait_for("manifest applied")["created"], 1);
    broker.wait_for("ready");
    assert_eq!(broker.metric("taffrail_partitions"), Some(3.0));

    replace(&file, "partitions: 5");
    assert_eq!(broker.wait_for("manifest applied")["changed"], 1);
    assert_eq!(broker.metric("taffrail_partitions"), Some(5.0));

    replace(&file, "partitions: many");
    broker.wait_for("the changed manifest is wrong: topics stay as they are");
    broker.wait_for_part("topics.yaml:6:");
    assert_eq!((broker.metric("taffrail_partitions"), broker.get("/readyz").0), (Some(5.0), 200));

    replace(&file, "partitions: 6");
    assert_eq!(broker.wait_for("manifest applied")["changed"], 1);
    assert_eq!(broker.metric("taffrail_partitions"), Some(6.0));
}

/// Appends records one by one, so that each is a record of the write-ahead log.
fn produce(broker: &mut Broker, records: usize) {
    let endpoint = format!("http://{}", broker.listener());
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    runtime.block_on(async {
        let mut client = ProducerClient::connect(endpoint).await.expect("it listens");
        for _ in 0..records {
            let record = Record { value: Some(vec![7; 500].into()), ..Record::default() };
            let (topic, records) = ("orders".to_owned(), vec![record]);
            client.produce(ProduceRequest { topic, records, ..ProduceRequest::default() }).await.expect("it appends");
        }
    });
}

/// Flips a bit in the middle of what the write-ahead log holds; answers the file.
fn damage_log(data: &Path) -> PathBuf {
    let files = fs::read_dir(data.join("data")).expect("a data directory").filter_map(|entry| Some(entry.ok()?.path()));
    let logs = files.filter(|path| path.extension().is_some_and(|e| e == "log"));
    let file = logs.max_by_key(|path| fs::metadata(path).map_or(0, |found| found.len())).expect("a log");
    let mut bytes = fs::read(&file).expect("it can be read");
    let written = bytes.iter().rposition(|&byte| byte == 7).expect("records");
    bytes[written / 2] ^= 1;
    fs::write(&file, bytes).expect("it can be written");
    file
}

#[test]
fn d6_a_damaged_log_is_told_by_file_and_byte_and_given_up_only_when_a_person_says_so() {
    let dir = TempDir::new().unwrap();
    let (data, manifest) = (dir.path().join("data"), dir.path().join("topics.yaml"));
    fs::write(&manifest, TOPICS).unwrap();
    let mut broker = Broker::start(&data, &["--manifest", manifest.to_str().unwrap()]);
    broker.wait_for("ready");
    produce(&mut broker, 200);
    broker.signal(Signal::KILL);
    broker.exit_code();
    let file = damage_log(&data).display().to_string();

    let mut broker = Broker::start(&data, &[]);
    broker.wait_for("data is damaged: not ready");
    let (status, body) = broker.get("/readyz");
    assert!(status == 503 && body.contains(&format!("{file} is damaged at byte ")), "{body}");
    assert!(body.contains("taffrail-broker recover --data-dir"), "{body}");
    assert_eq!(broker.get("/livez").0, 200);
    broker.signal(Signal::TERM);
    assert_eq!(broker.exit_code(), 4);

    let data_dir = data.to_str().unwrap();
    let asked = run(&["recover", "--data-dir", data_dir], &[]);
    assert!(asked.code == 4 && asked.stderr.contains("--accept-loss"), "{}", asked.stderr);
    // Three of the topic, and those of the internal topic of consumer groups.
    let accepted = run(&["recover", "--data-dir", data_dir, "--accept-loss"], &[]);
    assert!(
        accepted.code == 0 && accepted.stdout.contains("19 partitions begin a new leader epoch"),
        "{}",
        accepted.stderr
    );

    let mut broker = Broker::start(&data, &[]);
    broker.wait_for("ready");
    produce(&mut broker, 10);
}

#[test]
fn all_faults_of_the_configuration_are_told_and_exit_with_2() {
    let refused = run(
        &["standalone", "--memory-limit", "5", "--listen", "grpc://0.0.0.0:0"],
        &[("TAFFRAIL_LOG_FORMAT", "xml"), ("TAFFRAIL_DEFAULT_PARTITIONS", "0")],
    );
    assert_eq!(refused.code, 2);
    for part in ["--memory-limit: ", "TAFFRAIL_LOG_FORMAT: ", "TAFFRAIL_DEFAULT_PARTITIONS: ", "3 things are wrong"] {
        assert!(refused.stderr.contains(part), "{part} is not in {}", refused.stderr);
    }
    let exposed = run(&["standalone", "--listen", "grpc://0.0.0.0:0"], &[]);
    assert_eq!(exposed.code, 2);
    assert!(
        exposed.stderr.contains("--token-file") && exposed.stderr.contains("--allow-anonymous"),
        "{}",
        exposed.stderr
    );
    assert_eq!(run(&["standalone", "--unknown"], &[]).code, 2);
}

#[test]
fn config_shows_what_is_in_force_and_where_it_comes_from() {
    let shown = run(&["config", "--data-dir", "/tmp/x"], &[("TAFFRAIL_MEMORY_LIMIT", "512MiB")]);
    assert_eq!(shown.code, 0);
    let line = |name: &str| shown.stdout.lines().find(|l| l.starts_with(name)).unwrap_or_default().to_owned();
    assert!(line("data-dir: /tmp/x").ends_with("# --data-dir"), "{}", shown.stdout);
    assert!(line("memory-limit: 512MiB").ends_with("# TAFFRAIL_MEMORY_LIMIT"), "{}", shown.stdout);
    assert!(line("default-partitions: 1").ends_with("# default"), "{}", shown.stdout);
}

#[test]
fn the_log_level_is_changed_while_it_runs() {
    let dir = TempDir::new().unwrap();
    let mut broker = Broker::start(dir.path(), &[]);
    broker.wait_for("ready");
    assert_eq!(broker.put("/log-level", "warn"), (200, "warn\n".to_owned()));
    assert_eq!(broker.put("/log-level", "debug"), (200, "debug\n".to_owned()));
    assert_eq!(broker.wait_for("log level changed")["level"], "debug");
    assert_eq!(broker.put("/log-level", "loud").0, 400);
}

#[test]
fn a_stopped_directory_is_inspected_and_verified() {
    let dir = TempDir::new().unwrap();
    let data = dir.path().join("data");
    let file = dir.path().join("topics.yaml");
    fs::write(&file, TOPICS).unwrap();
    let mut broker = Broker::start(&data, &["--manifest", file.to_str().unwrap()]);
    broker.wait_for("ready");
    produce(&mut broker, 20);
    broker.signal(Signal::TERM);
    assert_eq!(broker.exit_code(), 0);
    for command in ["inspect", "verify"] {
        for output in ["table", "json"] {
            let tool = run(&[command, "--data-dir", data.to_str().unwrap(), "-o", output], &[]);
            assert_eq!(tool.code, 0, "{command}: {}", tool.stderr);
            assert_eq!(
                output == "json",
                serde_json::from_str::<serde_json::Value>(&tool.stdout).is_ok(),
                "{}",
                tool.stdout
            );
        }
    }
    let missing = run(&["inspect", "--data-dir", "/nonexistent"], &[]);
    assert_eq!(missing.code, 1, "{}", missing.stderr);
}

#[test]
fn version_is_told_for_people_and_programs() {
    assert!(run(&["version"], &[]).stdout.starts_with("taffrail-broker "));
    let document: serde_json::Value = serde_json::from_str(&run(&["version", "-o", "json"], &[]).stdout).unwrap();
    assert!(document["dataFormatVersion"].is_u64(), "{document}");
}
