//! The flags beside a value, by which clients tell what it is. Owns the numbers only.

/// Bits of the flags as Python's clients use them, and this one in [`Family::Plain`].
///
/// [`Family::Plain`]: crate::client::Family::Plain
pub(super) mod python {
    pub(crate) const PICKLE: u32 = 1;
    pub(crate) const INTEGER: u32 = 2;
    pub(crate) const LONG: u32 = 4;
    pub(crate) const ZLIB: u32 = 8;
    pub(crate) const TEXT: u32 = 16;
    pub(crate) const ZSTD: u32 = 32;
    /// How a value is compressed, beside what it is.
    pub(crate) const COMPRESSED: u32 = ZLIB | ZSTD;
}

/// Bits of our own. Every client reads past them: Python's look for `TEXT` first, PHP leaves the
/// upper half to programs, Java looks at bits 0, 1 and 8 to 15. (python-memcached alone refuses
/// what has neither `TEXT` nor another bit it knows.)
pub(super) mod ours {
    pub(crate) const JSON: u32 = 64;
    pub(crate) const POSTCARD: u32 = 128;
    /// A string that would be taken for something else.
    pub(crate) const TEXT: u32 = 1 << 16;
    /// A row of bytes that would be taken for something else.
    pub(crate) const ROW: u32 = 1 << 17;
}

/// Flags of php-memcached: a type in the lowest four bits, then how it is compressed.
pub(super) mod php {
    pub(crate) const TYPE: u32 = 15;
    pub(crate) const STRING: u32 = 0;
    pub(crate) const LONG: u32 = 1;
    pub(crate) const DOUBLE: u32 = 2;
    pub(crate) const BOOL: u32 = 3;
    pub(crate) const JSON: u32 = 6;
    pub(crate) const COMPRESSED: u32 = 16;
    pub(crate) const ZLIB: u32 = 32;
    pub(crate) const ZSTD: u32 = 128;
}

/// Flags of spymemcached's SerializingTranscoder.
pub(super) mod java {
    pub(crate) const SERIALIZED: u32 = 1;
    pub(crate) const GZIP: u32 = 2;
    pub(crate) const TYPE: u32 = 0xff00;
    pub(crate) const BOOLEAN: u32 = 0x100;
    pub(crate) const INT: u32 = 0x200;
    pub(crate) const LONG: u32 = 0x300;
    pub(crate) const DATE: u32 = 0x400;
    pub(crate) const BYTE: u32 = 0x500;
    pub(crate) const FLOAT: u32 = 0x600;
    pub(crate) const DOUBLE: u32 = 0x700;
    pub(crate) const BYTES: u32 = 0x800;
}
