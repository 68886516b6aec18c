//! Connections: how they come, what is said on them, and what is answered.
//!
//! | file | what it holds |
//! |---|---|
//! | `listener` | accepting connections and handing them out |
//! | `socket` | a socket, whatever its transport, with its conversation |
//! | `session` | the conversation: bytes in, operations out |
//! | `output` | its replies, in order |
//! | `login` | who may come in |
//! | `tls` | certificates, and sockets that encrypt |

pub mod listener;
pub mod login;
pub mod output;
pub mod session;
pub mod socket;
#[cfg(test)]
mod tests;
pub mod tls;
