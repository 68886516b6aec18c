//! The state of one client's conversation: bytes in, operations out, replies in order.
//!
//! Sans I/O: it is handed bytes and a [`Router`] that executes operations, and knows neither the
//! socket nor the shards, so that tests and fuzzers can drive it. Every command is bounded work:
//! [`Session::advance`] stops when its budget is used up, the output is large, or the shard it
//! needs is held by somebody else, and goes on where it stopped.
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
//!    +---------------------> Keys (answered as they arrive)
//!    |  metadump, mgdump
//!    +---------------------> Dump (a slice at a time, back to Command)
//!    |  stats, snapshot, a password to be checked
//!    +---------------------> Awaiting (somebody else has the answer, back to Command)
//!    |  watch (with -Y, Login comes before Command)
//!    `---------------------> Watch (what is received is dropped)
//! ```
//!
//! Before the first byte the state is Undecided; a first byte of 0x80 leads to Frame, which is the
//! binary protocol's Command (see `binary`).

mod binary;

use crate::limits::{
    KEY_BYTES_MAX, KEYS_PER_COMMAND, LINE_BYTES_MAX, LOGIN_BYTES_MAX, LOOKUPS_ANNOUNCED_MAX,
    OUTPUT_BYTES_MAX, VALUE_BYTES_BY_REFERENCE_MIN,
};
use crate::protocol::binary::sasl::Sasl;
use crate::protocol::binary::{Frame, REQUEST_MAGIC};
use crate::protocol::parse::{Line, words};
use crate::protocol::{
    Exptime, MetaArgs, MetaVerb, Rejection, Request, StoreArgs, StoreMode, number, parse_line,
    reply,
};
use crate::server::connection::login::{Verdict, Waiting};
use crate::server::connection::output::Output;
use crate::server::operator::dump::Dump;
use crate::server::stats::latency::Command;
use crate::shard::operation::{Data, Form, Verb};
use crate::store::lookups::Lookups;
use bytes::Bytes;

/// Line end of a data block.
const DATA_END: &[u8] = b"\r\n";

/// A shorter line, its end included, closes a connection that has to log in.
const LOGIN_LINE_BYTES_MIN: usize = 6;

/// Memory a value's buffer may claim before its bytes have arrived.
const VALUE_BYTES_UNSEEN_MAX: usize = 1 << 20;

/// Executes what a session asks for.
pub trait Router {
    /// The hash of a key.
    fn hash(&self, key: &[u8]) -> u64;
    /// Executes an operation; its reply goes to `output`. The verb is made when nothing stands in
    /// the way any more. Answers false if its shard is held by somebody else: nothing was done
    /// then, and it is worth another try once the connection is called.
    fn execute<'a>(
        &mut self,
        target: Target<'a>,
        verb: impl FnOnce() -> Verb<'a>,
        output: &mut Output,
    ) -> bool;
    /// A command that is to be timed was executed.
    fn executed(&mut self, _timed: Timed<'_>) {}
    /// Where in the budget the next command to be timed is; see [`Session::timed_below`].
    fn next_timed(&mut self, _budget: usize) -> usize {
        0
    }
    /// These lookups are coming.
    fn warm(&self, _lookups: &Lookups) {}
    /// Descriptor of the connection, for the log.
    fn descriptor(&self) -> i32 {
        0
    }
    /// Executes a command that is not about a key, and says what the connection does then.
    fn command(&mut self, request: &Request<'_>, noreply: bool, output: &mut Output) -> Next;
    /// Appends the next slice of a dump. Answers false if its shard is held by somebody else.
    fn dump(&mut self, _dump: &mut Dump, _output: &mut Output) -> bool {
        true
    }
    /// Whether this user has this password; the verdict may come later.
    fn login(&mut self, _user: &[u8], _password: &[u8]) -> Verdict {
        Verdict::Refused
    }
    /// A login was refused before there was a password to look at.
    fn refused_login(&mut self) {}
    /// A connection is closed for the protocol it began to speak.
    fn refused_protocol(&mut self, _is_binary: bool) {}
    /// Whether an item of this size is within the limits.
    fn item_fits(&self, key: &[u8], flags: u32, value_bytes: usize) -> bool;
    /// Whether a data block of this size may be kept until it is complete.
    fn may_hold(&self, block_bytes: usize) -> bool;
    /// A storage command was refused before its data block was taken.
    fn refused(&mut self, _why: Refused) {}
}

/// What an operation is about.
#[derive(Debug, Clone, Copy)]
pub struct Target<'a> {
    /// The key.
    pub key: &'a [u8],
    /// Its hash.
    pub hash: u64,
    /// How it is answered.
    pub form: Form,
    /// It may change what is stored.
    pub changes: bool,
}

