//! Which keys exist and what their keys, values and lifetimes look like. Owns the mapping from a
//! key's number to its bytes; never chooses the next key and keeps no state per key.
//!
//! Everything about an item is computed from its number (its id), so that any thread, any run and
//! the simulator agree without sharing anything, and a reply can be checked without remembering
//! what was stored:
//!
//! ```text
//! key    "k" '0'* id in decimal                 padded to the key's length
//! value  stamp (8 bytes, mixed from the id) + a slice of one shared random pattern
//! ```
//! The stamp differs between any two ids, so another key's value is always noticed (unless values
//! are shorter than 8 bytes); the slice, also placed by the id, notices bytes lost or moved.
//! Zero-padded numbers are deliberate: they are what defeats a weak hash function.

use std::str::FromStr;

use crate::Result;
use crate::production::Production;
use crate::random::{Random, mix, scale};

/// Longest key the protocol allows.
pub const KEY_BYTES_MAX: usize = 250;
/// Longest value this generator makes.
pub const VALUE_BYTES_MAX: usize = 16 << 20;

const STAMP_BYTES: usize = 8;
const PATTERN_OFFSETS: u64 = 64 << 10;

// Salts keep the properties of one key independent of each other.
const SALT_KEY_SIZE: u64 = 0x6b65_795f_7369_7a65;
const SALT_VALUE_SIZE: u64 = 0x7661_6c5f_7369_7a65;
const SALT_VALUE: u64 = 0x7661_6c75_655f_5f5f;
const SALT_LIFETIME: u64 = 0x6c69_6665_7469_6d65;

/// A distribution of sizes in bytes.
#[derive(Clone, Debug, PartialEq)]
pub enum Sizes {
    /// Always the same.
    Fixed(usize),
    /// Each size from `low` to `high`, both included, equally likely.
    Uniform(usize, usize),
    /// 40 % of 16 to 100 bytes, 40 % of 100 to 500, 20 % of 500 to 2000.
    Mixed,
    /// Size of key and value together: log-normal, at most 1000, mean 302. For values only.
    LogNormal(Vec<u16>),
    /// As in a production cache. For values only.
    Production(&'static Production),
}

impl Sizes {
    /// Upper limit of key and value together under `LogNormal`.
    const LOG_NORMAL_MAX: f64 = 1000.0;
    /// Median and shape chosen so that the mean of the capped sizes is 302.
    const LOG_NORMAL_MEDIAN: f64 = 191.6;
    const LOG_NORMAL_SIGMA: f64 = 1.15;
    const LOG_NORMAL_MIN: f64 = 30.0;
    const LOG_NORMAL_DRAWS: usize = 4096;

    /// The capped log-normal distribution, held as a fixed sample of 4096 sizes: drawing from it
    /// is one look-up where a logarithm and a cosine per request would slow the generator down.
    pub fn log_normal() -> Self {
        let mut random = Random::new(0);
        let draw = |random: &mut Random| {
            // Box and Muller's transform of two uniform numbers to one normal.
            let radius = (-2.0 * (1.0 - random.unit()).ln()).sqrt();
            let normal = radius * (std::f64::consts::TAU * random.unit()).cos();
            let size = Self::LOG_NORMAL_MEDIAN * (Self::LOG_NORMAL_SIGMA * normal).exp();
            size.clamp(Self::LOG_NORMAL_MIN, Self::LOG_NORMAL_MAX) as u16
        };
        Self::LogNormal((0..Self::LOG_NORMAL_DRAWS).map(|_| draw(&mut random)).collect())
    }

    /// The size that `bits`, 64 random bits, stand for.
    #[inline]
    fn of(&self, bits: u64) -> usize {
        match self {
            Self::Fixed(size) => *size,
            Self::Uniform(low, high) => low + scale(bits, (high - low + 1) as u64) as usize,
            Self::Mixed => {
                let (low, high) = match scale(bits, 10) {
                    0..4 => (16, 100),
                    4..8 => (100, 500),
                    _ => (500, 2000),
                };
                Self::Uniform(low, high).of(mix(bits))
            }
            Self::Production(cache) => cache.size(bits),
            Self::LogNormal(sample) => {
                usize::from(sample[scale(bits, sample.len() as u64) as usize])
            }
        }
    }

    fn max(&self) -> usize {
        match self {
            Self::Fixed(size) => *size,
            Self::Uniform(_, high) => *high,
            Self::Mixed => 2000,
            Self::Production(cache) => cache.size_max(),
            Self::LogNormal(_) => Self::LOG_NORMAL_MAX as usize,
        }
    }
}

impl FromStr for Sizes {
    type Err = String;

