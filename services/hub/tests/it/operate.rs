use std::collections::BTreeSet;

use hubspoke_protocol::InstanceState;
use hubspoke_testkit::{ClosedPort, FakeMember, MemberReply, RawConn, TestServer, eventually, process};

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
    assert!(
        without.stderr.contains("401 Unauthorized") && without.stderr.contains("set HUB_REGISTRY__TOKEN")
    );
    let mut command = platform.command(&["drain", &target]);
    command.env("HUB_REGISTRY__TOKEN", "hush");
    let with = process::run(command).await;
    assert_eq!(with.code, Some(0), "{with:?}");
    let mut command = platform.command(&["undrain", &target]);
    command.env("HUB_REGISTRY__TOKEN", "wrong");
    let wrong = process::run(command).await;
    assert!(
        wrong.stderr.contains("the token in HUB_REGISTRY__TOKEN or registry.token_file is not"),
        "{wrong:?}"
    );
}

#[tokio::test]
async fn requests_to_a_member_that_reports_none_are_counted_by_the_gateway() {
    let platform = TestPlatform::start(&[]).await;
    let shop = FakeMember::start().await;
    shop.on_heartbeat(MemberReply::Body(r#"{"status":"ok"}"#.into()));
    let info = serde_json::to_string(&shop.info("shop", &[])).unwrap();
    let registered = platform.http.post(format!("{}/services", platform.registry())).body(info).send().await;
    assert_eq!(registered.unwrap().status(), 200);
    let load = async || platform.instance("shop", &shop.addr).await.load;
    assert_eq!(load().await, None, "unknown");
    eventually("they are counted", async || {
        platform.http.get(format!("{}/shop/", platform.gateway())).send().await.unwrap();
        load().await.is_some_and(|load| load.requests >= 20)
    })
    .await;
    let status = platform.hub(&["status", "shop"]).await;
    assert!(status.stdout.contains("passing"), "{status:?}");
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
        let expected =
            format!("hub: no registry answers at {} (connection refused); start one with `", closed.url());
        assert!(exit.stderr.starts_with(&expected) && exit.stderr.contains("hub up`"), "{exit:?}");
        assert_eq!(exit.stderr.lines().count(), 1, "{exit:?}");
    }
}

/// Starts a server that answers every request with this text.
async fn answering(text: &'static str) -> TestServer {
    TestServer::script(move |mut conn: RawConn| async move {
        conn.request().await;
        conn.write(text).await;
    })
    .await
}

#[tokio::test]
async fn each_way_not_to_be_a_registry_is_one_line_with_the_next_step() {
    let tls = TestServer::script(|mut conn: RawConn| async move {
        conn.request().await;
        conn.write("\x15\x03\x01\x00\x02\x02\x46").await; // a TLS alert: unexpected message
    })
    .await;
    let closing = TestServer::script(|mut conn: RawConn| async move { drop(conn.request().await) }).await;
    let silent = TestServer::script(|mut conn: RawConn| async move {
        conn.request().await;
        std::future::pending().await
    })
    .await;
    let html =
        answering("HTTP/1.1 200 OK\r\ncontent-type: text/html\r\ncontent-length: 6\r\n\r\n<html>").await;
    let json =
        answering("HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: 2\r\n\r\n{}").await;
    let missing =
        answering("HTTP/1.1 404 Not Found\r\ncontent-type: text/html\r\ncontent-length: 6\r\n\r\n<html>")
            .await;
    let redirect =
        answering("HTTP/1.1 302 Found\r\nlocation: https://elsewhere/\r\ncontent-length: 0\r\n\r\n").await;
    let tls_port =
        answering("HTTP/1.1 400 Bad Request\r\ncontent-type: text/html\r\ncontent-length: 4\r\n\r\nhttp")
            .await;
    let busy = answering("HTTP/1.1 503 Service Unavailable\r\ncontent-length: 8\r\n\r\ngo away\n").await;
    let platform = TestPlatform::start(&[]).await;
    for (url, expected) in [
        (tls.url(), "is not a registry (it does not speak plain HTTP; perhaps that is a TLS port); name"),
        (closing.url(), "is not a registry (it closed the connection without an answer); name"),
        (silent.url(), "(it accepts connections but does not answer in time); check the address"),
        (html.url(), "is not a Hubspoke registry (it answered 200 OK with text/html); name"),
        (json.url(), "is not a Hubspoke registry (it answered 200 OK with application/json); name"),
        (missing.url(), "is not a Hubspoke registry (it answered 404 Not Found with text/html); name"),
        (redirect.url(), "is not a Hubspoke registry (it redirects to https://elsewhere/); name"),
        (tls_port.url(), "is not a Hubspoke registry (it answered 400 Bad Request with text/html); name"),
        (busy.url(), "the registry answered 503 Service Unavailable: go away"),
        (platform.gateway(), "is not a Hubspoke registry (gateway-"),
        (format!("http://{}", platform.addrs.logs[0].0), "is not a Hubspoke registry (log-"),
        ("http://no-such-host.invalid:1".to_owned(), "the host name can't be resolved"),
    ] {
        for args in [&["status"][..], &["watch", "--once"], &["logs"], &["registry", "protect"], &["demo"]] {
            let mut command = command(args);
            command.args(["--registry", &url]);
            let exit = process::run(command).await;
            assert_eq!((exit.code, exit.stderr.lines().count()), (Some(1), 1), "{args:?} {url}: {exit:?}");
            assert!(exit.stderr.contains(expected), "{args:?} {url}: {exit:?}");
            assert!(!exit.stderr.contains("error sending request"), "{exit:?}");
        }
    }
    for (url, code, expected) in [
        (
            "https://127.0.0.1:20000",
            1,
            "https:// needs a certificate of this process: set cert, key and ca in [tls]",
        ),
        ("r:port", 2, "expected http://host:port, such as"),
        ("http://", 2, "expected http://host:port, such as"),
    ] {
        let mut command = command(&["status"]);
        command.args(["--registry", url]);
        let exit = process::run(command).await;
        assert_eq!(exit.code, Some(code), "{exit:?}");
        assert!(exit.stderr.contains(expected), "{exit:?}");
    }
    let status = platform.hub(&["status", "--registry", &platform.addrs.registry.to_string()]).await;
    assert_eq!(status.code, Some(0), "without http://: {status:?}");
}
