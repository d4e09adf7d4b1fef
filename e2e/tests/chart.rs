//! The chart: which values it takes and refuses, that a real API server takes what it renders, and what install, upgrade and
//! uninstall leave. `helm/tests` holds the values; comments in them say what is expected.
#![allow(clippy::unwrap_used)]

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use serde_json::Value;
use taffrail_e2e::cli::{self, Ended, project};
use taffrail_e2e::kubernetes::{ApiServer, programs};
use tempfile::TempDir;

const NAMESPACE: &str = "taffrail-system";

/// How long an API server may take to act on what it was given.
const PATIENCE: Duration = Duration::from_secs(90);

/// Pods that are not as the Restricted level wants them are refused here, and Deployments of such are warned of.
const NAMESPACE_YAML: &str = "\
apiVersion: v1
kind: Namespace
metadata:
  name: taffrail-system
  labels:
    pod-security.kubernetes.io/enforce: restricted
    pod-security.kubernetes.io/warn: restricted
";

/// A dry run makes no ServiceAccount, and a pod wants its own to be there: those of the tests' pods.
const ACCOUNTS: &str = "\
apiVersion: v1
kind: List
items:
  - {apiVersion: v1, kind: ServiceAccount, metadata: {name: taffrail-operator-test, namespace: taffrail-system}}
  - {apiVersion: v1, kind: ServiceAccount, metadata: {name: logs-test, namespace: taffrail-system}}
";

/// As much of Prometheus' operator as the chart needs.
const SERVICE_MONITORS: &str = "\
apiVersion: apiextensions.k8s.io/v1
kind: CustomResourceDefinition
metadata: {name: servicemonitors.monitoring.coreos.com}
spec:
  group: monitoring.coreos.com
  names: {kind: ServiceMonitor, plural: servicemonitors, singular: servicemonitor}
  scope: Namespaced
  versions:
    - {name: v1, served: true, storage: true, schema: {openAPIV3Schema: {type: object, x-kubernetes-preserve-unknown-fields: true}}}
";

fn chart() -> String {
    project().join("helm/taffrail").to_string_lossy().into_owned()
}

/// Runs helm, with `kubeconfig` if it needs an API server.
fn helm(kubeconfig: Option<&Path>, arguments: &[&str]) -> Result<Ended> {
    let home = TempDir::new()?;
    let mut command = Command::new(programs()?.join("helm"));
    for (variable, folder) in [("HELM_CACHE_HOME", "cache"), ("HELM_CONFIG_HOME", "config"), ("HELM_DATA_HOME", "data")]
    {
        command.env(variable, home.path().join(folder));
    }
    let nowhere = Path::new("/dev/null");
    command.env("KUBECONFIG", kubeconfig.unwrap_or(nowhere));
    cli::run(command.args(arguments), "")
}

/// Files with values, and what their comments that begin with `word` say.
fn values(folder: &str) -> Result<Vec<(PathBuf, String)>> {
    let entries = std::fs::read_dir(project().join("helm/tests").join(folder))?;
    let mut files: Vec<PathBuf> = entries.map(|entry| Ok(entry?.path())).collect::<Result<_>>()?;
    files.sort();
    files.into_iter().map(|path| Ok((path.clone(), std::fs::read_to_string(path)?))).collect()
}

fn said<'a>(text: &'a str, word: &str) -> Vec<&'a str> {
    let prefix = format!("# {word}: ");
    text.lines().filter_map(|line| line.strip_prefix(&prefix)).collect()
}

fn render(values: &Path) -> Result<Ended> {
    helm(None, &["template", "taffrail", &chart(), "--namespace", NAMESPACE, "--values", &values.to_string_lossy()])
}

/// A server with Taffrail's kinds, as `kubectl apply --server-side` makes them, and the namespace.
fn server() -> Result<Arc<ApiServer>> {
    let server = ApiServer::shared()?;
    let crds = project().join("crds/yaml").to_string_lossy().into_owned();
    server.kubectl(&["apply", "--server-side", "--force-conflicts", "-f", &crds])?.ok()?;
    for yaml in [NAMESPACE_YAML, ACCOUNTS, SERVICE_MONITORS] {
        apply(&server, &[], yaml)?.ok()?;
    }
    let established = "--for=condition=Established";
    server.kubectl(&["wait", established, "crd", "--all", "--timeout=90s"])?.ok()?;
    Ok(server)
}

fn apply(server: &ApiServer, arguments: &[&str], yaml: &str) -> Result<Ended> {
    let file = tempfile::NamedTempFile::new()?;
    std::fs::write(file.path(), yaml)?;
    let path = file.path().to_string_lossy().into_owned();
    let all = [&["apply", "--server-side", "--force-conflicts", "-f", &path], arguments].concat();
    server.kubectl(&all)
}

