//! Programs that `hub run`, `hub up -f`, `hub add` and `hub ship` make members: this test binary again, as programs that
//! behave well and badly.

mod commands;
mod init;
mod kills;
mod lifecycle;
mod program;
mod readiness;
mod rolling;
mod running;
