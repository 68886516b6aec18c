//! Keys that all have one FxHash64, and what they cost a server. Owns their construction and the
//! comparison with as many random keys of the same length.
//!
//! FxHash takes a key in words of eight bytes: `hash = (rotate(hash, 5) ^ word) * odd`. Another bit
//! 63 in a word changes bit 63 of the product and nothing else, for the factor is odd; rotated it
//! is bit 4, where another bit 4 in the next word takes it away again. So each pair of words yields
//! two keys of equal hash, whatever the seed is.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use hdrhistogram::Histogram;

use super::attacks::dial;
use crate::random::Random;
use crate::{Result, median};

/// Bytes of a key: thirty words.
pub const KEY_BYTES: usize = 240;
const WORD_BYTES: usize = 8;
const PAIRS: usize = KEY_BYTES / WORD_BYTES / 2;
/// Commands written before their replies are read.
const BATCH: usize = 32;
const VALUE: &[u8] = b"01234567";
const TIMEOUT: Duration = Duration::from_secs(20);

/// Key `number` of `2^PAIRS`: bit `i` says whether pair `i` of its words is the other one.
pub fn colliding_key(number: usize) -> Vec<u8> {
    let mut key = vec![b'a'; KEY_BYTES];
    for pair in 0..PAIRS {
        if number >> pair & 1 == 1 {
            let at = pair * 2 * WORD_BYTES;
            // Words are little-endian: bit 63 is the top bit of the last byte.
            key[at + WORD_BYTES - 1] ^= 0x80;
            key[at + WORD_BYTES] ^= 0x10;
        }
    }
    key
}

fn random_key(random: &mut Random) -> Vec<u8> {
    (0..KEY_BYTES).map(|_| b'a' + random.below(26) as u8).collect()
}

/// What a set of keys came to in one round.
#[derive(Clone, Copy, Debug)]
pub struct Cost {
    /// Sets and gets per second.
    pub rate: f64,
    /// Microseconds that 99 of 100 batches stayed within.
    pub p99_us: f64,
}

/// Medians over rounds.
#[derive(Clone, Copy, Debug)]
pub struct Comparison {
    /// Keys with one hash.
    pub colliding: Cost,
    /// Keys like any.
    pub random: Cost,
}

/// Sets and gets `count` keys of both kinds in turn.
pub fn compare(address: SocketAddr, count: usize, rounds: usize, seed: u64) -> Result<Comparison> {
    let mut random = Random::new(seed);
    let kinds = [
        (0..count.min(1 << PAIRS)).map(colliding_key).collect::<Vec<_>>(),
        (0..count.min(1 << PAIRS)).map(|_| random_key(&mut random)).collect(),
    ];
    let mut stream = dial(address)?;
    stream.set_read_timeout(Some(TIMEOUT))?;
    let mut costs = [Vec::new(), Vec::new()];
    for _ in 0..rounds {
        for (keys, costs) in kinds.iter().zip(&mut costs) {
            costs.push(one_round(&mut stream, keys)?);
        }
    }
    let [colliding, random] = costs.map(|costs: Vec<Cost>| Cost {
        rate: median(costs.iter().map(|cost| cost.rate)),
        p99_us: median(costs.iter().map(|cost| cost.p99_us)),
    });
    Ok(Comparison { colliding, random })
}

fn one_round(stream: &mut TcpStream, keys: &[Vec<u8>]) -> Result<Cost> {
    let mut times = Histogram::<u64>::new_with_max(60_000_000_000, 3)?;
    let (mut request, mut expected) = (Vec::new(), Vec::new());
    let begin = Instant::now();
    for is_get in [false, true] {
        for batch in keys.chunks(BATCH) {
            request.clear();
            expected.clear();
            batch.iter().for_each(|key| push(key, is_get, &mut request, &mut expected));
            let sent = Instant::now();
            stream.write_all(&request)?;
            let mut reply = vec![0; expected.len()];
            stream.read_exact(&mut reply)?;
            if reply != expected {
                return Err("a key has a wrong value, or none".into());
            }
            times.saturating_record(sent.elapsed().as_nanos() as u64);
        }
    }
    let rate = 2.0 * keys.len() as f64 / begin.elapsed().as_secs_f64();
    Ok(Cost { rate, p99_us: times.value_at_percentile(99.0) as f64 / 1e3 })
}

fn push(key: &[u8], is_get: bool, request: &mut Vec<u8>, expected: &mut Vec<u8>) {
    let parts: [&[u8]; 5] = match is_get {
        true => [b"get ", key, b"\r\n", b"", b""],
        false => [b"set ", key, b" 0 0 8\r\n", VALUE, b"\r\n"],
    };
    request.extend(parts.concat());
    let parts: [&[u8]; 5] = match is_get {
        true => [b"VALUE ", key, b" 0 8\r\n", VALUE, b"\r\nEND\r\n"],
        false => [b"STORED\r\n", b"", b"", b"", b""],
    };
    expected.extend(parts.concat());
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn all_keys_are_distinct_valid_and_have_one_hash() {
        let keys: Vec<Vec<u8>> = (0..1 << PAIRS).map(colliding_key).collect();
        let hash = fxhash::hash64(&keys[0]);
        assert!(keys.iter().all(|key| fxhash::hash64(key) == hash), "not one hash");
        // As text, which hashers end with a byte more.
        let one = keys.iter().map(|key| fxhash::hash64(&key[..])).collect::<HashSet<_>>();
        assert_eq!(one.len(), 1);
        assert!(keys.iter().flatten().all(|byte| *byte > b' ' && *byte != 0x7f));
        assert!(keys.iter().all(|key| key.len() == KEY_BYTES));
        assert_eq!(keys.iter().collect::<HashSet<_>>().len(), 32_768);
    }

    #[test]
    fn other_bits_do_not_collide() {
        let mut key = colliding_key(0);
        key[WORD_BYTES - 1] ^= 0x80;
        assert_ne!(fxhash::hash64(&key), fxhash::hash64(&colliding_key(0)));
    }

    #[test]
    fn random_keys_have_many_hashes() {
        let mut random = Random::new(1);
        let hashes: HashSet<u64> =
            (0..1000).map(|_| fxhash::hash64(&random_key(&mut random))).collect();
        assert_eq!(hashes.len(), 1000);
    }
}
