//! How a connection begins, and bytes on it, encrypted or not. Knows no command.

pub(in crate::client) mod dialer;
pub(in crate::client) mod stream;
#[cfg_attr(not(feature = "tls"), path = "tls_absent.rs")]
pub(in crate::client) mod tls;
