//! The other side: clients in processes of their own, which leave this one its files and its time.

use std::io::{BufRead, BufReader, Write};
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use taffrail_e2e::http2::{Connection, huge_fetch};
use taffrail_e2e::process::Process;
use taffrail_proto::v1;
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};

use super::{BULK, BULK_PARTITIONS};

/// What a child process is: `idle <connections>` or `hostile <clients of each kind>`.
const ROLE: &str = "TAFFRAIL_TEST_CLIENTS";
/// How long a hostile client is at it; it rests for half of that.
const PERIOD: Duration = Duration::from_secs(5);
const ADDRESS: &str = "TAFFRAIL_TEST_ADDRESS";
/// What a child says when all of its clients are there.
const READY: &str = "all clients are there";

/// Starts clients and waits until all are there. They end with the handle.
pub(crate) fn start(role: &str, address: &str) -> Result<Process> {
    // Not at the priority of this process.
    let mut command = Command::new("chrt");
    command.args(["--other", "0"]).arg(std::env::current_exe()?);
    command.args(["--exact", "clients::child", "--nocapture", "--quiet"]).env(ROLE, role).env(ADDRESS, address);
    let mut child = Process(command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped()).spawn()?);
    let mut said = String::new();
    for line in BufReader::new(child.0.stderr.take().context("standard error")?).lines() {
        let line = line?;
        if line == READY {
            return Ok(child);
        }
        said.push_str(&line);
    }
    bail!("{role}: ended with {:?}: {said}", child.0.wait()?)
}

/// What the child processes run; without its variables it does nothing.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn child() -> Result<()> {
    let (Ok(role), Ok(address)) = (std::env::var(ROLE), std::env::var(ADDRESS)) else { return Ok(()) };
    let Rlimit { maximum, .. } = getrlimit(Resource::Nofile);
    setrlimit(Resource::Nofile, Rlimit { current: maximum, maximum })?;
    let (kind, number) = role.split_once(' ').context("kind and number")?;
    match (kind, number.parse()?) {
        ("idle", number) => stay(idle(&address, number).await?).await,
        ("hostile", each) => stay(attack(&address, each).await).await,
        _ => bail!("{role}?"),
    }
}

async fn stay<T>(clients: T) -> Result<()> {
    writeln!(std::io::stderr(), "{READY}")?;
    // Whoever started this ends it.
    sleep(Duration::from_mins(5)).await;
    drop(clients);
    Ok(())
}

async fn idle(address: &str, number: usize) -> Result<Vec<Connection>> {
    let mut connections = Vec::with_capacity(number);
    for done in 0..number {
        connections.push(Connection::open(address).await.with_context(|| format!("after {done} connections"))?);
    }
    Ok(connections)
}

#[derive(Clone, Copy, Debug)]
enum Kind {
    NeverReads,
    HalfAFrame,
    ThousandsOfStreams,
    HugeFetches,
}

/// Keeps so many clients of each kind at it: who is thrown out comes back.
async fn attack(address: &str, each: usize) -> JoinSet<()> {
    let mut attackers = JoinSet::new();
    for kind in [Kind::NeverReads, Kind::HalfAFrame, Kind::ThousandsOfStreams, Kind::HugeFetches] {
        for _ in 0..each {
            let address = address.to_owned();
            // One after the other, so that the attack is as strong at any time.
            let begin = PERIOD * attackers.len() as u32 / (4 * each as u32);
            attackers.spawn(async move {
                sleep(begin).await;
                loop {
                    let connection = timeout(PERIOD, hostile(kind, &address)).await;
                    // Who was thrown out comes back soon. Who does not read never notices, and tries anew after a while.
                    let rest = if let Ok(Err(_)) = connection { PERIOD / 50 } else { PERIOD / 2 };
                    sleep(rest).await;
                    drop(connection);
                }
            });
        }
    }
    sleep(PERIOD * 3 / 2).await;
    attackers
}

/// One hostile connection, until the server ends it or it has nothing more to send; then it stays, and reads nothing.
async fn hostile(kind: Kind, address: &str) -> Result<Connection> {
    const READ: &str = "/taffrail.v1.Consumer/Read";
    const FETCH: &str = "/taffrail.v1.Consumer/Fetch";
    const PRODUCE: &str = "/taffrail.v1.Producer/Produce";
    let mut connection = Connection::open(address).await?;
    let read = v1::ReadRequest { topic: BULK.to_owned(), follow: true, ..v1::ReadRequest::default() };
    let streams = (1..).step_by(2);
    match kind {
        Kind::NeverReads => {
            for stream in streams.take(60) {
                connection.call(stream, READ, &read).await?;
            }
        }
        Kind::HalfAFrame => {
            for stream in [1, 3, 5, 7] {
                connection.half_a_message(stream, PRODUCE, 8_000_000, 900_000).await?;
            }
            connection.half_a_frame(7).await?;
        }
        Kind::ThousandsOfStreams => {
            for stream in streams.take(3_000) {
                connection.call(stream, READ, &read).await?;
            }
        }
        Kind::HugeFetches => {
            for stream in streams.take(20) {
                connection.call(stream, FETCH, &huge_fetch(BULK, BULK_PARTITIONS)).await?;
                connection.drain(Duration::from_secs(1)).await;
            }
        }
    }
    Ok(connection)
}
