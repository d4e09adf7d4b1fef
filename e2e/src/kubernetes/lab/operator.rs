//! Taffrail's operator, installed by its chart as a user does. One serves all namespaces of a cluster, and with them all tests.

use std::fs::File;
use std::path::Path;

use anyhow::Result;

use super::{INSTALL_PATIENCE, Lab};
use crate::cli::project;

/// The namespace of the operator.
pub(super) const NAMESPACE: &str = "taffrail-system";

impl Lab {
    /// Installs the operator, unless that was done, and waits until it is ready. It stays as long as the cluster does.
    pub fn install_operator(&self) -> Result<()> {
        self.install_chart(&project().join("helm/taffrail"), &[])
    }

    /// Installs the operator by this chart with these values, or upgrades the one that is there to it.
    pub fn install_chart(&self, chart: &Path, values: &[&str]) -> Result<()> {
        // Helm refuses a second installation at the same time, and tests of one cluster are processes of their own.
        let folder = self.folder.clone().unwrap_or_else(std::env::temp_dir);
        let lock = File::create(folder.join("operator.lock"))?;
        lock.lock()?;
        let chart = chart.to_string_lossy();
        let timeout = format!("--timeout={}s", INSTALL_PATIENCE.as_secs());
        let install = ["upgrade", "--install", "taffrail", &chart, "--create-namespace", "-n", NAMESPACE];
        self.helm(&[&install[..], &["--wait", &timeout], values].concat())?.ok().map(drop)
    }

    /// Uninstalls the operator, and waits until it is gone.
    pub fn uninstall_operator(&self) -> Result<()> {
        self.helm(&["uninstall", "taffrail", "-n", NAMESPACE, "--wait"])?.ok().map(drop)
    }
}
