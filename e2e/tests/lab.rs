//! The cluster that tests of the whole run in: it is what it should be, its faults are real, and nothing of it is left.
#![allow(clippy::unwrap_used)]

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io::{BufRead, BufReader};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, ToSocketAddrs};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use taffrail_e2e::cli::Ended;
use taffrail_e2e::kubernetes::has_ended;
use taffrail_e2e::kubernetes::lab::{self, KUBECONFIG, Lab, Namespace, PATIENCE, Pod, Sandbox, until};
use taffrail_e2e::loop_volume::root;
use taffrail_e2e::process::{Process, http_get};

/// Serves its folder by HTTP and counts in a file, on a volume; says when it can.
const COUNTER: &str = r#"
apiVersion: v1
kind: PersistentVolumeClaim
metadata: {name: data}
spec: {accessModes: [ReadWriteOnce], resources: {requests: {storage: 16Mi}}}
---
apiVersion: v1
kind: Service
metadata: {name: counter}
spec: {selector: {app: counter}, ports: [{port: 8080}]}
---
apiVersion: v1
kind: Pod
metadata: {name: counter, labels: {app: counter}}
spec:
  terminationGracePeriodSeconds: 0
  nodeSelector: {topology.kubernetes.io/zone: zone-3}
  tolerations: [{operator: Exists}]
  securityContext: {runAsNonRoot: true, runAsUser: 65532, seccompProfile: {type: RuntimeDefault}}
  containers:
    - name: counter
      image: taffrail.dev/busybox:1
      command: [/bin/sh, -c, "httpd -p 8080 -h /data; n=0; while :; do n=$((n + 1)); echo $n >/data/count; sleep 0.2; done"]
      securityContext: {readOnlyRootFilesystem: true, allowPrivilegeEscalation: false, capabilities: {drop: [ALL]}}
      readinessProbe: {httpGet: {path: /count, port: 8080}, periodSeconds: 1}
      volumeMounts: [{name: data, mountPath: /data}]
  volumes: [{name: data, persistentVolumeClaim: {claimName: data}}]
"#;

const HELP: &str = r"
apiVersion: v1
kind: Pod
metadata: {name: help}
spec:
  restartPolicy: Never
  securityContext: {runAsNonRoot: true, seccompProfile: {type: RuntimeDefault}}
  containers:
    - name: help
      image: ghcr.io/taffrail/taffrail:0.1.0
      args: [--help]
      securityContext: {readOnlyRootFilesystem: true, allowPrivilegeEscalation: false, capabilities: {drop: [ALL]}}
";

/// The control plane's address, which tests have too.
const CONTROL_PLANE: IpAddr = IpAddr::V4(Ipv4Addr::new(10, 77, 0, 1));

/// A namespace in which the counter runs.
fn counting(lab: &Lab) -> Result<(Namespace<'_>, Pod<'_>)> {
    let namespace = lab.namespace("counter")?;
    namespace.apply(COUNTER)?;
    namespace.wait("pod/counter", "condition=Ready", PATIENCE)?;
    let pod = namespace.pod("counter");
    Ok((namespace, pod))
}

/// What the counter has come to, asked at an address.
fn count(address: SocketAddr) -> Result<u64> {
    let (status, body) = http_get(address, "/count")?;
    ensure!(status == 200, "status {status}");
    Ok(body.trim().parse()?)
}

#[test]
fn three_nodes_in_three_zones_run_pods_with_names_volumes_and_our_images() -> Result<()> {
    lab::test(&["taffrail"], async |lab| {
        let zone = r"jsonpath={.items[*].metadata.labels.topology\.kubernetes\.io/zone}";
        assert_eq!(lab.kubectl(&["get", "nodes", "-o", zone])?.ok()?, "zone-1 zone-2 zone-3");
        let (namespace, pod) = counting(lab)?;
        namespace.apply(HELP)?;
        assert_eq!(namespace.get("pvc/data", ".status.phase")?, "Bound");
        assert_eq!(pod.node()?, 3);

        // The Service's name, from the test and from a pod.
        let service = format!("counter.{}.svc:8080", namespace.name());
        let address = service.to_socket_addrs().with_context(|| service.clone())?.next().unwrap();
        assert_eq!(namespace.get("service/counter", ".spec.clusterIP")?, address.ip().to_string());
        let first = count(address)?;
        let fetched = pod.exec(&["wget", "-qO-", &format!("http://{service}/count")])?.ok()?;
        assert!(fetched.trim().parse::<u64>()? >= first, "{fetched}");

        namespace.wait("pod/help", "jsonpath={.status.phase}=Succeeded", PATIENCE)?;
        let said = namespace.pod("help").logs()?;
        assert!(said.contains("Usage: taffrail"), "{said}");
        let nodes = lab.client().await?.list_core_api_versions().await?;
        assert_eq!(nodes.versions, ["v1"]);
        Ok(())
    })
}

