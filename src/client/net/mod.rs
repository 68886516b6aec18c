//! How a connection begins, and bytes on it, encrypted or not. Knows no command.

pub(in crate::client) mod dialer;
pub(in crate::client) mod names;
pub(in crate::client) mod socket;
pub(in crate::client) mod stream;
#[cfg_attr(not(feature = "tls"), path = "tls_absent.rs")]
pub(in crate::client) mod tls;
#[cfg(all(feature = "tokio", not(unix)))]
pub(in crate::client) mod unix_absent;

/// What a server at a Unix socket is told to on systems where the standard library has none.
#[cfg(not(unix))]
fn no_unix_sockets() -> std::io::Error {
    let text = "Unix sockets are not supported on this system; name the server as host:port";
    std::io::Error::new(std::io::ErrorKind::Unsupported, text)
}
