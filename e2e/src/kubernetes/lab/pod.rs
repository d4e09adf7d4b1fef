//! A pod: what it says and does, and what can happen to its processes and its network.

use std::fs;
use std::net::IpAddr;
use std::process::Command;

use anyhow::{Context, Result, ensure};
use rustix::process::{Pid, Signal, kill_process};

use super::{Fault, Namespace};
use crate::cli::{self, Ended};

/// A pod of a namespace.
#[derive(Clone, Debug)]
pub struct Pod<'a> {
    namespace: Namespace<'a>,
    name: String,
}

impl<'a> Pod<'a> {
    pub(super) fn new(namespace: Namespace<'a>, name: String) -> Self {
        Self { namespace, name }
    }

    /// Its name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Runs a command in its (default) container.
    pub fn exec(&self, command: &[&str]) -> Result<Ended> {
        self.namespace.kubectl(&[&["exec", &self.name, "--"], command].concat())
    }

    /// What its container has said since it was started last.
    pub fn logs(&self) -> Result<String> {
        self.namespace.kubectl(&["logs", &self.name])?.ok()
    }

    /// What is at a path of the object: `.status.podIP`.
    pub fn get(&self, path: &str) -> Result<String> {
        self.namespace.get(&format!("pod/{}", self.name), path)
    }

    /// Its address.
    pub fn address(&self) -> Result<IpAddr> {
        self.get(".status.podIP")?.parse().with_context(|| format!("{} has no address", self.name))
    }

    /// The number of the node it is on.
    pub fn node(&self) -> Result<u32> {
        let node = self.get(".spec.nodeName")?;
        node.strip_prefix('n').and_then(|number| number.parse().ok()).with_context(|| format!("{}: {node}", self.name))
    }

    /// How often its containers were started again.
    pub fn restarts(&self) -> Result<u32> {
        let counts = self.get(".status.containerStatuses[*].restartCount")?;
        Ok(counts.split_whitespace().filter_map(|count| count.parse::<u32>().ok()).sum())
    }

    /// Ids of the processes of its containers, as they are in the sandbox; the first program of a container comes first.
    pub fn pids(&self) -> Result<Vec<Pid>> {
        self.namespace.lab().folder()?;
        let containers = self.get(".status.containerStatuses[*].containerID")?;
        let containers: Vec<&str> = containers.split_whitespace().filter_map(|id| id.split("//").nth(1)).collect();
        let mut pids = vec![];
        for entry in fs::read_dir("/proc")? {
            let Some(pid) = entry?.file_name().to_str().and_then(|name| name.parse().ok()) else { continue };
            // A process that has ended meanwhile is in no cgroup.
            let groups = fs::read_to_string(format!("/proc/{pid}/cgroup")).unwrap_or_default();
            if containers.iter().any(|id| groups.contains(id)) {
                pids.push(pid);
            }
        }
        pids.sort_unstable();
        ensure!(!pids.is_empty(), "{}: no process runs", self.name);
        Ok(pids.into_iter().filter_map(Pid::from_raw).collect())
    }

    /// Kills its processes, as a crash does; the kubelet starts the container again.
    pub fn kill(&self) -> Result<()> {
        for pid in self.pids()? {
            match kill_process(pid, Signal::KILL) {
                // The first took the others with it.
                Err(rustix::io::Errno::SRCH) => {}
                result => result?,
            }
        }
        Ok(())
    }

    /// Stops all of its processes where they are, as a virtual machine that is moved does; they go on at the end.
    pub fn freeze(&self) -> Result<Fault<'a>> {
        let mut states = vec![];
        for pid in self.pids()? {
            let groups = fs::read_to_string(format!("/proc/{pid}/cgroup")).unwrap_or_default();
            let path = groups.lines().find_map(|line| line.split_once(":freezer:").map(|(_, path)| path));
            // A process that is about to end is shown at the root.
            states.extend(
                path.filter(|path| *path != "/").map(|path| format!("/sys/fs/cgroup/freezer{path}/freezer.state")),
            );
        }
        states.sort();
        states.dedup();
        ensure!(!states.is_empty(), "{}: none of its processes can be frozen", self.name);
        for state in &states {
            fs::write(state, "FROZEN").with_context(|| format!("write {state}"))?;
        }
        Ok(Fault::new(format!("{} is frozen", self.name), move || {
            for state in states {
                match fs::write(&state, "THAWED") {
                    // Its pod is gone.
                    Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
                    result => result.with_context(|| format!("write {state}"))?,
                }
            }
            Ok(())
        }))
    }

    /// Cuts it off from everything but the kubelet of its node, which goes on to probe it: nothing arrives, nothing leaves.
    pub fn cut_off(&self) -> Result<Fault<'a>> {
        // Probes come from the bridge, the first address of the node's pods.
        let kubelet = format!("10.244.{}.1", self.node()?);
        let rules = [
            ["INPUT", "!", "-i", "lo", "!", "-s", &kubelet, "-j", "DROP"],
            ["OUTPUT", "!", "-o", "lo", "!", "-d", &kubelet, "-j", "DROP"],
        ];
        self.drop_packets(format!("{} is cut off", self.name), &rules)
    }

    /// Cuts it off from one other address, in both directions.
    pub fn cut_from(&self, other: IpAddr) -> Result<Fault<'a>> {
        let other = other.to_string();
        let rules = [["INPUT", "-s", &other, "-j", "DROP"], ["OUTPUT", "-d", &other, "-j", "DROP"]];
        self.drop_packets(format!("{} is cut off from {other}", self.name), &rules)
    }

    /// Puts rules into the pod's own network, until the end.
    fn drop_packets<const N: usize>(&self, what: String, rules: &[[&str; N]; 2]) -> Result<Fault<'a>> {
        let pid = self.pids()?[0];
        let rules: Vec<Vec<String>> = rules.iter().map(|rule| rule.iter().map(ToString::to_string).collect()).collect();
        for rule in &rules {
            iptables(pid, "-I", rule)?;
        }
        let pod = self.clone();
        Ok(Fault::new(what, move || {
            // Without a process there is no pod whose network could still be cut.
            let Ok(pids) = pod.pids() else { return Ok(()) };
            rules.iter().try_for_each(|rule| iptables(pids[0], "-D", rule))
        }))
    }
}

/// Runs iptables in the network of a process.
fn iptables(pid: Pid, action: &str, rule: &[String]) -> Result<()> {
    let mut command = Command::new("nsenter");
    command.args(["-t", &pid.to_string(), "-n", "iptables", "-w", action]).args(rule);
    cli::run(&mut command, "")?.ok().map(drop)
}
