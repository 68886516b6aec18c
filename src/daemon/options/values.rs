//! What the value of each option may be, and which setting it becomes.
//!
//! Owns the ranges and their messages. One function per option, in the order of the table in the
//! parent module, which says what the options are called. Never looks at two options together.

use std::ffi::OsStr;
use std::ops::RangeInclusive;
use std::path::PathBuf;

use super::{Draft, Exit, WORKERS_LIMIT};
use crate::server::config::Protocol;

/// A whole number in `range`, or what is wrong with it. memcached takes the digits it finds and
/// nothing as 0 (`-m 1g` is one megabyte there); here a slip is an error.
pub(super) fn whole(flag: &str, value: &OsStr, range: RangeInclusive<i64>) -> Result<i64, String> {
    let (min, max) = (range.start(), range.end());
    let number: i64 =
        value.to_str().and_then(|text| text.trim().parse().ok()).ok_or_else(|| {
            let value = value.display();
            format!("{flag}: \"{value}\" is not a whole number; give one from {min} to {max}")
        })?;
    if range.contains(&number) {
        Ok(number)
    } else {
        Err(format!("{flag}: {number} is out of range; give a number from {min} to {max}"))
    }
}

/// A whole number as memcached reads most of its extended options: the digits at the beginning, 0
/// without any. For options without effect, where a slip does no harm.
pub(super) fn leading_whole(
    flag: &str,
    value: &OsStr,
    range: RangeInclusive<i64>,
) -> Result<i64, String> {
    let text = value.to_string_lossy();
    let text = text.trim();
    let sign = usize::from(text.starts_with(['-', '+']));
    let ends = |(at, letter): (usize, char)| (sign <= at && !letter.is_ascii_digit()).then_some(at);
    let digits = &text[..text.char_indices().find_map(ends).unwrap_or(text.len())];
    match digits.trim_matches(['-', '+']) {
        "" => whole(flag, OsStr::new("0"), range),
        _ => whole(flag, OsStr::new(digits), range),
    }
}

/// A whole number that fits the unsigned type of its setting. The cast cannot fail for a range
/// that is within the type, and every table row has such a range.
pub(super) fn unsigned<T: TryFrom<i64>>(
    flag: &str,
    value: &OsStr,
    range: RangeInclusive<i64>,
) -> Result<T, String> {
    let number = whole(flag, value, range)?;
    T::try_from(number).map_err(|_| format!("{flag}: {number} is out of range"))
}

/// A number above `above` and up to `max`, or what is wrong with it.
pub(super) fn fraction(flag: &str, value: &OsStr, above: f64, max: f64) -> Result<f64, String> {
    let number: Option<f64> = value.to_str().and_then(|text| text.trim().parse().ok());
    match number.filter(|&number| above < number && number <= max) {
        Some(number) => Ok(number),
        None if above == f64::MIN => {
            Err(format!("{flag}: \"{}\" is not a number", value.display()))
        }
        None if max == f64::MAX => {
            let value = value.display();
            Err(format!("{flag}: \"{value}\" is not a number greater than {above}"))
        }
        None => {
            let value = value.display();
            Err(format!("{flag}: \"{value}\" is not a number above {above} and up to {max}"))
        }
    }
}

pub(super) fn path(flag: &str, value: &OsStr) -> Result<PathBuf, Exit> {
    if value.is_empty() {
        return Err(Exit::usage(format!("{flag} needs the path of a file")));
    }
    Ok(PathBuf::from(value))
}

/// The largest count that memcached's `int` settings hold.
pub(super) const COUNT_MAX: i64 = i32::MAX as i64;

// One function per option with a value, in the order of the table

pub(super) fn tcp_port(draft: &mut Draft, value: &OsStr) -> Result<(), Exit> {
    draft.accepted().tcp_port = whole("-p", value, -1..=65535).map_err(Exit::usage)?;
    draft.tcp_port_given = true;
    Ok(())
}

