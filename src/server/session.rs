//! The state of one client's conversation: bytes in, operations out, replies in order.
//!
//! Sans I/O: it is handed bytes and a [`Router`] that executes operations, and knows neither the
//! socket nor other workers, so that tests and fuzzers can drive it. Every command is bounded work:
//! [`Session::advance`] stops when its budget is used up, the output is large, or the router has no
//! room, and goes on where it stopped.
//!
//! ```text
//!          line                   data block complete
//! Command -------> executed    .-----------------------> executed, back to Command
//!    |                         |
//!    |  storage command        |
//!    +---------------------> Value (the block arrives in a buffer of its own)
//!    |  refused, length known
//!    +---------------------> Swallow (so many bytes are dropped)
//!    |  get without an end in sight
//!    `---------------------> Keys (answered as they arrive)
//! ```

use super::output::Output;
use crate::limits::{
    KEY_BYTES_MAX, LINE_BYTES_MAX, OUTPUT_BYTES_MAX, READ_BYTES, VALUE_BYTES_BY_REFERENCE_MIN,
};
use crate::protocol::parse::Line;
use crate::protocol::{
    Exptime, MetaArgs, MetaVerb, Rejection, Request, StoreArgs, StoreMode, parse_line, reply,
};
use crate::shard::operation::{Data, Operation, Verb};
use bytes::Bytes;

/// Line end of a data block.
const DATA_END: &[u8] = b"\r\n";

/// Lookups announced at a time: about as many reads as a processor has under way.
const WARM_MAX: usize = 16;

/// Memory a value's buffer may claim before its bytes have arrived.
const VALUE_BYTES_UNSEEN_MAX: usize = 1 << 20;

/// Executes what a session asks for.
pub trait Router {
    /// The hash of a key.
    fn hash(&self, key: &[u8]) -> u64;
    /// Executes an operation, here or elsewhere; its reply goes to `output`, in order.
    fn execute(&mut self, operation: Operation<'_>, output: &mut Output);
    /// Lookups of these hashes are coming. May change the list.
    fn warm(&mut self, _hashes: &mut Vec<u64>) {}
    /// Executes a command that is not about a key. Answers false to close the connection.
    fn command(&mut self, request: &Request<'_>, noreply: bool, output: &mut Output) -> bool;
    /// Whether an item of this size is within the limits.
    fn item_fits(&mut self, key: &[u8], flags: u32, value_bytes: usize) -> bool;
    /// Whether a data block of this size may be kept until it is complete.
    fn may_hold(&mut self, block_bytes: usize) -> bool;
    /// Whether more operations can be taken now.
    fn has_room(&self) -> bool;
}

/// See the module's text.
#[derive(Debug, Default)]
pub struct Session {
    state: State,
    /// Received and not yet consumed.
    input: Vec<u8>,
    /// How much of `input` is consumed already.
    consumed: usize,
    /// Replies.
    pub output: Output,
    closing: bool,
    /// What waits in `input` is not a whole command.
    incomplete: bool,
}

#[derive(Debug, Default)]
enum State {
    #[default]
    Command,
    Value(Box<PendingStore>),
    Swallow {
        bytes_left: usize,
    },
    Keys {
        touch: Option<Exptime>,
        with_cas: bool,
    },
    /// A key in a long list of keys was too long: the rest of the line is dropped.
    SkipLine,
}

/// A storage command whose data block has not fully arrived.
#[derive(Debug)]
struct PendingStore {
    key: Vec<u8>,
    args: PendingArgs,
    noreply: bool,
    /// The block and its line end.
    block: Vec<u8>,
    block_bytes: usize,
}

#[derive(Debug, Clone, Copy)]
enum PendingArgs {
    Classic(StoreArgs),
    Meta(StoreMode, MetaArgs),
}

impl PendingArgs {
    fn verb<'a>(&'a self, data: Data<'a>) -> Verb<'a> {
        match self {
            Self::Classic(args) => Verb::Store(*args, data),
            Self::Meta(mode, args) => Verb::MetaStore(args, *mode, data),
        }
    }

    fn flags(&self) -> u32 {
        match self {
            Self::Classic(args) => args.flags,
            Self::Meta(_, args) => args.flags,
        }
    }

    /// Whether a refusal for size removes the item that is there: it would pass for current.
    fn replaces(&self) -> bool {
        match self {
            Self::Classic(args) => args.mode == StoreMode::Set,
            Self::Meta(..) => true,
        }
    }

    fn is_meta(&self) -> bool {
        matches!(self, Self::Meta(..))
    }
}

/// Why [`Session::advance`] came back.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Progress {
    /// Everything that could be done with the bytes so far is done.
    NeedsInput,
    /// There is more to do in a later turn.
    Yielded,
    /// The output must leave first.
    OutputFull,
    /// The conversation is over once the output has left.
    Closing,
}

/// What one step did.
enum Step {
    /// Consumed so many bytes; go on.
    Consumed(usize),
    /// The rest of the input is not enough.
    Incomplete,
    Close,
}

impl Session {
    /// Takes what was received, does up to `budget` commands, and keeps the rest.
    pub fn advance<R: Router>(
        &mut self,
        received: &[u8],
        budget: &mut usize,
        router: &mut R,
    ) -> Progress {
        if self.input.is_empty() {
            // The usual case: whole commands, executed where they were read.
            let (used, progress) = self.consume(received, budget, router);
            self.keep(&received[used..]);
            self.incomplete = progress == Progress::NeedsInput;
            return progress;
        }
        self.keep(received);
        let input = std::mem::take(&mut self.input);
        let (used, progress) = self.consume(&input[self.consumed..], budget, router);
        self.consumed += used;
        if self.consumed < input.len() {
            self.input = input;
        } else {
            self.consumed = 0;
        }
        self.incomplete = progress == Progress::NeedsInput;
        progress
    }

