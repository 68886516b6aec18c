//! A byte stream, cut in several ways. Goal: no stream panics or stalls a session, and the replies
//! are the same however TCP cuts the stream, however small the turns are and whenever the replies
//! leave. Method: drive [`Session`] on a real [`WorkerRouter`] with the stream in one piece,
//! byte by byte, and in pieces whose sizes follow from the input, with shards that are held by
//! somebody else now and then; compare what comes out.
//!
//! One difference is memcached's own and allowed: a line that has not ended after
//! [`LINE_BYTES_MAX`] bytes is judged when it gets there, and executed if it came as a whole. A
//! stream with such a line is only checked for panics.

use crate::random::Random;
use distcache::limits::LINE_BYTES_MAX;
use distcache::protocol::Request;
use distcache::server::Hooks;
use distcache::server::clock::Clock;
use distcache::server::config::Config;
use distcache::server::connection::login::Verdict;
use distcache::server::connection::output::{Flushed, Output};
use distcache::server::connection::session::{
    Admission, Next, Progress, Refused, Router, Session, Spoken, Target,
};
use distcache::server::shared::Shared;
use distcache::server::worker::inbox::Bell;
use distcache::server::worker::router::{Parts, WorkerRouter};
use distcache::server::worker::shards::Shards;
use distcache::server::worker::turn::WAKER;
use distcache::shard::operation::Verb;
use distcache::shard::{Rules, Shard};
use distcache::store::budget::Budget;
use distcache::store::hash::KeyHasher;
use distcache::store::{Settings, Ticks};
use std::cell::RefCell;
use std::sync::{Arc, OnceLock};

/// Memory of the store: so little that long streams evict.
const MEMORY_BYTES_MAX: u64 = 1 << 20;

/// `-I`: so small that short streams meet it.
const ITEM_BYTES_MAX: u32 = 16 << 10;

/// Where the clock starts, and how far it goes with each operation: streams see items expire.
const START_SECONDS: u64 = 1_700_000_000;
const OPERATION_TICKS: u64 = Ticks::PER_SECOND / 4;

/// The end of the one message that logs in.
const RIGHT_LOGIN: &[u8] = b"u\0p";

/// Operations from one `maintain` to the next.
const MAINTAIN_OPERATIONS: u64 = 32;

/// Commands in one turn, where a run does not choose: more than any stream holds.
const BUDGET_UNBOUNDED: usize = usize::MAX;

/// Panics unless the replies to the stream are the same for all ways to cut it.
pub fn check(stream: &[u8]) {
    let [whole, bytewise, pieces] = cut_in_all_ways(stream, Session::default);
    if !bytewise.met_long_line {
        assert_same(&whole.replies, &bytewise.replies, "byte by byte");
        assert_same(&whole.replies, &pieces.replies, "in pieces");
    }
}

/// The same for frames of the binary protocol, of which none is judged by how it arrives.
pub fn check_frames(stream: &[u8]) {
    let spoken = Spoken { text: Admission::No, binary: Admission::Free };
    let [whole, bytewise, pieces] = cut_in_all_ways(stream, || Session::new(spoken));
    assert_same(&whole.replies, &bytewise.replies, "byte by byte");
    assert_same(&whole.replies, &pieces.replies, "in pieces");
    check_login(stream);
}

/// The same where a login by SASL comes first: without the right one nothing reaches the store.
fn check_login(stream: &[u8]) {
    let spoken = Spoken { text: Admission::No, binary: Admission::AfterLogin };
    let [whole, bytewise, pieces] = cut_in_all_ways(stream, || Session::new(spoken));
    assert_same(&whole.replies, &bytewise.replies, "byte by byte, with a login");
    assert_same(&whole.replies, &pieces.replies, "in pieces, with a login");
    let says_it = stream.windows(RIGHT_LOGIN.len()).any(|window| window == RIGHT_LOGIN);
    assert!(says_it || whole.operations == 0, "somebody was let in without a login");
}

