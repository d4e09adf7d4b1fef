//! `taffrail-operator validate`: all faults of manifests, offline.

use std::io::Read as _;

use clap::Args;
use taffrail_crds::manifest::{duplicate_objects, parse_objects};

use super::{Exit, print};

/// Largest manifest that is read, in bytes.
const MAX_BYTES: u64 = 16 << 20;

#[derive(Args, Debug)]
pub(super) struct Validate {
    /// Manifest to look at, as for `kubectl apply`; `-` is standard input. May be given several times.
    #[arg(short, long = "file", value_name = "FILE", required = true, num_args = 1..)]
    file: Vec<String>,
}

impl Validate {
    /// Everything that is wrong goes to standard error, one line each.
    pub(super) fn run(&self) -> Exit {
        let (mut objects, mut faults) = (Vec::new(), Vec::new());
        for file in &self.file {
            match read(file) {
                Ok(text) => match parse_objects(&text, file) {
                    Ok(found) => objects.extend(found),
                    Err(found) => faults.extend(found.iter().map(ToString::to_string)),
                },
                Err(error) => faults.push(format!("{file}: cannot be read: {error}")),
            }
        }
        faults.extend(duplicate_objects(&objects).iter().map(ToString::to_string));
        if faults.is_empty() {
            let count = objects.len();
            return print(&format!("{count} {}, nothing is wrong\n", if count == 1 { "object" } else { "objects" }));
        }
        for fault in &faults {
            eprintln!("{fault}");
        }
        Exit::Usage
    }
}

pub(super) fn read(file: &str) -> std::io::Result<String> {
    let input: Box<dyn std::io::Read> =
        if file == "-" { Box::new(std::io::stdin()) } else { Box::new(std::fs::File::open(file)?) };
    read_whole(input)
}

/// A manifest that is longer is refused: the objects behind the cut would pass unseen.
fn read_whole(input: impl std::io::Read) -> std::io::Result<String> {
    let mut text = String::new();
    let read = input.take(MAX_BYTES + 1).read_to_string(&mut text)?;
    if read as u64 > MAX_BYTES {
        let message = format!("it is larger than {} MiB: give it in several files", MAX_BYTES >> 20);
        return Err(std::io::Error::new(std::io::ErrorKind::FileTooLarge, message));
    }
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_manifest_is_read_whole_or_not_at_all() {
        let spaces = || std::io::repeat(b' ');
        let text = read_whole(spaces().take(MAX_BYTES)).expect("as large as may be");
        assert_eq!(text.len() as u64, MAX_BYTES);
        let refused = read_whole(spaces().take(MAX_BYTES + 1)).expect_err("one byte more");
        assert_eq!(refused.to_string(), "it is larger than 16 MiB: give it in several files");
    }
}
