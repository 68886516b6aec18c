//! Conversations with a session and one shard: no sockets, and a clock that the test moves. The
//! full range of commands is in `protocol-tests`; here is what needs to move time.

use crate::limits::KEYS_PER_COMMAND;
use crate::protocol::{Exptime, Request};
use crate::server::connection::output::{Flushed, Output};
use crate::server::connection::session::{Next, Progress, Router, Session, Target};
use crate::shard::operation::{Operation, Verb};
use crate::shard::{Rules, Shard, item_fits};
use crate::store::budget::Budget;
use crate::store::hash::KeyHasher;
use crate::store::{Settings, Ticks};

struct Rig {
    session: Session,
    router: OneShard,
}

struct OneShard {
    shard: Shard,
    hasher: KeyHasher,
    rules: Rules,
    now: Ticks,
    /// Somebody else holds the shard.
    busy: bool,
}

impl Router for OneShard {
    fn hash(&self, key: &[u8]) -> u64 {
        self.hasher.hash(key)
    }

    fn execute<'a>(
        &mut self,
        target: Target<'a>,
        verb: impl FnOnce() -> Verb<'a>,
        output: &mut Output,
    ) -> bool {
        if self.busy {
            return false;
        }
        let Target { key, hash, form, .. } = target;
        let operation = Operation { key, hash, form, verb: verb() };
        self.shard.execute(operation, self.now, output.here());
        true
    }

    fn command(&mut self, request: &Request<'_>, _: bool, output: &mut Output) -> Next {
        if let Request::FlushAll { delay } = request {
            match delay {
                Exptime::Relative(seconds) => {
                    self.shard.flush_later(self.now.plus_seconds(u64::from(*seconds)));
                }
                _ => self.shard.flush(),
            }
            output.here().push(b"OK\r\n");
        }
        Next::Command
    }

    fn item_fits(&self, key: &[u8], flags: u32, value_bytes: usize) -> bool {
        item_fits(&self.rules, key.len(), flags, value_bytes)
    }

    fn may_hold(&self, _: usize) -> bool {
        true
    }
}

impl Rig {
    fn new(item_bytes_max: u32, evict: bool) -> Self {
        let rules = Rules { item_bytes_max, cas: true, prefix_delimiter: b':' };
        let hasher = KeyHasher::new([3, 4]);
        let settings = Settings {
            budget: Budget::new(4 << 20, 1),
            evict,
            hasher: hasher.clone(),
            sequence_start: 1,
        };
        let now = Ticks::from_seconds(1_700_000_000);
        let router =
            OneShard { shard: Shard::new(settings, rules), hasher, rules, now, busy: false };
        Self { session: Session::default(), router }
    }

    fn advance(&mut self, seconds: u64) {
        self.router.now = self.router.now.plus_seconds(seconds);
    }

    fn say(&mut self, bytes: &[u8]) -> String {
        self.session.advance(bytes, &mut usize::MAX.clone(), &mut self.router);
        let mut sent = Vec::new();
        let flushed = self.session.output.flush(&mut sent).expect("a Vec takes all");
        assert_eq!(flushed.1, Flushed::All);
        String::from_utf8_lossy(&sent).into_owned()
    }

    fn check(&mut self, said: &str, expected: &str) {
        let answer = self.say(said.as_bytes());
        assert_eq!(answer, expected, "to {said:?}");
    }
}

#[test]
fn expiry_is_exact() {
    let mut rig = Rig::new(1 << 20, true);
    rig.check("set k 0 10 1\r\nx\r\n", "STORED\r\n");
    rig.check("mg k t\r\n", "HD t10\r\n");
    rig.router.now.0 += 999;
    rig.check("mg k t\r\n", "HD t1\r\n");
    rig.router.now.0 += 1;
    rig.check("get k\r\n", "END\r\n");
    rig.check("set k 0 1700000020 1\r\nx\r\n", "STORED\r\n");
    rig.advance(9);
    rig.check("get k\r\n", "VALUE k 0 1\r\nx\r\nEND\r\n");
    rig.advance(1);
    rig.check("get k\r\n", "END\r\n");
}

