//! The control plane's store goes back in time, as when it is restored from a backup.

use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context, Result};
use uuid::Uuid;

use super::Lab;
use crate::cli;

/// What etcd had at a time.
#[derive(Debug)]
pub struct Backup<'a> {
    lab: &'a Lab,
    folder: PathBuf,
}

impl Lab {
    /// Copies all that the control plane knows. etcd is away for a moment, as its files are whole only while nobody writes.
    pub fn back_up(&self) -> Result<Backup<'_>> {
        let folder = self.folder()?.join(format!("etcd-{}", Uuid::new_v4().simple()));
        let away = self.part("etcd").crash()?;
        copy(&self.folder()?.join("etcd"), &folder)?;
        away.end()?;
        Ok(Backup { lab: self, folder })
    }
}

impl Backup<'_> {
    /// Takes the control plane back to the time of the copy, as Kubernetes' documentation says: the API server and etcd stop,
    /// etcd gets the copy, and whoever may remember what is not there any more is started again. Kubelets are not.
    pub fn restore(self) -> Result<()> {
        let parts = ["etcd", "kube-apiserver", "kube-controller-manager", "kube-scheduler"];
        let mut away = vec![];
        for part in parts.into_iter().rev() {
            away.push(self.lab.part(part).crash()?);
        }
        let present = self.lab.folder()?.join("etcd");
        std::fs::remove_dir_all(&present).context("remove what etcd has")?;
        copy(&self.folder, &present)?;
        // Faults end in the opposite order: etcd first.
        while let Some(part) = away.pop() {
            part.end()?;
        }
        Ok(())
    }
}

fn copy(from: &std::path::Path, to: &std::path::Path) -> Result<()> {
    cli::run(Command::new("cp").arg("-a").args([from, to]), "")?.ok().map(drop)
}
