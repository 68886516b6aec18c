//! Every transcript, one exchange at a time, against the server under test and against each
//! memcached found. The second keeps the first honest: a transcript that memcached does not confirm
//! is wrong.

use protocol_tests::process::memcached_binaries;
use protocol_tests::target::Target;
use protocol_tests::transcript::chunking::Cuts;
use protocol_tests::transcript::replay::Bursts;
use protocol_tests::transcript::suite::{load_all, play_all};

#[test]
fn transcripts_hold_for_distcached() {
    let transcripts = load_all().unwrap();
    let played = play_all(&transcripts, Target::start_distcached, Bursts::Exchange, Cuts::None)
        .unwrap_or_else(|failures| panic!("{}", failures.join("\n")));
    println!("{played} transcripts played to distcached");
}

#[test]
fn transcripts_hold_for_memcached() {
    let transcripts = load_all().unwrap();
    let binaries = memcached_binaries();
    if binaries.is_empty() {
        println!("skipped: no memcached in MEMCACHED or PATH");
    }
    for binary in binaries {
        let start = |flags: &_| Target::start_memcached(&binary, flags);
        let played = play_all(&transcripts, start, Bursts::Exchange, Cuts::None)
            .unwrap_or_else(|failures| panic!("{}", failures.join("\n")));
        println!("{played} transcripts played to {}", binary.display());
    }
}
