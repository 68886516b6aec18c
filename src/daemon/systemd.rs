//! Manners towards a service manager such as systemd: sockets it has opened for us, being ready,
//! being alive, and stopping. Without one nothing here does anything.
//!
//! Owns the conversation; when to say what is `crate::daemon::run`'s to decide. Never opens a
//! socket to serve on.

use crate::server::Server;
use crate::server::config::{ClientCertificates, Config};
use crate::server::connection::listener::Bound;
use listenfd::ListenFd;
use log::{info, warn};
use sd_notify::NotifyState;
use socket2::SockRef;
use std::io;
use std::time::Duration;

/// The sockets that were handed over (`LISTEN_FDS`); none if there are none. Those of TCP are for
/// TLS if there is TLS.
///
/// # Errors
/// One of them is neither a listening TCP socket nor a listening Unix socket.
pub fn inherited_listeners(config: &Config) -> io::Result<Vec<Bound>> {
    let mut handed_over = ListenFd::from_env();
    let clients = config.tls.as_ref().map(|tls| tls.clients);
    (0..handed_over.len()).map(|at| inherited(&mut handed_over, at, clients)).collect()
}

fn inherited(
    handed_over: &mut ListenFd,
    at: usize,
    clients: Option<ClientCertificates>,
) -> io::Result<Bound> {
    let gone = || io::Error::other("a socket was handed over twice");
    match handed_over.take_tcp_listener(at) {
        Ok(listener) => {
            let listener = listener.ok_or_else(gone)?;
            let socket = SockRef::from(&listener);
            // As for our own: accepted sockets inherit both.
            socket.set_tcp_nodelay(true)?;
            socket.set_keepalive(true)?;
            Ok(match clients {
                Some(clients) => Bound::Tls(listener, clients, None),
                None => Bound::Tcp(listener, None),
            })
        }
        Err(_) => {
            let listener = handed_over.take_unix_listener(at)?.ok_or_else(gone)?;
            let address = listener.local_addr()?;
            let path = address.as_pathname().map(|path| path.display().to_string());
            Ok(Bound::Unix(listener, path.unwrap_or_else(|| "unnamed".to_owned())))
        }
    }
}

/// The server answers from now on.
pub fn ready() {
    tell(&[NotifyState::Ready, NotifyState::MainPid(std::process::id())]);
}

/// The server is about to end.
pub fn stopping() {
    tell(&[NotifyState::Stopping]);
}

fn tell(states: &[NotifyState<'_>]) {
    if let Err(why) = sd_notify::notify(states) {
        warn!("cannot tell the service manager: {why}");
    }
}

/// If the service manager wants signs of life, sends them for as long as every worker shows some.
/// One that hangs ends them, and the service manager starts the daemon anew.
pub fn send_signs_of_life(server: &Server) {
    let Some(patience) = sd_notify::watchdog_enabled() else { return };
    let pause = (patience / 3).max(Duration::from_millis(200));
    let pulse = server.pulse();
    let watch = move || {
        while !pulse.is_over() {
            std::thread::sleep(pause);
            if pulse.beats() {
                tell(&[NotifyState::Watchdog]);
            }
        }
    };
    let named = std::thread::Builder::new().name("watchdog".to_owned());
    match named.spawn(watch) {
        // Not waited for: the process ends around it.
        Ok(_) => info!("signs of life every {} ms", pause.as_millis()),
        Err(why) => warn!("no signs of life, the service manager will end the server: {why}"),
    }
}
