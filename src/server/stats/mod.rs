//! What the server tells about itself.
//!
//! | file | what it holds |
//! |---|---|
//! | `report` | what a worker and a shard count |
//! | `latency` | how long commands take, and which were slow |
//! | `sizing` | what the hit ratio would be with more or less memory |
//! | `text` | what `stats` says |
//! | `prometheus`, `exporter` | the same numbers as metrics, and the port they are served on |
//! | `sidecar` | the same numbers under the names of memcached_exporter |
//! | `waiting` | that port while data is recovered |

pub mod exporter;
pub mod latency;
mod prometheus;
pub mod report;
mod sidecar;
pub mod sizing;
pub mod text;
pub mod waiting;