    /// Whether input waits that is not consumed.
    pub fn has_input(&self) -> bool {
        self.consumed < self.input.len()
    }

    /// Whether the input that waits may hold a whole command: it does unless the last call of
    /// [`Session::advance`] asked for more.
    pub fn can_go_on(&self) -> bool {
        self.has_input() && !self.incomplete
    }

    /// The conversation is over.
    pub fn is_closing(&self) -> bool {
        self.closing
    }

    /// Memory the conversation holds outside the store: a data block that is arriving, replies
    /// that wait, and values they refer to.
    pub fn held_bytes(&self) -> usize {
        let block_bytes = match &self.state {
            State::Value(pending) => pending.block.capacity(),
            _ => 0,
        };
        block_bytes + self.output.pending_bytes()
    }

    /// Nothing is under way: the next byte would begin a command.
    pub fn is_idle(&self) -> bool {
        matches!(self.state, State::Command) && self.input.is_empty() && self.output.is_empty()
    }

    /// memcached's name for what the connection does, for `stats conns`.
    pub fn state_name(&self) -> &'static str {
        match self.state {
            _ if self.closing => "conn_closing",
            State::Command if self.has_input() => "conn_parse_cmd",
            State::Command => "conn_read",
            State::Value(_) => "conn_nread",
            State::Swallow { .. } => "conn_swallow",
            State::Keys { .. } | State::SkipLine => "conn_parse_cmd",
        }
    }

    fn keep(&mut self, bytes: &[u8]) {
        if bytes.is_empty() {
            return;
        }
        if self.consumed > 0 {
            self.input.drain(..self.consumed);
            self.consumed = 0;
        }
        self.input.extend_from_slice(bytes);
    }

    fn consume<R: Router>(
        &mut self,
        input: &[u8],
        budget: &mut usize,
        router: &mut R,
    ) -> (usize, Progress) {
        let mut used = 0;
        let mut commands_warmed = 0;
        loop {
            if commands_warmed == 0 && matches!(self.state, State::Command) {
                commands_warmed = warm_commands(&input[used..], router);
            }
            commands_warmed = commands_warmed.saturating_sub(1);
            if self.closing {
                return (input.len(), Progress::Closing);
            }
            let can_finish =
                matches!(&self.state, State::Value(p) if p.block.len() == p.block_bytes);
            if used == input.len() && !can_finish {
                return (used, Progress::NeedsInput);
            }
            if *budget == 0 || !router.has_room() {
                return (used, Progress::Yielded);
            }
            if self.output.pending_bytes() > OUTPUT_BYTES_MAX {
                return (used, Progress::OutputFull);
            }
            match self.step(&input[used..], budget, router) {
                Step::Consumed(bytes) => used += bytes,
                Step::Incomplete => return (used, Progress::NeedsInput),
                Step::Close => self.closing = true,
            }
        }
    }

    #[inline]
    fn step<R: Router>(&mut self, input: &[u8], budget: &mut usize, router: &mut R) -> Step {
        match &mut self.state {
            State::Command => self.step_command(input, budget, router),
            State::Value(_) => self.step_value(input, budget, router),
            State::Swallow { bytes_left } => {
                let dropped = (*bytes_left).min(input.len());
                *bytes_left -= dropped;
                if *bytes_left == 0 {
                    self.state = State::Command;
                }
                Step::Consumed(dropped)
            }
            State::Keys { touch, with_cas } => {
                let (touch, with_cas) = (*touch, *with_cas);
                self.step_keys(input, touch, with_cas, budget, router)
            }
            State::SkipLine => match memchr::memchr(b'\n', input) {
                Some(end) => {
                    self.state = State::Command;
                    Step::Consumed(end + 1)
                }
                None => Step::Consumed(input.len()),
            },
        }
    }