fn cut_in_all_ways(stream: &[u8], session: impl Fn() -> Session) -> [Outcome; 3] {
    let pieces = RefCell::new(Random::from_input(stream));
    [Cuts::Whole, Cuts::Bytes, Cuts::Pieces(pieces)].map(|cuts| run(stream, session(), cuts))
}

fn assert_same(whole: &[u8], cut: &[u8], how: &str) {
    assert!(
        whole == cut,
        "replies differ\n in one piece: {}\n {how}: {}",
        whole.escape_ascii(),
        cut.escape_ascii()
    );
}

/// How a stream is cut and served.
enum Cuts {
    Whole,
    Bytes,
    /// Pieces, turns, pauses of the router and of the client, all of them random.
    Pieces(RefCell<Random>),
}

impl Cuts {
    fn piece_bytes(&self, left: usize) -> usize {
        match self {
            Self::Whole => left,
            Self::Bytes => 1,
            Self::Pieces(random) => {
                let mut random = random.borrow_mut();
                // Mostly a few bytes, at times a lot.
                let limit = [2, 8, 64, 512][random.below(4)];
                1 + random.below(limit.min(left))
            }
        }
    }

    fn budget(&self) -> usize {
        match self {
            Self::Whole | Self::Bytes => BUDGET_UNBOUNDED,
            Self::Pieces(random) => 1 + random.borrow_mut().below(20),
        }
    }

    /// Something that mostly happens does this time.
    fn mostly(&self) -> bool {
        match self {
            Self::Whole | Self::Bytes => true,
            Self::Pieces(random) => random.borrow_mut().below(8) > 0,
        }
    }
}

/// What came of a run.
struct Outcome {
    replies: Vec<u8>,
    operations: u64,
    /// Only a run byte by byte looks for it.
    met_long_line: bool,
}

/// Plays the worker and the socket: hands pieces in, lets replies out, until the stream has ended.
fn run(stream: &[u8], session: Session, cuts: Cuts) -> Outcome {
    let mut driver = Driver {
        session,
        router: FuzzRouter { router: router(), operations: 0, cuts: &cuts },
        replies: Vec::new(),
        turns_left: 1_000 + 100 * stream.len(),
    };
    let mut met_long_line = false;
    let mut bytes_waiting = 0;
    let mut rest = stream;
    while !rest.is_empty() && !driver.session.is_closing() {
        let (piece, behind) = rest.split_at(cuts.piece_bytes(rest.len()));
        if bytes_waiting == LINE_BYTES_MAX && piece != b"\n" {
            met_long_line = true;
        }
        rest = behind;
        bytes_waiting += piece.len();
        driver.take_turns(piece);
        if !driver.session.has_input() {
            bytes_waiting = 0;
        }
    }
    driver.drain();
    met_long_line &= matches!(cuts, Cuts::Bytes);
    let operations = driver.router.operations;
    Outcome { replies: driver.replies, operations, met_long_line }
}

struct Driver<'a> {
    session: Session,
    router: FuzzRouter<'a>,
    replies: Vec<u8>,
    turns_left: usize,
}

impl Driver<'_> {
    /// Everything that can be done with this piece.
    fn take_turns(&mut self, piece: &[u8]) {
        let mut received = piece;
        loop {
            self.turns_left = self.turns_left.checked_sub(1).expect("the session stalls");
            if !self.session.output.has_buffer() {
                self.session.output.give_buffer(Vec::with_capacity(64));
            }
            let mut budget = self.router.cuts.budget();
            let progress = self.session.advance(received, &mut budget, &mut self.router);
            received = &[];
            if progress == Progress::Waits || self.router.cuts.mostly() {
                self.drain();
            }
            match progress {
                Progress::NeedsInput => {
                    assert!(!self.session.can_go_on(), "it asked for more");
                    return;
                }
                Progress::Closing => {
                    assert!(self.session.is_closing());
                    return;
                }
                Progress::Yielded | Progress::Waits | Progress::Busy => {}
            }
        }
    }

    fn drain(&mut self) {
        let output = &mut self.session.output;
        let flushed = output.flush(&mut self.replies).expect("a Vec takes everything");
        assert_eq!(flushed.1, Flushed::All);
        assert!(output.is_empty() && output.pending_bytes() == 0);
        output.take_buffer();
    }
}

