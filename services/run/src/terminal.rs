//! The terminal: lines of programs with prefixes, and remarks of our own.

use std::io::{IsTerminal as _, Write as _};
use std::thread::JoinHandle;

use tokio::sync::mpsc;

use crate::output::{Colors, clean};

/// Lines that wait for the terminal. If they are more, the programs wait, as they would without us.
const QUEUE: usize = 256;
/// Colours of prefixes: cyan, yellow, green, magenta, blue and their bright versions. Red looks like an error.
const PALETTE: [u8; 10] = [36, 33, 32, 35, 34, 96, 93, 92, 95, 94];

/// A stream of a program.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Stream {
    Stdout,
    Stderr,
}

impl Stream {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Stdout => "stdout",
            Self::Stderr => "stderr",
        }
    }
}

/// Writes to the terminal. Clones share it.
#[derive(Debug, Clone)]
pub struct Terminal {
    lines: mpsc::Sender<(Stream, String)>,
    colors: [Colors; 2],
}

/// The thread that writes. A terminal that takes nothing must not stop this process's other work.
#[derive(Debug)]
pub struct TerminalThread(JoinHandle<()>);

impl Terminal {
    /// The terminal of this process, or the files and pipes that take its place.
    pub fn start() -> (Self, TerminalThread) {
        let no_color = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty()); // https://no-color.org
        let colors = |terminal: bool| if terminal && !no_color { Colors::Keep } else { Colors::Remove };
        let colors = [colors(std::io::stdout().is_terminal()), colors(std::io::stderr().is_terminal())];
        let (lines, mut queue) = mpsc::channel::<(Stream, String)>(QUEUE);
        let thread = std::thread::spawn(move || {
            while let Some((stream, line)) = queue.blocking_recv() {
                // Nobody may read any more; the program goes on.
                let _ = match stream {
                    Stream::Stdout => std::io::stdout().write_all(line.as_bytes()),
                    Stream::Stderr => std::io::stderr().write_all(line.as_bytes()),
                };
                if queue.is_empty() {
                    let _ = std::io::stdout().flush();
                }
            }
        });
        (Self { lines, colors }, TerminalThread(thread))
    }

    /// Prints a line of a program.
    pub(crate) async fn line(&self, stream: Stream, prefix: &Prefix, line: &str) {
        let colors = self.colors[usize::from(stream == Stream::Stderr)];
        let line = format!("{}{}\n", prefix.show(colors), clean(line, colors));
        let _ = self.lines.send((stream, line)).await; // fails if the thread has ended
    }

    /// Prints a remark of ours on stderr.
    pub async fn remark(&self, text: &str) {
        let mut lines = String::new();
        for line in text.lines() {
            lines += &format!("hub: {}\n", clean(line, Colors::Remove));
        }
        let _ = self.lines.send((Stream::Stderr, lines)).await; // fails if the thread has ended
    }
}

impl TerminalThread {
    /// Waits until everything is written. All [`Terminal`]s must have been dropped.
    pub fn finish(self) {
        let _ = self.0.join();
    }
}

/// The text in front of each line of a replica.
#[derive(Debug, Clone, Default)]
pub(crate) struct Prefix {
    label: String,
    color: u8,
}

impl Prefix {
    /// For the replica number `replica` of a program, padded to `width`. `n` is the number among all replicas.
    pub(crate) fn new(name: &str, replica: Option<u16>, width: usize, n: usize) -> Self {
        let label = label(name, replica);
        Self { label: format!("{label:width$} | "), color: PALETTE[n % PALETTE.len()] }
    }

    fn show(&self, colors: Colors) -> String {
        if self.label.is_empty() || colors == Colors::Remove {
            return self.label.clone();
        }
        format!("\u{1b}[{}m{}\u{1b}[0m", self.color, self.label)
    }
}

/// `web`, or `web.2` if there are several.
pub(crate) fn label(name: &str, replica: Option<u16>) -> String {
    replica.map_or_else(|| name.to_owned(), |replica| format!("{name}.{replica}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn prefixes_are_aligned_and_coloured() {
        let prefix = Prefix::new("web", Some(2), 8, 11);
        assert_eq!(prefix.show(Colors::Remove), "web.2    | ");
        assert_eq!(prefix.show(Colors::Keep), "\u{1b}[33mweb.2    | \u{1b}[0m");
        assert_eq!(Prefix::default().show(Colors::Keep), "");
    }
}
