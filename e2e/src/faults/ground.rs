//! What faults happen to: a Cluster of three brokers, one in each zone, and a topic of three replicas that is written and read
//! all the time.

use std::collections::BTreeMap;
use std::fmt;
use std::net::IpAddr;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use kube::Api;
use kube::api::ListParams;
use taffrail_client::Client;
use taffrail_crds::cluster_state::ClusterState;
use taffrail_crds::slice::{PartitionSlice, PartitionState};
use tokio::time::timeout;

use super::allowed;
use super::reader::{Reader, agree};
use super::trial::{Trial, seconds};
use crate::history::Told;
use crate::kubernetes::lab::{Lab, Namespace, PATIENCE, Pod, until};
use crate::writers::{Load, Writers, check};

/// Images that tests on it need.
pub const IMAGES: &[&str] = &["taffrail-broker", "taffrail-operator"];
/// The topic.
pub const TOPIC: &str = "flights";
/// Its partitions; each has a writer of its own.
pub const PARTITIONS: i32 = 4;
/// Brokers.
pub const BROKERS: i32 = 3;

/// How long three brokers may take to be there.
const START_PATIENCE: Duration = Duration::from_mins(3);
/// Longer than any fault: what is sent is acknowledged in the end.
const DELIVERY: Duration = Duration::from_mins(3);
/// An API server that does not answer is asked again.
const API_PATIENCE: Duration = Duration::from_secs(2);
/// Acknowledgements of each partition that show that it goes on: more than are in flight when something breaks.
const ENOUGH: u64 = 80;

/// What is different from other trials.
#[derive(Clone, Debug, Default)]
pub struct Setting {
    /// More of the Cluster's spec, as lines of YAML with two blanks in front.
    pub spec: String,
    /// More of the storage, such as `, storageClassName: x`.
    pub storage: String,
    /// More of the topic's config, such as `, durability: disk`.
    pub config: String,
}

/// A Cluster under load.
pub struct Ground<'a> {
    namespace: Namespace<'a>,
    api: kube::Client,
    client: Client,
    writers: Writers,
    reader: Reader,
    /// When nothing that was sent then may have been acknowledged.
    silence: Option<(Instant, Instant)>,
}

impl<'a> Ground<'a> {
    /// In a new namespace whose name begins with `name`.
    pub async fn start(lab: &'a Lab, name: &str, setting: &Setting) -> Result<Self> {
        Self::start_in(lab.namespace(name)?, setting).await
    }

    /// In a namespace that has what the setting names. All replicas are in sync, and writers and a reader at work.
    pub async fn start_in(namespace: Namespace<'a>, setting: &Setting) -> Result<Self> {
        namespace.lab().install_operator()?;
        let Setting { spec, storage, .. } = setting;
        namespace.apply(&format!(
            "apiVersion: taffrail.dev/v1alpha1\nkind: Cluster\nmetadata: {{name: main}}\n\
             spec:\n  replicas: {BROKERS}\n  storage: {{size: 1Gi{storage}}}\n{spec}"
        ))?;
        namespace.wait("clusters.taffrail.dev/main", "condition=Ready", START_PATIENCE)?;
        Self::on(namespace, setting).await
    }

    /// In a namespace where the brokers serve already.
    pub async fn on(namespace: Namespace<'a>, setting: &Setting) -> Result<Self> {
        let lab = namespace.lab();
        add_topic(&namespace, TOPIC, PARTITIONS, &setting.config)?;
        // Each broker by its own name: the Service would go by way of node 1, and to brokers that are about to break.
        let brokers: Vec<_> = (0..BROKERS).map(|broker| namespace.broker(broker)).collect();
        let client = Client::connect(brokers.join(","))?;
        let load = Load::to(TOPIC).padding(100).patience(DELIVERY).pause(Duration::from_millis(5));
        let writers = Writers::start(&client, &load.apart(PARTITIONS as u64), 0)?;
        let reader = Reader::start(&client, TOPIC);
        let ground = Self { api: lab.client().await?, namespace, client, writers, reader, silence: None };
        ground.heals(PATIENCE).await?;
        ground.goes_on(PATIENCE).await?;
        ground.writers.forget_pauses();
        Ok(ground)
    }

