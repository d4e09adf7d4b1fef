//! What every part of the broker is given in place of ambient time and randomness.

use std::sync::Arc;

use parking_lot::Mutex;
use rand::rngs::StdRng;
use rand::{RngCore, SeedableRng};
use uuid::Uuid;

use crate::clock::log_time::{LogTime, Mark};
use crate::clock::{Clock, SystemClock};
use crate::storage::{MetaStore, StorageError};

/// Key in the [`MetaStore`] of the last [`Mark`] of log time.
const LOG_TIME_KEY: &[u8] = b"broker/log-time";

/// Clock and randomness. Cheap to clone; clones share both.
#[derive(Clone)]
pub struct Context {
    clock: Arc<dyn Clock>,
    log_time: LogTime,
    random: Arc<Mutex<StdRng>>,
}

impl Context {
    /// The machine's clock and randomness; log time goes on from what `meta` keeps. Blocks.
    pub fn system(meta: &dyn MetaStore) -> Result<Self, StorageError> {
        Self::resume(Arc::new(SystemClock::new()), StdRng::from_os_rng(), meta)
    }

    /// With a clock and a seed of the caller's; log time goes on from what `meta` keeps. Blocks.
    pub fn seeded(clock: Arc<dyn Clock>, seed: u64, meta: &dyn MetaStore) -> Result<Self, StorageError> {
        Self::resume(clock, StdRng::seed_from_u64(seed), meta)
    }

    fn resume(clock: Arc<dyn Clock>, random: StdRng, meta: &dyn MetaStore) -> Result<Self, StorageError> {
        let last = meta.get(LOG_TIME_KEY)?.and_then(|bytes| Mark::decode(&bytes));
        let log_time = LogTime::resume(last.as_ref(), &*clock);
        let context = Self { clock, log_time, random: Arc::new(Mutex::new(random)) };
        context.save_log_time(meta)?;
        Ok(context)
    }

    /// Keeps log time for the next start. To be called every minute, and at the end; blocks.
    pub fn save_log_time(&self, meta: &dyn MetaStore) -> Result<(), StorageError> {
        let mark = self.log_time.mark(&*self.clock);
        meta.write(vec![(LOG_TIME_KEY.to_vec(), Some(mark.encode()))])
    }

    /// The clock.
    pub fn clock(&self) -> &dyn Clock {
        &*self.clock
    }

    /// Wall time in milliseconds since 1970.
    pub fn wall_millis(&self) -> i64 {
        self.clock.wall_millis()
    }

    /// Log time in milliseconds (see [`crate::clock::log_time`]).
    pub fn log_millis(&self) -> i64 {
        self.log_time.at(self.clock.since_boot())
    }

    /// A random number.
    pub fn random_u64(&self) -> u64 {
        self.random.lock().next_u64()
    }

    /// A random (version 4) UUID.
    pub fn random_uuid(&self) -> Uuid {
        let mut bytes = [0; 16];
        self.random.lock().fill_bytes(&mut bytes);
        uuid::Builder::from_random_bytes(bytes).into_uuid()
    }
}
