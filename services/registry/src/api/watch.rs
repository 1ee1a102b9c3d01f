//! `GET /services/watch`: changes as server-sent events.

use std::sync::Arc;

use axum::Extension;
use axum::extract::{RawQuery, State};
use axum::http::HeaderMap;
use axum::response::Response;
use hubspoke_chassis::server::ConnectionHandle;
use hubspoke_chassis::{Problem, ProblemType};
use hubspoke_protocol::{check_name, sse};
use percent_encoding::percent_decode_str;

use super::context::Api;
use crate::event_stream;
use crate::watch::{self, WatchFilter};

/// Most `service` parameters in one request.
const MAX_FILTERS: usize = 256;

pub(super) async fn watch(
    State(api): State<Arc<Api>>,
    RawQuery(query): RawQuery,
    Extension(connection): Extension<ConnectionHandle>,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    let last = headers.get(sse::LAST_EVENT_ID).and_then(|id| id.to_str().ok()).and_then(|id| id.parse().ok());
    let filter = WatchFilter { services: services(query.as_deref().unwrap_or_default())?, last };
    let started = watch::start(&api.dispatcher.feed, filter, api.max_watchers, connection.clone());
    let Some((events, task)) = started else {
        let detail = format!("there are {} watch streams already", api.max_watchers);
        return Err(Problem::new(ProblemType::TooManyStreams, detail).retry_after(10));
    };
    Ok(event_stream::response(events, task, connection, api.shutdown.clone()))
}

/// The values of all `service` parameters. Other parameters are ignored.
pub(super) fn services(query: &str) -> Result<Vec<String>, Problem> {
    let unprocessable = |detail: String| Problem::new(ProblemType::InvalidFilter, detail);
    let names = query.split('&').filter_map(|pair| pair.strip_prefix("service="));
    let names: Vec<_> = names.map(|name| percent_decode_str(name).decode_utf8_lossy().into_owned()).collect();
    if names.len() > MAX_FILTERS {
        let detail = format!("service: {} names, at most {MAX_FILTERS} are allowed", names.len());
        return Err(unprocessable(detail));
    }
    for name in &names {
        check_name(name).map_err(|error| unprocessable(format!("service: {error}")))?;
    }
    Ok(names)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn filters_are_parsed_and_validated() {
        assert_eq!(services("").unwrap(), [""; 0]);
        assert_eq!(services("service=a&x=y&service=b-2").unwrap(), ["a", "b-2"]);
        assert_eq!(services("service=a%2Db").unwrap(), ["a-b"]);
        for wrong in ["service=", "service=A", "service=a%20b"] {
            assert_eq!(services(wrong).unwrap_err().status().as_u16(), 422, "{wrong}");
        }
        assert!(services(&"service=a&".repeat(MAX_FILTERS + 1)).is_err());
    }
}
