//! memcached's binary protocol: frames to the same requests as lines, and the frames of replies.
//!
//! memcached calls it deprecated and still answers it, on the port of the text protocol: what a
//! client's first byte is decides. No sockets, no store, no time.
//!
//! ```text
//!        0               1               2               3
//!  0 | magic 80/81   | opcode        | key length                    |   lengths in bytes, numbers
//!  4 | extras length | data type     | request: vbucket, reply: status|   most significant byte
//!  8 | body length: extras, key and value together                   |   first
//! 12 | opaque: a reply repeats its request's                         |
//! 16 | cas: a request's condition (0: none), a reply's token         |
//!    |                                                               |
//! 24 | extras, then key, then value                                  |
//! ```
//!
//! | file | what it holds |
//! |---|---|
//! | `opcode` | what the opcodes ask for, and which are quiet |
//! | `parse` | a header and its key to a request (nom), and what is answered to wrong ones |
//! | `reply` | the one encoder of replies |
//! | `sasl` | the conversation of a login |

pub mod opcode;
pub mod parse;
pub mod reply;
pub mod sasl;

pub use opcode::Opcode;
pub use parse::{Ask, Header, Rejection};
pub use reply::Status;

/// The first byte of every request.
pub const REQUEST_MAGIC: u8 = 0x80;

/// The first byte of every reply.
pub const REPLY_MAGIC: u8 = 0x81;

/// What precedes extras, key and value.
pub const HEADER_BYTES: usize = 24;

/// What a reply repeats of its request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Frame {
    /// What was asked, as it was sent: it tells whether the answer is to be quiet too.
    pub opcode: Opcode,
    /// Any four bytes of the client's.
    pub opaque: [u8; 4],
}
