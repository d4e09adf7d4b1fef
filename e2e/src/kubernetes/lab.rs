//! A real Kubernetes with three nodes in three zones on this machine (`e2e/cluster`), for tests of the whole.
//!
//! A test's body runs *inside* the cluster's sandbox, as a process of its own: there, pods, Services and nodes have their
//! addresses and names, their processes can be seen, and faults can be made. [`test`] takes care of that:
//!
//! ```no_run
//! use taffrail_e2e::kubernetes::lab;
//!
//! #[test]
//! fn a_command_line_runs_in_a_pod() -> anyhow::Result<()> {
//!     lab::test(&["taffrail"], async |lab| {
//!         let namespace = lab.namespace("cli")?;
//!         namespace.apply("apiVersion: v1\nkind: Pod\n...")?;
//!         namespace.wait("pod/cli", "jsonpath={.status.phase}=Succeeded", lab::PATIENCE)
//!     })
//! }
//! ```
//!
//! - [`Sandbox`]: the cluster as it is seen from outside; starts it, and ends it with the test's process.
//! - [`Namespace`], [`Pod`], [`Node`], [`Part`]: what there is inside; with the faults of each, which end with their [`Fault`].
//!
//! Against a cluster that is there already (`TAFFRAIL_E2E_KUBECONFIG`), bodies run outside of it, and without faults.

mod disk;
mod etcd;
mod fault;
mod namespace;
mod node;
mod operator;
mod part;
mod pod;
mod sandbox;

use std::any::type_name;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Mutex, PoisonError, RwLock};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, bail};
use kube::config::{KubeConfigOptions, Kubeconfig};
use uuid::Uuid;

use super::programs;
use crate::cli::{self, Ended, project};
use crate::loop_volume::root;

pub use disk::{Disk, add_disks};
pub use etcd::Backup;
pub use fault::Fault;
pub use namespace::Namespace;
pub use node::Node;
pub use part::Part;
pub use pod::{Pod, kill};
pub use sandbox::Sandbox;

/// How long most things in a cluster may take on a busy machine.
pub const PATIENCE: Duration = Duration::from_mins(2);

/// How long the chart may take until everything it installs is ready.
const INSTALL_PATIENCE: Duration = Duration::from_mins(4);

/// Names the configuration file of a cluster to test in, which has the images already.
pub const KUBECONFIG: &str = "TAFFRAIL_E2E_KUBECONFIG";
/// Set to 1, namespaces of tests stay.
pub const KEEP: &str = "TAFFRAIL_E2E_KEEP";
/// Set by `e2e/cluster/enter`: this process is inside.
const INSIDE: &str = "TAFFRAIL_INSIDE";
/// The folder of the cluster.
const FOLDER: &str = "TAFFRAIL_CLUSTER";

/// Tests that break what others need have the cluster for themselves.
static USERS: RwLock<()> = RwLock::new(());

/// Runs a test in the cluster that all tests of this process share, which has the images of these names (`.ci/images`).
pub fn test<F: AsyncFnOnce(&Lab) -> Result<()>>(images: &[&str], body: F) -> Result<()> {
    let _user = USERS.read().unwrap_or_else(PoisonError::into_inner);
    run(images, body)
}

/// As [`test`], while no other test of this process uses the cluster: for faults of nodes and of the control plane.
pub fn test_alone<F: AsyncFnOnce(&Lab) -> Result<()>>(images: &[&str], body: F) -> Result<()> {
    let _user = USERS.write().unwrap_or_else(PoisonError::into_inner);
    run(images, body)
}

/// Does something outside of the cluster while no test of this process uses that.
pub fn alone<T>(body: impl FnOnce() -> T) -> T {
    let _user = USERS.write().unwrap_or_else(PoisonError::into_inner);
    body()
}

fn run<F: AsyncFnOnce(&Lab) -> Result<()>>(images: &[&str], body: F) -> Result<()> {
    if let Some(lab) = Lab::here()? {
        return lab.run(body);
    }
    if !root()? {
        return Ok(());
    }
    let sandbox = Sandbox::shared()?;
    sandbox.provide(images)?;
    sandbox.run_test(test_name::<F>()?)
}

/// The name of the test whose body this is: `crate::name::{{closure}}`.
fn test_name<F>() -> Result<&'static str> {
    let path = type_name::<F>();
    let name = path.split_once("::").and_then(|(_, rest)| rest.split_once("::{{closure}}"));
    Ok(name.with_context(|| format!("{path}: the body of a test is a closure in the test"))?.0)
}

/// A cluster, seen by a test that can reach its addresses.
#[derive(Debug)]
pub struct Lab {
    programs: PathBuf,
    kubeconfig: PathBuf,
    /// Of the sandbox, if the cluster is in one.
    folder: Option<PathBuf>,
    namespaces: Mutex<Vec<String>>,
}

