//! Ejection of failing instances, and how they come back.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering::Relaxed};
use std::time::{Duration, Instant as Clock};

use super::support::*;

#[tokio::test]
async fn five_failures_eject_and_one_success_ends_the_ejection() {
    let failing = Arc::new(AtomicU32::new(1));
    let (flag, good) = (failing.clone(), FakeInstance::responding(HELLO).await);
    let flaky = FakeInstance::script(move |mut raw, seen| {
        let flag = flag.clone();
        async move {
            while let Some(request) = raw.request().await {
                seen.lock().unwrap().push(request);
                if flag.load(Relaxed) == 1 {
                    return;
                }
                raw.write(HELLO).await;
            }
        }
    })
    .await;
    let gateway = Gateway::start(|config| config.eject.base = Duration::from_millis(200)).await;
    gateway.set("svc", &[flaky.info("svc"), good.info("svc")]).await;
    let until_ejected = async || {
        while gateway.metric("ejected", &["svc"]).await == 0 {
            assert_eq!(gateway.get("/svc").await.status(), 200);
        }
    };
    tokio::time::timeout(DEADLINE, until_ejected()).await.unwrap();
    assert_eq!(flaky.requests().len(), 5);
    failing.store(0, Relaxed);
    let end = Clock::now() + DEADLINE;
    while gateway.metric("ejected", &["svc"]).await == 1 {
        assert_eq!(gateway.get("/svc").await.status(), 200);
        assert!(Clock::now() < end);
    }
    let seen = flaky.requests().len();
    eventually("it gets requests again", async || {
        gateway.get("/svc").await;
        flaky.requests().len() > seen + 3
    })
    .await;
}

#[tokio::test]
async fn an_instance_that_breaks_off_every_response_is_ejected() {
    let good = FakeInstance::responding(HELLO).await;
    let cutting = FakeInstance::script(|mut raw, seen| async move {
        let request = raw.request().await;
        seen.lock().unwrap().extend(request);
        raw.write("HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\nten bytes.").await;
    })
    .await;
    let gateway = Gateway::start(|config| config.eject.base = Duration::from_millis(100)).await;
    gateway.set("svc", &[cutting.info("svc"), good.info("svc")]).await;
    let get = async || match gateway.request("GET", "/svc").send().await {
        Ok(response) => drop(response.bytes().await),
        Err(error) => assert!(error.is_request(), "{error}"), // broke off before the head was written
    };
    eventually("it is ejected", async || {
        get().await;
        gateway.metric("ejected", &["svc"]).await == 1
    })
    .await;
    assert_eq!(cutting.requests().len(), 5);
    // The head of each trial's response ends the ejection, and its end starts the next one, which is longer: at least
    // 100, 200, 400, 800 ms.
    let began = Clock::now();
    while began.elapsed() < Duration::from_millis(1200) {
        get().await;
    }
    let more = cutting.requests().len() - 5;
    assert!((1..=3).contains(&more), "{more} more within 1.2 s");
    assert_eq!(gateway.metric("ejections", &["svc"]).await, 1 + more as u64);
}

#[tokio::test]
async fn a_trial_whose_client_disconnects_does_not_keep_the_instance_ejected() {
    let failing = Arc::new(AtomicU32::new(1));
    let (flag, good) = (failing.clone(), FakeInstance::responding(HELLO).await);
    let flaky = FakeInstance::script(move |mut raw, seen| {
        let flag = flag.clone();
        async move {
            while let Some(request) = raw.request().await {
                seen.lock().unwrap().push(request);
                match flag.load(Relaxed) {
                    0 => raw.write(HELLO).await,
                    1 => return,
                    _ => {} // no response
                }
            }
        }
    })
    .await;
    let gateway = Gateway::start(|config| {
        config.eject.base = Duration::from_millis(100);
        config.eject.failures = 1;
    })
    .await;
    gateway.set("svc", &[flaky.info("svc"), good.info("svc")]).await;
    eventually("it is ejected", async || {
        assert_eq!(gateway.get("/svc").await.status(), 200);
        gateway.metric("ejected", &["svc"]).await == 1
    })
    .await;
    failing.store(2, Relaxed);
    let seen = flaky.requests().len();
    // Each client disconnects as soon as one of the two has the request.
    eventually("it gets a trial request", async || {
        let before = good.requests().len();
        let mut raw = gateway.connect().await;
        raw.write("GET /svc HTTP/1.1\r\nHost: a\r\n\r\n").await;
        eventually("an instance has the request", async || {
            good.requests().len() + flaky.requests().len() > before + seen
        })
        .await;
        flaky.requests().len() > seen
    })
    .await;
    failing.store(0, Relaxed);
    eventually("its ejection is over", async || {
        assert_eq!(gateway.get("/svc").await.status(), 200);
        gateway.metric("ejected", &["svc"]).await == 0
    })
    .await;
}
