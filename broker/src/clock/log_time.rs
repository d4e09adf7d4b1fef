//! Log time: the clock by which retention counts the age of records (Q2). It advances with boot time and not with the wall
//! clock, so that a wall clock that is set wrong, or set right, makes no record older. It begins at wall time, so that its
//! values look like dates, but nothing may take it for one.
//!
//! # Format
//!
//! What is kept on disk between starts: version `u8` = 1, log time `i64`, wall time `i64`, time since boot `u64`, all in
//! milliseconds, then the boot id (UTF-8) to the end. Big endian.

use std::time::Duration;

use super::Clock;

/// What a start on another boot may count at most of the wall time that passed: milliseconds. Such a start has only the wall
/// clock to go by, so retention rather keeps records for longer.
pub const MAX_ACROSS_BOOTS_MS: i64 = 60 * 60 * 1000;
const VERSION: u8 = 1;

/// Log time as a function of boot time. Never goes back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LogTime {
    at_start: i64,
    start: Duration,
}

/// Log time beside the other clocks at one moment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mark {
    /// Log time, milliseconds.
    pub log: i64,
    /// Wall time, milliseconds since 1970.
    pub wall: i64,
    /// Since boot, milliseconds.
    pub since_boot: u64,
    /// Of which boot.
    pub boot_id: String,
}

impl LogTime {
    /// Goes on from the last mark, or begins at wall time. On the same boot the time between counts exactly, however long;
    /// on another one as the wall clock says, between nothing and [`MAX_ACROSS_BOOTS_MS`].
    pub fn resume(last: Option<&Mark>, clock: &dyn Clock) -> Self {
        let (wall, start) = (clock.wall_millis(), clock.since_boot());
        let at_start = match last {
            None => wall,
            Some(mark) if mark.boot_id == clock.boot_id() => {
                mark.log.saturating_add((start.as_millis() as u64).saturating_sub(mark.since_boot) as i64)
            }
            Some(mark) => mark.log.saturating_add(wall.saturating_sub(mark.wall).clamp(0, MAX_ACROSS_BOOTS_MS)),
        };
        Self { at_start, start }
    }

    /// Log time when the clock stands at `since_boot`, milliseconds.
    pub fn at(&self, since_boot: Duration) -> i64 {
        self.at_start.saturating_add(since_boot.saturating_sub(self.start).as_millis() as i64)
    }

    /// What to keep on disk now.
    pub fn mark(&self, clock: &dyn Clock) -> Mark {
        let since_boot = clock.since_boot();
        Mark {
            log: self.at(since_boot),
            wall: clock.wall_millis(),
            since_boot: since_boot.as_millis() as u64,
            boot_id: clock.boot_id().to_owned(),
        }
    }
}

impl Mark {
    /// See the module.
    pub fn encode(&self) -> Vec<u8> {
        let mut out = vec![VERSION];
        out.extend(self.log.to_be_bytes());
        out.extend(self.wall.to_be_bytes());
        out.extend(self.since_boot.to_be_bytes());
        out.extend(self.boot_id.as_bytes());
        out
    }

    /// `None` if the bytes are malformed or of another version.
    pub fn decode(bytes: &[u8]) -> Option<Self> {
        let (&version, rest) = bytes.split_first()?;
        let (log, rest) = rest.split_first_chunk()?;
        let (wall, rest) = rest.split_first_chunk()?;
        let (since_boot, rest) = rest.split_first_chunk()?;
        (version == VERSION).then_some(())?;
        Some(Self {
            log: i64::from_be_bytes(*log),
            wall: i64::from_be_bytes(*wall),
            since_boot: u64::from_be_bytes(*since_boot),
            boot_id: std::str::from_utf8(rest).ok()?.to_owned(),
        })
    }
}

#[cfg(test)]
mod tests;
