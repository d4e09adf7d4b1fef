//! Clients in other languages, which have nothing but generated stubs, against the real broker; and grpcurl, which has not
//! even those.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use serde_json::Value;
use taffrail_e2e::cli::{self, cache, cli, project, set_up};
use taffrail_e2e::process::{Broker, BrokerOptions, Process};

const PATIENCE: Duration = Duration::from_mins(3);

const INPUT: &str = "anna:1\nben:2\nanna:3\ncarla:4\nanna:5\n";

fn start(dir: &Path, topic: &str) -> Result<Broker> {
    let broker = BrokerOptions::new(dir)?.start()?;
    cli(&broker.endpoint(), &format!("topic create {topic} --partitions 4"), "")?.ok()?;
    Ok(broker)
}

fn address(broker: &Broker) -> String {
    broker.endpoint().trim_start_matches("http://").to_owned()
}

fn python(script: &str, broker: &Broker, topic: &str, input: &str) -> Result<String> {
    let mut command = Command::new(cache()?.join("venv/bin/python"));
    let script = project().join("client/examples/python").join(script);
    cli::run(command.arg(script).args([&address(broker), topic]), input)?.ok()
}

fn go(program: &str, broker: &Broker, topic: &str, input: &str) -> Result<String> {
    let mut command = Command::new("go");
    command.current_dir(project().join("client/examples/go"));
    cli::run(command.args(["run", &format!("./{program}"), &address(broker), topic]), input)?.ok()
}

/// Key → (partitions, values in the order read).
type ByKey = BTreeMap<String, (BTreeSet<u32>, Vec<String>)>;

/// Lines "partition offset key value", as both examples print them.
fn by_key(printed: &str) -> Result<ByKey> {
    let mut keys = ByKey::new();
    for line in printed.lines() {
        let [partition, _offset, rest] = line.splitn(3, ' ').collect::<Vec<_>>()[..] else {
            anyhow::bail!("not a record: {line}")
        };
        let (key, value) = rest.rsplit_once(' ').with_context(|| format!("no key: {line}"))?;
        let (partitions, values) = keys.entry(key.to_owned()).or_default();
        partitions.insert(partition.parse()?);
        values.push(value.to_owned());
    }
    Ok(keys)
}

#[test]
fn what_python_and_go_write_both_read_and_every_client_puts_a_key_into_the_same_partition() -> Result<()> {
    set_up(&["python", "go"])?;
    let dir = tempfile::tempdir()?;
    let broker = start(dir.path(), "people")?;
    let stored = python("produce.py", &broker, "people", INPUT)?;
    assert!(stored.contains("from offset 0"), "{stored}");
    go("produce", &broker, "people", INPUT)?;
    cli(&broker.endpoint(), "produce people --key-separator :", INPUT)?.ok()?;

    let read = python("consume.py", &broker, "people", "")?;
    let keys = by_key(&read)?;
    assert_eq!(keys.keys().collect::<Vec<_>>(), ["anna", "ben", "carla"]);
    for (key, (partitions, values)) in &keys {
        assert_eq!(partitions.len(), 1, "{key} is in partitions {partitions:?}");
        let prefix = format!("{key}:");
        let lines: Vec<_> = INPUT.lines().filter_map(|line| line.strip_prefix(&prefix)).collect();
        assert_eq!(*values, lines.repeat(3), "{key}");
    }
    assert_eq!(by_key(&go("consume", &broker, "people", "")?)?, keys);
    Ok(())
}

#[test]
fn records_without_a_key_have_none_in_every_language() -> Result<()> {
    set_up(&["python", "go"])?;
    let dir = tempfile::tempdir()?;
    let broker = start(dir.path(), "lines")?;
    python("produce.py", &broker, "lines", "one\n")?;
    go("produce", &broker, "lines", "two\n:three\n")?;
    for read in [python("consume.py", &broker, "lines", "")?, go("consume", &broker, "lines", "")?] {
        let keys = by_key(&read)?;
        let unkeyed: BTreeSet<_> = keys["(no key)"].1.iter().map(String::as_str).collect();
        assert_eq!(unkeyed, BTreeSet::from(["one", "two"]), "{read}");
        assert_eq!(keys[""].1, ["three"], "an empty key is a key: {read}");
    }
    Ok(())
}

