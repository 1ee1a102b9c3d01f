//! The table of rights in `docs/security.md`: every route of every service is asked as every subject.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use hubspoke::config::HubConfig;
use hubspoke::up::{Hub, HubAddrs};
use hubspoke_chassis::config::ConfigSource;
use hubspoke_chassis::rights::{Role, TokenEntry, hash_of};
use hubspoke_testkit::{DEADLINE, eventually};
use reqwest::{Client, Method, StatusCode};
use tokio::sync::oneshot;
use tokio::task::JoinHandle;

/// The columns of the table and the tokens for them. The requests are about the service `shop`.
const SUBJECTS: [(&str, Option<&str>); 5] = [
    ("nobody", None),
    ("reader", Some("t-reader")),
    ("other member", Some("t-cart")),
    ("member", Some("t-shop")),
    ("operator", Some("t-operator")),
];
const INSTANCE: &str = "127.1.2.3:9";

struct SecuredPlatform {
    addrs: HubAddrs,
    http: Client,
    tokens_file: PathBuf,
    _folder: tempfile::TempDir,
    _stop: oneshot::Sender<()>,
    _task: JoinHandle<()>,
}

fn member(name: &str) -> Role {
    Role::Member(vec![name.to_owned()])
}

fn lines(tokens: &[(&str, Role)]) -> String {
    let line = |(name, role): &(&str, Role)| {
        let entry = TokenEntry {
            name: name.to_string(),
            role: role.clone(),
            hosts: Vec::new(),
            expires: None,
            hash: hash_of(name),
        };
        format!("{entry}\n")
    };
    tokens.iter().map(line).collect()
}

impl SecuredPlatform {
    async fn start() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let tokens_file = folder.path().join("tokens");
        let tokens = [
            ("t-reader", Role::Reader),
            ("t-cart", member("cart")),
            ("t-shop", member("shop")),
            ("t-operator", Role::Operator),
        ];
        std::fs::write(&tokens_file, lines(&tokens)).unwrap();
        let any = "127.0.0.1:0";
        let vars = [
            ("HUB_LISTEN", any),
            ("HUB_HUB__GATEWAY", any),
            ("HUB_HUB__GATEWAY_CONTROL", any),
            ("HUB_HUB__LOG", any),
            ("HUB_HUB__VISIT", any),
            ("HUB_HUB__LOG_REPLICAS", "2"),
            ("HUB_HUB__DATA_DIR", folder.path().to_str().unwrap()),
            ("HUB_ACCESS__TOKENS_FILE", tokens_file.to_str().unwrap()),
        ];
        let vars = vars.map(|(name, value)| (name.to_owned(), value.to_owned())).into();
        let source = ConfigSource { vars, folder: "none".into(), file: None };
        let hub = Hub::bind(&HubConfig::load(&source).unwrap().0).await.unwrap();
        let addrs = hub.addrs().clone();
        let (stop, stopped) = oneshot::channel::<()>();
        let task = tokio::spawn(async move { hub.run(async { drop(stopped.await) }).await.unwrap() });
        addrs.ready(DEADLINE).await.unwrap();
        let http = Client::builder().no_proxy().build().unwrap();
        Self { addrs, http, tokens_file, _folder: folder, _stop: stop, _task: task }
    }

    async fn send(
        &self,
        server: SocketAddr,
        method: &str,
        path: &str,
        token: Option<&str>,
    ) -> reqwest::Response {
        let method: Method = method.parse().unwrap();
        let registers = server == self.addrs.registry && path == "/services" && method != Method::GET;
        let body = match path {
            "/services" if registers => format!(r#"{{"Name":"shop","Addr":"{INSTANCE}"}}"#),
            "/protection" => r#"{"Enabled":true}"#.to_owned(),
            _ => "text".to_owned(),
        };
        let mut request = self.http.request(method.clone(), format!("http://{server}{path}"));
        if method != Method::GET {
            request = request.body(body);
        }
        if let Some(token) = token {
            request = request.bearer_auth(token);
        }
        request.send().await.unwrap()
    }

    fn server(&self, service: &str) -> SocketAddr {
        match service {
            "registry" => self.addrs.registry,
            "log" => self.addrs.logs[0].0,
            "visit" | "every member" => self.addrs.visits[0],
            "gateway" => self.addrs.gateway,
            other => panic!("the table names the service {other:?}"),
        }
    }
}

struct TableRow {
    service: String,
    method: String,
    path: String,
    allowed: Vec<bool>,
}

