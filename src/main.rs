//! `distcached`: flags in, exit code out. What the flags mean is in `server::options`, what happens
//! then in `server::daemon`. No logic here.

use std::io::Write;
use std::process::ExitCode;

use distcache::server::daemon;
use distcache::server::options::{self, Action};

fn main() -> ExitCode {
    match options::parse(std::env::args_os()) {
        Ok(Action::Run(settings)) => daemon::run(*settings),
        Ok(Action::Print(text)) => {
            // `distcached -h | head -1` closes the pipe early, and that is fine.
            let _ = std::io::stdout().write_all(text.as_bytes());
            ExitCode::SUCCESS
        }
        Err(exit) => daemon::report(&exit),
    }
}
