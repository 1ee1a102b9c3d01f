use hubspoke_client::Directory;
use rand::SeedableRng;
use rand::rngs::StdRng;

use super::*;

#[test]
fn own_settings_go_over_the_general_ones() {
    let mut config = GatewayConfig::default();
    let own = crate::config::ServiceConfig { attempts: Some(0), ..Default::default() };
    config.services.insert("log".to_owned(), own);
    assert_eq!(Settings::of("log", &config).attempts, 0);
    assert_eq!(Settings::of("visit", &config).attempts, 2);
    assert_eq!(Settings::of("log", &config).first_byte, config.timeouts.first_byte);
}

#[test]
fn what_is_listed_is_known_even_before_it_is_there() {
    let metrics = hubspoke_chassis::Metrics::new("gateway", "gateway-1").unwrap();
    let durations = Durations::new(&metrics.meter());
    let make = Make { workers: 1, durations: &durations };
    let table =
        Table::default().next(&Directory::default().view(), &GatewayConfig::default(), "gateway", &make);
    assert!(!table.heard());
    let log = table.service("log").unwrap();
    let mut rng = StdRng::seed_from_u64(1);
    assert!(log.pick(&[], None, Instant::now(), &Default::default(), &mut rng).is_none());
    assert!(table.service("other").is_none());
}

#[tokio::test]
async fn an_instance_that_went_has_left_when_its_last_request_is_over() {
    let info = hubspoke_protocol::ServiceInfo::new("log", "127.0.0.1:1");
    let instance = Arc::new(Instance::new(&info, 1));
    let (first, last) = (instance.begin(), instance.begin());
    instance.close();
    let mut left = std::pin::pin!(instance.left());
    assert!(futures_util::poll!(left.as_mut()).is_pending());
    drop(first);
    assert!(futures_util::poll!(left.as_mut()).is_pending());
    drop(last);
    assert!(futures_util::poll!(left.as_mut()).is_ready());
}
