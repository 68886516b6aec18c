//! The load generator. Owns what a load is (`Plan`), how long it lasts (`Until`) and what came of
//! it (`Outcome`), and one thread per `Plan::threads`; never starts or inspects a server.
//!
//! Closed loop: each connection sends a batch of `pipeline` commands, waits for all of its replies
//! and sends the next. Latency runs from handing the batch to the socket until its reply is read.
//! Open loop (`rate`): commands leave at fixed times whether or not earlier ones were answered.
//! Latency runs from the time a command was meant to leave, so that a stall counts against every
//! command it delayed, not only against the one that happened to be under way.

mod connection;
mod engine;
mod requests;
mod tally;

use std::net::SocketAddr;
use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

pub use tally::Outcome;

use crate::Result;
use crate::population::Population;
use crate::stream::StreamSpec;
use crate::wire::Protocol;
use engine::Engine;

/// Kinds of command.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verb {
    /// `get` of one key.
    Get,
    /// `get` of `Plan::keys_per_get` keys; counts as one operation.
    MultiGet,
    /// `mg <key> v`.
    MetaGet,
    /// `get` of a key that was never stored.
    Miss,
    /// `set`.
    Set,
    /// `set ... noreply`. The last command of a batch is sent as a plain `set`: without one reply
    /// nothing would tell when the batch is done.
    SetNoreply,
    /// `get` of the binary protocol, as the following.
    FrameGet,
    /// `Plan::keys_per_get` quiet gets and a noop; counts as one operation.
    FrameMultiGet,
    /// `set`.
    FrameSet,
    /// `setq`, the last of a batch a plain set as with `SetNoreply`.
    FrameSetQuiet,
}

impl Verb {
    /// Whether it is one of the binary protocol.
    fn is_frame(self) -> bool {
        matches!(self, Self::FrameGet | Self::FrameMultiGet | Self::FrameSet | Self::FrameSetQuiet)
    }
}

impl FromStr for Verb {
    type Err = String;

    fn from_str(text: &str) -> std::result::Result<Self, String> {
        match text {
            "get" => Ok(Self::Get),
            "mget" => Ok(Self::MultiGet),
            "mg" => Ok(Self::MetaGet),
            "miss" => Ok(Self::Miss),
            "set" => Ok(Self::Set),
            "set-noreply" => Ok(Self::SetNoreply),
            "bget" => Ok(Self::FrameGet),
            "bmget" => Ok(Self::FrameMultiGet),
            "bset" => Ok(Self::FrameSet),
            "bset-quiet" => Ok(Self::FrameSetQuiet),
            _ => Err(format!(
                "verb \"{text}\": say get, mget, mg, miss, set or set-noreply, or of the binary \
                 protocol bget, bmget, bset or bset-quiet"
            )),
        }
    }
}

/// Verbs with their weights.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mix(Vec<(Verb, u32)>);

impl Mix {
    /// A mix of one.
    pub fn only(verb: Verb) -> Self {
        Self(vec![(verb, 1)])
    }

    /// Verbs with weights above zero.
    pub fn weighted(weights: &[(Verb, u32)]) -> Self {
        assert!(weights.iter().any(|&(_, weight)| weight > 0), "a mix needs a verb");
        Self(weights.to_vec())
    }
}

impl FromStr for Mix {
    type Err = String;

    /// `get` or `get=90,set=10`.
    fn from_str(text: &str) -> std::result::Result<Self, String> {
        let weighted = |part: &str| {
            let (verb, weight) = part.split_once('=').unwrap_or((part, "1"));
            match weight.parse() {
                Ok(weight @ 1..=1_000_000) => Ok((verb.parse()?, weight)),
                _ => Err(format!("weight \"{weight}\" in \"{text}\" is not 1 to 1000000")),
            }
        };
        text.split(',').map(weighted).collect::<std::result::Result<_, _>>().map(Self)
    }
}

/// A load to put on one server.
#[derive(Clone, Debug)]
pub struct Plan {
    /// The server.
    pub address: SocketAddr,
    /// Connections over all threads.
    pub connections: usize,
    /// Load threads, each with its own event loop and its share of the connections.
    pub threads: usize,
    /// Commands per batch; in open loop, ignored.
    pub pipeline: usize,
    /// Keys per multi-get.
    pub keys_per_get: usize,
    /// Which commands.
    pub mix: Mix,
    /// Which keys and values exist.
    pub population: Arc<Population>,
    /// Which of them are asked for.
    pub stream: StreamSpec,
    /// Open loop at this many commands per second over all connections; closed loop if absent.
    pub rate: Option<f64>,
    /// Store each key that a get did not find, with `set noreply` ahead of the connection's next
    /// batch, as an application with a look-aside cache does.
    pub look_aside: bool,
    /// What the server speaks.
    pub protocol: Protocol,
    /// Processor cores for the load threads, used in turn. Pinned threads poll without sleeping;
    /// if empty, threads are neither pinned nor sleepless.
    pub cores: Vec<usize>,
}

impl Plan {
    /// One get at a time on 50 connections: what the published figures use unless they say.
    pub fn new(address: SocketAddr, population: Arc<Population>, stream: StreamSpec) -> Self {
        Self {
            address,
            connections: 50,
            threads: 1,
            pipeline: 1,
            keys_per_get: 100,
            mix: Mix::only(Verb::Get),
            population,
            stream,
            rate: None,
            look_aside: false,
            protocol: Protocol::Text,
            cores: Vec::new(),
        }
    }