/// Why a data block is not taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refused {
    /// The item would be above `-I`.
    TooLarge,
    /// Connections hold too much already.
    NoMemory,
}

/// A command that is to be timed.
#[derive(Debug, Clone, Copy)]
pub struct Timed<'a> {
    /// Which.
    pub command: Command,
    /// Its key; the last one, or a part, of a long list.
    pub key: &'a [u8],
    /// Length of its line and data block, as far as they are at hand.
    pub bytes: usize,
}

/// Whether a protocol is spoken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Admission {
    /// It is not: the connection is closed.
    No,
    /// It is.
    Free,
    /// After a login.
    AfterLogin,
}

/// What the clients of a listener may speak. The first byte tells which it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Spoken {
    /// The text protocol.
    pub text: Admission,
    /// The binary protocol.
    pub binary: Admission,
}

/// What a connection does after a command that is not about a key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Next {
    /// It says the next command.
    Command,
    /// It waits for [`Session::answer`].
    Await,
    /// It is sent all items first.
    Dump(Dump),
    /// It is told what happens, for the rest of its days.
    Watch,
    /// It ends once its replies have left.
    Close,
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
    /// It ends because of what the client said.
    failed: bool,
    /// What waits in `input` is not a whole command.
    incomplete: bool,
    /// A command that leaves less of the budget than this is to be timed.
    pub timed_below: usize,
    /// The command under way, whose data block or keys are still arriving, is to be timed.
    timed: Option<Command>,
    /// It speaks the binary protocol.
    is_binary: bool,
    /// Its login, if the binary protocol wants one.
    sasl: Option<Sasl>,
}

#[derive(Debug, Default)]
enum State {
    #[default]
    Command,
    /// Nothing was received yet.
    Undecided(Spoken),
    /// The next frame of the binary protocol.
    Frame,
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
    /// All items are being sent.
    Dump(Dump),
    /// The connection is told what happens.
    Watch,
    /// Nothing is done before the login.
    Login,
    /// A password is being checked. In the binary protocol the answer repeats a part of the frame
    /// that asked, here and below.
    LoggingIn(Waiting, Option<Frame>),
    /// The answer to a command is being made elsewhere.
    Awaiting(Option<Frame>),
}

/// A storage command whose data block has not fully arrived.
#[derive(Debug)]
struct PendingStore {
    key: Vec<u8>,
    args: PendingArgs,
    form: Form,
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
    fn replaces(&self, form: Form) -> bool {
        match (self, form) {
            (_, Form::Binary(frame)) => binary::replaces(frame),
            (Self::Classic(args), _) => args.mode == StoreMode::Set,
            (Self::Meta(..), _) => true,
        }
    }

    fn is_meta(&self) -> bool {
        matches!(self, Self::Meta(..))
    }
}

/// How many bytes end a data block.
#[inline]
fn block_end_bytes(form: Form) -> usize {
    if matches!(form, Form::Binary(_)) { 0 } else { DATA_END.len() }
}

/// Why [`Session::advance`] came back.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Progress {
    /// Everything that could be done with the bytes so far is done.
    NeedsInput,
    /// There is more to do in a later turn.
    Yielded,
    /// The output must leave first, or an answer must come.
    Waits,
    /// The shard it needs is held by somebody else.
    Busy,
    /// The conversation is over once the output has left.
    Closing,
}

/// What one step did.
enum Step {
    /// Consumed so many bytes, which begin with the line of a command; go on.
    Consumed(usize),
    /// Consumed so many bytes that do not.
    Part(usize),
    /// The rest of the input is not enough.
    Incomplete,
    /// What was answered has to leave first, or an answer to come.
    Wait,
    /// The shard is held by somebody else: nothing was consumed.
    Busy,
    Close,
}

impl Step {
    /// The same for who counts from so many bytes before.
    fn behind(self, bytes: usize) -> Self {
        match self {
            Self::Consumed(more) => Self::Consumed(bytes + more),
            other => other,
        }
    }
}

impl Session {
    /// A conversation that the first byte decides about.
    pub fn new(spoken: Spoken) -> Self {
        Self { state: State::Undecided(spoken), ..Self::default() }
    }

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

