//! A node: its power, its cable, its kubelet, its images, and its drain.

use std::fs;
use std::process::Command;

use anyhow::{Context, Result};
use rustix::process::{Pid, Signal, kill_process};

use super::{Fault, Lab, PATIENCE};
use crate::cli;

/// A node of the cluster, by its number. What tests send to Services goes through node 1: break another one.
#[derive(Clone, Copy, Debug)]
pub struct Node<'a> {
    lab: &'a Lab,
    number: u32,
}

impl<'a> Node<'a> {
    pub(super) fn new(lab: &'a Lab, number: u32) -> Self {
        Self { lab, number }
    }

    /// Its name.
    pub fn name(self) -> String {
        format!("n{}", self.number)
    }

    /// Cuts its power: every process on it ends at once. At the end it boots, on the disk it had.
    pub fn power_off(self) -> Result<Fault<'a>> {
        let file = self.lab.folder()?.join("pids").join(self.name());
        let pid = fs::read_to_string(&file)?.trim().parse().ok().and_then(Pid::from_raw);
        kill_process(pid.with_context(|| format!("{}: no process id", file.display()))?, Signal::KILL)?;
        Ok(Fault::new(format!("{} has no power", self.name()), move || {
            self.lab.script("node-boot", &[&self.number.to_string()]).map(drop)
        }))
    }

    /// Pulls its cable: its pods go on, and reach each other but nobody else.
    pub fn unplug(self) -> Result<Fault<'a>> {
        self.lab.folder()?;
        self.link("down")?;
        Ok(Fault::new(format!("{} is unplugged", self.name()), move || self.link("up")))
    }

    fn link(self, state: &str) -> Result<()> {
        cli::run(Command::new("ip").args(["link", "set", &self.name(), state]), "")?.ok().map(drop)
    }

    /// Stops its kubelet where it is: pods go on, and nobody probes, restarts or ends them.
    pub fn freeze_kubelet(self) -> Result<Fault<'a>> {
        let pid = self.kubelet()?;
        kill_process(pid, Signal::STOP).context("stop the kubelet")?;
        Ok(Fault::new(format!("{}'s kubelet hangs", self.name()), move || Ok(kill_process(pid, Signal::CONT)?)))
    }

    fn kubelet(self) -> Result<Pid> {
        self.lab.folder()?;
        let own = format!("--hostname-override\0{}\0", self.name());
        for entry in fs::read_dir("/proc")? {
            let Some(pid) = entry?.file_name().to_str().and_then(|name| name.parse().ok()) else { continue };
            let started = fs::read_to_string(format!("/proc/{pid}/cmdline")).unwrap_or_default();
            let program = started.split('\0').next().unwrap_or_default();
            if program.ends_with("kubelet") && started.contains(&own) {
                return Pid::from_raw(pid).context("process id");
            }
        }
        anyhow::bail!("{}: no kubelet runs", self.name())
    }

    /// What the kubelet keeps of a pod's containers' output, also while it cannot be asked; `uid` is the pod's.
    pub fn pod_log(self, namespace: &str, pod: &str, uid: &str) -> Result<String> {
        let pods = self.lab.folder()?.join("nodes").join(self.name()).join("var/log/pods");
        let mut text = String::new();
        for container in fs::read_dir(pods.join(format!("{namespace}_{pod}_{uid}")))? {
            for file in fs::read_dir(container?.path())? {
                text.push_str(&fs::read_to_string(file?.path())?);
            }
        }
        Ok(text)
    }

    /// Gives an image that it has another name too.
    pub fn tag_image(self, image: &str, name: &str) -> Result<()> {
        let number = self.number.to_string();
        let tag = [&*number, "ctr", "-n", "k8s.io", "images", "tag", "--force", image, name];
        self.lab.script("node-enter", &tag).map(drop)
    }

    /// Drains it as an administrator does, who respects disruption budgets; at the end it takes pods again.
    pub fn drain(self) -> Result<Fault<'a>> {
        let (name, timeout) = (self.name(), format!("--timeout={}s", PATIENCE.as_secs()));
        let fault = Fault::new(format!("{name} is drained"), move || {
            self.lab.kubectl(&["uncordon", &self.name()])?.ok().map(drop)
        });
        // `fault` is there first: a drain that fails has cordoned the node.
        self.lab.kubectl(&["drain", &name, "--ignore-daemonsets", "--delete-emptydir-data", &timeout])?.ok()?;
        Ok(fault)
    }

    /// Waits until the control plane says that it is ready.
    pub fn wait_ready(self) -> Result<()> {
        self.wait("condition=Ready")
    }

    /// Waits until the control plane no longer hears of it.
    pub fn wait_unknown(self) -> Result<()> {
        self.wait("condition=Ready=Unknown")
    }

    fn wait(self, condition: &str) -> Result<()> {
        let (node, timeout) = (format!("node/{}", self.name()), format!("--timeout={}s", PATIENCE.as_secs()));
        self.lab.kubectl(&["wait", &node, &format!("--for={condition}"), &timeout])?.ok().map(drop)
    }
}
