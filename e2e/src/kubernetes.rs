//! A real Kubernetes API, of the version that `e2e/kubernetes` names: etcd and an API server on loopback, built from source
//! once per machine (`.ci/kubernetes`). There are no nodes: objects are stored, checked and watched, and nothing runs them.
//! A cluster with nodes, where pods run, is in [`lab`].
//!
//! Nothing outlives its test: the last handle that goes out of scope ends both by their ids, and should the test's process
//! be killed, the kernel kills them ([`keeper`]).

pub mod api_writes;
mod keeper;
pub mod lab;
pub mod members;

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Arc, Mutex, Weak};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use kube::config::{KubeConfigOptions, Kubeconfig};
use tempfile::TempDir;
use uuid::Uuid;

use crate::cli::{self, Ended, cache, project};
use crate::process::free_address;
use keeper::{Kept, keep};

/// How long the API may take to become ready.
const PATIENCE: Duration = Duration::from_mins(2);

/// Whether a process has ended.
pub fn has_ended(pid: u32) -> Result<bool> {
    keeper::is_gone(pid)
}

/// The programs, built if they are not there yet: a folder with `etcd`, `kube-apiserver`, `kubectl`, `helm` and others.
pub fn programs() -> Result<PathBuf> {
    let mut command = Command::new(project().join(".ci/kubernetes"));
    let folder = cli::run(command.env("TAFFRAIL_CACHE", cache()?), "")?.ok().context("build Kubernetes")?;
    Ok(PathBuf::from(folder.trim()))
}

/// An API server and its store.
#[derive(Debug)]
pub struct ApiServer {
    // The server goes before its store, and the folder last.
    server: Kept,
    store: Kept,
    programs: PathBuf,
    dir: TempDir,
}

impl ApiServer {
    /// The one that tests of this process share while they run; started by the first that asks.
    pub fn shared() -> Result<Arc<Self>> {
        static SHARED: Mutex<Weak<ApiServer>> = Mutex::new(Weak::new());
        let mut shared = SHARED.lock().map_err(|_| anyhow::anyhow!("another test failed to start the API server"))?;
        if let Some(server) = shared.upgrade() {
            return Ok(server);
        }
        let server = Arc::new(Self::start()?);
        *shared = Arc::downgrade(&server);
        Ok(server)
    }

    /// Starts one and waits until it is ready.
    pub fn start() -> Result<Self> {
        let programs = programs()?;
        // Somebody may take a port between its choice and its use.
        let mut tries = 0..3;
        loop {
            match Self::try_start(&programs) {
                Err(error) if tries.next().is_some() => eprintln!("starting it again: {error:#}"),
                result => return result,
            }
        }
    }

    fn try_start(programs: &Path) -> Result<Self> {
        let dir = tempfile::Builder::new().prefix("taffrail-kubernetes-").tempdir()?;
        let path = |name: &str| dir.path().join(name).to_string_lossy().into_owned();
        let token = Uuid::new_v4().to_string();
        // The group is the one that RBAC lets do everything.
        std::fs::write(path("tokens"), format!("{token},admin,admin,system:masters\n"))?;
        let mut openssl = Command::new("openssl");
        openssl.args(["ecparam", "-genkey", "-noout", "-name", "prime256v1", "-out", &path("service-accounts.key")]);
        cli::run(&mut openssl, "")?.ok()?;

        let [client, peer, api] = [free_address()?, free_address()?, free_address()?];
        let [client, peer] = [client, peer].map(|address| format!("http://{address}"));
        let mut etcd = Command::new(programs.join("etcd"));
        etcd.args(["--name", "etcd", "--log-level", "warn", "--unsafe-no-fsync", "--data-dir", &path("etcd")]);
        etcd.args(["--listen-client-urls", &client, "--advertise-client-urls", &client]);
        etcd.args(["--listen-peer-urls", &peer, "--initial-advertise-peer-urls", &peer]);
        etcd.args(["--initial-cluster", &format!("etcd={peer}")]);
        let store = keep(&etcd, &dir.path().join("etcd.log"))?;

        let mut server = Command::new(programs.join("kube-apiserver"));
        server.args(["--bind-address", "127.0.0.1", "--advertise-address", "127.0.0.1"]);
        server.args(["--secure-port", &api.port().to_string(), "--cert-dir", &path("certificates")]);
        server.args(["--etcd-servers", &client, "--service-cluster-ip-range", "10.96.0.0/16"]);
        server.args(["--authorization-mode", "Node,RBAC", "--token-auth-file", &path("tokens")]);
        server.args(["--service-account-issuer", "https://kubernetes.default.svc"]);
        server.args(["--service-account-key-file", &path("service-accounts.key")]);
        server.args(["--service-account-signing-key-file", &path("service-accounts.key")]);
        server.args(["--endpoint-reconciler-type", "none", "--profiling=false"]);
        // It makes its certificate itself, in `certificates`, signed by an authority in the same file.
        let server = keep(&server, &dir.path().join("kube-apiserver.log"))?;
        std::fs::write(path("kubeconfig"), kubeconfig(&api.to_string(), &path("certificates/apiserver.crt"), &token))?;

        let started = Self { server, store, programs: programs.to_owned(), dir };
        started.wait_ready()?;
        Ok(started)
    }

    fn wait_ready(&self) -> Result<()> {
        let begin = Instant::now();
        loop {
            let ready = self.kubectl(&["get", "--raw", "/readyz"])?;
            if ready.code == Some(0) {
                return Ok(());
            }
            for part in [&self.store, &self.server] {
                ensure!(!part.has_ended()?, "it ended; its log:\n{}", part.log_tail());
            }
            if begin.elapsed() > PATIENCE {
                bail!("not ready after {PATIENCE:?}: {}\n{}", ready.err, self.server.log_tail());
            }
            std::thread::sleep(Duration::from_millis(100));
        }
    }

    /// Configuration file for clients that may do everything.
    pub fn kubeconfig(&self) -> PathBuf {
        self.dir.path().join("kubeconfig")
    }

    /// A client that may do everything.
    pub async fn client(&self) -> Result<kube::Client> {
        let config = Kubeconfig::read_from(self.kubeconfig())?;
        let config = kube::Config::from_custom_kubeconfig(config, &KubeConfigOptions::default()).await?;
        Ok(kube::Client::try_from(config)?)
    }

    /// Runs kubectl.
    pub fn kubectl(&self, arguments: &[&str]) -> Result<Ended> {
        let mut command = Command::new(self.programs.join("kubectl"));
        command.env("KUBECONFIG", self.kubeconfig()).env("KUBECACHEDIR", self.dir.path().join("kubectl"));
        cli::run(command.args(arguments), "")
    }

    /// Ids of the processes.
    pub fn pids(&self) -> [u32; 2] {
        [self.store.pid(), self.server.pid()]
    }
}

fn kubeconfig(address: &str, authority: &str, token: &str) -> String {
    format!(
        "apiVersion: v1\nkind: Config\ncurrent-context: test\n\
         clusters: [{{name: test, cluster: {{server: \"https://{address}\", certificate-authority: {authority}}}}}]\n\
         users: [{{name: admin, user: {{token: {token}}}}}]\n\
         contexts: [{{name: test, context: {{cluster: test, user: admin}}}}]\n"
    )
}
