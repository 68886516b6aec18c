//! The same transcripts with the requests pipelined as far as possible and cut in different places:
//! replies must not depend on how TCP delivers the bytes.

use std::env;

use protocol_tests::target::Target;
use protocol_tests::transcript::Transcript;
use protocol_tests::transcript::chunking::Cuts;
use protocol_tests::transcript::replay::Bursts;
use protocol_tests::transcript::suite::{load_all, play_all};

fn check(cuts: Cuts) {
    let mut transcripts = load_all().unwrap();
    transcripts.retain(|transcript: &Transcript| transcript.chunked);
    let played = play_all(&transcripts, Target::start_distcached, Bursts::Longest, cuts)
        .unwrap_or_else(|failures| panic!("{cuts:?}\n{}", failures.join("\n")));
    println!("{played} transcripts played with {cuts:?}");
}

#[test]
fn whole() {
    check(Cuts::None);
}

#[test]
fn byte_by_byte() {
    check(Cuts::EveryByte);
}

/// `PROTOCOL_TESTS_SEED` repeats the cuts of a run that failed.
#[test]
fn random_cuts() {
    let seed = env::var("PROTOCOL_TESTS_SEED").ok().and_then(|seed| seed.parse().ok());
    let seed = seed.unwrap_or_else(|| fastrand::u64(..));
    println!("PROTOCOL_TESTS_SEED={seed}");
    check(Cuts::Random { seed });
}
