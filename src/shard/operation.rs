//! One command on one key: what the session hands to a shard, here or by mail.

use crate::protocol::{Exptime, MetaArgs, StoreArgs, StoreMode};
use crate::store::Value;
use bytes::Bytes;

/// The data block of a storage command.
#[derive(Debug, Clone)]
pub enum Data<'a> {
    /// Where it was read.
    Slice(&'a [u8]),
    /// A large one, in a buffer of its own.
    Owned(Bytes),
}

impl Data<'_> {
    /// The bytes.
    pub fn as_slice(&self) -> &[u8] {
        match self {
            Data::Slice(slice) => slice,
            Data::Owned(bytes) => bytes,
        }
    }

    /// How many bytes.
    pub fn len(&self) -> usize {
        self.as_slice().len()
    }

    /// No bytes at all.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

impl<'a> From<Data<'a>> for Value<'a> {
    fn from(data: Data<'a>) -> Self {
        match data {
            Data::Slice(slice) => Value::Parts([slice, &[]]),
            Data::Owned(bytes) => Value::Owned(bytes),
        }
    }
}

/// What to do with the key.
#[derive(Debug, Clone)]
pub enum Verb<'a> {
    /// get, gets
    Get {
        /// Return the token.
        with_cas: bool,
    },
    /// gat, gats
    GetAndTouch {
        /// Return the token.
        with_cas: bool,
        /// The new expiry.
        exptime: Exptime,
    },
    /// set, add, replace, append, prepend, cas
    Store(StoreArgs, Data<'a>),
    /// delete
    Delete,
    /// incr, decr
    Arithmetic {
        /// incr, not decr.
        increment: bool,
        /// By how much.
        delta: u64,
    },
    /// touch
    Touch {
        /// The new expiry.
        exptime: Exptime,
    },
    /// A set was refused for its size: remove what it would have replaced. No reply.
    DropStale,
    /// mg
    MetaGet(&'a MetaArgs),
    /// ms
    MetaStore(&'a MetaArgs, StoreMode, Data<'a>),
    /// md
    MetaDelete(&'a MetaArgs),
    /// ma
    MetaArithmetic(&'a MetaArgs),
    /// me
    MetaDebug(&'a MetaArgs),
}

impl Verb<'_> {
    /// Whether it may change what is stored.
    pub fn changes_items(&self) -> bool {
        match self {
            Self::Get { .. } | Self::MetaDebug(_) => false,
            Self::MetaGet(args) => args.vivify.is_some() || args.exptime.is_some(),
            _ => true,
        }
    }
}

/// A command on one key.
#[derive(Debug, Clone)]
pub struct Operation<'a> {
    /// The key.
    pub key: &'a [u8],
    /// Its hash, made once.
    pub hash: u64,
    /// No reply is wanted.
    pub noreply: bool,
    /// What to do.
    pub verb: Verb<'a>,
}
