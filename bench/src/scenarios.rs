//! The table of what `compare` runs. Data only: one row per published figure of CPU per request.
//!
//! Values of 32 bytes, 100,000 keys of 16 bytes, uniform popularity and 50 connections unless the
//! row says otherwise. `ceiling` is the ratio of CPU per operation to memcached that this project
//! set out to stay below, with one worker and with two.

use crate::load::Verb;
use crate::stream::Popularity;

/// One row.
#[derive(Clone, Copy, Debug)]
pub struct Scenario {
    /// The name on the command line and in tables.
    pub name: &'static str,
    /// What is measured, in words.
    pub title: &'static str,
    /// Verbs and their weights, as `--verbs` takes them.
    pub verbs: &'static [(Verb, u32)],
    /// Connections.
    pub connections: usize,
    /// Commands per batch.
    pub pipeline: usize,
    /// Number of keys.
    pub keys: u64,
    /// Value sizes, as `--value-size` takes them.
    pub value_size: &'static str,
    /// Popularity of the keys.
    pub popularity: Popularity,
    /// Highest CPU ratio aimed at with one worker and with two; zero for none.
    pub ceiling: [f64; 2],
}

/// Key length of all scenarios.
pub const KEY_SIZE: &str = "16";
/// Keys of a `MultiGet`.
pub const KEYS_PER_GET: usize = 100;

const BASE: Scenario = Scenario {
    name: "",
    title: "",
    verbs: &[(Verb::Get, 1)],
    connections: 50,
    pipeline: 1,
    keys: 100_000,
    value_size: "32",
    popularity: Popularity::Uniform,
    ceiling: [0.0, 0.0],
};

/// All rows, in the order of the published table.
pub const SCENARIOS: &[Scenario] = &[
    Scenario { name: "get-1", title: "get, one at a time", ceiling: [0.82, 1.0], ..BASE },
    Scenario {
        name: "get-p16",
        title: "get, pipeline 16",
        pipeline: 16,
        ceiling: [0.45, 0.65],
        ..BASE
    },
    Scenario {
        name: "mget-100",
        title: "get of 100 keys, per command",
        verbs: &[(Verb::MultiGet, 1)],
        ceiling: [0.30, 0.50],
        ..BASE
    },
    Scenario {
        name: "set-1",
        title: "set, one at a time",
        verbs: &[(Verb::Set, 1)],
        ceiling: [0.82, 1.0],
        ..BASE
    },
    Scenario {
        name: "set-p16",
        title: "set, pipeline 16",
        verbs: &[(Verb::Set, 1)],
        pipeline: 16,
        ceiling: [0.50, 0.70],
        ..BASE
    },
    Scenario {
        name: "set-noreply-16",
        title: "set noreply, 16 to a reply",
        verbs: &[(Verb::SetNoreply, 1)],
        pipeline: 16,
        ceiling: [0.45, 0.0],
        ..BASE
    },
    Scenario {
        name: "mix-90-10",
        title: "90 % get, 10 % set, 200 connections",
        verbs: &[(Verb::Get, 90), (Verb::Set, 10)],
        connections: 200,
        ceiling: [0.85, 0.0],
        ..BASE
    },
    Scenario {
        name: "zipf",
        title: "get, Zipf 0.99, 1 M values of 100 to 300 bytes, pipeline 16",
        pipeline: 16,
        keys: 1_000_000,
        value_size: "100-300",
        popularity: Popularity::Zipf(0.99),
        ceiling: [0.55, 0.0],
        ..BASE
    },
    Scenario {
        name: "miss-p16",
        title: "get, all misses, pipeline 16",
        verbs: &[(Verb::Miss, 1)],
        pipeline: 16,
        ceiling: [0.40, 0.0],
        ..BASE
    },
    Scenario {
        name: "mg-1",
        title: "meta get, one at a time",
        verbs: &[(Verb::MetaGet, 1)],
        ceiling: [0.82, 0.0],
        ..BASE
    },
    Scenario {
        name: "mg-p16",
        title: "meta get, pipeline 16",
        verbs: &[(Verb::MetaGet, 1)],
        pipeline: 16,
        ceiling: [0.50, 0.0],
        ..BASE
    },
    Scenario {
        name: "bin-get-1",
        title: "binary get, one at a time",
        verbs: &[(Verb::FrameGet, 1)],
        ceiling: [0.85, 0.0],
        ..BASE
    },
    Scenario {
        name: "bin-mget-100",
        title: "binary getkq, 100 to a noop, per 100",
        verbs: &[(Verb::FrameMultiGet, 1)],
        ceiling: [0.45, 0.0],
        ..BASE
    },
    Scenario {
        name: "bin-set-1",
        title: "binary set, one at a time",
        verbs: &[(Verb::FrameSet, 1)],
        ceiling: [0.88, 0.0],
        ..BASE
    },
    Scenario {
        name: "bin-setq-16",
        title: "binary setq, 16 to a reply",
        verbs: &[(Verb::FrameSetQuiet, 1)],
        pipeline: 16,
        ceiling: [0.55, 0.0],
        ..BASE
    },
    Scenario {
        name: "get-4k",
        title: "get, values of 4 KiB",
        keys: 20_000,
        value_size: "4096",
        ceiling: [0.90, 0.0],
        ..BASE
    },
    Scenario {
        name: "get-16k",
        title: "get, values of 16 KiB",
        keys: 10_000,
        value_size: "16384",
        ceiling: [0.95, 0.0],
        ..BASE
    },
    Scenario {
        name: "get-100k",
        title: "get, values of 100,000 bytes",
        keys: 2_000,
        value_size: "100000",
        ceiling: [1.0, 0.0],
        ..BASE
    },
    Scenario {
        name: "set-16k",
        title: "set, values of 16 KiB",
        verbs: &[(Verb::Set, 1)],
        keys: 10_000,
        value_size: "16384",
        ceiling: [1.0, 0.0],
        ..BASE
    },
    Scenario {
        name: "get-1-1000conns",
        title: "get, one at a time, 1000 connections",
        connections: 1000,
        ceiling: [0.85, 0.0],
        ..BASE
    },
];