pub(super) fn udp_port(draft: &mut Draft, value: &OsStr) -> Result<(), Exit> {
    draft.accepted().udp_port = whole("-U", value, -1..=65535).map_err(Exit::usage)?;
    Ok(())
}

pub(super) fn unix_socket(draft: &mut Draft, value: &OsStr) -> Result<(), Exit> {
    draft.socket = Some(path("-s", value)?);
    Ok(())
}

pub(super) fn unix_mode(draft: &mut Draft, value: &OsStr) -> Result<(), Exit> {
    let mode = value.to_str().and_then(|text| u32::from_str_radix(text.trim(), 8).ok());
    draft.accepted().unix_mode = mode.filter(|&mode| mode <= 0o777).ok_or_else(|| {
        let value = value.display();
        Exit::usage(format!("-a: \"{value}\" is not an access mode; give octal digits up to 777"))
    })?;
    Ok(())
}

/// Lists add up over several `-l`, as in memcached.
pub(super) fn listen_on(draft: &mut Draft, value: &OsStr) -> Result<(), Exit> {
    let value = value.to_string_lossy();
    let inter = &mut draft.accepted().inter;
    *inter = Some(match inter.take() {
        Some(before) => format!("{before},{value}"),
        None => value.into_owned(),
    });
    Ok(())
}

pub(super) fn user(draft: &mut Draft, value: &OsStr) -> Result<(), Exit> {
    draft.process().user = Some(value.to_string_lossy().into_owned());
    Ok(())
}

/// Megabytes; the suffix of them is let pass, as in memcached, where a gigabyte would be one too.
pub(super) fn memory(draft: &mut Draft, value: &OsStr) -> Result<(), Exit> {
    let text = value.to_string_lossy().trim().to_lowercase();
    let digits = text.trim_end_matches(char::is_alphabetic);
    let megabytes = |digits: &str| -> Result<u64, Exit> {
        unsigned("-m", OsStr::new(digits), 1..=COUNT_MAX)
            .map_err(|why| Exit::usage(format!("{why} (megabytes)")))
    };
    let hint = |megabytes: u64| {
        let value = value.display();
        Err(Exit::usage(format!("-m {value}: the number is of megabytes: -m {megabytes}")))
    };
    let megabytes = match &text[digits.len()..] {
        "" | "m" | "mb" | "mib" => megabytes(digits)?,
        "g" | "gb" | "gib" => return hint(megabytes(digits)?.saturating_mul(1 << 10)),
        "k" | "kb" | "kib" => return hint(megabytes(digits)?.div_ceil(1 << 10)),
        _ => megabytes(&text)?,
    };
    draft.config().memory_bytes_max = megabytes << 20;
    Ok(())
}

pub(super) fn connections(draft: &mut Draft, value: &OsStr) -> Result<(), Exit> {
    draft.config().connections_max = unsigned("-c", value, 1..=COUNT_MAX).map_err(Exit::failure)?;
    Ok(())
}

pub(super) fn pid_file(draft: &mut Draft, value: &OsStr) -> Result<(), Exit> {
    draft.process().pid_file = Some(path("-P", value)?);
    Ok(())
}

pub(super) fn auth_file(draft: &mut Draft, value: &OsStr) -> Result<(), Exit> {
    draft.config().auth_file = Some(path("-Y", value)?);
    Ok(())
}

/// Files are read before flags are; one that names another comes here.
pub(super) fn nested_config(_: &mut Draft, _: &OsStr) -> Result<(), Exit> {
    Err(Exit::usage("--config: only with a file, and only on the command line"))
}

pub(super) fn cluster_file(draft: &mut Draft, value: &OsStr) -> Result<(), Exit> {
    draft.config().cluster_file = Some(path("--cluster-file", value)?);
    Ok(())
}

