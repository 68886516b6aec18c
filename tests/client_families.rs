//! Values of other languages' clients. Goal: what pymemcache, pylibmc, python-memcached,
//! php-memcached and spymemcached store is read, and what is written in their ways is what they
//! would have stored. Method: `vectors/families.txt` holds, for each client, what it stored for the
//! same table of values (frozen from the clients themselves, see
//! `protocol-tests/clients/families`). CI has the living clients read and write again.

#![cfg(feature = "client")]

use distcache::client::{Compression, Encoding, Error, Family};
use serde::Serialize;
use serde::de::DeserializeOwned;
use std::fmt::Debug;

/// One line: whose, which value, flags, bytes.
struct Stored {
    family: Family,
    name: String,
    flags: u32,
    bytes: Vec<u8>,
}

fn vectors() -> Vec<Stored> {
    let parse = |line: &str| {
        let words: Vec<&str> = line.split(' ').collect();
        let hex = words[3].trim_matches('-');
        let byte = |at: usize| u8::from_str_radix(&hex[at..at + 2], 16).unwrap();
        Stored {
            family: match words[0] {
                "php" => Family::Php,
                "spymemcached" => Family::Spymemcached,
                _ => Family::Python,
            },
            name: words[1].into(),
            flags: words[2].parse().unwrap(),
            bytes: (0..hex.len()).step_by(2).map(byte).collect(),
        }
    };
    include_str!("vectors/families.txt").lines().map(parse).collect()
}

fn encoding(family: Family) -> Encoding {
    Encoding { family, compression: Compression::Zlib { bytes_min: 2000 }, ..Encoding::default() }
}

/// Reads one stored value, and checks that writing it again says the same.
fn check<T: DeserializeOwned + Serialize + PartialEq + Debug>(stored: &Stored, expected: T) {
    let Stored { family, name, flags, bytes } = stored;
    let encoding = encoding(*family);
    let read: T = encoding.decode(bytes, *flags).unwrap_or_else(|error| panic!("{name}: {error}"));
    assert_eq!(read, expected, "{family:?} {name}");
    // The default family reads Python's values too.
    if *family == Family::Python {
        assert_eq!(Encoding::default().decode::<T>(bytes, *flags), Ok(expected));
    }
    let (written, written_flags) = encoding.encode(&read).unwrap();
    // pylibmc marks integers as long; other compressors give other bytes.
    if name != "long" {
        assert_eq!(&written, bytes, "{family:?} {name}");
    }
    if *flags != 4 {
        assert_eq!(written_flags, *flags, "{family:?} {name}");
    }
    assert_eq!(encoding.decode::<T>(&written, written_flags), Ok(read));
}

#[test]
fn values_of_other_clients_are_read_and_written_alike() {
    let vectors = vectors();
    assert_eq!(vectors.len(), 3 * 10 + 14 + 15);
    for stored in &vectors {
        match stored.name.as_str() {
            "ascii" => check(stored, "football".to_owned()),
            "text" => check(stored, "Pel\u{e9}".to_owned()),
            "empty" => check(stored, String::new()),
            "digits" => check(stored, "42".to_owned()),
            "infinite" => check(stored, f64::INFINITY),
            "ascii_bytes" => check(stored, b"football".to_vec()),
            "integer" => check(stored, 42i32),
            "negative" => check(stored, -7i32),
            "large" => check(stored, 9_007_199_254_740_993i64),
            // PHP has one type for text and bytes.
            "bytes" => check(stored, vec![0u8, 255, 13, 10]),
            "long" => check(stored, "x".repeat(5000)),
            "float" => check(stored, 1.5f64),
            "small_float" => check(stored, 1.5f32),
            "true" => check(stored, true),
            "false" => check(stored, false),
            "list" => check(stored, (1, "a".to_owned(), None::<bool>)),
            other => panic!("{other}"),
        }
    }
}

#[test]
fn values_of_another_language_alone_are_refused() {
    for (family, flags, bytes) in [
        (Family::Plain, 1, &b"\x80\x04K\x01."[..]),
        (Family::Plain, 0x4000_0000, b"x"),
        (Family::Python, 1, b"\x80\x04K\x01."),
        (Family::Python, 8, b"no zlib"),
        (Family::Php, 4, b"a:0:{}"),
        (Family::Php, 5, b"igbinary"),
        (Family::Php, 16 | 64, b"\x05\0\0\0fastlz"),
        (Family::Php, 16 | 32, b"\x05"),
        (Family::Spymemcached, 1, b"\xac\xed\0\x05"),
        (Family::Spymemcached, 0x300, b"123456789"),
        (Family::Spymemcached, 2, b"no gzip"),
    ] {
        let read = encoding(family).decode::<String>(bytes, flags);
        assert!(matches!(read, Err(Error::Value(_))), "{family:?} {flags}: {read:?}");
    }
}

#[test]
fn a_small_value_cannot_become_a_huge_one() {
    let limited = Encoding { decompressed_bytes_max: 4999, ..encoding(Family::Python) };
    let (bytes, flags) = encoding(Family::Python).encode(&"x".repeat(5000)).unwrap();
    assert!(matches!(limited.decode::<String>(&bytes, flags), Err(Error::Value(_))));
}
