use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed};

use hubspoke_testkit::eventually;
use tokio::task::JoinSet;

use super::running::{Running, has_instances, instances};
use crate::platform::TestPlatform;

#[tokio::test(flavor = "multi_thread")]
async fn a_changed_file_replaces_one_replica_after_the_other_without_a_failed_request() {
    let platform = TestPlatform::start(&[]).await;
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("app.py");
    std::fs::write(&file, "1").unwrap();
    let pattern = format!("{}/*.py", dir.path().display());
    let run = Running::start(&platform, &["--name", "roll", "--replicas", "3", "--watch", &pattern], "serve");
    has_instances(&platform, "roll", 3).await;
    let url = format!("{}/roll/", platform.gateway());
    eventually("the gateway routes to it", async || {
        platform.http.get(&url).send().await.unwrap().status().is_success()
    })
    .await;
    let (stop, requests, failed) =
        (Arc::new(AtomicBool::new(false)), Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
    let mut load = JoinSet::new();
    for _ in 0..4 {
        let (url, http) = (url.clone(), platform.http.clone());
        let (stop, requests, failed) = (stop.clone(), requests.clone(), failed.clone());
        load.spawn(async move {
            while !stop.load(Relaxed) {
                let passed = http.get(&url).send().await.is_ok_and(|response| response.status().is_success());
                requests.fetch_add(1, Relaxed);
                failed.fetch_add(usize::from(!passed), Relaxed);
            }
        });
    }
    let ids = async || -> Vec<String> {
        instances(&platform, "roll").await.iter().map(|instance| instance.info.id().to_owned()).collect()
    };
    let before = ids().await;
    std::fs::write(&file, "2").unwrap();
    eventually("all are replaced", async || {
        let now = ids().await;
        assert!(now.len() >= 3, "never fewer than three");
        now.len() == 3 && now.iter().all(|id| !before.contains(id))
    })
    .await;
    assert!(run.printed().contains("app.py has changed"), "{}", run.printed());
    stop.store(true, Relaxed);
    while load.join_next().await.is_some() {}
    assert!(requests.load(Relaxed) > 10);
    assert_eq!(failed.load(Relaxed), 0, "of {requests:?}");
}
