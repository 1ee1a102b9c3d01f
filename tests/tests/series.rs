//! Metrics stay as many as they are, whatever callers ask for.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test that fails should say where"
)]

use std::collections::BTreeSet;
use std::time::Duration;

use hubspoke_testkit::eventually;
use hubspoke_tests::Platform;

/// The names of all series of an instance.
async fn series(platform: &Platform, control: std::net::SocketAddr) -> BTreeSet<String> {
    let text =
        platform.http.get(format!("http://{control}/metrics")).send().await.unwrap().text().await.unwrap();
    let lines = text.lines().filter(|line| !line.starts_with('#'));
    lines.map(|line| line.rsplit_once(' ').expect(line).0.to_owned()).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn what_callers_ask_for_makes_no_new_series() {
    let mut settings = hubspoke_registry::Settings::default();
    settings.heartbeat.interval = Duration::from_millis(200);
    // On a busy machine a heartbeat would fail, and its outcome is a series.
    settings.heartbeat.timeout = Duration::from_secs(20);
    let platform = Platform::start_with(settings).await.log(1).await.visit(1).await;
    let all = || async {
        let mut all = BTreeSet::new();
        for instance in [&platform.gateway, &platform.registry, &platform.logs[0], &platform.visits[0]] {
            all.extend(series(&platform, instance.control).await);
        }
        all
    };
    let bases = [
        format!("{}/visit/", platform.gateway.url()),
        format!("{}/nowhere-", platform.gateway.url()),
        format!("{}/services/nobody-", platform.registry.url()),
        format!("{}/nothing-", platform.visits[0].url()),
    ];
    let round = |numbers: std::ops::Range<u32>| {
        let (http, bases) = (platform.http.clone(), bases.clone());
        tokio::spawn(async move {
            for n in numbers {
                for base in &bases {
                    let method = ["GET", "POST", "BREW", "PROPFIND"][n as usize % 4];
                    let mut request = http.request(method.parse().unwrap(), format!("{base}{n}?q={n}"));
                    if n / 4 % 2 == 1 {
                        request = request.header("host", format!("host-{n}"));
                    }
                    request.send().await.unwrap();
                }
            }
        })
    };
    // Every method and kind of path once, with each kind of host, and every control port.
    round(0..8).await.unwrap();
    // And a heartbeat of each service, which comes in its own time.
    eventually("each service has been asked for its heart", || async {
        let known = series(&platform, platform.registry.control).await;
        ["gateway", "log", "visit"].iter().all(|name| {
            let heard = |line: &&String| line.starts_with("hub_registry_heartbeat_duration_seconds_count{");
            known.iter().filter(heard).any(|line| line.contains(&format!("service=\"{name}\"")))
        })
    })
    .await;
    all().await;
    let before = all().await;
    let rounds: Vec<_> = (0..10).map(|i| round(8 + i * 250..8 + (i + 1) * 250)).collect();
    for round in rounds {
        round.await.unwrap(); // together 10,000 paths
    }
    let after = all().await;
    let new: Vec<_> = after.difference(&before).collect();
    assert!(new.is_empty(), "{new:#?}");
}
