//! Keeps programs running: replicas, restarts, rolling replacement, start and stop in the order of needs.
//!
//! An `instance` is one run of a program, from its start to its exit. A `replica` is a sequence of instances, which
//! overlap when one replaces the other. A `group` is all replicas of a program.

use std::future::Future;
use std::sync::Arc;

use tokio_util::sync::CancellationToken;
use tokio_util::task::AbortOnDropHandle;

use self::group::Group;
use self::shared::Shared;
use crate::control::{Control, Stops};
use crate::order::{self, Circle};
use crate::platform::Platform;
use crate::process::Awaited;
use crate::spec::ProgramSpec;
use crate::terminal::Terminal;

mod environment;
mod group;
mod instance;
mod printed;
mod readiness;
mod replica;
mod reports;
mod shared;

/// Programs that need each other.
#[derive(Debug, thiserror::Error)]
#[error(transparent)]
pub struct OrderError(#[from] Circle);

/// Runs programs until `stop` or until all have ended. Returns the first exit code that is not 0.
///
/// # Errors
/// [`OrderError`].
pub async fn run(
    programs: Vec<ProgramSpec>,
    platform: Platform,
    terminal: Terminal,
    stop: impl Future<Output = ()>,
) -> Result<u8, OrderError> {
    let needs: Vec<(&str, &[String])> =
        programs.iter().map(|program| (program.name.as_str(), program.needs.as_slice())).collect();
    let order = order::by_needs(&needs)?;
    let awaited = Awaited::default();
    let _reaper = AbortOnDropHandle::new(tokio::spawn(awaited.clone().reap_others()));
    let shared = Arc::new(Shared::new(platform, terminal, awaited, &programs));
    let mut programs: Vec<Option<ProgramSpec>> = programs.into_iter().map(Some).collect();
    let mut groups: Vec<Group> = Vec::new();
    let stops = Stops::default();
    for program in order.into_iter().filter_map(|at| programs[at].take()) {
        let needed = groups.iter().filter(|group| program.needs.contains(&group.name));
        let needed = needed.map(Group::readiness).collect();
        let stop = CancellationToken::new();
        let ended = CancellationToken::new();
        stops.add(&program.name, stop.clone(), ended.clone());
        groups.push(Group::start(&shared, program, needed, stop, ended));
    }
    let _control = Control::listen(stops);
    tokio::pin!(stop);
    let mut stopping = false;
    loop {
        let mut ends = groups.iter().map(|group| group.ended.clone()).collect::<Vec<_>>();
        let all_ended = async {
            for ended in &mut ends {
                ended.cancelled().await;
            }
        };
        tokio::select! {
            () = all_ended => break,
            () = &mut stop, if !stopping => {
                stopping = true;
                // Those that need others end before them.
                for group in groups.iter().rev() {
                    group.stop.cancel();
                    group.ended.cancelled().await;
                }
            }
        }
    }
    let mut code = 0;
    for group in groups {
        let of_group = group.code().await;
        if code == 0 {
            code = of_group;
        }
    }
    Ok(code)
}
