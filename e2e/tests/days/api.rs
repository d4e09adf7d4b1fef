//! The API server is away for two minutes, and nothing else happens: 15.

use std::time::{Duration, Instant};

use anyhow::Result;
use serde_json::{Value, json};
use taffrail_e2e::faults::all;
use taffrail_e2e::faults::ground::{Ground, IMAGES, PARTITIONS, Setting};
use taffrail_e2e::faults::trial::{Fault, Trial};
use taffrail_e2e::group::{Entry, MemberOptions};
use taffrail_e2e::kubernetes::lab::{self, Namespace, PATIENCE, until};

use crate::operate::{endpoint, make_topic, pods};
use crate::{SMOOTH, SMOOTH_RECORD};

/// The sessions of the brokers, and whether they were given up.
fn sessions(namespace: &Namespace<'_>) -> Result<Vec<Value>> {
    let brokers = namespace.json("get brokers.taffrail.dev")?;
    let of = |broker: &Value| json!([broker["spec"]["incarnation"], broker["spec"]["fenced"]]);
    Ok(brokers["items"].as_array().into_iter().flatten().map(of).collect())
}

const AWAY: Fault = Fault {
    number: "15b",
    fault: "the API server is away for two minutes",
    injected: "SIGSTOP of kube-apiserver for 60 s, then SIGKILL, and started again after 60 s",
    promised: "producers, readers and a group notice nothing: safe, no error, pauses ≤ 4 s, p99 of acks < 1 s, no partition moves in the group; \
               no broker is given up or ends, no leader changes; then a topic can be made",
};

#[test]
fn f15_m13_the_api_server_is_away_for_two_minutes() -> Result<()> {
    if !all() {
        return Ok(());
    }
    lab::test_alone(IMAGES, async |lab| {
        Trial::run(&AWAY, async |trial| {
            let ground = Ground::start(lab, "api", &Setting::default()).await?;
            let namespace = ground.namespace().clone();
            let dir = tempfile::tempdir()?;
            let member = MemberOptions::new(&endpoint(&namespace), "g", "flights").start(dir.path(), "m")?;
            let partitions = usize::try_from(PARTITIONS)?;
            let settled =
                member.wait(PATIENCE, |diary| diary.owned().len() == partitions && diary.records().count() > 50)?;
            let before = (sessions(&namespace)?, ground.elections().await?, pods(&namespace)?);
            let acked = ground.writers().acked();

            let (begin, half) = (Instant::now(), Duration::from_mins(1));
            let hangs = lab.part("kube-apiserver").freeze()?;
            tokio::time::sleep(half).await;
            hangs.end()?;
            let dead = lab.part("kube-apiserver").crash()?;
            tokio::time::sleep(half).await;
            let (written, diary) = (ground.writers().acked() - acked, member.diary()?);
            dead.end()?;
            trial.saw(format!("{written} records in {:.0} s", begin.elapsed().as_secs_f64()));

            let fenced = diary.entries.iter().any(|entry| matches!(entry, Entry::Fenced(_)));
            trial.must(diary.moves() == settled.moves() && !fenced, "the group has moved partitions");
            let processed = diary.records().count() as u64;
            trial.must(processed > acked + written / 2, format!("the group processed only {processed} records"));
            until("the API server answers", PATIENCE, async || lab.kubectl(&["get", "nodes"])?.ok().map(Some)).await?;
            // Whoever would be given up is given up by now.
            tokio::time::sleep(Duration::from_secs(10)).await;
            let after = (sessions(&namespace)?, ground.elections().await?, pods(&namespace)?);
            trial.must(after == before, format!("{before:?} are now {after:?}"));
            make_topic(&namespace, "later")?;
            ground.finish_within(trial, SMOOTH, SMOOTH_RECORD).await.map(drop)
        })
        .await
    })
}