    /// The key of the command that was received, if it is a plain one, whole, and alone.
    pub fn peek_only_key<'a>(&self, received: &'a [u8]) -> Option<&'a [u8]> {
        let (key, command_bytes) = match self.state {
            _ if !self.input.is_empty() => None,
            State::Command => peek_command(received),
            State::Frame => binary::peek_frame(received),
            _ => None,
        }?;
        (command_bytes == received.len()).then_some(key)
    }

    /// Whether input waits that is not consumed.
    pub fn has_input(&self) -> bool {
        self.consumed < self.input.len()
    }

    /// Whether the input that waits may hold a whole command: it does unless the last call of
    /// [`Session::advance`] asked for more.
    pub fn can_go_on(&self) -> bool {
        let state_goes_on =
            matches!(self.state, State::Dump(_) | State::LoggingIn(..) | State::Awaiting(_));
        (self.has_input() && !self.incomplete) || state_goes_on
    }

    /// Whether a command that is to be timed is under way.
    pub fn is_timed(&self) -> bool {
        self.timed.is_some()
    }

    /// Whether it is told what happens.
    pub fn is_watching(&self) -> bool {
        matches!(self.state, State::Watch)
    }

    /// Where the conversation is when a command is done.
    fn next_command(&self) -> State {
        if self.is_binary { State::Frame } else { State::Command }
    }

    /// Drops so many bytes that follow.
    fn swallow(&mut self, bytes_left: usize) {
        if bytes_left > 0 {
            self.state = State::Swallow { bytes_left };
        }
    }

    /// The first byte says which protocol it is.
    #[cold]
    fn decide<R: Router>(&mut self, first: u8, spoken: Spoken, router: &mut R) -> Step {
        self.is_binary = first == REQUEST_MAGIC;
        let admission = if self.is_binary { spoken.binary } else { spoken.text };
        self.state = match admission {
            Admission::No => {
                router.refused_protocol(self.is_binary);
                return Step::Close;
            }
            Admission::AfterLogin if !self.is_binary => State::Login,
            Admission::AfterLogin | Admission::Free => self.next_command(),
        };
        let has_sasl = self.is_binary && admission == Admission::AfterLogin;
        self.sasl = has_sasl.then(Sasl::default);
        Step::Part(0)
    }

    /// A password was checked. Answers whether the connection was still waiting for that.
    pub fn login_done(&mut self, accepted: bool) -> bool {
        let State::LoggingIn(_, frame) = &self.state else { return false };
        if let Some(frame) = *frame {
            self.state = State::Frame;
            let verdict = if accepted { Verdict::Accepted } else { Verdict::Refused };
            self.answer_sasl(frame, verdict);
            return true;
        }
        let line = if accepted { reply::STORED } else { reply::LOGIN_FAILED };
        self.state = if accepted { State::Command } else { State::Login };
        self.output.here().push(line);
        true
    }

    /// The client will send no more: whoever waits for a password to be checked is not in a hurry.
    pub fn client_leaves(&self) {
        if let State::LoggingIn(waiting, _) = &self.state {
            waiting.leave();
        }
    }

    /// The answer to the command that the connection waits for is here.
    pub fn answer(&mut self, text: &[u8]) {
        if let State::Awaiting(frame) = self.state {
            Form::of_frame(frame).answer(text, self.output.here());
            self.state = self.next_command();
        }
    }

    /// `set <anything> <anything> <anything> <length>`, then `user password`.
    fn step_login<R: Router>(&mut self, input: &[u8], budget: &mut usize, router: &mut R) -> Step {
        let Some(newline) = memchr::memchr(b'\n', input) else {
            return if input.len() > LINE_BYTES_MAX { Step::Close } else { Step::Incomplete };
        };
        let (line, rest) = input.split_at(newline + 1);
        if line.len() < LOGIN_LINE_BYTES_MIN || line == b"quit\r\n" {
            return Step::Close;
        }
        let length = line.strip_suffix(DATA_END).filter(|line| line.starts_with(b"set "));
        let length = length.and_then(|line| words(line).nth(4)).and_then(number::strict_u32);
        let mut answer = |session: &mut Self, line: &[u8], consumed| {
            *budget -= 1;
            session.output.here().push(line);
            Step::Part(consumed)
        };
        let Some(length) = length.map(|length| length as usize) else {
            return answer(self, reply::UNAUTHENTICATED, line.len());
        };
        if length > LOGIN_BYTES_MAX {
            return answer(self, reply::LOGIN_TOO_LONG, line.len());
        }
        let Some(block) = rest.get(..length + DATA_END.len()) else { return Step::Incomplete };
        let consumed = line.len() + block.len();
        let Some(token) = block.strip_suffix(DATA_END) else {
            return answer(self, reply::LOGIN_END, consumed);
        };
        let Some(space) = memchr::memchr(b' ', token) else {
            return answer(self, reply::LOGIN_FORMAT, consumed);
        };
        match router.login(&token[..space], &token[space + 1..]) {
            Verdict::Accepted => {
                self.state = State::Command;
                answer(self, reply::STORED, consumed)
            }
            Verdict::Refused => answer(self, reply::LOGIN_FAILED, consumed),
            Verdict::Busy => answer(self, reply::LOGIN_BUSY, consumed),
            Verdict::Pending(waiting) => {
                self.state = State::LoggingIn(waiting, None);
                Step::Part(consumed)
            }
        }
    }

    /// The conversation is over.
    pub fn is_closing(&self) -> bool {
        self.closing
    }

    /// The conversation ends because of what the client said: no command, and no end of one.
    pub fn has_failed(&self) -> bool {
        self.failed
    }

    /// Memory the conversation holds outside the store: commands that wait, a data block that is
    /// arriving, replies that wait, and values they refer to.
    pub fn held_bytes(&self) -> usize {
        let block_bytes = match &self.state {
            State::Value(pending) => pending.held_bytes(),
            _ => 0,
        };
        self.input.capacity() + block_bytes + self.output.pending_bytes()
    }

    /// The next word is the client's. Half a command is not one; a data block that arrives is.
    pub fn is_idle(&self) -> bool {
        let waits = match self.state {
            State::Command | State::Frame | State::Undecided(_) | State::Login => true,
            State::Keys { .. } | State::SkipLine => true,
            State::Value(_) | State::Swallow { .. } | State::Dump(_) | State::Watch => false,
            State::LoggingIn(..) | State::Awaiting(_) => false,
        };
        waits && (!self.has_input() || self.incomplete) && self.output.is_empty()
    }

    /// memcached's name for what the connection does, for `stats conns`.
    pub fn state_name(&self) -> &'static str {
        match self.state {
            _ if self.closing => "conn_closing",
            State::Watch => "conn_watch",
            State::Awaiting(_) => "conn_parse_cmd",
            _ if !self.output.is_empty() => "conn_mwrite",
            State::Undecided(_) => "conn_new_cmd",
            State::Command | State::Frame if self.has_input() && !self.incomplete => {
                "conn_parse_cmd"
            }
            State::Command | State::Frame => "conn_read",
            State::Value(_) => "conn_nread",
            State::Swallow { .. } => "conn_swallow",
            // The rest of the line is to come.
            State::Keys { .. } | State::SkipLine => "conn_read",
            State::Dump(_) => "conn_mwrite",
            State::Login | State::LoggingIn(..) => "conn_read",
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
        if self.input.len() + bytes.len() > LINE_BYTES_MAX {
            // Most of a read: twice that would be a waste.
            self.input.reserve_exact(bytes.len());
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
        let logs = log::log_enabled!(log::Level::Debug);
        loop {
            if commands_warmed == 0 {
                commands_warmed = match self.state {
                    State::Command => warm_commands(&input[used..], router, peek_command),
                    State::Frame => warm_commands(&input[used..], router, binary::peek_frame),
                    _ => 0,
                };
            }
            commands_warmed = commands_warmed.saturating_sub(1);
            if self.closing {
                return (input.len(), Progress::Closing);
            }
            let can_finish = match &self.state {
                State::Value(pending) => pending.block.len() == pending.block_bytes,
                State::Dump(_) | State::LoggingIn(..) | State::Awaiting(_) => true,
                _ => false,
            };
            if used == input.len() && !can_finish {
                return (used, Progress::NeedsInput);
            }
            if *budget == 0 {
                return (used, Progress::Yielded);
            }
            if self.output.pending_bytes() > OUTPUT_BYTES_MAX {
                return (used, Progress::Waits);
            }
            let replies_bytes = if logs { self.output.here().bytes.len() } else { 0 };
            let step = self.step(&input[used..], budget, router);
            if logs {
                self.log_reply(replies_bytes, router.descriptor());
            }
            match step {
                Step::Consumed(bytes) => {
                    if *budget < self.timed_below {
                        self.time(&input[used..][..bytes], *budget, router);
                    }
                    used += bytes;
                }
                Step::Part(bytes) => used += bytes,
                Step::Incomplete => return (used, Progress::NeedsInput),
                Step::Wait => return (used, Progress::Waits),
                Step::Busy => return (used, Progress::Busy),
                Step::Close => self.closing = true,
            }
        }
    }

    /// For `-vv`: the first line of what a step has answered.
    #[cold]
    fn log_reply(&mut self, from: usize, descriptor: i32) {
        let said = self.output.here().bytes.get(from..).unwrap_or_default();
        let line = said.split(|byte| *byte == b'\n').next().unwrap_or_default();
        let line = line.strip_suffix(b"\r").unwrap_or(line);
        if self.is_binary {
            if !said.is_empty() {
                log::debug!(">{descriptor} {} bytes", said.len());
            }
        } else if !line.is_empty() {
            log::debug!(">{descriptor} {}", line[..line.len().min(KEY_BYTES_MAX)].escape_ascii());
        }
    }

    #[inline]
    fn step<R: Router>(&mut self, input: &[u8], budget: &mut usize, router: &mut R) -> Step {
        match &mut self.state {
            State::Command => self.step_command(input, budget, router),
            State::Frame => self.step_frame(input, budget, router),
            State::Undecided(spoken) => {
                let spoken = *spoken;
                self.decide(input[0], spoken, router)
            }
            State::Value(_) => self.step_value(input, budget, router),
            State::Swallow { bytes_left } => {
                let dropped = (*bytes_left).min(input.len());
                *bytes_left -= dropped;
                if *bytes_left == 0 {
                    self.state = self.next_command();
                }
                Step::Part(dropped)
            }
            State::Dump(dump) if dump.is_over() => {
                self.state = State::Command;
                Step::Part(0)
            }
            State::Dump(dump) => {
                let busy = self.output.is_empty() && !router.dump(dump, &mut self.output);
                if busy { Step::Busy } else { Step::Wait }
            }
            State::Watch => Step::Part(input.len()),
            State::Login => self.step_login(input, budget, router),
            State::LoggingIn(..) | State::Awaiting(_) => Step::Wait,
            State::Keys { touch, with_cas } => {
                let (touch, with_cas) = (*touch, *with_cas);
                self.step_keys(input, touch, with_cas, budget, router)
            }
            State::SkipLine => match memchr::memchr(b'\n', input) {
                Some(end) => {
                    self.timed = None;
                    self.state = State::Command;
                    Step::Part(end + 1)
                }
                None => Step::Part(input.len()),
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
        log::debug!("<{} {}", router.descriptor(), line.escape_ascii());
        match parse_line(line, line_end_bytes) {
            Ok(Line { request: Request::Get { touch, with_cas, keys }, .. }) => {
                let step = self.get(&input[..=newline], keys, touch, with_cas, budget, router);
                unless_busy(step, budget)
            }
            Ok(line) => {
                let step = self.execute(line, &input[newline + 1..], newline + 1, router);
                unless_busy(step, budget)
            }
            Err(Rejection::Answer { reply, swallow }) => {
                self.output.here().push(reply);
                if let Some(value_bytes) = swallow {
                    self.swallow(value_bytes as usize + DATA_END.len());
                }
                Step::Consumed(newline + 1)
            }
            Err(Rejection::Close) => {
                self.failed = true;
                Step::Close
            }
        }
    }

    /// The command that was consumed is to be timed: notes that it is done, or that it goes on.
    #[cold]
    fn time<R: Router>(&mut self, consumed: &[u8], budget: usize, router: &mut R) {
        // Looked at anew here, so that commands that are not timed need not remember what they are.
        let timed = if self.is_binary { binary::timed(consumed) } else { timed_line(consumed) };
        let Some((command, key)) = timed else { return };
        match self.state {
            State::Command | State::Frame => {
                router.executed(Timed { command, key, bytes: consumed.len() });
            }
            State::Value(_) | State::Keys { .. } => self.timed = Some(command),
            // Refused.
            _ => return,
        }
        self.timed_below = router.next_timed(budget);
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
            return Step::Part(start + if with_cas { 5 } else { 4 });
        }
        self.failed = true;
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
            if !self.get_one(keys, touch, with_cas, router) {
                return Step::Busy;
            }
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
            Step::Part(used) => Step::Consumed(before + used),
            // The verb is consumed all the same: the list goes on from here.
            Step::Busy => Step::Consumed(before),
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
        let mut keys_left = KEYS_PER_COMMAND;
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
                return Step::Part(at);
            }
            if !key.is_empty() {
                if self.output.pending_bytes() > OUTPUT_BYTES_MAX {
                    return Step::Part(at);
                }
                if !self.get_one(key, touch, with_cas, router) {
                    return if at > 0 { Step::Part(at) } else { Step::Busy };
                }
                keys_left -= 1;
            }
            at += end;
            if line_ends {
                self.output.here().push(reply::END);
                self.state = State::Command;
                if let Some(command) = self.timed.take() {
                    router.executed(Timed { command, key, bytes: at });
                }
                return Step::Part(at + 1);
            }
            if keys_left == 0 {
                keys_left = KEYS_PER_COMMAND;
                *budget = budget.saturating_sub(1);
                if *budget == 0 {
                    return Step::Part(at);
                }
            }
        }
    }

    /// The input ends within a key.
    fn keep_partial_key(&mut self, rest: &[u8], at: usize) -> Step {
        if rest.len() > KEY_BYTES_MAX + 1 {
            self.output.here().push(reply::BAD_FORMAT);
            self.state = State::SkipLine;
            return Step::Part(at);
        }
        if at > 0 { Step::Part(at) } else { Step::Incomplete }
    }

    #[inline]
    fn get_one<R: Router>(
        &mut self,
        key: &[u8],
        touch: Option<Exptime>,
        with_cas: bool,
        router: &mut R,
    ) -> bool {
        let verb = || match touch {
            None => Verb::Get { with_cas },
            Some(exptime) => Verb::GetAndTouch { with_cas, exptime },
        };
        let (form, changes) = (Form::Text, touch.is_some());
        let target = Target { key, hash: router.hash(key), form, changes };
        router.execute(target, verb, &mut self.output)
    }

    /// Executes a command other than get. `behind` is the input after its line.
    fn execute<R: Router>(
        &mut self,
        line: Line<'_>,
        behind: &[u8],
        line_bytes: usize,
        router: &mut R,
    ) -> Step {
        let form = Form::of_line(line.noreply);
        let (key, verb): (&[u8], _) = match &line.request {
            Request::Delete { key, compare } => (key, Verb::Delete { compare: *compare }),
            Request::Arithmetic { key, args } => (key, Verb::Arithmetic(*args)),
            Request::Touch { key, exptime } => (key, Verb::Touch { exptime: *exptime }),
            Request::Meta { verb, key, args } => (key, meta_verb(*verb, args)),
            Request::Store { key, args, value_bytes } => {
                let args = PendingArgs::Classic(*args);
                return self.store(key, &args, form, *value_bytes, behind, line_bytes, router);
            }
            Request::MetaStore { key, mode, args, value_bytes } => {
                let args = PendingArgs::Meta(*mode, *args);
                return self.store(key, &args, form, *value_bytes, behind, line_bytes, router);
            }
            other => {
                match router.command(other, line.noreply, &mut self.output) {
                    Next::Command => {}
                    Next::Await => self.state = State::Awaiting(None),
                    Next::Dump(dump) => self.state = State::Dump(dump),
                    Next::Watch => self.state = State::Watch,
                    Next::Close => return Step::Close,
                }
                return Step::Consumed(line_bytes);
            }
        };
        let changes = verb.changes_items();
        let target = Target { key, hash: router.hash(key), form, changes };
        let done = router.execute(target, || verb, &mut self.output);
        if done { Step::Consumed(line_bytes) } else { Step::Busy }
    }

    /// A storage command: with its data block at once, or waiting for it. `behind` is the input
    /// after its line.
    #[allow(clippy::too_many_arguments)] // What `execute` has in hand.
    fn store<R: Router>(
        &mut self,
        key: &[u8],
        args: &PendingArgs,
        form: Form,
        value_bytes: u32,
        behind: &[u8],
        line_bytes: usize,
        router: &mut R,
    ) -> Step {
        let value_bytes = value_bytes as usize;
        let block_bytes = value_bytes + block_end_bytes(form);
        let refused = if !router.item_fits(key, args.flags(), value_bytes) {
            Some(Refused::TooLarge)
        } else if let Some(block) = behind.get(..block_bytes) {
            let (data, end) = block.split_at(value_bytes);
            let done = self.store_block(key, args, form, || Data::Slice(data), end, router);
            return if done { Step::Consumed(line_bytes + block_bytes) } else { Step::Busy };
        } else if !router.may_hold(block_bytes) {
            Some(Refused::NoMemory)
        } else {
            None
        };
        if let Some(why) = refused {
            let done = self.refuse(why, key, args, form, block_bytes, router);
            return if done { Step::Consumed(line_bytes) } else { Step::Busy };
        }
        let mut pending =
            PendingStore { key: key.to_vec(), args: *args, form, block: Vec::new(), block_bytes };
        pending.reserve(behind.len());
        pending.block.extend_from_slice(behind);
        self.state = State::Value(Box::new(pending));
        Step::Consumed(line_bytes + behind.len())
    }

    fn step_value<R: Router>(&mut self, input: &[u8], budget: &mut usize, router: &mut R) -> Step {
        let State::Value(pending) = &mut self.state else { return Step::Incomplete };
        let missing = pending.block_bytes - pending.block.len();
        let taken = missing.min(input.len());
        pending.reserve(taken);
        pending.block.extend_from_slice(&input[..taken]);
        if taken < missing {
            return Step::Part(taken);
        }
        let next = self.next_command();
        let State::Value(mut pending) = std::mem::replace(&mut self.state, next) else {
            return Step::Incomplete;
        };
        if !self.store_pending(&mut pending, router) {
            self.state = State::Value(pending);
            return if taken > 0 { Step::Part(taken) } else { Step::Busy };
        }
        *budget = budget.saturating_sub(1);
        if let Some(command) = self.timed.take() {
            let PendingStore { key, block_bytes, .. } = *pending;
            let bytes = key.len() + block_bytes;
            router.executed(Timed { command, key: &key, bytes });
        }
        Step::Part(taken)
    }

    /// A data block that came in pieces is here. Answers false, and leaves it as it is, if its
    /// shard is held by somebody else.
    fn store_pending<R: Router>(&mut self, pending: &mut PendingStore, router: &mut R) -> bool {
        let PendingStore { key, args, form, block, block_bytes } = pending;
        let value_bytes = *block_bytes - block_end_bytes(*form);
        // Whether it is right is all that counts, and the block may be about to be given away.
        let end = if block.ends_with(DATA_END) { DATA_END } else { b"" };
        if value_bytes < VALUE_BYTES_BY_REFERENCE_MIN {
            let data = || Data::Slice(&block[..value_bytes]);
            return self.store_block(key, args, *form, data, end, router);
        }
        let data = || {
            let mut block = std::mem::take(block);
            block.truncate(value_bytes);
            Data::Owned(Bytes::from(block))
        };
        self.store_block(key, args, *form, data, end, router)
    }

    /// A data block is here: stores it if it ends as it must. Answers false if its shard is held by
    /// somebody else.
    #[inline]
    fn store_block<'a, R: Router>(
        &mut self,
        key: &'a [u8],
        args: &'a PendingArgs,
        form: Form,
        data: impl FnOnce() -> Data<'a>,
        end: &[u8],
        router: &mut R,
    ) -> bool {
        if end != DATA_END && !matches!(form, Form::Binary(_)) {
            if matches!(form, Form::Text) {
                self.output.here().push(reply::BAD_DATA_CHUNK);
            }
            return true;
        }
        let target = Target { key, hash: router.hash(key), form, changes: true };
        router.execute(target, || args.verb(data()), &mut self.output)
    }

    /// Answers that a value cannot be stored, and skips it. Answers false, with nothing done, if
    /// the item that it would have replaced is in a shard that is held by somebody else.
    fn refuse<R: Router>(
        &mut self,
        why: Refused,
        key: &[u8],
        args: &PendingArgs,
        form: Form,
        block_bytes: usize,
        router: &mut R,
    ) -> bool {
        if args.replaces(form) {
            let (hash, form) = (router.hash(key), Form::Nothing);
            let target = Target { key, hash, form, changes: true };
            if !router.execute(target, || Verb::DropStale, &mut self.output) {
                return false;
            }
        }
        router.refused(why);
        let out = self.output.here();
        match form {
            Form::Binary(frame) => binary::refuse_value(frame, why, &mut out.bytes),
            // Meta commands answer errors even when asked for quiet.
            Form::Nothing if !args.is_meta() => {}
            Form::Text | Form::Nothing => out.push(match why {
                Refused::TooLarge => reply::TOO_LARGE,
                Refused::NoMemory => reply::OUT_OF_MEMORY_STORING,
            }),
        }
        self.swallow(block_bytes);
        true
    }
}

