use std::time::{Duration, Instant};

use hubspoke_client::Directory;
use hubspoke_protocol::ServiceInfo;
use rand::SeedableRng;
use rand::rngs::StdRng;

use super::*;

fn durations() -> DurationHistogram {
    DurationHistogram::new(&hubspoke_chassis::Metrics::new("gateway", "gateway-1").unwrap().meter())
}

fn info(n: u16, weight: &str) -> Arc<ServiceInfo> {
    let mut info = ServiceInfo::new("log", format!("127.0.0.1:{n}"));
    info.meta.insert("weight".to_owned(), weight.to_owned());
    Arc::new(info)
}

#[test]
fn own_settings_override_the_general_ones() {
    let mut config = GatewayConfig::default();
    let own = crate::config::ServiceConfig { attempts: Some(0), ..Default::default() };
    config.services.insert("log".to_owned(), own);
    assert_eq!(ServiceSettings::of("log", &config).attempts, 0);
    assert_eq!(ServiceSettings::of("visit", &config).attempts, 2);
    assert_eq!(ServiceSettings::of("log", &config).first_byte, config.timeouts.first_byte);
}

#[test]
fn an_exposed_service_is_known_before_it_has_instances() {
    let durations = durations();
    let config = GatewayConfig::default();
    let builder = TableBuilder {
        config: &config,
        own_name: "gateway",
        hosts: &config.gateway_hosts("gateway"),
        workers: 1,
        durations: &durations,
        identity: None,
    };
    let table = builder.next(&ServiceTable::default(), &Directory::default().view(), Instant::now());
    assert!(!table.is_ready());
    let log = table.service("log").unwrap();
    let mut rng = StdRng::seed_from_u64(1);
    assert!(log.pick(&[], None, Instant::now(), &Default::default(), &mut rng).is_none());
    assert!(table.service("other").is_none());
}

#[test]
fn an_instance_lasts_as_long_as_its_registration() {
    let first = UpstreamService::new(
        "log",
        &[info(1, "20000")],
        &GatewayConfig::default(),
        1,
        &durations(),
        None,
        Instant::now(),
    );
    let same = |infos: &[Arc<ServiceInfo>]| {
        Arc::ptr_eq(&first.with_instances(infos, 1, Instant::now()).instances[0], &first.instances[0])
    };
    // The greatest weight is 10000; a greater one must not look like another registration at every push.
    assert!(same(&[info(1, "20000")]) && same(&[info(1, "10000")]));
    let restarted = ServiceInfo { id: Some("log-2".to_owned()), ..(*info(1, "20000")).clone() };
    assert!(!same(&[info(1, "100")]) && !same(&[info(2, "20000")]) && !same(&[Arc::new(restarted)]));
}

/// A push that compared each instance with each other would take minutes here.
#[test]
fn a_push_with_many_instances_takes_linear_time() {
    let infos: Vec<_> = (0..40_000).map(|n| info(n, "100")).collect();
    let config = GatewayConfig::default();
    let table = |service: UpstreamService| ServiceTable {
        services: [("log".into(), Arc::new(service))].into(),
        ready: true,
        ..ServiceTable::default()
    };
    let current = UpstreamService::new("log", &infos, &config, 1, &durations(), None, Instant::now());
    let began = Instant::now();
    let next = table(current.with_instances(&infos[1..], 1, Instant::now()));
    let removed = table(current).removed(&next);
    assert!(began.elapsed() < Duration::from_secs(10), "{:?}", began.elapsed());
    assert!(matches!(&*removed, [only] if *only.addr == *infos[0].addr));
}

#[tokio::test]
async fn a_removed_instance_is_drained_when_its_last_request_is_over() {
    let instance = Arc::new(Instance::new(&ServiceInfo::new("log", "127.0.0.1:1"), 1, None));
    let (first, last) = (instance.begin(), instance.begin());
    instance.remove();
    let mut drained = std::pin::pin!(instance.drained());
    assert!(futures_util::poll!(drained.as_mut()).is_pending());
    drop(first);
    assert!(futures_util::poll!(drained.as_mut()).is_pending());
    drop(last);
    assert!(futures_util::poll!(drained.as_mut()).is_ready());
}
