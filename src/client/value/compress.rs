//! Compression of values, as each family's clients do it. Owns their layouts; no choice of what is
//! compressed beyond what the settings say.

use crate::client::error::Error;
use crate::client::value::encoding::{Compression, Encoding, Family, wrong};
use crate::client::value::flags::{java, php, python};
use flate2::read::{GzDecoder, ZlibDecoder};
use flate2::write::{GzEncoder, ZlibEncoder};
use std::borrow::Cow;
use std::io::{Read, Write};

/// Bytes that php-memcached puts before a compressed value: how long it was.
const PHP_LENGTH_BYTES: usize = 4;

impl Encoding {
    /// Compresses a value if the settings say so and if it becomes smaller.
    pub(super) fn compress(&self, bytes: Vec<u8>, flags: u32) -> Result<(Vec<u8>, u32), Error> {
        let failed = |error: std::io::Error| wrong(format!("cannot be compressed: {error}"));
        let (packed, flag) = match self.compression {
            Compression::Zlib { bytes_min } if bytes.len() >= bytes_min => match self.family {
                Family::Spymemcached => (gzip(&bytes).map_err(failed)?, java::GZIP),
                Family::Php => (
                    with_length(&bytes, zlib(&bytes).map_err(failed)?),
                    php::COMPRESSED | php::ZLIB,
                ),
                _ => (zlib(&bytes).map_err(failed)?, python::ZLIB),
            },
            #[cfg(feature = "zstd")]
            Compression::Zstd { bytes_min } if bytes.len() >= bytes_min => {
                let packed = || zstd::bulk::compress(&bytes, 0).map_err(failed);
                match self.family {
                    Family::Plain => (packed()?, python::ZSTD),
                    Family::Php => (with_length(&bytes, packed()?), php::COMPRESSED | php::ZSTD),
                    _ => return Ok((bytes, flags)),
                }
            }
            _ => return Ok((bytes, flags)),
        };
        Ok(if packed.len() < bytes.len() { (packed, flags | flag) } else { (bytes, flags) })
    }

    /// The bytes without their compression.
    pub(super) fn unpack<'a>(&self, bytes: &'a [u8], flags: u32) -> Result<Cow<'a, [u8]>, Error> {
        let has = |flag| flags & flag != 0;
        match self.family {
            Family::Plain | Family::Python if has(python::ZLIB) => {
                self.read_all(ZlibDecoder::new(bytes))
            }
            Family::Plain | Family::Python if has(python::ZSTD) => self.unzstd(bytes),
            Family::Spymemcached if has(java::GZIP) => self.read_all(GzDecoder::new(bytes)),
            Family::Php if has(php::COMPRESSED) => {
                let packed = bytes.get(PHP_LENGTH_BYTES..);
                let packed = packed.ok_or_else(|| wrong("a compressed value cut short"))?;
                if has(php::ZLIB) {
                    self.read_all(ZlibDecoder::new(packed))
                } else if has(php::ZSTD) {
                    self.unzstd(packed)
                } else {
                    Err(wrong("compressed with fastlz; set memcached.compression_type=zlib in PHP"))
                }
            }
            _ => Ok(Cow::Borrowed(bytes)),
        }
    }

    fn read_all(&self, reader: impl Read) -> Result<Cow<'static, [u8]>, Error> {
        let mut out = Vec::new();
        let limit = self.decompressed_bytes_max as u64;
        let read = reader.take(limit.saturating_add(1)).read_to_end(&mut out);
        read.map_err(|error| wrong(format!("cannot be decompressed: {error}")))?;
        if out.len() > self.decompressed_bytes_max {
            return Err(wrong("decompresses to more than decompressed_bytes_max"));
        }
        Ok(Cow::Owned(out))
    }

    #[cfg(feature = "zstd")]
    fn unzstd(&self, bytes: &[u8]) -> Result<Cow<'static, [u8]>, Error> {
        let reader = zstd::stream::read::Decoder::new(bytes);
        self.read_all(reader.map_err(|error| wrong(format!("cannot be decompressed: {error}")))?)
    }

    #[cfg(not(feature = "zstd"))]
    fn unzstd(&self, _bytes: &[u8]) -> Result<Cow<'static, [u8]>, Error> {
        Err(wrong("compressed with zstd; build with the feature `zstd`"))
    }
}

fn zlib(bytes: &[u8]) -> std::io::Result<Vec<u8>> {
    let mut encoder = ZlibEncoder::new(Vec::new(), flate2::Compression::default());
    encoder.write_all(bytes)?;
    encoder.finish()
}

fn gzip(bytes: &[u8]) -> std::io::Result<Vec<u8>> {
    let mut encoder = GzEncoder::new(Vec::new(), flate2::Compression::default());
    encoder.write_all(bytes)?;
    encoder.finish()
}

/// php-memcached puts the length before the compressed bytes, as the machine stores it.
fn with_length(bytes: &[u8], packed: Vec<u8>) -> Vec<u8> {
    [&(bytes.len() as u32).to_le_bytes()[..], &packed].concat()
}
