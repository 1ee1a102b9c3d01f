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

/// A client that sends its body too slowly for the instance, or does not read what it sends.
#[tokio::test]
async fn an_instance_that_gives_up_on_a_slow_client_is_not_blamed() {
    const PATIENCE: Duration = Duration::from_millis(1200);
    const SLOWER: Duration = Duration::from_millis(1500);
    let instance = FakeInstance::script(|mut raw, _| async move {
        let head = raw.read_until(|text| text.contains("\r\n\r\n")).await;
        if head.starts_with("GET ") {
            raw.write("HTTP/1.1 200 OK\r\ncontent-length: 100000000\r\n\r\n").await;
            let part = vec![b'x'; 1 << 16];
            let writing =
                async { while tokio::io::AsyncWriteExt::write_all(&mut raw.stream, &part).await.is_ok() {} };
            let _ = tokio::time::timeout(PATIENCE, writing).await;
        } else {
            tokio::time::sleep(PATIENCE).await;
        }
    })
    .await;
    let gateway = Gateway::with("svc", &instance).await;
    let requests = (0..12).map(|n| {
        let gateway = &gateway;
        async move {
            let mut raw = gateway.connect().await;
            match n % 2 {
                0 => raw.write("GET /svc HTTP/1.1\r\nHost: a\r\n\r\n").await,
                _ => raw.write("POST /svc HTTP/1.1\r\nHost: a\r\nContent-Length: 9\r\n\r\nabc").await,
            }
            tokio::time::sleep(SLOWER).await;
            // Broken off or 502, whichever: nobody got an answer.
            let read = raw.read_to_end().await;
            assert!(read.starts_with("HTTP/1.1 200 OK\r\n") || status(&read) == 502, "{read}");
        }
    });
    futures_util::future::join_all(requests).await;
    assert_eq!(gateway.metric("instance_failures", &["svc"]).await, 0);
}
