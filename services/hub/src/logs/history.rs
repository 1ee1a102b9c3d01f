//! The entries that are there already: one request, which one log instance answers for all.

use std::time::Duration;

use anyhow::{Context, anyhow, bail};
use hubspoke_client::log::LOG_SERVICE;
use hubspoke_protocol::InstanceState;
use jiff::Timestamp;
use reqwest::Response;
use tokio::time::timeout;

use super::entry::{self, Entry, Look};
use super::merge::Merge;
use super::{Args, encode, say};
use crate::admin::Registry;
use crate::{print, text};

/// How long an instance may take to begin its answer: it asks its peers first.
const BEGIN: Duration = Duration::from_secs(5);
/// How long it may take to go on; it may be searching a large file.
const GO_ON: Duration = Duration::from_secs(90);
/// Longest entry, in bytes: far longer than any that a log instance takes.
const MAX_LINE: usize = 64 << 20;
/// Header that names instances whose entries are not in the answer.
const HUB_LOG_MISSING: &str = "hub-log-missing";

/// Prints the entries that there are, oldest first; returns what was seen.
pub(super) async fn show_all(
    args: &Args,
    registry: &Registry,
    look: Look,
    now: Timestamp,
) -> anyhow::Result<Merge> {
    let query = args.past(now);
    let oldest_first = query.iter().any(|(key, _)| *key == "order");
    let mut merge = Merge::default();
    let Some(reply) = ask(args, registry, &encode(query)).await? else { return Ok(merge) };
    if let Some(missing) = reply.headers().get(HUB_LOG_MISSING).and_then(|value| value.to_str().ok()) {
        say(&format!("without the entries of {}, which do not answer", text::one_line(missing, 300)));
    }
    let mut lines = Lines { reply, buf: Vec::new(), at: 0 };
    let mut newest_first = Vec::new();
    while let Some(line) = lines.next().await? {
        let Some(entry) = entry::read(&line) else { continue };
        if oldest_first { show(&mut merge, &entry, &line, look)? } else { newest_first.push((entry, line)) }
    }
    for (entry, line) in newest_first.iter().rev() {
        show(&mut merge, entry, line, look)?;
    }
    Ok(merge)
}

fn show(merge: &mut Merge, entry: &Entry, line: &str, look: Look) -> anyhow::Result<()> {
    merge.seen(entry);
    print(&entry::show(entry, line, look))
}

/// Asks the gateway, or one log instance after the other; nothing where following is wanted and none is there yet.
async fn ask(args: &Args, registry: &Registry, query: &str) -> anyhow::Result<Option<Response>> {
    let (bases, via): (Vec<String>, _) = match &args.gateway {
        Some(gateway) => (vec![gateway.trim_end_matches('/').to_owned()], "gateway"),
        None => {
            let catalog = registry.catalog().await?;
            let all = catalog.services.get(LOG_SERVICE).into_iter().flatten();
            let present = all.filter(|instance| instance.state != InstanceState::Removed);
            (present.map(|instance| format!("http://{}", instance.info.addr)).collect(), "log instance")
        }
    };
    if bases.is_empty() && args.follow {
        return Ok(None);
    }
    let mut last = anyhow!("the registry knows of none");
    for base in bases {
        let request = registry.http().get(format!("{base}/{LOG_SERVICE}/all?{query}")).send();
        match timeout(BEGIN, request).await {
            Ok(Ok(reply)) if reply.status().is_success() => return Ok(Some(reply)),
            Ok(Ok(reply)) => {
                let status = reply.status();
                let detail = text::problem_detail(&reply.bytes().await.unwrap_or_default());
                if status.is_client_error() && via == "log instance" {
                    bail!("{detail} ({status})"); // any other would say the same
                }
                last = anyhow!("{base} answers {status}: {detail}");
            }
            Ok(Err(error)) => last = anyhow!("{base}: {}", text::root_cause(&error)),
            Err(_) => last = anyhow!("{base}: no answer in time"),
        }
    }
    let hint = if args.gateway.is_none() { "; through a gateway: --gateway URL" } else { "" };
    Err(anyhow!("no {via} answers ({last:#}){hint}"))
}

/// The lines of a reply.
struct Lines {
    reply: Response,
    buf: Vec<u8>,
    /// How much of `buf` is used up.
    at: usize,
}

impl Lines {
    async fn next(&mut self) -> anyhow::Result<Option<String>> {
        let mut searched = self.at;
        loop {
            if let Some(end) = self.buf[searched..].iter().position(|&b| b == b'\n') {
                let end = searched + end;
                let line = String::from_utf8_lossy(&self.buf[self.at..end]).into_owned();
                self.at = end + 1;
                return Ok(Some(line));
            }
            self.buf.drain(..self.at);
            self.at = 0;
            searched = self.buf.len();
            if searched > MAX_LINE {
                bail!("an entry is longer than {MAX_LINE} bytes");
            }
            let chunk = timeout(GO_ON, self.reply.chunk()).await.context("the log service went silent")?;
            match chunk.context("the log service broke off its answer")? {
                Some(chunk) => self.buf.extend_from_slice(&chunk),
                None if self.buf.is_empty() => return Ok(None),
                None => bail!("the log service broke off its answer"),
            }
        }
    }
}
