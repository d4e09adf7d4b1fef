//! Operator and brokers of a cluster as plain processes beside an API server without nodes: what pods would be, without
//! the minutes and the privileges that pods take.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use rustix::process::Signal;
use serde_json::Value;
use tempfile::TempDir;

use super::ApiServer;
use crate::cli::Ended;
use crate::process::{Broker, BrokerOptions, Process, free_address, program};

/// How long the cluster may take for a step.
const PATIENCE: Duration = Duration::from_mins(2);

/// How soon the brokers of a cluster notice that one is dead, and that the controller is.
#[derive(Clone, Copy, Debug)]
pub struct Failover {
    /// Broker session.
    pub session: &'static str,
    /// Lease, renew deadline and retry period of the controller's election.
    pub lease: [&'static str; 3],
}

impl Failover {
    /// As short as the tests' patience.
    pub const QUICK: Self = Self { session: "3s", lease: ["3s", "2s", "500ms"] };
    /// The broker's own defaults.
    pub const DEFAULT: Self = Self { session: "6s", lease: ["6s", "4s", "1s"] };
    /// The shortest that the guide advises.
    pub const TUNED: Self = Self { session: "1500ms", lease: ["2s", "1500ms", "500ms"] };
}

/// A Cluster, the operator, and brokers that say they are its pods.
#[derive(Debug)]
pub struct Members {
    api: Arc<ApiServer>,
    failover: Failover,
    namespace: String,
    dir: TempDir,
    /// Each broker has a loopback address of its own, since all listen on one port, as pods do.
    port: u16,
    /// Third number of these addresses: no two clusters of a process meet on one.
    subnet: u8,
    operator: Option<Process>,
    brokers: Vec<Option<Broker>>,
}

impl Members {
    /// The Cluster `main` of so many brokers in a namespace of its own, all ready.
    pub fn start(brokers: usize) -> Result<Self> {
        Self::start_at(ApiServer::shared()?, brokers)
    }

    /// The same with these times.
    pub fn start_with(brokers: usize, failover: Failover) -> Result<Self> {
        Self::begin(ApiServer::shared()?, brokers, failover)
    }

    /// The same beside this API server, with the broker's own times: where nobody dies, nobody who waits for a processor on a
    /// busy machine is taken for dead.
    pub fn start_at(api: Arc<ApiServer>, brokers: usize) -> Result<Self> {
        Self::begin(api, brokers, Failover::DEFAULT)
    }

    fn begin(api: Arc<ApiServer>, brokers: usize, failover: Failover) -> Result<Self> {
        let namespace = format!("members-{}", uuid::Uuid::new_v4().simple());
        let dir = tempfile::Builder::new().prefix("taffrail-members-").tempdir()?;
        let port = free_address()?.port();
        let (subnet, processes) = (subnet(), Vec::new());
        let mut members = Self { api, failover, namespace, dir, port, subnet, operator: None, brokers: processes };
        members.apply_definitions()?;
        members.kubectl(&["create", "namespace", &members.namespace])?.ok()?;
        let cluster = format!(
            "apiVersion: taffrail.dev/v1alpha1\nkind: Cluster\nmetadata: {{name: main}}\n\
             spec: {{replicas: {brokers}, storage: {{size: 1Gi}}, listeners: [{{name: grpc, port: {port}}}]}}\n"
        );
        members.apply(&cluster)?;
        members.start_operator()?;
        for id in 0..brokers {
            let options = members.options(id)?;
            let broker = options.spawn()?;
            members.brokers.push(Some(broker));
        }
        for broker in members.brokers.iter_mut().flatten() {
            broker.wait_ready()?;
        }
        Ok(members)
    }

    fn apply_definitions(&self) -> Result<()> {
        let folder = crate::cli::project().join("crds/yaml");
        let folder = folder.to_string_lossy();
        self.api.kubectl(&["apply", "--server-side", "--force-conflicts", "-f", &folder])?.ok()?;
        self.api.kubectl(&["wait", "--for=condition=Established", "--timeout=120s", "-f", &folder])?.ok()?;
        Ok(())
    }

