//! What the daemon asks of the operating system before and after it serves: limits, identity,
//! locked memory, the pid file, the ports file, signals, and the exit codes.
//!
//! Each function does one thing and leaves the order to its caller (`crate::daemon::run`).
//! Never opens a listening socket, never decides from flags, and holds no `unsafe`: every system
//! call goes through the safe wrappers of the `nix` crate.

use std::fmt;
use std::fs;
use std::io::{self, Write};
use std::net::SocketAddr;
use std::os::unix::fs::{DirBuilderExt, lchown};
use std::path::{Path, PathBuf};

use log::{info, warn};
use nix::errno::Errno;
use nix::sys::mman::{MlockAllFlags, mlockall};
use nix::sys::resource::{RLIM_INFINITY, Resource, getrlimit, setrlimit};
use nix::sys::signal;
use nix::unistd::{Gid, Pid, Uid, User};

/// Exit code for a start that failed without a finer code, as memcached uses it.
pub const EXIT_FAILURE: u8 = 1;
/// Exit code for flags that cannot be followed (`EX_USAGE` of sysexits.h).
pub const EX_USAGE: u8 = 64;
/// Exit code for data files that are damaged (`EX_DATAERR`).
pub const EX_DATAERR: u8 = 65;
/// Exit code for a disk that fails (`EX_IOERR`).
pub const EX_IOERR: u8 = 74;
/// Exit code for a data directory that another process uses (`EX_TEMPFAIL`).
pub const EX_TEMPFAIL: u8 = 75;
/// Exit code for data files of a newer version (`EX_CONFIG`).
pub const EX_CONFIG: u8 = 78;
/// Exit code for a user that does not exist (`EX_NOUSER`).
pub const EX_NOUSER: u8 = 67;
/// Exit code for what the operating system refused, a port in use for one (`EX_OSERR`).
pub const EX_OSERR: u8 = 71;

/// Why the process ends instead of serving: what to print on standard error, and the exit code.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Exit {
    /// One of the codes above.
    pub code: u8,
    /// One or more lines without the last line feed. Says what to change.
    pub message: String,
}

impl Exit {
    /// Flags that cannot be followed.
    pub fn usage(message: impl Into<String>) -> Self {
        Self { code: EX_USAGE, message: message.into() }
    }

    /// Something the operating system refused.
    pub fn os(message: impl Into<String>) -> Self {
        Self { code: EX_OSERR, message: message.into() }
    }

    /// Anything else.
    pub fn failure(message: impl Into<String>) -> Self {
        Self { code: EXIT_FAILURE, message: message.into() }
    }
}

impl fmt::Display for Exit {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(&self.message)
    }
}

impl std::error::Error for Exit {}

// Limits

/// Raises the core file limit as far as it goes (`-r`).
///
/// # Errors
/// When the limit stays at 0, so that no core file would ever be written.
pub fn allow_core_dumps() -> Result<(), Exit> {
    let refused = |why: Errno| {
        let why = why.desc();
        Exit::os(format!("failed to ensure corefile creation: {why}; raise the limit or drop -r"))
    };
    let (_, hard) = getrlimit(Resource::RLIMIT_CORE).map_err(refused)?;
    if setrlimit(Resource::RLIMIT_CORE, RLIM_INFINITY, RLIM_INFINITY).is_err() {
        setrlimit(Resource::RLIMIT_CORE, hard, hard).map_err(refused)?;
    }
    match getrlimit(Resource::RLIMIT_CORE).map_err(refused)? {
        (0, _) => Err(refused(Errno::EPERM)),
        _ => Ok(()),
    }
}

/// What to do about the limit of open files; the answer of [`descriptor_plan`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum DescriptorPlan {
    /// The soft limit is high enough.
    Keep,
    /// Raise the soft limit to so many, which the hard limit allows.
    RaiseSoft(u64),
    /// Only a privileged process may go so high. Without that, the number of connections that fit
    /// under the hard limit is given, if that limit covers the connections at least.
    RaiseHard { wanted: u64, connections_else: Option<u64> },
}

/// `connections` is what `-c` asks for, `reserve` what the process opens for itself.
///
/// memcached counts its own files within `-c`, so a hard limit equal to `-c` is enough for it, and
/// has to be enough here: then a few connections fewer than asked for are accepted.
fn descriptor_plan(soft: u64, hard: u64, connections: u64, reserve: u64) -> DescriptorPlan {
    let wanted = connections.saturating_add(reserve);
    if wanted <= soft {
        DescriptorPlan::Keep
    } else if wanted <= hard {
        DescriptorPlan::RaiseSoft(wanted)
    } else {
        let fits = (connections <= hard).then(|| hard.saturating_sub(reserve));
        DescriptorPlan::RaiseHard { wanted, connections_else: fits.filter(|&count| 0 < count) }
    }
}

