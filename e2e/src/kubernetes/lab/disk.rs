//! Disks of a namespace's own, one on each node: ext4 in a file, which can lose its power, fill up, fail and be slow.

use std::fs::{self, File};
use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use uuid::Uuid;

use super::pod::{kill, left_of, seen_by};
use super::{Fault, Namespace, PATIENCE, Pod, until};
use crate::cli::project;
use crate::loop_volume::{SHUT_DOWN, run};

/// Gives each of three nodes a disk of so many MiB. They are in a storage class of the namespace's name, whose volumes say that
/// they have 1 GiB. Brokers must be told of them: [`Disk::ENVIRONMENT`].
pub fn add_disks<'a>(namespace: &Namespace<'a>, mib: u64) -> Result<Vec<Disk<'a>>> {
    let mut disks = vec![];
    let class = namespace.name();
    namespace.apply(&format!(
        "apiVersion: storage.k8s.io/v1\nkind: StorageClass\nmetadata: {{name: {class}}}\n\
         provisioner: kubernetes.io/no-provisioner\nvolumeBindingMode: WaitForFirstConsumer\n"
    ))?;
    for node in 1..=3 {
        let disk = Disk { namespace: namespace.clone(), node };
        disk.make(mib)?;
        namespace.apply(&format!(
            "apiVersion: v1\nkind: PersistentVolume\nmetadata: {{name: {class}-n{node}}}\nspec:\n  \
             capacity: {{storage: 1Gi}}\n  accessModes: [ReadWriteOnce]\n  persistentVolumeReclaimPolicy: Retain\n  \
             storageClassName: {class}\n  local: {{path: {}}}\n  nodeAffinity: {{required: {{nodeSelectorTerms: \
             [{{matchExpressions: [{{key: kubernetes.io/hostname, operator: In, values: [n{node}]}}]}}]}}}}\n",
            disk.path()
        ))?;
        disks.push(disk);
    }
    Ok(disks)
}

/// A disk of a node.
#[derive(Debug)]
pub struct Disk<'a> {
    namespace: Namespace<'a>,
    node: u32,
}

impl<'a> Disk<'a> {
    /// Environment of brokers, as YAML of `spec.pod.env`: what makes them see another boot of the kernel after the disk lost its
    /// power.
    pub const ENVIRONMENT: &'static str = "[{name: LD_PRELOAD, value: /var/lib/taffrail/boot_id.so}]";

    /// The number of its node.
    pub fn node(&self) -> u32 {
        self.node
    }

    /// Where it is mounted on its node.
    fn path(&self) -> String {
        format!("/var/lib/taffrail-volumes/{}", self.namespace.name())
    }

    fn image(&self) -> Result<PathBuf> {
        Ok(self.namespace.lab().folder()?.join(self.image_name()))
    }

    /// Where it is in the cluster's folder.
    fn image_name(&self) -> String {
        format!("nodes/n{}/{}.image", self.node, self.namespace.name())
    }

    /// Runs a command on its node.
    fn on_node(&self, command: &[&str]) -> Result<String> {
        let node = self.node.to_string();
        self.namespace.lab().script("node-enter", &[&[node.as_str()], command].concat())
    }

    fn make(&self, mib: u64) -> Result<()> {
        let image = self.image()?;
        File::create(&image)?.set_len(mib << 20)?;
        let options = ["-q", "-F", "-m", "0", "-E", "lazy_itable_init=0,lazy_journal_init=0,nodiscard"];
        run(Command::new("mkfs.ext4").args(options).arg(&image))?;
        // Compiled for each anew: it takes a moment, and nobody else writes to it.
        let source = project().join("e2e/src/boot_id.c");
        let cc = ["-shared", "-fPIC", "-O2", "-o"];
        run(Command::new("cc").args(cc).arg(image.with_extension("so")).arg(source))?;
        self.mount()
    }

    /// Mounts it, as a kernel does that has just started and has an id of its own.
    fn mount(&self) -> Result<()> {
        let (image, path) = (self.image()?, self.path());
        let [library, boot] = ["so", "boot"].map(|extension| image.with_extension(extension));
        fs::write(&boot, format!("{}\n", Uuid::new_v4()))?;
        self.on_node(&["mkdir", "-p", &path])?;
        self.on_node(&["mount", "-o", "loop", &image.to_string_lossy(), &path])?;
        self.on_node(&["cp", &library.to_string_lossy(), &format!("{path}/boot_id.so")])?;
        self.on_node(&["cp", &boot.to_string_lossy(), &format!("{path}/boot_id")])?;
        self.on_node(&["sync", "--file-system", &path]).map(drop)
    }