fn table() -> Vec<TableRow> {
    let text = std::fs::read_to_string(root().join("docs/security.md")).unwrap();
    let header = format!("| service | request | {} |", SUBJECTS.map(|(name, _)| name).join(" | "));
    let rows = text.split_once(&header).expect("the table of rights").1.lines().skip(2);
    let rows = rows.take_while(|line| line.starts_with('|')).map(|line| {
        let cells: Vec<_> = line.trim_matches('|').split('|').map(str::trim).collect();
        let (method, path) = cells[1].trim_matches('`').split_once(' ').unwrap();
        let allowed = cells[2..].iter().map(|cell| match *cell {
            "yes" => true,
            "–" => false,
            other => panic!("{other:?} in {line}"),
        });
        let allowed: Vec<_> = allowed.collect();
        assert_eq!(allowed.len(), SUBJECTS.len(), "{line}");
        TableRow { service: cells[0].to_owned(), method: method.to_owned(), path: path.to_owned(), allowed }
    });
    rows.collect()
}

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

#[tokio::test(flavor = "multi_thread")]
async fn every_subject_may_do_what_the_table_says_and_nothing_else() {
    let platform = SecuredPlatform::start().await;
    for TableRow { service, method, path, allowed } in table() {
        let server = platform.server(&service);
        let target =
            path.replace("{name}", "shop").replace("{instance}", INSTANCE).replace("{file}", "app.js");
        for ((subject, token), allowed) in SUBJECTS.into_iter().zip(allowed) {
            let reply = platform.send(server, &method, &target, token).await;
            let status = reply.status();
            let refused = [StatusCode::UNAUTHORIZED, StatusCode::FORBIDDEN].contains(&status);
            assert_eq!(!refused, allowed, "{service} {method} {path} as {subject}: {status}");
            assert_ne!(status, StatusCode::METHOD_NOT_ALLOWED, "{service} {method} {path}");
            if refused && service != "every member" {
                let expected = if token.is_none() { 401 } else { 403 };
                assert_eq!(status, expected, "{service} {method} {path} as {subject}");
                let challenged = reply.headers().contains_key("www-authenticate");
                assert_eq!(challenged, status == StatusCode::UNAUTHORIZED, "{service} {method} {path}");
            }
        }
    }
}

