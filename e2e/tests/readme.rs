//! The README's quick start, run as written: every block marked `sh`, in one shell, in order. A `text` block that follows is
//! what it prints. Blocks marked `rust` and `python` are the files of `client/examples` that the commands run.
//!
//! Building is what came before (`make e2e`): `make` and `cargo` are taken by scripts that find the programs beside this one.

use std::fs::Permissions;
use std::net::TcpStream;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use rustix::process::{Pid, Signal, kill_process_group};
use taffrail_e2e::cli::{project, set_up};
use taffrail_e2e::process::{Process, program};

const README: &str = include_str!("../../README.md");
/// Time for everything.
const PATIENCE: Duration = Duration::from_mins(5);
/// Parts the outputs of blocks.
const END_OF_BLOCK: &str = "\u{1e}\n";

/// Fenced blocks: language and content.
fn blocks(text: &str) -> Vec<(&str, String)> {
    let mut blocks = vec![];
    let mut lines = text.lines();
    while let Some(line) = lines.next() {
        if let Some(language) = line.strip_prefix("```") {
            let content = lines.by_ref().take_while(|line| *line != "```").map(|line| format!("{line}\n"));
            blocks.push((language, content.collect()));
        }
    }
    blocks
}

#[test]
fn blocks_are_found_with_their_languages() {
    let found = blocks("a\n```sh\nx\ny\n```\nb\n```\n```\n```text\nz\n```");
    assert_eq!(found, [("sh", "x\ny\n".to_owned()), ("", String::new()), ("text", "z\n".to_owned())]);
}

#[test]
fn the_code_in_the_readme_is_the_code_of_the_examples() -> Result<()> {
    let rust = ["client/examples/hello.rs", "client/examples/group.rs"];
    let python = ["client/examples/python/consume.py", "client/examples/python/group.py"];
    for (language, files) in [("rust", rust), ("python", python)] {
        let shown = blocks(README).into_iter().filter(|(l, _)| *l == language).map(|(_, code)| code);
        let code: Vec<_> =
            files.iter().map(|file| std::fs::read_to_string(project().join(file))).collect::<Result<_, _>>()?;
        assert_eq!(shown.collect::<Vec<_>>(), code, "{files:?}");
    }
    Ok(())
}

/// All of the project's Rust below a folder.
fn sources(dir: &Path, all: &mut String) -> Result<()> {
    for entry in std::fs::read_dir(dir)? {
        let path = entry?.path();
        if path.is_dir() {
            sources(&path, all)?;
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            all.push_str(&std::fs::read_to_string(&path)?);
        }
    }
    Ok(())
}

#[test]
fn each_test_that_the_promises_name_is_there() -> Result<()> {
    let promises = std::fs::read_to_string(project().join("docs/delivery.md"))?;
    let mut all = String::new();
    for part in ["broker/src", "broker/tests", "client/src", "e2e/tests"] {
        sources(&project().join(part), &mut all)?;
    }
    let is_test =
        |word: &&str| word.matches('_').count() > 2 && word.chars().all(|c| c.is_ascii_alphanumeric() || c == '_');
    let named: Vec<_> = promises.split('`').filter(is_test).filter(|word| *word == word.to_lowercase()).collect();
    let missing: Vec<_> = named.iter().filter(|name| !all.contains(&format!("fn {name}("))).collect();
    assert!(missing.is_empty(), "not there: {missing:?}");
    assert!(named.len() > 15, "{named:?}");
    Ok(())
}

/// What stands in quotation marks behind one of these words in the operator's source, outside of tests, is a reason.
const REASONS: [&str; 5] = ["reason: ", "refuse(", "Some((", "True, ", "False, "];

/// All reasons that a piece of source gives.
fn reasons(source: &str) -> Vec<&str> {
    let quoted = |text: &'static str| {
        source.match_indices(text).filter_map(move |(at, _)| {
            let word = source[at + text.len()..].trim_start().strip_prefix('"')?.split_once('"')?.0;
            (word.len() > 3
                && word.starts_with(|c: char| c.is_ascii_uppercase())
                && word.chars().all(char::is_alphanumeric))
            .then_some(word)
        })
    };
    REASONS.into_iter().flat_map(quoted).collect()
}