#[test]
fn faults_of_a_pod_are_real_and_end() -> Result<()> {
    lab::test(&[], async |lab| {
        let (namespace, pod) = counting(lab)?;
        let address = SocketAddr::new(pod.address()?, 8080);

        let cut = pod.cut_off()?;
        count(address).expect_err("nothing gets through to a pod that is cut off");
        assert_eq!(pod.get(r#".status.conditions[?(@.type=="Ready")].status"#)?, "True", "but its probes do");
        cut.end()?;
        count(address)?;

        let cut = pod.cut_from(CONTROL_PLANE)?;
        count(address).expect_err("nothing gets through between the two");
        pod.exec(&["wget", "-qO-", "http://localhost:8080/count"])?.ok().context("the rest of its network works")?;
        cut.end()?;
        count(address)?;

        let frozen = pod.freeze()?;
        namespace.wait("pod/counter", "condition=Ready=False", PATIENCE)?;
        frozen.end()?;
        namespace.wait("pod/counter", "condition=Ready", PATIENCE)?;

        // Nobody would make this pod again elsewhere, so the drain is refused, and undone.
        lab.node(3).drain().expect_err("a drain deletes no pod that has no controller");
        assert_eq!(lab.kubectl(&["get", "node/n3", "-o", "jsonpath={.spec.unschedulable}"])?.ok()?, "");

        pod.kill()?;
        until("the container is started again", PATIENCE, async || Ok((pod.restarts()? == 1).then_some(()))).await?;
        namespace.wait("pod/counter", "condition=Ready", PATIENCE)
    })
}

#[test]
fn pods_go_on_while_the_api_server_hangs_and_after_it_has_crashed() -> Result<()> {
    lab::test_alone(&[], async |lab| {
        let (namespace, pod) = counting(lab)?;
        let address = SocketAddr::new(pod.address()?, 8080);
        let server = lab.part("kube-apiserver");

        let hangs = server.freeze()?;
        lab.kubectl(&["get", "nodes", "--request-timeout=1s"])?.failed(1)?;
        let before = count(address)?;
        tokio::time::sleep(Duration::from_secs(3)).await;
        assert!(count(address)? >= before + 5, "it counts five times a second");
        hangs.end()?;
        until("the API server answers", PATIENCE, async || Ok(Some(pod.restarts()?))).await?;

        server.restart()?;
        let restarts = until("the API server answers", PATIENCE, async || Ok(Some(pod.restarts()?))).await?;
        assert_eq!(restarts, 0);
        namespace.wait("pod/counter", "condition=Ready", PATIENCE)
    })
}

#[test]
fn a_node_that_loses_its_power_is_missed_and_comes_back_with_its_disk() -> Result<()> {
    lab::test_alone(&[], async |lab| {
        let (namespace, pod) = counting(lab)?;
        let node = lab.node(pod.node()?);
        let off = node.power_off()?;
        node.wait_unknown()?;
        off.end()?;
        node.wait_ready()?;
        // Its process is a new one, on the same volume.
        let restarted = async || Ok((pod.restarts()? == 1).then_some(()));
        until("the pod runs again", PATIENCE, restarted).await?;
        namespace.wait("pod/counter", "condition=Ready", PATIENCE)?;

        for other in [1, 2] {
            lab.node(other).wait_ready()?;
        }
        Ok(())
    })
}

/// Runs a test of this program inside of a cluster as if that were somebody's own.
fn run_by_kubeconfig(test: &str) -> Result<Ended> {
    let sandbox = Sandbox::shared()?;
    sandbox.provide(&["taffrail"])?;
    let kubeconfig = format!("{KUBECONFIG}={}", sandbox.folder().join("keys/admin.kubeconfig").display());
    let me = std::env::current_exe()?;
    let me = me.to_str().context("this program's path is no text")?;
    sandbox.enter(&["env", "-u", "TAFFRAIL_INSIDE", &kubeconfig, me, test, "--exact", "--nocapture"])
}

#[test]
fn a_cluster_that_a_kubeconfig_names_is_used_and_is_not_broken() -> Result<()> {
    if !root()? {
        return Ok(());
    }
    // Other tests take its nodes' power.
    lab::alone(|| {
        let said = run_by_kubeconfig("three_nodes_in_three_zones_run_pods_with_names_volumes_and_our_images")?.ok()?;
        ensure!(said.contains(" 1 passed"), "{said}");
        let refused = run_by_kubeconfig("faults_of_a_pod_are_real_and_end")?;
        let said = format!("{}{}", refused.out, refused.err);
        ensure!(refused.code != Some(0) && said.contains("faults need the sandbox"), "{said}");
        Ok(())
    })
}

/// Processes below another one, with the time each was started at: ids are used again.
fn descendants(of: u32) -> Result<BTreeSet<(u32, u64)>> {
    let mut children: BTreeMap<u32, Vec<(u32, u64)>> = BTreeMap::new();
    for entry in fs::read_dir("/proc")? {
        let Some(pid) = entry?.file_name().to_str().and_then(|name| name.parse::<u32>().ok()) else { continue };
        if let Some((parent, started)) = parent_and_start(pid) {
            children.entry(parent).or_default().push((pid, started));
        }
    }
    let (mut found, mut todo) = (BTreeSet::new(), vec![of]);
    while let Some(parent) = todo.pop() {
        for &(pid, started) in children.get(&parent).into_iter().flatten() {
            found.insert((pid, started));
            todo.push(pid);
        }
    }
    Ok(found)
}

fn parent_and_start(pid: u32) -> Option<(u32, u64)> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The fields from the state on stand behind the name, which is in parentheses.
    let fields: Vec<&str> = stat.rsplit_once(") ")?.1.split(' ').collect();
    Some((fields.get(1)?.parse().ok()?, fields.get(19)?.parse().ok()?))
}

/// What of the machine a cluster could leave changed: network devices, mounts, loop devices, settings of the kernel.
fn machine() -> Result<Vec<String>> {
    let mut links: Vec<String> = fs::read_dir("/sys/class/net")?
        .map(|link| link.map(|link| link.file_name().to_string_lossy().into_owned()))
        .collect::<Result<_, _>>()?;
    links.sort();
    let mounts = fs::read_to_string("/proc/mounts")?;
    let mounts = mounts.lines().filter(|line| !line.contains("taffrail-volume-")).map(ToOwned::to_owned);
    let settings = ["vm/overcommit_memory", "kernel/panic", "kernel/panic_on_oops", "net/ipv4/ip_forward"];
    let settings = settings.map(|name| fs::read_to_string(format!("/proc/sys/{name}"))).into_iter();
    Ok(links.into_iter().chain(mounts).chain(settings.collect::<Result<Vec<_>, _>>()?).collect())
}

/// Cgroups of a cluster.
fn cgroups(folder: &Path) -> Vec<PathBuf> {
    let hierarchies = fs::read_dir("/sys/fs/cgroup").unwrap().map(|entry| entry.unwrap().path());
    hierarchies.map(|path| path.join(folder.file_name().unwrap())).filter(|path| path.exists()).collect()
}

#[test]
fn nothing_is_left_of_a_cluster_that_ends() -> Result<()> {
    if !root()? {
        return Ok(());
    }
    let before = machine()?;
    let sandbox = Sandbox::start()?;
    let folder = sandbox.folder().to_owned();
    let processes = descendants(sandbox.pid()?)?;
    assert!(processes.len() > 20 && !cgroups(&folder).is_empty(), "{processes:?}");
    assert_eq!(machine()?, before, "while it runs");
    sandbox.stop()?;
    for (pid, started) in processes {
        let same = parent_and_start(pid).is_some_and(|(_, at)| at == started);
        assert!(!same || has_ended(pid)?, "process {pid} is left");
    }
    assert_eq!(cgroups(&folder), Vec::<PathBuf>::new());
    assert!(!folder.exists());
    assert_eq!(machine()?, before, "after it");
    Ok(())
}

const HELPER: &str = "starts_a_cluster_and_waits_to_be_killed";

#[test]
#[ignore = "the next test starts it"]
fn starts_a_cluster_and_waits_to_be_killed() -> Result<()> {
    let sandbox = Sandbox::start()?;
    eprintln!("cluster {} {}", sandbox.pid()?, sandbox.folder().display());
    std::thread::sleep(Duration::from_mins(2));
    Ok(())
}

#[test]
fn a_cluster_ends_with_the_test_that_started_it_even_if_that_is_killed() -> Result<()> {
    if !root()? {
        return Ok(());
    }
    let mut helper = Command::new(std::env::current_exe()?);
    helper.args([HELPER, "--exact", "--ignored", "--nocapture"]).stdout(Stdio::null()).stderr(Stdio::piped());
    let mut helper = Process(helper.spawn()?);
    let lines = BufReader::new(helper.0.stderr.take().context("standard error")?).lines();
    let told = lines.map_while(Result::ok).find_map(|line| line.strip_prefix("cluster ").map(str::to_owned));
    let told = told.context("no cluster")?;
    let (pid, folder) = told.split_once(' ').context("id and folder")?;
    let (pid, folder) = (pid.parse()?, Path::new(folder));
    assert!(!descendants(pid)?.is_empty());
    drop(helper); // SIGKILL
    let begin = Instant::now();
    while folder.exists() || !cgroups(folder).is_empty() {
        ensure!(begin.elapsed() < PATIENCE, "{} is still there", folder.display());
        std::thread::sleep(Duration::from_millis(50));
    }
    assert_eq!(descendants(pid)?, BTreeSet::new());
    Ok(())
}