/// A route that is added to a service is added to the table.
#[test]
fn the_table_has_every_route() {
    let rows = table();
    let has = |service: &str, method: &str, path: &str| {
        rows.iter().any(|row| (&*row.service, &*row.method, &*row.path) == (service, method, path))
    };
    let text = std::fs::read_to_string(root().join("services/registry/openapi.json")).unwrap();
    let openapi: serde_json::Value = serde_json::from_str(&text).unwrap();
    for (path, methods) in openapi["paths"].as_object().unwrap() {
        for method in methods.as_object().unwrap().keys().filter(|key| *key != "parameters") {
            let method = method.to_uppercase();
            assert!(has("registry", &method, path), "the table of rights has no {method} {path}");
        }
    }
    let mut routes = BTreeMap::new();
    for file in
        ["log/src/api.rs", "visit/src/api.rs", "client/src/membership/routes.rs", "chassis/src/health.rs"]
    {
        let text = std::fs::read_to_string(root().join("services").join(file)).unwrap();
        routes.insert(file, text.matches(".route(").count());
    }
    let rows_of = |service: &str| {
        let mut paths: Vec<_> =
            rows.iter().filter(|row| row.service == service).map(|row| &row.path).collect();
        paths.sort();
        paths.dedup();
        paths.len()
    };
    assert_eq!(routes["log/src/api.rs"], rows_of("log"), "routes of the log service");
    assert_eq!(routes["visit/src/api.rs"], rows_of("visit"), "routes of visit");
    let common = routes["client/src/membership/routes.rs"] + routes["chassis/src/health.rs"] + 1;
    assert_eq!(common, rows_of("every member"), "routes of every member, /metrics among them");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_is_for_its_own_name_until_it_is_revoked() {
    let platform = SecuredPlatform::start().await;
    let register = async |name: &str, token: &str| {
        let body = format!(r#"{{"Name":"{name}","Addr":"{INSTANCE}"}}"#);
        let url = format!("http://{}/services", platform.addrs.registry);
        platform.http.post(url).bearer_auth(token).body(body).send().await.unwrap()
    };
    // The attack for which all this is: a share of another service's traffic, with its callers' credentials.
    let stolen = register("visit", "t-shop").await;
    assert_eq!(stolen.status(), 403);
    let problem = stolen.text().await.unwrap();
    assert!(
        problem.contains("urn:hubspoke:problem:not-permitted") && problem.contains("(member shop)"),
        "{problem}"
    );
    assert_eq!(register("shop", "t-shop").await.status(), 200);
    // In the name of another: an entry.
    let entry = |source: &str| {
        let url = format!("http://{}/log", platform.addrs.logs[0].0);
        platform.http.post(url).bearer_auth("t-shop").header("hub-source", source.to_owned()).body("x").send()
    };
    assert_eq!(entry("shop/1").await.unwrap().status(), 200);
    assert_eq!(entry("visit/1").await.unwrap().status(), 403);
    std::fs::write(&platform.tokens_file, lines(&[("t-reader", Role::Reader)])).unwrap();
    eventually("the token is revoked", async || register("shop", "t-shop").await.status() == 401).await;
    // A file that can't be used revokes nothing, and lets nobody in.
    std::fs::write(&platform.tokens_file, "t-shop member shop").unwrap();
    eventually("the registry reports it", async || {
        let log = platform.send(platform.addrs.logs[0].0, "GET", "/log", Some("t-reader")).await;
        assert_eq!(log.status(), 200);
        let metrics = platform.send(platform.addrs.logs[0].0, "GET", "/metrics", None).await;
        metrics
            .text()
            .await
            .unwrap()
            .lines()
            .any(|line| line.starts_with("hub_access_tokens_stale") && line.ends_with(" 1"))
    })
    .await;
    assert_eq!(register("shop", "t-shop").await.status(), 401);
    let metrics = platform.send(platform.addrs.registry, "GET", "/metrics", None).await.text().await.unwrap();
    let unknown = metrics.lines().find(|line| line.contains(r#"reason="unknown""#)).unwrap_or_default();
    assert!(unknown.starts_with("hub_access_refused") && !unknown.ends_with(" 0"), "{unknown}");
}

/// A host is worth as much as a name: whoever has it gets its callers' credentials.
#[tokio::test(flavor = "multi_thread")]
async fn a_member_gets_the_hosts_of_its_token_and_of_its_name() {
    let platform = SecuredPlatform::start().await;
    let hosts = "t-hosts member shop host=shop.example\nt-shop member shop\n";
    let hosts = hosts.lines().map(|line| {
        let name = line.split(' ').next().unwrap();
        format!("{line} {}\n", lines(&[(name, Role::Reader)]).split_whitespace().last().unwrap())
    });
    std::fs::write(&platform.tokens_file, hosts.collect::<String>()).unwrap();
    let register = async |hosts: &str, token: &str| {
        let body = format!(
            r#"{{"Name":"shop","Addr":"{INSTANCE}","Meta":{{"route.hosts":"{hosts}","route.strip":"true"}}}}"#
        );
        let url = format!("http://{}/services", platform.addrs.registry);
        let reply = platform.http.post(url).bearer_auth(token).body(body).send().await.unwrap();
        (reply.status().as_u16(), reply.text().await.unwrap())
    };
    eventually("the token is known", async || register("", "t-hosts").await.0 == 200).await;
    assert_eq!(register("shop.example, shop.localhost", "t-hosts").await.0, 200);
    assert_eq!(register("shop.localhost", "t-shop").await.0, 200);
    for (hosts, token) in [
        ("shop.example", "t-shop"),
        ("shop.localhost,SHOP.example", "t-shop"),
        ("www.shop.example", "t-hosts"),
        ("a.shop.localhost", "t-shop"),
        ("visit.localhost", "t-shop"),
    ] {
        let (status, problem) = register(hosts, token).await;
        assert_eq!(status, 403, "{hosts} {token}");
        let why = format!("the token {token} (member shop) may not ask for the host");
        assert!(problem.contains(&why), "{problem}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn readers_see_the_entries_of_all_instances() {
    let platform = SecuredPlatform::start().await;
    // Visit and the log instances themselves have the token of the process.
    assert_eq!(platform.send(platform.addrs.gateway, "GET", "/visit", None).await.status(), 200);
    for (log, _) in &platform.addrs.logs {
        let all = platform.send(*log, "GET", "/log/all", Some("t-reader")).await;
        assert!(!all.headers().contains_key("hub-log-missing"), "{:?}", all.headers());
        assert!(all.text().await.unwrap().contains("visit"));
    }
    // The page's stream: the registry shows each log instance its push key.
    let mut tail = platform.send(platform.addrs.registry, "GET", "/log/tail", Some("t-reader")).await;
    let mut text = String::new();
    while !text.contains(r#"{"Open":2,"Known":2}"#) {
        let chunk = tokio::time::timeout(DEADLINE, tail.chunk()).await.expect("both instances answer");
        text += &String::from_utf8_lossy(&chunk.unwrap().expect("the stream goes on"));
    }
}
