//! Places to break: a scratch folder, and a small file system of its own in a file (a loop mount of
//! ext4, or a tmpfs) whose power can be cut. Owns mounting, the cut, and cleaning up. Needs root
//! for everything but the folder.

use std::fs::{self, File};
use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread::sleep;
use std::time::{Duration, Instant};

use crate::Result;

const UNMOUNT_TRIES: u32 = 200;
const UNMOUNT_PAUSE: Duration = Duration::from_millis(20);

/// FS_IOC_SHUTDOWN with FS_SHUTDOWN_FLAGS_NOLOGFLUSH: the file system stops at once, and what is
/// neither on the disk nor in the journal is gone, as after a power cut. Python makes the call,
/// since a call of ioctl from Rust is unsafe code; it is loaded beforehand, so that the cut
/// follows the request at once.
const CUTTER: &str = "\
import fcntl, os, struct, sys
fd = os.open(sys.argv[1], os.O_RDONLY)
print('ready', flush=True)
sys.stdin.readline()
fcntl.ioctl(fd, 0x8004587d, struct.pack('I', 2))
print('cut', flush=True)
";

/// A folder that is removed when dropped.
#[derive(Debug)]
pub(crate) struct Scratch(pub PathBuf);

impl Scratch {
    /// A new folder below `work`.
    pub(crate) fn new(work: &Path) -> Result<Self> {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let path = work.join(format!("crash-tests-{}-{number}", std::process::id()));
        fs::create_dir_all(&path).map_err(|e| format!("{}: {e}", path.display()))?;
        Ok(Self(path.canonicalize()?))
    }

    /// An empty folder of this name in it.
    pub(crate) fn fresh(&self, name: &str) -> Result<PathBuf> {
        let path = self.0.join(name);
        if path.exists() {
            fs::remove_dir_all(&path)?;
        }
        fs::create_dir(&path)?;
        Ok(path)
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// Why rigs that mount cannot run here; `None` if they can.
pub(crate) fn why_no_mounts() -> Option<String> {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let root = status.lines().any(|line| {
        line.strip_prefix("Uid:").is_some_and(|ids| ids.split_whitespace().nth(1) == Some("0"))
    });
    if !root {
        return Some("not root: no mounts".to_owned());
    }
    for (program, flag) in [("mkfs.ext4", "-V"), ("python3", "-V"), ("mount", "-V")] {
        if !runs(program, flag) {
            return Some(format!("no {program} here"));
        }
    }
    None
}

/// Whether a program can be started.
pub(crate) fn runs(program: &str, flag: &str) -> bool {
    let mut command = Command::new(program);
    command.arg(flag).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    command.status().is_ok_and(|status| status.success())
}

fn command(words: &[&str]) -> Result<()> {
    let output = Command::new(words[0]).args(&words[1..]).stdin(Stdio::null()).output()?;
    if output.status.success() {
        return Ok(());
    }
    let error = String::from_utf8_lossy(&output.stderr).into_owned();
    Err(format!("{}: {}", words.join(" "), error.trim()).into())
}

/// A mounted file system; unmounted when dropped.
#[derive(Debug)]
pub(crate) struct Disk {
    /// Where it is mounted.
    pub mount: PathBuf,
    /// `None` for a tmpfs.
    image: Option<PathBuf>,
    is_mounted: bool,
}

impl Disk {
    /// A new ext4 in a file in `scratch`.
    pub(crate) fn ext4(scratch: &Path, mib: u64) -> Result<Self> {
        let image = scratch.join("disk.img");
        let mount = scratch.join("disk");
        // A file of a disk before would bring its blocks along.
        let _ = fs::remove_file(&image);
        File::create(&image)?.set_len(mib << 20)?;
        fs::create_dir_all(&mount)?;
        // Few inodes and a small journal make it quickly; without what is done lazily after
        // mounting, which would only add noise.
        command(&[
            "mkfs.ext4",
            "-q",
            "-F",
            "-m",
            "0",
            "-N",
            "4096",
            "-J",
            "size=16",
            "-E",
            "lazy_itable_init=0,lazy_journal_init=0",
            &image.display().to_string(),
        ])?;
        let mut disk = Self { mount, image: Some(image), is_mounted: false };
        disk.mount()?;
        Ok(disk)
    }

    /// A new tmpfs of this size.
    pub(crate) fn tmpfs(scratch: &Path, mib: u64) -> Result<Self> {
        let mount = scratch.join("disk");
        fs::create_dir_all(&mount)?;
        let size = format!("size={mib}m");
        command(&["mount", "-t", "tmpfs", "-o", &size, "tmpfs", &mount.display().to_string()])?;
        Ok(Self { mount, image: None, is_mounted: true })
    }

    /// Mounts it again; the journal is replayed.
    pub(crate) fn mount(&mut self) -> Result<()> {
        let Some(image) = &self.image else { return Err("a tmpfs keeps nothing".into()) };
        let (image, mount) = (image.display().to_string(), self.mount.display().to_string());
        command(&["mount", "-o", "loop", &image, &mount])?;
        self.is_mounted = true;
        Ok(())
    }

    /// Unmounts it; whoever uses it must have ended.
    pub(crate) fn unmount(&mut self) -> Result<()> {
        let mount = self.mount.display().to_string();
        let mut result = Ok(());
        for _ in 0..UNMOUNT_TRIES {
            result = command(&["umount", &mount]);
            if result.is_ok() {
                self.is_mounted = false;
                return Ok(());
            }
            sleep(UNMOUNT_PAUSE);
        }
        result
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        if self.is_mounted {
            let _ = self.unmount();
        }
        if let Some(image) = &self.image {
            let _ = fs::remove_file(image);
        }
    }
}

/// Somebody ready to cut the power of a file system.
#[derive(Debug)]
pub(crate) struct Cutter {
    child: Child,
    input: ChildStdin,
    output: BufReader<std::process::ChildStdout>,
}

impl Cutter {
    /// Gets ready.
    pub(crate) fn new(disk: &Disk) -> Result<Self> {
        let mut child = Command::new("python3")
            .args(["-c", CUTTER])
            .arg(&disk.mount)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()?;
        let input = child.stdin.take().ok_or("no standard input")?;
        let output = BufReader::new(child.stdout.take().ok_or("no standard output")?);
        let mut cutter = Self { child, input, output };
        cutter.expect("ready")?;
        Ok(cutter)
    }

    /// Cuts the power. Returns the moment before: replies received earlier were sent by a server
    /// whose disk still worked.
    pub(crate) fn cut(mut self) -> Result<Instant> {
        let before = Instant::now();
        self.input.write_all(b"cut\n")?;
        self.expect("cut")?;
        Ok(before)
    }

    fn expect(&mut self, word: &str) -> Result<()> {
        let mut line = String::new();
        self.output.read_line(&mut line)?;
        if line.trim() == word { Ok(()) } else { Err("the power cut did not work".into()) }
    }
}

impl Drop for Cutter {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
