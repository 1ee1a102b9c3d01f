use std::collections::BTreeSet;
use std::io::{BufRead, BufReader};
use std::net::TcpListener;
use std::process::{Child, Command, Output, Stdio};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, channel};
use std::time::{Duration, Instant};

use hubspoke_protocol::sse::Parser;
use hubspoke_protocol::{CatalogView, ChangeView, ReasonKind};
use hubspoke_testkit::{ClosedPort, DEADLINE, eventually};
use tempfile::TempDir;

const HUB: &str = env!("CARGO_BIN_EXE_hub");
/// The keys of the addresses that `hub up` listens on.
const ADDRS: [&str; 5] = ["LISTEN", "HUB__GATEWAY", "HUB__GATEWAY_CONTROL", "HUB__LOG", "HUB__VISIT"];

pub(crate) fn hub(dir: &TempDir, args: &[&str]) -> Command {
    // The tests themselves may run under nohup, and an ignored signal is inherited.
    let mut command = Command::new("/usr/bin/env");
    command.args(["--default-signal=HUP", HUB]).args(args).current_dir(dir.path()).env_clear();
    command
}

fn run(args: &[&str], vars: &[(&str, &str)]) -> Output {
    let dir = tempfile::tempdir().unwrap();
    hub(&dir, args).envs(vars.iter().copied()).output().unwrap()
}

/// `hub up` on free ports. Killed when dropped.
pub(crate) struct HubUp {
    child: Child,
    /// Its lines on stdout.
    lines: Receiver<String>,
    pub(crate) banner: String,
    pub(crate) dir: Arc<TempDir>,
}

impl HubUp {
    fn start(args: &[&str]) -> Self {
        Self::start_in(Arc::new(tempfile::tempdir().unwrap()), args)
    }

    /// With what an earlier one has left in the folder.
    fn start_in(dir: Arc<TempDir>, args: &[&str]) -> Self {
        Self::start_with(dir, args, &[])
    }

    pub(crate) fn start_with(dir: Arc<TempDir>, args: &[&str], vars: &[(&str, &str)]) -> Self {
        let mut command = hub(&dir, args);
        command.envs(vars.iter().copied());
        for key in ADDRS {
            command.env(format!("HUB_{key}"), "127.0.0.1:0");
        }
        let mut child = command.stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
        let stdout = BufReader::new(child.stdout.take().unwrap());
        let (line, lines) = channel();
        std::thread::spawn(move || stdout.lines().try_for_each(|text| line.send(text.unwrap())));
        let mut up = Self { child, lines, banner: String::new(), dir };
        while !up.banner.contains("ctrl-c") {
            let line = up.lines.recv_timeout(DEADLINE).expect("a banner");
            up.banner += &(line + "\n");
        }
        up
    }

    /// Sender and text of every entry in the log files.
    fn entries(&self) -> Vec<(String, String)> {
        let logs =
            std::fs::read_dir(self.dir.path().join("data")).unwrap().map(|entry| entry.unwrap().path());
        let files = logs.map(|folder| folder.join("services.log")).filter(|file| file.exists());
        let text: String = files.map(|file| std::fs::read_to_string(file).unwrap()).collect();
        let entry = |line| {
            let entry: serde_json::Value = serde_json::from_str(line).unwrap();
            let part = |key| entry[key].as_str().unwrap_or_default().to_owned();
            (part("source_id"), part("msg"))
        };
        text.split_inclusive('\n').filter(|line| line.ends_with('\n')).map(entry).collect()
    }

    pub(crate) fn url(&self, service: &str) -> String {
        let line = self.banner.lines().find(|line| line.trim_start().starts_with(service)).unwrap();
        line.split_whitespace().nth(1).unwrap().to_owned()
    }

    fn interrupt(&self) {
        self.signal("INT");
    }

    fn signal(&self, name: &str) {
        let kill = Command::new("kill").args(["-s", name, &self.child.id().to_string()]).status().unwrap();
        assert!(kill.success());
    }

    fn exit_code(&mut self) -> Option<i32> {
        let deadline = Instant::now() + DEADLINE;
        loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                return status.code();
            }
            assert!(Instant::now() < deadline, "hub up does not end");
            std::thread::sleep(Duration::from_millis(5));
        }
    }
}

