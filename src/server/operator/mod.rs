//! Commands of operators.
//!
//! | file | what it holds |
//! |---|---|
//! | `compat` | memcached's settings that change nothing here |
//! | `dump` | all items as lines |
//! | `watch` | connections that are told what happens |

pub mod compat;
pub mod dump;
pub mod watch;
