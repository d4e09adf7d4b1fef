//! What the kernel and the allocator say about this process, read from `/proc/self` at each scrape.

use std::fmt;
use std::time::{Duration, Instant};

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric};
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::gauge::ConstGauge;
use prometheus_client::registry::Unit;

/// Ticks of the kernel's clock for user programs: `USER_HZ`, 100 on every architecture Linux runs on today.
const TICKS_PER_SECOND: f64 = 100.0;

/// Resident memory in bytes; 0 where `/proc` does not tell.
pub fn resident_bytes() -> u64 {
    resident(&std::fs::read_to_string("/proc/self/status").unwrap_or_default())
}

/// The line `VmRSS:    1234 kB` of `/proc/<pid>/status`.
fn resident(status: &str) -> u64 {
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let kilobytes = line.and_then(|rest| rest.split_whitespace().next()).and_then(|n| n.parse::<u64>().ok());
    kilobytes.unwrap_or(0) * 1024
}

/// CPU time used, user and kernel.
pub fn cpu_time() -> Duration {
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap_or_default();
    Duration::from_secs_f64(cpu_ticks(&stat) as f64 / TICKS_PER_SECOND)
}

/// Fields 14 and 15 of `/proc/<pid>/stat`, counted behind the program's name, which may hold spaces and brackets.
fn cpu_ticks(stat: &str) -> u64 {
    let Some((_, behind_name)) = stat.rsplit_once(')') else { return 0 };
    behind_name.split_whitespace().skip(11).take(2).filter_map(|n| n.parse::<u64>().ok()).sum()
}

fn open_fds() -> usize {
    std::fs::read_dir("/proc/self/fd").map_or(0, |entries| entries.count().saturating_sub(1))
}

/// Collector of the process's numbers. Names are those of Prometheus' own client libraries.
#[derive(Debug)]
pub(super) struct ProcessCollector {
    pub(super) started: Instant,
}

impl Collector for ProcessCollector {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let e = &mut encoder;
        let bytes = Some(&Unit::Bytes);
        gauge(e, "process_resident_memory", "Resident memory", bytes, resident_bytes() as i64)?;
        gauge(e, "process_open_fds", "Open file descriptors", None, open_fds() as i64)?;
        let uptime = self.started.elapsed().as_secs();
        gauge(e, "process_uptime", "Time since the start", Some(&Unit::Seconds), uptime as i64)?;
        let cpu = ConstCounter::new(cpu_time().as_secs_f64());
        let help = "CPU time used, user and kernel";
        let metric = e.encode_descriptor("process_cpu", help, Some(&Unit::Seconds), cpu.metric_type())?;
        cpu.encode(metric)
    }
}

fn gauge(e: &mut DescriptorEncoder<'_>, name: &str, help: &str, unit: Option<&Unit>, value: i64) -> fmt::Result {
    let gauge = ConstGauge::new(value);
    gauge.encode(e.encode_descriptor(name, help, unit, gauge.metric_type())?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cpu_ticks_are_found_behind_any_program_name() {
        let stat = "7 (a) b (c)) S 1 2 3 4 5 6 7 8 9 10 250 17 0 0 20";
        assert_eq!(cpu_ticks(stat), 267);
        assert_eq!(cpu_ticks(""), 0);
        assert_eq!(cpu_ticks("7 (x"), 0);
    }

    #[test]
    fn resident_memory_is_read_in_kilobytes() {
        assert_eq!(resident("VmPeak:\t 9 kB\nVmRSS:\t   1234 kB\nRssAnon: 5 kB\n"), 1_263_616);
        assert_eq!(resident("VmRSS:\tnone"), 0);
    }

    #[test]
    fn this_process_has_memory_and_descriptors() {
        assert!(resident_bytes() > 100_000);
        assert!(open_fds() >= 3);
    }
}