pub(super) fn growth_factor(draft: &mut Draft, value: &OsStr) -> Result<(), Exit> {
    draft.unused("-f");
    draft.accepted().growth_factor = fraction("-f", value, 1.0, f64::MAX).map_err(Exit::failure)?;
    Ok(())
}

pub(super) fn chunk_size(draft: &mut Draft, value: &OsStr) -> Result<(), Exit> {
    draft.unused("-n");
    draft.accepted().chunk_size = unsigned("-n", value, 1..=COUNT_MAX).map_err(Exit::failure)?;
    Ok(())
}

pub(super) fn prefix_delimiter(draft: &mut Draft, value: &OsStr) -> Result<(), Exit> {
    let first = value
        .as_encoded_bytes()
        .first()
        .ok_or_else(|| Exit::failure("-D: no delimiter given; name one character, as in -D :"))?;
    draft.config().prefix_delimiter = *first;
    draft.config().detail = true;
    Ok(())
}

pub(super) fn workers(draft: &mut Draft, value: &OsStr) -> Result<(), Exit> {
    let max = i64::try_from(WORKERS_LIMIT).unwrap_or(i64::MAX);
    let workers = unsigned("-t", value, 1..=max).map_err(Exit::failure)?;
    draft.config().workers = workers;
    draft.workers_given = Some(workers);
    Ok(())
}

pub(super) fn requests_per_turn(draft: &mut Draft, value: &OsStr) -> Result<(), Exit> {
    draft.config().requests_per_turn_max =
        unsigned("-R", value, 1..=COUNT_MAX).map_err(Exit::failure)?;
    Ok(())
}

pub(super) fn backlog(draft: &mut Draft, value: &OsStr) -> Result<(), Exit> {
    draft.config().backlog = unsigned("-b", value, 0..=COUNT_MAX).map_err(Exit::usage)?;
    Ok(())
}

pub(super) fn protocol(draft: &mut Draft, value: &OsStr) -> Result<(), Exit> {
    let name = value.to_string_lossy();
    draft.protocol_given = true;
    draft.config().protocol = match &*name {
        "auto" => Protocol::Either,
        "ascii" => Protocol::Text,
        "binary" => Protocol::Binary,
        _ => {
            return Err(Exit::usage(format!(
                "Invalid value for binding protocol: {name}; give -B ascii, binary or auto"
            )));
        }
    };
    Ok(())
}

/// Bytes, or kilobytes and megabytes with a suffix. The limits are checked with `-m` at the end.
pub(super) fn item_bytes(draft: &mut Draft, value: &OsStr) -> Result<(), Exit> {
    const SUFFIXES: [(char, i64); 4] =
        [('k', 1 << 10), ('K', 1 << 10), ('m', 1 << 20), ('M', 1 << 20)];
    let text = value.to_string_lossy();
    let text = text.trim();
    let suffixed =
        SUFFIXES.iter().find_map(|&(suffix, unit)| Some((text.strip_suffix(suffix)?, unit)));
    let (digits, unit) = suffixed.unwrap_or((text, 1));
    let count = whole("-I", OsStr::new(digits), 0..=COUNT_MAX)
        .map_err(|why| Exit::usage(format!("{why}, of bytes or with the suffix k or m")))?;
    let bytes = count.saturating_mul(unit);
    // Too large for the type is too large for memcached by far; `Config::check` says it best.
    draft.config().item_bytes_max = u32::try_from(bytes).unwrap_or(u32::MAX);
    Ok(())
}

/// Where memcached keeps items; here a directory beside it has them.
pub(super) fn memory_file(draft: &mut Draft, value: &OsStr) -> Result<(), Exit> {
    draft.memory_file = Some(path("-e", value)?);
    Ok(())
}

pub(super) fn napi_ids(draft: &mut Draft, value: &OsStr) -> Result<(), Exit> {
    draft.unused("-N");
    draft.napi_ids = unsigned("-N", value, 1..=COUNT_MAX).map_err(Exit::failure)?;
    Ok(())
}
