//! Hashes of keys, as the clients hash that place keys on a ring. Owns the arithmetic only.
//!
//! Each is bit for bit what libhashkit (libmemcached) and twemproxy compute on x86, where a C
//! `char` is signed: a byte above 0x7f enters some of them as a number with all upper bits set.
//! `tests/client_ring.rs` compares them with values frozen from libhashkit.

use md5::{Digest, Md5};

/// How a key becomes a number on the ring.
///
/// ```
/// use distcache::client::KeyHash;
///
/// assert_eq!(KeyHash::Md5.hash(b"foo"), 0xdb18bdac);
/// assert_eq!("fnv1a_64".parse::<KeyHash>(), Ok(KeyHash::Fnv1a64));
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum KeyHash {
    /// Bob Jenkins' one at a time: libmemcached's default.
    OneAtATime,
    /// The first four bytes of the MD5 digest: what "ketama compatible" settings choose.
    Md5,
    /// CRC-16 (XMODEM); twemproxy only.
    Crc16,
    /// 15 bits of a CRC-32, as old memcached clients used it.
    Crc32,
    /// The whole CRC-32; twemproxy's `crc32a`.
    Crc32a,
    /// FNV-1, 64 bits, cut to 32.
    Fnv1_64,
    /// FNV-1a with the 64-bit constants cut to 32 bits: twemproxy's default.
    Fnv1a64,
    /// FNV-1, 32 bits.
    Fnv1_32,
    /// FNV-1a, 32 bits.
    Fnv1a32,
    /// Paul Hsieh's SuperFastHash.
    Hsieh,
    /// MurmurHash2.
    Murmur,
    /// Bob Jenkins' lookup3.
    Jenkins,
}

impl KeyHash {
    /// All of them, with the names twemproxy's configuration gives them.
    pub const ALL: [(&'static str, Self); 12] = [
        ("one_at_a_time", Self::OneAtATime),
        ("md5", Self::Md5),
        ("crc16", Self::Crc16),
        ("crc32", Self::Crc32),
        ("crc32a", Self::Crc32a),
        ("fnv1_64", Self::Fnv1_64),
        ("fnv1a_64", Self::Fnv1a64),
        ("fnv1_32", Self::Fnv1_32),
        ("fnv1a_32", Self::Fnv1a32),
        ("hsieh", Self::Hsieh),
        ("murmur", Self::Murmur),
        ("jenkins", Self::Jenkins),
    ];

    /// The hash of a key.
    pub fn hash(self, key: &[u8]) -> u32 {
        match self {
            Self::OneAtATime => one_at_a_time(key),
            Self::Md5 => md5_points(key)[0],
            Self::Crc16 => crc16(key),
            Self::Crc32 => (crc32(key) >> 16) & 0x7fff,
            Self::Crc32a => crc32(key),
            Self::Fnv1_64 => key.iter().fold(0xcbf2_9ce4_8422_2325u64, |hash, byte| {
                hash.wrapping_mul(0x0100_0000_01b3) ^ u64::from(signed(*byte))
            }) as u32,
            Self::Fnv1a64 => fnv1a(key, 0x8422_2325, 0x0000_01b3),
            Self::Fnv1_32 => key.iter().fold(2_166_136_261, |hash: u32, byte| {
                hash.wrapping_mul(16_777_619) ^ signed(*byte)
            }),
            Self::Fnv1a32 => fnv1a(key, 2_166_136_261, 16_777_619),
            Self::Hsieh => hsieh(key),
            Self::Murmur => murmur(key),
            Self::Jenkins => jenkins(key),
        }
    }
}

impl std::str::FromStr for KeyHash {
    type Err = String;

