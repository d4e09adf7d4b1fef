//! How many files and sockets the process may have open, and how they are divided: RocksDB keeps its files open, as many
//! as it is told, and a file that it cannot open stops all writes, so connections must leave room for them.

use std::io;

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// Connections at a time, where the limit of open files leaves room for them: ten thousand, and some to spare.
const MAX_CONNECTIONS: u64 = 12_000;

/// Files beside connections and tables: write-ahead logs, the metadata, copies of footers, the program's own, and tables that
/// are being written or read for maintenance.
const OTHERS: u64 = 256;
/// RocksDB's tables, even where the limit leaves no room for them: with fewer it would open and close them all the time.
const LEAST_TABLES: u64 = 64;

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

/// Tables that RocksDB may keep open beside all connections; `None`: all. Of 64 MiB each, 8,000 are half a terabyte. What is
/// beyond is opened when it is read.
pub fn max_tables(limit: u64) -> Option<u32> {
    let left = limit.saturating_sub(max_connections(limit) as u64);
    let tables = left.saturating_sub(OTHERS.min(left / 2)).max(LEAST_TABLES);
    u32::try_from(tables).ok().filter(|tables| i32::try_from(*tables).is_ok())
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
    fn tables_connections_and_other_files_fit_the_limit_together() {
        assert_eq!(max_tables(u64::MAX), None);
        assert_eq!(max_tables(20_000), Some(7_744));
        assert_eq!(max_tables(4_096), Some(768));
        assert_eq!(max_tables(1_024), Some(128));
        assert_eq!(max_tables(0), Some(64));
        for limit in 512..100_000 {
            let tables = u64::from(max_tables(limit).unwrap());
            assert!(max_connections(limit) as u64 + tables + OTHERS.min(limit / 8) <= limit, "{limit}");
        }
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
