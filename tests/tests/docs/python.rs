//! The members that docs/protocol.md and docs/write-a-service.md show take part in a real platform.

use std::process::Stdio;

use hubspoke_testkit::{eventually, process};
use hubspoke_tests::{Platform, live};
use tokio::process::Command;

fn python() -> Command {
    let mut command = process::command("python3");
    command.envs(std::env::vars_os().filter(|(name, _)| name == "PATH"));
    command
}

fn node() -> Command {
    let mut command = process::command("node");
    command.envs(std::env::vars_os().filter(|(name, _)| name == "PATH"));
    command
}

/// Whether a program runs and exits with 0.
async fn has(command: &mut Command) -> bool {
    command.stdout(Stdio::null()).stderr(Stdio::null()).status().await.is_ok_and(|status| status.success())
}

#[expect(clippy::print_stderr, reason = "a test that did not run must not look like one that passed")]
fn skipped(why: &str) {
    eprintln!("skipped: {why}");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_member_in_python_takes_part() {
    // The tests need no more than Rust; CI has Python.
    if !has(python().arg("--version")).await {
        return skipped("there is no python3");
    }
    let platform = Platform::start().await.log(1).await;
    let mut command = python();
    command.arg(crate::root().join("docs/examples/greeter.py")).arg("0");
    let member = command.env("HUB_REGISTRY__URL", platform.registry.url()).spawn().unwrap();

    let get = async |url: String| {
        let response = platform.http.get(url).send().await.unwrap();
        (response.status().as_u16(), response.text().await.unwrap())
    };
    let greeting = format!("{}/greeter/ada", platform.gateway.url());
    eventually("it greets through the gateway", async || {
        get(greeting.clone()).await == (200, "hello, ada\n".to_owned())
    })
    .await;
    let (_, entries) = get(format!("{}/log", platform.logs[0].url())).await;
    assert!(entries.contains(r#""source":"greeter""#) && entries.contains("greeted ada"), "{entries}");

    process::signal(&member, "TERM").await;
    let exit = process::wait(member).await;
    assert_eq!((exit.code, exit.stderr.as_str()), (Some(0), ""));
    eventually("the gateway has no instance", async || get(greeting.clone()).await.0 == 503).await;
}

/// Starts an example on a free port, and restarts the registry and the example: its service is there again each time.
async fn comes_back(name: &str, mut command: impl FnMut() -> Command) {
    let mut platform = Platform::start().await;
    let greeting = format!("{}/{name}/ada", platform.gateway.url());
    let mut start = |url: String| command().env("HUB_REGISTRY__URL", url).spawn().unwrap();
    let greets = async |platform: &Platform| {
        eventually("it is registered", async || {
            let view = platform.catalog().await;
            view.is_some_and(|view| live(&view).iter().any(|(service, _)| service == name))
        })
        .await;
        eventually("it greets through the gateway", async || {
            let response = platform.http.get(&greeting).send().await.unwrap();
            (response.status().as_u16(), response.text().await.unwrap()) == (200, "hello, ada\n".to_owned())
        })
        .await;
    };
    let member = start(platform.registry.url());
    greets(&platform).await;
    platform.restart_registry().await;
    greets(&platform).await;
    process::kill(member).await;
    let member = start(platform.registry.url());
    greets(&platform).await;
    process::signal(&member, "TERM").await;
    let exit = process::wait(member).await;
    assert_eq!(exit.code, Some(0), "{}", exit.stderr);
    let instances = platform.http.get(format!("{}/services/{name}", platform.registry.url())).send().await;
    let text = instances.unwrap().text().await.unwrap();
    assert!(text.contains(r#""Kind":"deregistered""#), "{text}");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_member_with_flask_comes_back() {
    if !has(python().args(["-c", "import flask"])).await {
        return skipped("python3 has no flask");
    }
    let example = crate::root().join("docs/examples/hello_flask.py");
    comes_back("hello-flask", || {
        let mut command = python();
        command.arg(&example).arg("0");
        command
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_member_with_fastapi_comes_back() {
    if !has(python().args(["-c", "import fastapi, uvicorn"])).await {
        return skipped("python3 has no fastapi and uvicorn");
    }
    let example = crate::root().join("docs/examples/hello_fastapi.py");
    comes_back("hello-fastapi", || {
        let mut command = python();
        command.arg(&example).arg("0");
        command
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_member_with_node_comes_back() {
    if !has(node().arg("--version")).await {
        return skipped("there is no node");
    }
    let example = crate::root().join("docs/examples/hello_node.mjs");
    comes_back("hello-node", || {
        let mut command = node();
        command.arg(&example).arg("0");
        command
    })
    .await;
}
