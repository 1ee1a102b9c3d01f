//! The output of a program, as lines for the terminal and as entries for the log service. Pure.
//!
//! Bytes become lines ([`LineSplitter`]), lines that belong together become one text ([`Grouper`]), and a text becomes a
//! [`Record`] with the level, time and trace id that are recognized in it.

pub(crate) use self::clean::{Colors, clean};
pub(crate) use self::group::Grouper;
pub(crate) use self::lines::LineSplitter;
pub(crate) use self::record::{Record, recognize};

mod access;
mod clean;
mod fields;
mod group;
mod level;
mod lines;
mod record;
mod time;
mod trace_id;
