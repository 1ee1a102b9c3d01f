//! A progress bar on stderr, if that is a terminal.

use std::io::{IsTerminal, Write};
use std::time::Duration;

use super::tally::Tally;

const BAR: usize = 30;

pub(super) struct Progress {
    visits: u64,
    terminal: bool,
}

impl Progress {
    pub(super) fn new(visits: u64) -> Self {
        Self { visits, terminal: std::io::stderr().is_terminal() }
    }

    pub(super) fn show(&self, tally: &Tally, elapsed: Duration) {
        let line = line(tally.done(), tally.failed(), self.visits, elapsed);
        self.write(&format!("\r\x1b[2K{line}"));
    }

    pub(super) fn clear(&self) {
        self.write("\r\x1b[2K");
    }

    fn write(&self, text: &str) {
        if self.terminal {
            let mut err = std::io::stderr().lock();
            // Without a terminal the run still has a result.
            let _ = err.write_all(text.as_bytes()).and_then(|()| err.flush());
        }
    }
}

/// At most 79 columns for any counts that a run can have.
fn line(done: u64, failed: u64, visits: u64, elapsed: Duration) -> String {
    let full = usize::try_from(done.min(visits) * BAR as u64 / visits.max(1)).unwrap_or(BAR);
    let bar = "█".repeat(full) + &"░".repeat(BAR - full);
    let failed = if failed == 0 { String::new() } else { format!(", {failed} failed") };
    format!("{bar} {done}/{visits}{failed}, {:.0} s", elapsed.as_secs_f64())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_bar_fits_a_line() {
        assert_eq!(line(0, 0, 1000, Duration::ZERO), format!("{} 0/1000, 0 s", "░".repeat(30)));
        assert_eq!(
            line(500, 2, 1000, Duration::from_secs(5)),
            format!("{}{} 500/1000, 2 failed, 5 s", "█".repeat(15), "░".repeat(15))
        );
        let longest = line(100_000_000, 100_000_000, 100_000_000, Duration::from_secs(3600));
        assert!(longest.chars().count() <= 79, "{longest}");
    }
}
