//! Exit codes (documented in `--help`) and how errors are told.

use std::process::ExitCode;

use taffrail_client::{Error, ErrorKind};

const FAILED: u8 = 1;
const NOT_FOUND: u8 = 3;
const UNAVAILABLE: u8 = 4;
const REFUSED: u8 = 5;

/// Tells an error on standard error and gives the exit code that stands for it.
pub(crate) fn report(error: &anyhow::Error) -> ExitCode {
    // A reader such as `head` that has seen enough is no fault.
    if error.downcast_ref::<std::io::Error>().is_some_and(|e| e.kind() == std::io::ErrorKind::BrokenPipe) {
        return ExitCode::SUCCESS;
    }
    eprintln!("error: {error:#}");
    let kind = error.chain().find_map(|cause| cause.downcast_ref::<Error>()).map(Error::kind);
    ExitCode::from(kind.map_or(FAILED, code))
}

fn code(kind: ErrorKind) -> u8 {
    match kind {
        ErrorKind::NotFound | ErrorKind::OffsetOutOfRange => NOT_FOUND,
        ErrorKind::Unavailable | ErrorKind::Timeout => UNAVAILABLE,
        ErrorKind::Unauthenticated | ErrorKind::Unauthorized => REFUSED,
        _ => FAILED,
    }
}
