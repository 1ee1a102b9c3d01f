//! The stored entries: one request, which one log instance answers for all.

use std::time::Duration;

use anyhow::{Context, anyhow, bail};
use hubspoke_client::log::LOG_SERVICE;
use hubspoke_protocol::InstanceState;
use jiff::Timestamp;
use reqwest::{Response, StatusCode};
use tokio::time::timeout;

use super::args::{LogsArgs, encode};
use super::entry::{self, EntryLine};
use super::render::{EntryFormat, render};
use super::reorder::ReorderBuffer;
use crate::admin_client::AdminClient;
use crate::cause::Cause;
use crate::output::{print, remark};
use crate::text;

/// How long an instance may take to begin its answer: it queries its peers first.
const RESPONSE_TIMEOUT: Duration = Duration::from_secs(5);
/// How long it may pause in its answer; it may be searching a large file.
const READ_TIMEOUT: Duration = Duration::from_secs(90);
/// Longest entry, in bytes: far longer than any that a log instance takes.
const MAX_LINE: usize = 64 << 20;
/// Header that names the instances whose entries are missing.
const HUB_LOG_MISSING: &str = "hub-log-missing";

/// Prints the stored entries, oldest first. Returns a buffer that knows them, for the new ones.
pub(super) async fn print_all(
    args: &LogsArgs,
    registry: &AdminClient,
    format: &EntryFormat,
    now: Timestamp,
) -> anyhow::Result<ReorderBuffer> {
    let query = args.history(now);
    let oldest_first = query.iter().any(|(key, _)| *key == "order");
    let mut printed = ReorderBuffer::default();
    let Some(reply) = request(args, registry, &encode(query)).await? else { return Ok(printed) };
    if let Some(missing) = reply.headers().get(HUB_LOG_MISSING).and_then(|value| value.to_str().ok()) {
        let missing = text::one_line(missing, 300);
        remark(&format!("without the entries of {missing}, which did not answer"));
    }
    let mut lines = ReplyLines { reply, buf: Vec::new(), read: 0 };
    let mut newest_first = Vec::new();
    let mut print_entry = |entry: &EntryLine, line: &str| {
        printed.mark_printed(entry, line);
        print(&render(entry, line, format, now))
    };
    while let Some(line) = lines.next().await? {
        let Some(entry) = entry::parse(&line) else { continue };
        if oldest_first { print_entry(&entry, &line)? } else { newest_first.push((entry, line)) }
    }
    for (entry, line) in newest_first.iter().rev() {
        print_entry(entry, line)?;
    }
    Ok(printed)
}

/// Asks the gateway, or the log instances one after the other until one answers. `None` if there is none to
/// ask, and new entries are wanted too.
async fn request(args: &LogsArgs, registry: &AdminClient, query: &str) -> anyhow::Result<Option<Response>> {
    let (urls, failed): (Vec<String>, _) = match &args.gateway {
        Some(gateway) => {
            (vec![gateway.trim_end_matches('/').to_owned()], "can't read entries through the gateway")
        }
        None => {
            let catalog = registry.catalog().await?;
            let all = catalog.services.get(LOG_SERVICE).into_iter().flatten();
            let present = all.filter(|instance| instance.state != InstanceState::Removed);
            let urls = present.map(|instance| registry.log_url(&instance.info.addr)).collect();
            (urls, "can't read entries from any log instance")
        }
    };
    if urls.is_empty() && args.follow {
        return Ok(None);
    }
    let mut failure = anyhow!("none is registered");
    for url in urls {
        let path = format!("{url}/{LOG_SERVICE}/all?{query}");
        match timeout(RESPONSE_TIMEOUT, registry.get_log(&path)).await {
            Ok(Ok(reply)) if reply.status().is_success() => return Ok(Some(reply)),
            Ok(Ok(reply)) => {
                let status = reply.status();
                let detail = text::problem_detail(&reply.bytes().await.unwrap_or_default());
                if matches!(status, StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN) {
                    bail!(
                        "{detail} ({status}); set HUB_REGISTRY__TOKEN or registry.token_file to a reader's or an \
                         operator's token"
                    );
                }
                if status.is_client_error() && args.gateway.is_none() {
                    bail!("{detail} ({status})"); // any other instance would refuse it too
                }
                failure = anyhow!("{url} answered {status}: {detail}");
            }
            Ok(Err(error)) => failure = anyhow!("{url}: {}", Cause::of_send(&error)),
            Err(_) => failure = anyhow!("{url}: no answer within {RESPONSE_TIMEOUT:?}"),
        }
    }
    let hint = if args.gateway.is_none() { "; to read through a gateway, pass --gateway URL" } else { "" };
    Err(anyhow!("{failed}: {failure:#}{hint}"))
}

/// The lines of a reply.
struct ReplyLines {
    reply: Response,
    buf: Vec<u8>,
    /// How much of `buf` has been returned.
    read: usize,
}

impl ReplyLines {
    async fn next(&mut self) -> anyhow::Result<Option<String>> {
        let mut searched = self.read;
        loop {
            if let Some(end) = self.buf[searched..].iter().position(|&b| b == b'\n') {
                let end = searched + end;
                let line = String::from_utf8_lossy(&self.buf[self.read..end]).into_owned();
                self.read = end + 1;
                return Ok(Some(line));
            }
            self.buf.drain(..self.read);
            self.read = 0;
            searched = self.buf.len();
            if searched > MAX_LINE {
                bail!("the log service sent an entry longer than {MAX_LINE} bytes");
            }
            let chunk = timeout(READ_TIMEOUT, self.reply.chunk()).await;
            let chunk =
                chunk.with_context(|| format!("the log service sent nothing for {READ_TIMEOUT:?}"))?;
            match chunk
                .map_err(|error| anyhow!("the log service broke off its answer: {}", Cause::of(&error)))?
            {
                Some(chunk) => self.buf.extend_from_slice(&chunk),
                None if self.buf.is_empty() => return Ok(None),
                None => bail!("the log service broke off its answer"),
            }
        }
    }
}
