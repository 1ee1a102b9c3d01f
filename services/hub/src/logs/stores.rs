//! Test: the files of several log instances, written by senders that nobody coordinates, as `hub logs --follow` merges
//! them. Real stores, without servers.

use std::path::Path;
use std::time::Duration;

use hubspoke_log::entry::{Batch, EntryMeta};
use hubspoke_log::store::{OpenError, Store, StoreOptions};
use hubspoke_protocol::CopyFilter;
use jiff::Timestamp;
use proptest::prelude::*;

use super::entry::{self, EntryLine};
use super::reorder::ReorderBuffer;

/// Each sends its entries under the keys `1`, `2`, …, like all others, and each entry until it is acknowledged. Texts
/// are the same for all of them.
const HONEST: [EntryMeta<'_>; 3] = [
    EntryMeta { source: Some("visit"), source_id: Some("visit-1"), ..NOBODY },
    EntryMeta { source: Some("visit"), source_id: Some("visit-2"), ..NOBODY },
    EntryMeta { client: Some("10.0.0.1"), ..NOBODY },
];
const NOBODY: EntryMeta<'_> = EntryMeta {
    source: None,
    source_id: None,
    client: None,
    claimed: None,
    claimed_id: None,
    trace_id: None,
    level: None,
    time: None,
    key: None,
};

