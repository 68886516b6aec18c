//! The load generator against a fake server: it must send what the plan says, count every reply
//! once, and notice a server that lies.

mod fake;

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use bench::load::{self, Load, Mix, Outcome, Plan, Until, Verb};
use bench::population::Population;
use bench::stream::{Popularity, Stream, StreamSpec};
use bench::wire::Protocol;
use fake::{Fake, Fault};

const KEYS: u64 = 500;

fn plan(fake: &Fake) -> Plan {
    plan_with_values(fake, "32")
}

fn plan_with_values(fake: &Fake, sizes: &str) -> Plan {
    let population = Population::new(KEYS, "16".parse().unwrap(), sizes.parse().unwrap());
    let stream = StreamSpec { popularity: Popularity::Uniform, once: 0.0, seed: 1 };
    Plan { connections: 4, ..Plan::new(fake.address, Arc::new(population.unwrap()), stream) }
}

fn run(plan: &Plan, operations: u64) -> Outcome {
    let mut load = Load::connect(plan).expect("connecting");
    load.run(Until::Operations(operations)).expect("running")
}

/// Every verb: the number of operations asked for is done, each key is found, each reply timed.
#[test]
fn each_verb_is_sent_and_counted() {
    let fake = Fake::start(Fault::None);
    load::fill(&plan(&fake), KEYS).expect("filling");
    assert_eq!(fake.items() as u64, KEYS);
    for (verb, keys_found, keys_missed) in [
        (Verb::Get, 1, 0),
        (Verb::MultiGet, 100, 0),
        (Verb::MetaGet, 1, 0),
        (Verb::Miss, 0, 1),
        (Verb::Set, 0, 0),
        (Verb::SetNoreply, 0, 0),
    ] {
        for pipeline in [1, 7, 16] {
            let plan = Plan { mix: Mix::only(verb), pipeline, ..plan(&fake) };
            let outcome = run(&plan, 1000);
            outcome.check().unwrap_or_else(|e| panic!("{verb:?}: {e}"));
            assert_eq!(outcome.operations, 1000, "{verb:?}");
            assert_eq!(outcome.hits, 1000 * keys_found, "{verb:?}");
            assert_eq!(outcome.misses, 1000 * keys_missed, "{verb:?}");
            assert_eq!(outcome.latency.len(), 1000, "{verb:?}");
        }
    }
    assert_eq!(fake.items() as u64, KEYS, "no key outside the set was stored");
}

#[test]
fn a_mix_keeps_its_proportions() {
    let fake = Fake::start(Fault::None);
    load::fill(&plan(&fake), KEYS).expect("filling");
    let sets_before = fake.sets();
    let mix = Mix::weighted(&[(Verb::Get, 90), (Verb::Set, 10)]);
    let outcome = run(&Plan { mix, pipeline: 4, ..plan(&fake) }, 5000);
    let sets = fake.sets() - sets_before;
    assert_eq!(outcome.hits + sets, 5000);
    assert!((400..600).contains(&sets), "{sets} sets of 5000");
}

#[test]
fn threads_share_connections_and_operations() {
    let fake = Fake::start(Fault::None);
    load::fill(&Plan { threads: 3, ..plan(&fake) }, KEYS).expect("filling");
    assert_eq!(fake.items() as u64, KEYS);
    let outcome = run(&Plan { threads: 3, connections: 5, ..plan(&fake) }, 1001);
    assert_eq!((outcome.operations, outcome.hits), (1001, 1001));
}

#[test]
fn large_values_cross_in_pieces() {
    let fake = Fake::start(Fault::None);
    let plan = plan_with_values(&fake, "100000-300000");
    load::fill(&plan, 20).expect("filling");
    let stream = StreamSpec { popularity: Popularity::Sequential, ..plan.stream };
    let plan = Plan { stream, connections: 1, pipeline: 20, ..plan };
    for verb in [Verb::Get, Verb::MetaGet, Verb::Set] {
        let outcome = run(&Plan { mix: Mix::only(verb), ..plan.clone() }, 20);
        outcome.check().unwrap();
        assert_eq!(outcome.operations, 20);
    }
}

#[test]
fn wrong_values_are_noticed() {
    for fault in [Fault::FlipBit, Fault::OtherValue] {
        for verb in [Verb::Get, Verb::MultiGet, Verb::MetaGet] {
            let fake = Fake::start(fault);
            load::fill(&plan(&fake), KEYS).expect("filling");
            let outcome = run(&Plan { mix: Mix::only(verb), ..plan(&fake) }, 100);
            assert!(outcome.wrong >= 90, "{fault:?} {verb:?}: {}", outcome.wrong);
            assert!(outcome.check().unwrap_err().to_string().contains("wrong values"));
        }
    }
}

#[test]
fn error_replies_are_failures() {
    let fake = Fake::start(Fault::Errors);
    for verb in [Verb::Get, Verb::MetaGet, Verb::Set] {
        let outcome = run(&Plan { mix: Mix::only(verb), ..plan(&fake) }, 100);
        assert_eq!((outcome.failures, outcome.operations), (100, 100));
        assert_eq!(outcome.first_failure.as_deref(), Some("SERVER_ERROR out of order"));
    }
}

#[test]
fn a_server_that_hangs_up_is_an_error() {
    let fake = Fake::start(Fault::Close);
    let mut load = Load::connect(&plan(&fake)).expect("connecting");
    assert!(load.run(Until::Operations(1000)).is_err());
}

