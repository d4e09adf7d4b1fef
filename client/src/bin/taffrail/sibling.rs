//! Other programs of the project, run under this one's name, so that one name is enough to know.

use std::ffi::OsString;
use std::io::ErrorKind;
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::Command;

use anyhow::{Error, anyhow};

/// Becomes `program command arguments...`: the one beside this program, else one on the path. Returns only if it cannot be run,
/// and why.
pub(crate) fn become_program(program: &str, command: &str, arguments: &[OsString]) -> Error {
    let me = std::env::current_exe().unwrap_or_default();
    let error = beside_or_on_path(&me, program, command, arguments).exec();
    match error.kind() {
        ErrorKind::NotFound => anyhow!(
            "{program} is neither beside this program nor in a folder of $PATH: install it, or call it by its path, \
             \"{program} {command}\""
        ),
        _ => anyhow!("{program} cannot be run: {error}"),
    }
}

fn beside_or_on_path(me: &Path, program: &str, command: &str, arguments: &[OsString]) -> Command {
    let beside = me.with_file_name(program);
    let mut found = if beside.is_file() { Command::new(beside) } else { Command::new(program) };
    found.arg(command).args(arguments);
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    const PROGRAM: &str = "taffrail-broker";

    #[test]
    fn the_program_beside_this_one_is_taken_before_one_on_the_path() {
        let dir = tempfile::tempdir().unwrap();
        let arguments = ["--brokers".into(), "5".into()];
        let of = || {
            let command = beside_or_on_path(&dir.path().join("taffrail"), PROGRAM, "dev", &arguments);
            assert_eq!(command.get_args().collect::<Vec<_>>(), ["dev", "--brokers", "5"]);
            command.get_program().to_owned()
        };
        assert_eq!(of(), PROGRAM);
        let beside = dir.path().join(PROGRAM);
        std::fs::write(&beside, "").unwrap();
        assert_eq!(of(), beside);
    }
}
