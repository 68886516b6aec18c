//! Data on disk, as the server drives it; the formats are in `crate::durable`.
//!
//! | file | what it holds |
//! |---|---|
//! | `kept` | opening the data at the start, ending at the stop |
//! | `keep` | a worker's part: its shard's log |
//! | `keeper` | the thread that takes snapshots |

pub mod keep;
pub mod keeper;
pub mod kept;
