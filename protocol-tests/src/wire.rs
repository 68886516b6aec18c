//! One TCP connection with time-outs, for tests.
//!
//! Writes run beside reads: a server that stops reading until its replies are taken would otherwise
//! wait for us while we wait for it. Knows nothing of the protocol beyond the sentinel of
//! [`crate::frame`].

use std::io::{self, ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::thread;
use std::time::{Duration, Instant};

use crate::frame::Framer;

/// How long a server may take over one burst. Far above what a healthy server needs, so that a busy
/// machine does not fail tests.
pub const REPLY_TIMEOUT: Duration = Duration::from_secs(10);

/// Below this many bytes a burst fits the socket buffers and needs no writer thread.
const DIRECT_WRITE_BYTES_MAX: usize = 16 << 10;

/// How the stream of replies ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum End {
    /// All sentinels came.
    Complete,
    /// The server closed the connection.
    Closed,
    /// The time-out passed first.
    TimedOut,
}

/// What a burst gave.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Received {
    /// Every byte since the burst was sent.
    pub bytes: Vec<u8>,
    /// Why reading stopped.
    pub end: End,
}

/// A connection to a server.
#[derive(Debug)]
pub struct Connection {
    stream: TcpStream,
}

impl Connection {
    /// Connects.
    ///
    /// # Errors
    /// What the socket reports.
    pub fn open(address: SocketAddr) -> io::Result<Self> {
        let stream = TcpStream::connect_timeout(&address, REPLY_TIMEOUT)?;
        // Pieces of a request must leave one by one, or chunked replays would test nothing.
        stream.set_nodelay(true)?;
        stream.set_write_timeout(Some(REPLY_TIMEOUT))?;
        Ok(Self { stream })
    }

    /// Sends `pieces`, each in its own write, and reads as [`Self::receive`] does.
    ///
    /// # Errors
    /// What the socket reports; a connection closed by the server is not an error but
    /// [`End::Closed`].
    pub fn exchange(
        &mut self,
        pieces: &[&[u8]],
        sentinels: usize,
        timeout: Duration,
    ) -> io::Result<Received> {
        let mut framer = Framer::default();
        self.exchange_until(pieces, timeout, |stream| framer.sentinels(stream) >= sentinels)
    }

    /// The same for who knows himself whether a stream of replies is complete.
    ///
    /// # Errors
    /// As [`Self::exchange`].
    pub fn exchange_until(
        &mut self,
        pieces: &[&[u8]],
        timeout: Duration,
        is_complete: impl FnMut(&[u8]) -> bool,
    ) -> io::Result<Received> {
        if pieces.iter().map(|piece| piece.len()).sum::<usize>() <= DIRECT_WRITE_BYTES_MAX {
            write_all(&mut self.stream, pieces)?;
            return self.receive_until(timeout, is_complete);
        }
        let mut writer = self.stream.try_clone()?;
        thread::scope(|scope| {
            let written = scope.spawn(move || write_all(&mut writer, pieces));
            let received = self.receive_until(timeout, is_complete);
            match written.join() {
                Ok(result) => result.and(received),
                Err(_) => Err(io::Error::other("the writer thread panicked")),
            }
        })
    }

    /// Sends bytes without waiting for anything.
    ///
    /// # Errors
    /// What the socket reports.
    pub fn send(&mut self, bytes: &[u8]) -> io::Result<()> {
        write_all(&mut self.stream, &[bytes])
    }

    /// Reads until `sentinels` replies `MN` have come, the server closes or `timeout` passes. With
    /// `usize::MAX` sentinels it reads until the server closes.
    ///
    /// # Errors
    /// What the socket reports.
    pub fn receive(&mut self, sentinels: usize, timeout: Duration) -> io::Result<Received> {
        let mut framer = Framer::default();
        self.receive_until(timeout, |stream| framer.sentinels(stream) >= sentinels)
    }

    fn receive_until(
        &mut self,
        timeout: Duration,
        mut is_complete: impl FnMut(&[u8]) -> bool,
    ) -> io::Result<Received> {
        let deadline = Instant::now() + timeout;
        let mut bytes = Vec::new();
        let mut buffer = vec![0; 64 << 10];
        while !is_complete(&bytes) {
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Ok(Received { bytes, end: End::TimedOut });
            }
            self.stream.set_read_timeout(Some(left))?;
            match self.stream.read(&mut buffer) {
                Ok(0) => return Ok(Received { bytes, end: End::Closed }),
                Ok(count) => bytes.extend_from_slice(&buffer[..count]),
                Err(error) if is_closed(&error) => {
                    return Ok(Received { bytes, end: End::Closed });
                }
                Err(error) if is_timeout(&error) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(Received { bytes, end: End::Complete })
    }
}

/// A server that closes early makes writes fail: reading then says [`End::Closed`].
fn write_all(stream: &mut TcpStream, pieces: &[&[u8]]) -> io::Result<()> {
    for piece in pieces {
        match stream.write_all(piece) {
            Ok(()) => {}
            Err(error) if is_closed(&error) => return Ok(()),
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

fn is_closed(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        ErrorKind::ConnectionReset | ErrorKind::ConnectionAborted | ErrorKind::BrokenPipe
    )
}

fn is_timeout(error: &io::Error) -> bool {
    matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut | ErrorKind::Interrupted)
}
