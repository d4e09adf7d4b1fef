//! `taffrail-operator plan`: what a change would do, before it is applied.

use clap::{Args, ValueEnum};
use kube::Client;
use taffrail_crds::Cluster;
use taffrail_crds::manifest::{Object, duplicate_objects, parse_objects};

use super::{BROKER_IMAGE, Exit, print, validate};
use crate::plan::{self, Plan, live};

/// How a plan is printed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
enum Output {
    /// For people.
    #[default]
    Text,
    /// For programs: a list with an entry for each Cluster.
    Json,
}

#[derive(Args, Debug)]
#[command(after_help = "\
It asks the API server that kubectl talks to (KUBECONFIG), with your rights, and writes nothing. It decides by what is there now: \
the replicas that move, and what restarts wait for, are of this moment.

Exit codes:
  0  it can be applied; the plan says what happens then
  1  the API server could not be asked
  2  the command line or a manifest is wrong
  3  something of it would be refused, or could never end by itself

Examples:
  taffrail-operator plan -f cluster.yaml
  kubectl get clusters.taffrail.dev main -o yaml | sed 's/replicas: 5/replicas: 3/' | taffrail-operator plan -f -
  taffrail-operator plan -f cluster.yaml -o json | jq '.[].restarts | length'")]
pub(super) struct PlanArgs {
    /// Manifest with the Clusters as they are to be, as for `kubectl apply`; `-` is standard input. May be given several times.
    /// Topics in it are checked and not planned.
    #[arg(short, long = "file", value_name = "FILE", required = true, num_args = 1..)]
    file: Vec<String>,

    /// Namespace of Clusters that name none. Default: that of the kubeconfig's context.
    #[arg(short, long, value_name = "NAME")]
    namespace: Option<String>,

    /// How to print.
    #[arg(short, long, value_enum, default_value_t)]
    output: Output,

    /// The brokers' image without a tag that the operator was started with, for a Cluster that is not there yet.
    #[arg(long, value_name = "IMAGE", default_value = BROKER_IMAGE)]
    broker_image: String,
}

impl PlanArgs {
    pub(super) fn run(self) -> Exit {
        let clusters = match self.clusters() {
            Ok(clusters) if clusters.is_empty() => {
                eprintln!("error: no Cluster is in these manifests: a plan is made for Clusters");
                return Exit::Usage;
            }
            Ok(clusters) => clusters,
            Err(faults) => {
                for fault in &faults {
                    eprintln!("{fault}");
                }
                return Exit::Usage;
            }
        };
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        let plans = runtime.map_err(anyhow::Error::from).and_then(|runtime| runtime.block_on(self.plans(clusters)));
        match plans {
            Ok(plans) => self.print(&plans),
            Err(error) => {
                eprintln!("error: {error:#}");
                Exit::Failed
            }
        }
    }

    /// The Clusters of all files, or all that is wrong with these.
    fn clusters(&self) -> Result<Vec<Cluster>, Vec<String>> {
        let (mut objects, mut faults) = (Vec::new(), Vec::new());
        for file in &self.file {
            match validate::read(file) {
                Ok(text) => match parse_objects(&text, file) {
                    Ok(found) => objects.extend(found),
                    Err(found) => faults.extend(found.iter().map(ToString::to_string)),
                },
                Err(error) => faults.push(format!("{file}: cannot be read: {error}")),
            }
        }
        faults.extend(duplicate_objects(&objects).iter().map(ToString::to_string));
        let clusters = objects.into_iter().filter_map(|document| match document.object {
            Object::Cluster(cluster) => Some(*cluster),
            Object::Topic(_) => None,
        });
        if faults.is_empty() { Ok(clusters.collect()) } else { Err(faults) }
    }

    async fn plans(&self, clusters: Vec<Cluster>) -> anyhow::Result<Vec<Plan>> {
        use anyhow::Context as _;
        let client = Client::try_default().await.context("find the API server: set KUBECONFIG, as for kubectl")?;
        let default = self.namespace.clone().unwrap_or_else(|| client.default_namespace().to_owned());
        let mut plans = Vec::new();
        for mut cluster in clusters {
            cluster.metadata.namespace.get_or_insert_with(|| default.clone());
            let live = live::load(&client, &cluster).await.context("read what is there")?;
            plans.push(plan::plan(&cluster, &live, &plan::settings(&live, &self.broker_image)));
        }
        Ok(plans)
    }

    fn print(&self, plans: &[Plan]) -> Exit {
        let text = match self.output {
            Output::Text => plans.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n"),
            Output::Json => serde_json::to_string_pretty(plans).unwrap_or_default() + "\n",
        };
        let refused = plans.iter().any(|plan| !plan.refused.is_empty());
        match print(&text) {
            Exit::Done if refused => Exit::Refused,
            other => other,
        }
    }
}
