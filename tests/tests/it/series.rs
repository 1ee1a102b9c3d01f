//! The number of metric series does not depend on what callers send.

use std::collections::BTreeSet;
use std::time::Duration;

use hubspoke_testkit::eventually;
use hubspoke_tests::Platform;

/// All series of an instance: name and labels.
async fn series(platform: &Platform, control: std::net::SocketAddr) -> BTreeSet<String> {
    let text =
        platform.http.get(format!("http://{control}/metrics")).send().await.unwrap().text().await.unwrap();
    let lines = text.lines().filter(|line| !line.starts_with('#'));
    lines.map(|line| line.rsplit_once(' ').expect(line).0.to_owned()).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn no_path_method_or_host_that_a_caller_sends_makes_a_new_series() {
    let mut settings = hubspoke_registry::Settings::default();
    settings.heartbeat.interval = Duration::from_millis(200);
    // A failed heartbeat, as on a busy machine, would make a series of its own.
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
    // First every method, kind of path and kind of host once, so that their series exist.
    round(0..8).await.unwrap();
    // Heartbeats have series too, and come in their own time.
    eventually("each service has answered a heartbeat", || async {
        let known = series(&platform, platform.registry.control).await;
        ["gateway", "log", "visit"].iter().all(|name| {
            let is_heartbeat =
                |line: &&String| line.starts_with("hub_registry_heartbeat_duration_seconds_count{");
            known.iter().filter(is_heartbeat).any(|line| line.contains(&format!("service=\"{name}\"")))
        })
    })
    .await;
    all().await; // the scrape itself is a request, with a series
    let before = all().await;
    let rounds: Vec<_> = (0..10).map(|i| round(8 + i * 250..8 + (i + 1) * 250)).collect();
    for round in rounds {
        round.await.unwrap(); // 10,000 paths in all
    }
    let after = all().await;
    let new: Vec<_> = after.difference(&before).collect();
    assert!(new.is_empty(), "{new:#?}");
}
