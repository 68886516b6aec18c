//! A command line as a value: what was asked, not yet what it does.

use crate::limits::{META_TOKENS_MAX, OPAQUE_BYTES_MAX};
use std::borrow::Cow;

/// When an item shall stop existing, as the client said it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Exptime {
    /// Never.
    Never,
    /// So many seconds from now.
    Relative(u32),
    /// At a Unix time in seconds.
    Absolute(u32),
    /// At once.
    Past,
}

/// How a value is stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StoreMode {
    /// Whatever is there.
    Set,
    /// Only if there is no item.
    Add,
    /// Only if there is one.
    Replace,
    /// Behind the value that is there.
    Append,
    /// Before the value that is there.
    Prepend,
    /// Only if the item is still the one with the given token.
    Cas,
}

/// What a classic storage command says besides key and data.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct StoreArgs {
    /// How to store.
    pub mode: StoreMode,
    /// The client's flags.
    pub flags: u32,
    /// The expiry.
    pub exptime: Exptime,
    /// The token to compare with; 0 where there is none. Besides [`StoreMode::Cas`], the binary
    /// protocol has one for what joins values.
    pub compare: u64,
}

/// What incr or decr says besides the key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ArithmeticArgs {
    /// incr, not decr.
    pub increment: bool,
    /// By how much.
    pub delta: u64,
    /// The token to compare with; 0: none.
    pub compare: u64,
    /// What to store if there is no item.
    pub create: Option<NewNumber>,
}

impl ArithmeticArgs {
    /// Those of a line of text.
    pub fn of_line(increment: bool, delta: u64) -> Self {
        Self { increment, delta, compare: 0, create: None }
    }
}

/// A number to begin with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NewNumber {
    /// The number.
    pub value: u64,
    /// Its expiry.
    pub exptime: Exptime,
}

/// The meta commands without a data block.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MetaVerb {
    /// `mg`
    Get,
    /// `md`
    Delete,
    /// `ma`
    Arithmetic,
    /// `me`
    Debug,
}

/// Which meta flags were given, in the order in which they are answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct FlagOrder {
    letters: [u8; META_TOKENS_MAX],
    count: u8,
}

impl FlagOrder {
    pub(super) fn push(&mut self, letter: u8) {
        self.letters[usize::from(self.count)] = letter;
        self.count += 1;
    }

    /// The letters.
    pub fn as_slice(&self) -> &[u8] {
        &self.letters[..usize::from(self.count)]
    }
}

/// An opaque token, with its `O`, returned as it came.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Opaque {
    bytes: [u8; OPAQUE_BYTES_MAX],
    length: u8,
}

impl Opaque {
    /// `None` if it is too long.
    pub(super) fn new(token: &[u8]) -> Option<Self> {
        let mut opaque = Self { length: token.len() as u8, ..Self::default() };
        opaque.bytes.get_mut(..token.len())?.copy_from_slice(token);
        Some(opaque)
    }

    /// The token.
    pub fn as_slice(&self) -> &[u8] {
        &self.bytes[..usize::from(self.length)]
    }
}

/// The flags of a meta command. A field not said is at its default.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MetaArgs {
    /// Every flag given, in order.
    pub order: FlagOrder,
    /// `O`
    pub opaque: Opaque,
    /// `b`: the key came base64 encoded.
    pub key_binary: bool,
    /// `q`: no line for the ordinary outcome.
    pub quiet: bool,
    /// `v`: return the value.
    pub value: bool,
    /// `u`: do not count this as an access.
    pub no_bump: bool,
    /// `I`: invalidate (md) or accept a stale token (ms).
    pub invalidate: bool,
    /// `x`: drop the value and keep the item.
    pub remove_value: bool,
    /// `M`, its first letter.
    pub mode: Option<u8>,
    /// `F`
    pub flags: u32,
    /// `T`
    pub exptime: Option<Exptime>,
    /// `N`: create a missing item with this expiry.
    pub vivify: Option<Exptime>,
    /// `R`: who asks when less time than this is left shall recompute.
    pub recache: Option<Exptime>,
    /// `C`: the token to compare with.
    pub compare: Option<u64>,
    /// `E`: the token to give the item.
    pub token: Option<u64>,
    /// `D`
    pub delta: u64,
    /// `J`
    pub initial: u64,
}

