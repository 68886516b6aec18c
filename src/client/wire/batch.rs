//! Requests under way on one connection, and the matching of replies with them. No I/O: both faces
//! of the client drive these with their own sockets.

use crate::client::error::Error;
use crate::client::placement::key::{Form, WireKey};
use crate::client::wire::command::{Command, Expect};
use crate::client::wire::reply::{Decoder, Fault, Reply};

/// Keys on one line of `get`; proxies have limits.
const KEYS_PER_LINE_MAX: usize = 1000;

/// One request whose reply becomes one result.
pub(in crate::client) struct Single<'k, R> {
    pub key: Option<&'k WireKey<'k>>,
    pub expect: Expect,
    pub result: Option<Result<R, Error>>,
}

impl<'k, R> Single<'k, R> {
    pub(crate) fn new(key: Option<&'k WireKey<'k>>, expect: Expect) -> Self {
        Self { key, expect, result: None }
    }

    /// Looks at what has arrived; true when the reply was complete.
    pub(crate) fn advance(
        &mut self,
        decoder: &mut Decoder,
        server: &str,
        convert: &mut impl FnMut(Reply<'_>) -> Result<R, Error>,
    ) -> Result<bool, Fault> {
        while let Some(reply) = decoder.next(self.expect)? {
            let (done, result) = match (self.expect, reply) {
                (_, Reply::Refused(line)) => (true, Some(Err(refused(server, line)))),
                (Expect::Values, Reply::Value(item)) => {
                    let ours = self.key.is_some_and(|key| *key.bytes == *item.key);
                    if !ours || self.result.is_some() {
                        return Err(Fault("a value that was not asked for".into()));
                    }
                    (false, Some(convert(Reply::Value(item))))
                }
                (Expect::Values, Reply::End) if self.result.is_some() => (true, None),
                (Expect::Values, Reply::End) => (true, Some(convert(Reply::NotFound))),
                (Expect::Stats | Expect::Keys, Reply::End) => (true, Some(convert(Reply::End))),
                (Expect::Stats | Expect::Keys, one)
                | (Expect::Frame { .. }, one @ Reply::Stat(..)) => {
                    let _ = convert(one);
                    (false, None)
                }
                (_, reply) => (true, Some(convert(reply))),
            };
            if let Some(result) = result {
                if let Err(Error::Protocol { what, .. }) = result {
                    return Err(Fault(what));
                }
                self.result = Some(result);
            }
            if done {
                return Ok(true);
            }
        }
        Ok(false)
    }
}

pub(in crate::client) fn refused(server: &str, line: &str) -> Error {
    Error::Refused { server: server.to_owned(), line: line.to_owned() }
}

/// What is still to come, in order.
enum Step {
    /// The values of some of the keys, by index, up to `END`.
    Values { first: usize, end: usize, next: usize },
    /// One reply for one key.
    One { at: usize, expect: Expect },
}

/// Many requests on one connection, sent at once.
pub(in crate::client) struct Batch<'k> {
    /// Place in the caller's list, and key.
    keys: Vec<(usize, WireKey<'k>)>,
    steps: Vec<Step>,
    /// Steps that are complete.
    done: usize,
    pub requests: Vec<u8>,
    pub sent: usize,
}

impl<'k> Batch<'k> {
    /// Asks for values; with their tokens if wanted.
    pub(crate) fn get(keys: Vec<(usize, WireKey<'k>)>, token: bool, opaque: &mut u32) -> Self {
        let mut batch = Self { keys, steps: Vec::new(), done: 0, requests: Vec::new(), sent: 0 };
        let verb: &[u8] = if token { b"gets" } else { b"get" };
        let mut at = 0;
        while at < batch.keys.len() {
            let rest = &batch.keys[at..];
            let plain =
                rest.iter().take(KEYS_PER_LINE_MAX).take_while(|(_, key)| key.form == Form::Plain);
            let end = at + plain.count();
            if end == at {
                *opaque = opaque.wrapping_add(1);
                let command = Command::Get { token };
                let expect = command.write(&batch.keys[at].1, *opaque, &mut batch.requests);
                batch.steps.push(Step::One { at, expect });
                at += 1;
                continue;
            }
            batch.requests.extend_from_slice(verb);
            for (_, key) in &batch.keys[at..end] {
                batch.requests.push(b' ');
                batch.requests.extend_from_slice(&key.bytes);
            }
            batch.requests.extend_from_slice(b"\r\n");
            batch.steps.push(Step::Values { first: at, end, next: at });
            at = end;
        }
        batch
    }

    /// One command for each key; `command` is asked with the place in the caller's list.
    pub(crate) fn each<'c>(
        keys: Vec<(usize, WireKey<'k>)>,
        opaque: &mut u32,
        command: impl Fn(usize) -> Command<'c>,
    ) -> Self {
        let (mut steps, mut requests) = (Vec::with_capacity(keys.len()), Vec::new());
        for (at, (position, key)) in keys.iter().enumerate() {
            *opaque = opaque.wrapping_add(1);
            steps.push(match command(*position).write(key, *opaque, &mut requests) {
                Expect::Values => Step::Values { first: at, end: at + 1, next: at },
                expect => Step::One { at, expect },
            });
        }
        Self { keys, steps, done: 0, requests, sent: 0 }
    }

    pub(crate) fn unsent(&self) -> &[u8] {
        &self.requests[self.sent..]
    }

    /// The replies to come, in order.
    #[cfg(feature = "tokio")]
    pub(crate) fn expects(&self) -> Vec<Expect> {
        let expect = |step: &Step| match step {
            Step::Values { .. } => Expect::Values,
            Step::One { expect, .. } => *expect,
        };
        self.steps.iter().map(expect).collect()
    }

    pub(crate) fn is_done(&self) -> bool {
        self.done == self.steps.len()
    }

    /// Looks at what has arrived and hands each reply on with its place in the caller's list. True
    /// when all replies were complete.
    pub(crate) fn advance(
        &mut self,
        decoder: &mut Decoder,
        sink: &mut impl FnMut(usize, Reply<'_>) -> Result<(), Error>,
    ) -> Result<bool, Fault> {
        while let Some(step) = self.steps.get_mut(self.done) {
            let expect = match step {
                Step::Values { .. } => Expect::Values,
                Step::One { expect, .. } => *expect,
            };
            let Some(reply) = decoder.next(expect)? else { return Ok(false) };
            let handed = match (step, reply) {
                (Step::Values { .. }, Reply::End) => {
                    self.done += 1;
                    Ok(())
                }
                (Step::Values { first, end, next }, Reply::Value(item)) => {
                    let at = place(&self.keys, *first..*end, *next, item.key)?;
                    *next = at + 1;
                    sink(self.keys[at].0, Reply::Value(item))
                }
                (Step::Values { first, end, .. }, refused) => {
                    let positions = self.keys[*first..*end].iter().map(|(position, _)| *position);
                    self.done += 1;
                    positions.into_iter().try_for_each(|at| sink(at, refused.clone()))
                }
                (Step::One { at, .. }, reply) => {
                    self.done += 1;
                    sink(self.keys[*at].0, reply)
                }
            };
            if let Err(Error::Protocol { what, .. }) = handed {
                return Err(Fault(what));
            }
        }
        Ok(true)
    }

    /// Places in the caller's list that have no complete reply.
    pub(crate) fn unanswered(&self) -> impl Iterator<Item = usize> {
        let first = match self.steps.get(self.done) {
            Some(Step::Values { first, .. }) => *first,
            Some(Step::One { at, .. }) => *at,
            None => self.keys.len(),
        };
        self.keys[first..].iter().map(|(position, _)| *position)
    }
}

/// The index of a key in a range. Servers answer in the order they were asked, proxies may not.
fn place(
    keys: &[(usize, WireKey<'_>)],
    range: std::ops::Range<usize>,
    next: usize,
    key: &[u8],
) -> Result<usize, Fault> {
    let matches = |at: &usize| *keys[*at].1.bytes == *key;
    let ahead = (next..range.end).find(matches);
    let found = ahead.or_else(|| (range.start..next).find(matches));
    found.ok_or_else(|| Fault("a value that was not asked for".into()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::borrow::Cow;

    fn keys(names: &[&'static str]) -> Vec<(usize, WireKey<'static>)> {
        let key = |name: &'static str| WireKey {
            bytes: Cow::Borrowed(name.as_bytes()),
            form: if name.contains(' ') { Form::Base64 } else { Form::Plain },
        };
        names.iter().enumerate().map(|(at, name)| (at * 10, key(name))).collect()
    }

    fn fed(bytes: &[u8]) -> Decoder {
        let mut decoder = Decoder::default();
        decoder.room()[..bytes.len()].copy_from_slice(bytes);
        decoder.arrived(bytes.len());
        decoder
    }

    /// Places and data of the values seen, and whether that was all or a fault.
    fn run(batch: &mut Batch<'_>, bytes: &[u8]) -> (Vec<(usize, String)>, Result<bool, Fault>) {
        let mut seen = Vec::new();
        let mut sink = |at, reply: Reply<'_>| {
            if let Reply::Value(item) = reply {
                seen.push((at, String::from_utf8_lossy(item.data).into_owned()));
            }
            Ok(())
        };
        let result = batch.advance(&mut fed(bytes), &mut sink);
        (seen, result)
    }

    #[test]
    fn values_find_their_keys() {
        let mut batch = Batch::get(keys(&["a", "b", "c d", "e"]), false, &mut 6);
        assert_eq!(batch.requests, b"get a b\r\nmg YyBk b O7 v f c\r\nget e\r\n");
        let replies =
            b"VALUE b 0 1\r\n2\r\nVALUE a 0 1\r\n1\r\nEND\r\nVA 1 O7 f0 c1\r\n3\r\nEND\r\n";
        let (seen, result) = run(&mut batch, replies);
        assert_eq!(result, Ok(true));
        assert_eq!(seen, [(10, "2".into()), (0, "1".into()), (20, "3".into())]);
    }

    #[test]
    fn reads_among_other_commands() {
        let command = |at| match at {
            10 => Command::Delete,
            _ => Command::Get { token: false },
        };
        let mut batch = Batch::each(keys(&["a", "a", "a"]), &mut 0, command);
        assert_eq!(batch.requests, b"get a\r\ndelete a\r\nget a\r\n");
        let (seen, result) = run(&mut batch, b"VALUE a 0 1\r\n1\r\nEND\r\nDELETED\r\nEND\r\n");
        assert_eq!((seen, result), (vec![(0, "1".into())], Ok(true)));
    }

    #[test]
    fn strangers_are_faults_and_the_rest_stays_unanswered() {
        let mut batch = Batch::get(keys(&["a", "b"]), false, &mut 0);
        let (seen, result) = run(&mut batch, b"VALUE a 0 1\r\n1\r\nVALUE x 0 1\r\n1\r\nEND\r\n");
        assert_eq!(seen.len(), 1);
        assert!(result.is_err());
        assert_eq!(batch.unanswered().collect::<Vec<_>>(), [0, 10]);
        let mut batch = Batch::each(keys(&["a", "b", "c"]), &mut 0, |_| Command::Delete);
        assert_eq!(run(&mut batch, b"DELETED\r\nNOT_FOUND\r\n").1, Ok(false));
        assert_eq!(batch.unanswered().collect::<Vec<_>>(), [20]);
    }
}