/// Numbers of threads that aims are set for.
pub const WORKERS: [usize; 5] = [1, 2, 4, 8, 16];

/// A row of `threads`.
#[derive(Clone, Copy, Debug)]
pub struct Threaded {
    /// The load.
    pub scenario: Scenario,
    /// Operations a second; `None`: as many as are answered.
    pub rate: Option<f64>,
    /// Highest CPU ratio aimed at, with each of [`WORKERS`].
    pub aims: [f64; WORKERS.len()],
}

const GET: &[(Verb, u32)] = &[(Verb::Get, 1)];
const SET: &[(Verb, u32)] = &[(Verb::Set, 1)];

/// All rows of `threads`.
pub const THREADED: &[Threaded] = &[
    threaded("get-1", "get, one at a time", GET, 1, [0.90; 5]),
    Threaded {
        rate: Some(20_000.0),
        ..threaded("get-rate", "get, 20,000 a second", GET, 1, [1.0; 5])
    },
    threaded("set-1", "set, one at a time", SET, 1, [0.95; 5]),
    threaded("get-p16", "get, pipeline 16", GET, 16, [0.45, 0.62, 0.62, 0.62, 0.62]),
    threaded("set-p16", "set, pipeline 16", SET, 16, [0.65, 0.65, 0.65, 0.65, 0.70]),
    threaded("mget-100", "get of 100 keys", MULTI_GET, 1, [0.45, 0.45, 0.45, 0.45, 0.55]),
    Threaded { scenario: Scenario { keys: 4, ..HOT.scenario }, ..HOT },
    Threaded { scenario: Scenario { connections: 200, ..MIX.scenario }, ..MIX },
];

const MULTI_GET: &[(Verb, u32)] = &[(Verb::MultiGet, 1)];
const HALF: &[(Verb, u32)] = &[(Verb::Get, 1), (Verb::Set, 1)];
const TENTH: &[(Verb, u32)] = &[(Verb::Get, 90), (Verb::Set, 10)];
const HOT: Threaded = threaded("hot-4", "4 keys, half sets, pipeline 16", HALF, 16, [0.90; 5]);
const MIX: Threaded =
    threaded("mix-90-10", "90 % get, 10 % set, 200 connections", TENTH, 1, [0.90; 5]);

const fn threaded(
    name: &'static str,
    title: &'static str,
    verbs: &'static [(Verb, u32)],
    pipeline: usize,
    aims: [f64; WORKERS.len()],
) -> Threaded {
    let scenario = Scenario { name, title, verbs, pipeline, ..BASE };
    Threaded { scenario, rate: None, aims }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::population::{Population, Sizes};

    #[test]
    fn rows_are_runnable_and_have_distinct_names() {
        for (index, row) in SCENARIOS.iter().enumerate() {
            assert!(SCENARIOS[..index].iter().all(|other| other.name != row.name), "{}", row.name);
            let sizes: Sizes = row.value_size.parse().expect(row.name);
            Population::new(row.keys, KEY_SIZE.parse().unwrap(), sizes).expect(row.name);
            assert!(row.ceiling[0] > 0.0, "{} has no ceiling", row.name);
        }
    }
}
