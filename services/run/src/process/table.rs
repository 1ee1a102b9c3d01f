//! The processes of this machine, from `/proc`. Empty if there is none.

use std::collections::HashMap;
use std::fs;

/// One process.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Process {
    pub(crate) pid: u32,
    pub(crate) parent: u32,
    pub(crate) group: u32,
    pub(crate) is_zombie: bool,
    /// Processor time, in ticks.
    pub(crate) ticks: u64,
    /// When it started, in ticks since the machine did.
    pub(crate) started: u64,
    /// Resident memory, in pages.
    pub(crate) pages: u64,
}

/// Resources that a program takes, with everything below it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Usage {
    pub(crate) ticks: u64,
    pub(crate) pages: u64,
}

/// All processes at one moment.
#[derive(Debug, Default)]
pub(crate) struct ProcessTable(Vec<Process>);

impl ProcessTable {
    pub(crate) fn read() -> Self {
        let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
        let numbers = entries.filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok());
        let stats = numbers.filter_map(|pid| fs::read_to_string(format!("/proc/{pid}/stat")).ok());
        Self(stats.filter_map(|stat| parse(&stat)).collect())
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = &Process> {
        self.0.iter()
    }

    /// Everything below `root`, without itself.
    pub(crate) fn below(&self, root: u32) -> Vec<&Process> {
        let mut children: HashMap<u32, Vec<&Process>> = HashMap::new();
        for process in &self.0 {
            children.entry(process.parent).or_default().push(process);
        }
        let (mut below, mut next) = (Vec::new(), vec![root]);
        while let Some(pid) = next.pop() {
            // Removed, so that processes that came and went while the table was read can't make a circle.
            for child in children.remove(&pid).unwrap_or_default() {
                below.push(child);
                next.push(child.pid);
            }
        }
        below
    }

    pub(crate) fn usage_below(&self, root: u32) -> Usage {
        self.below(root).iter().fold(Usage::default(), |sum, process| Usage {
            ticks: sum.ticks + process.ticks,
            pages: sum.pages + process.pages,
        })
    }
}

/// A line of `/proc/PID/stat`. The program's name, in parentheses, may contain anything.
fn parse(stat: &str) -> Option<Process> {
    let (before, after) = stat.rsplit_once(')')?;
    let fields: Vec<&str> = after.split_ascii_whitespace().collect();
    let number = |at: usize| fields.get(at)?.parse::<u64>().ok();
    Some(Process {
        pid: before.split_once(' ')?.0.parse().ok()?,
        is_zombie: fields.first().is_some_and(|state| *state == "Z" || *state == "X"),
        parent: fields.get(1)?.parse().ok()?,
        group: fields.get(2)?.parse().ok()?,
        ticks: number(11)? + number(12)?,
        started: number(19)?,
        pages: number(21)?,
    })
}

/// Ticks per second of processor times.
pub(crate) fn ticks_per_second() -> u64 {
    rustix::param::clock_ticks_per_second().max(1)
}

/// Bytes in a page of memory.
pub(crate) fn page_size() -> u64 {
    rustix::param::page_size() as u64
}

#[cfg(test)]
mod tests {
    use super::*;

    const STAT: &str =
        "42 (a) b (c) S 7 42 42 0 -1 4194304 5 0 0 0 100 20 0 0 20 0 1 0 5000 1000000 300 1 1 1 1";

    #[test]
    fn a_line_of_stat() {
        let expected = Process {
            pid: 42,
            parent: 7,
            group: 42,
            is_zombie: false,
            ticks: 120,
            started: 5000,
            pages: 300,
        };
        assert_eq!(parse(STAT), Some(expected));
        assert!(parse(&STAT.replace(" S 7", " Z 7")).unwrap().is_zombie);
        assert_eq!(parse("42 (a"), None);
    }

    #[test]
    fn everything_below_a_process_and_what_it_takes() {
        let process = |pid, parent| Process { pid, parent, ..parse(STAT).unwrap() };
        let table = ProcessTable(vec![
            process(1, 0),
            process(2, 1),
            process(3, 2),
            process(4, 1),
            process(9, 8),
            process(8, 9),
        ]);
        let below = |root| {
            let mut pids: Vec<u32> = table.below(root).iter().map(|process| process.pid).collect();
            pids.sort_unstable();
            pids
        };
        assert_eq!(below(1), [2, 3, 4]);
        assert_eq!(below(2), [3]);
        assert_eq!(below(9), [8, 9], "a circle ends");
        assert_eq!(table.usage_below(1), Usage { ticks: 360, pages: 900 });
    }
}