/// Makes room for `connections` open sockets and `reserve` other files, raising the soft limit no
/// further than needed. Returns the connections there is room for: fewer than asked for when the
/// hard limit covers `-c` but not the reserve as well.
///
/// # Errors
/// When the hard limit is below `connections` and this process may not raise it.
pub fn allow_descriptors(connections: u64, reserve: u64) -> Result<u64, Exit> {
    let files = Resource::RLIMIT_NOFILE;
    let refused = |why: Errno| {
        let why = why.desc();
        Exit::os(format!(
            "failed to set rlimit for open files. Try starting as root or requesting smaller \
             maxconns value: -c {connections}, {why}"
        ))
    };
    let (soft, hard) = getrlimit(files).map_err(refused)?;
    match descriptor_plan(soft, hard, connections, reserve) {
        DescriptorPlan::Keep => Ok(connections),
        DescriptorPlan::RaiseSoft(limit) => {
            setrlimit(files, limit, hard).map_err(refused)?;
            Ok(connections)
        }
        DescriptorPlan::RaiseHard { wanted, connections_else } => {
            let Err(why) = setrlimit(files, wanted, wanted) else {
                return Ok(connections);
            };
            let fewer = connections_else.ok_or_else(|| refused(why))?;
            setrlimit(files, hard, hard).map_err(refused)?;
            warn!(
                "the limit of open files, {hard}, leaves room for {fewer} of the {connections} \
                 connections that -c allows; raise the limit (ulimit -n, LimitNOFILE=) to {wanted}"
            );
            Ok(fewer)
        }
    }
}

/// Address space beside the items: code, stacks, what the allocator reserves ahead.
const ADDRESS_SPACE_BYTES_BASE: u64 = 384 << 20;

/// The same for each worker.
const ADDRESS_SPACE_BYTES_PER_WORKER: u64 = 64 << 20;

/// One part in so many of `-m` more: rounding up, and memory freed but not given back yet.
const ADDRESS_SPACE_SHARE: u64 = 4;

/// What a limit of address space has to be at least for a cache of this size.
fn address_space_needed(memory_bytes_max: u64, workers: u64) -> u64 {
    let items = memory_bytes_max.saturating_add(memory_bytes_max / ADDRESS_SPACE_SHARE);
    let threads = workers.saturating_mul(ADDRESS_SPACE_BYTES_PER_WORKER);
    items.saturating_add(threads).saturating_add(ADDRESS_SPACE_BYTES_BASE)
}

/// Refuses a start under a limit of address space or of data (`ulimit -v`, `-d`) that `-m` would
/// run into: the allocator ends the process then, in the middle of serving.
///
/// # Errors
/// When there is such a limit.
pub fn check_address_space(memory_bytes_max: u64, workers: u64) -> Result<(), Exit> {
    let needed = address_space_needed(memory_bytes_max, workers);
    for (resource, flag) in [(Resource::RLIMIT_AS, "-v"), (Resource::RLIMIT_DATA, "-d")] {
        let refused = |why: Errno| Exit::os(format!("cannot tell the limits: {}", why.desc()));
        let (soft, _) = getrlimit(resource).map_err(refused)?;
        if soft < needed {
            return Err(Exit::os(format!(
                "the limit of memory (ulimit {flag}), {} MiB, is too small for -m {}: raise it to \
                 {} MiB, or lower -m",
                soft >> 20,
                memory_bytes_max >> 20,
                needed >> 20,
            )));
        }
    }
    Ok(())
}

/// Keeps all memory of the process, now and later, from being paged out (`-k`). A refusal is only
/// worth a warning.
pub fn lock_memory() {
    if let Err(why) = mlockall(MlockAllFlags::MCL_CURRENT | MlockAllFlags::MCL_FUTURE) {
        let why = why.desc();
        warn!("-k invalid, mlockall() failed: {why}; raise the limit (ulimit -l, LimitMEMLOCK=)");
    }
}

// Identity

/// The account the server runs as.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Identity {
    name: String,
    user: Uid,
    group: Gid,
}

/// Whom root becomes if it was not told: nobody else's files are in reach of a cache then.
const USER_DEFAULT: &str = "nobody";

/// The number of user and group `nobody`, for systems that have no list of users, as a container
/// with nothing but this program.
const NOBODY: u32 = 65534;

