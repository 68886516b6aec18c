//! The blocking face's socket, and waiting until some of them are ready. What differs between
//! systems is here and nowhere else in that face; knows no command and keeps no time.
//!
//! | | Unix | Windows |
//! |---|---|---|
//! | TCP | yes | yes |
//! | Unix sockets | yes | refused |
//! | one call that does not wait | a flag of the call | the socket never waits |

use crate::client::net::stream;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::time::Duration;

/// Longest single wait in `poll`; rounding never turns a wait into a busy loop.
const POLL_NANOS_MIN: u64 = 100_000;

/// A connection to a server.
#[derive(Debug)]
pub(in crate::client) enum Socket {
    Tcp(TcpStream),
    #[cfg(unix)]
    Unix(std::os::unix::net::UnixStream),
}

macro_rules! on_socket {
    ($self:expr, $socket:ident => $call:expr) => {
        match $self {
            Socket::Tcp($socket) => $call,
            #[cfg(unix)]
            Socket::Unix($socket) => $call,
        }
    };
}

impl Socket {
    /// Whether reads and writes can wait by themselves, as long as they were told to. Where they
    /// cannot, they say `WouldBlock` and `wait_for` waits.
    pub(crate) const WAITS: bool = cfg!(unix);

    pub(crate) fn tcp(address: &SocketAddr, timeout: Duration) -> io::Result<Self> {
        let stream = TcpStream::connect_timeout(address, timeout)?;
        stream.set_nodelay(true)?;
        if !Self::WAITS {
            stream.set_nonblocking(true)?;
        }
        Ok(Self::Tcp(stream))
    }

    /// Where more callers wait than the server lets wait, the system would let us wait for ever:
    /// here that is `WouldBlock`.
    #[cfg(unix)]
    pub(crate) fn unix(path: &Path) -> io::Result<Self> {
        use rustix::net::{AddressFamily, SocketAddrUnix, SocketType, connect, socket};
        let stream = socket(AddressFamily::UNIX, SocketType::STREAM, None)?;
        rustix::io::fcntl_setfd(&stream, rustix::io::FdFlags::CLOEXEC)?;
        rustix::io::ioctl_fionbio(&stream, true)?;
        connect(&stream, &SocketAddrUnix::new(path)?)?;
        rustix::io::ioctl_fionbio(&stream, false)?;
        Ok(Self::Unix(stream.into()))
    }

    #[cfg(not(unix))]
    pub(crate) fn unix(_path: &Path) -> io::Result<Self> {
        Err(super::no_unix_sockets())
    }

    pub(crate) fn read(&mut self, room: &mut [u8]) -> io::Result<usize> {
        on_socket!(self, socket => socket.read(room))
    }

    pub(crate) fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        on_socket!(self, socket => socket.write(bytes))
    }

    pub(crate) fn set_read_timeout(&self, timeout: Duration) -> io::Result<()> {
        on_socket!(self, socket => socket.set_read_timeout(Some(timeout)))
    }

    pub(crate) fn set_write_timeout(&self, timeout: Duration) -> io::Result<()> {
        on_socket!(self, socket => socket.set_write_timeout(Some(timeout)))
    }

    /// For `wait_for`.
    pub(crate) fn interest(&self, flags: PollFlags) -> PollFd<'_> {
        PollFd::new(self, flags)
    }
}

#[cfg(unix)]
mod system {
    use super::{Socket, io, stream};
    use rustix::net::{RecvFlags, SendFlags, recv, send};
    use std::os::fd::{AsFd, BorrowedFd};

    /// A write to a closed connection is an error, not a signal. Elsewhere the socket is made so.
    #[cfg(any(target_os = "linux", target_os = "android", target_os = "freebsd"))]
    const SEND_FLAGS: SendFlags = SendFlags::DONTWAIT.union(SendFlags::NOSIGNAL);
    #[cfg(not(any(target_os = "linux", target_os = "android", target_os = "freebsd")))]
    const SEND_FLAGS: SendFlags = SendFlags::DONTWAIT;

    impl AsFd for Socket {
        fn as_fd(&self) -> BorrowedFd<'_> {
            on_socket!(self, socket => socket.as_fd())
        }
    }

    impl stream::Socket for Socket {
        fn try_read(&self, room: &mut [u8]) -> io::Result<usize> {
            Ok(recv(self, room, RecvFlags::DONTWAIT)?.0)
        }

        fn try_write(&self, bytes: &[u8]) -> io::Result<usize> {
            Ok(send(self, bytes, SEND_FLAGS)?)
        }
    }
}

#[cfg(windows)]
mod system {
    use super::{Read, Socket, Write, io, stream};
    use std::os::windows::io::{AsSocket, BorrowedSocket};

    impl AsSocket for Socket {
        fn as_socket(&self) -> BorrowedSocket<'_> {
            on_socket!(self, socket => socket.as_socket())
        }
    }

    impl stream::Socket for Socket {
        fn try_read(&self, room: &mut [u8]) -> io::Result<usize> {
            on_socket!(self, socket => (&mut &*socket).read(room))
        }

        fn try_write(&self, bytes: &[u8]) -> io::Result<usize> {
            on_socket!(self, socket => (&mut &*socket).write(bytes))
        }
    }
}

/// Waits until one of the sockets is ready, or time runs out.
pub(in crate::client) fn wait_for(sockets: &mut [PollFd<'_>], wait: Duration) {
    let wait = wait.max(Duration::from_nanos(POLL_NANOS_MIN));
    let wait = Timespec::try_from(wait).unwrap_or(Timespec { tv_sec: i64::MAX, tv_nsec: 0 });
    // An interrupted wait finds nothing ready, and the caller looks at the time again.
    let _ = poll(sockets, Some(&wait));
}
