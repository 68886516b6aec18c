//! The overload rig against a fake server in this process: it has to see what a server does wrong.
//! Memory and descriptors are those of this process, so tests run one at a time.

#[allow(dead_code)] // It has more than is needed here.
mod fake;

use std::net::SocketAddr;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bench::Result;
use bench::overload::rounds::{self, Pace, Rounds, Signals};
use bench::overload::subject::Subject;
use bench::overload::{attacks, collide, judge};
use distcache::server::Server;
use fake::{Fake, Fault};
use nix::unistd::Pid;

static ALONE: Mutex<()> = Mutex::new(());
const MIB: u64 = 1 << 20;

fn alone() -> MutexGuard<'static, ()> {
    ALONE.lock().unwrap_or_else(PoisonError::into_inner)
}

type Attack = fn(SocketAddr, &Signals) -> Result<u64>;

fn run(fault: Fault, attack: Attack) -> Result<Rounds> {
    run_at(Fake::start(fault).address, attack)
}

fn run_at(address: SocketAddr, attack: Attack) -> Result<Rounds> {
    let subject = Subject { address, pid: Pid::this() };
    let pace = Pace {
        rate: 500.0,
        connections: 2,
        time: Duration::from_millis(100),
        rounds: 1,
        seed: 1,
        settle: Duration::from_millis(200),
    };
    rounds::run(&subject, &pace, &mut |signals| attack(address, signals))
}

fn complaints(rounds: &Rounds, growth_max: u64) -> Vec<String> {
    judge::complaints(rounds, growth_max, judge::OTHERS_P99_US_FINE)
}

fn idle(address: SocketAddr, signals: &Signals) -> Result<u64> {
    let streams = attacks::dial_many(address, 20)?;
    signals.ready();
    signals.sleep(Duration::from_secs(5));
    Ok(streams.len() as u64)
}

#[test]
fn a_server_that_does_nothing_wrong_keeps_everything() {
    let _alone = alone();
    let rounds = run(Fault::None, idle).unwrap();
    assert_eq!(rounds.done, [20]);
    assert_eq!((rounds.before.len(), rounds.during.len(), rounds.cpu.len()), (1, 1, 1));
    let found = complaints(&rounds, 64 * MIB);
    // What this machine does to latency meanwhile says nothing about the rig.
    assert!(found.iter().all(|found| found.contains("others")), "{found:?}");
}

#[test]
fn memory_and_descriptors_that_stay_are_seen() {
    let _alone = alone();
    let rounds = run(Fault::Leak, idle).unwrap();
    let found = complaints(&rounds, 10 * MIB).join("; ");
    assert!(found.contains("RSS beyond its bound"), "{found}");
    assert!(found.contains("20 descriptors leaked"), "{found}");
}

#[test]
fn a_stall_of_everybody_is_seen() {
    fn ask_for_it(address: SocketAddr, signals: &Signals) -> Result<u64> {
        let mut stream = attacks::dial(address)?;
        signals.ready();
        while !signals.stopped() {
            attacks::ask(&mut stream, b"get stall\r\n", b"END\r\n")?;
        }
        Ok(1)
    }
    let _alone = alone();
    let rounds = run(Fault::StallAll(Duration::from_millis(300)), ask_for_it).unwrap();
    let found = complaints(&rounds, 64 * MIB).join("; ");
    assert!(found.contains("p99 of others") && found.contains("others wait"), "{found}");
}

/// What the attacks themselves look at.
#[test]
fn wrong_answers_to_attackers_are_seen() {
    let _alone = alone();
    let check = |fault, attack, expected: &str| {
        let error = run(fault, attack).unwrap_err().to_string();
        assert!(error.contains(expected), "{error}");
    };
    let flood = |address, signals: &Signals| attacks::flood(address, 30, 100.0, signals);
    check(Fault::None, flood, "more than 30 connections are served");
    check(Fault::Refuse(20), flood, "the server answered \"ERROR Too many\\r\\n\"");
    let lines = |address, signals: &Signals| attacks::long_lines(address, 4, signals);
    check(Fault::None, lines, "2 connections with endless junk are still open");
}

/// Against distcached's library: it speaks more than the fake one.
#[test]
fn attacks_do_something_until_they_are_stopped() {
    let _alone = alone();
    let server = Server::bind("127.0.0.1:0").unwrap();
    let address = server.addresses()[0];
    let table: [(&str, Attack); 4] = [
        ("byte-at-a-time", |address, signals| attacks::byte_at_a_time(address, 3, signals)),
        ("pipeline", |address, signals| attacks::pipeline(address, 1000, signals)),
        ("hot-shard", |address, signals| attacks::hot_shard(address, 2, signals)),
        ("long-lines", |address, signals| attacks::long_lines(address, 4, signals)),
    ];
    for (name, attack) in table {
        let rounds = run_at(address, attack).unwrap_or_else(|error| panic!("{name}: {error}"));
        assert!(rounds.done[0] > 0, "{name}");
    }
    let found = collide::compare(address, 200, 1, 1).unwrap();
    assert!(found.colliding.rate > 0.0 && found.random.rate > 0.0);
}