    /// Starts the operator.
    pub fn start_operator(&mut self) -> Result<()> {
        let log = std::fs::File::options().create(true).append(true).open(self.dir.path().join("operator.log"))?;
        let child: Child = Command::new(program("taffrail-operator")?)
            .args(["run", "--listen", &free_address()?.to_string()])
            .env("KUBECONFIG", self.api.kubeconfig())
            .env("POD_NAMESPACE", &self.namespace)
            .env("TAFFRAIL_OPERATOR_NAMESPACE", &self.namespace)
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log)
            .spawn()
            .context("start taffrail-operator")?;
        self.operator = Some(Process(child));
        Ok(())
    }

    /// How to start a broker of this number. Each call gives other ports for the brokers' own and the admin listener.
    pub fn options(&self, id: usize) -> Result<BrokerOptions> {
        let dir = self.dir.path().join(format!("broker-{id}"));
        std::fs::create_dir_all(&dir)?;
        let mut options = BrokerOptions::new(&dir)?;
        "cluster".clone_into(&mut options.mode);
        let host = Ipv4Addr::new(127, 0, self.subnet, u8::try_from(id)? + 1);
        options.listen = SocketAddr::from((host, self.port));
        let (id, host, internal) = (id.to_string(), host.to_string(), format!("{host}:{}", free_address()?.port()));
        let kubeconfig = self.api.kubeconfig().to_string_lossy().into_owned();
        Ok(options.args([
            "--cluster",
            "main",
            "--namespace",
            &self.namespace,
            "--broker-id",
            &id,
            "--advertise-host",
            &host,
            "--internal-listen",
            &internal,
            "--kubeconfig",
            &kubeconfig,
            "--session-timeout",
            self.failover.session,
            "--lease-duration",
            self.failover.lease[0],
            "--renew-deadline",
            self.failover.lease[1],
            "--retry-period",
            self.failover.lease[2],
        ]))
    }

    /// The namespace of the Cluster.
    pub fn namespace(&self) -> &str {
        &self.namespace
    }

    /// The API server.
    pub fn api(&self) -> &ApiServer {
        &self.api
    }

    /// A broker that runs.
    pub fn broker(&mut self, id: usize) -> Result<&mut Broker> {
        self.brokers.get_mut(id).and_then(Option::as_mut).with_context(|| format!("broker {id} does not run"))
    }

    /// Where clients connect to the brokers that run.
    pub fn endpoints(&self) -> Vec<String> {
        self.brokers.iter().flatten().map(Broker::endpoint).collect()
    }

    /// The brokers that run, for a client that may begin with any of them.
    pub fn bootstrap(&self) -> String {
        self.endpoints().join(",")
    }

    /// Sends a broker a signal.
    pub fn signal(&self, id: usize, signal: Signal) -> Result<()> {
        let broker = self.brokers.get(id).and_then(Option::as_ref);
        broker.with_context(|| format!("broker {id} does not run"))?.signal(signal)
    }

    /// Takes a broker out: it is the caller's from now on.
    pub fn take(&mut self, id: usize) -> Result<Broker> {
        self.brokers[id].take().with_context(|| format!("broker {id} does not run"))
    }

    /// Ends a broker as a crash does.
    pub fn kill(&mut self, id: usize) -> Result<BrokerOptions> {
        self.take(id)?.kill()
    }

    /// Ends a broker in good order.
    pub fn stop(&mut self, id: usize) -> Result<BrokerOptions> {
        let (status, options) = self.take(id)?.stop()?;
        if status.success() { Ok(options) } else { bail!("broker {id} ended with {status}") }
    }

    /// Starts several brokers at once, and waits until all are ready.
    pub fn restart_all(&mut self, options: &[(usize, BrokerOptions)]) -> Result<()> {
        for (id, options) in options {
            self.brokers[*id] = Some(options.spawn()?);
        }
        for (id, _) in options {
            self.broker(*id)?.wait_ready()?;
        }
        Ok(())
    }

    /// Starts a broker and waits until it is ready.
    pub fn restart(&mut self, id: usize, options: &BrokerOptions) -> Result<()> {
        self.brokers[id] = Some(options.start()?);
        Ok(())
    }

