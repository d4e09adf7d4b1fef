//! Time, as the rest of the broker gets it: through a trait, so that tests own it.
//!
//! Three times are told apart. *Wall time* is what people read; it may jump, and only timestamps of records use it.
//! *Boot time* only goes forward and stands for durations. *Log time* ([`log_time`]) is what retention goes by.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use parking_lot::Mutex;

pub mod log_time;

/// Where time comes from.
pub trait Clock: Send + Sync + 'static {
    /// Wall time in milliseconds since 1970; may jump in either direction.
    fn wall_millis(&self) -> i64;
    /// Time since the kernel started, suspension included; never goes back.
    fn since_boot(&self) -> Duration;
    /// Which run of the kernel [`since_boot`](Self::since_boot) counts from.
    fn boot_id(&self) -> &str;
}

/// Milliseconds since 1970; 0 for what was before.
pub fn millis_of(time: SystemTime) -> i64 {
    time.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_millis() as i64
}

/// The time so many milliseconds after 1970; what is before counts as that.
pub fn time_of(millis: i64) -> SystemTime {
    SystemTime::UNIX_EPOCH + Duration::from_millis(millis.max(0) as u64)
}

/// The machine's clock.
#[derive(Debug)]
pub struct SystemClock {
    boot_id: String,
}

impl SystemClock {
    /// Reads the kernel's boot id. Where there is none, each process counts as a boot of its own, which is the careful
    /// assumption.
    pub fn new() -> Self {
        let boot_id = std::fs::read_to_string("/proc/sys/kernel/random/boot_id")
            .map_or_else(|_| uuid::Uuid::new_v4().to_string(), |id| id.trim().to_owned());
        Self { boot_id }
    }
}

impl Default for SystemClock {
    fn default() -> Self {
        Self::new()
    }
}

impl Clock for SystemClock {
    fn wall_millis(&self) -> i64 {
        millis_of(SystemTime::now())
    }

    fn since_boot(&self) -> Duration {
        let now = rustix::time::clock_gettime(rustix::time::ClockId::Boottime);
        Duration::new(now.tv_sec as u64, now.tv_nsec as u32)
    }

    fn boot_id(&self) -> &str {
        &self.boot_id
    }
}

/// A clock that stands until it is moved, for tests and simulations.
#[derive(Clone, Debug)]
pub struct ManualClock {
    boot_id: Arc<str>,
    times: Arc<Mutex<(i64, Duration)>>,
}

impl ManualClock {
    /// Stands at `wall_millis`, at the start of the boot `boot_id`.
    pub fn new(wall_millis: i64, boot_id: &str) -> Self {
        Self { boot_id: boot_id.into(), times: Arc::new(Mutex::new((wall_millis, Duration::ZERO))) }
    }

    /// Lets time pass.
    pub fn advance(&self, by: Duration) {
        let mut times = self.times.lock();
        times.0 += by.as_millis() as i64;
        times.1 += by;
    }

    /// Sets the wall clock; no time passes.
    pub fn step_wall(&self, by_millis: i64) {
        self.times.lock().0 += by_millis;
    }
}

impl Clock for ManualClock {
    fn wall_millis(&self) -> i64 {
        self.times.lock().0
    }

    fn since_boot(&self) -> Duration {
        self.times.lock().1
    }

    fn boot_id(&self) -> &str {
        &self.boot_id
    }
}
