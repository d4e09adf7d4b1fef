//! The operator on a real API server without nodes: what it makes of Clusters and Topics. Whoever else would act in a
//! Kubernetes cluster (the StatefulSet's controller, the brokers, the collector of garbage) is played by the tests.
#![allow(clippy::unwrap_used)]

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::process::{Command, Stdio};
use std::sync::{Arc, Mutex, Weak};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use k8s_openapi::api::apps::v1::StatefulSet;
use k8s_openapi::api::core::v1::{ConfigMap, Namespace, Pod, Service, ServiceAccount};
use k8s_openapi::api::networking::v1::NetworkPolicy;
use k8s_openapi::api::policy::v1::PodDisruptionBudget;
use k8s_openapi::api::rbac::v1::{Role, RoleBinding};
use kube::api::{Api, ApiResource, DeleteParams, DynamicObject, ListParams, Patch, PatchParams, PostParams};
use kube::{Client, ResourceExt};
use rustix::process::Signal;
use serde_json::{Value, json};
use taffrail_crds::{Cluster, ClusterState, PartitionSlice, Topic};
use taffrail_e2e::cli::project;
use taffrail_e2e::kubernetes::ApiServer;
use taffrail_e2e::process::{Process, free_address, http_get, program};
use tokio::time::sleep;

const PATIENCE: Duration = Duration::from_secs(90);

/// How long the Lease holds: one that dies is replaced so soon.
const LEASE: Duration = Duration::from_secs(15);

/// Where many die in turn.
const SHORT_LEASE: Duration = Duration::from_secs(3);

/// An operator that runs.
struct Operator {
    process: Process,
    admin: SocketAddr,
}

impl Operator {
    /// Starts one that dies behind the step `crash`, and does not wait for anything.
    fn spawn(server: &ApiServer, lease: Duration, crash: Option<&str>) -> Result<Self> {
        let (admin, lease) = (free_address()?, format!("{}s", lease.as_secs()));
        let mut command = Command::new(program("taffrail-operator")?);
        command.args(["run", "--namespace", "default", "--lease-duration", &lease, "--listen", &admin.to_string()]);
        command.args(["--broker-image", "registry.test/taffrail-broker"]);
        command.env("KUBECONFIG", server.kubeconfig()).envs(crash.map(|step| ("TAFFRAIL_CRASH_AT", step)));
        command.stdin(Stdio::null()).stdout(Stdio::null());
        Ok(Self { process: Process(command.spawn().context("start taffrail-operator")?), admin })
    }

    /// Starts one and waits until it acts.
    fn start(server: &ApiServer, lease: Duration) -> Result<Self> {
        let operator = Self::spawn(server, lease, None)?;
        let begin = Instant::now();
        while operator.metric("taffrail_operator_acting").unwrap_or(0.0) < 1.0 {
            ensure!(begin.elapsed() < PATIENCE, "the operator does not act");
            std::thread::sleep(Duration::from_millis(50));
        }
        Ok(operator)
    }

    fn metric(&self, name: &str) -> Result<f64> {
        let (_, body) = http_get(self.admin, "/metrics")?;
        let lines = body.lines().filter(|line| line.starts_with(name));
        Ok(lines.filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok()).sum())
    }
}

/// An API server that knows our kinds, and an operator that acts on it. Tests have a namespace each.
struct Ground {
    // The operator goes before the server.
    operator: Operator,
    server: Arc<ApiServer>,
}

impl Ground {
    fn new(server: Arc<ApiServer>) -> Result<Self> {
        define_kinds(&server)?;
        Ok(Self { operator: Operator::start(&server, LEASE)?, server })
    }

    fn shared() -> Result<Arc<Self>> {
        static SHARED: Mutex<Weak<Ground>> = Mutex::new(Weak::new());
        let mut shared = SHARED.lock().map_err(|_| anyhow::anyhow!("another test failed to start the operator"))?;
        if let Some(ground) = shared.upgrade() {
            return Ok(ground);
        }
        let ground = Arc::new(Self::new(ApiServer::shared()?)?);
        *shared = Arc::downgrade(&ground);
        Ok(ground)
    }
}

fn define_kinds(server: &ApiServer) -> Result<()> {
    let folder = project().join("crds/yaml").to_string_lossy().into_owned();
    server.kubectl(&["apply", "--server-side", "-f", &folder])?.ok()?;
    server.kubectl(&["wait", "--for=condition=Established", "--timeout=90s", "crd", "--all"])?.ok()?;
    Ok(())
}

/// A namespace for a test.
#[derive(Clone)]
struct Space {
    client: Client,
    name: String,
}

async fn ground(namespace: &str) -> Result<(Arc<Ground>, Space)> {
    let ground = tokio::task::spawn_blocking(Ground::shared).await??;
    let space = Space::new(&ground.server, namespace).await?;
    Ok((ground, space))
}

impl Space {
    async fn new(server: &ApiServer, name: &str) -> Result<Self> {
        let client = server.client().await?;
        let namespaces: Api<Namespace> = Api::all(client.clone());
        namespaces.create(&PostParams::default(), &from(json!({"metadata": {"name": name}}))?).await?;
        Ok(Self { client, name: name.to_owned() })
    }

