//! An API server that is away or slow: 15, 16.

use std::time::{Duration, Instant};

use anyhow::Result;
use taffrail_e2e::faults::all;
use taffrail_e2e::faults::ground::{Ground, IMAGES, PARTITIONS, Setting};
use taffrail_e2e::faults::trial::{Fault, Trial};
use taffrail_e2e::kubernetes::lab::{self, PATIENCE, until};
use tokio::time::sleep;

use super::{FAILOVER, HEAL, secs};

const AWAY: Fault = Fault {
    number: "15",
    fault: "the API server is away, and a broker dies meanwhile",
    injected: "SIGSTOP of kube-apiserver, 25 s (not 30 min: the longest of a broker's timers is 10 s); SIGKILL of a broker that leads after 12 s",
    promised: "until the broker dies nothing is noticed: pauses ≤ 2 s, no election; then what it led and what it followed stands \
               still; safe; every partition acknowledges ≤ 60 s after the API server is back; no container is restarted but that one",
};

#[test]
fn f15_the_api_server_is_away_and_a_broker_dies() -> Result<()> {
    if !all() {
        return Ok(());
    }
    lab::test_alone(IMAGES, async |lab| {
        Trial::run(&AWAY, async |trial| {
            let ground = Ground::start(lab, "away", &Setting::default()).await?;
            let (before, (broker, _)) = (ground.elections().await?, ground.leader().await?);
            let pids = ground.pod(broker).pids()?;
            let (begin, hangs) = (Instant::now(), lab.part("kube-apiserver").freeze()?);
            sleep(secs(12)).await;
            trial.within("longest pause before the broker dies", ground.writers().longest_pause(), secs(2));
            ground.goes_on(secs(2)).await?;

            lab::kill(&pids)?;
            sleep(secs(25).saturating_sub(begin.elapsed())).await;
            hangs.end()?;
            let back = Instant::now();
            let answers = async || Ok(Some(ground.elections().await?));
            let elections = until("the API server answers", PATIENCE, answers).await? - before;
            trial.must(elections <= PARTITIONS, format!("{elections} elections while it was away"));
            ground.goes_on(secs(120)).await?;
            trial.within("every partition acknowledges after it is back", back.elapsed(), HEAL);
            trial.within("all replicas in sync after", back.elapsed() + ground.heals(HEAL).await?, HEAL);
            let restarts = Ground::others(broker).iter().map(|id| ground.pod(*id).restarts()).sum::<Result<u32>>()?;
            trial.must(restarts == 0, format!("{restarts} restarts of other brokers"));
            ground.finish(trial, secs(75)).await.map(drop)
        })
        .await
    })
}

const SLOW: Fault = Fault {
    number: "16a",
    fault: "the API server takes up to 5 s for an answer",
    injected: "SIGSTOP of kube-apiserver for 4.5 s of every 5 s, 30 s long; SIGKILL of a broker that leads after 10 s",
    promised: "safe; every partition acknowledges ≤ 60 s after the broker's death",
};

#[test]
fn f16_the_api_server_is_slow() -> Result<()> {
    if !all() {
        return Ok(());
    }
    lab::test_alone(IMAGES, async |lab| {
        Trial::run(&SLOW, async |trial| {
            let ground = Ground::start(lab, "slow-api", &Setting::default()).await?;
            let (broker, _) = ground.leader().await?;
            let pids = ground.pod(broker).pids()?;
            let (server, begin) = (lab.part("kube-apiserver"), Instant::now());
            let mut killed = None;
            while begin.elapsed() < secs(30) {
                let hangs = server.freeze()?;
                sleep(Duration::from_millis(4500)).await;
                hangs.end()?;
                sleep(Duration::from_millis(500)).await;
                if killed.is_none() && begin.elapsed() > secs(10) {
                    lab::kill(&pids)?;
                    killed = Some(Instant::now());
                }
            }
            let killed = killed.unwrap_or(begin);
            ground.goes_on(secs(120)).await?;
            trial.within("every partition acknowledges after its death", killed.elapsed(), HEAL);
            ground.heals(HEAL).await?;
            ground.finish(trial, HEAL).await.map(drop)
        })
        .await
    })
}

const RESTARTS: Fault = Fault {
    number: "16b",
    fault: "the API server dies again and again: watches break, writes are of unknown outcome",
    injected: "SIGKILL of kube-apiserver and a new start, 5 times in 20 s; SIGKILL of a broker that leads in the midst",
    promised: "safe; every partition acknowledges ≤ 30 s after the broker's death",
};

#[test]
fn f16_the_api_server_dies_again_and_again() -> Result<()> {
    if !all() {
        return Ok(());
    }
    lab::test_alone(IMAGES, async |lab| {
        Trial::run(&RESTARTS, async |trial| {
            let ground = Ground::start(lab, "restarts", &Setting::default()).await?;
            let (broker, _) = ground.leader().await?;
            let pids = ground.pod(broker).pids()?;
            let mut killed = Instant::now();
            for round in 0..5 {
                lab.part("kube-apiserver").restart()?;
                sleep(secs(4)).await;
                if round == 2 {
                    lab::kill(&pids)?;
                    killed = Instant::now();
                }
            }
            ground.goes_on(secs(120)).await?;
            trial.within("every partition acknowledges after its death", killed.elapsed(), secs(30));
            ground.heals(HEAL).await?;
            ground.goes_on(FAILOVER).await?;
            ground.finish(trial, secs(30)).await.map(drop)
        })
        .await
    })
}
