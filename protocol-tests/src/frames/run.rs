//! A whole run on frames: generate, play, compare, and on failure a shortened reproduction.

use super::generator::Generator;
use super::reply::{Reply, Watch, parse, same};
use super::request::{FLUSH, NOOP, Request};
use crate::differences::Pair;
use crate::stream::run::Plan;
use crate::stream::tokens::{Side, Tokens};
use crate::target::Target;
use crate::wire::{Connection, End, REPLY_TIMEOUT, Received};
use fastrand::Rng;
use std::collections::HashMap;
use std::fmt;
use std::io;
use std::thread;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// Requests that are pipelined.
const BATCH_REQUESTS_MAX: usize = 80;
/// How long a server may take to close a connection.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(3);
/// Requests remembered for a reproduction.
const HISTORY_MAX: usize = 40_000;
/// How many shorter histories are tried.
const ATTEMPTS_MAX: usize = 300;

/// What a run found.
#[derive(Debug, Default)]
pub struct Report {
    /// Requests sent to each server.
    pub requests: usize,
    /// Differences.
    pub unexplained: Vec<Difference>,
}

/// Replies that should have been the same.
#[derive(Debug, Clone)]
pub struct Difference {
    /// The request, and those before it that lead to this.
    pub history: Vec<Request>,
    left: Vec<Reply>,
    right: Vec<Reply>,
    ends: [End; 2],
}

/// How a batch is cut into writes.
#[derive(Debug, Clone)]
enum Cuts {
    Whole,
    EveryByte,
    Random(Rng),
}

struct Players<'a> {
    left: &'a Target,
    right: &'a Target,
    connections: Option<(Connection, Connection)>,
    tokens: Tokens,
    /// Of the last request.
    opaque: u32,
}

/// Plays random requests to both servers.
///
/// # Errors
/// A connection failed.
pub fn run(left: &Target, right: &Target, plan: Plan) -> io::Result<Report> {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
    let now = u32::try_from(now).unwrap_or(u32::MAX);
    let who = Pair { left: left.identity(), right: right.identity() };
    let mut generator = Generator::new(plan.seed, now, !who.has_old_memcached());
    let tokens = Tokens::default();
    let mut pair = Players { left, right, connections: None, tokens, opaque: 0 };
    pair.reset()?;
    let mut report = Report::default();
    let mut history: Vec<Request> = Vec::new();
    while report.requests < plan.commands && report.unexplained.len() < plan.failures_max {
        let batch = next_batch(&mut generator);
        let cuts = match generator.random.u32(..10) {
            0 if batch_bytes(&batch) < 20_000 => Cuts::EveryByte,
            0..=4 => Cuts::Random(generator.random.fork()),
            _ => Cuts::Whole,
        };
        report.requests += batch.len();
        let outcome = pair.play(&batch, cuts)?;
        history.extend(batch);
        if let Some(difference) = outcome {
            eprintln!("looking for a short history of {difference}");
            report.unexplained.push(pair.shorten(std::mem::take(&mut history), difference));
            pair.reset()?;
        }
        if HISTORY_MAX < history.len() {
            history.drain(..HISTORY_MAX / 2);
        }
    }
    Ok(report)
}

fn batch_bytes(batch: &[Request]) -> usize {
    let mut bytes = Vec::new();
    for request in batch {
        request.render(0, &Tokens::default(), Side::Left, &mut bytes);
    }
    bytes.len()
}

/// A few requests, of which the last may close the connection. What writes in place comes after
/// the replies before it have left.
fn next_batch(generator: &mut Generator) -> Vec<Request> {
    let count = generator.random.usize(1..=BATCH_REQUESTS_MAX);
    let mut batch: Vec<Request> = Vec::new();
    let mut holds_items = false;
    while batch.len() < count {
        let request = generator.request();
        // memcached drops replies that have not left when it does not understand what follows.
        let forgets = request.traits.closes && !batch.is_empty();
        if forgets || request.traits.writes_in_place && holds_items {
            batch.push(Request::new(NOOP));
        }
        holds_items &= !request.traits.writes_in_place && request.opcode != NOOP;
        holds_items |= request.traits.reads;
        let closes = request.traits.closes;
        batch.push(request);
        if closes {
            break;
        }
    }
    batch
}

