//! Sockets on Windows: TCP only.
//!
//! Owns stand-ins for Unix sockets. There is no value of their types, so that what is done with one
//! is compiled and never runs.

use mio::event::Source;
use mio::{Interest, Registry, Token};
use socket2::Socket;
use std::io::{self, IoSlice, Read, Write};
use std::os::windows::io::{AsRawSocket, RawSocket};
use std::path::Path;

/// The event loop tells of more to read only after a read has said that there is nothing.
pub const SHORT_READ_EMPTIES: bool = false;

/// The number of an open socket.
pub fn descriptor(socket: &(impl AsRawSocket + ?Sized)) -> i32 {
    i32::try_from(socket.as_raw_socket()).unwrap_or(i32::MAX)
}

/// Does nothing: a port is free when its server is gone, and what has this name on Unix lets
/// anybody take a port away from a server here.
///
/// # Errors
/// None.
pub fn allow_early_reuse(_socket: &Socket) -> io::Result<()> {
    Ok(())
}

/// There are no Unix sockets.
///
/// # Errors
/// Always.
pub fn listen_unix(_path: &Path, _mode: u32) -> io::Result<UnixListener> {
    Err(io::Error::new(io::ErrorKind::Unsupported, "there are no Unix sockets on Windows"))
}

/// Hands a listening Unix socket to the event loop.
///
/// # Errors
/// None: there is none to hand over.
pub fn unix_acceptor(listener: UnixListener) -> io::Result<UnixAcceptor> {
    match listener {}
}

/// A listening Unix socket.
#[derive(Debug)]
pub enum UnixListener {}

/// A listening Unix socket as the event loop sees it.
#[derive(Debug)]
pub enum UnixAcceptor {}

/// A connected Unix socket.
#[derive(Debug)]
pub enum UnixStream {}

impl UnixAcceptor {
    /// The next connection.
    ///
    /// # Errors
    /// None.
    pub fn accept(&self) -> io::Result<(UnixStream, ())> {
        match *self {}
    }
}

impl AsRawSocket for UnixListener {
    fn as_raw_socket(&self) -> RawSocket {
        match *self {}
    }
}

impl AsRawSocket for UnixStream {
    fn as_raw_socket(&self) -> RawSocket {
        match *self {}
    }
}

impl Read for UnixStream {
    fn read(&mut self, _into: &mut [u8]) -> io::Result<usize> {
        match *self {}
    }
}

impl Write for UnixStream {
    fn write(&mut self, _bytes: &[u8]) -> io::Result<usize> {
        match *self {}
    }

    fn write_vectored(&mut self, _slices: &[IoSlice<'_>]) -> io::Result<usize> {
        match *self {}
    }

    fn flush(&mut self) -> io::Result<()> {
        match *self {}
    }
}

/// Nothing to register.
macro_rules! never_a_source {
    ($name:ty) => {
        impl Source for $name {
            fn register(&mut self, _: &Registry, _: Token, _: Interest) -> io::Result<()> {
                match *self {}
            }

            fn reregister(&mut self, _: &Registry, _: Token, _: Interest) -> io::Result<()> {
                match *self {}
            }

            fn deregister(&mut self, _: &Registry) -> io::Result<()> {
                match *self {}
            }
        }
    };
}

never_a_source!(UnixAcceptor);
never_a_source!(UnixStream);
