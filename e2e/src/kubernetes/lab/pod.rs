//! A pod: what it says and does, and what can happen to its processes and its network.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::net::IpAddr;
use std::os::fd::AsRawFd;
use std::path::PathBuf;
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

    /// Where the volume of a claim is, as a test in the sandbox sees it.
    pub fn volume(&self, claim: &str) -> Result<PathBuf> {
        let lab = self.namespace.lab();
        let volume = self.namespace.get(&format!("pvc/{claim}"), ".spec.volumeName")?;
        let path = ["get", "pv", &volume, "-o", "jsonpath={.spec.local.path}{.spec.hostPath.path}"];
        let path = lab.kubectl(&path)?.ok()?;
        let disk = lab.folder()?.join(format!("nodes/n{}", self.node()?));
        Ok(disk.join(path.trim_start_matches('/')))
    }

    /// Ids of the processes of its containers, as they are in the sandbox; the first program of a container comes first.
    pub fn pids(&self) -> Result<Vec<Pid>> {
        self.namespace.lab().folder()?;
        let containers = self.get(".status.containerStatuses[*].containerID")?;
        let containers: Vec<&str> = containers.split_whitespace().filter_map(|id| id.split("//").nth(1)).collect();
        let pids = processes(|groups| containers.iter().any(|id| groups.contains(id)))?;
        ensure!(!pids.is_empty(), "{}: no process runs", self.name);
        Ok(pids)
    }

    /// Kills its processes, as a crash does; the kubelet starts the container again.
    pub fn kill(&self) -> Result<()> {
        kill(&self.pids()?)
    }

    /// The cgroups of its containers in a hierarchy of version 1, such as `freezer`.
    pub fn cgroups(&self, hierarchy: &str) -> Result<Vec<String>> {
        let (mut found, name) = (vec![], format!(":{hierarchy}:"));
        for pid in self.pids()? {
            let groups = fs::read_to_string(format!("/proc/{pid}/cgroup")).unwrap_or_default();
            let path = groups.lines().find_map(|line| line.split_once(&name).map(|(_, path)| path));
            // A process that is about to end is shown at the root.
            found.extend(path.filter(|path| *path != "/").map(|path| format!("/sys/fs/cgroup/{hierarchy}{path}")));
        }
        found.sort();
        found.dedup();
        ensure!(!found.is_empty(), "{}: none of its processes is in a cgroup of its own ({hierarchy})", self.name);
        Ok(found)
    }

    /// Stops all of its processes where they are, as a virtual machine that is moved does; they go on at the end.
    pub fn freeze(&self) -> Result<Fault<'a>> {
        let states: Vec<_> =
            self.cgroups("freezer")?.into_iter().map(|group| format!("{group}/freezer.state")).collect();
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
        self.drop_packets(format!("{} is cut off", self.name), &self.all_but_probes(&["-j", "DROP"])?)
    }

    /// Cuts it off from one other address, in both directions.
    pub fn cut_from(&self, other: IpAddr) -> Result<Fault<'a>> {
        let other = other.to_string();
        let rules = [rule(&["INPUT", "-s", &other, "-j", "DROP"]), rule(&["OUTPUT", "-d", &other, "-j", "DROP"])];
        self.drop_packets(format!("{} is cut off from {other}", self.name), &rules)
    }

    /// Loses all that another address sends; what it sends itself arrives there.
    pub fn deaf_to(&self, other: IpAddr) -> Result<Fault<'a>> {
        let other = other.to_string();
        let rules = [rule(&["INPUT", "-s", &other, "-j", "DROP"])];
        self.drop_packets(format!("{} does not hear {other}", self.name), &rules)
    }

    /// Loses so many of a hundred packets, at random, in each direction; those of probes arrive.
    pub fn lose_packets(&self, percent: u8) -> Result<Fault<'a>> {
        let share = format!("{:.2}", f64::from(percent) / 100.0);
        let drop = ["-m", "statistic", "--mode", "random", "--probability", &share, "-j", "DROP"];
        self.drop_packets(format!("{} loses {percent} % of packets", self.name), &self.all_but_probes(&drop)?)
    }

    /// Rules for what comes and goes, but for probes: those come from the bridge, the first address of the node's pods.
    fn all_but_probes(&self, action: &[&str]) -> Result<[Vec<String>; 2]> {
        let kubelet = format!("10.244.{}.1", self.node()?);
        let [input, output] =
            [["INPUT", "!", "-i", "lo", "!", "-s", &kubelet], ["OUTPUT", "!", "-o", "lo", "!", "-d", &kubelet]];
        Ok([rule(&[&input[..], action].concat()), rule(&[&output[..], action].concat())])
    }

    /// Puts rules into the pod's own network, until the end.
    fn drop_packets(&self, what: String, rules: &[Vec<String>]) -> Result<Fault<'a>> {
        // Held open, since the network outlives the processes of the containers.
        let network = File::open(format!("/proc/{}/ns/net", self.pids()?[0].as_raw_nonzero()))?;
        for rule in rules {
            iptables(&network, "-I", rule)?;
        }
        let rules = rules.to_vec();
        Ok(Fault::new(what, move || rules.iter().try_for_each(|rule| iptables(&network, "-D", rule))))
    }
}