impl Default for MetaArgs {
    fn default() -> Self {
        Self {
            order: FlagOrder::default(),
            opaque: Opaque::default(),
            key_binary: false,
            quiet: false,
            value: false,
            no_bump: false,
            invalidate: false,
            remove_value: false,
            mode: None,
            flags: 0,
            exptime: None,
            vivify: None,
            recache: None,
            compare: None,
            token: None,
            delta: 1,
            initial: 0,
        }
    }
}

/// The commands of operators that this server answers in one place.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AdminVerb {
    /// `lru`
    Lru,
    /// `lru_crawler`
    LruCrawler,
    /// `slabs`
    Slabs,
    /// `watch`
    Watch,
    /// `refresh_certs`
    RefreshCertificates,
    /// `config`
    Config,
    /// `extstore`
    Extstore,
}

/// A command line, understood.
#[derive(Debug, Clone, PartialEq)]
pub enum Request<'a> {
    /// `get`, `gets`, `gat`, `gats`: the keys are the words of `keys`.
    Get {
        /// The new expiry of gat and gats.
        touch: Option<Exptime>,
        /// Whether tokens are returned.
        with_cas: bool,
        /// The rest of the line. From a frame of the binary protocol: its one key.
        keys: &'a [u8],
    },
    /// A classic storage command; the data block follows.
    Store {
        /// The key.
        key: &'a [u8],
        /// Mode, flags, expiry, token.
        args: StoreArgs,
        /// Length of the data block, without line end.
        value_bytes: u32,
    },
    /// `delete`
    Delete {
        /// The key.
        key: &'a [u8],
        /// The token to compare with; 0: none.
        compare: u64,
    },
    /// `incr`, `decr`
    Arithmetic {
        /// The key.
        key: &'a [u8],
        /// Direction, delta, and what only the binary protocol says.
        args: ArithmeticArgs,
    },
    /// `touch`
    Touch {
        /// The key.
        key: &'a [u8],
        /// The new expiry.
        exptime: Exptime,
    },
    /// `mg`, `md`, `ma`, `me`
    Meta {
        /// Which.
        verb: MetaVerb,
        /// The key, decoded.
        key: Cow<'a, [u8]>,
        /// The flags.
        args: MetaArgs,
    },
    /// `ms`; the data block follows.
    MetaStore {
        /// The key, decoded.
        key: Cow<'a, [u8]>,
        /// The mode that `M` and `C` make.
        mode: StoreMode,
        /// The flags.
        args: MetaArgs,
        /// Length of the data block, without line end.
        value_bytes: u32,
    },
    /// `mn`
    MetaNoop,
    /// `flush_all`: now, or so many seconds from now (or a Unix time).
    FlushAll {
        /// `Never` and `Past` mean now.
        delay: Exptime,
    },
    /// `version`
    Version,
    /// `verbosity`
    Verbosity {
        /// The level asked for.
        level: u32,
    },
    /// `stats`, with the rest of the line.
    Stats {
        /// The words behind `stats`.
        arguments: &'a [u8],
    },
    /// `cache_memlimit`, with the rest of the line.
    MemoryLimit {
        /// The words behind the verb.
        arguments: &'a [u8],
    },
    /// `shutdown`, with the rest of the line.
    Shutdown {
        /// The words behind the verb.
        arguments: &'a [u8],
    },
    /// A command of operators, with the rest of the line.
    Admin {
        /// Which.
        verb: AdminVerb,
        /// The words behind the verb.
        arguments: &'a [u8],
    },
    /// `snapshot`: write one now, and say when it is safe.
    Snapshot,
    /// `quit`
    Quit,
}