#[test]
fn each_reason_that_the_operator_gives_is_explained() -> Result<()> {
    let found = reasons("refuse(\"NameTaken\", x); Problem { reason: \"Paused\", y }; told(True, \"no word\")");
    assert_eq!(found, ["Paused", "NameTaken"]);
    let guide = std::fs::read_to_string(project().join("docs/operations.md"))?;
    let mut all = String::new();
    sources(&project().join("operator/src"), &mut all)?;
    let missing: Vec<_> = reasons(&all).into_iter().filter(|reason| !guide.contains(&format!("`{reason}`"))).collect();
    assert!(missing.is_empty(), "not in docs/operations.md: {missing:?}");
    Ok(())
}

/// A shell with a process group of its own; whatever it started ends with it.
struct Group(Process);

impl Drop for Group {
    fn drop(&mut self) {
        if let Some(group) = Pid::from_raw(self.0.0.id() as i32) {
            let _ = kill_process_group(group, Signal::KILL);
        }
    }
}

/// Puts a script of this name into `dir`.
fn script(dir: &Path, name: &str, lines: &str) -> Result<()> {
    let path = dir.join(name);
    std::fs::write(&path, format!("#!/bin/sh\nset -eu\n{lines}"))?;
    Ok(std::fs::set_permissions(path, Permissions::from_mode(0o755))?)
}

/// `make` and `cargo` for the commands of the README, and for no others.
fn builders(dir: &Path) -> Result<()> {
    let broker = program("taffrail-broker")?;
    let bin = broker.parent().context("a folder of programs")?.display();
    let make = format!(
        "case \"$*\" in\n\
         build) test -x {bin}/taffrail-broker -a -x {bin}/taffrail ;;\n\
         '-s env') echo 'export PATH=\"{bin}:$PATH\"' ;;\n\
         *) exit 2 ;;\nesac\n"
    );
    let cargo = format!(
        "case \"$*\" in\n\
         'run --quiet --release -p taffrail-client --example hello') exec {bin}/examples/hello ;;\n\
         'run --quiet --release -p taffrail-client --example group') exec {bin}/examples/group ;;\n\
         *) exit 2 ;;\nesac\n"
    );
    script(dir, "make", &make)?;
    script(dir, "cargo", &cargo)
}

/// Runs a script in the project's folder; gives what it printed.
fn bash(script: &str) -> Result<String> {
    let dir = tempfile::tempdir()?;
    builders(dir.path())?;
    let path = std::env::var("PATH").context("PATH")?;
    let out = dir.path().join("out");
    let mut command = Command::new("bash");
    command.args(["-euo", "pipefail", "-c", script]).current_dir(project()).process_group(0);
    command.env("TAFFRAIL_DATA_DIR", dir.path().join("data"));
    command.env("PATH", format!("{}:{path}", dir.path().display()));
    command.stdin(Stdio::null()).stdout(std::fs::File::create(&out)?);
    let mut group = Group(Process(command.spawn()?));
    let status = group.0.wait(PATIENCE)?;
    let printed = std::fs::read_to_string(out)?;
    ensure!(status.success(), "{status}; printed until then:\n{printed}");
    Ok(printed)
}

#[test]
fn the_quick_start_works_as_written() -> Result<()> {
    let taken = TcpStream::connect("127.0.0.1:9094").is_ok();
    ensure!(!taken, "something listens on port 9094, which the README uses: stop it first");
    set_up(&["python"])?;
    let blocks = blocks(README);
    let mut script = String::new();
    let mut expected = vec![];
    for (i, (_, content)) in blocks.iter().enumerate().filter(|(_, (language, _))| *language == "sh") {
        script.push_str(content);
        script.push_str("printf '\\036\\n'\n");
        expected.push((content, blocks.get(i + 1).filter(|(language, _)| *language == "text").map(|(_, text)| text)));
    }
    script.push_str("wait\n"); // For the broker, which was told to stop.
    let printed = bash(&script)?;
    let log = project().join("broker.log");
    assert!(std::fs::read_to_string(&log)?.contains("stopped"), "the broker was told to stop and did not");
    std::fs::remove_file(log)?;
    std::fs::remove_file(project().join("dev.log"))?;
    std::fs::remove_dir_all(project().join("taffrail-dev"))?;
    let mut outputs = printed.split(END_OF_BLOCK);
    for (block, expected) in expected {
        let output = outputs.next().with_context(|| format!("nothing of\n{block}"))?;
        if let Some(expected) = expected {
            assert_eq!(output, expected, "printed by\n{block}");
        }
    }
    Ok(())
}