    /// `32`, `100-300`, `mixed` or `lognormal`.
    fn from_str(text: &str) -> std::result::Result<Self, String> {
        let number = |digits: &str| {
            digits.parse::<usize>().map_err(|e| format!("size \"{digits}\" in \"{text}\": {e}"))
        };
        match text {
            "mixed" => Ok(Self::Mixed),
            "lognormal" => Ok(Self::log_normal()),
            _ => match text.split_once('-') {
                None => Ok(Self::Fixed(number(text)?)),
                Some((low, high)) => {
                    let (low, high) = (number(low)?, number(high)?);
                    if low > high {
                        return Err(format!("sizes \"{text}\" run backwards"));
                    }
                    Ok(Self::Uniform(low, high))
                }
            },
        }
    }
}

/// How long values live.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lifetimes {
    /// Until evicted.
    Forever,
    /// Half the keys until evicted, the other half 2 to 10 seconds.
    HalfShort,
}

/// The set of all keys and their values.
#[derive(Clone, Debug)]
pub struct Population {
    keys: u64,
    key_sizes: Sizes,
    value_sizes: Sizes,
    lifetimes: Lifetimes,
    pattern: Vec<u8>,
}

impl Population {
    /// `keys` keys with ids `0..keys`. Ids from `keys` on are valid too and stand for keys outside
    /// the set: misses, and keys asked for once.
    pub fn new(keys: u64, key_sizes: Sizes, value_sizes: Sizes) -> Result<Self> {
        if !(1..=u64::from(u32::MAX)).contains(&keys) {
            return Err(format!("{keys} keys: must be 1 to {}", u32::MAX).into());
        }
        let key_min = match key_sizes {
            Sizes::Fixed(size) | Sizes::Uniform(size, _) => size,
            _ => return Err("key sizes are a number or a range".into()),
        };
        // One letter and the digits of the largest id, with room for ids outside the set.
        let key_bytes_min = 2 + keys.ilog10() as usize + 1;
        if key_min < key_bytes_min || key_sizes.max() > KEY_BYTES_MAX {
            return Err(format!(
                "keys must be {key_bytes_min} to {KEY_BYTES_MAX} bytes for {keys} keys"
            )
            .into());
        }
        if value_sizes.max() > VALUE_BYTES_MAX {
            return Err(format!("values can be at most {VALUE_BYTES_MAX} bytes").into());
        }
        let mut random = Random::new(0);
        let pattern_bytes = PATTERN_OFFSETS as usize + value_sizes.max();
        let pattern = (0..pattern_bytes).map(|_| random.bits() as u8).collect();
        Ok(Self { keys, key_sizes, value_sizes, lifetimes: Lifetimes::Forever, pattern })
    }

    /// The same population with other lifetimes.
    pub fn with_lifetimes(self, lifetimes: Lifetimes) -> Self {
        Self { lifetimes, ..self }
    }

    /// Number of keys in the set.
    pub fn keys(&self) -> u64 {
        self.keys
    }

    /// Length of the key with this id.
    #[inline]
    pub fn key_bytes(&self, id: u64) -> usize {
        self.key_sizes.of(mix(id ^ SALT_KEY_SIZE))
    }

    /// Length of its value.
    #[inline]
    pub fn value_bytes(&self, id: u64) -> usize {
        let size = self.value_sizes.of(mix(id ^ SALT_VALUE_SIZE));
        match self.value_sizes {
            Sizes::LogNormal(_) => size.saturating_sub(self.key_bytes(id)).max(1),
            _ => size,
        }
    }

    /// Seconds that its value lives; zero is forever.
    #[inline]
    pub fn lifetime_seconds(&self, id: u64) -> u32 {
        match self.lifetimes {
            Lifetimes::Forever => 0,
            Lifetimes::HalfShort => match scale(mix(id ^ SALT_LIFETIME), 18) {
                short @ 0..9 => 2 + short as u32,
                _ => 0,
            },
        }
    }

    /// Appends the key to `out`.
    #[inline]
    pub fn push_key(&self, id: u64, out: &mut Vec<u8>) {
        let start = out.len();
        let end = start + self.key_bytes(id);
        out.resize(end, b'0');
        out[start] = b'k';
        let mut rest = id;
        let mut position = end;
        while rest > 0 {
            position -= 1;
            out[position] = b'0' + (rest % 10) as u8;
            rest /= 10;
        }
        assert!(position > start, "id {id} does not fit a key of {} bytes", end - start);
    }

