//! Every HTTP surface does what the RFCs demand of a server.

use std::net::SocketAddr;

use hubspoke_testkit::conformance::HTTP1;
use hubspoke_testkit::h2_claims;
use hubspoke_tests::Platform;

fn servers(platform: &Platform) -> [(&'static str, SocketAddr); 4] {
    [
        ("registry", platform.registry.addr),
        ("log", platform.logs[0].addr),
        ("visit", platform.visits[0].addr),
        ("the gateway's control port", platform.gateway.control),
    ]
}

#[tokio::test(flavor = "multi_thread")]
async fn every_service_reads_http1_as_the_rfcs_demand() {
    let platform = Platform::start().await.log(1).await.visit(1).await;
    let servers = servers(&platform);
    let mut failures = Vec::new();
    for case in HTTP1 {
        for (name, server) in servers {
            failures.extend(case.run(server).await.err().map(|failure| format!("{name}: {failure}")));
        }
    }
    assert!(failures.is_empty(), "{} failures:\n{}", failures.len(), failures.join("\n"));
}

#[tokio::test(flavor = "multi_thread")]
async fn every_service_reads_http2_as_the_rfcs_demand() {
    let platform = Platform::start().await.log(1).await.visit(1).await;
    for (name, server) in servers(&platform) {
        assert_eq!(h2_claims::failures(server).await, Vec::<String>::new(), "{name}");
    }
}
