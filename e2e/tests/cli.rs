//! The `taffrail` command line as its users see it: what it prints, where, and with which exit code it ends.

use std::collections::BTreeSet;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result};
use serde_json::Value;
use taffrail_e2e::cli::{self, Ended};
use taffrail_e2e::process::{Broker, BrokerOptions, free_address, program};

const FAILED: i32 = 1;
const USAGE: i32 = 2;
const NOT_FOUND: i32 = 3;
const UNAVAILABLE: i32 = 4;

/// A broker and its command line.
struct Shell {
    broker: Broker,
    dir: tempfile::TempDir,
}

impl Shell {
    fn new() -> Result<Self> {
        let dir = tempfile::tempdir()?;
        Ok(Self { broker: BrokerOptions::new(dir.path())?.start()?, dir })
    }

    fn ends(&self, arguments: &str, input: &str) -> Result<Ended> {
        cli::cli(&self.broker.endpoint(), arguments, input).with_context(|| arguments.to_owned())
    }

    fn ok(&self, arguments: &str) -> Result<String> {
        self.ends(arguments, "")?.ok().with_context(|| arguments.to_owned())
    }

    fn json(&self, arguments: &str) -> Result<Value> {
        Ok(serde_json::from_str(&self.ok(arguments)?)?)
    }

    fn fails(&self, arguments: &str, code: i32) -> Result<String> {
        self.ends(arguments, "")?.failed(code).with_context(|| arguments.to_owned())
    }

    fn file(&self, name: &str, content: &str) -> Result<String> {
        let path = self.dir.path().join(name);
        std::fs::write(&path, content)?;
        Ok(path.display().to_string())
    }
}

#[test]
fn topics_are_made_shown_changed_deleted_and_brought_back() -> Result<()> {
    let shell = Shell::new()?;
    let made = shell.ok("topic create orders --partitions 3 --config retention=2d")?;
    assert!(made.contains("orders created: 3 partitions"), "{made}");
    shell.ends("produce orders", "a\nb\nc\n")?.ok()?;

    let listed = shell.ok("topic list")?;
    assert!(listed.starts_with("NAME") && listed.contains("orders"), "{listed}");
    let described = &shell.json("topic describe orders -o json")?[0];
    assert_eq!((&described["name"], described["partitions"].as_array().map(Vec::len)), (&"orders".into(), Some(3)));
    assert_eq!(described["config"]["retention.ms"]["value"], "172800000");
    assert!(shell.ok("topic describe orders")?.contains("retention.ms"));

    let altered = shell.ok("topic alter orders --partitions 5 --config durability=disk --unset retention")?;
    assert!(altered.contains("5 partitions") && altered.contains("durability=disk"), "{altered}");
    assert!(!altered.contains("retention"), "{altered}");
    assert!(shell.fails("topic alter orders --partitions 2", FAILED)?.contains("partitions"), "a topic never shrinks");
    assert!(shell.fails("topic alter orders", FAILED)?.contains("nothing to change"));

    let deleted = shell.ok("topic delete orders")?;
    assert!(deleted.contains("taffrail topic undelete orders"), "{deleted}");
    shell.fails("topic describe orders", NOT_FOUND)?;
    assert!(shell.ok("topic list --deleted")?.contains("deleted"));
    let back = shell.ok("topic undelete orders")?;
    assert!(back.contains("3 records"), "{back}");
    assert_eq!(shell.ok("consume orders")?.lines().count(), 3);
    Ok(())
}

#[test]
fn refusals_say_what_is_wrong_and_what_to_do() -> Result<()> {
    let shell = Shell::new()?;
    shell.ok("topic create there")?;
    assert!(shell.fails("topic create there", FAILED)?.contains("exists"));
    shell.ok("topic create there --if-not-exists")?;
    shell.ok("topic delete nothing --if-exists")?;
    for (arguments, code, part) in [
        ("topic create bad/name", FAILED, "a-z, A-Z"),
        ("topic create x --config retension=1d", FAILED, "unknown configuration key"),
        ("topic create x --config retention=1x", FAILED, "retention"),
        ("topic create x --config retention", USAGE, "KEY=VALUE"),
        ("topic create x --partitions many", USAGE, "invalid"),
        ("topic describe nothing", NOT_FOUND, "nothing"),
        ("consume nothing", NOT_FOUND, "nothing"),
        ("consume there --partition 7", NOT_FOUND, "7"),
        ("consume there --from yesterday", USAGE, "earliest"),
        ("consume there --from 5", NOT_FOUND, "5"),
        ("offsets nothing", NOT_FOUND, "nothing"),
        ("produce there --json --key-separator : --key-field a", USAGE, "cannot be used"),
        ("produce nothing --key k", NOT_FOUND, "nothing"),
        ("tropic list", USAGE, "topic"),
    ] {
        let input = if arguments.starts_with("produce") { "line\n" } else { "" };
        let said = shell.ends(arguments, input)?.failed(code).with_context(|| arguments.to_owned())?;
        assert!(said.contains(part), "{arguments}: {part:?} is not in {said}");
    }
    Ok(())
}