impl Drop for HubUp {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[tokio::test]
async fn up_runs_the_whole_platform_until_ctrl_c() {
    let mut up = HubUp::start(&["up", "--log", "2", "--visit", "2"]);
    assert!(up.banner.starts_with("Hubspoke "), "{}", up.banner);
    let http = reqwest::Client::builder().no_proxy().build().unwrap();
    let gateway = up.url("gateway");
    for _ in 0..20 {
        let reply = http.get(format!("{gateway}/visit")).send().await.unwrap();
        assert!(reply.status().is_success(), "{}", reply.text().await.unwrap());
    }
    let reply = http.post(format!("{gateway}/log")).body("hello").send().await.unwrap();
    assert_eq!(reply.status(), 200);

    let registry = up.url("registry");
    let status = run(&["status", "--registry", &registry], &[]);
    let table = String::from_utf8(status.stdout).unwrap();
    assert_eq!(table.lines().filter(|line| line.starts_with("log ")).count(), 2, "{table}");
    assert_eq!(table.lines().filter(|line| line.starts_with("visit ")).count(), 2, "{table}");
    let json = run(&["status", "--json"], &[("HUB_REGISTRY__URL", &registry)]);
    let json: serde_json::Value = serde_json::from_slice(&json.stdout).unwrap();
    assert_eq!(json["Services"]["gateway"].as_array().unwrap().len(), 1);

    up.interrupt();
    assert_eq!(up.exit_code(), Some(0));
    assert_eq!(up.lines.iter().next(), None, "nothing is printed after the banner");
    // A set, because an entry that is not acknowledged in time is sent again.
    let entries: BTreeSet<_> = up.entries().into_iter().collect();
    assert_eq!(entries.len(), 21, "every visit and the hello: {entries:?}");
}

#[tokio::test]
async fn the_count_goes_on_beside_the_log_after_a_restart() {
    let http = reqwest::Client::builder().no_proxy().build().unwrap();
    let visit = async |up: &HubUp, service: &str| {
        let url = format!("{}{}", up.url(service), if service == "gateway" { "/visit" } else { "" });
        http.get(url).send().await.unwrap().text().await.unwrap()
    };
    let mut first = HubUp::start(&["up", "--log", "1"]);
    assert_eq!([visit(&first, "gateway").await, visit(&first, "visit").await], ["1", "2"]);
    first.interrupt();
    assert_eq!(first.exit_code(), Some(0));
    let second = HubUp::start_in(first.dir.clone(), &["up", "--log", "1"]);
    assert_eq!(visit(&second, "gateway").await, "3");
    let texts: Vec<_> = second.entries().into_iter().map(|(_, text)| text).collect();
    assert_eq!(texts, ["visit 1", "visit 2", "visit 3"]);

    // A third one beside it would count the same visits.
    let mut beside = hub(&second.dir, &["up"]);
    beside.envs(ADDRS.map(|key| (format!("HUB_{key}"), "127.0.0.1:0")));
    let beside = beside.output().unwrap();
    let stderr = String::from_utf8(beside.stderr).unwrap();
    assert_eq!(beside.status.code(), Some(1), "{stderr}");
    let expected = format!("another `hub up` is running (process {}); stop it, or choose", second.child.id());
    assert!(stderr.lines().last().unwrap().contains(&expected), "{stderr}");
}

#[tokio::test]
async fn three_registries_share_an_etcd_and_all_visits_count_together() {
    let Some(etcd) = hubspoke_testkit::etcd::start(1).await else { return };
    let endpoints = etcd.endpoints().join(",");
    let args = ["up", "--registries", "3", "--etcd", &endpoints, "--log", "1", "--visit", "2"];
    let mut up = HubUp::start(&args);
    assert!(up.banner.contains("is up: 7 services in one process."), "{}", up.banner);
    assert!(up.banner.contains(&format!("  etcd      {endpoints}\n")), "{}", up.banner);
    let registries: Vec<_> = up.banner.lines().filter_map(|line| line.strip_prefix("  registry  ")).collect();
    assert_eq!(registries.len(), 3, "{}", up.banner);
    let http = reqwest::Client::builder().no_proxy().build().unwrap();
    let get = async |url: String| http.get(url).send().await.unwrap().text().await.unwrap();
    let mut all: Vec<_> = registries.iter().map(ToString::to_string).collect();
    all.sort();
    for registry in &registries {
        // Each learns from etcd what another one has registered.
        eventually("it shows all registries and all instances", async || {
            let view: CatalogView = serde_json::from_str(&get(format!("{registry}/services")).await).unwrap();
            let count = |name| view.services.get(name).map_or(0, |instances| instances.len());
            let shared = view.registries.as_ref().unwrap();
            let mut shown: Vec<_> =
                shared.registries.iter().map(|one| format!("http://{}", one.addr)).collect();
            shown.sort();
            shared.etcd_up && shown == all && ["gateway", "log", "visit"].map(count) == [1, 1, 2]
        })
        .await;
    }
    let gateway = up.url("gateway");
    for number in 1..=20 {
        assert_eq!(get(format!("{gateway}/visit")).await, number.to_string());
    }
    up.interrupt();
    assert_eq!(up.exit_code(), Some(0));

    // Without etcd, the catalogue and the count are those of the folder: the first registry has kept a copy.
    let alone = HubUp::start_in(up.dir.clone(), &["up", "--log", "1"]);
    assert!(!alone.banner.contains("etcd"), "{}", alone.banner);
    assert_eq!(get(format!("{}/visit", alone.url("gateway"))).await, "1");
    drop(alone);
    // With it, the count goes on.
    let again = HubUp::start_in(up.dir.clone(), &args);
    assert_eq!(get(format!("{}/visit", again.url("gateway"))).await, "21");
}

#[tokio::test]
async fn the_command_that_the_banner_suggests_works() {
    let mut up = HubUp::start(&["up", "--log", "1"]);
    let line = up.banner.lines().find(|line| line.contains(" status")).unwrap().trim().to_owned();
    assert!(line.starts_with(HUB), "{line}");
    let pasted = Command::new("/bin/sh").args(["-c", &line]).env_clear().output().unwrap();
    assert!(String::from_utf8(pasted.stdout).unwrap().contains("visit-"), "{line}");
    up.interrupt();
    assert_eq!(up.exit_code(), Some(0));
}

/// Visits on new connections until connections are refused. Returns the visit numbers in the responses.
async fn visit_to_the_end(gateway: String) -> BTreeSet<u64> {
    let http = reqwest::Client::builder().no_proxy().pool_max_idle_per_host(0).build().unwrap();
    let mut numbers = BTreeSet::new();
    loop {
        match http.get(format!("{gateway}/visit")).send().await {
            Ok(reply) => {
                let status = reply.status();
                let text = reply.text().await.expect("a complete response");
                assert!(status.is_success(), "{status}: {text}");
                numbers.insert(text.parse().unwrap());
            }
            Err(error) if error.is_connect() => return numbers,
            // The connection was never accepted, so nobody has seen the request. The numbers prove it.
            Err(_) => {}
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn hub_alone_runs_three_logs_and_ctrl_c_loses_no_visit() {
    let mut up = HubUp::start(&[]);
    let logs = up.banner.lines().filter(|line| line.trim_start().starts_with("log ")).count();
    assert_eq!(logs, 3, "{}", up.banner);
    let http = reqwest::Client::builder().no_proxy().build().unwrap();
    let mut watch = http.get(format!("{}/services/watch", up.url("registry"))).send().await.unwrap();
    let watching = tokio::spawn(async move {
        let (mut parser, mut events) = (Parser::new(1 << 20), Vec::new());
        while let Ok(Some(chunk)) = watch.chunk().await {
            parser.feed(&chunk, &mut events).unwrap();
        }
        events
    });
    let visits: Vec<_> = (0..4).map(|_| tokio::spawn(visit_to_the_end(up.url("gateway")))).collect();
    eventually("a hundred visits are logged", async || up.entries().len() >= 100).await;
    up.interrupt();
    assert_eq!(up.exit_code(), Some(0));
    let mut answered = BTreeSet::new();
    for visit in visits {
        answered.append(&mut tokio::time::timeout(DEADLINE, visit).await.unwrap().unwrap());
    }
    let number = |entry: &str| entry.strip_prefix("visit ").unwrap().parse::<u64>().unwrap();
    let logged: BTreeSet<u64> = up.entries().iter().map(|(_, text)| number(text)).collect();
    assert_eq!(answered, logged, "a visit that was counted but not answered, or answered but not logged");

    let events = tokio::time::timeout(DEADLINE, watching).await.unwrap().unwrap();
    let changes = events.iter().filter(|event| event.name == "change");
    let changes = changes.map(|event| serde_json::from_str::<ChangeView>(&event.data).unwrap());
    let left = changes.filter(|change| change.kind == ReasonKind::Deregistered);
    let left: BTreeSet<String> = left.map(|change| change.instance.info.addr).collect();
    assert_eq!(left.len(), 5, "gateway, visit and three logs: {left:?} in {events:?}");
}

/// A terminal that is closed sends SIGHUP.
#[test]
fn a_healthcheck_asks_all_services_and_a_hangup_stops_them_in_order() {
    let mut up = HubUp::start(&["up"]);
    let registry = up.url("registry");
    let listen = [("HUB_LISTEN", registry.strip_prefix("http://").unwrap())];
    let healthy = run(&["healthcheck"], &listen);
    assert_eq!(healthy.status.code(), Some(0), "{}", String::from_utf8_lossy(&healthy.stderr));
    up.signal("HUP");
    assert_eq!(up.exit_code(), Some(0));
}

#[test]
fn an_invalid_configuration_is_one_line_and_exit_code_78() {
    for (args, vars, expected) in [
        (&["up"][..], &[("HUB_LISTENN", "x")][..], "hub: configuration: HUB_LISTENN: unknown key"),
        (&[], &[("HUB_LOG__MAX_ENTRY", "much")], "hub: configuration: HUB_LOG__MAX_ENTRY: "),
        (&["up"], &[("HUB_SHUTDOWN_GRACE", "soon")], "hub: configuration: HUB_SHUTDOWN_GRACE: "),
        (
            &["up"],
            &[("HUB_REGISTRY__URL", "http://r:1")],
            "hub: configuration: HUB_REGISTRY__URL: hub up runs its own registry",
        ),
        (
            &["up"],
            &[("HUB_REGISTRY__TOKEN_FILE", "/none/token")],
            "hub: configuration: registry.token_file /none/token: No such file",
        ),
        (
            &["up", "--registries", "3"],
            &[],
            "hub: configuration: 3 registries (hub.registries) share their catalogue in etcd: name one with --etcd URL",
        ),
        (
            &["--etcd", "127.0.0.1:2379"],
            &[],
            "hub: configuration: --etcd: etcd.endpoints: \"127.0.0.1:2379\" is not a URL with a host and a port",
        ),
        (&["--config", "none.toml"], &[], "hub: configuration: none.toml: can't be read: No such file"),
    ] {
        let output = run(args, vars);
        let stderr = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(78), "{vars:?}: {stderr}");
        assert!(stderr.starts_with(expected) && stderr.lines().count() == 1, "{vars:?}: {stderr}");
        assert!(output.stdout.is_empty());
    }
}

#[test]
fn a_port_in_use_is_one_line_and_exit_code_1() {
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let addr = taken.local_addr().unwrap().to_string();
    for key in ADDRS {
        let vars: Vec<_> = ADDRS.map(|other| format!("HUB_{other}")).into();
        let vars: Vec<_> = vars
            .iter()
            .map(|name| (name.as_str(), if name[4..] == *key { addr.as_str() } else { "127.0.0.1:0" }))
            .collect();
        let output = run(&["up"], &vars);
        let stderr = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(1), "{stderr}");
        let last = stderr.lines().last().unwrap();
        let (variable, key) = (key, key.to_lowercase().replace("__", "."));
        assert!(
            last.contains(&format!(
                "can't listen on {addr} ({key}): the port is in use; is another hub running?"
            )) && last.ends_with(&format!("choose another port with HUB_{variable}")),
            "{stderr}"
        );
    }
}

#[test]
fn status_reports_an_unreachable_registry() {
    let closed = ClosedPort::new();
    let output = run(&["status", "--registry", &closed.url()], &[]);
    assert_eq!(output.status.code(), Some(1));
    let stderr = String::from_utf8(output.stderr).unwrap();
    let expected = format!(
        "hub: no registry answers at {} (connection refused); start one with `{HUB} up`, or name another with \
         --registry URL or HUB_REGISTRY__URL\n",
        closed.url()
    );
    assert_eq!(stderr, expected);
}

#[test]
fn check_config_prints_every_setting_with_its_origin() {
    let output = run(&["--check-config"], &[("HUB_HUB__LOG_REPLICAS", "5"), ("HUB_REGISTRY__TOKEN", "hush")]);
    let text = String::from_utf8(output.stdout).unwrap();
    assert_eq!(output.status.code(), Some(0));
    assert!(text.contains("hub.log_replicas = 5"), "{text}");
    assert!(text.contains("# HUB_HUB__LOG_REPLICAS"), "{text}");
    assert!(!text.contains("hush"), "{text}");
}