/// Goal: batches and multi-gets change nothing in what is counted. Method: a server that never
/// forgets misses each distinct key of the stream exactly once.
#[test]
fn look_aside_misses_each_distinct_key_once() {
    const REQUESTS: u64 = 4000;
    for (verb, keys, pipeline) in [(Verb::Get, 1, 1), (Verb::Get, 1, 50), (Verb::MultiGet, 20, 5)] {
        let fake = Fake::start(Fault::None);
        let stream = StreamSpec { popularity: Popularity::Zipf(1.0), once: 0.3, seed: 9 };
        let plan = Plan {
            connections: 1,
            mix: Mix::only(verb),
            keys_per_get: keys,
            pipeline,
            look_aside: true,
            stream,
            ..plan(&fake)
        };
        let outcome = run(&plan, REQUESTS / keys as u64);
        outcome.check().unwrap();
        let mut stream = Stream::new(&plan.stream, KEYS, 0, 1);
        let distinct: HashSet<u64> = (0..REQUESTS).map(|_| stream.next_id()).collect();
        assert_eq!(outcome.misses, distinct.len() as u64, "{verb:?} {pipeline}");
        assert_eq!(outcome.hits + outcome.misses, REQUESTS);
    }
}

/// The stream goes on from run to run: a second run finds what the first one stored.
#[test]
fn runs_continue_the_stream() {
    let fake = Fake::start(Fault::None);
    let stream = StreamSpec { popularity: Popularity::Sequential, once: 0.0, seed: 1 };
    let plan = Plan { connections: 1, mix: Mix::only(Verb::Set), stream, ..plan(&fake) };
    let mut load = Load::connect(&plan).expect("connecting");
    for items in [100, 200, 300] {
        load.run(Until::Operations(100)).expect("running");
        assert_eq!(fake.items(), items);
    }
}

/// Goal: an open loop charges a stall to every command it delayed. Method: the server is silent
/// for 200 ms of a second; in a closed loop one command would notice, here a fifth of them do.
#[test]
fn open_loop_counts_the_wait_of_every_delayed_command() {
    let fake = Fake::start(Fault::StallOnce(Duration::from_millis(200)));
    let plan =
        Plan { connections: 1, rate: Some(1000.0), mix: Mix::only(Verb::Miss), ..plan(&fake) };
    let mut load = Load::connect(&plan).expect("connecting");
    let outcome = load.run(Until::Elapsed(Duration::from_secs(1))).expect("running");
    assert_eq!(outcome.operations, 1000);
    assert!(outcome.latency_us(100.0) >= 190_000.0, "{}", outcome.latency_us(100.0));
    assert!(outcome.latency_us(90.0) >= 50_000.0, "{}", outcome.latency_us(90.0));
    assert!(outcome.latency_us(50.0) <= 50_000.0, "{}", outcome.latency_us(50.0));
}

#[test]
fn a_timed_run_ends_in_time() {
    let fake = Fake::start(Fault::None);
    let mut load = Load::connect(&Plan { mix: Mix::only(Verb::Miss), ..plan(&fake) }).unwrap();
    let outcome = load.run(Until::Elapsed(Duration::from_millis(200))).expect("running");
    assert!(outcome.operations > 0);
    let elapsed = outcome.elapsed.as_millis();
    assert!((200..2000).contains(&elapsed), "{elapsed} ms");
}

#[test]
fn impossible_plans_are_refused() {
    let fake = Fake::start(Fault::None);
    for wrong in [
        Plan { connections: 0, ..plan(&fake) },
        Plan { threads: 5, ..plan(&fake) },
        Plan { threads: 0, ..plan(&fake) },
        Plan { pipeline: 0, ..plan(&fake) },
        Plan { keys_per_get: 0, ..plan(&fake) },
        Plan { rate: Some(0.0), ..plan(&fake) },
        Plan { rate: Some(f64::NAN), ..plan(&fake) },
    ] {
        assert!(Load::connect(&wrong).is_err(), "{wrong:?}");
    }
}

/// Redis's protocol: sets and gets are counted, the right values found, the wrong ones noticed.
#[test]
fn redis_is_loaded_and_checked_alike() {
    let resp = |fake: &Fake| Plan { protocol: Protocol::Resp, ..plan(fake) };
    let fake = Fake::start(Fault::None);
    load::fill(&resp(&fake), KEYS).expect("filling");
    assert_eq!((fake.items() as u64, fake.sets()), (KEYS, KEYS));
    for (verb, hits, misses) in [(Verb::Get, 1000, 0), (Verb::Miss, 0, 1000), (Verb::Set, 0, 0)] {
        for pipeline in [1, 16] {
            let outcome = run(&Plan { mix: Mix::only(verb), pipeline, ..resp(&fake) }, 1000);
            outcome.check().unwrap_or_else(|e| panic!("{verb:?}: {e}"));
            let counts = (outcome.operations, outcome.hits, outcome.misses);
            assert_eq!(counts, (1000, hits, misses), "{verb:?}");
        }
    }
    for fault in [Fault::FlipBit, Fault::OtherValue, Fault::Errors] {
        let fake = Fake::start(fault);
        let filled = load::fill(&resp(&fake), KEYS);
        assert_eq!(filled.is_err(), fault == Fault::Errors, "{fault:?}");
        assert!(run(&resp(&fake), 1000).check().is_err(), "{fault:?}");
    }
    let mix = Mix::only(Verb::MetaGet);
    assert!(Load::connect(&Plan { mix, ..resp(&fake) }).is_err(), "Redis has no meta get");
}