    /// The namespace of all this.
    pub fn namespace(&self) -> &Namespace<'a> {
        &self.namespace
    }

    /// A client that knows all brokers.
    pub fn client(&self) -> &Client {
        &self.client
    }

    /// The writers.
    pub fn writers(&self) -> &Writers {
        &self.writers
    }

    /// Who reads all the time.
    pub fn reader(&self) -> &Reader {
        &self.reader
    }

    /// The pod of a broker.
    pub fn pod(&self, broker: i32) -> Pod<'a> {
        self.namespace.pod(&format!("main-{broker}"))
    }

    /// The addresses of all brokers' pods, by number.
    pub fn addresses(&self) -> Result<Vec<IpAddr>> {
        (0..BROKERS).map(|broker| self.pod(broker).address()).collect()
    }

    /// One more topic of the Cluster, all of whose replicas are in sync.
    pub fn add_topic(&self, name: &str, partitions: i32, config: &str) -> Result<()> {
        add_topic(&self.namespace, name, partitions, config)
    }

    /// The states of a topic's partitions, by index.
    pub async fn states_of(&self, topic: &str) -> Result<Vec<PartitionState>> {
        let slices: Api<PartitionSlice> = Api::namespaced(self.api.clone(), self.namespace.name());
        let list = timeout(API_PATIENCE, slices.list(&ListParams::default())).await.context("the API hangs")??;
        let ours = list.items.into_iter().filter(|slice| slice.spec.topic_name == topic);
        let mut states: Vec<_> = ours.flat_map(|slice| slice.spec.partitions).collect();
        states.sort_by_key(|state| state.index);
        Ok(states)
    }

    /// The states of the partitions, by index.
    pub async fn states(&self) -> Result<Vec<PartitionState>> {
        self.states_of(TOPIC).await
    }

    /// Who leads each partition.
    pub async fn leaders(&self) -> Result<Vec<Option<i32>>> {
        Ok(self.states().await?.iter().map(|state| state.leader).collect())
    }

    /// Elections of all partitions since they were made.
    pub async fn elections(&self) -> Result<i32> {
        Ok(self.states().await?.iter().map(|state| state.leader_epoch).sum())
    }

    /// The broker that is controller.
    pub async fn controller(&self) -> Result<i32> {
        let states: Api<ClusterState> = Api::namespaced(self.api.clone(), self.namespace.name());
        let state = timeout(API_PATIENCE, states.get("main")).await.context("the API hangs")??;
        state.spec.controller.context("nobody is controller")
    }

    /// A broker that leads a partition and is not the controller, with that partition.
    pub async fn leader(&self) -> Result<(i32, i32)> {
        let controller = self.controller().await?;
        let states = self.states().await?;
        let found = states.iter().find_map(|state| Some((state.leader.filter(|l| *l != controller)?, state.index)));
        found.context("nobody but the controller leads")
    }

    /// The brokers other than one.
    pub fn others(broker: i32) -> Vec<i32> {
        (0..BROKERS).filter(|other| *other != broker).collect()
    }

    /// Waits until every partition acknowledges: how long that took.
    pub async fn goes_on(&self, patience: Duration) -> Result<Duration> {
        self.writers.wait_for_each(PARTITIONS, ENOUGH, allowed(patience)).await
    }

    /// The same of these partitions only.
    pub async fn go_on(&self, partitions: &[i32], patience: Duration) -> Result<Duration> {
        self.writers.wait_for_these(partitions, ENOUGH, patience).await
    }

    /// Waits until every partition is led and all replicas are in sync: how long that took.
    pub async fn heals(&self, patience: Duration) -> Result<Duration> {
        self.become_so("all replicas in sync", patience, |state| {
            state.leader.is_some() && state.isr.len() == BROKERS as usize && !state.recovering
        })
        .await
    }

    /// Waits until something holds of every partition: how long that took.
    pub async fn become_so(
        &self,
        what: &str,
        patience: Duration,
        holds: impl Fn(&PartitionState) -> bool,
    ) -> Result<Duration> {
        let begin = Instant::now();
        until(what, allowed(patience), async || {
            let states = self.states().await?;
            let all = states.len() == PARTITIONS as usize && states.iter().all(&holds);
            ensure!(all, "{}", told(&states));
            Ok(Some(()))
        })
        .await?;
        Ok(begin.elapsed())
    }

    /// Nothing that was sent in this time may have been acknowledged in it: [`finish`](Self::finish) looks. What was under way
    /// before may have been.
    pub fn must_be_silent(&mut self, from: Instant, to: Instant) {
        self.silence = Some((from, to));
    }

    /// Ends the load and looks for everything that must never be: the row is told of it. `pause` is how long a partition may
    /// have acknowledged nothing. Gives how many records there are.
    pub async fn finish(self, trial: &mut Trial, pause: Duration) -> Result<usize> {
        self.finish_within(trial, pause, Duration::MAX).await
    }

    /// The same, and 99 of 100 records were acknowledged within a time.
    pub async fn finish_within(self, trial: &mut Trial, pause: Duration, record: Duration) -> Result<usize> {
        trial.within("longest pause of a partition", self.writers.longest_pause(), pause);
        let history = self.writers.stop().await?;
        if let Some((from, to)) = self.silence {
            let acked = history.sent_and_acked(from, to);
            trial.must(acked == 0, format!("{acked} records acknowledged while none may be"));
        }
        let unknown = history.count(|told| told == Told::Unknown);
        let refused = history.count(|told| told == Told::Refused);
        let latency = history.latency(990).unwrap_or_default();
        trial.saw(format!("{} records acknowledged", history.acked()));
        if record == Duration::MAX {
            trial.saw(format!("p99 of acknowledgements {}", seconds(latency)));
        } else {
            trial.within("p99 of acknowledgements", latency, record);
        }
        trial.must(unknown + refused == 0, format!("{unknown} records of unknown outcome, {refused} refused"));
        let there = check(&self.client, TOPIC, &history).await?;
        let wanted: usize = there.values().map(BTreeMap::len).sum();
        until("the reader that follows is at the end", PATIENCE, async || {
            Ok((self.reader.read() >= wanted as u64 || self.reader.has_ended()).then_some(()))
        })
        .await?;
        agree(&self.reader.stop().await?, &there)?;
        trial.saw("safe");
        Ok(wanted)
    }
}

