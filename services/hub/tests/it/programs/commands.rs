use std::process::Stdio;

use hubspoke_testkit::process;
use tokio::io::AsyncWriteExt as _;

use super::program::{BEHAVIOUR, MARK, processes, program};
use super::running::{Running, has_instances, instances};
use crate::platform::{TestPlatform, command};

#[tokio::test]
async fn programs_that_run_here_are_listed_and_stopped_by_name() {
    let platform = TestPlatform::start(&[]).await;
    let name = format!("ps-{:08x}", rand::random::<u32>());
    let run = Running::start(&platform, &["--name", &name, "--replicas", "2"], "serve");
    has_instances(&platform, &name, 2).await;
    let mark = run.mark().to_owned();
    let listed = process::run(command(&["ps"])).await.stdout;
    let lines: Vec<&str> = listed.lines().filter(|line| line.starts_with(&name)).collect();
    assert_eq!(lines.len(), 2, "{listed}");
    assert!(listed.starts_with("NAME") && lines[0].contains("MiB"), "{listed}");
    let stopped = process::run(command(&["stop", &name])).await;
    assert_eq!((stopped.code, stopped.stdout), (Some(0), format!("{name} has stopped (2 replicas)\n")));
    assert_eq!(run.end().await.code, Some(0));
    assert!(instances(&platform, &name).await.is_empty());
    assert!(processes(&mark).is_empty(), "nothing is left");
    let unknown = process::run(command(&["stop", &name])).await;
    assert_eq!(unknown.code, Some(1));
    assert!(unknown.stderr.contains("no program called"), "{unknown:?}");
}

#[tokio::test]
async fn what_runs_already_is_registered_while_hub_add_runs() {
    let platform = TestPlatform::start(&[]).await;
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let addr = listener.local_addr().unwrap().to_string();
    let add = Running::spawn(platform.command(&["add", "other", &addr]), String::new());
    has_instances(&platform, "other", 1).await;
    assert_eq!(instances(&platform, "other").await[0].info.addr, addr);
    add.prints("hub: other is reachable at").await;
    add.signal("TERM").await;
    assert_eq!(add.end().await.code, Some(0));
    assert!(instances(&platform, "other").await.is_empty());
}

#[tokio::test]
async fn lines_are_shipped_with_what_they_say_of_themselves() {
    let platform = TestPlatform::start(&[]).await;
    let mut command = platform.command(&["ship", "--name", "shipped"]);
    let mut ship = command.stdin(Stdio::piped()).spawn().unwrap();
    let mut stdin = ship.stdin.take().unwrap();
    let trace = "4bf92f3577b34da6a3ce929d0e0e4736";
    let lines = format!(
        "{{\"level\":50,\"msg\":\"it broke\",\"trace_id\":\"{trace}\"}}\nTraceback (most recent call last):\n  File x\n\
         ValueError: v\n"
    );
    stdin.write_all(lines.as_bytes()).await.unwrap();
    drop(stdin);
    assert_eq!(process::wait(ship).await.code, Some(0));
    let logs = platform.hub(&["logs", "--source", "shipped", "--json"]).await.stdout;
    assert_eq!(logs.lines().count(), 2, "{logs}");
    let first = logs.lines().find(|line| line.contains("it broke")).unwrap();
    assert!(first.contains("\"level\":\"error\"") && first.contains(trace), "{first}");
    assert!(logs.contains(r"  File x\nValueError: v"), "{logs}");
}

#[tokio::test]
async fn hub_up_runs_the_programs_of_a_file_in_the_order_of_needs() {
    let dir = tempfile::tempdir().unwrap();
    let quoted: Vec<String> = program().iter().map(|arg| format!("{arg:?}")).collect();
    let file = format!(
        "[programs.a]\ncommand = [{0}]\nneeds = [\"b\"]\nenv = {{ {BEHAVIOUR} = \"serve\" }}\n\
         [programs.b]\ncommand = [{0}]\nenv = {{ {BEHAVIOUR} = \"slow\" }}\n",
        quoted.join(", ")
    );
    std::fs::write(dir.path().join("hub.toml"), file).unwrap();
    let mut up = command(&["up", "-f", "hub.toml"]);
    up.current_dir(dir.path()).env("HUB_TELEMETRY__LOG", "warn").env(MARK, "up");
    for key in ["LISTEN", "HUB__GATEWAY", "HUB__GATEWAY_CONTROL", "HUB__LOG", "HUB__VISIT"] {
        up.env(format!("HUB_{key}"), "127.0.0.1:0");
    }
    let up = Running::spawn(up, "up".to_owned());
    up.prints("hub: a is reachable at").await;
    up.signal("INT").await;
    let exit = up.end().await;
    assert_eq!(exit.code, Some(0), "{}", exit.stdout);
    let at = |text: &str| exit.stdout.find(text).unwrap_or_else(|| panic!("{text}: {}", exit.stdout));
    assert!(at("hub: b is reachable") < at("a | listening"), "{}", exit.stdout);
    assert!(at("hub: a stopped") < at("hub: b stopped"), "{}", exit.stdout);

    let mut wrong = command(&["up", "-f", "none.toml"]);
    wrong.current_dir(dir.path());
    let wrong = process::run(wrong).await;
    assert_eq!(wrong.code, Some(78), "{wrong:?}");
    assert!(wrong.stderr.contains("can't read none.toml"), "{wrong:?}");
}
