//! Another service decides whether a request may pass, over HTTP/1 and HTTP/2.

use std::time::Duration;

use hubspoke_gateway::config::{AuthConfig, CorsConfig, ServiceConfig};
use tokio::task::JoinSet;

use super::callers::{Caller, read};
use super::support::*;

/// A gateway that exposes `shop` and asks `login` about its requests.
async fn gateway(change: impl FnOnce(&mut AuthConfig)) -> Gateway {
    Gateway::start(|config| {
        let mut auth = AuthConfig::default();
        auth.service = "login".to_owned();
        auth.path = "/login/verify".to_owned();
        auth.headers = vec!["x-user".to_owned(), "x-groups".to_owned()];
        change(&mut auth);
        let mut shop = ServiceConfig::default();
        (shop.auth, shop.strip) = (Some(auth), Some(true));
        shop.cors = Some(CorsConfig::default());
        shop.cors.as_mut().unwrap().origins = vec!["https://app.test".to_owned()];
        config.services.insert("shop".to_owned(), shop);
        config.expose = vec!["shop".to_owned()];
    })
    .await
}

/// Lets whoever has the cookie pass, and shows any other one the way to the form.
async fn login() -> FakeInstance {
    FakeInstance::script(|mut raw, seen| async move {
        while let Some(request) = raw.request().await {
            raw.write(match header(&request, "cookie").as_deref() {
                Some("id=ada") => "HTTP/1.1 200 OK\r\nx-user: ada\r\nx-other: 1\r\ncontent-length: 2\r\n\r\nok",
                Some("id=slow") => "HTTP/1.1 204 No Content\r\n\r\n",
                Some("id=long") => "HTTP/1.1 403 Forbidden\r\ncontent-length: 1000000\r\n\r\n",
                Some("id=hint") => "HTTP/1.1 103 Early Hints\r\nlink: </a>\r\n\r\nHTTP/1.1 401 Unauthorized\r\n\
                                    www-authenticate: Basic\r\ncontent-length: 3\r\n\r\nno!",
                _ => "HTTP/1.1 302 Found\r\nlocation: /login/?next=/\r\nset-cookie: a=b\r\ncontent-length: 0\r\n\r\n",
            })
            .await;
            if header(&request, "cookie").as_deref() == Some("id=long") {
                raw.write("x".repeat(1_000_000)).await;
            }
            seen.lock().unwrap().push(request);
        }
    })
    .await
}

#[tokio::test]
async fn a_request_passes_if_the_other_service_lets_it() {
    let (shop, login) = (FakeInstance::responding(HELLO).await, login().await);
    let gateway = gateway(|_| ()).await;
    gateway.set("shop", &[shop.info("shop")]).await;
    gateway.set("login", &[login.info("login")]).await;
    let mut tasks = JoinSet::new();
    for mut caller in Caller::both(&gateway, &mut tasks).await {
        let fields = [
            ("cookie", "id=ada"),
            ("x-user", "root"),
            ("x-groups", "admin"),
            ("x-other", "2"),
            ("if-none-match", "\"1\""),
            ("x-forwarded-uri", "/forged"),
        ];
        let response = caller.send("POST", "http://hub.test/shop/a?b=c", &fields, "the body").await;
        assert_eq!((read(response).await).text(), "hello");
        let got = shop.seen.lock().unwrap().pop().unwrap();
        assert!(got.starts_with("POST /a?b=c ") && got.ends_with("the body"), "{got}");
        assert_eq!((header(&got, "x-user").as_deref(), header(&got, "x-groups")), (Some("ada"), None));
        assert_eq!((header(&got, "x-other").as_deref(), header(&got, "x-forwarded-uri")), (Some("2"), None));
        assert_eq!(header(&got, "if-none-match").as_deref(), Some("\"1\""));

        let asked = login.seen.lock().unwrap().pop().unwrap();
        assert!(
            asked.starts_with("GET /login/verify HTTP/1.1\r\n") && asked.ends_with("\r\n\r\n"),
            "{asked}"
        );
        for (name, value) in [
            ("cookie", Some("id=ada")),
            ("x-forwarded-method", Some("POST")),
            ("x-forwarded-uri", Some("/shop/a?b=c")),
            ("x-forwarded-host", Some("hub.test")),
            ("x-forwarded-proto", Some("http")),
            ("x-forwarded-for", Some("127.0.0.1")),
            ("x-forwarded-prefix", None),
            ("content-length", None),
            ("if-none-match", None),
        ] {
            assert_eq!(header(&asked, name).as_deref(), value, "{name}");
        }
    }
    // One connection for all questions.
    assert_eq!(gateway.metric("requests", &["login"]).await, 2);
    assert_eq!(gateway.get("/login/").await.status(), 404, "it need not be public");
}