    fn step_command<R: Router>(
        &mut self,
        input: &[u8],
        budget: &mut usize,
        router: &mut R,
    ) -> Step {
        let Some(newline) = memchr::memchr(b'\n', input) else {
            return self.step_without_end(input);
        };
        let line_end_bytes = if newline > 0 && input[newline - 1] == b'\r' { 2 } else { 1 };
        let line = &input[..newline + 1 - line_end_bytes];
        *budget -= 1;
        log::debug!("<{}", line.escape_ascii());
        match parse_line(line, line_end_bytes) {
            Ok(Line { request: Request::Get { touch, with_cas, keys }, .. }) => {
                self.get(&input[..=newline], keys, touch, with_cas, budget, router)
            }
            Ok(line) => self.execute(line, &input[newline + 1..], newline + 1, router),
            Err(Rejection::Answer { reply, swallow }) => {
                self.output.here().push(reply);
                if let Some(value_bytes) = swallow {
                    let bytes_left = value_bytes as usize + DATA_END.len();
                    self.state = State::Swallow { bytes_left };
                }
                Step::Consumed(newline + 1)
            }
            Err(Rejection::Close) => Step::Close,
        }
    }

    /// A line that has not ended. Long lists of keys are answered as they come; any other line has
    /// a limit.
    fn step_without_end(&mut self, input: &[u8]) -> Step {
        if input.len() <= LINE_BYTES_MAX {
            return Step::Incomplete;
        }
        let start = input.iter().position(|byte| *byte != b' ').unwrap_or(input.len());
        let line = &input[start..];
        let with_cas = line.starts_with(b"gets ");
        if start <= 100 && (with_cas || line.starts_with(b"get ")) {
            self.state = State::Keys { touch: None, with_cas };
            return Step::Consumed(start + if with_cas { 5 } else { 4 });
        }
        Step::Close
    }

    /// A get whose whole line is here.
    fn get<R: Router>(
        &mut self,
        line: &[u8],
        keys: &[u8],
        touch: Option<Exptime>,
        with_cas: bool,
        budget: &mut usize,
        router: &mut R,
    ) -> Step {
        if keys.len() <= KEY_BYTES_MAX && memchr::memchr(b' ', keys).is_none() {
            // The commonest request: one key.
            self.get_one(keys, touch, with_cas, router);
            self.output.here().push(reply::END);
            return Step::Consumed(line.len());
        }
        // One key too long spoils the whole command, before anything of it is answered.
        let too_long = |key: &[u8]| key.len() > KEY_BYTES_MAX;
        if keys.len() > KEY_BYTES_MAX && keys.split(|byte| *byte == b' ').any(too_long) {
            self.output.here().push(reply::BAD_FORMAT);
            return Step::Consumed(line.len());
        }
        self.state = State::Keys { touch, with_cas };
        // Keys start where the verb's arguments do; `keys` is a part of `line`.
        let behind_keys = if line.ends_with(b"\r\n") { 2 } else { 1 };
        let before = line.len() - behind_keys - keys.len();
        match self.step_keys(&line[before..], touch, with_cas, budget, router) {
            Step::Consumed(used) => Step::Consumed(before + used),
            other => other,
        }
    }

    /// Answers the keys of a list up to its end, or as far as there is room.
    fn step_keys<R: Router>(
        &mut self,
        input: &[u8],
        touch: Option<Exptime>,
        with_cas: bool,
        budget: &mut usize,
        router: &mut R,
    ) -> Step {
        let mut at = 0;
        let mut keys_warmed = 0;
        loop {
            if keys_warmed == 0 {
                keys_warmed = warm_keys(&input[at..], router);
            }
            keys_warmed -= 1;
            at += input[at..].iter().take_while(|byte| **byte == b' ').count();
            let rest = &input[at..];
            let Some(end) = memchr::memchr2(b' ', b'\n', rest) else {
                return self.keep_partial_key(rest, at);
            };
            let line_ends = rest[end] == b'\n';
            let mut key = &rest[..end];
            if line_ends {
                key = key.strip_suffix(b"\r").unwrap_or(key);
            }
            if key.len() > KEY_BYTES_MAX {
                self.output.here().push(reply::BAD_FORMAT);
                self.state = State::SkipLine;
                return Step::Consumed(at);
            }
            if !key.is_empty() {
                if !router.has_room() || self.output.pending_bytes() > OUTPUT_BYTES_MAX {
                    return Step::Consumed(at);
                }
                self.get_one(key, touch, with_cas, router);
            }
            at += end;
            if line_ends {
                self.output.here().push(reply::END);
                self.state = State::Command;
                return Step::Consumed(at + 1);
            }
            // Long lists share the connection's turn with nobody, but they do end it.
            if at > READ_BYTES {
                *budget = 0;
                return Step::Consumed(at);
            }
        }
    }

