//! A terminal of its own for a command: a pseudo-terminal, and what stands on its screen.

use std::fs::File;
use std::io::{Read, Write};
use std::num::NonZero;
use std::sync::{Arc, Mutex};

use rustix::fs::{Mode, OFlags, open};
use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
use rustix::termios::{Termios, Winsize, tcgetattr, tcsetwinsize};
use tokio::process::{Child, Command};
use tokio::time::{Duration, Instant, sleep, timeout};

use crate::platform::{DEADLINE, eventually};

pub(crate) struct Pty {
    pub(crate) child: Child,
    /// Kept open, so that the terminal outlives the command.
    slave: File,
    master: File,
    seen: Arc<Mutex<Seen>>,
    before: Termios,
}

fn some(cells: u16) -> NonZero<u16> {
    NonZero::new(cells).unwrap()
}

struct Seen {
    screen: vt100::Parser,
    raw: Vec<u8>,
}

impl Pty {
    /// Starts a command on a terminal of this size.
    pub(crate) fn start(mut command: Command, columns: u16, rows: u16) -> Self {
        let master = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY).unwrap();
        grantpt(&master).unwrap();
        unlockpt(&master).unwrap();
        let name = ptsname(&master, Vec::new()).unwrap();
        let slave: File = open(name, OFlags::RDWR | OFlags::NOCTTY, Mode::empty()).unwrap().into();
        let pty = Self::sized(&slave, columns, rows);
        command.env("TERM", "xterm-256color");
        command.stdin(pty.0).stdout(pty.1).stderr(pty.2);
        let before = tcgetattr(&slave).unwrap();
        let child = command.spawn().unwrap();
        let seen = Arc::new(Mutex::new(Seen {
            screen: vt100::Parser::new(some(rows), some(columns), 0),
            raw: Vec::new(),
        }));
        let master: File = master.into();
        let (mut reader, of_reader) = (master.try_clone().unwrap(), seen.clone());
        // Ends when the terminal does, which is when its last user has gone.
        std::thread::spawn(move || {
            let mut bytes = [0; 4096];
            while let Ok(n @ 1..) = reader.read(&mut bytes) {
                let mut seen = of_reader.lock().unwrap();
                seen.screen.process(&bytes[..n]);
                seen.raw.extend_from_slice(&bytes[..n]);
            }
        });
        Self { child, slave, master, seen, before }
    }

    fn sized(slave: &File, columns: u16, rows: u16) -> (File, File, File) {
        let size = Winsize { ws_row: rows, ws_col: columns, ws_xpixel: 0, ws_ypixel: 0 };
        tcsetwinsize(slave, size).unwrap();
        let clone = || slave.try_clone().unwrap();
        (clone(), clone(), clone())
    }

    pub(crate) fn screen(&self) -> String {
        self.seen.lock().unwrap().screen.screen().contents()
    }

    /// Waits until the screen shows all of this.
    pub(crate) async fn shows(&self, texts: &[&str]) {
        let deadline = Instant::now() + DEADLINE;
        loop {
            let screen = self.screen();
            if texts.iter().all(|text| screen.contains(text)) {
                return;
            }
            assert!(Instant::now() < deadline, "{texts:?} is not shown:\n{screen}");
            sleep(Duration::from_millis(10)).await;
        }
    }

    pub(crate) fn press(&mut self, keys: &str) {
        self.master.write_all(keys.as_bytes()).unwrap();
    }

    /// Makes the terminal as large as this, and tells the command as a terminal would.
    pub(crate) fn resize(&mut self, columns: u16, rows: u16) {
        Self::sized(&self.slave, columns, rows);
        self.seen.lock().unwrap().screen.screen_mut().set_size(some(rows), some(columns));
        crate::platform::signal(&self.child, "WINCH");
    }

    /// The exit code, once the terminal is as it was before: its modes, its first screen, its cursor.
    pub(crate) async fn ended(mut self) -> Option<i32> {
        let status = timeout(DEADLINE, self.child.wait()).await.expect("it does not end").unwrap();
        let after = tcgetattr(&self.slave).unwrap();
        assert_eq!(
            (after.local_modes, after.input_modes, after.output_modes),
            (self.before.local_modes, self.before.input_modes, self.before.output_modes)
        );
        let left = || async {
            let seen = self.seen.lock().unwrap();
            let screen = seen.screen.screen();
            !screen.alternate_screen() && !screen.hide_cursor() && !seen.raw.is_empty()
        };
        eventually("the first screen is back", left).await;
        status.code()
    }
}
