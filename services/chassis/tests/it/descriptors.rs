//! Processes that may open few files.

use std::time::Duration;

use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;
use tokio::time::timeout;

use crate::greeter::{Greeter, Platform};

#[tokio::test]
async fn health_checks_are_answered_when_file_descriptors_are_short() {
    let platform = Platform::start().await;
    for limit in ["48", "40"] {
        let greeter = Greeter::start_with_file_limit(&platform, limit).await;
        let addr = greeter.url.trim_start_matches("http://").to_owned();
        let connect = async |sent: &'static str| {
            let mut stream = TcpStream::connect(&addr).await.unwrap();
            stream.write_all(sent.as_bytes()).await.unwrap();
            stream
        };
        let mut open = Vec::new();
        for sent in
            ["", "GET /livez HTTP/1.1\r\nHost: localhost\r\n\r\n", "GET /greeter/ada HTTP/1.1\r\nHost:"]
        {
            for _ in 0..40 {
                open.push(connect(sent).await);
            }
        }
        for _ in 0..3 {
            let health = reqwest::get(format!("{}/livez", greeter.url));
            let response = timeout(Duration::from_secs(8), health).await.expect("an answer").unwrap();
            assert_eq!(response.status(), 200, "{limit} descriptors");
        }
        drop(open);
        assert_eq!(greeter.terminate().await.code, Some(0));
    }
}
