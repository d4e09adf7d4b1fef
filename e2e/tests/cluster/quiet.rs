//! What a cluster writes to the API while records flow: its Leases (M12).

use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use taffrail_client::Client;
use taffrail_e2e::group::MemberOptions;
use taffrail_e2e::kubernetes::ApiServer;
use taffrail_e2e::kubernetes::api_writes::{Writes, since, writes};
use taffrail_e2e::kubernetes::members::Members;
use taffrail_e2e::writers::{Load, Writers};

/// How long the API is watched.
const WATCHED: Duration = Duration::from_secs(20);

/// How long a cluster may take until all is written that its start brings.
const PATIENCE: Duration = Duration::from_mins(2);

/// What is no renewal of a Lease.
fn others(writes: &Writes) -> Vec<(&String, &u64)> {
    writes.iter().filter(|(what, _)| !what.ends_with(" leases")).collect()
}

/// Waits until nothing but Leases is written: conditions of what has just begun, and Events of it, come late.
async fn come_to_rest(api: &ApiServer) -> Result<()> {
    let (begin, mut before) = (Instant::now(), writes(api)?);
    loop {
        tokio::time::sleep(Duration::from_secs(5)).await;
        let after = writes(api)?;
        let more = since(&after, &before);
        if others(&more).is_empty() {
            return Ok(());
        }
        ensure!(begin.elapsed() < PATIENCE, "it does not come to rest: {more:?}");
        before = after;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn m12_records_and_commits_write_nothing_but_leases_to_the_api() -> Result<()> {
    let start = || -> Result<_> {
        let api = Arc::new(ApiServer::start()?);
        let members = Members::start_at(api.clone(), 2)?;
        Ok((api, members))
    };
    let (api, members) = tokio::task::spawn_blocking(start).await??;
    members.apply_topic("flights", 4, "")?;
    members.wait_topic("flights")?;
    let client = Client::connect(&*members.bootstrap())?;
    let load = Load::to("flights").padding(100).pause(Duration::from_millis(2));
    let writers = Writers::start(&client, &load, 0)?;
    let dir = tempfile::tempdir()?;
    let member = MemberOptions::new(&members.bootstrap(), "g", "flights").start(dir.path(), "m")?;
    member.wait(PATIENCE, |diary| diary.records().count() > 500).with_context(|| members.dump())?;
    come_to_rest(&api).await?;

    let (before, acked, read) = (writes(&api)?, writers.acked(), member.diary()?.records().count());
    tokio::time::sleep(WATCHED).await;
    let after = writes(&api)?;
    let (acked, read) = (writers.acked() - acked, member.diary()?.records().count() - read);
    writers.stop().await?;
    ensure!(acked > 1_000 && read > 1_000, "{acked} written, {read} read: too few to mean anything");
    let more = since(&after, &before);
    eprintln!("{acked} written and {read} read; writes to the API: {more:?}");
    let others = others(&more);
    ensure!(others.len() < more.len(), "the Leases are renewed, so that what is counted is real: {more:?}");
    ensure!(others.is_empty(), "other writes than Leases: {others:?}");
    Ok(())
}
