//! A pseudo-terminal for a command, and the content of its screen.

use std::fs::File;
use std::io::{Read, Write};
use std::num::NonZero;
use std::sync::Arc;

use hubspoke_testkit::{DEADLINE, eventually, process};
use parking_lot::Mutex;
use rustix::fs::{Mode, OFlags, open};
use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
use rustix::termios::{Termios, Winsize, tcgetattr, tcsetwinsize};
use tokio::process::{Child, Command};
use tokio::time::{Duration, sleep, timeout};

pub(crate) struct Pty {
    pub(crate) child: Child,
    /// Held open, so that the terminal outlives the command.
    slave: File,
    master: File,
    output: Arc<Mutex<TerminalOutput>>,
    modes_before: Termios,
}

fn some(cells: u16) -> NonZero<u16> {
    NonZero::new(cells).unwrap()
}

/// The output of the command.
struct TerminalOutput {
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
        let stdio = Self::resized(&slave, columns, rows);
        command.env("TERM", "xterm-256color");
        command.stdin(stdio.0).stdout(stdio.1).stderr(stdio.2);
        let modes_before = tcgetattr(&slave).unwrap();
        let child = command.spawn().unwrap();
        let output = Arc::new(Mutex::new(TerminalOutput {
            screen: vt100::Parser::new(some(rows), some(columns), 0),
            raw: Vec::new(),
        }));
        let master: File = master.into();
        let (mut reader, written) = (master.try_clone().unwrap(), output.clone());
        // Ends with the terminal, which ends with its last user.
        std::thread::spawn(move || {
            let mut bytes = [0; 4096];
            while let Ok(n @ 1..) = reader.read(&mut bytes) {
                let mut written = written.lock();
                written.screen.process(&bytes[..n]);
                written.raw.extend_from_slice(&bytes[..n]);
            }
        });
        Self { child, slave, master, output, modes_before }
    }

    fn resized(slave: &File, columns: u16, rows: u16) -> (File, File, File) {
        let size = Winsize { ws_row: rows, ws_col: columns, ws_xpixel: 0, ws_ypixel: 0 };
        tcsetwinsize(slave, size).unwrap();
        let clone = || slave.try_clone().unwrap();
        (clone(), clone(), clone())
    }

    pub(crate) fn screen(&self) -> String {
        self.output.lock().screen.screen().contents()
    }

    /// Waits until the screen shows all of this.
    pub(crate) async fn shows(&self, texts: &[&str]) {
        let shown = async {
            while !texts.iter().all(|text| self.screen().contains(text)) {
                sleep(Duration::from_millis(10)).await;
            }
        };
        let late = timeout(DEADLINE, shown).await.is_err();
        assert!(!late, "{texts:?} is not shown:\n{}", self.screen());
    }

    pub(crate) fn press(&mut self, keys: &str) {
        self.master.write_all(keys.as_bytes()).unwrap();
    }

    /// Resizes the terminal, and signals that to the command as a terminal would.
    pub(crate) async fn resize(&mut self, columns: u16, rows: u16) {
        Self::resized(&self.slave, columns, rows);
        self.output.lock().screen.screen_mut().set_size(some(rows), some(columns));
        process::signal(&self.child, "WINCH").await;
    }

    /// Waits for the exit and for the terminal to be restored: modes, screen and cursor. Returns the exit
    /// code.
    pub(crate) async fn exit_code(mut self) -> Option<i32> {
        let status = timeout(DEADLINE, self.child.wait()).await.expect("the command does not end").unwrap();
        let after = tcgetattr(&self.slave).unwrap();
        assert_eq!(
            (after.local_modes, after.input_modes, after.output_modes),
            (self.modes_before.local_modes, self.modes_before.input_modes, self.modes_before.output_modes)
        );
        eventually("the screen is restored", async || {
            let output = self.output.lock();
            let screen = output.screen.screen();
            !screen.alternate_screen() && !screen.hide_cursor() && !output.raw.is_empty()
        })
        .await;
        status.code()
    }
}
