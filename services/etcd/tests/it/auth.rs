use std::fs;

use hubspoke_etcd::{Config, Error, Etcd, Lease, LeaseState, Update, Watch};
use hubspoke_testkit::{etcd, eventually};

use crate::{config, put};

#[tokio::test]
async fn a_user_with_a_password_sees_its_prefix_and_nothing_else() {
    let Some(mut cluster) = etcd::start_with(1, &["--auth-token-ttl", "2"]).await else { return };
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("password");
    fs::write(&file, "hub\n").unwrap();
    let config =
        Config { user: Some("hub".to_owned()), password_file: Some(file.clone()), ..config(&cluster) };
    let etcd = Etcd::new(config.clone()).unwrap();
    put(&etcd, "/hubspoke/a", "off").await;
    let mut watch = Watch::start(&etcd, "/hubspoke/");
    assert!(matches!(watch.next().await, Update::Snapshot(_)));
    cluster.enable_auth("/hubspoke").await;

    put(&etcd, "/hubspoke/a", "on").await;
    loop {
        match watch.next().await {
            Update::Changes { changes, .. } => {
                assert_eq!(&changes[0].key()[..], b"/hubspoke/a");
                break;
            }
            Update::Alive { .. } | Update::Lost { .. } => {}
            Update::Snapshot(_) => panic!("nothing is lost"),
        }
    }
    let denied = etcd.get("/other").await.unwrap_err();
    assert!(matches!(denied, Error::Refused(_)), "{denied:?}");
    let lease = Lease::start(&etcd, etcd.key("me"), "here");
    eventually("held", async || matches!(*lease.state().borrow(), LeaseState::Held { .. })).await;
    lease.close().await;

    // Tokens are forgotten with the process.
    cluster.kill_all().await;
    cluster.restart_all().await;
    put(&etcd, "/hubspoke/a", "again").await;

    let anonymous = Etcd::new(crate::config(&cluster)).unwrap();
    assert!(matches!(anonymous.get("/hubspoke/a").await.unwrap_err(), Error::Refused(_)));
    fs::write(&file, "wrong").unwrap();
    let wrong = Etcd::new(config).unwrap();
    assert!(matches!(wrong.get("/hubspoke/a").await.unwrap_err(), Error::Refused(_)));
}
