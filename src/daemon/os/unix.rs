//! The process on Unix: limits, identity, locked memory, signals.
//!
//! Every system call goes through the safe wrappers of the `nix` crate.

use super::{EX_NOUSER, EXIT_FAILURE, Exit, Order};
use crate::system;
use log::{info, warn};
use nix::errno::Errno;
use nix::sys::mman::{MlockAllFlags, mlockall};
use nix::sys::resource::{RLIM_INFINITY, Resource, getrlimit, setrlimit};
use nix::sys::signal;
use nix::unistd::{Gid, Pid, Uid, User};
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM, SIGUSR1};
use signal_hook::flag;
use signal_hook::iterator::Signals;
use std::fs;
use std::io;
use std::os::unix::fs::{MetadataExt, lchown};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

/// Flags that cannot be followed on this system, and why.
pub const FLAGS_ABSENT: &[(char, &str)] = &[];

/// Shows who listens on a port, in a shell.
pub const LIST_LISTENERS: &str = "ss -lntp";

/// Shows the addresses of this machine, in a shell.
pub const LIST_ADDRESSES: &str = "ip addr";

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
        match system::directory_builder(DIRECTORY_MODE).create(path) {
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

/// What makes a data directory that is missing or another's one that may be used.
pub fn what_to_do_about(directory: &Path) -> String {
    let (at, user) = (directory.display(), user_name());
    match fs::metadata(directory).map(|found| found.uid()) {
        Ok(owner) if owner == Uid::effective().as_raw() => {
            "see to the disk and the rights of its directory".to_owned()
        }
        Ok(_) => format!(
            "it is not {user}'s: serve as its owner (-u), or give it to {user}, as root; see to \
             the rights of its directory too"
        ),
        Err(_) => format!(
            "\"install -d -o {user} -m 700 {at}\", as root, makes it; see to the rights of its \
             directory too"
        ),
    }
}

// Signals

/// Asks the process to end the way a signal from outside does: the loop in
/// `crate::daemon::run` hears SIGINT (stop) or SIGUSR1 (stop gracefully). For the `shutdown`
/// command of a server that runs as a daemon; an embedded server must not call it.
pub fn ask_to_stop(graceful: bool) {
    let order = if graceful { signal::Signal::SIGUSR1 } else { signal::Signal::SIGINT };
    if let Err(why) = signal::kill(Pid::this(), order) {
        warn!("shutdown: cannot signal the own process: {}", why.desc());
    }
}

/// Whether there is a process of this number.
pub fn is_running(pid: u32) -> bool {
    i32::try_from(pid).is_ok_and(|pid| signal::kill(Pid::from_raw(pid), None).is_ok())
}

/// Signals from outside, as values. SIGPIPE needs no handler: programs built by rustc start with
/// it ignored.
pub struct Signalled {
    signals: Signals,
    stopping: Arc<AtomicBool>,
    asked: Arc<AtomicBool>,
}

impl Signalled {
    /// Hears signals from here on.
    ///
    /// # Errors
    /// Those of the system.
    pub fn listen() -> io::Result<Self> {
        let stopping = Arc::new(AtomicBool::new(false));
        for signal in [SIGINT, SIGTERM] {
            let code = EXIT_FAILURE.into();
            flag::register_conditional_shutdown(signal, code, Arc::clone(&stopping))?;
        }
        let asked = Arc::new(AtomicBool::new(false));
        for signal in [SIGINT, SIGTERM, SIGUSR1] {
            flag::register(signal, Arc::clone(&asked))?;
        }
        let signals = Signals::new([SIGINT, SIGTERM, SIGUSR1, SIGHUP])?;
        Ok(Self { signals, stopping, asked })
    }

    /// To be set once the server stops: from then on SIGINT and SIGTERM end the process at once,
    /// for whoever does not want to wait for it.
    pub fn stopping(&self) -> Arc<AtomicBool> {
        Arc::clone(&self.stopping)
    }

    /// Set by SIGINT, SIGTERM and SIGUSR1: a recovery is given up then.
    pub fn asked(&self) -> Arc<AtomicBool> {
        Arc::clone(&self.asked)
    }

    /// Each order as it comes; waits for the next one.
    pub fn orders(&mut self) -> impl Iterator<Item = Order> {
        self.signals.forever().map(|signal| match signal {
            SIGHUP => Order::Reload,
            SIGUSR1 => Order::StopGracefully,
            signal => Order::Stop(signal),
        })
    }
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
}
