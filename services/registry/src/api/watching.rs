//! `GET /services/watch`: the changes as server-sent events.

use std::convert::Infallible;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use axum::Extension;
use axum::body::Body;
use axum::extract::{RawQuery, State};
use axum::http::{HeaderMap, HeaderValue, header};
use axum::response::Response;
use bytes::Bytes;
use http_body::Frame;
use hubspoke_chassis::server::Connection;
use hubspoke_chassis::{Problem, ProblemType};
use hubspoke_protocol::check_name;
use percent_encoding::percent_decode_str;
use tokio::sync::mpsc;

use super::Api;
use crate::watch::{self, Task, Wanted};

/// When the registry stops, a reader may take this long to take the end of its stream.
const LAST_WORDS: Duration = Duration::from_secs(1);
/// At most so many `service=` in one request.
const MAX_FILTERS: usize = 256;

pub(super) async fn watch(
    State(api): State<Arc<Api>>,
    RawQuery(query): RawQuery,
    Extension(connection): Extension<Connection>,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    let last = headers.get("last-event-id").and_then(|id| id.to_str().ok()).and_then(|id| id.parse().ok());
    let wanted = Wanted { services: services(query.as_deref().unwrap_or_default())?, last };
    let started = watch::start(&api.core, wanted, api.max_watchers, connection.clone());
    let Some((events, task)) = started else {
        let detail = format!("{} watch already", api.max_watchers);
        return Err(Problem::new(ProblemType::TooManyStreams, detail).retry_after(10));
    };
    Ok(stream(&api, connection, events, task))
}

/// A reply of server-sent events that `task` makes. It ends with the task, or when the registry stops; a reader
/// that does not take the end then is not waited for.
pub(crate) fn stream(
    api: &Api,
    connection: Connection,
    events: mpsc::Receiver<Bytes>,
    task: Task,
) -> Response {
    let stopped = || {
        let mut stopping = api.stopping.subscribe();
        async move { drop(stopping.wait_for(|stop| *stop).await) }
    };
    let end = stopped();
    let end = Task::spawn(async move {
        end.await;
        tokio::time::sleep(LAST_WORDS).await;
        connection.end();
    });
    let mut response =
        Response::new(Body::new(Events { events, stopped: Box::pin(stopped()), _tasks: [task, end] }));
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("text/event-stream"));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}

/// Every `service=NAME` of a query. Other keys are not ours to judge.
fn services(query: &str) -> Result<Vec<String>, Problem> {
    let unprocessable = |detail: String| Problem::new(ProblemType::InvalidFilter, detail);
    let names = query.split('&').filter_map(|pair| pair.strip_prefix("service="));
    let names = names.map(|name| percent_decode_str(name).decode_utf8_lossy().into_owned());
    let names: Vec<_> = names.collect();
    if names.len() > MAX_FILTERS {
        return Err(unprocessable(format!("service: {} names are more than {MAX_FILTERS}", names.len())));
    }
    for name in &names {
        check_name(name).map_err(|error| unprocessable(format!("service: {error}")))?;
    }
    Ok(names)
}

/// A body of events that ends with its sender, or when the registry stops.
struct Events {
    events: mpsc::Receiver<Bytes>,
    stopped: Pin<Box<dyn Future<Output = ()> + Send>>,
    _tasks: [Task; 2],
}

impl http_body::Body for Events {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        if self.stopped.as_mut().poll(context).is_ready() {
            return Poll::Ready(None);
        }
        self.events.poll_recv(context).map(|event| event.map(|text| Ok(Frame::data(text))))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn filters_are_read_and_checked() {
        assert_eq!(services("").unwrap(), [""; 0]);
        assert_eq!(services("service=a&x=y&service=b-2").unwrap(), ["a", "b-2"]);
        assert_eq!(services("service=a%2Db").unwrap(), ["a-b"]);
        for wrong in ["service=", "service=A", "service=a%20b"] {
            assert_eq!(services(wrong).unwrap_err().status().as_u16(), 422, "{wrong}");
        }
        assert!(services(&"service=a&".repeat(MAX_FILTERS + 1)).is_err());
    }
}
