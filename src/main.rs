//! `distcached`: flags in, exit code out. What the flags mean is in `daemon::options`, what happens
//! then in `daemon::run`; sub-commands are in `daemon::tools`. No logic here.

use std::io::Write;
use std::process::ExitCode;

/// Gives freed memory back to the system soon, so that the resident size follows `-m` and
/// `cache_memlimit`; the C library's allocator kept nearly all of it.
#[cfg(unix)]
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

use distcache::daemon::options::{self, Action};
use distcache::daemon::run::{report, run};
use distcache::daemon::tools;

fn main() -> ExitCode {
    match tools::run(std::env::args_os()) {
        Some(Ok(())) => return ExitCode::SUCCESS,
        Some(Err(exit)) => return report(&exit),
        None => {}
    }
    match options::parse(std::env::args_os()) {
        Ok(Action::Run(settings)) => run(*settings),
        Ok(Action::Print(text)) => {
            // `distcached -h | head -1` closes the pipe early, and that is fine.
            let _ = std::io::stdout().write_all(text.as_bytes());
            ExitCode::SUCCESS
        }
        Err(exit) => report(&exit),
    }
}