#[test]
fn the_chart_has_no_faults() -> Result<()> {
    helm(None, &["lint", "--strict", &chart()])?.ok().map(drop)
}

#[test]
fn values_that_are_wrong_are_refused_with_their_place() -> Result<()> {
    let files = values("refused")?;
    assert!(files.len() >= 15);
    for (path, text) in files {
        let expected = said(&text, "says");
        ensure!(expected.len() == 1, "{}: a first line says what is refused", path.display());
        let ended = render(&path)?;
        ensure!(ended.code == Some(1) && ended.err.contains(expected[0]), "{}: {ended:?}", path.display());
    }
    Ok(())
}

#[test]
fn what_is_rendered_is_as_expected_and_an_api_server_takes_it() -> Result<()> {
    let server = server()?;
    let files = values("rendered")?;
    assert!(files.len() >= 6);
    for (path, text) in files {
        let rendered = render(&path)?.ok().with_context(|| path.display().to_string())?;
        let has = |what: &&str| rendered.lines().any(|line| line.trim_end().ends_with(what));
        let missing: Vec<_> = said(&text, "has").into_iter().filter(|what| !has(what)).collect();
        let too_much: Vec<_> = said(&text, "lacks").into_iter().filter(has).collect();
        ensure!(missing.is_empty() && too_much.is_empty(), "{}: lacks {missing:?}, has {too_much:?}", path.display());
        let applied = apply(&server, &["--dry-run=server", "-n", NAMESPACE], &rendered)?;
        let warned = applied.err.contains("Warning");
        ensure!(applied.code == Some(0) && !warned, "{}: {}\n{}", path.display(), applied.out, applied.err);
        let count = rendered.matches("\nkind: ").count();
        assert_eq!(applied.out.lines().count(), count, "{}: {}", path.display(), applied.out);
    }
    Ok(())
}

/// Every value has a comment above it: what is set is what is explained.
#[test]
fn every_value_is_explained() -> Result<()> {
    let text = std::fs::read_to_string(project().join("helm/taffrail/values.yaml"))?;
    let lines: Vec<&str> = text.lines().collect();
    let is_key = |line: &str| line.trim_start().split_once(':').is_some_and(|(key, _)| !key.contains([' ', '#', '-']));
    let (mut keys, mut bare) = (0, vec![]);
    // What is below `resources` and the Cluster's `storage` is Kubernetes' and the Cluster's own.
    let known = ["requests:", "limits:", "cpu:", "memory:", "storage:", "spec:"];
    for (i, line) in lines.iter().enumerate().filter(|(_, line)| is_key(line)) {
        keys += 1;
        let opens = line.ends_with(':');
        let above = i.checked_sub(1).map_or("", |i| lines[i]).trim_start();
        if !above.starts_with('#') && !opens && !known.iter().any(|known| line.trim_start().starts_with(known)) {
            bare.push(*line);
        }
    }
    assert!(keys > 40 && bare.is_empty(), "{keys} keys; not explained: {bare:#?}");
    Ok(())
}

/// Every rule of the operator, and of people, says in a comment above it what it is for.
#[test]
fn every_rule_says_what_it_is_for() -> Result<()> {
    let mut rules = 0;
    for file in ["rbac.yaml", "userroles.yaml", "tests/rbac.yaml"] {
        let text = std::fs::read_to_string(project().join("helm/taffrail/templates").join(file))?;
        let lines: Vec<&str> = text.lines().collect();
        for (i, line) in lines.iter().enumerate().filter(|(_, line)| line.starts_with("  - apiGroups:")) {
            rules += 1;
            let above = lines[i - 1].trim_start();
            ensure!(above.starts_with("# "), "{file}: nothing is said of {line}{}", lines[i + 1]);
        }
    }
    assert!(rules > 15, "{rules} rules");
    Ok(())
}

/// What `kubectl apply --server-side -f helm/install.yaml` installs: the chart with its defaults.
#[test]
fn the_plain_yaml_is_what_the_chart_renders() -> Result<()> {
    let chart = chart();
    let rendered = helm(None, &["template", "taffrail", &chart, "--namespace", NAMESPACE, "--skip-tests"])?.ok()?;
    let head = "# The chart with its defaults, for whoever has no Helm: `kubectl apply --server-side -f helm/install.yaml`.\n\
                # Written by `UPDATE=1 cargo test --release -p taffrail-e2e --test chart plain`. Do not edit.\n";
    let rendered = rendered.replace("app.kubernetes.io/managed-by: Helm", "app.kubernetes.io/managed-by: kubectl");
    let lines = rendered.lines().filter(|line| !line.contains("helm.sh/chart:"));
    let expected = format!("{head}---\n{NAMESPACE_YAML}{}\n", lines.collect::<Vec<_>>().join("\n"));
    let path = project().join("helm/install.yaml");
    if std::env::var_os("UPDATE").is_some() {
        std::fs::write(&path, &expected)?;
    }
    let present = std::fs::read_to_string(path).unwrap_or_default();
    assert!(
        present == expected,
        "helm/install.yaml is out of date: UPDATE=1 cargo test -p taffrail-e2e --test chart plain"
    );
    let applied = apply(&*server()?, &["--dry-run=server"], &expected)?;
    assert!(!applied.err.contains("Warning"), "{}", applied.err);
    applied.ok().map(drop)
}

