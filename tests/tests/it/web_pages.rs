//! Web pages, whose requests come from inside the operator's network, reach no service that is not meant for them.

use std::net::SocketAddr;

use hubspoke_chassis::ProblemType;
use hubspoke_testkit::{RawConn, raw};
use hubspoke_tests::{Platform, entries};

/// Sends a request with these fields beside `Connection`.
async fn send(server: SocketAddr, line: &str, fields: &[&str], body: &str) -> String {
    let mut conn = RawConn::connect(server).await;
    let fields: String = fields.iter().map(|field| format!("{field}\r\n")).collect();
    let length = body.len();
    let head = format!("{line} HTTP/1.1\r\n{fields}Connection: close\r\nContent-Length: {length}\r\n\r\n");
    conn.write(head + body).await;
    conn.response().await
}

#[tokio::test(flavor = "multi_thread")]
async fn no_page_reaches_a_service_by_a_name_of_its_own_or_from_another_origin() {
    let platform = Platform::start().await.log(1).await.visit(1).await;
    let (registry, log, visit) = (platform.registry.addr, platform.logs[0].addr, platform.visits[0].addr);
    let control = platform.gateway.control;
    let info = r#"{"Name":"evil","Addr":"192.0.2.1:9"}"#;
    let drain = format!("PUT /services/visit/{visit}/drain");
    for (server, line, body) in [
        (registry, "GET /services", ""),
        (registry, "GET /log/tail", ""),
        (registry, "GET /metrics", ""),
        (registry, "GET /nothing", ""),
        (registry, "POST /services", info),
        (registry, &drain, ""),
        (registry, "PUT /protection", "{}"),
        (log, "GET /log", ""),
        (log, "GET /log/tail", ""),
        (log, "POST /log", "hello"),
        (log, "POST /v1/logs", ""),
        (log, "POST /services", "{}"),
        (visit, "GET /visit", ""),
        (visit, "GET /directory", ""),
        (control, "GET /directory", ""),
        (control, "GET /metrics", ""),
        (control, "POST /services", "{}"),
    ] {
        for (fields, cause) in [
            (&["Host: evil.example:20000"][..], ProblemType::UnknownHost),
            (&["Host: evil.example:20000", "Origin: http://evil.example:20000"], ProblemType::UnknownHost),
            (&["Host: evil.example", "Sec-Fetch-Site: same-origin"], ProblemType::UnknownHost),
            (&["Host: 127.0.0.1.evil.example"], ProblemType::UnknownHost),
            (&["Host: localhost", "Origin: http://evil.example"], ProblemType::CrossSite),
            (&["Host: localhost:20000", "Origin: http://localhost:20001"], ProblemType::CrossSite),
            (&["Host: localhost", "Origin: null"], ProblemType::CrossSite),
            (&["Host: localhost", "Sec-Fetch-Site: cross-site"], ProblemType::CrossSite),
            (&["Host: localhost", "Sec-Fetch-Site: same-site"], ProblemType::CrossSite),
            (&[], ProblemType::BadHost),
            (&["Host: localhost", "Host: localhost"], ProblemType::BadHost),
        ] {
            let refused = send(server, line, fields, body).await;
            assert_eq!(raw::status(&refused), cause.status(), "{line} {fields:?}: {refused}");
            assert_eq!(raw::problem(&refused)["type"], cause.urn(), "{line} {fields:?}");
        }
    }
    let catalogue = send(registry, "GET /services", &["Host: localhost"], "").await;
    assert!(!catalogue.contains("evil") && !catalogue.contains("drained"), "{catalogue}");
    assert!(entries(&platform.logs[0].file).is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_page_of_another_site_writes_no_entry_through_the_gateway() {
    let platform = Platform::start().await.log(1).await;
    let gateway = platform.gateway.addr;
    let text = "Content-Type: text/plain";
    for fields in [
        &["Host: localhost:20001", "Origin: http://evil.example", text][..],
        &["Host: localhost:20001", "Origin: http://localhost:3000", text],
        &["Host: localhost:20001", "Origin: null", text],
        &["Host: localhost:20001", "Sec-Fetch-Site: cross-site", text],
        &["Host: localhost:20001", "Sec-Fetch-Site: same-site", "Origin: http://localhost:3000", text],
        &[
            "Host: localhost:20001",
            "Sec-Fetch-Site: cross-site",
            "Content-Type: application/x-www-form-urlencoded",
        ],
    ] {
        let refused = send(gateway, "POST /log", fields, "from a page").await;
        assert_eq!(raw::problem(&refused)["type"], ProblemType::CrossSite.urn(), "{fields:?}: {refused}");
    }
    let otlp = ["Host: localhost", "Content-Type: application/x-protobuf", "Origin: http://evil.example"];
    assert_eq!(raw::status(&send(gateway, "POST /log/v1/logs", &otlp, "").await), 403);
    // Programs, and the pages of whatever name the gateway has.
    for fields in [
        &["Host: localhost:20001"][..],
        &["Host: shop.example"],
        &["Host: shop.example", "Origin: https://shop.example", "Sec-Fetch-Site: same-origin"],
        &["Host: shop.example", "Origin: https://shop.example"],
    ] {
        let stored = send(gateway, "POST /log", fields, "from a program").await;
        assert_eq!(raw::status(&stored), 200, "{fields:?}: {stored}");
    }
    let stored = entries(&platform.logs[0].file);
    assert!(stored.len() == 4 && stored.iter().all(|entry| entry["msg"] == "from a program"), "{stored:?}");
    // Reads are for the public, under every name.
    let read = send(gateway, "GET /log", &["Host: shop.example", "Origin: https://other.example"], "").await;
    assert_eq!(raw::status(&read), 200, "{read}");
}