    /// The input ends within a key.
    fn keep_partial_key(&mut self, rest: &[u8], at: usize) -> Step {
        if rest.len() > KEY_BYTES_MAX + 1 {
            self.output.here().push(reply::BAD_FORMAT);
            self.state = State::SkipLine;
            return Step::Consumed(at);
        }
        if at > 0 { Step::Consumed(at) } else { Step::Incomplete }
    }

    #[inline]
    fn get_one<R: Router>(
        &mut self,
        key: &[u8],
        touch: Option<Exptime>,
        with_cas: bool,
        router: &mut R,
    ) {
        let verb = match touch {
            None => Verb::Get { with_cas },
            Some(exptime) => Verb::GetAndTouch { with_cas, exptime },
        };
        let operation = Operation { key, hash: router.hash(key), noreply: false, verb };
        router.execute(operation, &mut self.output);
    }

    /// Executes a command other than get. `behind` is the input after its line.
    fn execute<R: Router>(
        &mut self,
        line: Line<'_>,
        behind: &[u8],
        line_bytes: usize,
        router: &mut R,
    ) -> Step {
        let noreply = line.noreply;
        let (key, verb): (&[u8], _) = match &line.request {
            Request::Delete { key } => (key, Verb::Delete),
            Request::Arithmetic { key, increment, delta } => {
                (key, Verb::Arithmetic { increment: *increment, delta: *delta })
            }
            Request::Touch { key, exptime } => (key, Verb::Touch { exptime: *exptime }),
            Request::Meta { verb, key, args } => (key, meta_verb(*verb, args)),
            Request::Store { key, args, value_bytes } => {
                let args = PendingArgs::Classic(*args);
                let used = self.store(key, &args, noreply, *value_bytes, behind, router);
                return Step::Consumed(line_bytes + used);
            }
            Request::MetaStore { key, mode, args, value_bytes } => {
                let args = PendingArgs::Meta(*mode, *args);
                let used = self.store(key, &args, noreply, *value_bytes, behind, router);
                return Step::Consumed(line_bytes + used);
            }
            other => {
                let goes_on = router.command(other, noreply, &mut self.output);
                return if goes_on { Step::Consumed(line_bytes) } else { Step::Close };
            }
        };
        let hash = router.hash(key);
        router.execute(Operation { key, hash, noreply, verb }, &mut self.output);
        Step::Consumed(line_bytes)
    }

    /// A storage command: with its data block at once, or waiting for it. Returns how much of
    /// `behind` was consumed.
    fn store<R: Router>(
        &mut self,
        key: &[u8],
        args: &PendingArgs,
        noreply: bool,
        value_bytes: u32,
        behind: &[u8],
        router: &mut R,
    ) -> usize {
        let value_bytes = value_bytes as usize;
        let block_bytes = value_bytes + DATA_END.len();
        if !router.item_fits(key, args.flags(), value_bytes) {
            self.refuse(reply::TOO_LARGE, key, args, noreply, block_bytes, router);
            return 0;
        }
        if let Some(block) = behind.get(..block_bytes) {
            let (data, end) = block.split_at(value_bytes);
            self.store_block(key, args, noreply, Data::Slice(data), end, router);
            return block_bytes;
        }
        if !router.may_hold(block_bytes) {
            self.refuse(reply::OUT_OF_MEMORY_STORING, key, args, noreply, block_bytes, router);
            return 0;
        }
        let mut pending = PendingStore {
            key: key.to_vec(),
            args: *args,
            noreply,
            block: Vec::new(),
            block_bytes,
        };
        pending.reserve(behind.len());
        pending.block.extend_from_slice(behind);
        self.state = State::Value(Box::new(pending));
        behind.len()
    }

