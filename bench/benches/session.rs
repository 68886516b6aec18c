//! Micro-benchmarks of a session: bytes in, replies out, without sockets. The router answers every
//! command with a fixed line, so that what remains is parsing, framing and the output. Owns the
//! canned router; nothing is stored.

use std::cell::RefCell;
use std::time::Duration;

use distcache::protocol::Request;
use distcache::server::connection::output::Output;
use distcache::server::connection::session::{Next, Router, Session, Target};
use distcache::shard::operation::Verb;
use divan::Bencher;
use divan::counter::ItemsCount;

fn main() {
    let divan = divan::Divan::default().sample_count(100).sample_size(100);
    divan.max_time(Duration::from_secs(1)).config_with_args().main();
}

/// Answers without looking anything up.
struct Canned;

impl Router for Canned {
    fn hash(&self, key: &[u8]) -> u64 {
        key.len() as u64
    }

    fn execute<'a>(
        &mut self,
        _: Target<'a>,
        verb: impl FnOnce() -> Verb<'a>,
        output: &mut Output,
    ) -> bool {
        match verb() {
            Verb::Store(..) => output.here().push(b"STORED\r\n"),
            _ => output.here().push(b"VALUE user:0000012345 0 4\r\nabcd\r\n"),
        }
        true
    }

    fn command(&mut self, _: &Request<'_>, _: bool, _: &mut Output) -> Next {
        Next::Command
    }

    fn item_fits(&self, _: &[u8], _: u32, _: usize) -> bool {
        true
    }

    fn may_hold(&self, _: usize) -> bool {
        true
    }
}

/// Sixteen commands received at once; time per command.
fn pipelined(bencher: Bencher<'_, '_>, command: &str) {
    const COMMANDS: usize = 16;
    let received = command.repeat(COMMANDS);
    let state = RefCell::new((Session::default(), Canned));
    bencher.counter(ItemsCount::new(COMMANDS)).bench_local(|| {
        let (session, router) = &mut *state.borrow_mut();
        session.advance(received.as_bytes(), &mut { usize::MAX }, router);
        let flushed = session.output.flush(&mut std::io::sink());
        flushed.expect("a sink takes everything").0
    });
}

#[divan::bench]
fn get_16(bencher: Bencher<'_, '_>) {
    pipelined(bencher, "get user:0000012345\r\n");
}

#[divan::bench]
fn set_16(bencher: Bencher<'_, '_>) {
    pipelined(bencher, &format!("set user:0000012345 0 0 230\r\n{}\r\n", "x".repeat(230)));
}

#[divan::bench]
fn meta_get_16(bencher: Bencher<'_, '_>) {
    pipelined(bencher, "mg user:0000012345 v\r\n");
}

/// Time per 16 gets of 100 keys each.
#[divan::bench]
fn get_100_keys_16(bencher: Bencher<'_, '_>) {
    pipelined(bencher, &format!("get{}\r\n", " user:0000012345".repeat(100)));
}
