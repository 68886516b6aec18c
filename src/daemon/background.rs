//! `-d`: the server in the background, and its outcome for whoever waits in the foreground.
//!
//! The process in the foreground starts the program anew with the same flags and waits until that
//! one is ready or has ended; exit status and messages are those of a start in the foreground, and
//! the pid file is there when it returns. Until then both belong to the same terminal, so that
//! Ctrl-C ends a start. (The system's own way to the background, daemon(3), lets the foreground go
//! before anything has been tried, and may not be used once there are threads.)
//!
//! Owns that agreement: a number in the environment, and a byte on standard output. Never decides
//! what the server does.

use crate::daemon::os::{EXIT_FAILURE, Exit};
use nix::unistd::{dup2_stderr, dup2_stdout, setsid};
use std::env;
use std::ffi::OsString;
use std::fs::OpenOptions;
use std::io::{self, Read, Write};
use std::os::unix::process::{CommandExt, ExitStatusExt, parent_id};
use std::process::{Command, ExitCode, Stdio};

/// The number of the process that waits, for the one it waits for.
const FOREGROUND: &str = "DISTCACHED_FOREGROUND";

/// Says "ready".
const READY: &[u8] = b"\n";

/// Sockets of a service manager are meant for the process of this number.
const SOCKETS_FOR: &str = "LISTEN_PID";

/// Whether the process in the foreground waits for this one.
pub fn is_waited_for() -> bool {
    env::var(FOREGROUND).is_ok_and(|number| number == parent_id().to_string())
}

/// Starts this program anew, with these words for a command line, and waits until it is ready or
/// has ended. Returns what it ended with, or success.
pub fn start(words: &[OsString]) -> Result<ExitCode, Exit> {
    let refused = |why: io::Error| Exit::failure(format!("failed to daemonize: {why}"));
    let (name, flags) = words.split_first().ok_or_else(|| Exit::failure("nothing to start"))?;
    let program = env::current_exe().unwrap_or_else(|_| name.into());
    let own_number = std::process::id().to_string();
    let mut command = Command::new(program);
    command.arg0(name).args(flags).env(FOREGROUND, &own_number);
    if env::var(SOCKETS_FOR).is_ok_and(|number| number == own_number) {
        command.env_remove(SOCKETS_FOR);
    }
    let mut server =
        command.stdin(Stdio::null()).stdout(Stdio::piped()).spawn().map_err(refused)?;
    let mut said = Vec::new();
    if let Some(output) = server.stdout.take() {
        output.take(READY.len() as u64).read_to_end(&mut said).map_err(refused)?;
    }
    if said == READY {
        return Ok(ExitCode::SUCCESS);
    }
    let status = server.wait().map_err(refused)?;
    match (status.code(), status.signal()) {
        (Some(code), _) => Ok(ExitCode::from(u8::try_from(code).unwrap_or(EXIT_FAILURE))),
        (None, signal) => Err(Exit::failure(format!(
            "the start was ended by signal {}",
            signal.unwrap_or_default()
        ))),
    }
}

/// Leaves the terminal, and tells who waits that the server is ready. `stay_in_directory` keeps the
/// working directory, where core files go, instead of `/`; `keep_errors` leaves standard error
/// open.
///
/// # Errors
/// When the system refuses.
pub fn detach(stay_in_directory: bool, keep_errors: bool) -> Result<(), Exit> {
    let refused = |why: io::Error| Exit::failure(format!("failed to daemonize: {why}"));
    let null = OpenOptions::new().read(true).write(true).open("/dev/null").map_err(refused)?;
    setsid().map_err(|why| refused(why.into()))?;
    if !stay_in_directory {
        env::set_current_dir("/").map_err(refused)?;
    }
    if !keep_errors {
        dup2_stderr(&null).map_err(|why| refused(why.into()))?;
    }
    let mut output = io::stdout();
    // Who waited may have given up; then there is nobody to tell.
    let _ = output.write_all(READY).and_then(|()| output.flush());
    dup2_stdout(&null).map_err(|why| refused(why.into()))
}