#[test]
fn touch_and_gat_move_the_expiry() {
    let mut rig = Rig::new(1 << 20, true);
    rig.check("set k 7 10 1\r\nx\r\n", "STORED\r\n");
    rig.check("touch k 100\r\n", "TOUCHED\r\n");
    rig.advance(50);
    rig.check("gat 200 k\r\n", "VALUE k 7 1\r\nx\r\nEND\r\n");
    rig.advance(150);
    rig.check("mg k t f v\r\n", "VA 1 t50 f7\r\nx\r\n");
    rig.check("touch k -1\r\n", "TOUCHED\r\n");
    rig.check("get k\r\n", "END\r\n");
}

#[test]
fn a_delayed_flush_takes_what_was_stored_before_it() {
    let mut rig = Rig::new(1 << 20, true);
    rig.check(
        "set a 0 0 1\r\n1\r\nflush_all 10\r\nget a\r\n",
        "STORED\r\nOK\r\nVALUE a 0 1\r\n1\r\nEND\r\n",
    );
    rig.advance(5);
    rig.check("set b 0 0 1\r\n2\r\n", "STORED\r\n");
    rig.advance(5);
    rig.check("set c 0 0 1\r\n3\r\nget a b c\r\n", "STORED\r\nVALUE c 0 1\r\n3\r\nEND\r\n");
    rig.advance(100);
    rig.check("get c\r\n", "VALUE c 0 1\r\n3\r\nEND\r\n");
}

#[test]
fn one_client_wins_the_right_to_recompute() {
    let mut rig = Rig::new(1 << 20, true);
    rig.check("mg k N30 v t\r\n", "VA 0 t30 W\r\n\r\n");
    rig.check("mg k N30 v t\r\n", "VA 0 t30 Z\r\n\r\n");
    rig.check("ms k 3 T60\r\nnew\r\n", "HD\r\n");
    rig.check("mg k R30 v\r\n", "VA 3\r\nnew\r\n");
    rig.advance(40);
    rig.check("mg k R30 v\r\n", "VA 3 W\r\nnew\r\n");
    rig.check("mg k R30 v\r\n", "VA 3 Z\r\nnew\r\n");
    rig.check("md k I T30\r\n", "HD\r\n");
    rig.check("mg k v t\r\n", "VA 3 t30 X W\r\nnew\r\n");
    rig.check("mg k v t\r\n", "VA 3 t30 Z X\r\nnew\r\n");
}

#[test]
fn a_token_stays_until_the_item_changes_wherever_it_moves() {
    let mut rig = Rig::new(1 << 20, true);
    rig.check("set k 0 0 1\r\nx\r\n", "STORED\r\n");
    let token = rig.say(b"mg k c\r\n");
    // Far more than the memory holds, with the item asked for again and again: it moves.
    for round in 0..200 {
        for key in 0..100 {
            let filler = "f".repeat(1_000);
            rig.say(
                format!("set filler-{round}-{key} 0 0 1000 noreply\r\n{filler}\r\n").as_bytes(),
            );
        }
        assert_eq!(rig.say(b"mg k c\r\n"), token, "round {round}");
    }
    let token = token.trim().trim_start_matches("HD c").to_owned();
    rig.check(&format!("cas k 0 0 1 {token}\r\ny\r\n"), "STORED\r\n");
    rig.check(&format!("cas k 0 0 1 {token}\r\nz\r\n"), "EXISTS\r\n");
    rig.check("touch k 0\r\nget k\r\n", "TOUCHED\r\nVALUE k 0 1\r\ny\r\nEND\r\n");
}

#[test]
fn without_eviction_a_full_store_says_so_and_goes_on() {
    let mut rig = Rig::new(1 << 20, false);
    let filler = "f".repeat(1_000);
    let refused = (0..10_000)
        .map(|key| rig.say(format!("set k{key} 0 0 1000\r\n{filler}\r\n").as_bytes()))
        .find(|answer| answer != "STORED\r\n");
    assert_eq!(refused.as_deref(), Some("SERVER_ERROR out of memory storing object\r\n"));
    rig.check("incr k0 1\r\n", "CLIENT_ERROR cannot increment or decrement non-numeric value\r\n");
    rig.check("delete k1\r\nget k1\r\n", "DELETED\r\nEND\r\n");
    rig.check("get k0\r\n", &format!("VALUE k0 0 1000\r\n{filler}\r\nEND\r\n"));
}

