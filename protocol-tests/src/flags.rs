//! Server flags named by a transcript, as arguments of a binary and as a `Config`.
//!
//! Understands only flags that transcripts use; anything else is refused so that a typo does not
//! silently test the default. Never starts anything.

use distcache::server::config::Config;

/// Flags in memcached's notation: `-I 1k -F`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ServerFlags {
    arguments: Vec<String>,
}

impl ServerFlags {
    /// Splits and checks a line of flags.
    ///
    /// # Errors
    /// Names the flag that is not known.
    pub fn parse(line: &str) -> Result<Self, String> {
        let flags = Self { arguments: line.split_whitespace().map(str::to_owned).collect() };
        flags.apply(&mut Config::default())?;
        Ok(flags)
    }

    /// The flags as arguments of a server's binary.
    #[must_use]
    pub fn arguments(&self) -> &[String] {
        &self.arguments
    }

    /// The flags as settings of an embedded server.
    ///
    /// # Errors
    /// Names the flag that is not known.
    pub fn apply(&self, config: &mut Config) -> Result<(), String> {
        let mut words = self.arguments.iter().map(String::as_str);
        while let Some(flag) = words.next() {
            if apply_switch(flag, config) {
                continue;
            }
            let value = words.next().ok_or_else(|| format!("unknown flag {flag}"))?;
            apply_value(flag, value, config)?;
        }
        Ok(())
    }
}

/// Flags without a value. False: not one of them.
fn apply_switch(flag: &str, config: &mut Config) -> bool {
    match flag {
        "-A" => config.shutdown = true,
        "-C" => config.cas = false,
        "-F" => config.flush = false,
        "-M" => config.evict = false,
        "-W" => config.watch = false,
        "-X" => config.dump = false,
        _ => return false,
    }
    true
}

fn apply_value(flag: &str, value: &str, config: &mut Config) -> Result<(), String> {
    let bad = |_| format!("bad value {value:?} for {flag}");
    match flag {
        "-c" => config.connections_max = value.parse().map_err(bad)?,
        "-D" => {
            config.prefix_delimiter = *value.as_bytes().first().ok_or("empty -D")?;
            config.detail = true;
        }
        "-I" => config.item_bytes_max = parse_size(value)?,
        "-m" => config.memory_bytes_max = value.parse::<u64>().map_err(bad)? << 20,
        "-R" => config.requests_per_turn_max = value.parse().map_err(bad)?,
        "-t" => config.workers = value.parse().map_err(bad)?,
        "-o" => apply_extended(value, config)?,
        _ => return Err(format!("unknown flag {flag}")),
    }
    Ok(())
}

fn apply_extended(option: &str, config: &mut Config) -> Result<(), String> {
    match option.split_once('=') {
        // memcached needs it for an -I below 512k; distcached has no chunks.
        Some(("slab_chunk_max", _)) => {}
        Some(("idle_timeout", seconds)) => {
            let bad = |_| format!("bad idle_timeout {seconds:?}");
            config.idle_timeout_seconds = seconds.parse().map_err(bad)?;
        }
        None if option == "no_maxconns_fast" => config.connections_refuse_fast = false,
        // Threads of memcached that distcached does not have. While they look at an item, incr
        // copies it instead of writing it in place, and the padding of its value differs.
        None if matches!(option, "no_lru_maintainer" | "no_lru_crawler") => {}
        _ => return Err(format!("unknown option -o {option}")),
    }
    Ok(())
}

/// Bytes, with memcached's suffixes `k` and `m`.
fn parse_size(text: &str) -> Result<u32, String> {
    let (digits, unit) = match text.as_bytes().last() {
        Some(b'k' | b'K') => (&text[..text.len() - 1], 1 << 10),
        Some(b'm' | b'M') => (&text[..text.len() - 1], 1 << 20),
        _ => (text, 1),
    };
    let number: u32 = digits.parse().map_err(|_| format!("bad size {text:?}"))?;
    number.checked_mul(unit).ok_or_else(|| format!("size too large: {text:?}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn flags_become_settings() {
        let mut config = Config::default();
        let flags = ServerFlags::parse("-I 2k -F -o idle_timeout=1 -c 8").unwrap();
        flags.apply(&mut config).unwrap();
        assert_eq!(config.item_bytes_max, 2048);
        assert!(!config.flush);
        assert_eq!(config.idle_timeout_seconds, 1);
        assert_eq!(config.connections_max, 8);
        assert_eq!(flags.arguments().len(), 7);
    }

    #[test]
    fn unknown_flags_are_refused() {
        for line in ["-z", "--foo 1", "-I", "-I x", "-o nothing", "-I 99999m"] {
            assert!(ServerFlags::parse(line).is_err(), "{line}");
        }
    }
}
