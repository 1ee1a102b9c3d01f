//! The output of the commands: results to stdout, remarks to stderr.

use std::io::Write;

/// Writes to stdout and flushes it.
pub(crate) fn print(text: &str) -> anyhow::Result<()> {
    let mut out = std::io::stdout().lock();
    out.write_all(text.as_bytes())?;
    Ok(out.flush()?)
}

/// Writes a line that is not part of the result to stderr.
pub(crate) fn remark(text: &str) {
    let _ = writeln!(std::io::stderr(), "hub: {text}"); // a closed stderr is no reason to stop
}