#[test]
fn an_unknown_topic_is_an_error_that_names_it() -> Result<()> {
    set_up(&["python"])?;
    let dir = tempfile::tempdir()?;
    let broker = start(dir.path(), "here")?;
    let error = python("produce.py", &broker, "elsewhere", "x\n").err().context("it must fail")?.to_string();
    assert!(error.contains("NOT_FOUND") && error.contains("elsewhere"), "{error}");
    Ok(())
}

#[test]
fn members_of_a_group_go_on_where_others_stopped_whatever_their_language() -> Result<()> {
    set_up(&["python", "go"])?;
    let dir = tempfile::tempdir()?;
    let broker = start(dir.path(), "shared")?;
    let keyed = (0..300).map(|n| format!("k{n}:v{n}")).collect::<Vec<_>>().join("\n");
    cli(&broker.endpoint(), "produce shared --key-separator :", &keyed)?.ok()?;
    let mut seen = BTreeSet::new();
    let place = |line: &str| line.split(' ').take(2).collect::<Vec<_>>().join(" ");
    let script = project().join("client/examples/python/group.py");
    let mut python = Command::new(cache()?.join("venv/bin/python"));
    let printed = cli::run(python.arg(script).args([&address(&broker), "shared", "g", "120"]), "")?.ok()?;
    seen.extend(printed.lines().map(place));
    assert_eq!(seen.len(), 120, "{printed}");
    let mut go = Command::new("go");
    go.current_dir(project().join("client/examples/go"));
    let printed = cli::run(go.args(["run", "./group", &address(&broker), "shared", "g", "80"]), "")?.ok()?;
    seen.extend(printed.lines().map(place));
    assert_eq!(seen.len(), 200, "{printed}");
    let printed = cli(&broker.endpoint(), "consume shared --group g -o json", "")?.ok()?;
    let rest = printed.lines().map(serde_json::from_str::<Value>).collect::<Result<Vec<_>, _>>()?;
    seen.extend(rest.iter().map(|r| format!("{} {}", r["partition"], r["offset"])));
    assert_eq!((rest.len(), seen.len()), (100, 300), "{printed}");
    Ok(())
}

/// Reads 200 records as a member of group `g`, 100 of them after the broker was killed and started again.
fn goes_through_a_restart(member: &mut Command) -> Result<()> {
    let dir = tempfile::tempdir()?;
    let broker = start(dir.path(), "shared")?;
    let write = |broker: &Broker, from: usize| {
        let keyed = (from..from + 100).map(|n| format!("k{n}:v{n}")).collect::<Vec<_>>().join("\n");
        cli(&broker.endpoint(), "produce shared --key-separator :", &keyed)?.ok()
    };
    let describe = |broker: &Broker| -> Result<Value> {
        let ended = cli(&broker.endpoint(), "group describe g -o json", "")?;
        Ok(ended.ok().ok().map(|json| serde_json::from_str(&json)).transpose()?.unwrap_or_default())
    };
    write(&broker, 0)?;
    let printed = dir.path().join("printed");
    member.args([&address(&broker), "shared", "g", "200"]).stdin(Stdio::null()).stdout(File::create(&printed)?);
    let mut member = Process(member.spawn()?);
    let begin = Instant::now();
    while std::fs::read_to_string(&printed)?.lines().count() < 100 || describe(&broker)?["lag"] != 0 {
        ensure!(begin.elapsed() < PATIENCE, "it does not begin");
        std::thread::sleep(Duration::from_millis(30));
    }
    let before = describe(&broker)?["members"].clone();
    let broker = broker.kill()?.start()?;
    write(&broker, 100)?;
    ensure!(member.wait(PATIENCE)?.success(), "it ended badly");
    let printed = std::fs::read_to_string(&printed)?;
    let places: BTreeSet<_> = printed.lines().map(|line| line.split(' ').take(2).collect::<Vec<_>>()).collect();
    assert_eq!((printed.lines().count(), places.len()), (200, 200), "each record once");
    assert_eq!(before.as_array().map(Vec::len), Some(1), "{before}");
    let after = describe(&broker)?;
    assert_eq!((&after["lag"], &after["state"]), (&0.into(), &"empty".into()), "committed, and left: {after}");
    Ok(())
}

