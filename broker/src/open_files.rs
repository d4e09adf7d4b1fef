//! How many files and sockets the process may have open, and how they are divided: RocksDB keeps all of its files open, and
//! a file that it cannot open stops all writes, so connections must leave room for them.

use std::io;

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// Connections at a time, where the limit of open files leaves room for them: ten thousand, and some to spare.
const MAX_CONNECTIONS: u64 = 12_000;

/// Raises the limit to what the system lets this process have, for the usual 1,024 is meant for programs that use `select`.
/// Gives the limit in force, also where it could not be raised.
pub fn raise_limit() -> (u64, io::Result<()>) {
    let Rlimit { current, maximum } = getrlimit(Resource::Nofile);
    let raised = setrlimit(Resource::Nofile, Rlimit { current: maximum, maximum }).map_err(io::Error::from);
    let limit = if raised.is_ok() { maximum } else { current };
    // None: without a limit.
    (limit.unwrap_or(u64::MAX), raised)
}

/// Connections that a process with this limit may serve at a time: three quarters of it at most.
pub fn max_connections(limit: u64) -> usize {
    (limit / 4 * 3).min(MAX_CONNECTIONS) as usize
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn connections_leave_a_quarter_of_the_files_to_storage() {
        assert_eq!(max_connections(u64::MAX), 12_000);
        assert_eq!(max_connections(20_000), 12_000);
        assert_eq!(max_connections(4_096), 3_072);
        assert_eq!(max_connections(0), 0);
    }

    #[test]
    fn the_limit_is_raised_to_the_most_that_the_system_allows() {
        let (limit, raised) = raise_limit();
        raised.unwrap();
        let now = getrlimit(Resource::Nofile);
        assert_eq!(now.current, now.maximum);
        assert_eq!(limit, now.maximum.unwrap_or(u64::MAX));
    }
}
