use super::*;

#[test]
fn a_core_member_of_another_language_is_understood() {
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
fn the_wire_form_of_an_instance() {
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
    assert!(!format!("{full:?}").contains("\"k\""), "the push key shows in Debug");
    assert!(!serde_json::to_string(&full.public()).unwrap().contains("PushKey"));
}

#[test]
fn lists_may_be_null_in_whole_or_in_part() {
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
fn the_wire_form_of_a_snapshot_and_a_heartbeat() {
    let snapshot = Snapshot {
        revision: Revision { epoch: 0x2a, n: 7 },
        services: ServiceLists([("log".to_owned(), vec![])].into()),
    };
    insta::assert_snapshot!(serde_json::to_string(&snapshot).unwrap(),
        @r#"{"Revision":"2a.7","Services":{"log":[]}}"#);
    let beat = Heartbeat { status: Status::Draining, requests: 3, in_flight: 1 };
    insta::assert_snapshot!(serde_json::to_string(&beat).unwrap(),
        @r#"{"Status":"draining","Requests":3,"InFlight":1}"#);
    assert_eq!(serde_json::from_str::<Heartbeat>("{}").unwrap(), Heartbeat::default());
}

#[test]
fn revisions_read_what_they_write_and_nothing_else() {
    let revision = Revision { epoch: 0x1f, n: 12 };
    assert_eq!(revision.to_string().parse(), Ok(revision));
    for text in ["", "1", "1.", ".1", "x.1", "1.x", "1.-1", "1.2.3", "1.99999999999999999999"] {
        assert_eq!(text.parse::<Revision>(), Err(InvalidRevision), "{text:?}");
    }
}

#[test]
fn names_and_addresses() {
    let longest = "a".repeat(63);
    for name in ["a", "0", "log", "log-2", "a--b", &longest] {
        assert_eq!(check_name(name), Ok(()), "{name:?}");
    }
    let too_long = "a".repeat(64);
    for name in ["", "-", "-a", "a-", "Log", "a_b", "a.b", "a/b", "é", " ", "*", &too_long] {
        assert!(check_name(name).is_err(), "{name:?}");
    }
    for addr in ["127.0.0.1:1", "localhost:65535", "log-0.log.hubspoke.svc:20002", "[::1]:80", "my_host:9"] {
        assert_eq!(check_addr(addr), Ok(()), "{addr:?}");
    }
    let endless = format!("{}:1", "a".repeat(254));
    for addr in [
        "", ":1", "h", "h:", "h:0", "h:65536", "h:+1", "h:-1", "::1:80", "[::1]", "[x]:1", "a b:1", "a/b:1",
        "a@b:1", &endless,
    ] {
        assert!(check_addr(addr).is_err(), "{addr:?}");
    }
}

#[test]
fn the_first_wrong_field_is_named() {
    let good = ServiceInfo::new("a", "h:1");
    assert_eq!(good.check(), Ok(()));
    let wrong = ServiceInfo { required_services: vec!["*".into(), "B".into()], ..good.clone() };
    assert!(wrong.check().unwrap_err().to_string().starts_with("RequiredServices: \"B\""));
    let wrong = ServiceInfo { control_addr: Some("x".into()), ..good };
    assert!(wrong.check().unwrap_err().to_string().starts_with("ControlAddr: \"x\""));
}