#[tokio::test]
async fn any_other_answer_goes_to_the_client_and_the_request_nowhere() {
    let (shop, login) = (FakeInstance::responding(HELLO).await, login().await);
    let gateway = gateway(|_| ()).await;
    gateway.set("shop", &[shop.info("shop")]).await;
    gateway.set("login", &[login.info("login")]).await;
    let mut tasks = JoinSet::new();
    for mut caller in Caller::both(&gateway, &mut tasks).await {
        let fields = [("origin", "https://app.test")];
        let answer = caller.call("GET", "http://shop.localhost/a", &fields).await;
        assert_eq!((answer.status, answer.header("location")), (302, Some("/login/?next=/")));
        assert_eq!(
            (answer.header("set-cookie"), answer.header("hub-instance")),
            (Some("a=b"), Some(&*format!("login-{}", login.addr.port())))
        );
        assert_eq!(answer.header("access-control-allow-origin"), Some("https://app.test"));
        let answer = caller.call("PUT", "http://hub.test/shop/", &[("cookie", "id=hint")]).await;
        assert_eq!(
            (answer.status, answer.text(), answer.header("www-authenticate")),
            (401, "no!", Some("Basic"))
        );
        let head = caller.call("HEAD", "http://hub.test/shop/", &[("cookie", "id=hint")]).await;
        assert_eq!((head.status, head.body.len()), (401, 0));
        let long = caller.call("GET", "http://hub.test/shop/", &[("cookie", "id=long")]).await;
        let problem: serde_json::Value = serde_json::from_str(long.text()).unwrap();
        assert_eq!(
            (long.status, &problem["cause"], &problem["service"]),
            (502, &"bad-reply".into(), &"login".into())
        );
        let ask = [("origin", "https://app.test"), ("access-control-request-method", "GET")];
        let preflight = caller.call("OPTIONS", "http://hub.test/shop/", &ask).await;
        assert_eq!(preflight.status, 204, "browsers send no credentials with it");
        let upload = caller.send("POST", "http://hub.test/shop/", &[], vec![b'x'; 100_000]).await;
        assert_eq!(read(upload).await.status, 302);
    }
    assert_eq!(shop.requests().len(), 0);
}

#[tokio::test]
async fn without_an_answer_no_request_passes() {
    let (shop, silent) = (FakeInstance::responding(HELLO).await, silent().await);
    let gateway = gateway(|auth| auth.timeout = Duration::from_millis(300)).await;
    gateway.set("shop", &[shop.info("shop")]).await;
    let mut tasks = JoinSet::new();
    let mut callers = Caller::both(&gateway, &mut tasks).await;
    let closed = ClosedPort::new();
    let dead = hubspoke_protocol::ServiceInfo::new("login", closed.addr().to_string());
    for (instances, status, cause) in [
        (vec![], 503, "no-instance"),
        (vec![dead.clone()], 502, "connect-refused"),
        (vec![silent.info("login")], 504, "reply-timeout"),
    ] {
        gateway.set("login", &instances).await;
        for caller in &mut callers {
            let answer = caller.call("GET", "http://hub.test/shop/", &[]).await;
            let problem: serde_json::Value = serde_json::from_str(answer.text()).unwrap();
            assert_eq!((answer.status, problem["cause"].as_str()), (status, Some(cause)));
            assert_eq!(problem["service"], "login");
        }
    }
    assert_eq!(shop.requests().len(), 0);
    // It is balanced and retried as any other service.
    let login = login().await;
    gateway.set("login", &[dead, login.info("login")]).await;
    for caller in &mut callers {
        for _ in 0..20 {
            assert_eq!(
                caller.call("GET", "http://hub.test/shop/", &[("cookie", "id=ada")]).await.status,
                200
            );
        }
    }
    assert_eq!(shop.requests().len(), 40);
}