impl Players<'_> {
    /// Empties both servers and moves their tokens away from the small numbers that requests use
    /// as tokens nobody has.
    fn reset(&mut self) -> io::Result<()> {
        self.connections = None;
        self.tokens = Tokens::default();
        let mut set = Request { extras: vec![0; 8], ..Request::on(0x11, b"z") };
        let mut batch = vec![Request::new(FLUSH)];
        for byte in b"0123456789" {
            set.key = vec![*byte];
            batch.insert(0, set.clone());
        }
        self.play(&batch, Cuts::Whole).map(drop)
    }

    /// Sends a batch to both servers and compares what they answer to each request.
    fn play(&mut self, batch: &[Request], cuts: Cuts) -> io::Result<Option<Difference>> {
        let first_opaque = self.opaque.wrapping_add(1);
        let closes = batch.last().is_some_and(|request| request.traits.closes);
        let render = |side| {
            let (mut pieces, mut opaque) = (Vec::new(), first_opaque);
            for request in batch {
                let mut bytes = Vec::new();
                request.render(opaque, &self.tokens, side, &mut bytes);
                pieces.push(bytes);
                opaque = opaque.wrapping_add(1);
            }
            if !closes {
                let mut bytes = Vec::new();
                Request::new(NOOP).render(opaque, &self.tokens, side, &mut bytes);
                pieces.push(bytes);
            }
            cuts.clone().apply(pieces, closes)
        };
        let requests = [render(Side::Left), render(Side::Right)];
        let last_opaque = first_opaque.wrapping_add(batch.len() as u32);
        self.opaque = last_opaque;
        let until = (!closes).then_some(last_opaque);
        let [left, right] = self.exchange(&requests, until)?;
        Ok(self.judge(batch, first_opaque, &left, &right))
    }

    /// Both servers work at the same time.
    fn exchange(
        &mut self,
        requests: &[Vec<Vec<u8>>; 2],
        until: Option<u32>,
    ) -> io::Result<[Received; 2]> {
        if self.connections.is_none() {
            self.connections = Some((self.left.connect()?, self.right.connect()?));
        }
        let Some((left, right)) = &mut self.connections else {
            return Err(io::Error::other("no connection"));
        };
        let ask = |connection: &mut Connection, pieces: &[Vec<u8>]| {
            let pieces: Vec<&[u8]> = pieces.iter().map(Vec::as_slice).collect();
            let mut watch = Watch::default();
            let timeout = if until.is_some() { REPLY_TIMEOUT } else { CLOSE_TIMEOUT };
            connection.exchange_until(&pieces, timeout, |stream| {
                until.is_some_and(|opaque| watch.is_answered(stream, opaque))
            })
        };
        let (left, right) = thread::scope(|scope| {
            let left = scope.spawn(|| ask(left, &requests[0]));
            let right = ask(right, &requests[1]);
            (left.join().unwrap_or_else(|_| Err(io::Error::other("a thread panicked"))), right)
        });
        let (left, right) = (left?, right?);
        if left.end != End::Complete || right.end != End::Complete {
            self.connections = None;
        }
        Ok([left, right])
    }

    fn judge(
        &mut self,
        batch: &[Request],
        first_opaque: u32,
        left: &Received,
        right: &Received,
    ) -> Option<Difference> {
        let by_opaque = |received: &Received| {
            let (replies, rest) = parse(&received.bytes);
            let mut found: HashMap<u32, Vec<Reply>> = HashMap::new();
            let order: Vec<u32> = replies.iter().map(|reply| reply.opaque).collect();
            let in_order = order.is_sorted_by_key(|opaque| opaque.wrapping_sub(first_opaque));
            replies
                .into_iter()
                .for_each(|reply| found.entry(reply.opaque).or_default().push(reply));
            (found, in_order && rest.is_empty())
        };
        let ((mut lefts, left_is_well), (mut rights, right_is_well)) =
            (by_opaque(left), by_opaque(right));
        for (at, request) in batch.iter().enumerate() {
            let opaque = first_opaque.wrapping_add(at as u32);
            let left_replies = lefts.remove(&opaque).unwrap_or_default();
            let right_replies = rights.remove(&opaque).unwrap_or_default();
            if !same(request, &left_replies, &right_replies, &mut self.tokens) {
                return Some(Difference {
                    history: batch[..=at].to_vec(),
                    left: left_replies,
                    right: right_replies,
                    ends: [left.end, right.end],
                });
            }
        }
        let same_end = left.end == right.end && left_is_well && right_is_well;
        (!same_end).then(|| Difference {
            history: batch.to_vec(),
            left: lefts.into_values().flatten().collect(),
            right: rights.into_values().flatten().collect(),
            ends: [left.end, right.end],
        })
    }

    /// Looks for a short history that shows a difference: of ever smaller parts, those that can be
    /// left out are.
    fn shorten(&mut self, history: Vec<Request>, difference: Difference) -> Difference {
        let keys: Vec<&[u8]> =
            difference.history.last().iter().map(|request| request.key.as_slice()).collect();
        let shares = |request: &&Request| keys.contains(&request.key.as_slice());
        let mut best: Option<Difference> = None;
        let mut kept: Vec<Request> = history.iter().filter(shares).cloned().collect();
        if self.replay(&kept).is_none() {
            kept = history;
        }
        let mut attempts = 0;
        let mut length = kept.len().div_ceil(2);
        while length > 0 && attempts < ATTEMPTS_MAX {
            let mut start = 0;
            while start < kept.len() && attempts < ATTEMPTS_MAX {
                let end = kept.len().min(start + length);
                let candidate = [&kept[..start], &kept[end..]].concat();
                attempts += 1;
                match self.replay(&candidate) {
                    Some(found) => (kept, best) = (candidate, Some(found)),
                    None => start = end,
                }
            }
            length /= 2;
        }
        Difference { history: kept, ..best.unwrap_or(difference) }
    }

    /// Plays requests one by one to empty servers; returns the first difference.
    fn replay(&mut self, history: &[Request]) -> Option<Difference> {
        self.reset().ok()?;
        history.iter().find_map(|request| {
            self.play(std::slice::from_ref(request), Cuts::Whole).ok().flatten()
        })
    }
}

