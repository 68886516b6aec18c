//! Values for other languages' clients: what `clients/families` reads, and a check of what it
//! wrote.
//!
//!     family_values write HOST:PORT    stores the table for each family, keys like rust:php:text
//!     family_values read HOST:PORT     reads what the clients stored, keys like php:text

use distcache::client::{Client, Compression, Config, Encoding, Error, Family};
use serde::Serialize;
use serde::de::DeserializeOwned;
use std::fmt::Debug;
use std::process::ExitCode;

/// Writes one value, or reads it and compares.
struct Table<'a> {
    client: &'a Client,
    prefix: &'a str,
    writes: bool,
    count: u32,
}

impl Table<'_> {
    fn row<T>(&mut self, name: &str, value: T) -> Result<(), Error>
    where
        T: Serialize + DeserializeOwned + PartialEq + Debug,
    {
        let key = format!("{}:{name}", self.prefix);
        self.count += 1;
        if self.writes {
            return self.client.set(&key, value);
        }
        match self.client.get::<T>(&key)? {
            Some(found) if found == value => Ok(()),
            found => Err(Error::Value(format!("{key}: {found:?} instead of {value:?}"))),
        }
    }

    fn rows(&mut self, family: Family) -> Result<(), Error> {
        self.row("ascii", "football".to_owned())?;
        self.row("text", "Pel\u{e9}".to_owned())?;
        self.row("empty", String::new())?;
        self.row("integer", 42)?;
        self.row("negative", -7)?;
        self.row("large", 9_007_199_254_740_993u64)?;
        self.row("bytes", vec![0u8, 255, 13, 10])?;
        self.row("digits", "42".to_owned())?;
        self.row("long", "x".repeat(5000))?;
        // PHP has one type for text and bytes, Python's clients pickle floats and booleans.
        if family != Family::Php {
            self.row("ascii_bytes", b"football".to_vec())?;
        }
        if family != Family::Python {
            self.row("float", 1.5)?;
            self.row("infinite", f64::INFINITY)?;
            self.row("true", true)?;
            self.row("false", false)?;
        }
        match family {
            Family::Php => self.row("list", (1, "a".to_owned(), None::<u8>))?,
            Family::Spymemcached => self.row("small_float", 1.5f32)?,
            _ => {}
        }
        Ok(())
    }
}

fn run(mode: &str, address: &str) -> Result<(), Error> {
    let writes = mode == "write";
    let python: &[&str] =
        if writes { &["python"] } else { &["pymemcache", "pylibmc", "python-memcached"] };
    let java: &[&str] = if writes { &["java"] } else { &["spymemcached"] };
    let families =
        [(Family::Python, python), (Family::Php, &["php"]), (Family::Spymemcached, java)];
    for (family, names) in families {
        let compression = Compression::Zlib { bytes_min: 400 };
        let codec = Encoding { family, compression, ..Encoding::default() }.into();
        let client = Client::with_config([address], Config { codec, ..Config::default() })?;
        for name in names {
            let prefix = if writes { format!("rust:{name}") } else { (*name).to_owned() };
            let mut table = Table { client: &client, prefix: &prefix, writes, count: 0 };
            table.rows(family)?;
            println!("{prefix}: {} values {}", table.count, if writes { "stored" } else { "read" });
        }
    }
    Ok(())
}

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [mode, address] = arguments.as_slice() else {
        eprintln!("family_values write|read HOST:PORT");
        return ExitCode::from(64);
    };
    match run(mode, address) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("family_values: {error}");
            ExitCode::FAILURE
        }
    }
}
