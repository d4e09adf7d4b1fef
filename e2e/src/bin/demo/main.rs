//! `make demo`: the main job on real input. 20,000 flights go through a standalone broker by way of the command line, keyed by
//! their origin airport, while a second process follows them; half way the broker is killed with SIGKILL and started again.
//! Then a fresh reader proves that nothing is missing, doubled or out of order; and groups of three processes share the
//! flights while one of them is killed, at least once and at most once.

mod group;

use std::io::{BufRead, BufReader, Write};
use std::path::PathBuf;
use std::process::{ChildStdin, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use rustix::process::Signal;
use taffrail_e2e::flights;
use taffrail_e2e::flights::proof::{Record, prove};
use taffrail_e2e::process::{BrokerOptions, Process, taffrail};

const TOPIC: &str = "flights";
const MANIFEST: &str = include_str!("../../../demo/topics.yaml");
/// The whole stream takes at least this long, so that the kill falls into its middle.
const STREAM_TIME: Duration = Duration::from_secs(4);
const PATIENCE: Duration = Duration::from_mins(1);

fn main() -> Result<()> {
    let lines = flights::lines()?;
    let dir = demo_dir()?;
    let manifest = dir.join("topics.yaml");
    std::fs::write(&manifest, MANIFEST)?;
    let options = BrokerOptions::new(&dir)?.args(["--manifest".to_owned(), manifest.display().to_string()]);

    let begin = Instant::now();
    let broker = options.start()?;
    step(&format!(
        "broker {} is ready after {:.1} s, with the topics of {}",
        broker.pid(),
        begin.elapsed().as_secs_f64(),
        manifest.display()
    ));
    let endpoint = broker.endpoint();
    let (mut follower, followed) = follow(&endpoint)?;
    let (mut producer, mut stdin) = produce(&endpoint)?;
    step(&format!("streaming {} flights by `taffrail produce`, followed by `taffrail consume --follow`", lines.len()));

    let streaming = Instant::now();
    let half = lines.len() / 2;
    feed(&mut stdin, &lines[..half])?;
    let seen = followed.load(Ordering::Relaxed);
    let options = broker.kill()?;
    step(&format!("killed the broker (SIGKILL) after {half} flights were handed over; the follower had seen {seen}"));
    let again = Instant::now();
    let broker = options.start()?;
    step(&format!(
        "started it again: ready after {:.1} s; producer and follower go on by themselves",
        again.elapsed().as_secs_f64()
    ));
    feed(&mut stdin, &lines[half..])?;
    drop(stdin);
    let status = producer.wait(PATIENCE)?;
    ensure!(status.success(), "taffrail produce ended with {status}");
    let rate = lines.len() as f64 / streaming.elapsed().as_secs_f64();
    await_count(&followed, lines.len()).context("the follower did not see all flights")?;
    follower.end(Signal::TERM)?;

    let records = read_all(&endpoint)?;
    let proof = prove(&lines, &records)?;
    println!("\n{proof}");
    let bytes: usize = lines.iter().map(String::len).sum();
    step(&format!("{bytes} bytes of flights, {rate:.0} records/s with the kill and the restart in between"));
    for at_most_once in [false, true] {
        group::share(&endpoint, &dir, at_most_once, &proof.ends)?;
    }
    let (status, options) = broker.stop()?;
    ensure!(status.success(), "the broker ended with {status}; its log is {}", options.log.display());
    step("stopped everything");
    println!("\n  data     {}", options.data_dir.display());
    println!("  log      {}", options.log.display());
    println!("  metrics  http://{}/metrics while a broker runs", options.admin);
    println!("  again    taffrail-broker standalone --data-dir {}", options.data_dir.display());
    Ok(())
}

fn step(text: &str) {
    println!("• {text}");
}

/// An empty directory for this demo; what the last one left is removed, what this one leaves can be looked at.
fn demo_dir() -> Result<PathBuf> {
    let cache = std::env::var_os("TAFFRAIL_CACHE").map_or_else(std::env::temp_dir, PathBuf::from);
    let dir = cache.join("demo");
    if dir.exists() {
        std::fs::remove_dir_all(&dir)?;
    }
    std::fs::create_dir_all(&dir)?;
    Ok(dir)
}

fn produce(endpoint: &str) -> Result<(Process, ChildStdin)> {
    let mut command = taffrail(endpoint)?;
    command.args(["produce", TOPIC, "--json", "--key-field", "origin"]).stdin(Stdio::piped()).stdout(Stdio::null());
    let mut child = command.spawn().context("start taffrail produce")?;
    let stdin = child.stdin.take().context("no standard input")?;
    Ok((Process(child), stdin))
}

/// Starts a second process that follows the topic, and counts what it prints.
fn follow(endpoint: &str) -> Result<(Process, Arc<AtomicUsize>)> {
    let mut command = taffrail(endpoint)?;
    command.args(["consume", TOPIC, "--from", "earliest", "--follow", "-o", "json"]).stdout(Stdio::piped());
    let mut child = command.spawn().context("start taffrail consume")?;
    let out = child.stdout.take().context("no standard output")?;
    let count = Arc::new(AtomicUsize::new(0));
    let counter = Arc::clone(&count);
    std::thread::spawn(move || {
        BufReader::new(out).lines().map_while(Result::ok).for_each(|_| {
            counter.fetch_add(1, Ordering::Relaxed);
        });
    });
    Ok((Process(child), count))
}

/// Hands lines to the producer, evenly over half of [`STREAM_TIME`].
fn feed(stdin: &mut ChildStdin, lines: &[String]) -> Result<()> {
    let (parts, begin) = (40, Instant::now());
    for (i, part) in lines.chunks(lines.len().div_ceil(parts)).enumerate() {
        let mut text = part.join("\n");
        text.push('\n');
        stdin.write_all(text.as_bytes()).context("taffrail produce takes no more input")?;
        stdin.flush()?;
        let due = STREAM_TIME / 2 * (i as u32 + 1) / parts as u32;
        std::thread::sleep(due.saturating_sub(begin.elapsed()));
    }
    Ok(())
}

fn await_count(count: &AtomicUsize, wanted: usize) -> Result<()> {
    let begin = Instant::now();
    while count.load(Ordering::Relaxed) < wanted {
        ensure!(begin.elapsed() < PATIENCE, "saw {} of {wanted} within {PATIENCE:?}", count.load(Ordering::Relaxed));
        std::thread::sleep(Duration::from_millis(20));
    }
    Ok(())
}

/// All records, read by a process that knows nothing of the ones before.
fn read_all(endpoint: &str) -> Result<Vec<Record>> {
    let mut command: Command = taffrail(endpoint)?;
    let out = command.args(["consume", TOPIC, "--from", "earliest", "-o", "json"]).output()?;
    ensure!(out.status.success(), "taffrail consume: {}", String::from_utf8_lossy(&out.stderr));
    Record::all(&String::from_utf8(out.stdout)?)
}