impl Cuts {
    /// The pieces to write. A request that closes the connection is one of them: what a server has
    /// not read when it closes makes its last reply vanish.
    fn apply(self, mut requests: Vec<Vec<u8>>, closes: bool) -> Vec<Vec<u8>> {
        let closing = if closes { requests.pop() } else { None };
        let all = requests.concat();
        let mut pieces: Vec<Vec<u8>> = match self {
            Self::Whole => vec![all],
            Self::EveryByte => all.chunks(1).map(<[u8]>::to_vec).collect(),
            Self::Random(mut random) => {
                let (mut rest, mut pieces) = (all.as_slice(), Vec::new());
                while !rest.is_empty() {
                    let most = [3, 30, 300, 40_000][random.usize(..4)];
                    let (piece, behind) = rest.split_at(random.usize(1..=most).min(rest.len()));
                    pieces.push(piece.to_vec());
                    rest = behind;
                }
                pieces
            }
        };
        pieces.extend(closing);
        pieces.retain(|piece| !piece.is_empty());
        pieces
    }
}

impl fmt::Display for Difference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "a difference after these requests (the last 40):")?;
        for request in &self.history[self.history.len().saturating_sub(40)..] {
            writeln!(f, "    {request}")?;
        }
        for (name, replies, end) in
            [("left", &self.left, self.ends[0]), ("right", &self.right, self.ends[1])]
        {
            writeln!(f, "  {name}: {end:?}")?;
            for reply in replies.iter().take(5) {
                writeln!(f, "    {reply}")?;
            }
        }
        Ok(())
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{} frames to each server", self.requests)?;
        writeln!(f, "{:>8}  unexplained", self.unexplained.len())?;
        self.unexplained.iter().try_for_each(|difference| writeln!(f, "{difference}"))
    }
}
