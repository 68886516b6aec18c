//! The binary protocol's part of a conversation: frames in, the same operations out.
//!
//! What it shares with the text protocol is the session's: the data blocks that arrive, the bytes
//! to be skipped, budget and output. Commands that are not about a key are answered by the router
//! in text, and put into frames here.
//!
//! ```text
//!            header, extras and key here          value complete
//! Frame <---------------------------------> Value ---------------> executed, back to Frame
//!   |   executed
//!   |  refused, the connection goes on
//!   `-------------------------------------> Swallow
//! ```

use super::{Next, PendingArgs, Refused, Router, Session, State, Step, Target};
use crate::protocol::binary::opcode;
use crate::protocol::binary::reply as frames;
use crate::protocol::binary::sasl::{self, Heard, Oversized, Sasl};
use crate::protocol::binary::{Ask, Frame, HEADER_BYTES, Header, REQUEST_MAGIC, Rejection, Status};
use crate::protocol::{Request, StoreMode};
use crate::server::connection::login::Verdict;
use crate::server::stats::latency::Command;
use crate::shard::operation::{Form, Verb};

/// What is told who logs in.
const AUTHENTICATED: &[u8] = b"Authenticated";
const LOGIN_BUSY: &[u8] = b"too many logins at a time, try again";

impl Session {
    /// One frame, or what is here of it. Not inlined, for the sake of lines of text.
    #[inline(never)]
    pub(super) fn step_frame<R: Router>(
        &mut self,
        input: &[u8],
        budget: &mut usize,
        router: &mut R,
    ) -> Step {
        if input[0] != REQUEST_MAGIC {
            return Step::Close;
        }
        let Some(header) = Header::parse(input) else { return Step::Incomplete };
        let frame = header.frame;
        log::debug!(
            "<{} {:#04x} {}",
            router.descriptor(),
            frame.opcode.0,
            header.key_of(input).unwrap_or_default().escape_ascii()
        );
        if self.sasl.is_none()
            && let Some(key) = header.key_of_get(&input[HEADER_BYTES..])
        {
            let (hash, form) = (router.hash(key), Form::Binary(frame));
            let target = Target { key, hash, form, changes: false };
            let get = || Verb::Get { with_cas: true };
            if !router.execute(target, get, &mut self.output) {
                return Step::Busy;
            }
            *budget -= 1;
            return Step::Consumed(HEADER_BYTES + key.len());
        }
        let shut_out = |sasl: &Sasl| !sasl.is_in() && !frame.opcode.needs_no_login();
        let ask = match header.check() {
            Err(rejection) => Err(rejection),
            Ok(()) if self.sasl.as_ref().is_some_and(shut_out) => {
                Err(Rejection::Fatal(Status::LoginFailed))
            }
            Ok(()) => header.ask(&input[HEADER_BYTES..]),
        };
        let step = match ask {
            Ok(None) => Step::Incomplete,
            Ok(Some(Ask::Command(request))) => {
                let (head_bytes, behind) = (header.head_bytes(), &input[header.head_bytes()..]);
                self.execute_frame(frame, &request, behind, head_bytes, router)
            }
            Ok(Some(ask)) => self
                .log_in(frame, &ask, &input[header.head_bytes()..], router)
                .behind(header.head_bytes()),
            Err(rejection) => self.reject_frame(frame, rejection),
        };
        // What was not executed is not counted.
        *budget -= usize::from(!matches!(step, Step::Incomplete | Step::Busy));
        step
    }

    fn reject_frame(&mut self, frame: Frame, rejection: Rejection) -> Step {
        match rejection {
            Rejection::NoFrame => Step::Close,
            Rejection::Fatal(status) => {
                self.fail(frame, status);
                Step::Close
            }
            Rejection::Answer { status, swallow } => {
                self.fail(frame, status);
                self.swallow(swallow as usize);
                Step::Consumed(HEADER_BYTES)
            }
        }
    }

    fn fail(&mut self, frame: Frame, status: Status) {
        frames::failed(&mut self.output.here().bytes, frame, status);
    }

    /// Executes what a frame asks for. `behind` is the input after its key.
    fn execute_frame<R: Router>(
        &mut self,
        frame: Frame,
        request: &Request<'_>,
        behind: &[u8],
        head_bytes: usize,
        router: &mut R,
    ) -> Step {
        let form = Form::Binary(frame);
        let (key, verb) = match request {
            Request::Get { touch: None, keys, .. } => (*keys, Verb::Get { with_cas: true }),
            Request::Get { touch: Some(exptime), keys, .. } => {
                (*keys, Verb::GetAndTouch { with_cas: true, exptime: *exptime })
            }
            Request::Delete { key, compare } => (*key, Verb::Delete { compare: *compare }),
            Request::Arithmetic { key, args } => (*key, Verb::Arithmetic(*args)),
            Request::Touch { key, exptime } => (*key, Verb::Touch { exptime: *exptime }),
            Request::Store { key, args, value_bytes } => {
                let args = PendingArgs::Classic(*args);
                return self.store(key, &args, form, *value_bytes, behind, head_bytes, router);
            }
            other => return self.command_in_frames(frame, other, router).behind(head_bytes),
        };
        let changes = verb.changes_items();
        let target = Target { key, hash: router.hash(key), form, changes };
        let done = router.execute(target, || verb, &mut self.output);
        if done { Step::Consumed(head_bytes) } else { Step::Busy }
    }