#[test]
fn however_the_bytes_arrive_the_replies_are_the_same() {
    let conversation = b"set a 1 0 5\r\nhello\r\nget a b\r\nappend a 0 0 1\r\n!\r\ngets\r\n\
        set big 0 0 3000\r\nshort\r\nms m 2 c T0\r\nok\r\nmg m v k Oq\r\nset a 0 0 2\r\nxxx\r\n\
        mn\r\nincr n 1\r\nset n 0 0 2\r\n10\r\ndecr n 1\r\nget n\r\nbogus\r\n\r\nget a\n";
    let mut padded = conversation.to_vec();
    // The announced 3000 bytes take the rest of the conversation in: make them up first.
    let at = padded.windows(7).position(|window| window == b"short\r\n").expect("it is there");
    padded.splice(at..at + 5, std::iter::repeat_n(b'b', 3000));
    let expected = Rig::new(1 << 20, true).say(&padded);
    assert!(expected.contains("CLIENT_ERROR bad data chunk"));
    for piece_bytes in [1, 2, 3, 7, 100, 1000, 2047] {
        let mut rig = Rig::new(1 << 20, true);
        let answer: String = padded.chunks(piece_bytes).map(|piece| rig.say(piece)).collect();
        assert_eq!(answer, expected, "in pieces of {piece_bytes}");
    }
}

/// Once a list took a turn for each 64 KiB, however many keys that was: 500 clients with lists of
/// one-letter keys held everybody else up for seconds.
#[test]
fn a_long_list_of_keys_does_not_hold_up_other_clients() {
    const COMMANDS: usize = 20;
    let keys = 10_000;
    let list = format!("get{}\r\n", " k".repeat(keys));
    // Also without an end in sight.
    for received in [list.as_bytes(), &list.as_bytes()[..list.len() - 2]] {
        let mut rig = Rig::new(1 << 20, true);
        rig.check("set k 0 0 1\r\nx\r\n", "STORED\r\n");
        let (mut answered, mut received) = (0, received);
        while answered < keys - 1 {
            let mut budget = COMMANDS;
            rig.session.advance(received, &mut budget, &mut rig.router);
            received = b"";
            let mut sent = Vec::new();
            rig.session.output.flush(&mut sent).expect("a Vec takes all");
            let now = String::from_utf8_lossy(&sent).matches("VALUE k ").count();
            assert!(0 < now && now <= (COMMANDS + 1) * KEYS_PER_COMMAND, "{now} keys in a turn");
            answered += now;
        }
    }
}

/// Once only data blocks and replies were counted, and a read's worth of commands came on top.
#[test]
fn commands_that_wait_are_memory_that_is_held() {
    let mut rig = Rig::new(1 << 20, true);
    assert_eq!(rig.session.held_bytes(), 0);
    let commands = b"get none\r\n".repeat(5000);
    rig.session.advance(&commands, &mut 1, &mut rig.router);
    let held = rig.session.held_bytes();
    assert!((commands.len() - 10..commands.len() + 1000).contains(&held), "{held}");
    rig.say(b"");
    assert_eq!(rig.session.held_bytes(), 0);
}

#[test]
fn a_data_block_counts_before_it_has_arrived_and_a_large_one_as_it_does() {
    const MIB: usize = 1 << 20;
    // Announced, arrived, held; the line end counts too.
    let cases = [
        (1000, 0, 1002),
        (1000, 600, 1002),
        (MIB - 2, 0, MIB),
        (4 * MIB, 0, MIB),
        (4 * MIB, 1000, MIB),
        (4 * MIB, 3 * MIB, 3 * MIB),
    ];
    for (announced_bytes, arrived_bytes, held_bytes) in cases {
        let mut rig = Rig::new(8 << 20, true);
        rig.say(format!("set a 0 0 {announced_bytes}\r\n").as_bytes());
        rig.say(&vec![b'x'; arrived_bytes]);
        assert_eq!(rig.session.held_bytes(), held_bytes, "{arrived_bytes} of {announced_bytes}");
    }
}

