use std::process::Stdio;

use hubspoke_testkit::{eventually, process};
use rustix::process::{Pid, Signal, kill_process};
use tokio::process::Command;

use super::program::{processes, with_program};
use super::running::{Running, has_instances, instances};
use crate::platform::TestPlatform;

/// In a container, `hub run` is process 1: whatever loses its parent becomes its child, also what was never below the
/// program, such as the rest of a `docker exec`.
#[tokio::test]
async fn as_process_1_it_reaps_zombies_and_passes_signals_on() {
    let namespaces = ["--pid", "--mount", "--fork", "--kill-child", "--mount-proc"];
    if !system("unshare").args(namespaces).arg("true").status().await.is_ok_and(|status| status.success()) {
        return skipped("this user may not make a namespace for processes");
    }
    let platform = TestPlatform::start(&[]).await;
    let mark = format!("{:032x}", rand::random::<u128>());
    let mut command = system("unshare");
    command.args(namespaces).arg(env!("CARGO_BIN_EXE_hub")).args(["run", "--name", "init"]);
    command.env("HUB_REGISTRY__URL", platform.registry());
    with_program(&mut command, "orphans", &mark);
    let run = Running::spawn(command, mark.clone());
    has_instances(&platform, "init", 1).await;
    let hub = children(run.child.id().unwrap())[0].pid;
    let own = children(hub);

    let mut other = system("nsenter");
    other.args(["--pid", "--target", &hub.to_string(), "/bin/sh", "-c", "sleep 3 & exit 0"]);
    assert!(other.stdout(Stdio::null()).status().await.unwrap().success());
    let is_left = || children(hub).iter().any(|child| own.iter().all(|own| own.pid != child.pid));
    assert!(is_left(), "what loses its parent becomes a child of process 1");
    eventually("it is reaped", async || !is_left()).await;
    eventually("the program's orphans have ended", async || {
        run.printed().matches("orphan has ended").count() == 3
    })
    .await;
    let zombies = || processes_of(|process| process.is_zombie && is_below(process.pid, hub)).len();
    eventually("no zombie is left", async || zombies() == 0).await;

    kill_process(Pid::from_raw(hub.try_into().unwrap()).unwrap(), Signal::TERM).unwrap();
    assert_eq!(run.end().await.code, Some(0));
    assert!(instances(&platform, "init").await.is_empty());
    eventually("nothing is left", async || processes(&mark).is_empty()).await;
}

fn system(program: &str) -> Command {
    let mut command = process::command(program);
    command.envs(std::env::vars_os().filter(|(name, _)| name == "PATH"));
    command.stderr(Stdio::null());
    command
}

#[expect(clippy::print_stderr, reason = "a test that did not run must not look like one that passed")]
fn skipped(why: &str) {
    eprintln!("skipped: {why}");
}

#[derive(Debug, Clone)]
struct Process {
    pid: u32,
    parent: u32,
    is_zombie: bool,
}

fn processes_of(wanted: impl Fn(&Process) -> bool) -> Vec<Process> {
    let pids = std::fs::read_dir("/proc").unwrap().flatten();
    let pids = pids.filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok());
    pids.filter_map(process_of).filter(wanted).collect()
}

fn children(parent: u32) -> Vec<Process> {
    processes_of(|process| process.parent == parent)
}

fn is_below(pid: u32, root: u32) -> bool {
    let parent = process_of(pid).map_or(0, |process| process.parent);
    parent == root || parent > 1 && is_below(parent, root)
}

fn process_of(pid: u32) -> Option<Process> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let mut rest = stat.rsplit_once(") ")?.1.split(' ');
    let is_zombie = rest.next()? == "Z";
    Some(Process { pid, parent: rest.next()?.parse().ok()?, is_zombie })
}
