use std::path::Path;

use super::*;
use crate::Process;
use crate::config::Secret;
use crate::rights::{Role, TokenEntry, hash_of};

fn control(own: Option<&str>, tokens_file: Option<&Path>) -> Result<AccessControl, ConfigError> {
    let mut common = Common::of(&Process::new("test", "0")).unwrap();
    common.registry.token = own.map(Secret::new);
    common.access.tokens_file = tokens_file.map(Path::to_owned);
    let own = common.registry.read_token().unwrap();
    AccessControl::new(&common, own, None, &Metrics::new("test", "test-1").unwrap())
}

fn with(authorization: Option<&str>) -> HeaderMap {
    authorization.map(|value| (header::AUTHORIZATION, value.parse().unwrap())).into_iter().collect()
}

fn now() -> Timestamp {
    "2026-11-26T12:00:00Z".parse().unwrap()
}

fn subject(control: &AccessControl, authorization: Option<&str>) -> Result<Subject, Denied> {
    control.subject(&with(authorization), None, Instant::now(), now)
}

#[test]
fn without_tokens_everybody_may_do_everything() {
    let open = control(None, None).unwrap();
    assert!(!open.is_on());
    assert_eq!(subject(&open, None), Ok(Subject::Anybody));
    assert_eq!(subject(&open, Some("Bearer x")), Ok(Subject::Anybody));
}

#[test]
fn only_the_right_token_is_accepted() {
    let closed = control(Some("hush"), None).unwrap();
    for none in [None, Some("hush"), Some("Basic hush"), Some(""), Some("Bearer "), Some("Bearer")] {
        assert_eq!(subject(&closed, none), Err(Denied::Missing), "{none:?}");
    }
    for wrong in ["Bearer hus", "Bearer hushh", "Bearer Hush", "Bearer hush hush"] {
        assert_eq!(subject(&closed, Some(wrong)), Err(Denied::Unknown), "{wrong:?}");
    }
    for right in ["Bearer hush", "bearer hush", "BEARER  hush "] {
        assert_eq!(subject(&closed, Some(right)), Ok(Subject::Own), "{right:?}");
    }
}

#[test]
fn a_token_of_the_file_has_its_role_until_it_expires() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("tokens");
    let expires = Some("2026-11-26T11:59:59Z".parse().unwrap());
    let entry = |name: &str, role, expires| TokenEntry {
        name: name.into(),
        role,
        hosts: Vec::new(),
        expires,
        hash: hash_of(name),
    };
    let entries =
        [entry("shop", Role::Member(vec!["shop".into()]), None), entry("old", Role::Operator, expires)];
    std::fs::write(&path, entries.each_ref().map(ToString::to_string).join("\n")).unwrap();
    let control = control(None, Some(&path)).unwrap();
    let shop = subject(&control, Some("Bearer shop")).unwrap();
    assert_eq!(shop.to_string(), "the token shop (member shop)");
    assert!(shop.may(Right::Register("shop")) && !shop.may(Right::Register("visit")));
    let error = subject(&control, Some("Bearer old")).unwrap_err().to_string();
    assert_eq!(error, "the token old expired at 2026-11-26T11:59:59Z");
    assert_eq!(subject(&control, Some("Bearer other")), Err(Denied::Unknown));
    assert_eq!(subject(&control, None), Err(Denied::Missing));
}

#[test]
fn a_new_token_is_known_at_once() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("tokens");
    std::fs::write(&path, "").unwrap();
    let control = control(None, Some(&path)).unwrap();
    let entry = TokenEntry {
        name: "new".into(),
        role: Role::Reader,
        hosts: Vec::new(),
        expires: None,
        hash: hash_of("new"),
    };
    std::fs::write(&path, entry.to_string()).unwrap();
    let after = |millis| {
        let now = Instant::now() + std::time::Duration::from_millis(millis);
        control.subject(&with(Some("Bearer new")), None, now, self::now).is_ok()
    };
    assert!(after(300));
    std::fs::write(&path, "").unwrap();
    assert!(after(400) && !after(3000), "a revoked one within seconds");
}

#[test]
fn a_file_that_can_t_be_used_is_an_error_at_the_start() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("tokens");
    let error = || control(None, Some(&path)).unwrap_err().to_string();
    assert!(error().contains("access.tokens_file") && error().contains("No such file"), "{}", error());
    std::fs::write(&path, "shop member\n").unwrap();
    assert!(error().contains("line 1: expected NAME ROLE"), "{}", error());
}

#[tokio::test(start_paused = true)]
async fn refusals_are_slow_but_not_if_there_are_many() {
    let closed = control(Some("hush"), None).unwrap();
    let headers = with(None);
    let start = tokio::time::Instant::now();
    assert_eq!(closed.require(Right::Operate, &headers, None).await, Err(Denied::Missing));
    assert!(start.elapsed() >= std::time::Duration::from_millis(250));
    let all = (0..200).map(|_| closed.authenticate(&headers, None));
    let mut all: futures_util::stream::FuturesUnordered<_> = all.collect();
    let start = tokio::time::Instant::now();
    let mut at_once = 0;
    while futures_util::StreamExt::next(&mut all).await.is_some() {
        at_once += usize::from(start.elapsed().is_zero());
    }
    assert_eq!(at_once, 200 - 64);
    let start = tokio::time::Instant::now();
    assert!(closed.require(Right::Operate, &with(Some("Bearer hush")), None).await.is_ok());
    assert!(start.elapsed().is_zero());
}
