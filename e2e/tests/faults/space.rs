//! A full disk that gets room by what people delete, and by retention: 11b, 11c.

use std::time::{Duration, Instant};

use anyhow::Result;
use serde_json::json;
use taffrail_e2e::faults::all;
use taffrail_e2e::faults::ground::{BROKERS, IMAGES};
use taffrail_e2e::faults::trial::{Fault, Trial};
use taffrail_e2e::kubernetes::lab::{self, Lab, Namespace, PATIENCE, until};
use taffrail_e2e::writers::{Load, Writers};
use tokio::time::sleep;

use super::disks::{disk_of, on_disks, refused};
use super::{FAILOVER, HEAL, secs};

/// What is to go, as kubectl names it.
const BLOBS: &str = "topics.taffrail.dev/blobs";

/// Mebibytes of it: most of what must be free again, many times over.
const SIZE: u64 = 120;

/// A round of retention is made every 30 s, and what it gives up is found dead in the same or in the next.
const ROUNDS: Duration = Duration::from_secs(90);

/// The disk of a broker is full, and stays as full as it is made; `make_room` is the only way out.
async fn make_room_while_full(
    lab: &Lab,
    trial: &mut Trial,
    make_room: impl FnOnce(&Namespace<'_>) -> Result<()>,
) -> Result<()> {
    let (ground, disks) = on_disks(lab, "room", "").await?;
    let namespace = ground.namespace().clone();
    namespace.apply(
        "apiVersion: taffrail.dev/v1alpha1\nkind: Topic\nmetadata: {name: blobs}\n\
         spec: {clusterRef: {name: main}, partitions: 1, replicationFactor: 3, deletionPolicy: Delete, \
         config: {minInSyncReplicas: 2, trashRetention: 1s}}\n",
    )?;
    namespace.wait_topic("blobs", BROKERS)?;
    namespace.wait(BLOBS, "condition=UnderReplicated=False", PATIENCE)?;
    let load = Load::to("blobs").padding((1 << 20) - 1024).pause(Duration::from_millis(100));
    let blobs = Writers::start(ground.client(), &load.apart(1), 0)?;
    blobs.wait_for(SIZE).await?;
    blobs.stop().await?;

    let (broker, _) = ground.leader().await?;
    let disk = disk_of(&ground, &disks, broker)?;
    let (begin, full) = (Instant::now(), disk.fill(12 << 20)?);
    until("it refuses appends", FAILOVER, async || Ok(refused(&ground, broker)?.then_some(()))).await?;
    ground.goes_on(secs(60)).await?;
    trial.within("every partition acknowledges after", begin.elapsed(), secs(20));
    // Nothing else makes room.
    sleep(secs(3)).await;
    trial.must(refused(&ground, broker)?, "it takes records again though nothing was deleted");

    make_room(&namespace)?;
    let begin = Instant::now();
    let takes = async || Ok((!refused(&ground, broker)?).then_some(()));
    until("it takes records again", 2 * PATIENCE, takes).await?;
    trial.within("it takes records again after", begin.elapsed(), ROUNDS);
    trial.within("all replicas in sync after that", ground.heals(HEAL).await?, HEAL);
    trial.saw(format!("{} MiB free beside what fills the disk", disk.free()? >> 20));
    let restarts = ground.pod(broker).restarts()?;
    trial.must(restarts == 0, format!("it was restarted {restarts} times"));
    full.end()?;
    ground.finish(trial, HEAL).await.map(drop)
}

const DELETED: Fault = Fault {
    number: "11b",
    fault: "the disk of a broker is full, and a topic is deleted",
    injected: "as 11, to the end; then kubectl delete of a Topic of 120 MiB with deletionPolicy Delete and trashRetention 1s",
    promised: "the broker deletes its replica and takes records again ≤ 90 s, without a restart and with the disk still filled; in sync ≤ 60 s \
               later; safe",
};

#[test]
fn f11_a_topic_is_deleted_while_a_disk_is_full() -> Result<()> {
    if !all() {
        return Ok(());
    }
    lab::test(IMAGES, async |lab| {
        Trial::run(&DELETED, async |trial| {
            make_room_while_full(lab, trial, |namespace| {
                namespace.kubectl(&["delete", BLOBS, "--timeout=60s"])?.ok().map(drop)
            })
            .await
        })
        .await
    })
}

const RETAINED: Fault = Fault {
    number: "11c",
    fault: "the disk of a broker is full, and a topic is to keep less",
    injected: "as 11, to the end; then retentionBytes 1Mi for a Topic of 120 MiB",
    promised: "as 11b: the leader gives up the oldest records, and the broker follows though it takes none",
};

#[test]
fn f11_q1_retention_goes_on_while_a_disk_is_full() -> Result<()> {
    if !all() {
        return Ok(());
    }
    lab::test(IMAGES, async |lab| {
        Trial::run(&RETAINED, async |trial| {
            make_room_while_full(lab, trial, |namespace| {
                namespace.patch(BLOBS, &json!({ "spec": { "config": { "retentionBytes": "1Mi" } } }))
            })
            .await
        })
        .await
    })
}
