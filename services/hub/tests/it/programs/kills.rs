use std::time::{Duration, Instant};

use hubspoke_testkit::eventually;
use rand::RngExt as _;
use rustix::process::{Pid, Signal, kill_process};

use super::program::processes;
use super::running::{Running, has_instances, instances};
use crate::platform::TestPlatform;

/// How often something is killed; `HUBSPOKE_TEST_KILLS=200` for more.
const KILLS: usize = 6;

/// Whatever is killed, `hub run`, the supervisor or the program: after a second nothing runs and nothing is registered.
/// If the supervisor is killed, `hub run` ends what it has left.
#[tokio::test]
async fn random_kills_leave_neither_orphans_nor_ghosts() {
    let platform = TestPlatform::start(&[]).await;
    let kills =
        std::env::var("HUBSPOKE_TEST_KILLS").ok().and_then(|kills| kills.parse().ok()).unwrap_or(KILLS);
    for round in 0..kills {
        let behaviour = ["serve", "daemon", "stubborn"][rand::rng().random_range(0..3)];
        let run = Running::start(&platform, &["--name", "victim"], behaviour);
        has_instances(&platform, "victim", 1).await;
        // The oldest is `hub run` itself, the second its supervisor.
        let mut pids = run.processes();
        pids.sort_unstable();
        let hub = run.child.id().unwrap();
        let victim = if round % 3 == 0 { hub } else { pids[rand::rng().random_range(0..pids.len())] };
        kill_process(Pid::from_raw(victim.try_into().unwrap()).unwrap(), Signal::KILL).unwrap();
        let killed = Instant::now();
        let what = format!("nothing is left of {behaviour} after {victim} of {pids:?} was killed");
        let mark = run.mark().to_owned();
        let end = tokio::spawn(run.end());
        eventually(&what, async || {
            processes(&mark).is_empty() && instances(&platform, "victim").await.is_empty()
        })
        .await;
        let took = killed.elapsed();
        end.await.unwrap();
        // 1 s on a quiet machine; the tests may run beside others.
        assert!(took < Duration::from_secs(3), "{what} took {took:?}");
        if std::env::var_os("HUBSPOKE_TEST_KILLS").is_some() {
            println!("{round}: {behaviour}, {victim} of {pids:?}, hub {hub}: {took:?}");
        }
    }
}