    /// Ends the operator.
    pub fn stop_operator(&mut self) {
        self.operator = None;
    }

    /// Process id of the operator.
    pub fn operator_pid(&self) -> Option<u32> {
        self.operator.as_ref().map(|operator| operator.0.id())
    }

    /// Process ids of the brokers that run.
    pub fn broker_pids(&self) -> Vec<u32> {
        self.brokers.iter().flatten().map(Broker::pid).collect()
    }

    /// Runs kubectl in the Cluster's namespace.
    pub fn kubectl(&self, arguments: &[&str]) -> Result<Ended> {
        self.api.kubectl(&[&["--namespace", &self.namespace], arguments].concat())
    }

    /// What kubectl prints as JSON, such as of `get topic flights`.
    pub fn json(&self, arguments: &str) -> Result<Value> {
        let arguments: Vec<_> = arguments.split_whitespace().chain(["-o", "json"]).collect();
        Ok(serde_json::from_str(&self.kubectl(&arguments)?.ok()?)?)
    }

    /// Identity of a Topic.
    pub fn topic_id(&self, name: &str) -> Result<String> {
        let topic = self.json(&format!("get topic {name}"))?;
        Ok(topic["status"]["topicId"].as_str().with_context(|| format!("Topic {name} is not accepted"))?.to_owned())
    }

    /// The slices of a topic.
    pub fn slices(&self, topic_id: &str) -> Result<Vec<Value>> {
        let found = self.json(&format!("get partitionslices -l taffrail.dev/topic-id={topic_id}"))?;
        Ok(found["items"].as_array().cloned().unwrap_or_default())
    }

    /// The states of a topic's partitions.
    pub fn partitions(&self, topic_id: &str) -> Result<Vec<Value>> {
        let slices = self.slices(topic_id)?;
        let partitions = slices.iter().flat_map(|slice| slice["spec"]["partitions"].as_array().into_iter().flatten());
        Ok(partitions.cloned().collect())
    }

    /// Who leads each partition of a topic.
    pub fn leaders(&self, topic_id: &str) -> Result<Vec<Option<usize>>> {
        let partitions = self.partitions(topic_id)?;
        Ok(partitions.iter().map(|p| p["leader"].as_u64().and_then(|id| usize::try_from(id).ok())).collect())
    }

    /// Waits until every partition of a topic has a leader, and so many replicas that are all in sync.
    pub fn wait_in_sync(&self, topic_id: &str, replicas: usize) -> Result<()> {
        let count = |partition: &Value, field: &str| partition[field].as_array().map_or(0, Vec::len);
        self.wait("all replicas are in sync", || {
            let whole =
                |p: &Value| count(p, "isr") == replicas && count(p, "replicas") == replicas && p["leader"].is_u64();
            let partitions = self.partitions(topic_id)?;
            Ok(!partitions.is_empty() && partitions.iter().all(whole))
        })
    }

    /// Number of the broker that is controller.
    pub fn controller(&self) -> Result<Option<usize>> {
        let state = self.json("get clusterstate main")?;
        Ok(state["spec"]["controller"].as_u64().and_then(|id| usize::try_from(id).ok()))
    }

    /// Runs the command line at a broker.
    pub fn cli(&self, broker: usize, arguments: &str, input: &str) -> Result<Ended> {
        let found = self.brokers.get(broker).and_then(Option::as_ref);
        let endpoint = found.with_context(|| format!("broker {broker} does not run"))?.endpoint();
        crate::cli::cli(&endpoint, arguments, input)
    }

    /// All records of a topic as a broker gives them, sorted.
    pub fn consume(&self, broker: usize, topic: &str) -> Result<Vec<String>> {
        let read = self.cli(broker, &format!("consume {topic} --from earliest"), "")?.ok()?;
        let mut lines: Vec<_> = read.lines().map(str::to_owned).collect();
        lines.sort();
        Ok(lines)
    }

    /// Applies a manifest in the Cluster's namespace.
    pub fn apply(&self, manifest: &str) -> Result<()> {
        self.apply_in(&self.namespace, manifest)
    }

