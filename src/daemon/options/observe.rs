//! The options about watching the daemon: metrics, slow commands, and where the log goes.
//!
//! Owns their values. Never opens a socket.

use super::{Draft, Exit, Surroundings, listen, values};
use std::ffi::OsStr;
use std::net::SocketAddr;

/// `--metrics-address`; resolved when all options are known.
pub(super) fn metrics_address(draft: &mut Draft, value: &OsStr) -> Result<(), Exit> {
    draft.metrics_address = Some(value.to_string_lossy().into_owned());
    Ok(())
}

/// The address that `--metrics-address` names: one, with a port.
pub(super) fn resolve(given: &str, around: &Surroundings<'_>) -> Result<SocketAddr, Exit> {
    let refused = |why: String| {
        Exit::usage(format!(
            "--metrics-address: \"{given}\": {why}; give host:port, ip:port or [ip6]:port"
        ))
    };
    let found = listen::one_address(given, around).map_err(refused)?;
    found.ok_or_else(|| refused("the port is missing".to_owned()))
}

/// `--slow-command-us`
pub(super) fn slow_command(draft: &mut Draft, value: &OsStr) -> Result<(), Exit> {
    let microseconds = value.to_str().and_then(|text| text.parse().ok());
    let Some(microseconds) = microseconds else {
        let value = value.display();
        return Err(Exit::usage(format!(
            "--slow-command-us: {value:?} is not a number of microseconds; 0 logs none"
        )));
    };
    draft.config().slow_command_us = microseconds;
    Ok(())
}

/// `--log-file`
pub(super) fn log_file(draft: &mut Draft, value: &OsStr) -> Result<(), Exit> {
    draft.process().log_file = Some(values::path("--log-file", value)?);
    Ok(())
}
