//! memcached's protocols: bytes to requests, and the replies.
//!
//! Depends on nothing but parsers: no store, no sockets, no time. The server uses it to read
//! commands; a client can use the same types.
//!
//! | file | what it holds |
//! |---|---|
//! | `number` | numbers as memcached accepts them |
//! | `request` | a command line as a value |
//! | `parse` | a line to a request (nom), classic commands |
//! | `meta` | the flags of meta commands |
//! | `reply` | every fixed reply line |
//! | `binary` | the binary protocol: its frames to the same requests, and its replies |

pub mod binary;
pub mod meta;
pub mod number;
pub mod parse;
pub mod reply;
pub mod request;

pub use parse::{Rejection, parse_line};
pub use request::{
    AdminVerb, ArithmeticArgs, Exptime, MetaArgs, MetaVerb, NewNumber, Request, StoreArgs,
    StoreMode,
};