/// A JSON value at a path of kubectl's.
fn get(server: &ApiServer, arguments: &str) -> Result<Value> {
    let mut words: Vec<&str> = arguments.split(' ').collect();
    words.extend(["-n", NAMESPACE, "-o", "json"]);
    Ok(serde_json::from_str(&server.kubectl(&words)?.ok()?)?)
}

/// On a server of its own, which has never heard of Taffrail's kinds.
#[test]
fn uninstalling_keeps_definitions_and_clusters_and_installing_again_goes_on() -> Result<()> {
    let server = ApiServer::start()?;
    let kubeconfig = server.kubeconfig();
    let chart = chart();
    let helm = |arguments: &str| {
        let arguments: Vec<&str> =
            arguments.split(' ').map(|word| if word == "CHART" { &chart } else { word }).collect();
        helm(Some(&kubeconfig), &arguments)?.ok()
    };
    let cluster = || get(&server, "get clusters.taffrail.dev/main");
    let notes = helm("install taffrail CHART -n taffrail-system --create-namespace --set cluster.enabled=true")?;
    ensure!(notes.contains("kubectl wait clusters.taffrail.dev/main -n taffrail-system"), "{notes}");
    let made = cluster()?;
    let uid = made["metadata"]["uid"].clone();
    assert_eq!(made["spec"]["storage"]["size"], "10Gi");

    // Whatever the values say then: it is its users'.
    helm("upgrade taffrail CHART -n taffrail-system --set cluster.enabled=true,cluster.spec.replicas=5,replicas=1")?;
    helm("upgrade taffrail CHART -n taffrail-system")?;
    assert_eq!(cluster()?["metadata"]["generation"], 1);
    helm("upgrade taffrail CHART -n taffrail-system --set cluster.enabled=true,cluster.name=other")?;
    assert_eq!(get(&server, "get clusters.taffrail.dev")?["items"].as_array().map(Vec::len), Some(2));

    let before = get(&server, "get deployment/taffrail-operator")?;
    helm("upgrade taffrail CHART -n taffrail-system --reuse-values")?;
    let after = get(&server, "get deployment/taffrail-operator")?;
    assert_eq!(before["metadata"]["generation"], after["metadata"]["generation"], "nothing changed");

    helm("uninstall taffrail -n taffrail-system")?;
    assert_eq!(cluster()?["metadata"]["uid"], uid);
    let left = get(&server, "get deployments,services,serviceaccounts,poddisruptionbudgets,configmaps")?;
    let left: Vec<&str> =
        left["items"].as_array().unwrap().iter().map(|item| item["metadata"]["name"].as_str().unwrap()).collect();
    assert!(!left.iter().any(|name| name.starts_with("taffrail")), "{left:?}");

    helm("install taffrail CHART -n taffrail-system --set cluster.enabled=true")?;
    assert_eq!(cluster()?["metadata"]["uid"], uid);
    get(&server, "get deployment/taffrail-operator").map(drop)
}

/// What the brokers of a Cluster may do in its namespace. Nobody can let others do what he may not himself, so the operator
/// can write this Role only if it may do all of it.
const BROKERS_ROLE: &str = "\
apiVersion: rbac.authorization.k8s.io/v1
kind: Role
metadata: {name: main-broker, namespace: taffrail-system}
rules:
  - {apiGroups: [taffrail.dev], resources: [clusters], verbs: [get, list, watch]}
  - {apiGroups: [taffrail.dev], resources: [topics], verbs: [get, list, watch, create, update, patch, delete]}
  - apiGroups: [taffrail.dev]
    resources: [partitionslices, clusterstates, brokers]
    verbs: [get, list, watch, create, update, patch, delete]
  - {apiGroups: [coordination.k8s.io], resources: [leases], verbs: [get, list, watch, create, update, patch, delete]}
  - {apiGroups: ['', events.k8s.io], resources: [events], verbs: [create, patch]}
";

/// The API server's authorization learns of roles and bindings a moment after they are stored.
fn until_granted(what: &str, mut is_granted: impl FnMut() -> Result<bool>) -> Result<()> {
    let begin = Instant::now();
    while !is_granted()? {
        ensure!(begin.elapsed() < PATIENCE, "not granted within {PATIENCE:?}: {what}");
        std::thread::sleep(Duration::from_millis(100));
    }
    Ok(())
}

