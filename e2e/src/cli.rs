//! Programs run to their end: the command line and the clients of other languages, as their users run them.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail};

use crate::process::taffrail;

/// How a program ended and what it said.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ended {
    /// Exit code; `None` after a signal.
    pub code: Option<i32>,
    /// Standard output.
    pub out: String,
    /// Standard error.
    pub err: String,
}

impl Ended {
    /// Standard output, if it succeeded.
    pub fn ok(self) -> Result<String> {
        match self.code {
            Some(0) => Ok(self.out),
            _ => bail!("ended with {:?}\n{}\n{}", self.code, self.out, self.err),
        }
    }

    /// Standard error, if it ended with `code`.
    pub fn failed(self, code: i32) -> Result<String> {
        if self.code == Some(code) {
            return Ok(self.err);
        }
        bail!("ended with {:?}, expected {code}\n{}\n{}", self.code, self.out, self.err)
    }
}

/// Runs a program with `input` on its standard input.
pub fn run(command: &mut Command, input: &str) -> Result<Ended> {
    let name = command.get_program().to_string_lossy().into_owned();
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().with_context(|| format!("start {name}"))?;
    let mut stdin = child.stdin.take().context("standard input")?;
    let input = input.to_owned();
    // A program that ends before it has read all is no fault of its caller.
    let feeder = std::thread::spawn(move || drop(stdin.write_all(input.as_bytes())));
    let output = child.wait_with_output()?;
    let _ = feeder.join();
    let text = |bytes: Vec<u8>| String::from_utf8_lossy(&bytes).into_owned();
    Ok(Ended { code: output.status.code(), out: text(output.stdout), err: text(output.stderr) })
}

/// Runs the `taffrail` command line; arguments are separated by blanks.
pub fn cli(endpoint: &str, arguments: &str, input: &str) -> Result<Ended> {
    run(taffrail(endpoint)?.args(arguments.split_whitespace()), input)
}

/// The project's folder.
pub fn project() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

/// Where `make` and `client/examples/setup` put what they build.
pub fn cache() -> Result<PathBuf> {
    if let Some(cache) = std::env::var_os("TAFFRAIL_CACHE") {
        return Ok(cache.into());
    }
    let base = std::env::var_os("XDG_CACHE_HOME").filter(|dir| !dir.is_empty()).map(PathBuf::from);
    let home = || std::env::var_os("HOME").map(|home| Path::new(&home).join(".cache"));
    Ok(base.or_else(home).context("neither XDG_CACHE_HOME nor HOME is set")?.join("taffrail"))
}

/// Makes the clients of other languages ready: `python`, `go`, `grpcurl`.
pub fn set_up(parts: &[&str]) -> Result<()> {
    run(Command::new(project().join("client/examples/setup")).args(parts), "")?.ok().map(drop)
}
