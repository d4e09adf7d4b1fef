//! What a cluster writes to the API while records flow: its Leases (M12).

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use taffrail_client::Client;
use taffrail_e2e::group::MemberOptions;
use taffrail_e2e::kubernetes::ApiServer;
use taffrail_e2e::kubernetes::api_writes::{since, writes};
use taffrail_e2e::kubernetes::members::Members;
use taffrail_e2e::writers::{Load, Writers};

/// How long the API is watched.
const WATCHED: Duration = Duration::from_secs(20);

#[tokio::test(flavor = "multi_thread")]
async fn m12_records_and_commits_write_nothing_but_leases_to_the_api() -> Result<()> {
    let start = || -> Result<_> {
        let api = Arc::new(ApiServer::start()?);
        let members = Members::start_at(api.clone(), 2)?;
        Ok((api, members))
    };
    let (api, members) = tokio::task::spawn_blocking(start).await??;
    members.apply_topic("flights", 4, "")?;
    members.wait_condition("topic/flights", "Ready")?;
    let client = Client::connect(&*members.bootstrap())?;
    let load = Load::to("flights").padding(100).pause(Duration::from_millis(2));
    let writers = Writers::start(&client, &load, 0)?;
    let dir = tempfile::tempdir()?;
    let member = MemberOptions::new(&members.bootstrap(), "g", "flights").start(dir.path(), "m")?;
    member.wait(Duration::from_secs(30), |diary| diary.records().count() > 500).with_context(|| members.dump())?;
    // Events about what has just begun come late.
    tokio::time::sleep(Duration::from_secs(2)).await;

    let (before, acked, read) = (writes(&api)?, writers.acked(), member.diary()?.records().count());
    tokio::time::sleep(WATCHED).await;
    let after = writes(&api)?;
    let (acked, read) = (writers.acked() - acked, member.diary()?.records().count() - read);
    writers.stop().await?;
    ensure!(acked > 1_000 && read > 1_000, "{acked} written, {read} read: too few to mean anything");
    let more = since(&after, &before);
    eprintln!("{acked} written and {read} read; writes to the API: {more:?}");
    let (leases, others): (Vec<_>, Vec<_>) = more.iter().partition(|(what, _)| what.ends_with(" leases"));
    ensure!(!leases.is_empty(), "the Leases are renewed, so that what is counted is real: {more:?}");
    ensure!(others.is_empty(), "other writes than Leases: {others:?}");
    Ok(())
}