#[test]
fn the_operator_may_do_its_work_and_no_more() -> Result<()> {
    const OPERATOR: &str = "system:serviceaccount:taffrail-system:taffrail-operator";
    let server = server()?;
    let rendered = render(&project().join("helm/tests/rendered/defaults.yaml"))?.ok()?;
    let is_rule = |document: &&str| document.contains("/rbac.yaml\n") && !document.contains("/tests/");
    let rules: Vec<&str> = rendered.split("\n---\n").filter(is_rule).collect();
    // Helm parts documents by a line; the first of a file has its name, and the binding follows.
    let binding = rendered.split("\n---\n").find(|document| document.contains("kind: ClusterRoleBinding"));
    let objects = [&rules[..], &[binding.context("a ClusterRoleBinding")?]].concat().join("\n---\n");
    apply(&server, &[], &objects)?.ok()?;
    until_granted("what brokers may do", || Ok(apply(&server, &["--as", OPERATOR], BROKERS_ROLE)?.code == Some(0)))?;
    let cases = [
        ("patch", "topics.taffrail.dev", "status", true),
        ("update", "clusters.taffrail.dev", "finalizers", true),
        ("delete", "pods", "", true),
        ("patch", "persistentvolumeclaims", "", true),
        ("create", "statefulsets.apps", "", true),
        ("delete", "persistentvolumeclaims", "", false),
        ("get", "secrets", "", false),
        ("create", "pods", "exec", false),
        ("delete", "clusters.taffrail.dev", "", false),
        ("create", "clusterroles.rbac.authorization.k8s.io", "", false),
        ("create", "servicemonitors.monitoring.coreos.com", "", false),
    ];
    for (verb, kind, part, expected) in cases {
        let part = format!("--subresource={part}");
        let may = || -> Result<bool> {
            let told = server.kubectl(&["auth", "can-i", verb, kind, &part, "-n", "default", "--as", OPERATOR])?;
            Ok(told.out.trim() == "yes")
        };
        let what = format!("{verb} {kind} {part}");
        if expected {
            until_granted(&what, may)?;
        } else {
            ensure!(!may()?, "{what}");
        }
    }
    Ok(())
}

/// What people may do. Kubernetes' own roles take these in by their labels, which is its controllers' work.
#[test]
fn people_may_see_everything_and_edit_what_is_theirs() -> Result<()> {
    let server = server()?;
    let rendered = render(&project().join("helm/tests/rendered/defaults.yaml"))?.ok()?;
    let is_role = |document: &&str| {
        ["taffrail-view", "taffrail-edit"].iter().any(|role| document.contains(&format!("name: {role}\n")))
    };
    let roles: Vec<&str> = rendered.split("\n---\n").filter(is_role).collect();
    assert_eq!(roles.len(), 2);
    apply(&server, &[], &roles.join("\n---\n"))?.ok()?;
    let bindings = "apiVersion: rbac.authorization.k8s.io/v1\nkind: RoleBinding\n\
        metadata: {name: ROLE, namespace: taffrail-system}\n\
        roleRef: {apiGroup: rbac.authorization.k8s.io, kind: ClusterRole, name: taffrail-ROLE}\n\
        subjects: [{apiGroup: rbac.authorization.k8s.io, kind: User, name: ROLE}]\n";
    for role in ["view", "edit"] {
        apply(&server, &[], &bindings.replace("ROLE", role))?.ok()?;
    }
    let may = |user: &str, verb: &str, what: &str| -> Result<bool> {
        let (kind, part) = what.split_once('/').unwrap_or((what, ""));
        let (kind, part) = (format!("{kind}.taffrail.dev"), format!("--subresource={part}"));
        let told = server.kubectl(&["auth", "can-i", verb, &kind, &part, "-n", NAMESPACE, "--as", user])?;
        Ok(told.out.trim() == "yes")
    };
    let cases = [
        ("view", "list", "topics", true),
        ("view", "get", "clusters/status", true),
        ("view", "watch", "partitionslices", true),
        ("view", "create", "topics", false),
        ("edit", "create", "topics", true),
        ("edit", "delete", "clusters", true),
        ("edit", "patch", "clusters/scale", true),
        ("edit", "patch", "topics/status", false),
        ("edit", "delete", "partitionslices", false),
        ("edit", "update", "brokers", false),
    ];
    // Those that are granted come first, so that what is refused is not only unknown yet.
    for (user, verb, what, _) in cases.iter().filter(|case| case.3) {
        until_granted(&format!("{user} {verb} {what}"), || may(user, verb, what))?;
    }
    for (user, verb, what, _) in cases.iter().filter(|case| !case.3) {
        ensure!(!may(user, verb, what)?, "{user} {verb} {what}");
    }
    Ok(())
}
