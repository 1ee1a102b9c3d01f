//! The program: this test binary, started with a variable that says how it behaves.

use std::io::{BufRead as _, BufReader, Write as _};
use std::net::TcpListener;
use std::path::Path;
use std::time::Duration;

use tokio::process::Command;

/// The variable: `serve`, or another behaviour of [`as_program`].
pub(super) const BEHAVIOUR: &str = "PROGRAM";
/// A variable that marks the processes of one test.
pub(super) const MARK: &str = "PROGRAM_MARK";

/// The arguments that run the program, after `--`.
pub(super) fn program() -> Vec<String> {
    let exe = std::env::current_exe().unwrap().to_str().unwrap().to_owned();
    let args = ["programs::program::as_program", "--exact", "--ignored", "--nocapture", "--quiet"];
    std::iter::once(exe).chain(args.map(str::to_owned)).collect()
}

/// Adds the program to a `hub run`.
pub(super) fn with_program(command: &mut Command, behaviour: &str, mark: &str) {
    command.arg("--").args(program()).env(BEHAVIOUR, behaviour).env(MARK, mark);
}

/// The processes with a mark.
pub(super) fn processes(mark: &str) -> Vec<u32> {
    let wanted = format!("{MARK}={mark}");
    let pids = std::fs::read_dir("/proc").unwrap().flatten();
    let pids = pids.filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok());
    let has = |pid: &u32| {
        let environment = std::fs::read(format!("/proc/{pid}/environ")).unwrap_or_default();
        environment.split(|byte| *byte == 0).any(|variable| variable == wanted.as_bytes())
    };
    pids.filter(has).collect()
}

#[test]
#[ignore = "not a test: the program that others run"]
fn as_program() {
    let port = std::env::var("PORT").unwrap_or_default();
    match std::env::var(BEHAVIOUR).as_deref() {
        Ok("serve") => serve(&port, Duration::ZERO),
        // Slow to start: what needs it has to wait.
        Ok("slow") => {
            std::thread::sleep(Duration::from_millis(400));
            serve(&port, Duration::ZERO);
        }
        // Not on the port that it was given.
        Ok("elsewhere") => serve("0", Duration::ZERO),
        Ok("v6") => serve_on(TcpListener::bind(format!("[::1]:{port}")).unwrap(), Duration::ZERO),
        // Prints much, quickly.
        Ok("chatty") => {
            let line = "x".repeat(1000);
            let mut out = std::io::stdout().lock();
            for n in 0..20_000 {
                writeln!(out, "{n} {line}").unwrap();
            }
        }
        Ok("fail") => {
            eprintln!("ERROR:app:it broke");
            std::process::exit(3);
        }
        // Its first start fails.
        Ok("second-time") => {
            let file = std::env::var("PROGRAM_FILE").unwrap();
            if std::fs::metadata(&file).is_err() {
                std::fs::write(file, "").unwrap();
                std::process::exit(1);
            }
            std::fs::remove_file(file).unwrap();
            serve(&port, Duration::ZERO);
        }
        // Ignores SIGTERM, and so do its children.
        Ok("stubborn") => {
            let exe = std::env::current_exe().unwrap();
            let script = format!("trap '' TERM; {BEHAVIOUR}=serve {} \"$@\" & wait; wait", exe.display());
            let args = program().split_off(1);
            let status =
                std::process::Command::new("/bin/sh").arg("-c").arg(script).arg("sh").args(args).status();
            std::process::exit(status.unwrap().code().unwrap_or(1));
        }
        // Goes to the background.
        Ok("daemon") => {
            use std::os::unix::process::CommandExt as _;
            let mut daemon = std::process::Command::new(std::env::current_exe().unwrap());
            daemon.args(program().split_off(1)).env(BEHAVIOUR, "serve").process_group(0);
            daemon.spawn().unwrap();
            std::process::exit(0);
        }
        // Leaves children that end when their own parents have ended.
        Ok("orphans") => {
            for _ in 0..3 {
                let script = "(sleep 0.1; echo orphan has ended) & exit 0";
                assert!(
                    std::process::Command::new("/bin/sh").args(["-c", script]).status().unwrap().success()
                );
            }
            serve(&port, Duration::ZERO);
        }
        Ok("environment") => {
            for (name, value) in std::env::vars() {
                println!("{name}={value}");
            }
            std::process::exit(0);
        }
        other => panic!("{other:?}"),
    }
}

fn serve(port: &str, delay: Duration) {
    serve_on(TcpListener::bind(format!("127.0.0.1:{port}")).unwrap(), delay);
}

fn serve_on(listener: TcpListener, delay: Duration) {
    let mut out = std::io::stdout();
    writeln!(out, "listening on {}", listener.local_addr().unwrap()).unwrap();
    for stream in listener.incoming().flatten() {
        std::thread::spawn(move || {
            let mut reader = BufReader::new(stream.try_clone().unwrap());
            let mut stream = stream;
            loop {
                let (mut line, mut head) = (String::new(), String::new());
                while reader.read_line(&mut line).unwrap_or(0) > 2 {
                    head += &std::mem::take(&mut line);
                }
                if head.is_empty() {
                    return;
                }
                if head.starts_with("GET /exit ") {
                    std::process::exit(3);
                }
                std::thread::sleep(delay);
                let body = std::env::var("HUB_INSTANCE").unwrap_or_default();
                // It is ill while the file is there.
                let is_ill = std::env::var_os("PROGRAM_FILE").is_some_and(|file| Path::new(&file).exists());
                let status = if is_ill { "500 Internal Server Error" } else { "200 OK" };
                let answer = format!("HTTP/1.1 {status}\r\nContent-Length: {}\r\n\r\n{body}", body.len());
                if stream.write_all(answer.as_bytes()).is_err() {
                    return;
                }
            }
        });
    }
}