    /// Applies a manifest in another namespace.
    pub fn apply_in(&self, namespace: &str, manifest: &str) -> Result<()> {
        let file = self.file(manifest)?;
        self.api.kubectl(&["--namespace", namespace, "apply", "--server-side", "-f", &file])?.ok()?;
        Ok(())
    }

    /// Makes the objects of a manifest that are not there; how that ended.
    pub fn create(&self, manifest: &str) -> Result<Ended> {
        let file = self.file(manifest)?;
        self.kubectl(&["create", "-f", &file])
    }

    fn file(&self, text: &str) -> Result<String> {
        let file = self.dir.path().join(format!("{}.yaml", uuid::Uuid::new_v4()));
        std::fs::write(&file, text)?;
        Ok(file.to_string_lossy().into_owned())
    }

    /// The newest lines of all brokers' logs.
    pub fn logs(&self) -> String {
        self.brokers.iter().flatten().map(Broker::log_tail).collect()
    }

    /// A Topic of the Cluster.
    pub fn apply_topic(&self, name: &str, partitions: i32, more: &str) -> Result<()> {
        self.apply(&format!(
            "apiVersion: taffrail.dev/v1alpha1\nkind: Topic\nmetadata: {{name: {name}}}\n\
             spec: {{clusterRef: {{name: main}}, partitions: {partitions}{more}}}\n"
        ))
    }

    /// Waits for a condition of an object, such as `Ready` of `topic/flights`.
    pub fn wait_condition(&self, object: &str, condition: &str) -> Result<()> {
        let waited = self.kubectl(&["wait", &format!("--for=condition={condition}"), object, "--timeout=120s"])?;
        match waited.code {
            Some(0) => Ok(()),
            _ => bail!("{object} is not {condition}: {}\n{}", waited.err, self.dump()),
        }
    }

    /// Waits until a topic is ready and every broker that runs knows it. Who has not heard of it yet says that there is none.
    pub fn wait_topic(&self, name: &str) -> Result<()> {
        self.wait_condition(&format!("topic/{name}"), "Ready")?;
        self.wait_known(name, &self.topic_id(name)?)
    }

    /// Waits until every broker that runs knows a topic under this id.
    pub fn wait_known(&self, name: &str, id: &str) -> Result<()> {
        let (endpoints, describe) = (self.endpoints(), format!("topic describe {name} -o json"));
        self.wait(&format!("all brokers know {name} as {id}"), || {
            let described = endpoints.iter().map(|endpoint| Ok(crate::cli::cli(endpoint, &describe, "")?.out));
            let described: Vec<String> = described.collect::<Result<_>>()?;
            Ok(described.iter().all(|text| text.contains(id)))
        })
    }

    /// Waits until `holds` says so.
    pub fn wait(&self, what: &str, mut holds: impl FnMut() -> Result<bool>) -> Result<()> {
        let begin = Instant::now();
        while !holds()? {
            if begin.elapsed() > PATIENCE {
                bail!("not within {PATIENCE:?}: {what}\n{}", self.dump());
            }
            std::thread::sleep(Duration::from_millis(100));
        }
        Ok(())
    }

    /// What a person would look at.
    pub fn dump(&self) -> String {
        let mut text = String::new();
        for kind in ["clusters.taffrail.dev,topics.taffrail.dev,brokers,partitionslices,clusterstates,leases"] {
            if let Ok(found) = self.kubectl(&["get", kind, "-o", "yaml"]) {
                text.push_str(&found.out);
            }
        }
        for broker in self.brokers.iter().flatten() {
            text.extend(["--- a broker's log\n", &broker.log_tail(), "\n"]);
        }
        let operator: PathBuf = self.dir.path().join("operator.log");
        let log = std::fs::read_to_string(operator).unwrap_or_default();
        let lines: Vec<_> = log.lines().collect();
        text.extend(["--- the operator's log\n", &lines[lines.len().saturating_sub(40)..].join("\n")]);
        text
    }
}

/// One that no cluster of this process had lately.
fn subnet() -> u8 {
    static NEXT: AtomicU8 = AtomicU8::new(0);
    NEXT.fetch_add(1, Ordering::Relaxed) % 250 + 1
}
