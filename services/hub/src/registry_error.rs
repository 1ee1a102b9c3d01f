//! Why the registry could not be asked, or refused, in one line with the next step. Pure.

use hubspoke_protocol::{HUB_INSTANCE, HUB_REVISION};
use reqwest::StatusCode;
use reqwest::header::{CONTENT_TYPE, HeaderMap, LOCATION};

use crate::cause::Cause;
use crate::text::{one_line, problem_detail};

/// Longest header value that is shown, in characters.
const MAX_VALUE: usize = 100;
/// How to name a registry.
const NAME_IT: &str = "--registry URL or HUB_REGISTRY__URL";

/// No answer came from the registry at `url`. `hub` is the command line that starts this program.
pub(crate) fn unanswered(url: &str, cause: &Cause, hub: &str) -> String {
    match cause {
        Cause::Closed | Cause::NotHttp => {
            format!("{url} is not a registry ({cause}); name the right one with {NAME_IT}")
        }
        Cause::Name(_) | Cause::Timeout { .. } => {
            format!(
                "no registry answers at {url} ({cause}); check the address, or name another with {NAME_IT}"
            )
        }
        Cause::Connect(_) | Cause::Other(_) => {
            format!(
                "no registry answers at {url} ({cause}); start one with `{hub} up`, or name another with {NAME_IT}"
            )
        }
    }
}

/// The answer of the server at `url` is not a success. `with_token` is whether the request carried a token.
pub(crate) fn refused(
    url: &str,
    status: StatusCode,
    headers: &HeaderMap,
    body: &[u8],
    with_token: bool,
) -> String {
    let detail = problem_detail(body);
    if !headers.contains_key(HUB_REVISION) && is_stranger(status) {
        return not_a_registry(url, status, headers);
    }
    let hint = match (status, with_token) {
        (StatusCode::UNAUTHORIZED, false) => "; set HUB_REGISTRY__TOKEN or registry.token_file",
        (StatusCode::UNAUTHORIZED, true) => {
            "; the token in HUB_REGISTRY__TOKEN or registry.token_file is not the right one"
        }
        _ => "",
    };
    let colon = if detail.is_empty() { "" } else { ": " };
    format!("the registry answered {status}{colon}{detail}{hint}")
}

/// The server at `url` answers, but it is another one.
pub(crate) fn not_a_registry(url: &str, status: StatusCode, headers: &HeaderMap) -> String {
    let header = |name: &str| {
        let value = headers.get(name)?;
        Some(one_line(&String::from_utf8_lossy(value.as_bytes()), MAX_VALUE))
    };
    let answer = match (header(HUB_INSTANCE), header(LOCATION.as_str()), header(CONTENT_TYPE.as_str())) {
        (Some(instance), ..) => format!("{instance} answers there"),
        (None, Some(location), _) if status.is_redirection() => format!("it redirects to {location}"),
        (None, _, Some(kind)) => format!("it answered {status} with {kind}"),
        (None, _, None) => format!("it answered {status}"),
    };
    format!("{url} is not a Hubspoke registry ({answer}); name the registry with {NAME_IT}")
}

/// Whether a status without the registry's own header comes from a server that knows no such route. Others may
/// come from a proxy before the registry.
fn is_stranger(status: StatusCode) -> bool {
    status.is_redirection()
        || matches!(
            status,
            StatusCode::BAD_REQUEST
                | StatusCode::NOT_FOUND
                | StatusCode::METHOD_NOT_ALLOWED
                | StatusCode::GONE
                | StatusCode::NOT_IMPLEMENTED
        )
}

#[cfg(test)]
mod tests {
    use super::*;

    const URL: &str = "http://r:1";

    #[test]
    fn each_cause_has_its_next_step() {
        let text = |cause: Cause| unanswered(URL, &cause, "hub");
        assert_eq!(
            text(Cause::Connect("connection refused".to_owned())),
            "no registry answers at http://r:1 (connection refused); start one with `hub up`, or name another with \
             --registry URL or HUB_REGISTRY__URL"
        );
        assert_eq!(
            text(Cause::Name("Name or service not known".to_owned())),
            "no registry answers at http://r:1 (the host name can't be resolved: Name or service not known); check \
             the address, or name another with --registry URL or HUB_REGISTRY__URL"
        );
        assert!(
            text(Cause::Timeout { connected: false }).contains("(connecting timed out); check the address")
        );
        assert!(
            text(Cause::NotHttp).starts_with("http://r:1 is not a registry (it does not speak plain HTTP;")
        );
        assert!(text(Cause::Closed).starts_with("http://r:1 is not a registry (it closed the connection"));
    }

    #[test]
    fn answers_of_the_registry_and_of_others() {
        let headers = |list: &[(&'static str, &str)]| -> HeaderMap {
            list.iter().map(|(name, value)| (name.parse().unwrap(), value.parse().unwrap())).collect()
        };
        let own = headers(&[(HUB_REVISION, "1.1"), (HUB_INSTANCE, "registry-1")]);
        let problem = br#"{"type":"urn:hubspoke:problem:x","detail":"not that way"}"#;
        let html = headers(&[("content-type", "text/html")]);
        for (status, headers, body, with_token, expected) in [
            (404, &own, &problem[..], false, "the registry answered 404 Not Found: not that way"),
            (
                401,
                &own,
                problem,
                false,
                "the registry answered 401 Unauthorized: not that way; set HUB_REGISTRY__TOKEN",
            ),
            (
                401,
                &own,
                problem,
                true,
                "not that way; the token in HUB_REGISTRY__TOKEN or registry.token_file is not",
            ),
            (403, &own, problem, true, "the registry answered 403 Forbidden: not that way"),
            (503, &html, b"<b>busy</b>", false, "the registry answered 503 Service Unavailable: <b>busy</b>"),
            (
                404,
                &html,
                b"<html>",
                false,
                "http://r:1 is not a Hubspoke registry (it answered 404 Not Found with text/html); name",
            ),
            (
                400,
                &headers(&[]),
                b"",
                false,
                "http://r:1 is not a Hubspoke registry (it answered 400 Bad Request); name",
            ),
            (
                301,
                &headers(&[("location", "https://r\u{9}x/")]),
                b"",
                false,
                "(it redirects to https://r x/)",
            ),
            (404, &headers(&[(HUB_INSTANCE, "gateway-7")]), problem, false, "(gateway-7 answers there)"),
        ] {
            let status = StatusCode::from_u16(status).unwrap();
            let text = refused(URL, status, headers, body, with_token);
            assert!(text.contains(expected), "{expected}: {text}");
            assert_eq!(text.lines().count(), 1);
        }
    }
}
