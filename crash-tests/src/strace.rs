//! strace as the one who breaks system calls. Owns the command lines and the reading of its
//! output. `-D` makes strace a grandchild, so that the process started is the server itself.
//!
//! strace counts calls for each thread: "the third" is the third of any thread.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

use crate::Result;
use crate::disk::runs;

const ATTACH_TIME_MAX: Duration = Duration::from_secs(5);

/// Interruptions in a row, where other errors last for ever.
const INTERRUPTIONS: u32 = 9;

/// Whether strace is there.
pub(crate) fn works() -> bool {
    runs("strace", "-V")
}

fn words(line: &str) -> Vec<String> {
    line.split_whitespace().map(str::to_owned).collect()
}

/// Kills the server at the K-th call of a thread. The call itself is not made.
pub(crate) fn kill_at(call: &str, number: u32) -> Vec<String> {
    words(&format!(
        "strace -D -f -qq -o /dev/null -e trace={call} -e signal=none \
         -e inject={call}:error=EIO:signal=KILL:when={number} --"
    ))
}

/// Records calls with the paths of their files.
pub(crate) fn record(calls: &str, output: &Path) -> Vec<String> {
    let output = output.display();
    words(&format!("strace -D -f -qq -ttt -y -s 0 -o {output} -e trace={calls} -e signal=none --"))
}

/// Makes calls on these paths fail. `forever`: this one and all after it.
pub(crate) fn fail(
    call: &str,
    error: &str,
    number: u32,
    forever: bool,
    paths: &BTreeSet<String>,
    output: &Path,
) -> Vec<String> {
    let output = output.display();
    let more = match (forever, error) {
        (false, _) => String::new(),
        // A call that is interrupted is made again; for ever would be the fault of the rig.
        (true, "EINTR") => format!("..{}", number + INTERRUPTIONS),
        (true, _) => "+".to_owned(),
    };
    let mut command = words(&format!(
        "strace -D -f -qq -ttt -y -s 0 -o {output} -e trace={call} -e signal=none \
         -e inject={call}:error={error}:when={number}{more}"
    ));
    for path in paths {
        command.extend(["-P".to_owned(), path.clone()]);
    }
    command.push("--".to_owned());
    command
}

/// A strace that is attached to a server; waited for when dropped, so the server must have ended.
#[derive(Debug)]
pub(crate) struct Attached(Child);

impl Drop for Attached {
    fn drop(&mut self) {
        let _ = self.0.wait();
    }
}

/// Attaches to a running server what [`fail`] would have started.
pub(crate) fn attach(words: Vec<String>, pid: u32) -> Result<Attached> {
    let words = words.iter().skip(1).filter(|word| !["-D", "--"].contains(&word.as_str()));
    let child = Command::new("strace")
        .args(words)
        .args(["-p", &pid.to_string()])
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()?;
    let mut attached = Attached(child);
    let begin = Instant::now();
    while begin.elapsed() < ATTACH_TIME_MAX {
        if let Some(status) = attached.0.try_wait()? {
            return Err(format!("strace -p {pid}: {status}").into());
        }
        if is_traced(pid) {
            return Ok(attached);
        }
        sleep(Duration::from_millis(2));
    }
    attached.0.kill()?;
    Err(format!("strace does not attach to {pid}").into())
}

/// Whether every thread of a process is traced.
fn is_traced(pid: u32) -> bool {
    let Ok(threads) = fs::read_dir(format!("/proc/{pid}/task")) else { return false };
    threads.flatten().all(|thread| {
        let status = fs::read_to_string(thread.path().join("status")).unwrap_or_default();
        let tracer = status.lines().find_map(|line| line.strip_prefix("TracerPid:"));
        tracer.is_some_and(|tracer| tracer.trim() != "0")
    })
}

/// Delays the return of calls.
pub(crate) fn delay(call: &str, delay: Duration) -> Vec<String> {
    let micros = delay.as_micros();
    words(&format!(
        "strace -D -f -qq -o /dev/null -e trace={call} -e signal=none \
         -e inject={call}:delay_exit={micros} --"
    ))
}

/// All paths below `directory` in what strace wrote.
pub(crate) fn paths(text: &str, directory: &Path) -> BTreeSet<String> {
    let directory = directory.display().to_string();
    let mut found = BTreeSet::new();
    for (at, _) in text.match_indices(&directory) {
        let path: String =
            text[at..].chars().take_while(|letter| !"\">,) ".contains(*letter)).collect();
        found.insert(path);
    }
    found
}

/// A call that was made to fail.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Injected {
    /// Unix time.
    pub at_s: f64,
    /// The rest of the line: the call with the path of its file.
    pub call: String,
}

/// The calls that were made to fail, in the order of strace's output.
pub(crate) fn injected(text: &str) -> Vec<Injected> {
    // A call during which another thread made one is told in two lines; the first has the path.
    let mut unfinished: BTreeMap<&str, &str> = BTreeMap::new();
    let mut found = Vec::new();
    for line in text.lines() {
        let mut words = line.trim_start().splitn(2, char::is_whitespace);
        let (Some(pid), Some(rest)) = (words.next(), words.next()) else { continue };
        let Some((at, call)) = rest.trim_start().split_once(char::is_whitespace) else { continue };
        if call.ends_with("<unfinished ...>") {
            unfinished.insert(pid, call);
        }
        if !call.contains("(INJECTED)") {
            continue;
        }
        let call = if call.starts_with("<...") { unfinished.get(pid) } else { Some(&call) };
        let call = call.copied().unwrap_or_default().to_owned();
        if let Ok(at_s) = at.parse() {
            found.push(Injected { at_s, call });
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = "\
812 1700000000.250000 openat(AT_FDCWD</tmp>, \"/d/data/log-0-1\", O_RDWR) = 5</d/data/log-0-1>
813 1700000000.500000 fdatasync(5</d/data/log-0-1>) = -1 EIO (Input/output error) (INJECTED)
814 1700000000.600000 fsync(6</d/data/log-1-1> <unfinished ...>
813 1700000000.700000 fsync(5</d/data/log-0-1>) = 0
814 1700000000.800000 <... fsync resumed>) = -1 EIO (Input/output error) (INJECTED)
813 1700000001.500000 rename(\"/d/data/a.tmp\", \"/d/data/a\") = 0
";

    #[test]
    fn what_strace_says() {
        let names: Vec<_> = paths(TEXT, Path::new("/d/data")).into_iter().collect();
        assert_eq!(names, ["/d/data/a", "/d/data/a.tmp", "/d/data/log-0-1", "/d/data/log-1-1"]);
        let injected = injected(TEXT);
        assert_eq!(injected.len(), 2);
        assert_eq!(injected[0].at_s, 1_700_000_000.5);
        assert!(injected[0].call.starts_with("fdatasync(5</d/data/log-0-1>"));
        assert!(injected[1].call.starts_with("fsync(6</d/data/log-1-1>"));
    }
}
