//! Services by host, and services that do not know their prefix.

use std::time::Duration;

use hubspoke_gateway::GatewayConfig;
use hubspoke_gateway::config::ServiceConfig;
use hubspoke_protocol::ServiceInfo;

use super::support::*;

/// What an instance registers if its control routes are elsewhere.
fn info(instance: &FakeInstance, service: &str, meta: &[(&str, &str)]) -> ServiceInfo {
    let meta = meta.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect();
    ServiceInfo { meta, control_addr: Some("127.0.0.1:1".to_owned()), ..instance.info(service) }
}

/// The service and the target that a request came to.
async fn reached(gateway: &Gateway, host: &str, target: &str) -> (String, String) {
    let reply = gateway.connect_and(&format!("GET {target} HTTP/1.1\r\nHost: {host}\r\n\r\n")).await;
    match status(&reply) {
        200 => {
            let (service, target) = reply.split_once("\r\n\r\n").unwrap().1.split_once(' ').unwrap();
            (service.to_owned(), target.to_owned())
        }
        _ => (problem(&reply)["cause"].as_str().unwrap().to_owned(), String::new()),
    }
}

/// An instance that answers with its service's name and the target that it got.
async fn naming(service: &'static str) -> FakeInstance {
    FakeInstance::script(move |mut raw, seen| async move {
        while let Some(request) = raw.request().await {
            let body = format!("{service} {}", request.split(' ').nth(1).unwrap());
            seen.lock().unwrap().push(request);
            raw.write(format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n{body}", body.len())).await;
        }
    })
    .await
}

async fn two_services(
    change: impl FnOnce(&mut GatewayConfig),
    shop: &[(&str, &str)],
    zoo: &[(&str, &str)],
) -> (Gateway, [FakeInstance; 2]) {
    let instances = [naming("shop").await, naming("zoo").await];
    let gateway = Gateway::start(change).await;
    gateway.set("shop", &[info(&instances[0], "shop", shop)]).await;
    gateway.set("zoo", &[info(&instances[1], "zoo", zoo)]).await;
    (gateway, instances)
}

#[tokio::test]
async fn a_host_names_a_service_and_the_path_stays() {
    let domain = |config: &mut GatewayConfig| config.domain = Some("Apps.example".to_owned());
    let (gateway, _instances) =
        two_services(domain, &[("route.hosts", "Shop.test, www.shop.test")], &[]).await;
    for (host, target, service) in [
        ("shop.localhost:20001", "/zoo/x?q", "shop"),
        ("SHOP.LocalHost", "/", "shop"),
        ("shop.localhost.", "/", "shop"),
        ("zoo.apps.example", "/", "zoo"),
        ("shop.test", "/zoo", "shop"),
        ("WWW.shop.test:80", "/zoo", "shop"),
        // Any other host: by path.
        ("127.0.0.1", "/zoo", "zoo"),
        ("[::1]:20001", "/zoo", "zoo"),
        ("localhost:20001", "/zoo", "zoo"),
        ("apps.example", "/zoo", "zoo"),
        ("none.localhost", "/zoo", "zoo"),
        ("a.shop.localhost", "/zoo", "zoo"),
        ("example.org", "/zoo", "zoo"),
    ] {
        assert_eq!(reached(&gateway, host, target).await, (service.to_owned(), target.to_owned()), "{host}");
    }
    let absolute =
        gateway.connect_and("GET http://shop.localhost/zoo HTTP/1.1\r\nHost: zoo.localhost\r\n\r\n").await;
    assert!(absolute.ends_with("shop /zoo"), "{absolute}");
    assert_eq!(reached(&gateway, "none.localhost", "/").await.0, "no-such-service");
    assert_eq!(reached(&gateway, "gateway.localhost", "/").await.0, "no-such-service");
}

#[tokio::test]
async fn a_prefix_is_stripped_and_put_back() {
    let instance = FakeInstance::responding(
        "HTTP/1.1 302 Found\r\nlocation: /login?next=/\r\nset-cookie: a=1; Path=/\r\nset-cookie: b=2; Path=/shop/x\r\n\
         content-length: 0\r\n\r\n",
    )
    .await;
    let gateway = Gateway::start(|_| ()).await;
    gateway.set("shop", &[info(&instance, "shop", &[("route.strip", "true")])]).await;
    let reply =
        gateway.connect_and("GET /shop/a?q HTTP/1.1\r\nHost: a\r\nX-Forwarded-Prefix: /evil\r\n\r\n").await;
    assert_eq!(header(&reply, "location").as_deref(), Some("/shop/login?next=/"));
    assert!(reply.contains("a=1; Path=/shop/\r\n") && reply.contains("b=2; Path=/shop/x\r\n"), "{reply}");
    let seen = instance.requests().remove(0);
    assert!(seen.starts_with("GET /a?q HTTP/1.1\r\n"), "{seen}");
    assert_eq!(header(&seen, "x-forwarded-prefix").as_deref(), Some("/shop"));
    // By host there is no prefix.
    let reply = gateway.connect_and("GET /a HTTP/1.1\r\nHost: shop.localhost\r\n\r\n").await;
    assert_eq!(header(&reply, "location").as_deref(), Some("/login?next=/"));
    assert_eq!(header(&instance.requests()[1], "x-forwarded-prefix"), None);
}

#[tokio::test]
async fn a_trusted_proxys_prefix_is_continued() {
    let instance = FakeInstance::responding(
        "HTTP/1.1 302 Found\r\nlocation: /outer/shop/x\r\ncontent-length: 0\r\n\r\n",
    )
    .await;
    let gateway =
        Gateway::start(|config| config.trusted_proxies = vec!["127.0.0.0/8".parse().unwrap()]).await;
    gateway.set("shop", &[info(&instance, "shop", &[("route.strip", "true")])]).await;
    let reply =
        gateway.connect_and("GET /shop HTTP/1.1\r\nHost: a\r\nX-Forwarded-Prefix: /outer/\r\n\r\n").await;
    assert_eq!(header(&reply, "location").as_deref(), Some("/outer/shop/x"));
    assert_eq!(header(&instance.requests()[0], "x-forwarded-prefix").as_deref(), Some("/outer/shop"));
}

#[tokio::test]
async fn member_endpoints_are_reached_neither_by_host_nor_without_the_prefix() {
    let instance = naming("shop").await;
    let gateway = Gateway::start(|_| ()).await;
    // Its control routes are at its public address.
    let meta = [("route.strip".to_owned(), "true".to_owned())].into();
    gateway.set("shop", &[ServiceInfo { meta, ..instance.info("shop") }]).await;
    for path in ["/services", "/heart-beat", "//metrics", "/%73ervices", "/livez/", "/Directory;x"] {
        for (host, prefix) in [("shop.localhost", ""), ("a", "/shop")] {
            let (cause, _) = reached(&gateway, host, &format!("{prefix}{path}")).await;
            assert_eq!(cause, "no-such-service", "{host} {prefix}{path}");
        }
    }
    assert_eq!(reached(&gateway, "shop.localhost", "/service").await.0, "shop");
    assert_eq!(instance.requests().len(), 1);
    gateway.set("shop", &[info(&instance, "shop", &[])]).await;
    assert_eq!(reached(&gateway, "shop.localhost", "/metrics").await.1, "/metrics");
}

#[tokio::test]
async fn the_first_that_asks_for_a_host_keeps_it_and_no_name_of_the_gateway_is_given() {
    let asks = [("route.hosts", "same.test")];
    let hosts = |config: &mut GatewayConfig| config.hosts = vec!["hub.test".to_owned()];
    let (gateway, instances) = two_services(hosts, &[], &asks).await;
    assert_eq!(reached(&gateway, "same.test", "/").await.0, "zoo");
    let all = "same.test,hub.test,localhost,127.0.0.1,zoo.localhost,gateway";
    gateway.set("shop", &[info(&instances[0], "shop", &[("route.hosts", all)])]).await;
    assert_eq!(reached(&gateway, "same.test", "/").await.0, "zoo");
    assert_eq!(reached(&gateway, "zoo.localhost", "/").await.0, "zoo");
    assert_eq!(reached(&gateway, "hub.test", "/").await.0, "no-such-service");
    assert_eq!(gateway.metric("refused_hosts", &["shop"]).await, 6);
    // Nothing flaps while the one that has it is replaced.
    gateway.set("zoo", &[]).await;
    assert_eq!(reached(&gateway, "same.test", "/").await.0, "no-instance");
    // Once it asks no longer, the other one gets it.
    gateway.set("zoo", &[info(&instances[1], "zoo", &[])]).await;
    assert_eq!(reached(&gateway, "same.test", "/").await.0, "shop");
    assert_eq!(gateway.metric("refused_hosts", &["shop"]).await, 5);
}

#[tokio::test]
async fn an_operator_overrules_what_members_ask_for() {
    let overrule = |config: &mut GatewayConfig| {
        let mut shop = ServiceConfig::default();
        (shop.hosts, shop.strip) = (Some(vec!["given.test".to_owned()]), Some(false));
        let mut zoo = ServiceConfig::default();
        zoo.strip = Some(true);
        config.services = [("shop".to_owned(), shop), ("zoo".to_owned(), zoo)].into();
        config.timeouts.wait = Duration::ZERO;
    };
    let asks = [("route.hosts", "asked.test"), ("route.strip", "true")];
    let (gateway, _instances) = two_services(overrule, &asks, &[("route.hosts", "given.test")]).await;
    assert_eq!(reached(&gateway, "given.test", "/").await.0, "shop");
    assert_eq!(reached(&gateway, "asked.test", "/").await.0, "no-such-service");
    assert_eq!(reached(&gateway, "a", "/shop/x").await.1, "/shop/x");
    assert_eq!(reached(&gateway, "a", "/zoo/x").await.1, "/x");
}
