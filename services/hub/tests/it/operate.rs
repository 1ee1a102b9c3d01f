use std::collections::BTreeSet;

use hubspoke_protocol::InstanceState;
use hubspoke_testkit::{ClosedPort, RawConn, TestServer, eventually, process};

use crate::platform::{TestPlatform, command};

#[tokio::test]
async fn a_drained_instance_gets_no_requests_until_it_is_undrained() {
    let platform = TestPlatform::start(&[("HUB_HUB__LOG_REPLICAS", "2")]).await;
    let drained = platform.addrs.logs[0].0.to_string();
    let logged_by = async || {
        let reply = platform.http.get(format!("{}/visit", platform.gateway())).send().await.unwrap();
        reply.headers()["hub-logged-by"].to_str().unwrap().to_owned()
    };
    let over_both = async || {
        let mut seen = BTreeSet::new();
        for _ in 0..40 {
            seen.insert(logged_by().await);
        }
        seen.len() == 2
    };
    let exit = platform.hub(&["drain", &format!("log/{drained}")]).await;
    assert_eq!(
        (exit.code, exit.stdout.as_str()),
        (Some(0), format!("log/{drained} is draining\n").as_str()),
        "{exit:?}"
    );
    assert_eq!(platform.instance("log", &drained).await.state, InstanceState::Draining);
    eventually("only the other one gets entries", async || !over_both().await).await;
    assert!(!over_both().await);

    let id = platform.instance("log", &drained).await.info.id().to_owned();
    let exit = platform.hub(&["undrain", &format!("log/{id}")]).await;
    assert_eq!(
        (exit.code, exit.stdout.as_str()),
        (Some(0), format!("log/{id} is no longer draining\n").as_str())
    );
    assert_eq!(platform.instance("log", &drained).await.state, InstanceState::Passing);
    eventually("both get entries", over_both).await;
}

#[tokio::test]
async fn a_dead_instance_is_deregistered() {
    let platform = TestPlatform::start(&[("HUB_REGISTRY__HEARTBEAT__INTERVAL", "60s")]).await;
    let ghost = r#"{"Name":"ghost","Addr":"127.0.0.1:9"}"#;
    let services = format!("{}/services", platform.registry());
    assert_eq!(platform.http.post(&services).body(ghost).send().await.unwrap().status(), 200);
    let exit = platform.hub(&["deregister", "ghost/127.0.0.1:9"]).await;
    assert_eq!(
        (exit.code, exit.stdout.as_str()),
        (Some(0), "ghost/127.0.0.1:9 is deregistered\n"),
        "{exit:?}"
    );
    assert_eq!(platform.instance("ghost", "127.0.0.1:9").await.state, InstanceState::Removed);
    let exit = platform.hub(&["deregister", "ghost/127.0.0.1:1"]).await;
    assert_eq!(exit.code, Some(1));
    assert!(exit.stderr.starts_with("hub: the registry answered 404 Not Found: no instance of"), "{exit:?}");
}

#[tokio::test]
async fn self_protection_is_shown_and_switched() {
    let platform = TestPlatform::start(&[]).await;
    for (args, expected) in [
        (&["registry", "protect"][..], "self-protection is on"),
        (&["registry", "protect", "off"], "self-protection is off"),
        (&["registry", "protect"], "self-protection is off"),
        (&["registry", "protect", "on"], "self-protection is on"),
    ] {
        let exit = platform.hub(args).await;
        assert_eq!(exit.code, Some(0), "{args:?}: {exit:?}");
        assert!(exit.stdout.starts_with(expected), "{args:?}: {exit:?}");
    }
}

#[tokio::test]
async fn a_registry_with_a_token_requires_it() {
    let platform = TestPlatform::start(&[("HUB_REGISTRY__TOKEN", "hush")]).await;
    let target = format!("log/{}", platform.addrs.logs[0].0);
    let without = platform.hub(&["drain", &target]).await;
    assert_eq!(without.code, Some(1));
    assert!(without.stderr.contains("401 Unauthorized") && without.stderr.contains("HUB_REGISTRY__TOKEN"));
    let mut command = platform.command(&["drain", &target]);
    command.env("HUB_REGISTRY__TOKEN", "hush");
    let with = process::run(command).await;
    assert_eq!(with.code, Some(0), "{with:?}");
}

#[tokio::test]
async fn only_changes_send_the_token() {
    let (sender, mut requests) = tokio::sync::mpsc::unbounded_channel();
    let server = TestServer::script(move |mut conn: RawConn| {
        let sender = sender.clone();
        async move {
            let _ = sender.send(conn.request().await.unwrap_or_default().to_lowercase());
            conn.write("HTTP/1.1 503 Service Unavailable\r\nconnection: close\r\ncontent-length: 0\r\n\r\n")
                .await;
        }
    })
    .await;
    for (args, sends_token) in [
        (&["status"][..], false),
        (&["watch", "--once"], false),
        (&["registry", "protect"], false),
        (&["registry", "protect", "off"], true),
        (&["drain", "log/x"], true),
        (&["deregister", "log/x"], true),
    ] {
        let mut command = command(args);
        command.args(["--registry", &server.url()]).env("HUB_REGISTRY__TOKEN", "hush");
        assert_eq!(process::run(command).await.code, Some(1), "{args:?}");
        let request = requests.recv().await.unwrap();
        assert_eq!(request.contains("authorization: bearer hush"), sends_token, "{args:?}: {request}");
    }
}

#[tokio::test]
async fn an_unreachable_registry_is_one_line_and_exit_code_1() {
    let closed = ClosedPort::new();
    for args in [&["drain", "log/x"][..], &["registry", "protect"], &["demo"]] {
        let mut command = command(args);
        command.env("HUB_REGISTRY__URL", closed.url());
        let exit = process::run(command).await;
        assert_eq!(exit.code, Some(1), "{args:?}: {exit:?}");
        let expected = format!("hub: can't reach the registry at {}: Connection refused", closed.url());
        assert!(exit.stderr.starts_with(&expected), "{exit:?}");
        assert_eq!(exit.stderr.lines().count(), 1, "{exit:?}");
    }
}