/// Looks up who to become, `None` when there is nothing to drop: only root changes identity, for
/// anyone else `-u` is ignored. Call it before limits are lowered: it opens files.
///
/// # Errors
/// A user that does not exist.
pub fn identity(user: Option<&str>) -> Result<Option<Identity>, Exit> {
    if !Uid::current().is_root() && !Uid::effective().is_root() {
        return Ok(None);
    }
    let given = user.filter(|name| !name.is_empty());
    let name = given.unwrap_or(USER_DEFAULT);
    let unknown = |why: &str| Exit {
        code: EX_NOUSER,
        message: format!(
            "can't find the user {name} to switch to{why}\n\
             \"useradd -r -s /usr/sbin/nologin {name}\" makes it; without -u it is {USER_DEFAULT}"
        ),
    };
    match User::from_name(name) {
        Ok(Some(found)) => {
            Ok(Some(Identity { name: name.to_owned(), user: found.uid, group: found.gid }))
        }
        _ if given.is_none() => Ok(Some(Identity {
            name: NOBODY.to_string(),
            user: Uid::from_raw(NOBODY),
            group: Gid::from_raw(NOBODY),
        })),
        Ok(None) => Err(unknown("")),
        Err(why) => Err(unknown(&format!(": {}", why.desc()))),
    }
}

impl Identity {
    /// The user's name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Makes a directory for this user, if it is not there. Its parents have to be.
    ///
    /// # Errors
    /// Those of the system.
    pub fn make_directory(&self, path: &Path) -> io::Result<()> {
        match fs::DirBuilder::new().mode(DIRECTORY_MODE).create(path) {
            Ok(()) => lchown(path, Some(self.user.as_raw()), Some(self.group.as_raw())),
            Err(why) if why.kind() == io::ErrorKind::AlreadyExists => Ok(()),
            Err(why) => Err(why),
        }
    }
}

/// The name of the user this process runs as, or the number.
pub fn user_name() -> String {
    let user = Uid::effective();
    let found = User::from_uid(user).ok().flatten();
    found.map_or_else(|| user.to_string(), |found| found.name)
}

/// Values of clients are in it.
const DIRECTORY_MODE: u32 = 0o700;

/// Becomes `identity` for good, leaving every supplementary group.
///
/// # Errors
/// When the system refuses, or when root could still be taken back afterwards.
pub fn drop_privileges(identity: &Identity) -> Result<(), Exit> {
    let refused = |why: Errno| {
        let (name, why) = (&identity.name, why.desc());
        Exit::os(format!("failed to assume identity of user {name}: {why}"))
    };
    match drop_supplementary_groups() {
        Ok(()) => {}
        // A container may forbid it; then there were no groups worth dropping either.
        Err(Errno::EPERM) => warn!("failed to drop supplementary groups: not permitted"),
        Err(why) => {
            return Err(Exit::os(format!("failed to drop supplementary groups: {}", why.desc())));
        }
    }
    // The group first: a user that is not root may not change it any more.
    nix::unistd::setgid(identity.group).map_err(refused)?;
    nix::unistd::setuid(identity.user).map_err(refused)?;
    if !identity.user.is_root() && nix::unistd::setuid(Uid::from_raw(0)).is_ok() {
        return Err(refused(Errno::EPERM));
    }
    info!("running as user {}", identity.name);
    Ok(())
}

#[cfg(not(target_vendor = "apple"))]
fn drop_supplementary_groups() -> Result<(), Errno> {
    nix::unistd::setgroups(&[])
}

/// macOS keeps group membership in its directory service and has nothing to drop.
#[cfg(target_vendor = "apple")]
fn drop_supplementary_groups() -> Result<(), Errno> {
    Ok(())
}

/// Asks the process to end the way a signal from outside does: the loop in
/// `crate::daemon::run` hears SIGINT (stop) or SIGUSR1 (stop gracefully). For the `shutdown`
/// command of a server that runs as a daemon; an embedded server must not call it.
pub fn ask_to_stop(graceful: bool) {
    let order = if graceful { signal::Signal::SIGUSR1 } else { signal::Signal::SIGINT };
    if let Err(why) = signal::kill(Pid::this(), order) {
        warn!("shutdown: cannot signal the own process: {}", why.desc());
    }
}

// Files

/// A pid file that this process wrote (`-P`).
#[derive(Debug)]
pub struct PidFile {
    path: PathBuf,
}

impl PidFile {
    /// Writes the number of this process and a line feed. The file appears complete or not at
    /// all. Trouble is worth a warning, not a stop: the cache works without the file.
    pub fn write(path: &Path) -> Option<Self> {
        if let Some(other) = running_pid_in(path) {
            warn!("the pid file {} contained the running pid {other}", path.display());
        }
        match replace_file(path, ".tmp", format!("{}\n", std::process::id()).as_bytes()) {
            Ok(()) => Some(Self { path: path.to_owned() }),
            Err(why) => {
                let path = path.display();
                warn!("could not write the pid file {path}: {why}; is its directory writable?");
                None
            }
        }
    }