    fn api<K>(&self) -> Api<K>
    where
        K: kube::Resource<DynamicType = (), Scope = kube::core::NamespaceResourceScope>,
    {
        Api::namespaced(self.client.clone(), &self.name)
    }

    async fn make<K>(&self, object: Value) -> Result<K>
    where
        K: kube::Resource<DynamicType = (), Scope = kube::core::NamespaceResourceScope>
            + Clone
            + std::fmt::Debug
            + serde::Serialize
            + serde::de::DeserializeOwned,
    {
        Ok(self.api::<K>().create(&PostParams::default(), &from(object)?).await?)
    }

    async fn cluster(&self, name: &str, spec: Value) -> Result<Cluster> {
        let mut all = json!({"replicas": 3, "storage": {"size": "1Gi"}});
        all.as_object_mut().unwrap().extend(spec.as_object().cloned().unwrap_or_default());
        self.make(object("Cluster", name, &json!({}), &all)).await
    }

    async fn topic(&self, name: &str, metadata: Value, spec: Value) -> Result<Topic> {
        let mut all = json!({"clusterRef": {"name": "main"}});
        all.as_object_mut().unwrap().extend(spec.as_object().cloned().unwrap_or_default());
        self.make(object("Topic", name, &metadata, &all)).await
    }

    /// A slice, as the brokers' controller writes it: partitions by their leaders.
    async fn slice(&self, topic: &Topic, leaders: &[Option<i32>]) -> Result<PartitionSlice> {
        let id = topic.status.as_ref().unwrap().topic_id.clone().unwrap();
        let partitions: Vec<_> = leaders.iter().zip(0..).map(|(leader, index)| partition(index, *leader)).collect();
        let metadata = json!({"labels": {"taffrail.dev/topic-id": id, "taffrail.dev/cluster": "main"}});
        let spec = json!({
            "clusterName": "main", "topicId": id, "topicName": topic.topic_name(), "firstIndex": 0,
            "controllerEpoch": 1, "operationId": 1, "partitions": partitions,
        });
        self.make(object("PartitionSlice", &format!("{id}-0"), &metadata, &spec)).await
    }

    /// Waits until an object is as wanted.
    async fn wait<K>(&self, name: &str, wanted: impl Fn(&K) -> bool) -> Result<K>
    where
        K: kube::Resource<DynamicType = (), Scope = kube::core::NamespaceResourceScope>
            + Clone
            + std::fmt::Debug
            + serde::Serialize
            + serde::de::DeserializeOwned,
    {
        let begin = Instant::now();
        loop {
            let found = self.api::<K>().get_opt(name).await?;
            match found {
                Some(object) if wanted(&object) => return Ok(object),
                found if begin.elapsed() > PATIENCE => {
                    bail!("{name} is not as wanted: {}", serde_json::to_string_pretty(&found)?)
                }
                _ => sleep(Duration::from_millis(50)).await,
            }
        }
    }

    async fn wait_topic(&self, name: &str, condition: &str, status: &str, reason: &str) -> Result<Topic> {
        let is = |topic: &Topic| {
            let conditions = topic.status.as_ref().map(|status| status.conditions.clone()).unwrap_or_default();
            has(&json!(conditions), condition, status, reason)
        };
        self.wait(name, is).await.with_context(|| format!("{condition}={status}, {reason}"))
    }

    async fn wait_cluster(&self, name: &str, condition: &str, status: &str, reason: &str) -> Result<Cluster> {
        let is = |cluster: &Cluster| {
            let conditions = cluster.status.as_ref().map(|status| status.conditions.clone()).unwrap_or_default();
            has(&json!(conditions), condition, status, reason)
        };
        self.wait(name, is).await.with_context(|| format!("{condition}={status}, {reason}"))
    }

    async fn wait_gone<K>(&self, name: &str) -> Result<()>
    where
        K: kube::Resource<DynamicType = (), Scope = kube::core::NamespaceResourceScope>
            + Clone
            + std::fmt::Debug
            + serde::de::DeserializeOwned,
    {
        let begin = Instant::now();
        while let Some(found) = self.api::<K>().get_opt(name).await? {
            ensure!(begin.elapsed() < PATIENCE, "{name} is still there: {found:?}");
            sleep(Duration::from_millis(50)).await;
        }
        Ok(())
    }