    /// The name of its loop device.
    fn device(&self) -> Result<String> {
        let device = self.on_node(&["findmnt", "-n", "-o", "SOURCE", "--mountpoint", &self.path()])?;
        Ok(device.trim().trim_start_matches("/dev/").to_owned())
    }

    /// Bytes that are free.
    pub fn free(&self) -> Result<u64> {
        let free = self.on_node(&["stat", "-f", "-c", "%a %S", &self.path()])?;
        let numbers: Vec<u64> = free.split_whitespace().map(str::parse).collect::<Result<_, _>>()?;
        Ok(numbers.iter().product())
    }

    /// From now on every access fails, and what was not synced is lost, as when its power fails.
    pub fn shut_down(&self) -> Result<()> {
        self.on_node(&["python3", "-c", SHUT_DOWN, &self.path()]).map(drop)
    }

    /// It turns read-only, as ext4 does at an error of the device.
    pub fn abort(&self) -> Result<()> {
        self.on_node(&["mount", "-o", "remount,abort", &self.path()]).map(drop)
    }

    /// Takes it away from the pod that uses it: the pod is made anew, and waits until there is a disk again.
    pub fn take_from(&self, pod: &Pod<'_>) -> Result<Gone<'_, 'a>> {
        let (device, uid) = (self.device()?, pod.get(".metadata.uid")?);
        self.on_node(&["umount", &self.path()])?;
        self.on_node(&["rmdir", &self.path()])?;
        let delete = ["delete", "pod", pod.name(), "--force", "--grace-period=0", "--wait=false"];
        self.namespace.kubectl(&delete)?.ok()?;
        Ok(Gone { disk: self, device, uid })
    }

    /// Takes all room but so many bytes; it is free again at the end.
    pub fn fill(&self, leave: u64) -> Result<Fault<'a>> {
        let file = format!("{}/filler", self.path());
        let take = self.free()?.checked_sub(leave).context("so little is free already")?;
        self.on_node(&["fallocate", "-l", &take.to_string(), &file])?;
        let same = Disk { namespace: self.namespace.clone(), node: self.node };
        let what = format!("the disk of n{} is full", self.node);
        Ok(Fault::new(what, move || same.on_node(&["rm", "-f", &file]).map(drop)))
    }

    /// Lets a pod write so many bytes a second to it.
    pub fn slow(&self, pod: &Pod<'_>, bytes: u64) -> Result<Fault<'a>> {
        let device = fs::read_to_string(format!("/sys/block/{}/dev", self.device()?))?.trim().to_owned();
        let files: Vec<_> = pod.cgroups("blkio")?;
        let files: Vec<_> = files.iter().map(|group| format!("{group}/blkio.throttle.write_bps_device")).collect();
        for file in &files {
            fs::write(file, format!("{device} {bytes}")).with_context(|| format!("write {file}"))?;
        }
        Ok(Fault::new(format!("the disk of n{} is slow", self.node), move || {
            // A container that is gone has taken its group with it.
            files
                .iter()
                .filter(|file| fs::exists(file).unwrap_or(false))
                .try_for_each(|file| fs::write(file, format!("{device} 0")).with_context(|| format!("write {file}")))
        }))
    }
}

/// A disk that no pod has any more.
#[derive(Debug)]
pub struct Gone<'d, 'a> {
    disk: &'d Disk<'a>,
    device: String,
    /// Of the pod that had it.
    uid: String,
}

impl Gone<'_, '_> {
    /// Brings it back, with what had been synced, once the kernel has let go of it. Nobody who had it outlives that: the kubelet
    /// would give a container that was started once more its time to end.
    pub async fn end(self) -> Result<()> {
        let file = self.disk.image_name();
        let (superblock, backing) =
            (format!("/sys/fs/ext4/{}", self.device), format!("/sys/block/{}/loop/backing_file", self.device));
        let is_free = async || {
            kill(&left_of(&self.uid, &self.device)?)?;
            // What the kernel has let go of may be the device of another disk by now.
            let same = fs::read_to_string(&backing).is_ok_and(|path| path.trim_end().ends_with(&file));
            let held = same && fs::exists(&superblock)?;
            ensure!(!held, "it is seen by {}", seen_by(&self.device)?.join("; "));
            Ok(Some(()))
        };
        until("the kernel lets go of the disk", PATIENCE, is_free).await?;
        // The loop device goes a moment after its file system.
        tokio::time::sleep(Duration::from_millis(200)).await;
        self.disk.mount()
    }
}