#[test]
fn without_a_broker_it_says_so_and_ends_in_time() -> Result<()> {
    let nobody = free_address()?;
    let begin = std::time::Instant::now();
    let said = cli::cli(&format!("http://{nobody}"), "topic list", "")?.failed(UNAVAILABLE)?;
    assert!(said.contains("broker") && said.contains(&nobody.port().to_string()), "{said}");
    assert!(begin.elapsed() < Duration::from_secs(45), "it took {:?}", begin.elapsed());
    let version = cli::cli(&format!("http://{nobody}"), "version", "")?.ok()?;
    assert!(version.contains("none answers"), "{version}");
    Ok(())
}

#[test]
fn manifests_are_applied_as_a_whole_or_not_at_all_and_faults_have_lines() -> Result<()> {
    let shell = Shell::new()?;
    let good = shell.file("good.yaml", include_str!("../../crds/examples/orders.yaml"))?;
    let checked = shell.ok(&format!("topic apply -f {good} --dry-run"))?;
    assert!(checked.contains("would be created"), "{checked}");
    assert_eq!(shell.json("topic list -o json")?, Value::Array(vec![]), "--dry-run changes nothing");
    assert!(shell.ok(&format!("topic apply -f {good}"))?.contains("created"));
    assert!(shell.ok(&format!("topic apply -f {good}"))?.contains("unchanged"), "applied twice, changed once");
    let more = include_str!("../../crds/examples/orders.yaml").replace("partitions: 4", "partitions: 6");
    assert!(shell.ends("topic apply -f -", &more)?.ok()?.contains("topic orders changed: 6 partitions"));

    let manifest = "apiVersion: taffrail.dev/v1alpha1\nkind: Topic\nmetadata:\n  name: x\nspec:\n  partitons: 3\n  \
                    config:\n    durability: disc\n";
    let bad = shell.file("bad.yaml", manifest)?;
    let said = shell.fails(&format!("topic apply -f {good} -f {bad}"), FAILED)?;
    assert!(said.contains("bad.yaml:6") && said.contains("partitons"), "{said}");
    assert!(said.contains("bad.yaml:8") && said.contains("disc"), "all faults at once: {said}");
    assert!(!shell.ok("topic list")?.contains('x'), "nothing was changed");
    Ok(())
}

