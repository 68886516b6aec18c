//! Files of Unix sockets: their access, and those that an earlier server left behind.
//!
//! Binding itself is the listener's.

use nix::sys::stat::{Mode, umask};
use socket2::{Domain, SockAddr, Socket, Type};
use std::fs;
use std::io;
use std::os::unix::fs::FileTypeExt;
use std::path::Path;

/// Runs `bind` with a umask that gives a socket file exactly the access `mode` (`-a`), for
/// `bind(2)` takes no mode and a `chmod` afterwards would leave a moment of wider access. The
/// umask belongs to the whole process: call it before threads start.
pub fn with_access_mode<T>(mode: u32, bind: impl FnOnce() -> T) -> T {
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
pub fn remove_stale_socket(path: &Path) -> io::Result<()> {
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