impl Lab {
    /// The cluster this process is in or was told of.
    pub fn here() -> Result<Option<Self>> {
        let variable = |name| std::env::var_os(name).map(PathBuf::from);
        let namespaces = Mutex::default();
        if let Some(kubeconfig) = variable(KUBECONFIG) {
            return Ok(Some(Self { programs: programs()?, kubeconfig, folder: None, namespaces }));
        }
        if variable(INSIDE).is_none() {
            return Ok(None);
        }
        let folder = variable(FOLDER).with_context(|| format!("{INSIDE} is set, but {FOLDER} is not"))?;
        let (programs, kubeconfig) = (folder.join("programs"), folder.join("keys/admin.kubeconfig"));
        Ok(Some(Self { programs, kubeconfig, folder: Some(folder), namespaces }))
    }

    fn run<F: AsyncFnOnce(&Self) -> Result<()>>(&self, body: F) -> Result<()> {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
        let result = catch_unwind(AssertUnwindSafe(|| runtime.block_on(body(self))));
        let mine = std::mem::take(&mut *self.namespaces.lock().unwrap_or_else(PoisonError::into_inner));
        if !matches!(result, Ok(Ok(()))) {
            namespace::dump(self, &mine);
        }
        if std::env::var_os(KEEP).is_none() {
            namespace::delete(self, &mine);
        }
        result.unwrap_or_else(|panic| resume_unwind(panic))
    }

    /// A new namespace, whose name begins with `prefix`; it is deleted when the test ends.
    pub fn namespace(&self, prefix: &str) -> Result<Namespace<'_>> {
        let name = format!("{prefix}-{}", &Uuid::new_v4().simple().to_string()[..8]);
        self.kubectl(&["create", "namespace", &name])?.ok()?;
        self.namespaces.lock().unwrap_or_else(PoisonError::into_inner).push(name.clone());
        Ok(Namespace::new(self, name))
    }

    /// Runs kubectl.
    pub fn kubectl(&self, arguments: &[&str]) -> Result<Ended> {
        self.kubectl_with(arguments, "")
    }

    /// Runs kubectl with `input` on its standard input.
    pub fn kubectl_with(&self, arguments: &[&str], input: &str) -> Result<Ended> {
        cli::run(self.command("kubectl").args(arguments), input)
    }

    /// Runs Helm, with nothing of what the user has configured for it.
    pub fn helm(&self, arguments: &[&str]) -> Result<Ended> {
        let home = tempfile::tempdir()?;
        let mut command = self.command("helm");
        for variable in ["HELM_CACHE_HOME", "HELM_CONFIG_HOME", "HELM_DATA_HOME"] {
            command.env(variable, home.path().join(variable));
        }
        cli::run(command.args(arguments), "")
    }

    /// A program that finds the cluster: one of Kubernetes' own, or any other on PATH.
    pub fn command(&self, program: &str) -> Command {
        let own = self.programs.join(program);
        let mut command = if own.exists() { Command::new(own) } else { Command::new(program) };
        command.env("KUBECONFIG", &self.kubeconfig);
        command
    }

    /// Configuration file for clients that may do everything.
    pub fn kubeconfig(&self) -> &Path {
        &self.kubeconfig
    }

    /// A client that may do everything.
    pub async fn client(&self) -> Result<kube::Client> {
        let config = Kubeconfig::read_from(&self.kubeconfig)?;
        let config = kube::Config::from_custom_kubeconfig(config, &KubeConfigOptions::default()).await?;
        Ok(kube::Client::try_from(config)?)
    }

    /// A node by its number, from 1 on; it is in zone `zone-N`.
    pub fn node(&self, number: u32) -> Node<'_> {
        Node::new(self, number)
    }

    /// A part of the control plane: `kube-apiserver`, `etcd`, `kube-controller-manager`, `kube-scheduler`, `coredns`.
    pub fn part<'a>(&'a self, name: &'a str) -> Part<'a> {
        Part::new(self, name)
    }

    /// Whether its nodes and pods can be broken: it is in a sandbox.
    pub fn is_ours(&self) -> bool {
        self.folder.is_some()
    }

    /// The sandbox's folder; an error if the cluster is in none.
    fn folder(&self) -> Result<&Path> {
        self.folder.as_deref().with_context(|| format!("faults need the sandbox: unset {KUBECONFIG}"))
    }

    /// Runs one of the scripts that the sandbox is made of.
    fn script(&self, name: &str, arguments: &[&str]) -> Result<String> {
        let mut command = Command::new(project().join("e2e/cluster").join(name));
        cli::run(command.env(FOLDER, self.folder()?).args(arguments), "")?.ok().with_context(|| name.to_owned())
    }
}

/// Asks until there is an answer. An error is one more reason to ask again; the last is told when patience ends.
pub async fn until<T>(what: &str, patience: Duration, mut ask: impl AsyncFnMut() -> Result<Option<T>>) -> Result<T> {
    let begin = Instant::now();
    loop {
        let error = match ask().await {
            Ok(Some(answer)) => return Ok(answer),
            Ok(None) => anyhow!("not yet"),
            Err(error) => error,
        };
        if begin.elapsed() > patience {
            bail!("{what}: not within {patience:?}: {error:#}");
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}