/// A command that was not executed is not counted.
fn unless_busy(step: Step, budget: &mut usize) -> Step {
    *budget += usize::from(matches!(step, Step::Busy));
    step
}

/// Announces the lookups of the commands that a pipeline begins with; `peek` answers the key and
/// the length of the first. Returns after how many commands to look again.
fn warm_commands<R: Router>(
    input: &[u8],
    router: &R,
    peek: impl Fn(&[u8]) -> Option<(&[u8], usize)>,
) -> usize {
    let mut lookups = Lookups::default();
    let mut rest = input;
    while !lookups.is_full()
        && let Some((key, command_bytes)) = peek(rest)
    {
        if command_bytes >= rest.len() && lookups.count() == 0 {
            // Nothing to overlap with, but the commands of other connections: see the worker.
            return LOOKUPS_ANNOUNCED_MAX;
        }
        lookups.push(router.hash(key));
        rest = rest.get(command_bytes..).unwrap_or(&[]);
    }
    router.warm(&lookups);
    if lookups.count() > 1 { lookups.count() } else { LOOKUPS_ANNOUNCED_MAX }
}

/// The command that a line begins with, and its key.
fn timed_line(input: &[u8]) -> Option<(Command, &[u8])> {
    let line_bytes = memchr::memchr2(b'\r', b'\n', input).unwrap_or(input.len());
    let mut words = words(&input[..line_bytes]);
    let command = words.next().and_then(Command::of_verb)?;
    let at = usize::from(command == Command::GetAndTouch);
    Some((command, words.nth(at).unwrap_or_default()))
}

