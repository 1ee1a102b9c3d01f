//! A registry that runs out of file descriptors.

use std::process::Stdio;
use std::time::Duration;

use hubspoke_protocol::{CatalogView, InstanceState, ReasonKind, ServiceInfo};
use hubspoke_testkit::{FakeMember, MemberReply, eventually};
use tokio::process::Command;

const MEMBERS: usize = 100;

/// Members answer slowly, so that more heartbeats are due at once than there are file descriptors.
#[tokio::test]
async fn a_registry_without_file_descriptors_removes_no_members() {
    // No other process uses this address, so the port stays free until the registry binds it.
    let [a, b, c]: [u8; 3] = rand::random();
    let listen = std::net::TcpListener::bind(format!("127.{a}.{b}.{}:0", c.clamp(1, 254))).unwrap();
    let addr = listen.local_addr().unwrap();
    drop(listen);
    let _registry = Command::new("sh")
        .args(["-c", "ulimit -n 48; exec \"$0\"", env!("CARGO_BIN_EXE_registry")])
        .env_clear()
        .env("HUB_LISTEN", addr.to_string())
        .env("HUB_REGISTRY__HEARTBEAT__INTERVAL", "200ms")
        .env("HUB_REGISTRY__HEARTBEAT__GAP", "20ms")
        .env("HUB_REGISTRY__HEARTBEAT__TIMEOUT", "10s")
        .env("HUB_REGISTRY__PROTECTION__ENABLED", "false")
        .current_dir(std::env::temp_dir())
        .stderr(Stdio::null())
        .kill_on_drop(true)
        .spawn()
        .unwrap();
    let http = reqwest::Client::builder().no_proxy().build().unwrap();
    let url = format!("http://{addr}/services");
    eventually("it serves", || async { http.get(&url).send().await.is_ok() }).await;

    let fake = FakeMember::on("0.0.0.0:0").await;
    fake.on_heartbeat(MemberReply::Delayed(Duration::from_millis(150)));
    let port = fake.addr.rsplit_once(':').unwrap().1.to_owned();
    for i in 1..=MEMBERS {
        let info = ServiceInfo::new("log", format!("127.2.0.{i}:{port}"));
        let reply = http.post(&url).body(serde_json::to_string(&info).unwrap()).send().await.unwrap();
        assert_eq!(reply.status(), 200);
    }
    eventually("they get several heartbeats each", || async { fake.heartbeats().len() > 5 * MEMBERS }).await;
    let view: CatalogView = http.get(&url).send().await.unwrap().json().await.unwrap();
    let members = &view.services["log"];
    assert_eq!(members.len(), MEMBERS);
    for member in members {
        assert_eq!(member.state, InstanceState::Passing);
        assert!(member.reasons.iter().all(|reason| reason.kind == ReasonKind::Registered), "{member:?}");
    }
}
