use std::collections::BTreeSet;

use hubspoke_protocol::InstanceState;

use crate::platform::{Platform, command, eventually, ran};

#[tokio::test]
async fn a_drained_instance_gets_no_requests_until_it_is_undrained() {
    let platform = Platform::start(&[("HUB_HUB__LOG_REPLICAS", "2")]).await;
    let drained = platform.addrs.logs[0].0.to_string();
    let logged_by = || async {
        let reply = platform.http.get(format!("{}/visit", platform.gateway())).send().await.unwrap();
        reply.headers()["hub-logged-by"].to_str().unwrap().to_owned()
    };
    let over_both = || async {
        let mut seen = BTreeSet::new();
        for _ in 0..40 {
            seen.insert(logged_by().await);
        }
        seen.len() == 2
    };
    let ran = platform.hub(&["drain", &format!("log/{drained}")]).await;
    assert_eq!(
        (ran.code, ran.stdout.as_str()),
        (Some(0), format!("log/{drained} is draining\n").as_str()),
        "{ran:?}"
    );
    assert_eq!(platform.instance("log", &drained).await.state, InstanceState::Draining);
    eventually("only the other one gets entries", || async { !over_both().await }).await;
    assert!(!over_both().await);

    let id = platform.instance("log", &drained).await.info.id().to_owned();
    let ran = platform.hub(&["undrain", &format!("log/{id}")]).await;
    assert_eq!(
        (ran.code, ran.stdout.as_str()),
        (Some(0), format!("log/{id} takes requests again\n").as_str())
    );
    assert_eq!(platform.instance("log", &drained).await.state, InstanceState::Passing);
    eventually("both get entries", over_both).await;
}

#[tokio::test]
async fn a_ghost_is_deregistered() {
    let platform = Platform::start(&[("HUB_REGISTRY__HEARTBEAT__INTERVAL", "60s")]).await;
    let ghost = r#"{"Name":"ghost","Addr":"127.0.0.1:9"}"#;
    let services = format!("{}/services", platform.registry());
    assert_eq!(platform.http.post(&services).body(ghost).send().await.unwrap().status(), 200);
    let ran = platform.hub(&["deregister", "ghost/127.0.0.1:9"]).await;
    assert_eq!((ran.code, ran.stdout.as_str()), (Some(0), "ghost/127.0.0.1:9 is deregistered\n"), "{ran:?}");
    assert_eq!(platform.instance("ghost", "127.0.0.1:9").await.state, InstanceState::Removed);
    let ran = platform.hub(&["deregister", "ghost/127.0.0.1:1"]).await;
    assert_eq!(ran.code, Some(1));
    assert!(ran.stderr.starts_with("hub: the registry answers 404 Not Found: no instance of"), "{ran:?}");
}

#[tokio::test]
async fn self_protection_is_switched() {
    let platform = Platform::start(&[]).await;
    for (args, says) in [
        (&["registry", "protect"][..], "self-protection is on"),
        (&["registry", "protect", "off"], "self-protection is off"),
        (&["registry", "protect"], "self-protection is off"),
        (&["registry", "protect", "on"], "self-protection is on"),
    ] {
        let ran = platform.hub(args).await;
        assert_eq!(ran.code, Some(0), "{args:?}: {ran:?}");
        assert!(ran.stdout.starts_with(says), "{args:?}: {ran:?}");
    }
}

#[tokio::test]
async fn a_registry_with_a_token_wants_it() {
    let platform = Platform::start(&[("HUB_REGISTRY__TOKEN", "hush")]).await;
    let target = format!("log/{}", platform.addrs.logs[0].0);
    let ran_without = platform.hub(&["drain", &target]).await;
    assert_eq!(ran_without.code, Some(1));
    assert!(
        ran_without.stderr.contains("401 Unauthorized") && ran_without.stderr.contains("HUB_REGISTRY__TOKEN")
    );
    let mut with = platform.command(&["drain", &target]);
    with.env("HUB_REGISTRY__TOKEN", "hush");
    let ran_with = ran(with).await;
    assert_eq!(ran_with.code, Some(0), "{ran_with:?}");
}

#[tokio::test]
async fn no_registry_is_one_line_and_exit_code_1() {
    let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    for args in [&["drain", "log/x"][..], &["registry", "protect"], &["demo"]] {
        let mut command = command(args);
        command.env("HUB_REGISTRY__URL", format!("http://{free}"));
        let ran = ran(command).await;
        assert_eq!(ran.code, Some(1), "{args:?}: {ran:?}");
        assert!(ran.stderr.starts_with(&format!("hub: no registry answers at http://{free}")), "{ran:?}");
        assert_eq!(ran.stderr.lines().count(), 1, "{ran:?}");
    }
}