impl fmt::Debug for Ground<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Ground({})", self.namespace.name())
    }
}

/// A topic of three replicas, all in sync.
fn add_topic(namespace: &Namespace<'_>, name: &str, partitions: i32, config: &str) -> Result<()> {
    namespace.apply(&format!(
        "apiVersion: taffrail.dev/v1alpha1\nkind: Topic\nmetadata: {{name: {name}}}\n\
         spec: {{clusterRef: {{name: main}}, partitions: {partitions}, replicationFactor: 3, \
         config: {{minInSyncReplicas: 2{config}}}}}\n"
    ))?;
    namespace.wait_topic(name, BROKERS)?;
    namespace.wait(&format!("topics.taffrail.dev/{name}"), "condition=UnderReplicated=False", PATIENCE)
}

/// States in few words, such as `0: 2 leads [2, 0] in epoch 4`.
pub fn told(states: &[PartitionState]) -> String {
    let one = |state: &PartitionState| {
        let isr: Vec<_> = state.isr.iter().map(|replica| replica.broker).collect();
        let leader = state.leader.map_or_else(|| "nobody".to_owned(), |leader| leader.to_string());
        let recovering = if state.recovering { ", recovering" } else { "" };
        format!("{}: {leader} leads {isr:?} in epoch {}{recovering}", state.index, state.leader_epoch)
    };
    states.iter().map(one).collect::<Vec<_>>().join("; ")
}
