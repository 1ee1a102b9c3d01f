//! The metrics of the process, under the names that Prometheus' client libraries agree on: `process_cpu_seconds_total`
//! and others. They are read from `/proc`, so only Linux has them.

use std::fs;

use parking_lot::Mutex;
use prometheus::core::{Collector, Desc};
use prometheus::proto::MetricFamily;
use prometheus::{Counter, Gauge};

/// Reads the process's state whenever metrics are shown.
pub(super) struct ProcessCollector {
    /// Also keeps two readers from adding the same seconds.
    cpu: Mutex<Counter>,
    resident: Gauge,
    open_files: Gauge,
    max_files: Gauge,
    start: Gauge,
    descriptions: Vec<Desc>,
}

/// A part of `/proc/self/stat`.
#[derive(Debug, Clone, Copy, PartialEq)]
struct Stat {
    /// Clock ticks in user and kernel mode.
    cpu: f64,
    /// Clock ticks from the machine's start to the process's.
    start: f64,
    /// Pages in memory.
    resident: f64,
}

impl ProcessCollector {
    pub(super) fn new() -> prometheus::Result<Self> {
        let gauge = Gauge::new::<&str, &str>;
        let cpu = Counter::new("process_cpu_seconds_total", "Total user and system CPU time in seconds")?;
        let resident = gauge("process_resident_memory_bytes", "Resident memory size in bytes")?;
        let open_files = gauge("process_open_fds", "Number of open file descriptors")?;
        let max_files = gauge("process_max_fds", "Maximum number of open file descriptors")?;
        let start = gauge("process_start_time_seconds", "Start time since the Unix epoch in seconds")?;
        let gauges = [&resident, &open_files, &max_files, &start];
        let descriptions = gauges.into_iter().flat_map(Collector::desc).chain(cpu.desc()).cloned().collect();
        Ok(Self { cpu: Mutex::new(cpu), resident, open_files, max_files, start, descriptions })
    }
}

impl Collector for ProcessCollector {
    fn desc(&self) -> Vec<&Desc> {
        self.descriptions.iter().collect()
    }

    fn collect(&self) -> Vec<MetricFamily> {
        let read = |file: &str| fs::read_to_string(format!("/proc/{file}")).ok();
        let Some(stat) = read("self/stat").as_deref().and_then(Stat::parse) else { return Vec::new() };
        let (ticks, page) = (rustix::param::clock_ticks_per_second(), rustix::param::page_size());
        let ticks = ticks as f64;
        let cpu = self.cpu.lock();
        cpu.inc_by((stat.cpu / ticks - cpu.get()).max(0.0));
        self.resident.set(stat.resident * page as f64);
        if let Some(boot) = read("stat").as_deref().and_then(boot_time) {
            self.start.set(boot + stat.start / ticks);
        }
        if let Ok(files) = fs::read_dir("/proc/self/fd") {
            self.open_files.set(files.count().saturating_sub(1) as f64); // not the one that is read from
        }
        let limit = rustix::process::getrlimit(rustix::process::Resource::Nofile).current;
        self.max_files.set(limit.map_or(f64::INFINITY, |limit| limit as f64));
        let gauges = [&self.resident, &self.open_files, &self.max_files, &self.start];
        gauges.into_iter().flat_map(Collector::collect).chain(cpu.collect()).collect()
    }
}

impl Stat {
    /// Parses the fields of proc(5), which begin behind the name in parentheses.
    fn parse(text: &str) -> Option<Self> {
        let (_, fields) = text.rsplit_once(')')?;
        let fields: Vec<&str> = fields.split_whitespace().collect();
        // The first one here is field 3 there.
        let field = |number: usize| fields.get(number - 3)?.parse::<f64>().ok();
        Some(Self { cpu: field(14)? + field(15)?, start: field(22)?, resident: field(24)? })
    }
}

/// When the machine started, in seconds since the Unix epoch, from `/proc/stat`.
fn boot_time(text: &str) -> Option<f64> {
    text.lines().find_map(|line| line.strip_prefix("btime "))?.trim().parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_fields_of_proc_are_read() {
        let text = "7 (a) b) S 1 7 7 0 -1 4194560 2 0 0 0 120 30 0 0 20 0 8 0 5000 223547392 3000 18446744073709551615";
        assert_eq!(Stat::parse(text), Some(Stat { cpu: 150.0, start: 5000.0, resident: 3000.0 }));
        assert_eq!(Stat::parse("7 (a) S 1"), None);
        assert_eq!(boot_time("cpu 1 2\nbtime 1700000000\nprocesses 5\n"), Some(1_700_000_000.0));
    }
}
