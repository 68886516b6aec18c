//! One command on one key: what the session hands to a shard.

use super::replies::Replies;
use crate::protocol::binary::{self, Frame};
use crate::protocol::{ArithmeticArgs, Exptime, MetaArgs, StoreArgs, StoreMode};
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
    Delete {
        /// The token to compare with; 0: none.
        compare: u64,
    },
    /// incr, decr
    Arithmetic(ArithmeticArgs),
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

/// How an operation is answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Form {
    /// In the words of the text protocol.
    Text,
    /// Not at all.
    Nothing,
    /// By a frame of the binary protocol, or by none if the ordinary case is to be quiet.
    Binary(Frame),
}

impl Form {
    /// That of a line of text.
    #[inline]
    pub fn of_line(noreply: bool) -> Self {
        if noreply { Self::Nothing } else { Self::Text }
    }

    /// That of a frame, if it is one.
    pub fn of_frame(frame: Option<Frame>) -> Self {
        frame.map_or(Self::Text, Self::Binary)
    }

    /// Answers a command that is not about a key; `answer` is what it says in text.
    pub fn answer(self, answer: &[u8], out: &mut Replies) {
        match self {
            Self::Text => out.push(answer),
            Self::Nothing => {}
            Self::Binary(frame) => binary::reply::in_frames(&mut out.bytes, frame, answer),
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
    /// How it is answered.
    pub form: Form,
    /// What to do.
    pub verb: Verb<'a>,
}
