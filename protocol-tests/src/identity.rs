//! Which server answers, and the tags by which transcripts and rules select some of them.
//!
//! Owns the order of memcached's versions. Never talks to a server.

use std::fmt;
use std::str::FromStr;

/// The server behind a socket.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Identity {
    /// The server under test.
    Distcached,
    /// The oracle, in one of its versions.
    Memcached(Version),
}

impl Identity {
    /// True for memcached older than `version`.
    #[must_use]
    pub fn is_memcached_before(self, version: Version) -> bool {
        matches!(self, Self::Memcached(own) if own < version)
    }

    /// True for memcached of `version` or newer.
    #[must_use]
    pub fn is_memcached_since(self, version: Version) -> bool {
        matches!(self, Self::Memcached(own) if version <= own)
    }
}

impl fmt::Display for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Distcached => write!(f, "distcached"),
            Self::Memcached(version) => write!(f, "memcached {version}"),
        }
    }
}

/// A released version: `1.6.45` is `Version([1, 6, 45])`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Version(pub [u32; 3]);

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self([major, minor, patch]) = self;
        write!(f, "{major}.{minor}.{patch}")
    }
}

impl FromStr for Version {
    type Err = String;

    /// Reads `1.6.45`; what follows the third number (`_2-gabcdef` of a build between releases) is
    /// ignored.
    fn from_str(text: &str) -> Result<Self, String> {
        let mut numbers = [0_u32; 3];
        let mut parts = text.split('.');
        for number in &mut numbers {
            let part = parts.next().unwrap_or_default();
            let digits: String = part.chars().take_while(char::is_ascii_digit).collect();
            *number = digits.parse().map_err(|_| format!("not a version: {text:?}"))?;
        }
        Ok(Self(numbers))
    }
}

/// Selects servers: `distcached`, `memcached`, `memcached<1.6.40`, `memcached>=1.6.40`,
/// `memcached=1.6.18`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Tag {
    /// Only the server under test.
    Distcached,
    /// Every memcached.
    Memcached,
    /// Every memcached older than this.
    MemcachedBefore(Version),
    /// Every memcached of this version or newer.
    MemcachedSince(Version),
    /// This memcached alone.
    MemcachedExactly(Version),
}

impl Tag {
    /// Whether the tag selects `identity`.
    #[must_use]
    pub fn selects(self, identity: Identity) -> bool {
        match (self, identity) {
            (Self::Distcached, Identity::Distcached)
            | (Self::Memcached, Identity::Memcached(_)) => true,
            (Self::MemcachedBefore(version), _) => identity.is_memcached_before(version),
            (Self::MemcachedSince(version), _) => identity.is_memcached_since(version),
            (Self::MemcachedExactly(version), Identity::Memcached(own)) => own == version,
            _ => false,
        }
    }
}

impl FromStr for Tag {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text.strip_prefix("memcached") {
            None if text == "distcached" => Ok(Self::Distcached),
            None => Err(format!("unknown server {text:?}")),
            Some("") => Ok(Self::Memcached),
            Some(rest) => {
                if let Some(version) = rest.strip_prefix(">=") {
                    Ok(Self::MemcachedSince(version.parse()?))
                } else if let Some(version) = rest.strip_prefix('<') {
                    Ok(Self::MemcachedBefore(version.parse()?))
                } else if let Some(version) = rest.strip_prefix('=') {
                    Ok(Self::MemcachedExactly(version.parse()?))
                } else {
                    Err(format!("expected <, >= or = after memcached, found {rest:?}"))
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HEAD: Identity = Identity::Memcached(Version([1, 6, 45]));
    const DEBIAN: Identity = Identity::Memcached(Version([1, 6, 18]));

    #[test]
    fn tags_select_servers() {
        let check = |tag: &str, selected: [bool; 3]| {
            let tag: Tag = tag.parse().unwrap();
            assert_eq!([Identity::Distcached, HEAD, DEBIAN].map(|it| tag.selects(it)), selected);
        };
        check("distcached", [true, false, false]);
        check("memcached", [false, true, true]);
        check("memcached<1.6.40", [false, false, true]);
        check("memcached>=1.6.40", [false, true, false]);
        check("memcached=1.6.18", [false, false, true]);
    }

    #[test]
    fn wrong_tags_are_refused() {
        for tag in ["", "redis", "memcached~1.6.40", "memcached<1.6", "memcached=x"] {
            assert!(tag.parse::<Tag>().is_err(), "{tag}");
        }
    }
}