    fn step_value<R: Router>(&mut self, input: &[u8], budget: &mut usize, router: &mut R) -> Step {
        let State::Value(pending) = &mut self.state else { return Step::Incomplete };
        let missing = pending.block_bytes - pending.block.len();
        let taken = missing.min(input.len());
        pending.reserve(taken);
        pending.block.extend_from_slice(&input[..taken]);
        if taken < missing {
            return Step::Consumed(taken);
        }
        *budget = budget.saturating_sub(1);
        let State::Value(pending) = std::mem::take(&mut self.state) else {
            return Step::Incomplete;
        };
        let PendingStore { key, args, noreply, mut block, block_bytes } = *pending;
        let end: [u8; 2] = [block[block_bytes - 2], block[block_bytes - 1]];
        block.truncate(block_bytes - DATA_END.len());
        let data = if block.len() >= VALUE_BYTES_BY_REFERENCE_MIN {
            Data::Owned(Bytes::from(block))
        } else {
            Data::Slice(&block)
        };
        self.store_block(&key, &args, noreply, data, &end, router);
        Step::Consumed(taken)
    }

    /// A data block is here: stores it if it ends as it must.
    #[inline]
    fn store_block<R: Router>(
        &mut self,
        key: &[u8],
        args: &PendingArgs,
        noreply: bool,
        data: Data<'_>,
        end: &[u8],
        router: &mut R,
    ) {
        if end != DATA_END {
            if !noreply {
                self.output.here().push(reply::BAD_DATA_CHUNK);
            }
            return;
        }
        let hash = router.hash(key);
        let operation = Operation { key, hash, noreply, verb: args.verb(data) };
        router.execute(operation, &mut self.output);
    }

    /// Answers that a value cannot be stored, and skips it.
    #[allow(clippy::too_many_arguments)] // What `store` has in hand.
    fn refuse<R: Router>(
        &mut self,
        line: &[u8],
        key: &[u8],
        args: &PendingArgs,
        noreply: bool,
        block_bytes: usize,
        router: &mut R,
    ) {
        // Meta commands answer errors even when asked for quiet.
        if !noreply || args.is_meta() {
            self.output.here().push(line);
        }
        if args.replaces() {
            let hash = router.hash(key);
            let operation = Operation { key, hash, noreply: true, verb: Verb::DropStale };
            router.execute(operation, &mut self.output);
        }
        self.state = State::Swallow { bytes_left: block_bytes };
    }
}

/// Announces the lookups of the gets that a pipeline begins with. Returns after how many commands
/// to look again.
fn warm_commands<R: Router>(input: &[u8], router: &mut R) -> usize {
    let mut hashes = Vec::new();
    let mut rest = input;
    while hashes.len() < WARM_MAX
        && let Some(end) = memchr::memchr(b'\n', rest)
        && let Some(key) = rest[..end].strip_prefix(b"get ")
    {
        if end + 1 == rest.len() && hashes.is_empty() {
            // A single command has nothing to overlap with.
            return WARM_MAX;
        }
        hashes.push(router.hash(key.strip_suffix(b"\r").unwrap_or(key)));
        rest = &rest[end + 1..];
    }
    if 1 < hashes.len() {
        let count = hashes.len();
        router.warm(&mut hashes);
        return count;
    }
    WARM_MAX
}

/// Announces the lookups of the next keys of a list. Returns after how many keys to look again.
fn warm_keys<R: Router>(input: &[u8], router: &mut R) -> usize {
    let line = &input[..memchr::memchr(b'\n', input).unwrap_or(input.len())];
    let keys = line.split(|byte| *byte == b' ').filter(|key| !key.is_empty());
    let mut hashes = Vec::with_capacity(WARM_MAX);
    hashes.extend(keys.take(WARM_MAX).map(|key| router.hash(key)));
    if 1 < hashes.len() {
        router.warm(&mut hashes);
    }
    WARM_MAX
}

impl PendingStore {
    /// Makes room for bytes about to arrive. Small blocks get all their memory at once; large ones
    /// as they arrive, so that announcing a gigabyte costs the client a gigabyte.
    fn reserve(&mut self, bytes: usize) {
        if self.block.capacity() - self.block.len() >= bytes {
            return;
        }
        let wanted = (self.block.capacity() * 2)
            .max(self.block.len() + bytes)
            .max(VALUE_BYTES_UNSEEN_MAX)
            .min(self.block_bytes);
        self.block.reserve_exact(wanted - self.block.len());
    }
}

fn meta_verb(verb: MetaVerb, args: &MetaArgs) -> Verb<'_> {
    match verb {
        MetaVerb::Get => Verb::MetaGet(args),
        MetaVerb::Delete => Verb::MetaDelete(args),
        MetaVerb::Arithmetic => Verb::MetaArithmetic(args),
        MetaVerb::Debug => Verb::MetaDebug(args),
    }
}
