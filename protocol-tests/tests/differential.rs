//! A short random differential run against every memcached found. `cargo run --bin differential`
//! does the same for longer.

use std::env;

use protocol_tests::differences::flags_of_both;
use protocol_tests::frames;
use protocol_tests::process::memcached_binaries;
use protocol_tests::stream::run::{Plan, run};
use protocol_tests::target::Target;

const COMMANDS: usize = 20_000;

/// `PROTOCOL_TESTS_SEED` repeats a run that failed.
#[test]
fn random_streams_agree_with_memcached() {
    let binaries = memcached_binaries();
    if binaries.is_empty() {
        println!("skipped: no memcached in MEMCACHED or PATH");
    }
    let seed = env::var("PROTOCOL_TESTS_SEED").ok().and_then(|seed| seed.parse().ok());
    let seed = seed.unwrap_or_else(|| fastrand::u64(..1_000_000));
    println!("PROTOCOL_TESTS_SEED={seed}");
    let flags = flags_of_both(None);
    for binary in binaries {
        let distcached = Target::start_distcached(&flags).unwrap();
        let memcached = Target::start_memcached(&binary, &flags).unwrap();
        let plan = Plan { seed, commands: COMMANDS, failures_max: 1 };
        let report = run(&distcached, &memcached, plan).unwrap();
        println!("{}: {report}", memcached.identity());
        assert!(report.unexplained.is_empty(), "{report}");
        let report = frames::run::run(&distcached, &memcached, plan).unwrap();
        println!("{}: {report}", memcached.identity());
        assert!(report.unexplained.is_empty(), "{report}");
    }
}