/// The key of the command that the input begins with, and the bytes to the next one, for the verbs
/// that make up long pipelines. Only a guess for [`warm_commands`]: says `None` where a command is
/// not plain.
fn peek_command(input: &[u8]) -> Option<(&[u8], usize)> {
    let end = memchr::memchr(b'\n', input)?;
    let line = input[..end].strip_suffix(b"\r")?;
    let (arguments, length_at) = match line {
        [b'g', b'e', b't', b' ', arguments @ ..] => (arguments, None),
        [b'm', b'g', b' ', arguments @ ..] => (arguments, None),
        [b's', b'e', b't', b' ', arguments @ ..] => (arguments, Some(2)),
        [b'm', b's', b' ', arguments @ ..] => (arguments, Some(0)),
        _ => return None,
    };
    let key_end = arguments.iter().position(|byte| *byte == b' ').unwrap_or(arguments.len());
    let (key, behind) = arguments.split_at(key_end);
    let block_bytes = match length_at {
        None => 0,
        Some(at) => {
            let length = behind.get(1..)?.split(|byte| *byte == b' ').nth(at)?;
            number::strict_u32(length)? as usize + DATA_END.len()
        }
    };
    Some((key, end + 1 + block_bytes))
}

/// Announces the lookups of the next keys of a list. Returns after how many keys to look again.
fn warm_keys<R: Router>(input: &[u8], router: &R) -> usize {
    // No further than these keys reach: the list is looked at again and again.
    let input = &input[..input.len().min(LOOKUPS_ANNOUNCED_MAX * (KEY_BYTES_MAX + 1))];
    let line = &input[..memchr::memchr(b'\n', input).unwrap_or(input.len())];
    let keys = line.split(|byte| *byte == b' ').filter(|key| !key.is_empty());
    router.warm(&keys.map(|key| router.hash(key)).collect());
    LOOKUPS_ANNOUNCED_MAX
}