#[derive(Debug, Clone)]
enum Step {
    /// An honest sender sends its next entry, or that of its last step again if it has got no acknowledgement, to one
    /// instance or, for two copies, to both.
    Honest { sender: usize, to: &'static [usize], answered: bool },
    /// A stranger sends something under the key of any honest sender.
    Hostile { form: usize, key: usize, same_text: bool, to: usize },
    /// An instance stops and starts again.
    Restart(usize),
}

/// One of the two instances, or both.
const INSTANCES: &[&[usize]] = &[&[0], &[1], &[0, 1], &[1, 0]];

fn step() -> impl Strategy<Value = Step> {
    let to = proptest::sample::select(INSTANCES);
    prop_oneof![
        6 => (0..HONEST.len(), to, any::<bool>())
            .prop_map(|(sender, to, answered)| Step::Honest { sender, to, answered }),
        3 => (0..4_usize, 1..8_usize, any::<bool>(), 0..2_usize)
            .prop_map(|(form, key, same_text, to)| Step::Hostile { form, key, same_text, to }),
        1 => (0..2_usize).prop_map(Step::Restart),
    ]
}

fn open(dir: &Path, n: usize) -> Store {
    loop {
        match Store::open(StoreOptions::new(dir.join("services.log")), &format!("log-{n}")) {
            // Another test may be starting a process, which has copies of all locks until its program runs.
            Err(OpenError::InUse(_)) => std::thread::yield_now(),
            opened => return opened.unwrap(),
        }
    }
}

fn batch(meta: EntryMeta<'_>, n: usize) -> Batch {
    let mut batch = Batch::new(Some(n.to_string()));
    batch.push(&meta, n.to_string().as_bytes(), None);
    if n.is_multiple_of(2) {
        batch.push(&meta, format!("{n} again").as_bytes(), None);
    }
    batch
}

fn hostile(form: usize, key: usize, same_text: bool) -> Batch {
    let text = if same_text { key.to_string() } else { format!("not {key}") };
    let key = key.to_string();
    let claims = EntryMeta { claimed: Some("visit"), claimed_id: Some("visit-1"), ..NOBODY };
    let stranger = EntryMeta { client: Some("10.6.6.6"), ..claims };
    match form {
        0 => Batch::one(&stranger, text.as_bytes(), Some(key)),
        1 => Batch::one(&EntryMeta { source: Some("mallory"), ..claims }, text.as_bytes(), Some(key)),
        2 => Batch::one(&EntryMeta { client: Some("10.6.6.6"), ..NOBODY }, text.as_bytes(), Some(key)),
        _ => {
            let mut batch = Batch::new(None);
            for _ in 0..2 {
                batch.push(&EntryMeta { key: Some(&key), ..stranger }, text.as_bytes(), None);
            }
            batch
        }
    }
}

/// All that was written, and the next entry of each honest sender.
async fn write(dirs: [&Path; 2], steps: Vec<Step>) -> [usize; HONEST.len()] {
    let mut stores = [0, 1].map(|n| Some(open(dirs[n], n)));
    let mut next = [1; HONEST.len()];
    for step in steps {
        let append = async |to: usize, batch: Batch| {
            let Some(store) = &stores[to] else { unreachable!() };
            store.append(batch, Timestamp::now).unwrap().await
        };
        match step {
            Step::Honest { sender, to, answered } => {
                for to in to {
                    append(*to, batch(HONEST[sender], next[sender])).await.unwrap();
                }
                next[sender] += usize::from(answered);
            }
            // Nothing about the outcome is promised to a stranger.
            Step::Hostile { form, key, same_text, to } => {
                let _ = append(to, hostile(form, key, same_text)).await;
            }
            Step::Restart(n) => {
                stores[n] = None;
                stores[n] = Some(open(dirs[n], n));
            }
        }
    }
    next
}

fn lines(dir: &Path) -> Vec<(EntryLine, String)> {
    let text = std::fs::read_to_string(dir.join("services.log")).unwrap();
    text.lines().map(|line| (entry::parse(line).unwrap(), line.to_owned())).collect()
}

/// The output of `hub logs --follow`: the entries before `cut` (in parts of a hundred) as `/log/all` merges them, and then
/// those of a tail per instance, whose events come in `turns`.
fn print(files: &[Vec<(EntryLine, String)>; 2], cut: [usize; 2], turns: &[usize]) -> Vec<EntryLine> {
    let mut history = Vec::new();
    for (file, cut) in files.iter().zip(cut) {
        history.extend_from_slice(&file[..file.len() * cut / 100]);
    }
    history.sort_by(|(a, _), (b, _)| a.ts.cmp(&b.ts));
    let mut merge = CopyFilter::new(1_000);
    history.retain(|(_, line)| merge.is_first_line(line));
    let mut buffer = ReorderBuffer::default();
    history.iter().for_each(|(entry, line)| buffer.mark_printed(entry, line));

    let mut printed: Vec<EntryLine> = history.into_iter().map(|(entry, _)| entry).collect();
    // A tail begins some time before, and sends again what it has sent before its connection broke.
    let mut tails = files.each_ref().map(|file| file.iter().chain(&file[file.len() / 2..]));
    let mut now = Duration::ZERO;
    let mut drain = |buffer: &mut ReorderBuffer, now| {
        printed.extend(std::iter::from_fn(|| buffer.next(now)).map(|(entry, _)| entry));
    };
    let all = [0, 1].into_iter().flat_map(|n| std::iter::repeat_n(n, 2 * files[n].len()));
    for turn in turns.iter().copied().chain(all) {
        if let Some((entry, line)) = tails[turn].next() {
            buffer.add(entry.clone(), line.clone(), now);
        }
        now += Duration::from_millis(20);
        drain(&mut buffer, now);
    }
    drain(&mut buffer, now + Duration::from_secs(1));
    printed
}

fn count(printed: &[EntryLine], sender: EntryMeta<'_>, text: &str) -> usize {
    let is_from = |entry: &&EntryLine| {
        (entry.source.as_deref(), entry.source_id.as_deref(), entry.client.as_deref())
            == (sender.source, sender.source_id, sender.client)
    };
    printed.iter().filter(is_from).filter(|entry| entry.msg == text).count()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]
    #[test]
    fn every_acknowledged_entry_of_an_honest_sender_is_printed_exactly_once(
        steps in proptest::collection::vec(step(), 1..60),
        cut in [0..=100_usize, 0..=100],
        turns in proptest::collection::vec(0..2_usize, 0..80),
    ) {
        let dirs = [tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap()];
        let paths = [dirs[0].path(), dirs[1].path()];
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let next = runtime.block_on(write(paths, steps));
        let printed = print(&paths.map(lines), cut, &turns);
        for (sender, next) in HONEST.into_iter().zip(next) {
            for n in 1..next {
                prop_assert_eq!(count(&printed, sender, &n.to_string()), 1, "{} in {:#?}", n, printed);
                let again = count(&printed, sender, &format!("{n} again"));
                prop_assert_eq!(again, usize::from(n.is_multiple_of(2)));
            }
            // What is not acknowledged may be stored, but it is not there twice.
            prop_assert!(count(&printed, sender, &next.to_string()) <= 1);
        }
    }
}
