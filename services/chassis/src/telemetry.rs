//! Tracing to stderr: for people on a terminal, JSON lines elsewhere.

use std::io::IsTerminal;

use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{EnvFilter, Layer};

/// Starts tracing for this process; a second start changes nothing.
///
/// # Errors
/// Where `filter` is no env-filter (`info`, `hub_gateway=debug,warn`).
pub fn init(filter: &str) -> Result<(), tracing_subscriber::filter::ParseError> {
    let filter = EnvFilter::builder().parse(filter)?;
    let to_terminal = std::io::stderr().is_terminal();
    let lines = tracing_subscriber::fmt::layer().with_writer(std::io::stderr);
    let lines = if to_terminal {
        lines.with_target(false).compact().boxed()
    } else {
        lines.json().flatten_event(true).boxed()
    };
    // Fails only where a subscriber is set already: a test's, which is then the one to use.
    let _ = tracing_subscriber::registry().with(filter).with(lines).try_init();
    Ok(())
}
