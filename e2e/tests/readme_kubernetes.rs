//! The README's start on Kubernetes, run as written: every block marked `shell`, in one shell, in order, in a cluster that has the
//! images. The `text` block is what they print last before all is taken down. How images get into other clusters (`console`) is
//! not run here.

use anyhow::{Context, Result, ensure};
use taffrail_e2e::cli::{project, run};
use taffrail_e2e::kubernetes::lab;

const README: &str = include_str!("../../README.md");

/// The part of the README that is about Kubernetes.
fn part() -> Result<&'static str> {
    let (_, rest) = README.split_once("\n## On Kubernetes\n").context("the README has no such part")?;
    Ok(rest.split_once("\n## ").map_or(rest, |(part, _)| part))
}

/// Contents of the blocks in one language.
fn blocks(text: &str, language: &str) -> Vec<String> {
    let begin = format!("\n```{language}\n");
    let contents = text.split(&begin).skip(1).filter_map(|rest| Some(rest.split_once("\n```")?.0));
    contents.map(|content| format!("{content}\n")).collect()
}

#[test]
fn its_blocks_are_found() -> Result<()> {
    let part = part()?;
    assert_eq!((blocks(part, "shell").len(), blocks(part, "console").len()), (3, 2));
    assert_eq!(blocks(part, "text"), ["hello from a pod\n"]);
    Ok(())
}

#[test]
fn the_start_on_kubernetes_works_as_written() -> Result<()> {
    lab::test_alone(&["taffrail-broker", "taffrail-operator", "taffrail"], async |lab| {
        let part = part()?;
        let script = blocks(part, "shell").join("echo ---\n");
        let mut bash = lab.command("bash");
        let printed = run(bash.args(["-euo", "pipefail", "-c", &script]).current_dir(project()), "")?.ok()?;
        let used = printed.split("---\n").nth(1).context("the second block printed nothing")?;
        let expected = &blocks(part, "text")[0];
        ensure!(used.ends_with(expected.as_str()), "{used}");
        Ok(())
    })
}
