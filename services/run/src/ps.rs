//! `hub ps`: the programs that run below `hub run` and `hub up` on this machine, from the command lines of their
//! supervisors. Nothing is written anywhere, so nothing can be out of date.

use std::collections::HashMap;
use std::fs;
use std::time::Duration;

use tokio::time::sleep;

use crate::process::{ProcessTable, SUPERVISE, Usage, page_size, ticks_per_second};

/// Time over which the use of processors is measured.
const SAMPLE: Duration = Duration::from_millis(200);

/// A running program.
#[derive(Debug, Clone, PartialEq)]
pub struct RunningProgram {
    /// The service's name.
    pub name: String,
    /// Which replica it is, from 1.
    pub replica: u16,
    /// The process of the program; that of its supervisor if the program has gone to the background.
    pub pid: u32,
    /// The `hub` process that runs it.
    pub hub: u32,
    /// Its port.
    pub port: u16,
    /// Share of one processor's time that it and everything below it takes, in per cent.
    pub cpu: f64,
    /// Resident memory of it and everything below it, in bytes. What processes share counts for each.
    pub memory: u64,
    /// How long it has been running.
    pub running: Duration,
}

/// The programs of this machine, by name and replica. Empty where there is no `/proc`.
pub async fn programs() -> Vec<RunningProgram> {
    let before = ProcessTable::read();
    let supervisors: Vec<(u32, Supervised)> = before
        .iter()
        .filter(|process| !process.is_zombie)
        .filter_map(|process| {
            let line = fs::read(format!("/proc/{}/cmdline", process.pid)).ok()?;
            Some((process.pid, supervised(&line)?))
        })
        .collect();
    let ticks: HashMap<u32, u64> =
        supervisors.iter().map(|(pid, _)| (*pid, before.usage_below(*pid).ticks)).collect();
    if supervisors.is_empty() {
        return Vec::new();
    }
    sleep(SAMPLE).await;
    let after = ProcessTable::read();
    let uptime = fs::read_to_string("/proc/uptime").unwrap_or_default();
    let uptime: f64 = uptime.split(' ').next().and_then(|seconds| seconds.parse().ok()).unwrap_or(0.0);
    #[expect(clippy::cast_precision_loss, reason = "shown with one digit")]
    let seconds = |ticks: u64| ticks as f64 / ticks_per_second() as f64;
    let mut programs: Vec<RunningProgram> = supervisors
        .into_iter()
        .filter_map(|(supervisor, of)| {
            let own = after.iter().find(|process| process.pid == supervisor)?;
            let Usage { ticks: now, pages } = after.usage_below(supervisor);
            let used = now.saturating_sub(ticks.get(&supervisor).copied().unwrap_or(now));
            let program = after.iter().find(|process| process.parent == supervisor && !process.is_zombie);
            Some(RunningProgram {
                name: of.name,
                replica: of.replica,
                pid: program.map_or(supervisor, |process| process.pid),
                hub: of.parent,
                port: of.port,
                cpu: 100.0 * seconds(used) / SAMPLE.as_secs_f64(),
                memory: pages * page_size(),
                running: Duration::try_from_secs_f64(uptime - seconds(own.started)).unwrap_or_default(),
            })
        })
        .collect();
    programs.sort_by(|a, b| (&a.name, a.replica, a.pid).cmp(&(&b.name, b.replica, b.pid)));
    programs
}

#[derive(Debug, PartialEq)]
struct Supervised {
    name: String,
    replica: u16,
    port: u16,
    parent: u32,
}

/// The command line of a supervisor.
fn supervised(line: &[u8]) -> Option<Supervised> {
    let args: Vec<&str> =
        line.split(|&byte| byte == 0).map(|arg| std::str::from_utf8(arg).unwrap_or("")).collect();
    if args.get(1) != Some(&SUPERVISE) {
        return None;
    }
    let own = args.split(|arg| *arg == "--").next()?;
    let option = |name: &str| own.iter().position(|arg| *arg == name).and_then(|at| own.get(at + 1));
    Some(Supervised {
        name: (*option("--name")?).to_owned(),
        replica: option("--replica")?.parse().ok()?,
        port: option("--port")?.parse().ok()?,
        parent: option("--parent")?.parse().ok()?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn supervisors_are_known_by_their_command_lines() {
        let line = |text: &str| supervised(text.replace(' ', "\0").as_bytes());
        let expected = Supervised { name: "web".to_owned(), replica: 2, port: 21000, parent: 7 };
        let text = "hub __supervise --parent 7 --replica 2 --port 21000 --name web -- python --name x";
        assert_eq!(line(text), Some(expected));
        assert_eq!(line("hub run --name web -- x __supervise"), None);
        assert_eq!(line("hub __supervise -- --name web"), None);
    }
}
