//! kubectl and helm, as whoever follows the demo would run them.

use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result};
use taffrail_e2e::cli;

use crate::objects::NAMESPACE;

/// Runs kubectl; gives what it printed.
pub(crate) fn kubectl(arguments: &[&str]) -> Result<String> {
    run("kubectl", arguments, "")
}

/// Runs helm.
pub(crate) fn helm(arguments: &[&str]) -> Result<String> {
    run("helm", arguments, "")
}

/// Applies objects.
pub(crate) fn apply(objects: &str) -> Result<()> {
    run("kubectl", &["apply", "--server-side", "-f", "-"], objects).map(drop)
}

/// Waits until something holds of an object in the demo's namespace, which need not be there yet.
pub(crate) fn wait(object: &str, what: &str, patience: Duration) -> Result<()> {
    let timeout = format!("--timeout={}s", patience.as_secs());
    for what in ["create", what] {
        kubectl(&["wait", object, "-n", NAMESPACE, &format!("--for={what}"), &timeout])?;
    }
    Ok(())
}

fn run(program: &str, arguments: &[&str], input: &str) -> Result<String> {
    let what = || format!("{program} {}", arguments.join(" "));
    cli::run(Command::new(program).args(arguments), input)?.ok().with_context(what)
}
