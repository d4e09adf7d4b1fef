//! Two pods with one identity: 22. Kubernetes promises that a StatefulSet has one at the most, unless somebody deletes a pod by
//! force whose node cannot be asked whether it still runs.

use std::time::Instant;

use anyhow::{Context, Result, ensure};
use taffrail_e2e::faults::all;
use taffrail_e2e::faults::ground::{Ground, IMAGES, Setting};
use taffrail_e2e::faults::trial::{Fault, Trial};
use taffrail_e2e::kubernetes::has_ended;
use taffrail_e2e::kubernetes::lab::{self, PATIENCE, until};

use crate::operate::wait_replaced;
use crate::{FAILOVER, HEAL};

const TWINS: Fault = Fault {
    number: "22",
    fault: "a node is lost, and its broker's pod deleted by force while it lives: two pods with one identity",
    injected: "SIGSTOP of the node's kubelet, its link down, the pod's claim deleted and the pod by force; with the newer in sync, the link is up",
    promised: "partitions acknowledge ≤ 20 s after the loss (the broker may be the controller); the newer gets a volume and is in sync; the older gives way ≤ 30 s after it is back; safe",
};

/// The older keeps its processes and its volume's files, and gets its network back while the newer serves.
#[test]
fn f22_e6_of_two_pods_with_one_identity_the_older_is_fenced() -> Result<()> {
    if !all() {
        return Ok(());
    }
    lab::test_alone(IMAGES, async |lab| {
        Trial::run(&TWINS, async |trial| {
            let ground = Ground::start(lab, "twins", &Setting::default()).await?;
            let namespace = ground.namespace().clone();
            // Other tests' traffic goes through node 1.
            let mut names = ["main-0", "main-1", "main-2"].into_iter();
            let name = names.find(|name| namespace.pod(name).node().is_ok_and(|node| node != 1));
            let pod = namespace.pod(name.context("all brokers are on node 1")?);
            let (name, uid, node) = (pod.name(), pod.get(".metadata.uid")?, lab.node(pod.node()?));
            let older = pod.pids()?[0].as_raw_nonzero().get().unsigned_abs();
            let session = || -> Result<i64> {
                Ok(namespace.get(&format!("brokers.taffrail.dev/{name}"), ".spec.incarnation")?.parse()?)
            };
            let before = session()?;

            let kubelet = node.freeze_kubelet()?;
            let (begin, cable) = (Instant::now(), node.unplug()?);
            ground.goes_on(PATIENCE).await?;
            trial.within("every partition acknowledges after", begin.elapsed(), 2 * FAILOVER);
            node.wait_unknown()?;
            // Its volume is on that node: another pod can only start elsewhere with another.
            namespace.kubectl(&["delete", "pvc", &format!("data-{name}"), "--wait=false"])?.ok()?;
            namespace.kubectl(&["delete", "pod", name, "--force", "--grace-period=0"])?.ok()?;
            wait_replaced(&namespace, name, &uid).await?;
            trial.within("the newer is in sync after its start", ground.heals(HEAL).await?, HEAL);
            let newer = session()?;
            ensure!(newer > before, "the newer has session {newer}, the older {before}");
            ensure!(!has_ended(older)?, "the older does not run any more, so there never were two");

            cable.end()?;
            let begin = Instant::now();
            let ended = until("the older gives way", PATIENCE, async || Ok(has_ended(older)?.then_some(()))).await;
            let said = node.pod_log(namespace.name(), name, &uid)?;
            ended.with_context(|| said.clone())?;
            trial.within("the older gives way after", begin.elapsed(), 3 * FAILOVER);
            trial.must(said.contains("this one gives way"), "it does not say that it gives way");
            trial.must(session()? == newer, "the newer was disturbed");
            ground.goes_on(FAILOVER).await?;
            kubelet.end()?;
            node.wait_ready()?;
            namespace.wait(&format!("pod/{name}"), "condition=Ready", PATIENCE)?;
            ground.heals(HEAL).await?;
            ground.finish(trial, 2 * FAILOVER).await.map(drop)
        })
        .await
    })
}
