//! A namespace of a test's own, and what is told of it when the test fails.

use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use serde_json::Value;

use super::{Lab, PATIENCE, Pod, operator};
use crate::cli::{Ended, cli};

/// A namespace, deleted when its test ends.
#[derive(Clone, Debug)]
pub struct Namespace<'a> {
    lab: &'a Lab,
    name: String,
}

impl<'a> Namespace<'a> {
    pub(super) fn new(lab: &'a Lab, name: String) -> Self {
        Self { lab, name }
    }

    /// Its name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The cluster it is in.
    pub fn lab(&self) -> &'a Lab {
        self.lab
    }

    /// Runs kubectl in it.
    pub fn kubectl(&self, arguments: &[&str]) -> Result<Ended> {
        self.lab.kubectl(&[&["-n", &self.name], arguments].concat())
    }

    /// Runs Helm in it.
    pub fn helm(&self, arguments: &[&str]) -> Result<Ended> {
        self.lab.helm(&[&["-n", &self.name], arguments].concat())
    }

    /// Applies objects, written as YAML.
    pub fn apply(&self, objects: &str) -> Result<()> {
        let arguments = ["-n", &self.name, "apply", "--server-side", "--force-conflicts", "-f", "-"];
        self.lab.kubectl_with(&arguments, objects)?.ok().map(drop)
    }

    /// Waits as `kubectl wait` does, until `condition` (`condition=Ready`, `delete`, `jsonpath=...`) holds of `object`, which
    /// need not be there yet.
    pub fn wait(&self, object: &str, condition: &str, patience: Duration) -> Result<()> {
        let (condition, timeout) = (format!("--for={condition}"), format!("--timeout={}s", patience.as_secs().max(1)));
        if !condition.ends_with("=delete") {
            self.kubectl(&["wait", object, "--for=create", &timeout])?.ok()?;
        }
        self.kubectl(&["wait", object, &condition, &timeout])?.ok().map(drop)
    }

    /// Where clients connect to a broker of the Cluster `main`.
    pub fn broker(&self, number: i32) -> String {
        format!("http://main-{number}.main-brokers.{}.svc:9094", self.name)
    }

    /// Waits until a Topic of the Cluster `main` is ready and so many brokers know it. Who has not heard of it yet says that
    /// there is none.
    pub fn wait_topic(&self, topic: &str, brokers: i32) -> Result<()> {
        self.wait(&format!("topics.taffrail.dev/{topic}"), "condition=Ready", PATIENCE)?;
        let begin = Instant::now();
        for broker in 0..brokers {
            while let Err(error) = cli(&self.broker(broker), &format!("topic describe {topic}"), "")?.ok() {
                if begin.elapsed() > PATIENCE {
                    return Err(error).with_context(|| format!("broker {broker} does not know {topic}"));
                }
                std::thread::sleep(Duration::from_millis(100));
            }
        }
        Ok(())
    }

    /// What is at a path of an object, as JSONPath without its braces: `.status.phase`; nothing where there is nothing.
    pub fn get(&self, object: &str, path: &str) -> Result<String> {
        self.kubectl(&["get", object, "-o", &format!("jsonpath={{{path}}}")])?.ok()
    }

    /// What kubectl gives as JSON, such as for `get pods`.
    pub fn json(&self, arguments: &str) -> Result<Value> {
        let arguments: Vec<_> = arguments.split_whitespace().chain(["-o", "json"]).collect();
        Ok(serde_json::from_str(&self.kubectl(&arguments)?.ok()?)?)
    }

    /// Changes an object in part (`kubectl patch --type=merge`).
    pub fn patch(&self, object: &str, change: &Value) -> Result<()> {
        self.kubectl(&["patch", object, "--type=merge", "--patch", &change.to_string()])?.ok().map(drop)
    }

    /// A pod by its name.
    pub fn pod(&self, name: &str) -> Pod<'a> {
        Pod::new(self.clone(), name.to_owned())
    }

    /// Names of the pods with a label, in order; of all pods for an empty one.
    pub fn pods(&self, selector: &str) -> Result<Vec<String>> {
        let names = self.kubectl(&["get", "pods", "-l", selector, "-o", "name"])?.ok()?;
        let mut names: Vec<String> = names.lines().map(|line| line.trim_start_matches("pod/").to_owned()).collect();
        names.sort();
        Ok(names)
    }
}

/// Prints objects, events and logs of these namespaces.
pub(super) fn dump(lab: &Lab, namespaces: &[String]) {
    let show = |arguments: &[&str]| {
        let shown = lab.kubectl(arguments).map(|ended| ended.out + &ended.err);
        eprintln!("$ kubectl {}\n{}", arguments.join(" "), shown.unwrap_or_else(|error| format!("{error:#}")));
    };
    show(&["get", "nodes", "-o", "wide"]);
    for namespace in namespaces.iter().map(String::as_str).chain([operator::NAMESPACE]) {
        let kinds = "pods,statefulsets,deployments,services,persistentvolumeclaims,leases";
        show(&["get", kinds, "-n", namespace, "-o", "wide"]);
        show(&["get", "taffrail", "-n", namespace, "-o", "yaml"]);
        show(&["get", "events", "-n", namespace, "--sort-by=.lastTimestamp"]);
        let pods = lab.kubectl(&["get", "pods", "-n", namespace, "-o", "name"]).and_then(Ended::ok).unwrap_or_default();
        for pod in pods.lines() {
            show(&["logs", "-n", namespace, pod, "--all-containers", "--prefix", "--tail=60"]);
            show(&["logs", "-n", namespace, pod, "--all-containers", "--prefix", "--tail=30", "--previous"]);
        }
    }
}

/// Deletes namespaces, without waiting for the end of it.
pub(super) fn delete(lab: &Lab, namespaces: &[String]) {
    for namespace in namespaces {
        let deleted =
            lab.kubectl(&["delete", "namespace", namespace, "--wait=false", "--ignore-not-found"]).and_then(Ended::ok);
        // Nobody waits for the pods' own goodbyes.
        let pods = ["delete", "pods", "--all", "-n", namespace, "--grace-period=1", "--wait=false"];
        if let Err(error) = deleted.and_then(|_| lab.kubectl(&pods)?.ok()).context("delete a test's namespace") {
            eprintln!("{namespace}: {error:#}");
        }
    }
}
