//! The chart goes from one version to the next, away and back again, and the brokers do not notice.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::Result;
use taffrail_e2e::cli::{self, project};
use taffrail_e2e::faults::all;
use taffrail_e2e::faults::ground::{Ground, IMAGES, Setting};
use taffrail_e2e::faults::trial::{Fault, Trial};
use taffrail_e2e::kubernetes::lab::{self, Namespace, PATIENCE, until};

use crate::operate::{CLUSTER, cluster, make_topic, pods, wait_ready};
use crate::{FAILOVER, SMOOTH, SMOOTH_RECORD};

/// The chart of the commit before this one; where nobody knows that, this one's under another version. Its operators are
/// configured otherwise, so that an upgrade has something to do.
fn previous(folder: &Path) -> Result<PathBuf> {
    let tar = folder.join("chart.tar");
    let mut archive = Command::new("git");
    archive.arg("-C").arg(project()).args(["archive", "HEAD~1", "helm/taffrail", "-o"]).arg(&tar);
    let chart = folder.join("helm/taffrail");
    if cli::run(&mut archive, "").is_ok_and(|ended| ended.code == Some(0)) {
        cli::run(Command::new("tar").arg("-C").arg(folder).arg("-xf").arg(&tar), "")?.ok()?;
        println!("the chart of the commit before");
        return Ok(chart);
    }
    fs::create_dir_all(folder.join("helm"))?;
    cli::run(Command::new("cp").arg("-r").arg(project().join("helm/taffrail")).arg(&chart), "")?.ok()?;
    let file = chart.join("Chart.yaml");
    let text = fs::read_to_string(&file)?;
    let changed = text.lines().map(|line| if line.starts_with("version:") { "version: 0.0.1" } else { line });
    fs::write(&file, changed.collect::<Vec<_>>().join("\n"))?;
    println!("this chart under another version: the commit before is not known");
    Ok(chart)
}

/// What shows that the brokers are left alone: identity and generation of their StatefulSet, and each pod's restarts.
type Untouched = (String, String, Vec<(String, u64)>);

fn brokers(namespace: &Namespace<'_>) -> Result<Untouched> {
    let of = |path: &str| namespace.get("statefulset/main", path);
    Ok((of(".metadata.uid")?, of(".metadata.generation")?, pods(namespace)?))
}

/// An operator has looked at the Cluster: it has put right what it had not been told of.
async fn wait_looked_at(namespace: &Namespace<'_>) -> Result<()> {
    let budget = "poddisruptionbudget/main";
    namespace.kubectl(&["delete", budget])?.ok()?;
    let there = async || Ok(namespace.kubectl(&["get", budget])?.ok().ok());
    until("an operator looks at the Cluster", PATIENCE, there).await.map(drop)
}

const CHART: Fault = Fault {
    number: "20c",
    fault: "the chart is upgraded, uninstalled, installed",
    injected: "helm upgrade from the chart of the commit before (or this one's under another version), helm uninstall, helm install",
    promised: "the StatefulSet's generation and the pods stay as they are, and the kinds, the Cluster and its data; each time an operator goes on \
               with them; safe, pauses ≤ 4 s, p99 of acks < 1 s",
};

#[test]
fn f20_the_chart_is_upgraded_uninstalled_and_installed() -> Result<()> {
    if !all() {
        return Ok(());
    }
    lab::test_alone(IMAGES, async |lab| {
        let folder = tempfile::tempdir()?;
        let previous = previous(folder.path())?;
        let outcome = Trial::run(&CHART, async |trial| {
            lab.install_chart(&previous, &["--set", "logLevel=debug"])?;
            let namespace = lab.namespace("chart")?;
            namespace.apply(&cluster("", ""))?;
            wait_ready(&namespace)?;
            let ground = Ground::on(namespace.clone(), &Setting::default()).await?;
            wait_looked_at(&namespace).await?;
            let before = brokers(&namespace)?;
            lab.install_chart(&project().join("helm/taffrail"), &["--reset-values"])?;
            wait_looked_at(&namespace).await?;
            trial.must(brokers(&namespace)? == before, "the upgrade has touched the brokers");
            ground.goes_on(FAILOVER).await?;

            lab.uninstall_operator()?;
            let kinds = lab.kubectl(&["get", "crd", "-o", "name"])?.ok()?.matches("taffrail.dev").count();
            trial.must(kinds == 5, format!("{kinds} kinds are left"));
            let left = namespace.get(CLUSTER, ".metadata.deletionTimestamp").is_ok_and(|deleted| deleted.is_empty());
            trial.must(left, "the Cluster went with the chart");
            trial.must(brokers(&namespace)? == before, "uninstalling has touched the brokers");
            ground.goes_on(FAILOVER).await?;

            lab.install_operator()?;
            wait_looked_at(&namespace).await?;
            trial.must(brokers(&namespace)? == before, "installing again has touched the brokers");
            make_topic(&namespace, "later")?;
            ground.finish_within(trial, SMOOTH, SMOOTH_RECORD).await.map(drop)
        })
        .await;
        // Whatever came of it, other tests find the operator.
        let installed = lab.install_operator();
        outcome.and(installed)
    })
}
