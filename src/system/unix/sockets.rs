//! Sockets on Unix: those with a file, its access, and files that an earlier server left behind.
//!
//! Owns no socket: it makes them for the listener.

pub use mio::net::UnixStream;
pub use std::os::unix::net::UnixListener;

use nix::sys::stat::{Mode, umask};
use socket2::{Domain, SockAddr, Socket, Type};
use std::fs;
use std::io;
use std::os::fd::{AsFd, AsRawFd};
use std::os::unix::fs::FileTypeExt;
use std::path::Path;

/// A listening Unix socket as the event loop sees it.
pub type UnixAcceptor = mio::net::UnixListener;

/// A read that fills less than it was given has emptied the socket: more that comes is told of,
/// whether or not a further read has said that there is nothing.
pub const SHORT_READ_EMPTIES: bool = true;

/// The number of an open socket.
pub fn descriptor(socket: &(impl AsFd + ?Sized)) -> i32 {
    socket.as_fd().as_raw_fd()
}

/// Lets a port be listened on at once after the server that had it, though connections of that one
/// are not quite over. It stays an error while that server is there.
///
/// # Errors
/// Those of the system.
pub fn allow_early_reuse(socket: &Socket) -> io::Result<()> {
    socket.set_reuse_address(true)
}

/// Listens on a Unix socket whose file has the access `mode`; a file that an earlier server left
/// is replaced. Call it before threads start.
///
/// # Errors
/// `AddrInUse` when somebody is listening there, and those of making the file.
pub fn listen_unix(path: &Path, mode: u32) -> io::Result<UnixListener> {
    remove_stale_socket(path)?;
    with_access_mode(mode, || UnixListener::bind(path))
}

/// Hands a listening Unix socket to the event loop.
///
/// # Errors
/// Those of the system.
pub fn unix_acceptor(listener: UnixListener) -> io::Result<UnixAcceptor> {
    listener.set_nonblocking(true)?;
    Ok(UnixAcceptor::from_std(listener))
}

/// Runs `bind` with a umask that gives a socket file exactly the access `mode` (`-a`), for
/// `bind(2)` takes no mode and a `chmod` afterwards would leave a moment of wider access. The
/// umask belongs to the whole process: call it before threads start.
fn with_access_mode<T>(mode: u32, bind: impl FnOnce() -> T) -> T {
    // mode_t is narrower on some systems; the nine bits fit everywhere.
    let masked = !mode & 0o777;
    let before = umask(Mode::from_bits_truncate(masked as nix::libc::mode_t));
    let bound = bind();
    umask(before);
    bound
}

/// Makes way for a Unix socket at `path`: removes the socket file that an earlier server left.
/// A file of any other kind stays, and binding will fail. memcached would also take the path away
/// from a server that is still listening there; here that is an address in use.
///
/// # Errors
/// `AddrInUse` when somebody is listening there, and those of removing the file.
fn remove_stale_socket(path: &Path) -> io::Result<()> {
    if !fs::symlink_metadata(path).is_ok_and(|file| file.file_type().is_socket()) {
        return Ok(());
    }
    let probe = Socket::new(Domain::UNIX, Type::STREAM, None)?;
    // A live server with a full listen queue would keep a blocking probe waiting.
    probe.set_nonblocking(true)?;
    match probe.connect(&SockAddr::unix(path)?) {
        Err(why) if why.kind() == io::ErrorKind::ConnectionRefused => fs::remove_file(path),
        // Not ours to reach, so not ours to judge: binding will tell.
        Err(why) if why.kind() == io::ErrorKind::PermissionDenied => Ok(()),
        _ => Err(io::ErrorKind::AddrInUse.into()),
    }
}