    /// The id in a key made by `push_key`.
    #[inline]
    pub fn id_of(key: &[u8]) -> Option<u64> {
        let digits = key.strip_prefix(b"k")?;
        digits.iter().try_fold(0_u64, |id, &digit| {
            let digit = digit.wrapping_sub(b'0');
            (digit < 10).then(|| id.wrapping_mul(10).wrapping_add(u64::from(digit)))
        })
    }

    /// Appends the value to `out`.
    #[inline]
    pub fn push_value(&self, id: u64, out: &mut Vec<u8>) {
        let (stamp, rest) = self.value_parts(id);
        out.extend_from_slice(&stamp[..STAMP_BYTES.min(self.value_bytes(id))]);
        out.extend_from_slice(rest);
    }

    /// Whether `value` is the one `push_value` makes.
    #[inline]
    pub fn is_value(&self, id: u64, value: &[u8]) -> bool {
        let (stamp, rest) = self.value_parts(id);
        let split = STAMP_BYTES.min(self.value_bytes(id));
        value.len() == split + rest.len()
            && value[..split] == stamp[..split]
            && value[split..] == *rest
    }

    #[inline]
    fn value_parts(&self, id: u64) -> ([u8; STAMP_BYTES], &[u8]) {
        let stamp = mix(id ^ SALT_VALUE);
        let offset = (stamp % PATTERN_OFFSETS) as usize;
        let length = self.value_bytes(id).saturating_sub(STAMP_BYTES);
        (stamp.to_le_bytes(), &self.pattern[offset..offset + length])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sizes(text: &str) -> Sizes {
        text.parse().expect("a size")
    }

    #[test]
    fn sizes_parse_or_say_why_not() {
        assert_eq!(sizes("32"), Sizes::Fixed(32));
        assert_eq!(sizes("100-300"), Sizes::Uniform(100, 300));
        for wrong in ["", "x", "300-100", "1-", "-1"] {
            assert!(wrong.parse::<Sizes>().is_err(), "{wrong}");
        }
    }

    #[test]
    fn keys_have_their_length_and_give_their_id_back() {
        let population = Population::new(1_000_000, sizes("16-40"), sizes("32")).unwrap();
        for id in [0, 1, 9, 10, 123_456, 999_999, 1_999_999] {
            let mut key = Vec::new();
            population.push_key(id, &mut key);
            assert_eq!(key.len(), population.key_bytes(id));
            assert_eq!(Population::id_of(&key), Some(id));
        }
        assert_eq!(Population::id_of(b"x01"), None);
        assert_eq!(Population::id_of(b"k0:"), None);
    }

    #[test]
    fn values_verify_only_for_their_own_key() {
        for text in ["1", "7", "8", "32", "100-300", "4096", "lognormal", "mixed"] {
            let population = Population::new(1000, sizes("16"), sizes(text)).unwrap();
            for id in 0..200 {
                let mut value = Vec::new();
                population.push_value(id, &mut value);
                assert_eq!(value.len(), population.value_bytes(id));
                assert!(population.is_value(id, &value));
                if value.len() >= 8 {
                    assert!(!population.is_value(id + 1, &value));
                }
                let last = value.len() - 1;
                value[last] ^= 1;
                assert!(!population.is_value(id, &value));
                assert!(!population.is_value(id, &value[..last]));
            }
        }
    }

    #[test]
    fn log_normal_has_the_published_mean_and_cap() {
        let population = Population::new(100_000, sizes("24"), sizes("lognormal")).unwrap();
        let total = |id| population.key_bytes(id) + population.value_bytes(id);
        let mean = (0..100_000).map(total).sum::<usize>() as f64 / 100_000.0;
        assert!((mean - 302.0).abs() < 4.0, "mean {mean}");
        assert_eq!((0..100_000).map(total).max(), Some(1000));
    }

    #[test]
    fn half_the_keys_live_two_to_ten_seconds() {
        let population = Population::new(1000, sizes("16"), sizes("32"))
            .unwrap()
            .with_lifetimes(Lifetimes::HalfShort);
        let lives: Vec<u32> = (0..10_000).map(|id| population.lifetime_seconds(id)).collect();
        let forever = lives.iter().filter(|&&seconds| seconds == 0).count();
        assert!((4_800..5_200).contains(&forever), "{forever}");
        assert!(lives.iter().all(|&seconds| seconds == 0 || (2..=10).contains(&seconds)));
    }

    #[test]
    fn impossible_populations_are_refused() {
        assert!(Population::new(0, sizes("16"), sizes("32")).is_err());
        assert!(Population::new(1_000_000, sizes("6"), sizes("32")).is_err());
        assert!(Population::new(1000, sizes("251"), sizes("32")).is_err());
        assert!(Population::new(1000, sizes("mixed"), sizes("32")).is_err());
    }
}
