//! The output of programs, on its way to the log service.

pub use self::files::{ShipConfig, ShipError, ship};
pub(crate) use self::shipper::{MORE_LINES, Shipper, push};

mod files;
mod follow;
mod shipper;
