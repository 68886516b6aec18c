//! In place of tokio's Unix sockets on systems without them: none can be made. No I/O.

use std::convert::Infallible;
use std::io;
use std::path::Path;
use std::task::{Context, Poll};
use tokio::io::{Interest, Ready};

/// A connection that cannot be.
#[derive(Debug)]
pub(in crate::client) struct UnixStream(Infallible);

impl UnixStream {
    pub(crate) async fn connect(_path: impl AsRef<Path>) -> io::Result<Self> {
        Err(super::no_unix_sockets())
    }

    pub(crate) async fn ready(&self, _interest: Interest) -> io::Result<Ready> {
        match self.0 {}
    }

    pub(crate) fn poll_read_ready(&self, _context: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.0 {}
    }

    pub(crate) fn poll_write_ready(&self, _context: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.0 {}
    }

    pub(crate) fn try_read(&self, _room: &mut [u8]) -> io::Result<usize> {
        match self.0 {}
    }

    pub(crate) fn try_write(&self, _bytes: &[u8]) -> io::Result<usize> {
        match self.0 {}
    }
}
