//! Problem documents.

use std::collections::{BTreeMap, BTreeSet};

use hubspoke_protocol::problem::{ABOUT_BLANK, ProblemDocument, ProblemType};

#[test]
fn each_cause_has_a_urn_an_error_status_and_a_sentence() {
    let mut urns = BTreeSet::new();
    for cause in ProblemType::ALL {
        assert!(urns.insert(cause.urn()), "{cause:?} shares its URN");
        assert_eq!(cause.urn().strip_prefix("urn:hubspoke:problem:"), Some(cause.name()));
        assert!(cause.name().bytes().all(|b| b.is_ascii_lowercase() || b == b'-'), "{cause:?}");
        assert!((400..600).contains(&cause.status()), "{cause:?}");
        assert!(cause.meaning().ends_with('.'), "{cause:?}");
    }
}

#[test]
fn members_stand_beside_the_others() {
    let document = ProblemDocument {
        problem_type: ProblemType::Loop.urn().to_owned(),
        title: "Loop Detected".to_owned(),
        status: 508,
        detail: "see Via".to_owned(),
        members: BTreeMap::from([("cause".to_owned(), "loop".to_owned())]),
    };
    let json = serde_json::to_string(&document).unwrap();
    assert_eq!(
        json,
        r#"{"type":"urn:hubspoke:problem:loop","title":"Loop Detected","status":508,"detail":"see Via","cause":"loop"}"#
    );
    let read: ProblemDocument<BTreeMap<String, String>> = serde_json::from_str(&json).unwrap();
    assert_eq!(read, document);
    let read: ProblemDocument = serde_json::from_str(&json).unwrap();
    assert_eq!(read.detail, "see Via");
    assert!(!serde_json::to_string(&read).unwrap().contains("cause"));
}

#[test]
fn invalid_and_missing_members_get_their_defaults() {
    let json = r#"{"type":1,"title":null,"status":"x","detail":"disk full","more":[{}]}"#;
    let read: ProblemDocument = serde_json::from_str(json).unwrap();
    assert_eq!((read.problem_type.as_str(), read.status), (ABOUT_BLANK, 0));
    assert_eq!((read.title.as_str(), read.detail.as_str()), ("", "disk full"));
    assert!(serde_json::from_str::<ProblemDocument>("{}").is_ok());
    assert!(serde_json::from_str::<ProblemDocument>("[]").is_err());
}