    /// Plays the StatefulSet's controller: pods of the newest template, where there is none.
    async fn run_pods(&self, cluster: &str) -> Result<()> {
        let set = self.wait(cluster, |_: &StatefulSet| true).await?;
        let spec = set.spec.clone().unwrap();
        let revision = format!("r{}", set.metadata.generation.unwrap_or(0));
        let replicas = spec.replicas.unwrap_or(0);
        for number in 0..replicas {
            let name = format!("{cluster}-{number}");
            if self.api::<Pod>().get_opt(&name).await?.is_some() {
                continue;
            }
            let mut pod: Pod = from(json!({"metadata": {"name": name}}))?;
            pod.metadata.labels = spec.template.metadata.clone().unwrap().labels;
            pod.metadata.labels.as_mut().unwrap().insert("controller-revision-hash".to_owned(), revision.clone());
            pod.metadata.annotations = spec.template.metadata.clone().unwrap().annotations;
            let image = spec.template.spec.as_ref().unwrap().containers[0].image.clone();
            let account = spec.template.spec.as_ref().unwrap().service_account_name.clone();
            pod.spec = from(json!({
                "serviceAccountName": account, "automountServiceAccountToken": false,
                "containers": [{"name": "broker", "image": image}],
            }))?;
            pod.spec.as_mut().unwrap().termination_grace_period_seconds = Some(0);
            self.api().create(&PostParams::default(), &pod).await?;
            let status = json!({"status": {"conditions": [{"type": "Ready", "status": "True"}]}});
            self.api::<Pod>().patch_status(&name, &PatchParams::default(), &Patch::Merge(status)).await?;
        }
        let status = json!({"status": {
            "observedGeneration": set.metadata.generation, "replicas": replicas, "readyReplicas": replicas,
            "updateRevision": revision, "currentRevision": revision,
        }});
        self.api::<StatefulSet>().patch_status(cluster, &PatchParams::default(), &Patch::Merge(status)).await?;
        Ok(())
    }

    /// Everything that the operator writes in the namespace: by kind and name, without what differs from run to run.
    async fn objects(&self) -> Result<BTreeMap<String, Value>> {
        let mut objects = BTreeMap::new();
        for resource in written() {
            let api: Api<DynamicObject> = Api::namespaced_with(self.client.clone(), &self.name, &resource);
            for object in api.list(&ListParams::default()).await?.items {
                objects.insert(format!("{} {}", resource.kind, object.name_any()), serde_json::to_value(&object)?);
            }
        }
        Ok(objects)
    }
}

/// The kinds that the operator writes.
fn written() -> Vec<ApiResource> {
    vec![
        ApiResource::erase::<StatefulSet>(&()),
        ApiResource::erase::<Service>(&()),
        ApiResource::erase::<ConfigMap>(&()),
        ApiResource::erase::<PodDisruptionBudget>(&()),
        ApiResource::erase::<NetworkPolicy>(&()),
        ApiResource::erase::<ServiceAccount>(&()),
        ApiResource::erase::<Role>(&()),
        ApiResource::erase::<RoleBinding>(&()),
        ApiResource::erase::<Cluster>(&()),
        ApiResource::erase::<Topic>(&()),
    ]
}

fn from<T: serde::de::DeserializeOwned>(value: Value) -> Result<T> {
    Ok(serde_json::from_value(value)?)
}

fn object(kind: &str, name: &str, metadata: &Value, spec: &Value) -> Value {
    let mut metadata = metadata.clone();
    metadata["name"] = name.into();
    json!({"apiVersion": "taffrail.dev/v1alpha1", "kind": kind, "metadata": metadata, "spec": spec})
}

fn partition(index: i32, leader: Option<i32>) -> Value {
    let broker = leader.unwrap_or(0);
    let mut partition = json!({
        "index": index, "replicas": [broker], "leaderEpoch": 1, "partitionEpoch": 1,
        "isr": [{"broker": broker, "incarnation": 1}], "minInSyncReplicas": 1, "replicationFactor": 1,
    });
    match leader {
        Some(leader) => partition["leader"] = leader.into(),
        None => partition["fault"] = "broker 0 is away".into(),
    }
    partition
}

fn has(conditions: &Value, type_: &str, status: &str, reason: &str) -> bool {
    let is = |c: &Value| c["type"] == type_ && c["status"] == status && c["reason"] == reason;
    conditions.as_array().is_some_and(|all| all.iter().any(is))
}

/// What is seen, once it has not changed for a while: what was under way is written.
async fn at_rest<T: PartialEq + std::fmt::Debug>(look: impl AsyncFn() -> Result<T>) -> Result<T> {
    let (begin, mut before) = (Instant::now(), look().await?);
    loop {
        sleep(Duration::from_secs(2)).await;
        let now = look().await?;
        if now == before {
            return Ok(now);
        }
        ensure!(begin.elapsed() < PATIENCE, "it does not come to rest: {now:?} was {before:?}");
        before = now;
    }
}

