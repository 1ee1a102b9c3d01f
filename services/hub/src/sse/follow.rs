//! Following a stream of events over its breaks: connects again by itself, later and later, and says where it
//! stands. It goes on from the last event's id, so a server that keeps some history need not begin anew.

use std::time::Duration;

use reqwest::header::ACCEPT;
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};

use super::{Event, Parser};

/// Events that may wait to be read.
const WAITING: usize = 256;
/// How long a server may take to begin its answer.
const ANSWER: Duration = Duration::from_secs(5);
/// A stream on which nothing comes for so long, not even a comment, is dead.
const SILENCE: Duration = Duration::from_secs(30);
/// Before the first new attempt.
const FIRST_WAIT: Duration = Duration::from_millis(200);
/// Before each later one, at the most.
const MAX_WAIT: Duration = Duration::from_secs(3);
/// The header that says where to go on.
const LAST_EVENT_ID: &str = "last-event-id";

/// What there is to say of a stream.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Said {
    /// It is open.
    Open,
    /// An event came.
    Event(Event),
    /// It is not, or no longer, open; the next attempt follows by itself.
    Away {
        /// Why, for people.
        why: String,
    },
}

/// A stream that is followed. Dropped, it ends.
#[derive(Debug)]
pub struct Follow {
    said: mpsc::Receiver<Said>,
    /// One task; ends with its owner.
    task: JoinSet<()>,
}

impl Follow {
    /// Begins to follow the stream at `url`. `http` must have no timeout over whole replies.
    pub fn start(http: reqwest::Client, url: String) -> Self {
        let (out, said) = mpsc::channel(WAITING);
        let mut task = JoinSet::new();
        task.spawn(follow(http, url, out));
        Self { said, task }
    }

    /// What there is to say next. Cancelling loses nothing.
    ///
    /// # Errors
    /// Where the task that follows has died.
    pub async fn next(&mut self) -> anyhow::Result<Said> {
        if let Some(said) = self.said.recv().await {
            return Ok(said);
        }
        if let Some(Err(error)) = self.task.join_next().await {
            return Err(error.into());
        }
        anyhow::bail!("the stream's reader has ended")
    }
}

async fn follow(http: reqwest::Client, url: String, out: mpsc::Sender<Said>) {
    let mut last_id = String::new();
    let mut wait = FIRST_WAIT;
    loop {
        let why = match read(&http, &url, &mut last_id, &out, &mut wait).await {
            Ok(()) => "the stream has ended".to_owned(),
            Err(why) => why,
        };
        if out.send(Said::Away { why }).await.is_err() {
            return; // nobody listens
        }
        // So that not everybody comes back at once where a server restarts.
        sleep(wait.mul_f64(rand::random_range(0.5..1.0))).await;
        wait = (wait * 2).min(MAX_WAIT);
    }
}

/// Reads one connection to its end.
async fn read(
    http: &reqwest::Client,
    url: &str,
    last_id: &mut String,
    out: &mpsc::Sender<Said>,
    wait: &mut Duration,
) -> Result<(), String> {
    let mut request = http.get(url).header(ACCEPT, "text/event-stream");
    if !last_id.is_empty() {
        request = request.header(LAST_EVENT_ID, last_id.as_str());
    }
    let sent = timeout(ANSWER, request.send()).await.map_err(|_| "no answer in time".to_owned())?;
    let mut reply = sent.map_err(|error| why(&error))?;
    let status = reply.status();
    if !status.is_success() {
        let body = timeout(ANSWER, reply.bytes()).await.ok().and_then(Result::ok).unwrap_or_default();
        return Err(format!("{status} {}", crate::problem::detail(&body)).trim_end().to_owned());
    }
    let kind = reply.headers().get(reqwest::header::CONTENT_TYPE);
    if !kind.is_some_and(|kind| kind.as_bytes().starts_with(b"text/event-stream")) {
        return Err("it answers, but with no stream of events".to_owned());
    }
    *wait = FIRST_WAIT;
    let mut parser = Parser::default();
    let mut events = Vec::new();
    if out.send(Said::Open).await.is_err() {
        return Ok(());
    }
    loop {
        let chunk = timeout(SILENCE, reply.chunk()).await.map_err(|_| format!("silent for {SILENCE:?}"))?;
        let Some(chunk) = chunk.map_err(|error| why(&error))? else { return Ok(()) };
        parser.feed(&chunk, &mut events).map_err(|error| error.to_string())?;
        for event in events.drain(..) {
            event.id.clone_into(last_id);
            if out.send(Said::Event(event)).await.is_err() {
                return Ok(());
            }
        }
    }
}

/// The innermost cause, which is the one that people can act on: `Connection refused (os error 111)`.
pub(crate) fn why(error: &reqwest::Error) -> String {
    let mut cause: &dyn std::error::Error = error;
    while let Some(inner) = cause.source() {
        cause = inner;
    }
    cause.to_string()
}