    fn from_str(name: &str) -> Result<Self, String> {
        let found = Self::ALL.iter().find(|(known, _)| *known == name);
        found.map(|(_, hash)| *hash).ok_or_else(|| {
            let names: Vec<&str> = Self::ALL.iter().map(|(name, _)| *name).collect();
            format!("{name:?} is no hash: one of {}", names.join(", "))
        })
    }
}

/// The four numbers that one MD5 digest makes, each of four bytes, the lowest first.
pub(in crate::client) fn md5_points(text: &[u8]) -> [u32; 4] {
    let digest: [u8; 16] = Md5::digest(text).into();
    [0, 4, 8, 12]
        .map(|at| u32::from_le_bytes([digest[at], digest[at + 1], digest[at + 2], digest[at + 3]]))
}

/// A C `char` as C widens it.
fn signed(byte: u8) -> u32 {
    i32::from(byte as i8) as u32
}

fn fnv1a(key: &[u8], start: u32, prime: u32) -> u32 {
    key.iter().fold(start, |hash, byte| (hash ^ signed(*byte)).wrapping_mul(prime))
}

fn one_at_a_time(key: &[u8]) -> u32 {
    let mut hash = 0u32;
    for byte in key {
        hash = hash.wrapping_add(signed(*byte));
        hash = hash.wrapping_add(hash << 10);
        hash ^= hash >> 6;
    }
    hash = hash.wrapping_add(hash << 3);
    hash ^= hash >> 11;
    hash.wrapping_add(hash << 15)
}

/// The polynomial 0x1021, highest bit first. twemproxy keeps the bits that are shifted out at the
/// top.
fn crc16(key: &[u8]) -> u32 {
    key.iter().fold(0u32, |crc, byte| {
        let mut remainder = (((crc >> 8) as u8) ^ byte).into();
        remainder = (0..8).fold(remainder << 8, |rest: u32, _| {
            (rest << 1) ^ (if rest & 0x8000 != 0 { 0x1021 } else { 0 })
        });
        (crc << 8) ^ (remainder & 0xffff)
    })
}

/// The polynomial 0xedb88320, lowest bit first.
fn crc32(key: &[u8]) -> u32 {
    !key.iter().fold(u32::MAX, |crc, byte| {
        (0..8).fold(crc ^ u32::from(*byte), |rest, _| {
            (rest >> 1) ^ (if rest & 1 != 0 { 0xedb8_8320 } else { 0 })
        })
    })
}

fn hsieh(key: &[u8]) -> u32 {
    let pair = |bytes: &[u8]| u32::from(u16::from_le_bytes([bytes[0], bytes[1]]));
    let mut hash = 0u32;
    let mut words = key.chunks_exact(4);
    for word in words.by_ref() {
        hash = hash.wrapping_add(pair(word));
        hash = (hash << 16) ^ ((pair(&word[2..]) << 11) ^ hash);
        hash = hash.wrapping_add(hash >> 11);
    }
    match words.remainder() {
        rest @ [_, _, last] => {
            hash = hash.wrapping_add(pair(rest));
            hash ^= hash << 16;
            hash ^= signed(*last) << 18;
            hash = hash.wrapping_add(hash >> 11);
        }
        rest @ [_, _] => {
            hash = hash.wrapping_add(pair(rest));
            hash ^= hash << 11;
            hash = hash.wrapping_add(hash >> 17);
        }
        [last] => {
            hash = hash.wrapping_add(u32::from(*last));
            hash ^= hash << 10;
            hash = hash.wrapping_add(hash >> 1);
        }
        _ => {}
    }
    hash ^= hash << 3;
    hash = hash.wrapping_add(hash >> 5);
    hash ^= hash << 4;
    hash = hash.wrapping_add(hash >> 17);
    hash ^= hash << 25;
    hash.wrapping_add(hash >> 6)
}

fn murmur(key: &[u8]) -> u32 {
    const M: u32 = 0x5bd1_e995;
    let length = key.len() as u32;
    let mut hash = 0xdead_beefu32.wrapping_mul(length) ^ length;
    let mut words = key.chunks_exact(4);
    for word in words.by_ref() {
        let mut part = u32::from_le_bytes([word[0], word[1], word[2], word[3]]).wrapping_mul(M);
        part = (part ^ (part >> 24)).wrapping_mul(M);
        hash = hash.wrapping_mul(M) ^ part;
    }
    let rest = words.remainder();
    if !rest.is_empty() {
        hash ^= little_endian(rest);
        hash = hash.wrapping_mul(M);
    }
    hash = (hash ^ (hash >> 13)).wrapping_mul(M);
    hash ^ (hash >> 15)
}

/// Up to four bytes as a number, the lowest first.
fn little_endian(bytes: &[u8]) -> u32 {
    bytes.iter().rev().fold(0, |number, byte| (number << 8) | u32::from(*byte))
}

fn jenkins(key: &[u8]) -> u32 {
    const SEED: u32 = 13;
    let start = 0xdead_beefu32.wrapping_add(key.len() as u32).wrapping_add(SEED);
    let (mut a, mut b, mut c) = (start, start, start);
    let mut rest = key;
    let add = |a: &mut u32, b: &mut u32, c: &mut u32, block: &[u8]| {
        for (word, bytes) in [a, b, c].into_iter().zip(block.chunks(4)) {
            *word = word.wrapping_add(little_endian(bytes));
        }
    };
    while rest.len() > 12 {
        add(&mut a, &mut b, &mut c, &rest[..12]);
        jenkins_mix(&mut a, &mut b, &mut c);
        rest = &rest[12..];
    }
    if rest.is_empty() {
        return c;
    }
    add(&mut a, &mut b, &mut c, rest);
    let step = |to: &mut u32, from: u32, bits: u32| {
        *to = (*to ^ from).wrapping_sub(from.rotate_left(bits));
    };
    step(&mut c, b, 14);
    step(&mut a, c, 11);
    step(&mut b, a, 25);
    step(&mut c, b, 16);
    step(&mut a, c, 4);
    step(&mut b, a, 14);
    step(&mut c, b, 24);
    c
}

fn jenkins_mix(a: &mut u32, b: &mut u32, c: &mut u32) {
    let step = |x: &mut u32, y: &mut u32, z: u32, bits: u32| {
        *x = x.wrapping_sub(*y) ^ y.rotate_left(bits);
        *y = y.wrapping_add(z);
    };
    step(a, c, *b, 4);
    step(b, a, *c, 6);
    step(c, b, *a, 8);
    step(a, c, *b, 16);
    step(b, a, *c, 19);
    step(c, b, *a, 4);
}
