//! `hub demo`: visits through the gateway at a given rate, and what became of them: who answered, which log
//! instance took each entry, whether those shares look like uniform random picks, how long it took.
//!
//! Everything is counted from the replies themselves (`Hub-Instance`, `Hub-Logged-By`), so it needs nothing but the
//! gateway's URL and is exact whatever else goes on. The catalogue, where it can be had, adds the instances that
//! got nothing, which no reply can tell of.

use std::collections::{BTreeMap, BTreeSet};
use std::future::Future;
use std::time::Duration;

use anyhow::{Context, bail};
use hubspoke_client::log::LOG_SERVICE;
use hubspoke_protocol::{CatalogView, InstanceState};

pub use self::load::{Plan, generate};
pub use self::report::{Report, render};
pub use self::tally::{Served, Tally, Visit};

use crate::admin::Registry;

mod chi;
mod load;
mod progress;
mod report;
mod tally;

/// The registered name of the gateway, which is asked for where no URL is given.
const GATEWAY_SERVICE: &str = hubspoke_gateway::PROCESS.name;
/// Where visits go.
const VISIT_PATH: &str = "/visit";
/// Most visits of one run.
const MAX_VISITS: u128 = 100_000_000;

/// What to do.
#[derive(Debug, Clone, clap::Args)]
pub struct Args {
    /// Visits per second
    #[arg(long, value_name = "N", default_value_t = 100, value_parser = clap::value_parser!(u32).range(1..=50_000))]
    rate: u32,
    /// For how long
    #[arg(long, value_name = "TIME", default_value = "10s", value_parser = humantime::parse_duration)]
    duration: Duration,
    /// The gateway's URL instead of the one in the catalogue
    #[arg(long, value_name = "URL")]
    gateway: Option<String>,
    /// Print the result as JSON
    #[arg(long)]
    json: bool,
}

/// Runs until the time is over or `stop` is done, prints the result.
///
/// # Errors
/// Where there is no gateway to ask, or a visit failed.
pub async fn run(args: Args, registry: &Registry, stop: impl Future<Output = ()>) -> anyhow::Result<()> {
    let visits = u128::from(args.rate) * args.duration.as_millis() / 1000;
    if !(1..=MAX_VISITS).contains(&visits) {
        bail!("--rate and --duration make {visits} visits; 1 to {MAX_VISITS} are possible");
    }
    let before = registry.catalog().await;
    let gateway = match (args.gateway, &before) {
        (Some(url), _) => url,
        (None, Ok(catalog)) => {
            gateway_of(catalog).context("the catalogue has no gateway; name one with --gateway")?
        }
        (None, Err(error)) => bail!("{error:#}; without it, name the gateway with --gateway"),
    };
    let plan = Plan {
        url: format!("{}{VISIT_PATH}", gateway.trim_end_matches('/')),
        rate: args.rate,
        visits: u64::try_from(visits)?,
    };
    let mut progress = progress::Progress::new(plan.visits);
    let tally = generate(&plan, stop, |tally, elapsed| progress.show(tally, elapsed)).await?;
    progress.clear();
    let known = match before {
        Ok(before) => {
            // An instance that came or went meanwhile could not get its share.
            let (then, now) = (passing(&before), passing(&registry.catalog().await.unwrap_or(before)));
            Some(then.intersection(&now).cloned().collect())
        }
        Err(_) => None,
    };
    let failed = tally.failed();
    let report = Report::new(&plan, tally, known.as_ref());
    crate::print(&if args.json { serde_json::to_string(&report)? + "\n" } else { render(&report) })?;
    if failed > 0 {
        bail!("{failed} of {} visits failed", report.visits);
    }
    Ok(())
}

/// The URL of the first gateway that passes.
fn gateway_of(catalog: &CatalogView) -> Option<String> {
    let gateways = catalog.services.get(GATEWAY_SERVICE)?;
    let passing = gateways.iter().find(|gateway| gateway.state == InstanceState::Passing)?;
    Some(format!("http://{}", passing.info.addr))
}

/// Ids of the log instances that pass.
fn passing(catalog: &CatalogView) -> BTreeSet<String> {
    let all = catalog.services.get(LOG_SERVICE).into_iter().flatten();
    let passing = all.filter(|instance| instance.state == InstanceState::Passing);
    passing.map(|instance| instance.info.id().to_owned()).collect()
}

/// Requests by who served them.
type Counts = BTreeMap<String, u64>;