/// The router of a server with one worker, on a clock that goes with the operations. Replies that
/// tell of time and process are made and dropped, since they differ from run to run.
struct FuzzRouter<'a> {
    router: WorkerRouter,
    operations: u64,
    cuts: &'a Cuts,
}

impl Router for FuzzRouter<'_> {
    fn hash(&self, key: &[u8]) -> u64 {
        self.router.hash(key)
    }

    fn execute<'a>(
        &mut self,
        target: Target<'a>,
        verb: impl FnOnce() -> Verb<'a>,
        output: &mut Output,
    ) -> bool {
        if !self.cuts.mostly() {
            return false;
        }
        self.operations += 1;
        self.router.now = Ticks(self.router.now.0 + OPERATION_TICKS);
        if self.operations.is_multiple_of(MAINTAIN_OPERATIONS) {
            self.router.maintain();
        }
        self.router.execute(target, verb, output)
    }

    fn command(&mut self, request: &Request<'_>, noreply: bool, output: &mut Output) -> Next {
        if matches!(request, Request::Stats { .. }) {
            // What workers would be asked for has nobody to answer it here.
            output.here().push(b"(statistics)\r\n");
            self.router.command(request, noreply, &mut Output::default());
            return Next::Command;
        }
        self.router.command(request, noreply, output)
    }

    fn item_fits(&self, key: &[u8], flags: u32, value_bytes: usize) -> bool {
        self.router.item_fits(key, flags, value_bytes)
    }

    fn may_hold(&self, block_bytes: usize) -> bool {
        self.router.may_hold(block_bytes)
    }

    fn refused(&mut self, why: Refused) {
        self.router.refused(why);
    }

    fn login(&mut self, user: &[u8], password: &[u8]) -> Verdict {
        match [user, b"\0", password].concat() == RIGHT_LOGIN {
            true => Verdict::Accepted,
            false => Verdict::Refused,
        }
    }
}

fn router() -> WorkerRouter {
    // Made once: each hasher keeps a few bytes for good, and each bell a descriptor.
    static HASHER: OnceLock<KeyHasher> = OnceLock::new();
    static BELL: OnceLock<Arc<Bell>> = OnceLock::new();
    let hasher = HASHER.get_or_init(|| KeyHasher::new([7, 11])).clone();
    let bell = BELL.get_or_init(|| {
        let poll = mio::Poll::new().expect("descriptors are left");
        Arc::new(Bell::new(mio::Waker::new(poll.registry(), WAKER).expect("the same")))
    });
    let config = Config {
        workers: 1,
        memory_bytes_max: MEMORY_BYTES_MAX,
        item_bytes_max: ITEM_BYTES_MAX,
        shutdown: true,
        ..Config::default()
    };
    let rules = Rules {
        item_bytes_max: config.item_bytes_max,
        cas: config.cas,
        prefix_delimiter: config.prefix_delimiter,
    };
    let budget = Budget::new(config.memory_bytes_max, 1);
    let settings = Settings {
        budget: Arc::clone(&budget),
        evict: config.evict,
        hasher: hasher.clone(),
        sequence_start: 1,
    };
    let shards = Shards::new(vec![Shard::new(settings, rules)], vec![Arc::clone(bell)]);
    // `shutdown` ends the conversation and nothing else.
    let hooks = Hooks { stop: Some(Box::new(|_| ())), ..Hooks::default() };
    let shared =
        Arc::new(Shared::new(config, Clock::start(), budget, Vec::new(), None, None, hooks));
    let (shards, workers) = (Arc::new(shards), Vec::new());
    let mut router = WorkerRouter::new(Parts { id: 0, shards, hasher, rules, workers, shared });
    router.now = Ticks::from_seconds(START_SECONDS);
    router
}
