//! The other side, as the program `taffrail-hostile` runs it: in processes of its own, which leave this one its files and
//! its time.

use std::io::{BufRead, BufReader, Write};
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use clap::Subcommand;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use taffrail_proto::v1;
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};

use super::{BULK, BULK_PARTITIONS};
use crate::http2::{Connection, huge_fetch};
use crate::process::{Process, program};

/// How long a hostile client is at it; it rests for half of that.
const PERIOD: Duration = Duration::from_secs(5);
/// What the program says when all of its clients are there.
const READY: &str = "all clients are there";

/// What the clients of a process are.
#[derive(Clone, Copy, Debug, Subcommand)]
pub enum Role {
    /// Connections that do nothing.
    Idle { number: usize },
    /// Clients that abuse the broker in four ways, so many of each.
    Hostile { each: usize },
}

/// Starts clients and waits until all are there. They end with the handle.
pub(super) fn start(role: Role, address: &str) -> Result<Process> {
    // Only when nobody else wants a core.
    let mut command = Command::new("chrt");
    command.args(["--idle", "0"]).arg(program("taffrail-hostile")?).args(["--broker", address]);
    match role {
        Role::Idle { number } => command.args(["idle", &number.to_string()]),
        Role::Hostile { each } => command.args(["hostile", &each.to_string()]),
    };
    let mut child = Process(command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::inherit()).spawn()?);
    let mut said = String::new();
    BufReader::new(child.0.stdout.take().context("standard output")?).read_line(&mut said)?;
    if said.trim() == READY {
        return Ok(child);
    }
    bail!("{role:?}: ended with {}", child.0.wait()?)
}

/// Runs clients against the broker at `address` for at most five minutes: whoever started them ends them before.
pub async fn run(role: Role, address: &str) -> Result<()> {
    let Rlimit { maximum, .. } = getrlimit(Resource::Nofile);
    setrlimit(Resource::Nofile, Rlimit { current: maximum, maximum })?;
    match role {
        Role::Idle { number } => stay(idle(address, number).await?).await,
        Role::Hostile { each } => stay(attack(address, each).await).await,
    }
}

async fn stay<T>(clients: T) -> Result<()> {
    writeln!(std::io::stdout(), "{READY}")?;
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