    /// Removes the file, unless another process has put its own number there meanwhile.
    pub fn remove(self) {
        if read_pid(&self.path) != Some(std::process::id()) {
            return;
        }
        if let Err(why) = fs::remove_file(&self.path) {
            warn!("could not remove the pid file {}: {why}", self.path.display());
        }
    }
}

fn read_pid(path: &Path) -> Option<u32> {
    fs::read_to_string(path).ok()?.lines().next()?.trim().parse().ok()
}

/// The number in a pid file if it is another process that is alive.
fn running_pid_in(path: &Path) -> Option<u32> {
    let found = read_pid(path).filter(|&pid| pid != 0 && pid != std::process::id())?;
    let pid = i32::try_from(found).ok()?;
    signal::kill(Pid::from_raw(pid), None).is_ok().then_some(found)
}

/// Writes one line per bound TCP address, `TCP INET: port` or `TCP INET6: port`, for the test
/// tools that name a file in `MEMCACHED_PORT_FILENAME`. They take the file's appearance for
/// "ready", so it is complete when it appears. Unix sockets have no line.
///
/// # Errors
/// Those of writing and renaming the file.
pub fn write_port_file(path: &Path, addresses: &[SocketAddr]) -> io::Result<()> {
    replace_file(path, ".lck", port_lines(addresses).as_bytes())
}

fn port_lines(addresses: &[SocketAddr]) -> String {
    let line = |address: &SocketAddr| {
        let family = if address.is_ipv4() { "INET" } else { "INET6" };
        format!("TCP {family}: {}\n", address.port())
    };
    addresses.iter().map(line).collect()
}

/// Writes a file beside `path` and renames it there. A reader never sees half of it. No sync:
/// these files mean nothing after a power failure.
fn replace_file(path: &Path, suffix: &str, content: &[u8]) -> io::Result<()> {
    let mut beside = path.as_os_str().to_owned();
    beside.push(suffix);
    let mut file = fs::File::create(&beside)?;
    file.write_all(content)?;
    drop(file);
    fs::rename(&beside, path)
}

#[cfg(test)]
mod tests {
    use super::*;
    use DescriptorPlan::*;

    #[test]
    fn descriptor_limits_rise_no_further_than_needed() {
        let check = |(soft, hard), connections, expect| {
            assert_eq!(descriptor_plan(soft, hard, connections, 40), expect);
        };
        check((1064, 1064), 1024, Keep);
        check((1063, 1064), 1024, RaiseSoft(1064));
        check((256, u64::MAX), 1024, RaiseSoft(1064));
        // The usual `ulimit -n 1024` with the usual `-c 1024` must start.
        check((1024, 1024), 1024, RaiseHard { wanted: 1064, connections_else: Some(984) });
        check((256, 1023), 1024, RaiseHard { wanted: 1064, connections_else: None });
        check((40, 40), 40, RaiseHard { wanted: 80, connections_else: None });
        check((1024, 4096), u64::MAX, RaiseHard { wanted: u64::MAX, connections_else: None });
    }

    #[test]
    fn address_space_has_room_for_more_than_the_items() {
        for (memory_mib, workers, needed_mib) in
            [(0, 1, 448), (64, 2, 592), (1024, 2, 1792), (1024, 16, 2688)]
        {
            assert_eq!(address_space_needed(memory_mib << 20, workers), needed_mib << 20);
        }
        // No limit is enough for any size.
        assert_eq!(address_space_needed(u64::MAX, u64::MAX), RLIM_INFINITY);
    }

    #[test]
    fn port_lines_name_the_family() {
        let addresses = ["127.0.0.1:11211", "[::1]:2050"].map(|text| text.parse().unwrap());
        assert_eq!(port_lines(&addresses), "TCP INET: 11211\nTCP INET6: 2050\n");
        assert_eq!(port_lines(&[]), "");
    }

    #[test]
    fn a_pid_file_appears_whole_and_goes_only_if_it_is_ours() {
        let path = std::env::temp_dir().join(format!("distcached-os-{}.pid", std::process::id()));
        let content = format!("{}\n", std::process::id());

        let file = PidFile::write(&path).unwrap();
        assert_eq!(fs::read_to_string(&path).unwrap(), content);
        file.remove();
        assert!(!path.exists());

        let file = PidFile::write(&path).unwrap();
        fs::write(&path, "1\n").unwrap();
        file.remove();
        assert_eq!(fs::read_to_string(&path).unwrap(), "1\n", "another's file is left alone");
        fs::remove_file(&path).unwrap();
    }
}
