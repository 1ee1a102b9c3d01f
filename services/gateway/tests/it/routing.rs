//! Which service gets a request, and what the gateway answers if there is none.

use super::support::*;

#[tokio::test]
async fn path_query_body_and_headers_are_passed_on_unchanged() {
    let instance = FakeInstance::responding(HELLO).await;
    let gateway = Gateway::with("echo", &instance).await;
    let response = gateway
        .request("POST", "/echo/a%20b/?q=1&q=%2e")
        .header("x-own", "1")
        .body("body")
        .send()
        .await
        .unwrap();
    assert_eq!(response.status(), 200);
    assert_eq!(response.headers()["hub-instance"], instance.info("echo").id());
    assert_eq!(response.text().await.unwrap(), "hello");
    let seen = instance.requests().remove(0);
    assert!(seen.starts_with("POST /echo/a%20b/?q=1&q=%2e HTTP/1.1\r\n"), "{seen}");
    assert!(seen.ends_with("\r\n\r\nbody"), "{seen}");
    assert_eq!(header(&seen, "host"), Some(gateway.addr.to_string()));
    assert_eq!(header(&seen, "x-own").as_deref(), Some("1"));
    assert_eq!(header(&seen, "x-forwarded-for").as_deref(), Some("127.0.0.1"));
    assert_eq!(header(&seen, "x-forwarded-host"), Some(gateway.addr.to_string()));
    assert_eq!(header(&seen, "x-forwarded-proto").as_deref(), Some("http"));
    assert!(header(&seen, "via").unwrap().starts_with("1.1 gateway-"));
    assert_eq!(header(&seen, "traceparent").unwrap().len(), 55);
}

#[tokio::test]
async fn an_unroutable_request_gets_its_status_and_cause() {
    let instance = FakeInstance::responding(HELLO).await;
    let gateway = Gateway::with("echo", &instance).await;
    gateway.set("empty", &[]).await;
    for (path, status, cause) in [
        ("/nowhere", 404, "no-such-service"),
        ("/", 404, "no-such-service"),
        ("/echoes", 404, "no-such-service"),
        ("/Echo", 404, "no-such-service"),
        ("/gateway", 404, "no-such-service"),
        ("/services", 404, "no-such-service"),
        ("/metrics", 404, "no-such-service"),
        ("/livez", 404, "no-such-service"),
        ("/heart-beat", 404, "no-such-service"),
        ("/empty/x", 503, "no-instance"),
    ] {
        let response = gateway.get(path).await;
        assert_eq!(response.status(), status, "{path}");
        assert_eq!(response.headers()["content-type"], "application/problem+json");
        assert!(response.headers()["hub-instance"].to_str().unwrap().starts_with("gateway-"));
        assert_eq!(response.headers().contains_key("retry-after"), status == 503);
        let problem: serde_json::Value = response.json().await.unwrap();
        assert_eq!((&problem["cause"], &problem["status"]), (&cause.into(), &status.into()), "{path}");
    }
    assert!(instance.requests().is_empty());
}
