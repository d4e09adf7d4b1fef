//! Taffrail's operator, installed by its chart as a user does. One serves all namespaces of a cluster, and with them all tests.

use std::fs::File;

use anyhow::Result;

use super::{INSTALL_PATIENCE, Lab};
use crate::cli::project;

/// The namespace of the operator.
pub(super) const NAMESPACE: &str = "taffrail-system";

impl Lab {
    /// Installs the operator, unless that was done, and waits until it is ready. It stays as long as the cluster does.
    pub fn install_operator(&self) -> Result<()> {
        // Helm refuses a second installation at the same time, and tests of one cluster are processes of their own.
        let folder = self.folder.clone().unwrap_or_else(std::env::temp_dir);
        let lock = File::create(folder.join("operator.lock"))?;
        lock.lock()?;
        let chart = project().join("helm/taffrail").to_string_lossy().into_owned();
        let timeout = format!("--timeout={}s", INSTALL_PATIENCE.as_secs());
        let install = ["upgrade", "--install", "taffrail", &chart, "--create-namespace", "-n", NAMESPACE];
        self.helm(&[&install[..], &["--wait", &timeout]].concat())?.ok().map(drop)
    }
}