#[test]
fn records_come_out_as_they_went_in() -> Result<()> {
    let shell = Shell::new()?;
    shell.ok("topic create t --partitions 2")?;
    let input = "{\"id\": \"a\", \"n\": 1}\n{\"id\": \"b\", \"n\": 2}\n{\"id\": \"a\", \"n\": 3}\n";
    let said = shell.ends("produce t --json --key-field id -H trace=7 -H trace=8 --compression zstd", input)?;
    assert!(said.err.contains("3 records"), "the summary goes to standard error: {}", said.err);
    assert_eq!(said.ok()?, "");
    let read = shell.ok("consume t")?;
    let sorted = |text: &str| text.lines().map(str::to_owned).collect::<BTreeSet<_>>();
    assert_eq!(sorted(&read), sorted(input), "byte for byte");

    let printed = shell.ok("consume t -o json")?;
    let records: Vec<Value> = printed.lines().map(serde_json::from_str).collect::<Result<_, _>>()?;
    let of_a: Vec<_> = records.iter().filter(|record| record["key"] == "a").collect();
    assert_eq!(of_a.len(), 2);
    assert_eq!(of_a[0]["partition"], of_a[1]["partition"], "a key has one partition");
    assert_eq!(of_a[0]["headers"][1]["value"], "8", "duplicate headers are kept: {}", of_a[0]);
    let template = ["consume", "t", "--template", "{topic}/{partition}/{offset} {key} {header:trace}\\n"];
    let by_template = cli::run(taffrail_e2e::process::taffrail(&shell.broker.endpoint())?.args(template), "")?.ok()?;
    let expected = format!("t/{}/{} a 7", of_a[0]["partition"], of_a[0]["offset"]);
    assert!(by_template.lines().any(|line| line == expected), "{expected} in {by_template}");

    shell.ends("produce t --partition 1 --key-separator : --delivery at-least-once", "k:raw\n")?.ok()?;
    let end = shell.json("offsets t -o json")?[1]["end"].as_i64().context("an offset")?;
    assert_eq!(shell.ok(&format!("consume t --partition 1 --from {} -o raw", end - 1))?, "raw");
    assert_eq!(shell.ok("consume t --limit 2")?.lines().count(), 2);
    assert_eq!(shell.ok("consume t --from latest")?, "");
    assert_eq!(shell.ok("consume t --from 1h")?.lines().count(), 4);
    Ok(())
}

#[test]
fn produce_stops_at_a_bad_line_and_names_it() -> Result<()> {
    let shell = Shell::new()?;
    shell.ok("topic create t")?;
    let said = shell.ends("produce t --json --key-field id", "{\"id\": 1}\nnot json\n")?.failed(FAILED)?;
    assert!(said.contains("line 2"), "{said}");
    let said = shell.ends("produce t --json --key-field id", "{\"other\": 1}\n")?.failed(FAILED)?;
    assert!(said.contains("line 1") && said.contains("id"), "{said}");
    let missing = shell.fails("produce t --file /nowhere", FAILED)?;
    assert!(missing.contains("/nowhere"), "{missing}");
    let large = shell.ends("produce t --quiet", &"x".repeat(2 << 20))?.failed(FAILED)?;
    assert!(large.contains("max.message.bytes") || large.contains("1048588"), "{large}");
    Ok(())
}

#[test]
fn help_and_completions_are_there_for_every_command() -> Result<()> {
    let endpoint = "http://127.0.0.1:1";
    let help = cli::cli(endpoint, "--help", "")?.ok()?;
    for part in ["Examples:", "Exit codes:", "produce", "consume", "group", "topic", "offsets", "bench", "completions"]
    {
        assert!(help.contains(part), "{part} in {help}");
    }
    let groups = ["group", "group list", "group describe", "group reset", "group delete"];
    let others = ["topic", "topic create", "topic apply", "produce", "consume", "offsets", "bench", "bench latency"];
    for command in others.iter().chain(&groups) {
        assert!(cli::cli(endpoint, &format!("{command} --help"), "")?.ok()?.contains("Usage:"), "{command}");
    }
    for shell in ["bash", "zsh", "fish"] {
        assert!(cli::cli(endpoint, &format!("completions {shell}"), "")?.ok()?.contains("taffrail"), "{shell}");
    }
    Ok(())
}

#[test]
fn output_that_nobody_reads_is_no_failure() -> Result<()> {
    let shell = Shell::new()?;
    shell.ok("topic create t")?;
    shell.ends("produce t --quiet", &"line\n".repeat(50_000))?.ok()?;
    let taffrail = program("taffrail")?;
    let script = format!("{} consume t | head -n 1; exit ${{PIPESTATUS[0]}}", quoted(&taffrail));
    let mut command = Command::new("bash");
    let ended = cli::run(command.args(["-c", &script]).env("TAFFRAIL_BROKER", shell.broker.endpoint()), "")?;
    assert_eq!((ended.code, ended.out.as_str(), ended.err.as_str()), (Some(0), "line\n", ""));
    Ok(())
}

fn quoted(path: &Path) -> String {
    format!("'{}'", path.display())
}

#[test]
fn bench_runs_and_reports() -> Result<()> {
    let shell = Shell::new()?;
    shell.ok("topic create t")?;
    for arguments in ["bench produce t --records 20000 --size 100", "bench consume t"] {
        let said = shell.ok(arguments)?;
        assert!(said.contains("records/s"), "{arguments}: {said}");
    }
    Ok(())
}
