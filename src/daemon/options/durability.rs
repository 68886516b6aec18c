//! The options that memcached does not have: where data is kept, and how safely.
//!
//! Owns their values; what they mean is in `crate::durable`.

use super::{Draft, Exit};
use crate::durable::{Fsync, OnLogError, Recover};
use crate::server::config::DurabilityConfig;
use std::ffi::OsStr;
use std::path::{Path, PathBuf};

/// Less would have a snapshot taken all the time.
const LOG_BYTES_MAX_MIN: u64 = 64 << 20;

/// What has been read of these options so far.
#[derive(Default)]
pub(super) struct DurabilityDraft {
    settings: DurabilityConfig,
    directory: Option<PathBuf>,
    /// One of those that need `--data-dir`.
    given: Option<&'static str>,
}

impl DurabilityDraft {
    /// Keeps the data in a directory beside a file of this name, which it answers, unless another
    /// directory was named. Such files are often in memory, so the log takes no more than items
    /// may, unless it was said how much.
    pub(super) fn keep_beside(&mut self, file: &Path, memory_bytes_max: u64) -> Option<PathBuf> {
        if self.directory.is_some() {
            return None;
        }
        if self.settings.log_bytes_max == 0 {
            self.settings.log_bytes_max = memory_bytes_max.max(LOG_BYTES_MAX_MIN);
        }
        let mut directory = file.as_os_str().to_owned();
        directory.push(".data");
        let directory = PathBuf::from(directory);
        self.directory = Some(directory.clone());
        Some(directory)
    }

    /// The settings, if a directory was named; else the option that has no effect without one.
    pub(super) fn finish(self) -> Result<Option<DurabilityConfig>, &'static str> {
        match (self.directory, self.given) {
            (Some(directory), _) => Ok(Some(DurabilityConfig { directory, ..self.settings })),
            (None, Some(option)) => Err(option),
            (None, None) => Ok(None),
        }
    }
}

/// `--data-dir`
pub(super) fn data_dir(draft: &mut Draft, value: &OsStr) -> Result<(), Exit> {
    if value.is_empty() {
        return Err(Exit::usage("--data-dir: name a directory"));
    }
    draft.durability.directory = Some(PathBuf::from(value));
    Ok(())
}

/// `--fsync`
pub(super) fn fsync(draft: &mut Draft, value: &OsStr) -> Result<(), Exit> {
    let modes = [("always", Fsync::Always), ("everysec", Fsync::EverySecond), ("no", Fsync::No)];
    draft.durability.settings.fsync = choose("--fsync", &modes, value)?;
    draft.durability.given = Some("--fsync");
    Ok(())
}

/// `--snapshot-interval`
pub(super) fn snapshot_interval(draft: &mut Draft, value: &OsStr) -> Result<(), Exit> {
    let seconds = value.to_str().and_then(|text| text.parse::<u32>().ok());
    let Some(seconds) = seconds else {
        let value = value.display();
        return Err(Exit::usage(format!(
            "--snapshot-interval: {value:?} is not a number of seconds; 0 takes snapshots only \
             when asked"
        )));
    };
    draft.durability.settings.snapshot_interval_seconds = seconds;
    draft.durability.given = Some("--snapshot-interval");
    Ok(())
}

/// `--snapshot-growth`
pub(super) fn snapshot_growth(draft: &mut Draft, value: &OsStr) -> Result<(), Exit> {
    let percent = value.to_str().and_then(|text| text.parse::<u32>().ok());
    let Some(percent) = percent.filter(|percent| *percent <= 1000) else {
        let value = value.display();
        return Err(Exit::usage(format!(
            "--snapshot-growth: {value:?} is not a number of percent, up to 1000"
        )));
    };
    draft.durability.settings.snapshot_growth_percent = percent;
    draft.durability.given = Some("--snapshot-growth");
    Ok(())
}

/// `--snapshot-bytes-per-second`
pub(super) fn snapshot_rate(draft: &mut Draft, value: &OsStr) -> Result<(), Exit> {
    let bytes = bytes("--snapshot-bytes-per-second", value)?;
    draft.durability.settings.snapshot_bytes_per_second = bytes;
    draft.durability.given = Some("--snapshot-bytes-per-second");
    Ok(())
}

/// `--snapshot-on-exit`
pub(super) fn snapshot_on_exit(draft: &mut Draft) {
    draft.durability.settings.snapshot_on_exit = true;
    draft.durability.given = Some("--snapshot-on-exit");
}

/// `--log-bytes-max`
pub(super) fn log_bytes_max(draft: &mut Draft, value: &OsStr) -> Result<(), Exit> {
    let bytes = bytes("--log-bytes-max", value)?;
    if bytes != 0 && bytes < LOG_BYTES_MAX_MIN {
        return Err(Exit::usage(format!(
            "--log-bytes-max: at least {} megabytes, or 0 for what the memory limit gives",
            LOG_BYTES_MAX_MIN >> 20
        )));
    }
    draft.durability.settings.log_bytes_max = bytes;
    draft.durability.given = Some("--log-bytes-max");
    Ok(())
}

/// A number of bytes, with the suffix k, m or g if they are many.
fn bytes(option: &str, value: &OsStr) -> Result<u64, Exit> {
    let text = value.to_string_lossy().to_lowercase();
    let units = [('k', 10), ('m', 20), ('g', 30)];
    let unit = units.iter().find_map(|(name, bits)| Some((text.strip_suffix(*name)?, *bits)));
    let (digits, bits) = unit.unwrap_or((&text, 0));
    let count = digits.parse::<u64>().ok().and_then(|count| count.checked_mul(1 << bits));
    count.ok_or_else(|| {
        let what = "is not a number of bytes, with or without the suffix k, m or g";
        Exit::usage(format!("{option}: {:?} {what}", value.display()))
    })
}

/// `--recover`
pub(super) fn recover(draft: &mut Draft, value: &OsStr) -> Result<(), Exit> {
    let modes =
        [("strict", Recover::Strict), ("salvage", Recover::Salvage), ("discard", Recover::Discard)];
    draft.durability.settings.recover = choose("--recover", &modes, value)?;
    draft.durability.given = Some("--recover");
    Ok(())
}

/// `--on-log-error`
pub(super) fn on_log_error(draft: &mut Draft, value: &OsStr) -> Result<(), Exit> {
    let modes =
        [("exit", OnLogError::Exit), ("refuse", OnLogError::Refuse), ("serve", OnLogError::Serve)];
    draft.durability.settings.on_log_error = choose("--on-log-error", &modes, value)?;
    draft.durability.given = Some("--on-log-error");
    Ok(())
}

fn choose<T: Copy>(option: &str, modes: &[(&str, T)], value: &OsStr) -> Result<T, Exit> {
    let found = modes.iter().find(|(name, _)| value == *name);
    found.map(|(_, mode)| *mode).ok_or_else(|| {
        let names: Vec<&str> = modes.iter().map(|(name, _)| *name).collect();
        Exit::usage(format!("{option}: {:?} is none of {}", value.display(), names.join(", ")))
    })
}
