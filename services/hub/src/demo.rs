//! `hub demo`: sends visits through the gateway at a given rate, and reports which visit instance answered,
//! which log instance took each entry, whether those shares look like uniform random picks, and the latency.
//!
//! Everything is counted from the responses (`Hub-Instance`, `Hub-Logged-By`), so it is exact and needs only the
//! gateway's URL. The catalogue, if it can be read, adds the instances that got nothing.

use std::collections::BTreeSet;
use std::future::Future;
use std::time::Duration;

use anyhow::{Context, bail};
use hubspoke_client::log::LOG_SERVICE;
use hubspoke_protocol::{CatalogView, InstanceState};

use self::load::{LoadPlan, generate};
use self::progress::Progress;
use self::report::{DemoReport, render};
use crate::admin_client::{AdminClient, server_url};
use crate::output::print;

mod chi_squared;
mod load;
mod progress;
mod report;
mod tally;

const GATEWAY_SERVICE: &str = hubspoke_gateway::PROCESS.name;
const VISIT_PATH: &str = "/visit";
/// Most visits of one run.
const MAX_VISITS: u128 = 100_000_000;

#[derive(Debug, Clone, clap::Args)]
pub(crate) struct DemoArgs {
    /// Send N visits per second
    #[arg(long, value_name = "N", default_value_t = 100, value_parser = clap::value_parser!(u32).range(1..=50_000))]
    rate: u32,
    /// Send visits for this long
    #[arg(long, value_name = "DURATION", default_value = "10s", value_parser = humantime::parse_duration)]
    duration: Duration,
    /// Send them to this gateway instead of finding one in the registry
    #[arg(long, value_name = "URL", value_parser = server_url)]
    gateway: Option<String>,
    /// Print the report as JSON
    #[arg(long)]
    json: bool,
}

/// Sends the visits, or as many as are due before `stop` is done, and prints the report.
///
/// # Errors
/// If there is no gateway, or a visit failed.
pub(crate) async fn run(
    args: DemoArgs,
    registry: &AdminClient,
    stop: impl Future<Output = ()>,
) -> anyhow::Result<()> {
    let visits = u128::from(args.rate) * args.duration.as_millis() / 1000;
    if !(1..=MAX_VISITS).contains(&visits) {
        bail!("--rate and --duration make {visits} visits; a run has 1 to {MAX_VISITS}");
    }
    let before = registry.catalog().await;
    let gateway = match (args.gateway, &before) {
        (Some(url), _) => url,
        (None, Ok(catalog)) => passing_gateway(catalog)
            .context("no gateway is passing in the catalogue; to name one, pass --gateway URL")?,
        (None, Err(error)) => bail!("{error:#}; to do without a registry, pass --gateway URL"),
    };
    let plan = LoadPlan {
        url: format!("{}{VISIT_PATH}", gateway.trim_end_matches('/')),
        rate: args.rate,
        visits: u64::try_from(visits)?,
    };
    let progress = Progress::new(plan.visits);
    let tally = generate(&plan, stop, |tally, elapsed| progress.show(tally, elapsed)).await?;
    progress.clear();
    let known = match before {
        Ok(before) => {
            // An instance that came or went during the run can't have had an even share.
            let passed = passing_logs(&before);
            let passing = passing_logs(&registry.catalog().await.unwrap_or(before));
            Some(passed.intersection(&passing).cloned().collect())
        }
        Err(_) => None,
    };
    let failed = tally.failed();
    let report = DemoReport::new(&plan, tally, known.as_ref());
    print(&if args.json { serde_json::to_string(&report)? + "\n" } else { render(&report) })?;
    if failed > 0 {
        bail!("{failed} of {} visits failed", report.visits);
    }
    Ok(())
}

/// The URL of the first gateway that passes.
fn passing_gateway(catalog: &CatalogView) -> Option<String> {
    let gateways = catalog.services.get(GATEWAY_SERVICE)?;
    let passing = gateways.iter().find(|gateway| gateway.state == InstanceState::Passing)?;
    Some(format!("http://{}", passing.info.addr))
}

/// Ids of the log instances that pass.
fn passing_logs(catalog: &CatalogView) -> BTreeSet<String> {
    let all = catalog.services.get(LOG_SERVICE).into_iter().flatten();
    let passing = all.filter(|instance| instance.state == InstanceState::Passing);
    passing.map(|instance| instance.info.id().to_owned()).collect()
}
