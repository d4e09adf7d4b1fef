//! The broker as who runs it sees it: starts, refusals, manifests, stops, its log and its HTTP server.

use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use taffrail_client::{Client, ErrorKind, NewTopic, Reason};
use taffrail_e2e::cli::{self, Ended, cli};
use taffrail_e2e::process::{Broker, BrokerOptions, http_get, program};
use taffrail_e2e::stubs::produce;
use taffrail_e2e::writers::{Load, Writers, check};

const USAGE: i32 = 2;
const IN_USE: i32 = 3;
const PATIENCE: Duration = Duration::from_mins(1);

/// The broker's program, run to its end.
fn broker(arguments: &[&str]) -> Result<Ended> {
    cli::run(Command::new(program("taffrail-broker")?).args(arguments), "")
}

/// A broker that ends by itself at once: its exit code and its log.
fn refused(options: &BrokerOptions) -> Result<(Option<i32>, String)> {
    let (status, options) = options.spawn()?.wait()?;
    Ok((status.code(), fs::read_to_string(&options.log)?))
}

#[test]
fn a_second_start_on_a_data_directory_is_refused_and_names_who_has_it() -> Result<()> {
    let dir = tempfile::tempdir()?;
    let first = BrokerOptions::new(dir.path())?.start()?;
    let mut second = BrokerOptions::new(dir.path())?;
    second.log = dir.path().join("second.log");
    let (code, log) = refused(&second)?;
    assert_eq!(code, Some(IN_USE), "{log}");
    assert!(log.contains(&format!("process {}", first.pid())), "{log}");
    let data_dir = second.data_dir.display().to_string();
    let inspected = broker(&["inspect", "--data-dir", &data_dir])?;
    assert_eq!(inspected.code, Some(IN_USE), "{inspected:?}");
    // A crash leaves no lock behind.
    let options = first.kill()?;
    options.start()?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn sigterm_drains_and_a_restart_under_load_loses_nothing_and_fails_no_writer() -> Result<()> {
    let dir = tempfile::tempdir()?;
    let mut broker = BrokerOptions::new(dir.path())?.start()?;
    let client = Client::connect(broker.endpoint().as_str())?;
    client.admin().create_topic(NewTopic::new("events").partitions(3), false).await?;
    let writers = Writers::start(&client, &Load::to("events"), 0)?;
    for _ in 0..3 {
        writers.wait_for(1_000).await?;
        let begin = Instant::now();
        let (status, options) = broker.stop()?;
        assert_eq!(status.code(), Some(0));
        ensure!(begin.elapsed() < Duration::from_secs(10), "it took {:?} to stop", begin.elapsed());
        broker = options.start()?;
    }
    let history = writers.stop().await?;
    assert_eq!(history.acked(), history.len(), "every record was acknowledged in the end");
    check(&client, "events", &history).await?;
    let topics = client.metadata(&["events"]).await?.topics;
    assert!(topics[0].partitions.iter().all(|p| p.leader_epoch == 0), "nobody was warned of a loss that was none");
    Ok(())
}

#[test]
fn bad_flags_and_settings_are_all_told_at_once() -> Result<()> {
    let dir = tempfile::tempdir()?;
    let file = dir.path().join("broker.yaml");
    fs::write(&file, "memory-limit: 3\nlog-levle: info\n")?;
    let config = file.display().to_string();
    let ended = broker(&["standalone", "--config", &config, "--listen", "0.0.0.0:1", "--default-partitions", "0"])?;
    let said = ended.failed(USAGE)?;
    for part in ["broker.yaml:1", "256MiB", "broker.yaml:2", "log-level", "--listen", "grpc://", "--default-partitions"]
    {
        assert!(said.contains(part), "{part:?} is not in {said}");
    }
    let said = broker(&["standalone", "--listen", "grpc://0.0.0.0:1"])?.failed(USAGE)?;
    assert!(said.contains("--token-file") && said.contains("--allow-anonymous"), "anybody could come in: {said}");
    assert!(broker(&["standalone", "--no-such-flag"])?.failed(USAGE)?.contains("--no-such-flag"));
    assert!(broker(&[])?.failed(USAGE)?.contains("standalone"));
    Ok(())
}

#[test]
fn config_shows_each_value_in_force_and_where_it_is_from() -> Result<()> {
    let dir = tempfile::tempdir()?;
    let file = dir.path().join("broker.yaml");
    fs::write(&file, "default-partitions: 4\nlog-level: debug\n")?;
    let mut command = Command::new(program("taffrail-broker")?);
    command.args(["config", "--memory-limit", "512MiB", "--config"]).arg(&file).env("TAFFRAIL_LOG_LEVEL", "warn");
    let shown = cli::run(&mut command, "")?.ok()?;
    let line = |name: &str| shown.lines().find(|line| line.starts_with(name)).unwrap_or_default();
    for (name, value, origin) in [
        ("memory-limit", "512MiB", "--memory-limit"),
        ("log-level", "warn", "TAFFRAIL_LOG_LEVEL"),
        ("default-partitions", "4", "broker.yaml:1"),
        ("admin-listen", "127.0.0.1:9095", "default"),
    ] {
        assert!(line(name).contains(value) && line(name).contains(origin), "{name}: {shown}");
    }
    Ok(())
}

fn manifest(name: &str, partitions: i32) -> String {
    format!(
        "apiVersion: taffrail.dev/v1alpha1\nkind: Topic\nmetadata:\n  name: {name}\nspec:\n  partitions: {partitions}\n"
    )
}

fn wait_for(what: &str, mut is_so: impl FnMut() -> Result<bool>) -> Result<()> {
    let begin = Instant::now();
    while !is_so()? {
        ensure!(begin.elapsed() < PATIENCE, "not within {PATIENCE:?}: {what}");
        std::thread::sleep(Duration::from_millis(50));
    }
    Ok(())
}

fn partitions(broker: &Broker, topic: &str) -> Result<usize> {
    let described = cli(&broker.endpoint(), &format!("topic describe {topic} -o json"), "")?;
    let Ok(described) = described.ok() else { return Ok(0) };
    let described: serde_json::Value = serde_json::from_str(&described)?;
    Ok(described[0]["partitions"].as_array().map_or(0, Vec::len))
}

#[test]
fn a_manifest_is_applied_at_the_start_and_again_when_it_changes_and_faults_change_nothing() -> Result<()> {
    let dir = tempfile::tempdir()?;
    let manifests = dir.path().join("manifests");
    fs::create_dir(&manifests)?;
    let (a, b) = (manifests.join("a.yaml"), manifests.join("b.yaml"));
    fs::write(&a, format!("{}---\n{}", manifest("one", 1), manifest("two", 2)))?;
    let options = BrokerOptions::new(dir.path())?.args(["--manifest", &manifests.display().to_string()]);
    let broker = options.start()?;
    assert_eq!((partitions(&broker, "one")?, partitions(&broker, "two")?), (1, 2));

    fs::write(&b, manifest("three", 3))?;
    wait_for("the new file is applied", || Ok(partitions(&broker, "three")? == 3))?;
    fs::write(&b, manifest("three", 3).replace("partitions: 3", "partitions: -5\n  replicas: 2"))?;
    wait_for("the faults are told", || Ok(broker.log_tail().contains("b.yaml:7")))?;
    assert!(broker.log_tail().contains("b.yaml:6"), "each with its line: {}", broker.log_tail());
    assert_eq!(partitions(&broker, "three")?, 3);
    fs::write(&b, manifest("three", 6))?;
    wait_for("the repaired file is applied", || Ok(partitions(&broker, "three")? == 6))?;
    fs::remove_file(&b)?;
    fs::write(&a, manifest("one", 2))?;
    wait_for("the changed file is applied", || Ok(partitions(&broker, "one")? == 2))?;
    assert_eq!(partitions(&broker, "three")?, 6, "a topic that is no longer in it stays");
    Ok(())
}

#[test]
fn a_wrong_manifest_keeps_the_broker_from_starting_and_lists_every_fault() -> Result<()> {
    let dir = tempfile::tempdir()?;
    let file = dir.path().join("topics.yaml");
    fs::write(
        &file,
        format!("{}---\n{}", manifest("Bad_Name", 1), manifest("x", 1).replace("kind: Topic", "kind: Tropic")),
    )?;
    let options = BrokerOptions::new(dir.path())?.args(["--manifest", &file.display().to_string()]);
    let (code, log) = refused(&options)?;
    assert_eq!(code, Some(USAGE), "{log}");
    assert!(log.contains("topics.yaml:4") && log.contains("topics.yaml:9") && log.contains("Tropic"), "{log}");
    let (code, log) = refused(&BrokerOptions::new(dir.path())?.args(["--manifest", "/nowhere.yaml"]))?;
    assert!(code == Some(USAGE) && log.contains("/nowhere.yaml"), "{log}");
    Ok(())
}

fn put(broker: &Broker, path: &str, body: &str) -> Result<String> {
    let url = format!("http://{}{path}", broker.admin());
    let put = "import sys, urllib.request as r; \
               print(r.urlopen(r.Request(sys.argv[1], data=sys.argv[2].encode(), method='PUT')).read().decode())";
    cli::run(Command::new("python3").args(["-c", put, &url, body]), "")?.ok()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_log_is_json_and_its_level_changes_at_run_time() -> Result<()> {
    let dir = tempfile::tempdir()?;
    let broker = BrokerOptions::new(dir.path())?.start()?;
    let log = dir.path().join("broker.log");
    // A line that is not whole yet is none.
    let whole = |text: &str| text.rfind('\n').map_or(0, |end| end + 1);
    let lines = |log: &Path| {
        fs::read_to_string(log).map(|text| text[..whole(&text)].lines().map(str::to_owned).collect::<Vec<_>>())
    };
    for line in lines(&log)? {
        let line: serde_json::Value = serde_json::from_str(&line).with_context(|| format!("not JSON: {line}"))?;
        assert!(line["level"].is_string() && line["timestamp"].is_string(), "{line}");
    }
    assert_eq!(http_get(broker.admin(), "/log-level")?.1.trim(), "info");
    put(&broker, "/log-level", "trace")?;
    let before = lines(&log)?.len();
    cli(&broker.endpoint(), "topic create t", "")?.ok()?;
    wait_for("more is logged", || {
        Ok(lines(&log)?[before..].iter().any(|l| l.contains("DEBUG") || l.contains("TRACE")))
    })?;
    assert!(put(&broker, "/log-level", "loud").is_err(), "a level that is none is refused");
    assert_eq!(http_get(broker.admin(), "/log-level")?.1.trim(), "trace");
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn metrics_count_what_was_written_and_probes_answer() -> Result<()> {
    let dir = tempfile::tempdir()?;
    let broker = BrokerOptions::new(dir.path())?.start()?;
    cli(&broker.endpoint(), "topic create t", "")?.ok()?;
    cli(&broker.endpoint(), "produce t", "a\nb\nc\n")?.ok()?;
    let (status, metrics) = http_get(broker.admin(), "/metrics")?;
    assert_eq!(status, 200);
    let high_watermark = metrics.lines().find(|line| line.contains("high_watermark") && line.contains("\"t\""));
    assert!(high_watermark.is_some_and(|line| line.ends_with(" 3")), "{metrics}");
    let documented = include_str!("../../docs/metrics.md");
    let names = metrics.lines().filter_map(|line| line.strip_prefix("# TYPE ")?.split(' ').next());
    for name in names {
        assert!(documented.contains(&format!("`{name}")), "{name} is not in docs/metrics.md");
    }
    for (path, text) in [("/livez", "alive"), ("/readyz", "ready"), ("/", "/metrics")] {
        let (status, body) = http_get(broker.admin(), path)?;
        assert!(status == 200 && body.contains(text), "{path}: {status} {body}");
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn callers_without_a_token_are_refused_where_one_is_asked_for_and_roles_bound_the_others() -> Result<()> {
    let dir = tempfile::tempdir()?;
    let tokens = dir.path().join("tokens");
    fs::write(&tokens, "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa admin\nvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvv viewer\n")?;
    let mut options = BrokerOptions::new(dir.path())?.args(["--token-file", &tokens.display().to_string()]);
    options.listen.set_ip([127, 0, 0, 1].into());
    let broker = options.start()?;
    let error = produce(&broker.endpoint(), "t", b"x").await.expect_err("nobody said who they are");
    assert_eq!(error.reason(), Reason::Unauthenticated, "{error}");
    assert_eq!(error.kind(), ErrorKind::Unauthenticated);
    let run = |token: &str, arguments: &str| {
        let file = dir.path().join("token");
        fs::write(&file, token)?;
        cli(&broker.endpoint(), &format!("--token-file {} {arguments}", file.display()), "")
    };
    run("aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa", "topic create t")?.ok()?;
    assert!(run("vvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvv", "topic list")?.ok()?.contains('t'));
    run("vvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvv", "topic delete t")?.failed(5)?;
    run("wrong", "topic list")?.failed(5)?;
    let log = fs::read_to_string(dir.path().join("broker.log"))?;
    assert!(!log.contains("aaaaaaaa"), "a token is in the log");
    Ok(())
}
