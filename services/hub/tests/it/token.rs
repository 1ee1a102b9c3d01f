//! `hub token`, and `hub up` on addresses that others reach.

use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Command, Output};

use hubspoke_chassis::rights::{Role, TokenSet};

fn hub(folder: &Path, args: &[&str], vars: &[(&str, &str)]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_hub"));
    command.args(args).current_dir(folder).env_clear().envs(vars.iter().copied());
    command.output().unwrap()
}

fn stdout(output: &Output) -> String {
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8_lossy(&output.stdout).trim().to_owned()
}

fn stderr(output: &Output) -> String {
    assert!(!output.status.success(), "{}", String::from_utf8_lossy(&output.stdout));
    String::from_utf8_lossy(&output.stderr).trim().to_owned()
}

#[test]
fn a_token_is_printed_once_and_kept_as_a_hash() {
    let folder = tempfile::tempdir().unwrap();
    let run = |args: &[&str]| hub(folder.path(), args, &[("HUB_ACCESS__TOKENS_FILE", "new/tokens")]);
    let shop = stdout(&run(&["token", "new", "--member", "shop,cart", "--expires", "90d"]));
    let ops = stdout(&run(&["token", "new", "--operator", "--name", "ada"]));
    stdout(&run(&["token", "new", "--member", "shop", "--host", "Shop.example,www.shop.example"]));
    let text = std::fs::read_to_string(folder.path().join("new/tokens")).unwrap();
    assert!(!text.contains(&shop), "{text}");
    let set = TokenSet::parse(&text).unwrap();
    let found = set.find(shop.as_bytes()).unwrap();
    assert_eq!(found.role, Role::Member(vec!["shop".to_owned(), "cart".to_owned()]));
    assert!(found.expires.is_some());
    assert_eq!(set.find(ops.as_bytes()).unwrap().name, "ada");
    let list = stdout(&run(&["token", "list"]));
    let lines: Vec<_> = list.lines().map(|line| line.split_whitespace().collect::<Vec<_>>()).collect();
    assert_eq!(lines[0], ["NAME", "ROLE", "SERVICES", "HOSTS", "EXPIRES"]);
    assert_eq!(lines[1], ["ada", "operator", "never"]);
    assert_eq!(lines[2][..4], ["shop", "member", "shop,", "cart"]);
    assert_eq!(lines[3], ["shop-2", "member", "shop", "shop.example,", "www.shop.example", "never"]);
    assert_eq!(stdout(&run(&["token", "revoke", "shop"])), "shop is revoked");
    assert!(stderr(&run(&["token", "revoke", "shop"])).contains("there is no token named \"shop\""));
    let set = TokenSet::parse(&std::fs::read_to_string(folder.path().join("new/tokens")).unwrap()).unwrap();
    assert!(set.find(shop.as_bytes()).is_none() && set.len() == 2);
}

#[test]
fn init_makes_what_is_missing() {
    let folder = tempfile::tempdir().unwrap();
    let init =
        ["token", "init", "--file", "t/tokens", "--member", "log", "--member", "visit", "--operator", "hub"];
    let read = |name: &str| std::fs::read_to_string(folder.path().join("t").join(name)).unwrap();
    assert_eq!(stdout(&hub(folder.path(), &init, &[])), "t/tokens: made log, visit, hub");
    let (log, visit) = (read("log.token"), read("visit.token"));
    let mode =
        |name: &str| folder.path().join("t").join(name).metadata().unwrap().permissions().mode() & 0o777;
    assert_eq!((mode("log.token"), mode("tokens")), (0o600, 0o644));
    assert_eq!(stdout(&hub(folder.path(), &init, &[])), "t/tokens: nothing to do");
    std::fs::remove_file(folder.path().join("t/visit.token")).unwrap();
    assert_eq!(stdout(&hub(folder.path(), &init, &[])), "t/tokens: made visit");
    assert_eq!(read("log.token"), log);
    let set = TokenSet::parse(&read("tokens")).unwrap();
    assert!(set.find(visit.trim().as_bytes()).is_none() && set.len() == 3);
    assert_eq!(set.find(read("hub.token").trim().as_bytes()).unwrap().role, Role::Operator);
    let mut files: Vec<_> = std::fs::read_dir(folder.path().join("t")).unwrap().collect();
    files.retain(|file| file.as_ref().unwrap().file_name() != "tokens");
    assert_eq!(files.len(), 3, "no temporary file is left");
}

#[test]
fn wrong_arguments_and_files_are_named() {
    let folder = tempfile::tempdir().unwrap();
    let run = |args: &str| stderr(&hub(folder.path(), &args.split(' ').collect::<Vec<_>>(), &[]));
    assert!(run("token new --reader").contains("HUB_ACCESS__TOKENS_FILE"), "no file");
    for (args, why) in [
        ("token new --file t", "required"),
        ("token new --file t --reader --operator", "cannot be used with"),
        ("token new --file t --member Shop", "\"Shop\""),
        ("token new --file t --member livez", "reserved"),
        ("token new --file t --reader --expires soon", "--expires"),
        ("token new --file t --reader --expires 0s", "not a time"),
        ("token new --file t --reader --name no/name", "no/name"),
        ("token new --file t --reader --host shop.example", "only a member's token has hosts"),
        ("token new --file t --member shop --host 127.0.0.1", "not a valid host name"),
    ] {
        assert!(run(args).contains(why), "{args}: {}", run(args));
    }
    assert!(!folder.path().join("t").exists(), "nothing was written");
    std::fs::write(folder.path().join("t"), "shop member\n").unwrap();
    let error = run("token new --file t --reader");
    assert!(error.contains("the tokens file") && error.contains("line 1: expected NAME ROLE"), "{error}");
    assert_eq!(std::fs::read_to_string(folder.path().join("t")).unwrap(), "shop member\n");
}

#[test]
fn on_an_address_of_others_hub_up_requires_tokens() {
    let folder = tempfile::tempdir().unwrap();
    for (key, value) in [
        ("HUB_LISTEN", "0.0.0.0:0"),
        ("HUB_HUB__GATEWAY", "[::]:0"),
        ("HUB_HUB__GATEWAY_CONTROL", "0.0.0.0:0"),
        ("HUB_HUB__LOG", "0.0.0.0:0"),
    ] {
        let output = hub(folder.path(), &["up"], &[(key, value)]);
        let error = stderr(&output);
        assert_eq!(output.status.code(), Some(78), "{error}");
        assert!(
            error.contains(key) && error.contains("--insecure") && error.contains("hub token new"),
            "{error}"
        );
    }
    let output = hub(folder.path(), &["up"], &[("HUB_ACCESS__TOKENS_FILE", "missing")]);
    let error = stderr(&output);
    assert!(error.contains("access.tokens_file missing: No such file"), "{error}");
}
