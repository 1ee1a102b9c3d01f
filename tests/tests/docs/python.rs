//! The member in Python that docs/protocol.md shows takes part in a real platform.

use hubspoke_testkit::{eventually, process};
use hubspoke_tests::Platform;
use tokio::process::Command;

fn python() -> Command {
    let mut command = process::command("python3");
    command.envs(std::env::vars_os().filter(|(name, _)| name == "PATH"));
    command
}

#[tokio::test(flavor = "multi_thread")]
async fn the_member_in_python_takes_part() {
    // The tests need no more than Rust; CI has Python.
    if !python().arg("--version").status().await.is_ok_and(|status| status.success()) {
        return;
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