    /// A command that is not about a key. Says what it consumed behind the key: nothing.
    fn command_in_frames<R: Router>(
        &mut self,
        frame: Frame,
        request: &Request<'_>,
        router: &mut R,
    ) -> Step {
        if matches!(request, Request::Quit | Request::MetaNoop) {
            if !frame.opcode.is_quiet() {
                frames::done(&mut self.output.here().bytes, frame, 0);
            }
            let quits = matches!(request, Request::Quit);
            return if quits { Step::Close } else { Step::Consumed(0) };
        }
        let start = self.output.here().bytes.len();
        let next = router.command(request, false, &mut self.output);
        if next == Next::Await {
            self.state = State::Awaiting(Some(frame));
            return Step::Consumed(0);
        }
        let out = &mut self.output.here().bytes;
        let answer = out.split_off(start);
        frames::in_frames(out, frame, &answer);
        Step::Consumed(0)
    }

    /// A part of a login. Says what it consumed behind the key.
    fn log_in<R: Router>(
        &mut self,
        frame: Frame,
        ask: &Ask<'_>,
        behind: &[u8],
        router: &mut R,
    ) -> Step {
        let (mechanism, is_step, message_bytes) = match ask {
            Ask::Sasl { mechanism, is_step, message_bytes } => {
                (*mechanism, *is_step, *message_bytes as usize)
            }
            _ if self.sasl.is_some() => {
                let out = &mut self.output.here().bytes;
                frames::text(out, frame, Status::Done, sasl::MECHANISMS);
                return Step::Consumed(0);
            }
            _ => (&b""[..], false, 0),
        };
        let refused = match &mut self.sasl {
            None => Err(Status::UnknownCommand),
            Some(sasl) => {
                sasl.announce(mechanism, message_bytes).map_err(|oversized| match oversized {
                    Oversized::Mechanism => Status::InvalidArguments,
                    Oversized::Message => Status::LoginFailed,
                })
            }
        };
        if let Err(status) = refused {
            self.fail(frame, status);
            self.swallow(message_bytes);
            return Step::Consumed(0);
        }
        let Some(message) = behind.get(..message_bytes) else { return Step::Incomplete };
        let heard = self.sasl.as_mut().map(|sasl| sasl.hear(is_step, mechanism, message));
        match heard {
            Some(Heard::Continue) => {
                let out = &mut self.output.here().bytes;
                frames::text(out, frame, Status::LoginContinues, b"");
            }
            Some(Heard::Check { user, password }) => match router.login(user, password) {
                Verdict::Pending(waiting) => self.state = State::LoggingIn(waiting, Some(frame)),
                verdict => self.answer_sasl(frame, verdict),
            },
            Some(Heard::Refused) | None => {
                router.refused_login();
                self.answer_sasl(frame, Verdict::Refused);
            }
        }
        Step::Consumed(message_bytes)
    }

    /// Says how a login ended, and remembers it.
    pub(super) fn answer_sasl(&mut self, frame: Frame, verdict: Verdict) {
        let out = &mut self.output.here().bytes;
        match verdict {
            Verdict::Accepted => {
                frames::text(out, frame, Status::Done, AUTHENTICATED);
                if let Some(sasl) = &mut self.sasl {
                    sasl.accept();
                }
            }
            Verdict::Refused | Verdict::Pending(_) => {
                frames::failed(out, frame, Status::LoginFailed);
            }
            Verdict::Busy => frames::text(out, frame, Status::LoginFailed, LOGIN_BUSY),
        }
    }
}

/// Answers that a value is not taken.
pub(super) fn refuse_value(frame: Frame, why: Refused, out: &mut Vec<u8>) {
    match why {
        Refused::TooLarge => frames::failed(out, frame, Status::TooLarge),
        Refused::NoMemory => {
            frames::text(out, frame, Status::OutOfMemory, frames::NO_MEMORY_FOR_ITEM);
        }
    }
}

/// Whether a command refused for its size removes the item that is there: a set does, even one
/// with a token.
pub(super) fn replaces(frame: Frame) -> bool {
    frame.opcode.command() == Some(opcode::Command::Store(StoreMode::Set))
}

/// The key of the frame that the input begins with, and the bytes to the next one.
pub(super) fn peek_frame(input: &[u8]) -> Option<(&[u8], usize)> {
    let header = Header::parse(input)?;
    header.check().ok()?;
    let key = header.key_of(input).filter(|key| !key.is_empty())?;
    Some((key, header.frame_bytes()))
}

/// What a frame is called in statistics of latency, and its key.
pub(super) fn timed(input: &[u8]) -> Option<(Command, &[u8])> {
    let header = Header::parse(input)?;
    let command = match header.frame.opcode.command()? {
        opcode::Command::Get => Command::Get,
        opcode::Command::GetAndTouch => Command::GetAndTouch,
        opcode::Command::Touch => Command::Touch,
        opcode::Command::Store(_) => Command::Store,
        opcode::Command::Delete => Command::Delete,
        opcode::Command::Arithmetic { .. } => Command::Arithmetic,
        _ => return None,
    };
    Some((command, header.key_of(input)?))
}
