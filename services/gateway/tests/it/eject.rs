//! Instances that are left out for a while, and how they come back.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering::Relaxed};
use std::time::{Duration, Instant as Clock};

use super::support::*;

#[tokio::test]
async fn five_failures_eject_and_one_success_brings_back() {
    let failing = Arc::new(AtomicU32::new(1));
    let (flag, good) = (failing.clone(), Instance::reply(HELLO).await);
    let moody = Instance::script(move |mut raw, seen| {
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
    let hub = Hub::start(|config| config.eject.base = Duration::from_millis(200)).await;
    hub.set("svc", &[moody.info("svc"), good.info("svc")]).await;
    let until_ejected = async || {
        while hub.metric("ejected", &["svc"]).await == 0 {
            assert_eq!(hub.get("/svc").await.status(), 200);
        }
    };
    tokio::time::timeout(PATIENCE, until_ejected()).await.unwrap();
    assert_eq!(moody.requests().len(), 5);
    failing.store(0, Relaxed);
    let end = Clock::now() + PATIENCE;
    while hub.metric("ejected", &["svc"]).await == 1 {
        assert_eq!(hub.get("/svc").await.status(), 200);
        assert!(Clock::now() < end);
    }
    let seen = moody.requests().len();
    until("it gets requests again", async || {
        hub.get("/svc").await;
        moody.requests().len() > seen + 3
    })
    .await;
}

#[tokio::test]
async fn an_instance_that_breaks_every_reply_off_is_ejected() {
    let good = Instance::reply(HELLO).await;
    let cutting = Instance::script(|mut raw, seen| async move {
        let request = raw.request().await;
        seen.lock().unwrap().extend(request);
        raw.write("HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\nten bytes.").await;
    })
    .await;
    let hub = Hub::start(|config| config.eject.base = Duration::from_millis(100)).await;
    hub.set("svc", &[cutting.info("svc"), good.info("svc")]).await;
    let get = async || match hub.request("GET", "/svc").send().await {
        Ok(reply) => drop(reply.bytes().await),
        Err(error) => assert!(error.is_request(), "{error}"), // cut off before its head was written
    };
    until("it is ejected", async || {
        get().await;
        hub.metric("ejected", &["svc"]).await == 1
    })
    .await;
    assert_eq!(cutting.requests().len(), 5);
    // A reply that begins well brings it back for just as long as it takes to break off, and each time it is out for
    // longer: 100, 200, 400, 800 ms at least.
    let began = Clock::now();
    while began.elapsed() < Duration::from_millis(1200) {
        get().await;
    }
    let more = cutting.requests().len() - 5;
    assert!((1..=3).contains(&more), "{more} more within 1.2 s");
    assert_eq!(hub.metric("ejections", &["svc"]).await, 1 + more as u64);
}

#[tokio::test]
async fn a_trial_whose_client_goes_away_does_not_keep_the_instance_out() {
    let failing = Arc::new(AtomicU32::new(1));
    let (flag, good) = (failing.clone(), Instance::reply(HELLO).await);
    let moody = Instance::script(move |mut raw, seen| {
        let flag = flag.clone();
        async move {
            while let Some(request) = raw.request().await {
                seen.lock().unwrap().push(request);
                match flag.load(Relaxed) {
                    0 => raw.write(HELLO).await,
                    1 => return,
                    _ => {} // says nothing
                }
            }
        }
    })
    .await;
    let hub = Hub::start(|config| {
        config.eject.base = Duration::from_millis(100);
        config.eject.failures = 1;
    })
    .await;
    hub.set("svc", &[moody.info("svc"), good.info("svc")]).await;
    until("it is ejected", async || {
        assert_eq!(hub.get("/svc").await.status(), 200);
        hub.metric("ejected", &["svc"]).await == 1
    })
    .await;
    failing.store(2, Relaxed);
    let seen = moody.requests().len();
    // Each client goes as soon as the request is with one of the two.
    until("it is tried out", async || {
        let before = good.requests().len();
        let mut raw = hub.connect().await;
        raw.write("GET /svc HTTP/1.1\r\nHost: a\r\n\r\n").await;
        until("the request is there", async || {
            good.requests().len() + moody.requests().len() > before + seen
        })
        .await;
        moody.requests().len() > seen
    })
    .await;
    failing.store(0, Relaxed);
    until("it is back", async || {
        assert_eq!(hub.get("/svc").await.status(), 200);
        hub.metric("ejected", &["svc"]).await == 0
    })
    .await;
}
