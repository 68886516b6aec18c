//! Values: from serde's types to bytes with flags and back, in the ways other clients write theirs.
//! No I/O.
//!
//! **Every value comes back as it was, or is refused when it is stored.** Three questions decide:
//!
//! *Which values are plain?* A string (or `char`), an integer, and a row of bytes: a sequence or
//! tuple whose elements are `u8` and nothing else, such as `Vec<u8>` and `[u8; N]`, or what
//! serializes as bytes. A newtype is what it wraps. Plain values are stored as every client stores
//! them, so that others read them, `incr` counts and `append` appends. Booleans and floats are
//! plain where the family has a form of its own for them (PHP, Java). `sniff` finds this out by
//! looking on while the value serializes: nothing else is known of it.
//!
//! *What are all others?* `Some` and `None`, units, structs, enums, maps and other sequences are
//! written whole in the encoding's format: JSON or postcard, with the flags of that. So `None` is
//! never the text `null`, and a float in postcard has the width of its type. What the format would
//! lose is refused (`strict`): NaN, infinities, `Some(None)` and more than 127 levels in JSON,
//! skipped fields in postcard. An empty sequence is an empty row of bytes, whatever its elements:
//! none of them is there to show.
//!
//! *How does a reader tell?* First by the flags. Bytes without flags are what they look like
//! (`Family::unmarked`), and a value that looks like something else gets a mark when it is written.
//! Then the type asked for decides (`plain`): `u32` takes digits, `String` and `Vec<u8>` take what
//! is there, `Option` takes both, and an untagged enum or `serde_json::Value`, which takes what
//! comes, is told a string, a number or a row. If the type can make nothing of plain bytes they are
//! read as JSON: other programs store it without a mark.
//!
//! What this cannot help are types that do not read what they themselves wrote: an untagged enum
//! whose earlier variant takes what a later one wrote, or holds an `i128`, which serde has no place
//! for there.

mod codec;
mod compress;
mod encoding;
mod flags;
mod plain;
mod sniff;
mod strict;

pub use codec::{AnyCodec, Codec, Source, Target};
pub use encoding::{Compression, Encoding, Family, Format};