fn id(topic: &Topic) -> String {
    topic.status.as_ref().and_then(|status| status.topic_id.clone()).unwrap_or_default()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cluster_becomes_objects_that_belong_to_it_and_a_topic_is_accepted_and_served() -> Result<()> {
    let (_ground, space) = ground("become").await?;
    let out = json!({"name": "out", "port": 9194, "expose": {"type": "NodePort"}});
    space.cluster("main", json!({"listeners": [{"name": "grpc", "port": 9094}, out]})).await?;
    space.wait_cluster("main", "Ready", "False", "Starting").await?;
    let objects = space.objects().await?;
    let names: Vec<_> =
        objects.keys().filter(|name| !name.contains("kube-root-ca") && !name.contains(" default")).collect();
    let expected = [
        "Cluster main",
        "ConfigMap main-config",
        "NetworkPolicy main",
        "PodDisruptionBudget main",
        "Role main-broker",
        "RoleBinding main-broker",
        "Service main-bootstrap",
        "Service main-brokers",
        "Service main-out",
        "ServiceAccount main-broker",
        "StatefulSet main",
    ];
    assert_eq!(names, expected);
    for name in names.iter().filter(|name| !name.starts_with("Cluster")) {
        assert_eq!(objects[*name]["metadata"]["ownerReferences"][0]["kind"], "Cluster", "{name}");
    }

    fulfils_the_restricted_policy(&space).await?;

    space.topic("events", json!({}), json!({"partitions": 2})).await?;
    let topic = space.wait_topic("events", "Ready", "False", "WaitingForBrokers").await?;
    assert_eq!((id(&topic).len(), topic.status.as_ref().unwrap().accepted_generation), (36, Some(1)));
    let slice = space.slice(&topic, &[Some(0), None]).await?;
    let told = space.wait_topic("events", "Ready", "False", "PartitionsWithoutLeader").await?;
    assert!(json!(told.status).to_string().contains("partition 1: broker 0 is away"));
    let mut partition = partition(1, Some(2));
    partition["leaderEpoch"] = 2.into();
    partition["partitionEpoch"] = 2.into();
    let mut slice = slice;
    slice.spec.partitions[1] = from(partition)?;
    space.api::<PartitionSlice>().replace(&slice.name_any(), &PostParams::default(), &slice).await?;
    let told = space.wait_topic("events", "Ready", "True", "Serving").await?;
    assert_eq!(told.status.as_ref().unwrap().ready_partitions, Some(2));
    space.wait_topic("events", "UnderReplicated", "True", "ReplicasMissing").await?;

    space.run_pods("main").await?;
    let cluster = space.wait_cluster("main", "Ready", "True", "AllBrokersServe").await?;
    let status = cluster.status.unwrap();
    assert_eq!(status.bootstrap[0].address, "main-bootstrap.become.svc:9094");
    assert_eq!((status.replicas, status.ready_replicas, status.version.as_deref()), (Some(3), Some(3), Some("0.1.0")));
    Ok(())
}

/// Pods of the StatefulSet's template are taken where only such are.
async fn fulfils_the_restricted_policy(space: &Space) -> Result<()> {
    let patch = json!({"metadata": {"labels": {"pod-security.kubernetes.io/enforce": "restricted"}}});
    let namespaces: Api<Namespace> = Api::all(space.client.clone());
    namespaces.patch(&space.name, &PatchParams::default(), &Patch::Merge(patch)).await?;
    let set = space.api::<StatefulSet>().get("main").await?;
    let template = serde_json::to_value(set.spec.unwrap().template)?;
    let mut spec = template["spec"].clone();
    spec["volumes"].as_array_mut().unwrap().push(json!({"name": "data", "emptyDir": {}}));
    spec["automountServiceAccountToken"] = false.into();
    let dry = PostParams { dry_run: true, ..PostParams::default() };
    let pod: Pod = from(json!({"metadata": {"name": "main-0"}, "spec": spec}))?;
    // The policy is known to the admission a moment after the label is there.
    let begin = Instant::now();
    let loose: Pod = from(json!({"metadata": {"name": "x"}, "spec": {
        "serviceAccountName": "main-broker", "containers": [{"name": "x", "image": "x"}],
    }}))?;
    while space.api().create(&dry, &loose).await.is_ok() {
        ensure!(begin.elapsed() < PATIENCE, "the policy is not enforced");
        sleep(Duration::from_millis(50)).await;
    }
    space.api().create(&dry, &pod).await.context("the pods do not fulfil the Restricted policy")?;
    let patch = json!({"metadata": {"labels": {"pod-security.kubernetes.io/enforce": null}}});
    namespaces.patch(&space.name, &PatchParams::default(), &Patch::Merge(patch)).await?;
    // The pods that the test plays are loose ones.
    let begin = Instant::now();
    while let Err(error) = space.api().create(&dry, &loose).await {
        ensure!(begin.elapsed() < PATIENCE, "the policy is still enforced: {error}");
        sleep(Duration::from_millis(50)).await;
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_unchanged_is_not_written_and_what_others_change_is_put_right() -> Result<()> {
    let (ground, space) = ground("calm").await?;
    space.cluster("main", json!({})).await?;
    space.topic("events", json!({}), json!({})).await?;
    space.wait_topic("events", "Accepted", "True", "Accepted").await?;
    space.run_pods("main").await?;
    space.wait_cluster("main", "Ready", "True", "AllBrokersServe").await?;

    let versions = async || -> Result<BTreeMap<String, Value>> {
        let version = |(name, object): (String, Value)| (name, object["metadata"]["resourceVersion"].clone());
        Ok(space.objects().await?.into_iter().map(version).collect())
    };
    let before = at_rest(&versions).await?;
    let reconciles = ground.operator.metric("taffrail_operator_reconciles_total")?;
    // A pod's annotation makes the operator look at the Cluster.
    for round in 0..5 {
        let patch = json!({"metadata": {"annotations": {"round": round.to_string()}}});
        space.api::<Pod>().patch("main-0", &PatchParams::default(), &Patch::Merge(patch)).await?;
        sleep(Duration::from_millis(400)).await;
    }
    let begin = Instant::now();
    while ground.operator.metric("taffrail_operator_reconciles_total")? <= reconciles + 1.0 {
        ensure!(begin.elapsed() < PATIENCE, "it has not looked");
        sleep(Duration::from_millis(100)).await;
    }
    assert_eq!(versions().await?, before);

    let patch = json!({"spec": {"publishNotReadyAddresses": false}});
    space.api::<Service>().patch("main-brokers", &PatchParams::default(), &Patch::Merge(patch)).await?;
    let right = |service: &Service| service.spec.as_ref().unwrap().publish_not_ready_addresses == Some(true);
    space.wait("main-brokers", right).await?;
    space.api::<ConfigMap>().delete("main-config", &DeleteParams::default()).await?;
    space.wait("main-config", |_: &ConfigMap| true).await?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_change_restarts_one_broker_at_a_time_and_a_listener_that_goes_takes_its_service_along() -> Result<()> {
    let (_ground, space) = ground("roll").await?;
    let listeners = |expose: bool| {
        let mut out = json!({"name": "out", "port": 9194});
        if expose {
            out["expose"] = json!({"type": "NodePort"});
        }
        json!({"listeners": [{"name": "grpc", "port": 9094}, out]})
    };
    space.cluster("main", listeners(true)).await?;
    space.wait_cluster("main", "Ready", "False", "Starting").await?;
    space.run_pods("main").await?;
    space.wait_cluster("main", "Ready", "True", "AllBrokersServe").await?;
    let pods = async || -> Result<Vec<String>> {
        Ok(space.api::<Pod>().list(&ListParams::default()).await?.items.iter().map(ResourceExt::name_any).collect())
    };

    let patch = json!({"spec": {"version": "0.2.0", "listeners": listeners(false)["listeners"]}});
    space.api::<Cluster>().patch("main", &PatchParams::default(), &Patch::Merge(patch)).await?;
    space.wait_gone::<Service>("main-out").await?;
    let newer = |set: &StatefulSet| json!(set.spec.as_ref().unwrap().template).to_string().contains(":0.2.0");
    space.wait("main", newer).await?;
    sleep(Duration::from_millis(600)).await;
    assert_eq!(pods().await?.len(), 3, "nothing before the StatefulSet's controller has seen the change");
    let mut restarted = vec![];
    for left in [3, 2, 1] {
        space.run_pods("main").await?;
        let begin = Instant::now();
        while pods().await?.len() == 3 {
            ensure!(begin.elapsed() < PATIENCE, "no broker is restarted, {left} are left");
            sleep(Duration::from_millis(50)).await;
        }
        sleep(Duration::from_millis(600)).await;
        let present = pods().await?;
        assert_eq!(present.len(), 2, "one at a time");
        let cluster =
            space.wait_cluster("main", "Ready", "False", if left > 1 { "Restarting" } else { "Starting" }).await?;
        assert!(left == 1 || json!(cluster.status).to_string().contains("version 0.2.0 takes the place of 0.1.0"));
        restarted.extend((0..3).map(|n| format!("main-{n}")).filter(|name| !present.contains(name)));
    }
    assert_eq!(restarted, ["main-0", "main-1", "main-2"]);
    space.run_pods("main").await?;
    let cluster = space.wait_cluster("main", "Ready", "True", "AllBrokersServe").await?;
    assert_eq!(cluster.status.unwrap().version.as_deref(), Some("0.2.0"));
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn topics_are_refused_with_a_reason_and_heal() -> Result<()> {
    let (ground, space) = ground("refuse").await?;
    let other = Space::new(&ground.server, "refuse-other").await?;
    space.topic("early", json!({}), json!({})).await?;
    space.wait_topic("early", "Stalled", "True", "ClusterNotFound").await?;
    space.cluster("main", json!({})).await?;
    let early = space.wait_topic("early", "Accepted", "True", "Accepted").await?;

    space.topic("late", json!({}), json!({"topicName": "early"})).await?;
    let late = space.wait_topic("late", "Accepted", "False", "NameTaken").await?;
    assert_eq!(id(&late), "");
    space.api::<Topic>().delete("early", &DeleteParams::default()).await?;
    let late = space.wait_topic("late", "Accepted", "True", "Accepted").await?;
    assert_ne!(id(&late), id(&early), "another topic of the same name");

    let foreign = json!({"clusterRef": {"name": "main", "namespace": "refuse"}});
    other.topic("foreign", json!({}), foreign).await?;
    other.wait_topic("foreign", "Stalled", "True", "NamespaceNotAllowed").await?;
    let patch = json!({"spec": {"allowedTopicNamespaces": ["refuse-other"]}});
    space.api::<Cluster>().patch("main", &PatchParams::default(), &Patch::Merge(patch)).await?;
    other.wait_topic("foreign", "Accepted", "True", "Accepted").await?;
    let told =
        |cluster: &Cluster| cluster.status.as_ref().is_some_and(|s| s.topic_namespaces == ["refuse", "refuse-other"]);
    space.wait("main", told).await?;
    other.wait("taffrail:refuse:main", |_: &RoleBinding| true).await?;
    space.api::<Cluster>().delete("main", &DeleteParams::default()).await?;
    other.wait_gone::<RoleBinding>("taffrail:refuse:main").await?;
    other.wait_gone::<Role>("taffrail:refuse:main").await?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_new_topic_takes_over_what_a_lost_one_has_left() -> Result<()> {
    let (_ground, space) = ground("adopt").await?;
    space.cluster("main", json!({})).await?;
    let lost = "3f2a8c1e-0000-4000-8000-00000000abcd";
    let annotations = json!({"annotations": {"taffrail.dev/adopt": lost}});
    space.topic("events", annotations.clone(), json!({})).await?;
    space.wait_topic("events", "Stalled", "True", "AdoptUnknown").await?;
    let state = json!({
        "clusterId": "aaaaaaaa-0000-4000-8000-00000000abcd", "controllerEpoch": 1, "featureLevel": 1,
        "nextIds": {"producer": 0, "incarnation": 0, "operation": 0}, "topics": {lost: "events"},
    });
    space.make::<ClusterState>(object("ClusterState", "main", &json!({}), &state)).await?;
    let topic = space.wait_topic("events", "Accepted", "True", "Accepted").await?;
    assert_eq!(id(&topic), lost);
    space.topic("second", annotations.clone(), json!({"topicName": "other"})).await?;
    space.wait_topic("second", "Stalled", "True", "AdoptInUse").await?;
    let told = |cluster: &Cluster| cluster.status.as_ref().is_some_and(|status| status.cluster_id.is_some());
    space.wait("main", told).await?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_topic_goes_when_its_data_is_in_the_trash() -> Result<()> {
    let (_ground, space) = ground("delete").await?;
    space.cluster("main", json!({})).await?;
    space.topic("kept", json!({}), json!({})).await?;
    let kept = space.wait_topic("kept", "Accepted", "True", "Accepted").await?;
    assert!(kept.finalizers().is_empty(), "nothing is deleted with it");
    space.api::<Topic>().delete("kept", &DeleteParams::default()).await?;
    space.wait_gone::<Topic>("kept").await?;

    space.topic("events", json!({}), json!({"deletionPolicy": "Delete"})).await?;
    let topic = space.wait_topic("events", "Accepted", "True", "Accepted").await?;
    assert_eq!(topic.finalizers(), ["taffrail.dev/data"]);
    let mut slice = space.slice(&topic, &[Some(0)]).await?;
    space.api::<Topic>().delete("events", &DeleteParams::default()).await?;
    sleep(Duration::from_secs(1)).await;
    assert!(space.api::<Topic>().get_opt("events").await?.is_some(), "it waits for the brokers");
    slice.spec.tombstone = from(json!({"deletedAt": "2026-01-01T00:00:00Z", "purgeAt": "2026-01-02T00:00:00Z"}))?;
    space.api::<PartitionSlice>().replace(&slice.name_any(), &PostParams::default(), &slice).await?;
    space.wait_gone::<Topic>("events").await?;

    space.topic("changed", json!({}), json!({"deletionPolicy": "Delete"})).await?;
    space.wait("changed", |topic: &Topic| !topic.finalizers().is_empty()).await?;
    let patch = json!({"spec": {"deletionPolicy": "Retain"}});
    space.api::<Topic>().patch("changed", &PatchParams::default(), &Patch::Merge(patch)).await?;
    space.wait("changed", |topic: &Topic| topic.finalizers().is_empty()).await?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_topic_never_holds_a_namespace() -> Result<()> {
    let (_ground, space) = ground("leave").await?;
    space.cluster("main", json!({})).await?;
    space.topic("events", json!({}), json!({"deletionPolicy": "Delete"})).await?;
    let topic = space.wait_topic("events", "Accepted", "True", "Accepted").await?;
    space.slice(&topic, &[Some(0)]).await?;
    // Nobody plays the namespace's controller: its Cluster and its Topics are deleted in its stead.
    Api::<Namespace>::all(space.client.clone()).delete("leave", &DeleteParams::default()).await?;
    space.api::<Topic>().delete("events", &DeleteParams::default()).await?;
    space.api::<Cluster>().delete("main", &DeleteParams::default()).await?;
    space.wait_gone::<Topic>("events").await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_paused_cluster_is_left_alone_and_objects_of_others_are_never_taken() -> Result<()> {
    let (_ground, space) = ground("pause").await?;
    let service = json!({"metadata": {"name": "main-brokers"}, "spec": {"ports": [{"port": 1}]}});
    space.make::<Service>(service).await?;
    let paused = json!({"annotations": {"taffrail.dev/paused": "true"}});
    let spec = json!({"replicas": 3, "storage": {"size": "1Gi"}});
    space.make::<Cluster>(object("Cluster", "main", &paused, &spec)).await?;
    space.wait_cluster("main", "Stalled", "True", "Paused").await?;
    assert!(space.api::<StatefulSet>().get_opt("main").await?.is_none());

    let patch = json!({"metadata": {"annotations": {"taffrail.dev/paused": null}}});
    space.api::<Cluster>().patch("main", &PatchParams::default(), &Patch::Merge(patch)).await?;
    let told = space.wait_cluster("main", "Applied", "False", "StepFailed").await?;
    assert!(json!(told.status).to_string().contains("Service main-brokers is there and is not this Cluster's"));
    space.wait("main", |_: &StatefulSet| true).await.context("the rest goes on")?;
    space.api::<Service>().delete("main-brokers", &DeleteParams::default()).await?;
    space.wait_cluster("main", "Applied", "True", "AsWanted").await?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn brokers_that_hold_partitions_stay_until_they_hold_none() -> Result<()> {
    let (_ground, space) = ground("shrink").await?;
    space.cluster("main", json!({})).await?;
    space.topic("events", json!({}), json!({})).await?;
    let topic = space.wait_topic("events", "Accepted", "True", "Accepted").await?;
    let slice = space.slice(&topic, &[Some(1)]).await?;
    space.run_pods("main").await?;
    space.wait_cluster("main", "Ready", "True", "AllBrokersServe").await?;
    let patch = json!({"spec": {"replicas": 1, "topicDefaults": {"replicationFactor": 1}}});
    space.api::<Cluster>().patch("main", &PatchParams::default(), &Patch::Merge(patch)).await?;
    let told = space.wait_cluster("main", "Draining", "True", "MovingReplicas").await?;
    assert!(json!(told.status).to_string().contains("broker 1: 1 replicas left"), "{:?}", told.status);
    let replicas = |wanted: i32| move |set: &StatefulSet| set.spec.as_ref().unwrap().replicas == Some(wanted);
    space.wait("main", replicas(2)).await?;
    space.api::<PartitionSlice>().delete(&slice.name_any(), &DeleteParams::default()).await?;
    space.wait("main", replicas(1)).await?;
    let told = space.wait_cluster("main", "Draining", "False", "NobodyLeaves").await?;
    assert_eq!(told.status.context("a status")?.draining_brokers, [0; 0]);
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_malformed_object_is_told_so_and_stops_nothing_else() -> Result<()> {
    let (_ground, space) = ground("malformed").await?;
    // The schema takes any object here, and the type does not.
    let mut bad = object("Cluster", "bad", &json!({}), &json!({"replicas": 1, "storage": {"size": "1Gi"}}));
    bad["spec"]["pod"] = json!({"affinity": {"nodeAffinity": 7}});
    let clusters: Api<DynamicObject> =
        Api::namespaced_with(space.client.clone(), &space.name, &ApiResource::erase::<Cluster>(&()));
    clusters.create(&PostParams::default(), &from(bad)?).await?;
    space.cluster("main", json!({})).await?;
    space.wait_cluster("main", "Ready", "False", "Starting").await?;
    let begin = Instant::now();
    while !has(&clusters.get("bad").await?.data["status"]["conditions"], "Stalled", "True", "Malformed") {
        ensure!(begin.elapsed() < PATIENCE, "{:?}", clusters.get("bad").await?);
        sleep(Duration::from_millis(50)).await;
    }
    Ok(())
}

/// Takes away what differs from run to run, wherever it is.
fn strip(value: &mut Value) {
    match value {
        Value::Object(fields) => {
            for field in ["lastTransitionTime", "uid", "topicId", "clusterIP", "clusterIPs", "nodePort"] {
                fields.remove(field);
            }
            fields.remove("taffrail.dev/applied-hash");
            fields.remove("taffrail.dev/config-hash");
            fields.values_mut().for_each(strip);
        }
        Value::Array(entries) => entries.iter_mut().for_each(strip),
        _ => {}
    }
}

/// An object without what differs from run to run.
fn timeless(mut object: Value) -> Value {
    let metadata = object["metadata"].as_object_mut().unwrap();
    for field in ["uid", "resourceVersion", "creationTimestamp", "managedFields", "generation", "namespace"] {
        metadata.remove(field);
    }
    strip(&mut object);
    object
}

/// Makes a Cluster with topics, changes it, and waits until all is settled; an operator may die meanwhile.
async fn story(space: &Space, mut tend: impl FnMut() -> Result<()>) -> Result<()> {
    let settle = async |done: &dyn Fn(&Value) -> bool, tend: &mut dyn FnMut() -> Result<()>| -> Result<()> {
        let begin = Instant::now();
        loop {
            tend()?;
            let objects = serde_json::to_value(space.objects().await?)?;
            if done(&objects) {
                return Ok(());
            }
            ensure!(begin.elapsed() < PATIENCE, "not settled: {}", serde_json::to_string_pretty(&objects)?);
            sleep(Duration::from_millis(50)).await;
        }
    };
    let is = |objects: &Value, name: &str, condition: &str, status: &str, reason: &str| {
        has(&objects[name]["status"]["conditions"], condition, status, reason)
    };
    let out = json!({"name": "out", "port": 9194, "expose": {"type": "NodePort"}});
    space.cluster("main", json!({"listeners": [{"name": "grpc", "port": 9094}, out]})).await?;
    space.topic("events", json!({}), json!({"deletionPolicy": "Delete"})).await?;
    let made = |all: &Value| {
        all.get("StatefulSet main").is_some()
            && is(all, "Cluster main", "Ready", "False", "Starting")
            && is(all, "Topic events", "Accepted", "True", "Accepted")
    };
    settle(&made, &mut tend).await?;
    space.run_pods("main").await?;
    let served = |all: &Value| is(all, "Cluster main", "Ready", "True", "AllBrokersServe");
    settle(&served, &mut tend).await?;
    let patch = json!({"spec": {"listeners": [{"name": "grpc", "port": 9094}], "pod": {"annotations": {"a": "b"}}}});
    space.api::<Cluster>().patch("main", &PatchParams::default(), &Patch::Merge(patch)).await?;
    let changed = |all: &Value| {
        all["StatefulSet main"]["spec"]["template"]["metadata"]["annotations"]["a"] == "b"
            && all.get("Service main-out").is_none()
    };
    settle(&changed, &mut tend).await?;
    let begin = Instant::now();
    loop {
        tend()?;
        space.run_pods("main").await?;
        let pods = space.api::<Pod>().list(&ListParams::default()).await?.items;
        let rolled = pods.len() == 3 && pods.iter().all(|pod| pod.annotations().contains_key("a"));
        if rolled && served(&serde_json::to_value(space.objects().await?)?) {
            break;
        }
        ensure!(begin.elapsed() < PATIENCE, "the brokers are not restarted");
        sleep(Duration::from_millis(100)).await;
    }
    settle(&|all| served(all) && all["Cluster main"]["status"].get("pendingRestarts").is_none(), &mut tend).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_operator_that_dies_at_any_step_ends_up_with_the_same_objects() -> Result<()> {
    // An API server of its own: an operator that dies would let down the other tests.
    let server = tokio::task::spawn_blocking(ApiServer::start).await??;
    define_kinds(&server)?;
    let end = async |space: &Space| -> Result<BTreeMap<String, Value>> {
        let objects = space.objects().await?;
        let text = serde_json::to_string(&objects)?.replace(&space.name, "NAMESPACE");
        let objects: BTreeMap<String, Value> = serde_json::from_str(&text)?;
        Ok(objects.into_iter().map(|(name, object)| (name, timeless(object))).collect())
    };
    let undisturbed = Space::new(&server, "undisturbed").await?;
    let mut operator = Operator::start(&server, SHORT_LEASE)?;
    story(&undisturbed, || Ok(())).await?;
    let expected = at_rest(async || end(&undisturbed).await).await?;
    operator.process.end(Signal::TERM)?;
    let steps = [
        "fetch",
        "access",
        "config",
        "services",
        "disruption-budget",
        "network-policy",
        "stateful-set",
        "orphans",
        "restart",
        "cluster-status",
        "finalizer",
        "topic-status",
    ];
    for step in steps {
        let space = Space::new(&server, &format!("dies-{step}")).await?;
        let mut operator = Operator::spawn(&server, SHORT_LEASE, Some(step))?;
        let mut died = false;
        let tend = || {
            if !died && operator.process.0.try_wait()?.is_some() {
                died = true;
                operator = Operator::start(&server, SHORT_LEASE)?;
            }
            Ok(())
        };
        story(&space, tend).await.with_context(|| format!("the operator died at {step}"))?;
        assert!(died, "it never came to {step}");
        let begin = Instant::now();
        while end(&space).await? != expected && begin.elapsed() < PATIENCE {
            sleep(Duration::from_millis(100)).await;
        }
        assert_eq!(end(&space).await?, expected, "{step}");
        operator.process.end(Signal::TERM)?;
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_second_operator_takes_over_the_lease_that_the_first_gives_back_when_it_is_told_to_stop() -> Result<()> {
    let server = tokio::task::spawn_blocking(ApiServer::start).await??;
    let mut waiting = Operator::spawn(&server, LEASE, None)?;
    let begin = Instant::now();
    loop {
        match http_get(waiting.admin, "/readyz") {
            Ok((503, text))
                if text.contains("for the kinds Cluster, Topic") && text.contains("taffrail-operator crd") =>
            {
                break;
            }
            _ => ensure!(begin.elapsed() < PATIENCE, "it does not say what it waits for"),
        }
        sleep(Duration::from_millis(50)).await;
    }
    define_kinds(&server)?;
    let begin = Instant::now();
    while waiting.metric("taffrail_operator_acting").unwrap_or(0.0) < 1.0 {
        ensure!(begin.elapsed() < PATIENCE, "it does not act");
        sleep(Duration::from_millis(50)).await;
    }
    let second = Operator::spawn(&server, LEASE, None)?;
    let begin = Instant::now();
    while http_get(second.admin, "/readyz").ok().is_none_or(|(status, _)| status != 200) {
        ensure!(begin.elapsed() < PATIENCE, "one that stands by is ready");
        sleep(Duration::from_millis(50)).await;
    }
    sleep(Duration::from_secs(1)).await;
    assert!(second.metric("taffrail_operator_acting")? < 1.0);
    let holder = || {
        let holder = "jsonpath={.spec.holderIdentity}";
        server.kubectl(&["get", "lease", "taffrail-operator", "-n", "default", "-o", holder])?.ok()
    };
    let first = holder()?;
    ensure!(!first.is_empty(), "nobody has the Lease");
    assert!(waiting.process.end(Signal::TERM)?.success());
    assert_ne!(holder()?, first, "it has given the Lease back");
    let begin = Instant::now();
    while second.metric("taffrail_operator_acting")? < 1.0 {
        ensure!(begin.elapsed() < PATIENCE, "nobody acts");
        sleep(Duration::from_millis(20)).await;
    }
    Ok(())
}