#[test]
fn members_in_python_and_go_go_on_by_themselves_after_the_broker_was_killed() -> Result<()> {
    set_up(&["python", "go"])?;
    let mut python = Command::new(cache()?.join("venv/bin/python"));
    goes_through_a_restart(python.arg(project().join("client/examples/python/group.py")))?;
    // Not by `go run`, which would outlive a test that fails.
    let dir = tempfile::tempdir()?;
    let mut build = Command::new("go");
    build.current_dir(project().join("client/examples/go")).args(["build", "-o"]).arg(dir.path()).arg("./group");
    cli::run(&mut build, "")?.ok()?;
    goes_through_a_restart(&mut Command::new(dir.path().join("group")))
}

#[test]
fn the_member_in_python_has_no_more_than_forty_lines() -> Result<()> {
    let script = std::fs::read_to_string(project().join("client/examples/python/group.py"))?;
    let lines = script.lines().filter(|line| !line.trim().is_empty() && !line.starts_with("\"\"\""));
    assert!(lines.count() <= 40);
    Ok(())
}

fn grpcurl(arguments: &[&str]) -> Result<cli::Ended> {
    cli::run(Command::new(cache()?.join("tools/bin/grpcurl")).arg("-plaintext").args(arguments), "")
}

#[test]
fn grpcurl_finds_its_way_by_reflection_alone() -> Result<()> {
    set_up(&["grpcurl"])?;
    let dir = tempfile::tempdir()?;
    let broker = start(dir.path(), "things")?;
    let address = address(&broker);
    let services = grpcurl(&[&address, "list"])?.ok()?;
    for service in ["Admin", "Consumer", "Groups", "Metadata", "Producer"] {
        assert!(services.contains(&format!("taffrail.v1.{service}\n")), "{services}");
    }
    assert!(services.contains("grpc.health.v1.Health"), "{services}");
    let described = grpcurl(&[&address, "describe", "taffrail.v1.Record"])?.ok()?;
    assert!(described.contains("optional bytes key = 1;"), "{described}");

    // "a2V5" is "key", "dmFsdWU=" is "value": JSON of protobuf has bytes in base64.
    let record = r#"{"topic": "things", "partition": 2, "records": [{"key": "a2V5", "value": "dmFsdWU="}]}"#;
    let produced = grpcurl(&["-d", record, &address, "taffrail.v1.Producer/Produce"])?.ok()?;
    let produced: Value = serde_json::from_str(&produced)?;
    assert_eq!(produced["results"][0]["partition"], 2);
    assert_eq!(produced["results"][0]["appended"]["baseOffset"], "0");
    let read = grpcurl(&["-d", r#"{"topic": "things"}"#, &address, "taffrail.v1.Consumer/Read"])?.ok()?;
    let read: Value = serde_json::from_str(&read)?;
    assert_eq!(read["records"][0]["value"], "dmFsdWU=");
    let health = grpcurl(&[&address, "grpc.health.v1.Health/Check"])?.ok()?;
    assert!(health.contains("SERVING"), "{health}");
    Ok(())
}

#[test]
fn grpcurl_shows_why_a_call_failed() -> Result<()> {
    set_up(&["grpcurl"])?;
    let dir = tempfile::tempdir()?;
    let broker = start(dir.path(), "things")?;
    let request = r#"{"topic": "nothing", "records": [{"value": "eA=="}]}"#;
    let ended = grpcurl(&["-d", request, &address(&broker), "taffrail.v1.Producer/Produce"])?;
    assert_ne!(ended.code, Some(0));
    for part in ["Code: NotFound", "REASON_UNKNOWN_TOPIC", "taffrail.v1.LogError", "google.rpc.ErrorInfo"] {
        assert!(ended.err.contains(part), "{part} in {}", ended.err);
    }
    Ok(())
}
