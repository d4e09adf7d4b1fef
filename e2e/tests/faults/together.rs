//! Several faults at once: 29.

use std::time::Instant;

use anyhow::Result;
use taffrail_e2e::faults::all;
use taffrail_e2e::faults::ground::{Ground, IMAGES, Setting};
use taffrail_e2e::faults::trial::{Fault, Trial};
use taffrail_e2e::kubernetes::lab;
use tokio::time::sleep;

use super::{HEAL, secs};

const MIX: Fault = Fault {
    number: "29",
    fault: "a broker dies while the controller sleeps and the API server is away",
    injected: "1a, 6 and 15 at once: SIGSTOP of kube-apiserver and the freezer for the controller, 20 s; SIGKILL of a leader after 5 s",
    promised: "safe; every partition acknowledges ≤ 60 s after the end",
};

#[test]
fn f29_a_broker_dies_while_the_controller_sleeps_and_the_api_server_is_away() -> Result<()> {
    if !all() {
        return Ok(());
    }
    lab::test_alone(IMAGES, async |lab| {
        Trial::run(&MIX, async |trial| {
            let ground = Ground::start(lab, "mix", &Setting::default()).await?;
            let (controller, (broker, _)) = (ground.controller().await?, ground.leader().await?);
            let pids = ground.pod(broker).pids()?;
            let frozen = ground.pod(controller).freeze()?;
            let hangs = lab.part("kube-apiserver").freeze()?;
            sleep(secs(5)).await;
            lab::kill(&pids)?;
            sleep(secs(15)).await;
            hangs.end()?;
            frozen.end()?;
            let end = Instant::now();
            ground.goes_on(secs(120)).await?;
            trial.within("every partition acknowledges after the end", end.elapsed(), HEAL);
            trial.within("all replicas in sync after", end.elapsed() + ground.heals(HEAL).await?, HEAL);
            ground.finish(trial, secs(80)).await.map(drop)
        })
        .await
    })
}
