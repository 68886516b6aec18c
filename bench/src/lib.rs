//! Load generator for memcached's text protocol, and the scenarios that compare servers with it.
//!
//! Owns: producing requests, timing replies, starting and watching the servers under test, and the
//! tables and plots made of that. A server is an executable that takes memcached's flags; all that
//! is known of it is its replies and its files in `/proc`. Only the modules that say so use
//! distcached's library, to measure the store alone.
//!
//! ```text
//! random, zipf        numbers from a seed
//! population          which keys exist; key and value bytes computed from the key's number
//! stream              which key is asked for next
//! wire, resp          requests and replies as bytes: memcached's and Redis's
//! load                event loop: stream -> wire -> sockets -> wire -> tally
//! cleanup             what must not outlive the bench when a signal ends it
//! server, client      a server process and one plain connection to it
//! scenarios, traces   the tables of what `compare` and `hitratio` run
//! options, trial      the command line; the options that all comparisons share
//! report, plot        Markdown, CSV and SVG out
//! load_command        one load against a running server
//! compare, latency, idle, memory, hitratio    one kind of published figure each
//! persistent          servers with data directories; the options for comparing them
//! durability, snapshot, restart    one kind of published figure each, on `persistent`
//! simulate            the streams of `hitratio` against ideal policies; no sockets
//! embedded            distcached's shard in this process; no sockets
//! replay, pauses      the streams of `hitratio`, and the time of single calls, on `embedded`
//! churn, working_set  a working set that fits: on `embedded`, on servers
//! sizing              what a store says of other sizes, and what these measure, on `replay`
//! large_value         a value of a gibibyte in a server within this process
//! overload            a well-behaved client beside attackers
//! ```
//! Imports run down that list only in the direction of use: nothing above `server` knows of it.

pub mod churn;
pub mod cleanup;
pub mod client;
pub mod compare;
pub mod durability;
pub mod embedded;
pub mod frames;
pub mod hitratio;
pub mod idle;
pub mod large_value;
pub mod latency;
pub mod load;
pub mod load_command;
pub mod memory;
pub mod options;
pub mod overload;
pub mod pauses;
pub mod persistent;
pub mod plot;
pub mod population;
pub mod production;
pub mod random;
pub mod replay;
pub mod report;
pub mod resp;
pub mod restart;
pub mod scenarios;
pub mod server;
pub mod simulate;
pub mod sizing;
pub mod snapshot;
pub mod stream;
pub mod threads;
pub mod traces;
pub mod trial;
pub mod wire;
pub mod working_set;
pub mod zipf;

/// What every fallible function here returns. The only consumer is a person reading one line on
/// standard error, so errors are not enumerated.
pub type Result<T> = std::result::Result<T, Box<dyn std::error::Error + Send + Sync>>;

/// The median: the middle value, or the mean of the two middle
/// ones. Zero for no values.
pub fn median(values: impl IntoIterator<Item = f64>) -> f64 {
    let mut sorted: Vec<f64> = values.into_iter().collect();
    sorted.sort_by(f64::total_cmp);
    match sorted.len() {
        0 => 0.0,
        n if n % 2 == 1 => sorted[n / 2],
        n => (sorted[n / 2 - 1] + sorted[n / 2]) / 2.0,
    }
}

#[cfg(test)]
mod tests {
    #[test]
    fn medians() {
        for (values, expected) in
            [(&[][..], 0.0), (&[3.0][..], 3.0), (&[4.0, 1.0][..], 2.5), (&[9.0, 1.0, 2.0][..], 2.0)]
        {
            assert_eq!(super::median(values.iter().copied()), expected, "{values:?}");
        }
    }
}