    /// Whether its commands are those of the binary protocol.
    fn is_of_frames(&self) -> bool {
        self.mix.0.iter().any(|(verb, _)| verb.is_frame())
    }

    fn check(&self) -> Result<()> {
        let Mix(mix) = &self.mix;
        let all_frames = mix.iter().all(|(verb, _)| verb.is_frame()) && !self.look_aside;
        let text_only = |verb| matches!(verb, Verb::MultiGet | Verb::MetaGet);
        let needs_text = self.look_aside || mix.iter().any(|&(verb, _)| text_only(verb));
        let threads_fit = (1..=self.connections).contains(&self.threads);
        match () {
            () if !threads_fit => Err("need at least one connection per thread".into()),
            () if needs_text && self.protocol == Protocol::Resp => {
                Err("over resp there are get, miss and set only".into())
            }
            () if self.is_of_frames() && !(all_frames && self.protocol == Protocol::Text) => {
                Err("a connection speaks the binary protocol or another one, not both".into())
            }
            () if self.pipeline == 0 => Err("pipeline must be at least 1".into()),
            () if self.keys_per_get == 0 => Err("a multi-get needs at least one key".into()),
            () if self.rate.is_some_and(|rate| rate.is_nan() || rate <= 0.0) => {
                Err("rate must be above 0".into())
            }
            () => Ok(()),
        }
    }
}

/// When to stop sending. Replies still out are awaited in either case.
#[derive(Clone, Copy, Debug)]
pub enum Until {
    /// After this time.
    Elapsed(Duration),
    /// After this many commands over all threads.
    Operations(u64),
}

/// A connected load, ready to run any number of times; the stream continues from run to run.
#[derive(Debug)]
pub struct Load {
    engines: Vec<Engine>,
    cores: Vec<usize>,
}

impl Load {
    /// Opens the connections and waits until the server has answered on each, so that accepting
    /// them is not part of a measurement.
    pub fn connect(plan: &Plan) -> Result<Self> {
        plan.check()?;
        let engines = (0..plan.threads).map(|part| Engine::connect(plan, part));
        Ok(Self { engines: engines.collect::<Result<_>>()?, cores: plan.cores.clone() })
    }

    /// Sends until told to stop and returns when all replies are in.
    pub fn run(&mut self, until: Until) -> Result<Outcome> {
        let parts = self.engines.len() as u64;
        let cores = &self.cores;
        std::thread::scope(|scope| {
            let start = |(part, engine)| {
                let share = until.share(part as u64, parts);
                let core = cores.get(part % cores.len().max(1)).copied();
                scope.spawn(move || run_one(engine, share, core))
            };
            // Start all before joining any.
            let threads: Vec<_> = self.engines.iter_mut().enumerate().map(start).collect();
            let mut total = Outcome::default();
            for thread in threads {
                total.merge(&thread.join().map_err(|_| "a load thread panicked")??);
            }
            Ok(total)
        })
    }
}

impl Until {
    fn share(self, part: u64, parts: u64) -> Self {
        match self {
            Self::Elapsed(time) => Self::Elapsed(time),
            Self::Operations(all) => Self::Operations(all / parts + u64::from(part < all % parts)),
        }
    }
}

fn run_one(engine: &mut Engine, until: Until, core: Option<usize>) -> Result<Outcome> {
    if let Some(core) = core {
        let mut set = nix::sched::CpuSet::new();
        set.set(core)?;
        nix::sched::sched_setaffinity(nix::unistd::Pid::from_raw(0), &set)
            .map_err(|e| format!("pinning a load thread to core {core}: {e}"))?;
    }
    engine.run(until)
}

/// Stores keys `0..count` once each, pipelined; fails if the server refused any.
pub fn fill(plan: &Plan, count: u64) -> Result<()> {
    const BATCH_BYTES_MAX: usize = 1 << 20;
    let sample = (0..count.min(1000)).map(|id| plan.population.value_bytes(id)).max().unwrap_or(0);
    let fill = Plan {
        connections: plan.threads,
        pipeline: (BATCH_BYTES_MAX / (sample + 64)).clamp(1, 100),
        mix: Mix::only(Verb::SetNoreply),
        stream: StreamSpec {
            popularity: crate::stream::Popularity::Sequential,
            once: 0.0,
            ..plan.stream
        },
        rate: None,
        look_aside: false,
        ..plan.clone()
    };
    Load::connect(&fill)?.run(Until::Operations(count))?.check()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mixes_parse_or_say_why_not() {
        assert_eq!("get".parse(), Ok(Mix(vec![(Verb::Get, 1)])));
        assert_eq!("get=90,set=10".parse(), Ok(Mix(vec![(Verb::Get, 90), (Verb::Set, 10)])));
        for wrong in ["", "get=", "get=0", "get=x", "put", "get,,set"] {
            assert!(wrong.parse::<Mix>().is_err(), "{wrong}");
        }
    }

    #[test]
    fn shares_of_operations_add_up() {
        for parts in 1..5 {
            let share = |part| match Until::Operations(11).share(part, parts) {
                Until::Operations(n) => n,
                Until::Elapsed(_) => 0,
            };
            assert_eq!((0..parts).map(share).sum::<u64>(), 11);
        }
    }
}