#[test]
fn an_item_too_large_for_its_limit_takes_the_old_value_with_it() {
    let mut rig = Rig::new(2048, true);
    let large = "x".repeat(2048);
    for (verb, left) in [("set", "END\r\n"), ("add", "VALUE k 0 1\r\nx\r\nEND\r\n")] {
        rig.check("set k 0 0 1\r\nx\r\n", "STORED\r\n");
        let too_large = "SERVER_ERROR object too large for cache\r\n";
        rig.check(&format!("{verb} k 0 0 2048\r\n{large}\r\n"), too_large);
        rig.check("get k\r\n", left);
    }
}

#[test]
fn the_key_of_a_command_that_is_alone_is_seen_before_it_is_executed() {
    let cases: [(&[u8], Option<&[u8]>); 10] = [
        (b"get a\r\n", Some(b"a")),
        (b"mg some-key v\r\n", Some(b"some-key")),
        (b"set b 0 0 3\r\nabc\r\n", Some(b"b")),
        (b"ms c 3 T0\r\nabc\r\n", Some(b"c")),
        // Of these the session sees to what comes next by itself.
        (b"get a\r\nget b\r\n", None),
        (b"set b 0 0 3\r\nabc\r\nget", None),
        // Not whole.
        (b"", None),
        (b"get a", None),
        (b"set b 0 0 3\r\nabc", None),
        // No key, or none that is looked up soon.
        (b"stats\r\n", None),
    ];
    for (said, key) in cases {
        let mut rig = Rig::new(1 << 20, true);
        assert_eq!(rig.session.peek_only_key(said), key, "{}", said.escape_ascii());
        rig.say(b"set z 0 0 9\r\n");
        assert_eq!(rig.session.peek_only_key(said), None, "within a data block");
        rig.say(b"123456789\r\nge");
        assert_eq!(rig.session.peek_only_key(said), None, "behind a part of a line");
    }
}

/// What is said is the same whether shards are free or held by others now and then: a command that
/// finds its shard held is not consumed, and none of its effects is there twice.
#[test]
fn a_held_shard_delays_commands_and_changes_nothing() {
    let large = "v".repeat(100 << 10);
    let said = format!(
        "set a 1 0 1\r\nx\r\nget a b c a\r\nset b 0 0 {}\r\n{large}\r\nappend a 0 0 1\r\ny\r\n\
         set c 0 0 {}\r\n{large}{large}{large}\r\nget a b\r\nincr n 1\r\n\
         ms n 1 I\r\n5\r\nincr n 1\r\nmg n v\r\ngat 100 a n\r\ndelete b\r\n\
         set b 0 0 3 noreply\r\nabc\r\ncas b 0 0 1 7\r\nz\r\n",
        large.len(),
        3 * large.len()
    );
    let play = |held: fn(usize) -> bool, piece_bytes: usize| {
        let mut rig = Rig::new(200 << 10, true);
        let mut sent = Vec::new();
        let mut tries = 0;
        for piece in said.as_bytes().chunks(piece_bytes) {
            let mut received = piece;
            loop {
                rig.router.busy = held(tries);
                tries += 1;
                let mut budget = 1;
                let progress = rig.session.advance(received, &mut budget, &mut rig.router);
                received = &[];
                while !rig.session.output.is_empty() {
                    rig.session.output.flush(&mut sent).expect("a Vec takes all");
                }
                if progress == Progress::NeedsInput {
                    break;
                }
                assert_eq!(rig.router.busy && budget == 1, progress == Progress::Busy);
            }
        }
        String::from_utf8(sent).expect("text")
    };
    let expected = play(|_| false, usize::MAX);
    assert!(expected.ends_with("DELETED\r\nEXISTS\r\n"));
    for piece_bytes in [usize::MAX, 1000, 7, 1] {
        assert_eq!(play(|tries| tries % 2 == 0, piece_bytes), expected, "{piece_bytes}");
        assert_eq!(play(|tries| tries % 7 != 0, piece_bytes), expected, "{piece_bytes}");
    }
}
