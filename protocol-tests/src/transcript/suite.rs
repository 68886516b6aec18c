//! Plays the whole folder `transcripts`, each file to a fresh server, several at a time.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

use super::Transcript;
use super::chunking::Cuts;
use super::parse::parse;
use super::replay::{Bursts, replay};
use crate::flags::ServerFlags;
use crate::target::Target;

/// Servers at a time: most of the time goes into starting them and into transcripts that sleep.
const WORKERS: usize = 4;

/// The folder of transcripts of this crate.
#[must_use]
pub fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("transcripts")
}

/// Reads every transcript, in the order of their names.
///
/// # Errors
/// A file cannot be read or parsed.
pub fn load_all() -> Result<Vec<Transcript>, String> {
    let folder = folder();
    let entries =
        fs::read_dir(&folder).map_err(|error| format!("{}: {error}", folder.display()))?;
    let mut files: Vec<PathBuf> = entries.filter_map(|entry| Some(entry.ok()?.path())).collect();
    files.retain(|file| file.extension().is_some_and(|extension| extension == "txt"));
    files.sort();
    files.iter().map(|file| load(file)).collect()
}

/// Reads one transcript.
///
/// # Errors
/// The file cannot be read or parsed.
pub fn load(file: &Path) -> Result<Transcript, String> {
    let text = fs::read_to_string(file).map_err(|error| format!("{}: {error}", file.display()))?;
    let name = file.file_stem().unwrap_or_default().to_string_lossy();
    parse(&name, &text)
}

/// Plays `transcripts` to servers made by `start`. Returns how many were played, or every failure.
///
/// # Errors
/// One text per transcript that failed.
pub fn play_all(
    transcripts: &[Transcript],
    start: impl Fn(&ServerFlags) -> io::Result<Target> + Sync,
    bursts: Bursts,
    cuts: Cuts,
) -> Result<usize, Vec<String>> {
    let next = AtomicUsize::new(0);
    let played = AtomicUsize::new(0);
    let failures = Mutex::new(Vec::new());
    let work = || {
        while let Some(transcript) = transcripts.get(next.fetch_add(1, Ordering::Relaxed)) {
            match play(transcript, &start, bursts, cuts) {
                Ok(was_played) => {
                    played.fetch_add(usize::from(was_played), Ordering::Relaxed);
                }
                Err(message) => failures.lock().unwrap_or_else(|it| it.into_inner()).push(message),
            }
        }
    };
    thread::scope(|scope| {
        for _ in 0..WORKERS {
            scope.spawn(work);
        }
    });
    let failures = failures.into_inner().unwrap_or_else(|it| it.into_inner());
    if failures.is_empty() { Ok(played.into_inner()) } else { Err(failures) }
}

/// False: the transcript does not apply to this server.
fn play(
    transcript: &Transcript,
    start: &impl Fn(&ServerFlags) -> io::Result<Target>,
    bursts: Bursts,
    cuts: Cuts,
) -> Result<bool, String> {
    let target = start(&transcript.flags)
        .map_err(|error| format!("{}: no server: {error}", transcript.name))?;
    if !transcript.applies_to(target.identity()) {
        return Ok(false);
    }
    replay(transcript, &target, bursts, cuts).map_err(|failure| failure.to_string())?;
    Ok(true)
}
