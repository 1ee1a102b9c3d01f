//! The JSON of the wire types.

use hubspoke_protocol::{
    GatewayHeartbeat, Heartbeat, InvalidRevision, Load, PushMode, Revision, ServiceInfo, ServiceLists,
    Snapshot, Status, UpstreamCount,
};

#[test]
fn a_core_member_may_omit_or_null_everything_else() {
    let cases = [
        r#"{"Name":"log","Addr":"127.0.0.1:4000","RequiredServices":null}"#,
        r#"{"Name":"log","Addr":"127.0.0.1:4000","RequiredServices":[]}"#,
        r#"{"Name":"log","Addr":"127.0.0.1:4000"}"#,
        "{\"Name\":\"log\",\"Addr\":\"127.0.0.1:4000\",\"Later\":{\"x\":1},\"Meta\":null,\"Id\":null}\n",
    ];
    for text in cases {
        let info: ServiceInfo = serde_json::from_str(text).unwrap();
        assert_eq!(info, ServiceInfo::new("log", "127.0.0.1:4000"), "{text}");
        assert_eq!((info.id(), info.control_addr()), ("127.0.0.1:4000", "127.0.0.1:4000"));
        assert_eq!(info.push(), PushMode::Event);
    }
}

#[test]
fn the_json_of_an_instance() {
    let core =
        ServiceInfo { required_services: vec!["log".into()], ..ServiceInfo::new("visit", "127.0.0.1:1") };
    insta::assert_snapshot!(serde_json::to_string(&core).unwrap(),
        @r#"{"Name":"visit","Addr":"127.0.0.1:1","RequiredServices":["log"]}"#);
    let full = ServiceInfo {
        id: Some("visit-1".into()),
        control_addr: Some("127.0.0.1:2".into()),
        push: Some(PushMode::Snapshot),
        push_key: Some("k".into()),
        meta: [("weight".to_owned(), "2".to_owned())].into(),
        ..core
    };
    insta::assert_snapshot!(serde_json::to_string(&full).unwrap(),
        @r#"{"Name":"visit","Addr":"127.0.0.1:1","RequiredServices":["log"],"Id":"visit-1","ControlAddr":"127.0.0.1:2","Push":"snapshot","PushKey":"k","Meta":{"weight":"2"}}"#);
    assert!(!format!("{full:?}").contains("\"k\""), "Debug redacts the push key");
    assert!(!serde_json::to_string(&full.public()).unwrap().contains("PushKey"));
}

#[test]
fn lists_may_be_null_wholly_or_in_part() {
    let lists: ServiceLists = serde_json::from_str("null").unwrap();
    assert_eq!(lists, ServiceLists::default());
    let lists: ServiceLists =
        serde_json::from_str(r#"{"log":null,"visit":[{"Name":"visit","Addr":"h:1"}]}"#).unwrap();
    assert_eq!(lists.0["log"], []);
    assert_eq!(lists.0["visit"], [ServiceInfo::new("visit", "h:1")]);
    insta::assert_snapshot!(serde_json::to_string(&lists).unwrap(),
        @r#"{"log":[],"visit":[{"Name":"visit","Addr":"h:1","RequiredServices":[]}]}"#);
}

#[test]
fn the_json_of_a_snapshot_and_a_heartbeat() {
    let snapshot = Snapshot {
        revision: Revision { epoch: 0x2a, n: 7 },
        services: ServiceLists([("log".to_owned(), vec![])].into()),
    };
    insta::assert_snapshot!(serde_json::to_string(&snapshot).unwrap(),
        @r#"{"Revision":"2a.7","Services":{"log":[]}}"#);
    let beat = Heartbeat { status: Status::Draining, requests: Some(3), in_flight: Some(1) };
    insta::assert_snapshot!(serde_json::to_string(&beat).unwrap(),
        @r#"{"Status":"draining","Requests":3,"InFlight":1}"#);
    for (body, requests, in_flight) in [
        ("{}", None, None),
        (r#"{"status":"ok"}"#, None, None),
        (r#"{"Status":"ok","Requests":5}"#, Some(5), None),
        (r#"{"Status":"serving","Requests":0,"InFlight":0}"#, Some(0), Some(0)),
        (r#"{"Requests":"5","InFlight":-1}"#, None, None),
        (r#"{"Requests":null,"InFlight":1}"#, None, Some(1)),
    ] {
        let heartbeat = serde_json::from_str::<Heartbeat>(body).unwrap();
        assert_eq!(heartbeat, Heartbeat { status: Status::Serving, requests, in_flight }, "{body}");
        assert_eq!(heartbeat.load().is_some(), requests.is_some());
    }
    let load = Load { requests: 200, in_flight: Some(1) };
    let count = UpstreamCount { service: "shop".into(), addr: "10.0.0.7:9000".into(), load };
    let gateway = GatewayHeartbeat { heartbeat: beat, upstream: vec![count] };
    insta::assert_snapshot!(serde_json::to_string(&gateway).unwrap(),
        @r#"{"Status":"draining","Requests":3,"InFlight":1,"Upstream":[{"Service":"shop","Addr":"10.0.0.7:9000","Requests":200,"InFlight":1}]}"#);
    let text = serde_json::to_string(&gateway).unwrap();
    assert_eq!(serde_json::from_str::<GatewayHeartbeat>(&text).unwrap(), gateway);
    assert_eq!(serde_json::from_str::<Heartbeat>(&text).unwrap(), beat, "a registry that knows no counts");
    assert_eq!(
        serde_json::from_str::<GatewayHeartbeat>(r#"{"Upstream":7}"#).unwrap(),
        GatewayHeartbeat::default()
    );
    let odd = r#"{"Status":"draining","Requests":1.5}"#;
    assert_eq!(serde_json::from_str::<Heartbeat>(odd).unwrap().status, Status::Draining);
}

#[test]
fn the_first_invalid_field_is_named() {
    let valid = ServiceInfo::new("a", "h:1");
    assert_eq!(valid.check(), Ok(()));
    let invalid = ServiceInfo { required_services: vec!["*".into(), "B".into()], ..valid.clone() };
    assert!(invalid.check().unwrap_err().to_string().starts_with("RequiredServices: \"B\""));
    let invalid = ServiceInfo { control_addr: Some("x".into()), ..valid };
    assert!(invalid.check().unwrap_err().to_string().starts_with("ControlAddr: \"x\""));
}

#[test]
fn a_revision_parses_what_it_displays_and_nothing_else() {
    let revision = Revision { epoch: 0x1f, n: 12 };
    assert_eq!(revision.to_string().parse(), Ok(revision));
    for text in ["", "1", "1.", ".1", "x.1", "1.x", "1.-1", "1.2.3", "1.99999999999999999999"] {
        assert_eq!(text.parse::<Revision>(), Err(InvalidRevision), "{text:?}");
    }
}
