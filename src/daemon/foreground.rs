//! Where there is neither `-d` nor a service manager to talk to, as on Windows: what `background`
//! and `systemd` are elsewhere, by the same names.
//!
//! Owns nothing and does nothing.

/// In place of `background`.
pub mod background {
    use crate::daemon::os::Exit;
    use std::ffi::OsString;
    use std::process::ExitCode;

    /// Nobody waits.
    pub fn is_waited_for() -> bool {
        false
    }

    /// `-d`, which is refused before.
    ///
    /// # Errors
    /// Always.
    pub fn start(_words: &[OsString]) -> Result<ExitCode, Exit> {
        Err(Exit::usage("-d: there is no background on this system"))
    }

    /// There is nothing to leave.
    ///
    /// # Errors
    /// None.
    pub fn detach(_stay_in_directory: bool, _keep_errors: bool) -> Result<(), Exit> {
        Ok(())
    }
}

/// In place of `systemd`.
pub mod systemd {
    use crate::server::Server;
    use crate::server::config::Config;
    use crate::server::connection::listener::Bound;
    use std::io;

    /// None are handed over.
    ///
    /// # Errors
    /// None.
    pub fn inherited_listeners(_config: &Config) -> io::Result<Vec<Bound>> {
        Ok(Vec::new())
    }

    /// Nobody is told.
    pub fn ready() {}

    /// Nobody is told.
    pub fn stopping() {}

    /// Nobody waits for them.
    pub fn send_signs_of_life(_server: &Server) {}
}