impl PendingStore {
    /// The block as it counts: what it may claim unseen from the start, and beyond that what has
    /// arrived, however many addresses are kept for the rest.
    fn held_bytes(&self) -> usize {
        self.block.len().max(self.block_bytes.min(VALUE_BYTES_UNSEEN_MAX))
    }

    /// Makes room for bytes about to arrive. Blocks get all their memory at once, but large ones
    /// only when a part has arrived, so that to announce a gigabyte is not enough. What has not
    /// arrived takes addresses then and no memory. (Blocks that grew twice as large each time were
    /// copied with it: half a gigabyte at a time, and everybody waited.)
    fn reserve(&mut self, bytes: usize) {
        let bytes_held = self.block.len();
        if self.block.capacity() - bytes_held >= bytes {
            return;
        }
        let all = self.block_bytes - bytes_held;
        if bytes_held == 0 && all > VALUE_BYTES_UNSEEN_MAX {
            self.block.reserve_exact(bytes.max(VALUE_BYTES_UNSEEN_MAX));
        } else if self.block.try_reserve_exact(all).is_err() {
            // The system counts addresses too.
            self.block.reserve_exact(all.min(bytes.max(bytes_held)));
        }
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_large_value_is_not_copied_as_it_grows() {
        const PIECE: &[u8] = &[7; 64 << 10];
        let modes =
            StoreArgs { mode: StoreMode::Set, flags: 0, exptime: Exptime::Never, compare: 0 };
        for (block_bytes, moves_max) in [(100, 0), (1 << 20, 0), (1 << 20 | 1, 1), (64 << 20, 1)] {
            let mut pending = PendingStore {
                key: Vec::new(),
                args: PendingArgs::Classic(modes),
                form: Form::Text,
                block: Vec::new(),
                block_bytes,
            };
            let (mut moves, mut at) = (0, None);
            while pending.block.len() < block_bytes {
                let bytes = PIECE.len().min(block_bytes - pending.block.len());
                pending.reserve(bytes);
                let moved = at.replace(pending.block.as_ptr()) != Some(pending.block.as_ptr());
                moves += usize::from(moved && !pending.block.is_empty());
                let seen_bytes = pending.block.len().max(VALUE_BYTES_UNSEEN_MAX);
                assert!(pending.block.len() >= 1 << 20 || pending.block.capacity() <= seen_bytes);
                pending.block.extend_from_slice(&PIECE[..bytes]);
            }
            assert!(moves <= moves_max, "{block_bytes} bytes: copied {moves} times");
            assert_eq!(pending.block.capacity(), block_bytes);
        }
    }
}