/// Processes of the containers of the pod with this uid that see this device, also once the pod's object is gone. Not the
/// container runtime's own, which is in the pod's group beside them: without it nobody hears that they have ended.
pub(super) fn left_of(uid: &str, device: &str) -> Result<Vec<Pid>> {
    let (container, device) = (format!("{uid}/"), format!(" /dev/{device} "));
    let sees = |pid: &Pid| {
        let mounts = fs::read_to_string(format!("/proc/{}/mountinfo", pid.as_raw_nonzero())).unwrap_or_default();
        mounts.contains(&device)
    };
    Ok(processes(|groups| groups.contains(&container))?.into_iter().filter(sees).collect())
}

/// Who sees this device, and where: a process of each group of those that see the same.
pub(super) fn seen_by(device: &str) -> Result<Vec<String>> {
    let (device, mut seen) = (format!(" /dev/{device} "), BTreeMap::new());
    for pid in processes(|_| true)? {
        let of = |file: &str| fs::read_to_string(format!("/proc/{}/{file}", pid.as_raw_nonzero())).unwrap_or_default();
        let mounts = of("mountinfo");
        let places: Vec<_> = mounts.lines().filter(|mount| mount.contains(&device)).map(str::to_owned).collect();
        if !places.is_empty() {
            let who = format!(
                "{} {} {}",
                pid.as_raw_nonzero(),
                of("comm").trim(),
                of("cgroup").lines().next().unwrap_or_default()
            );
            seen.entry(places).or_insert(who);
        }
    }
    Ok(seen.into_iter().map(|(places, who)| format!("{who} at {}", places.join(", "))).collect())
}

/// Processes whose cgroups are so, in the order of their ids.
fn processes(are_so: impl Fn(&str) -> bool) -> Result<Vec<Pid>> {
    let mut pids: Vec<i32> = vec![];
    for entry in fs::read_dir("/proc")? {
        let Some(pid) = entry?.file_name().to_str().and_then(|name| name.parse().ok()) else { continue };
        // A process that has ended meanwhile is in no cgroup.
        if are_so(&fs::read_to_string(format!("/proc/{pid}/cgroup")).unwrap_or_default()) {
            pids.push(pid);
        }
    }
    pids.sort_unstable();
    Ok(pids.into_iter().filter_map(Pid::from_raw).collect())
}

/// Kills processes, such as a pod's that were asked for while the API server answered.
pub fn kill(pids: &[Pid]) -> Result<()> {
    for pid in pids {
        match kill_process(*pid, Signal::KILL) {
            // The first took the others with it.
            Err(rustix::io::Errno::SRCH) => {}
            result => result?,
        }
    }
    Ok(())
}

fn rule(words: &[&str]) -> Vec<String> {
    words.iter().map(ToString::to_string).collect()
}

/// Runs iptables in a network.
fn iptables(network: &File, action: &str, rule: &[String]) -> Result<()> {
    let network = format!("--net=/proc/{}/fd/{}", std::process::id(), network.as_raw_fd());
    let mut command = Command::new("nsenter");
    command.args([&network, "iptables", "-w", action]).args(rule);
    cli::run(&mut command, "")?.ok().map(drop)
}
