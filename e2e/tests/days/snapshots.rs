//! A volume that is put back as it was some time ago: 23b.

use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use taffrail_e2e::cli;
use taffrail_e2e::faults::all;
use taffrail_e2e::faults::ground::{Ground, IMAGES, Setting, told};
use taffrail_e2e::faults::trial::{Fault, Trial};
use taffrail_e2e::kubernetes::has_ended;
use taffrail_e2e::kubernetes::lab::{self, PATIENCE, until};

use crate::operate::{wait_ready, wait_replaced};
use crate::{FAILOVER, HEAL};

/// How long nobody may lead while those who can are away.
const LEADERLESS: Duration = Duration::from_secs(5);

/// Copies what is in a folder, with owners and times.
fn copy(from: &Path, to: &Path) -> Result<()> {
    cli::run(Command::new("cp").arg("-a").arg(from.join(".")).arg(to), "")?.ok().map(drop)
}

/// Empties a folder, which stays: pods have it mounted.
fn empty(folder: &Path) -> Result<()> {
    cli::run(Command::new("find").arg(folder).args(["-mindepth", "1", "-delete"]), "")?.ok().map(drop)
}

const OLDER: Fault = Fault {
    number: "23b",
    fault: "an older copy of a volume is put back, and the other brokers sleep while its broker comes back with it",
    injected: "a copy of the volume's files, made while its pod is in the cgroup freezer; its pod is deleted, made anew and goes on; killed \
               while its kubelet hangs, it finds the copy in the place of its files, and the other two are in the freezer until it is \
               controller, and 5 s longer",
    promised: "as 23, though the copy says that nothing is lost: it does not go on with its session and leads nothing; every partition acknowledges \
               ≤ 10 s after the others are awake, nobody without proof; it is in sync ≤ 60 s later; safe",
};

/// The kernel stays up, so the copy alone would pass for what a killed broker has left: the number of its last session tells.
#[test]
fn f23_l6_an_older_copy_of_a_volume_counts_for_nothing() -> Result<()> {
    if !all() {
        return Ok(());
    }
    lab::test_alone(IMAGES, async |lab| {
        Trial::run(&OLDER, async |trial| {
            let ground = Ground::start(lab, "snapshot", &Setting::default()).await?;
            let namespace = ground.namespace().clone();
            let pod = ground.pod(2);
            let (volume, snapshot) = (pod.volume("data-main-2")?, tempfile::tempdir()?);
            let of_broker = |field: &str| namespace.get("brokers.taffrail.dev/main-2", &format!(".spec.{field}"));
            let session = || -> Result<i64> { Ok(of_broker("incarnation")?.parse()?) };
            let asleep = pod.freeze()?;
            copy(&volume, snapshot.path())?;
            asleep.end()?;
            ground.goes_on(FAILOVER).await?;

            let (first, uid) = (session()?, pod.get(".metadata.uid")?);
            namespace.kubectl(&["delete", "pod", pod.name()])?.ok()?;
            wait_replaced(&namespace, pod.name(), &uid).await?;
            let second = session()?;
            ensure!(second > first, "it has session {second}, and had {first}");
            ground.heals(HEAL).await?;
            ground.goes_on(FAILOVER).await?;
            let kubelet = lab.node(pod.node()?).freeze_kubelet()?;
            let pids = pod.pids()?;
            lab::kill(&pids)?;
            until("it has ended", PATIENCE, async || {
                let ended = pids.iter().map(|pid| has_ended(pid.as_raw_nonzero().get().unsigned_abs()));
                let ended = ended.collect::<Result<Vec<_>>>()?;
                Ok(ended.into_iter().all(|ended| ended).then_some(()))
            })
            .await?;
            empty(&volume)?;
            copy(snapshot.path(), &volume)?;
            let others = [ground.pod(0).freeze()?, ground.pod(1).freeze()?];
            kubelet.end()?;
            until("the broker with the older copy is the controller", PATIENCE, async || {
                Ok((session()? > second && ground.controller().await? == 2).then_some(()))
            })
            .await?;
            let continues = of_broker("continues")?;
            trial.must(continues.is_empty(), format!("it says that it goes on with session {continues}"));
            ground.become_so("nobody leads", PATIENCE, |state| state.leader.is_none()).await?;
            let begin = Instant::now();
            while begin.elapsed() < LEADERLESS {
                let states = ground.states().await?;
                ensure!(states.iter().all(|state| state.leader.is_none()), "{}", told(&states));
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
            let awake = Instant::now();
            for other in others {
                other.end()?;
            }
            ground.goes_on(PATIENCE).await?;
            trial.within("every partition acknowledges after", awake.elapsed(), FAILOVER);
            let unproven = ground.states().await?.iter().filter(|state| state.recovering).count();
            trial.must(unproven == 0, format!("{unproven} partitions are led without proof"));
            trial.within("all replicas in sync after", ground.heals(HEAL).await?, HEAL);
            wait_ready(&namespace)?;
            ground.finish(trial, 2 * HEAL).await.map(drop)
        })
        .await
    })
}
