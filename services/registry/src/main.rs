//! The registry's process: wiring only.

fn main() {}
