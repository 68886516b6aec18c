//! Many calls on one connection at a time: which reply is whose. Owns the order; no I/O and no
//! waiting. Replies are handed over as bytes, for whoever asked to read.
//!
//! The protocol answers in the order it was asked. Where a reply says what it belongs to (the key
//! of a value, the number of a meta command), that is compared before it is handed over; what
//! nobody asked for, or does not belong there, is a fault that ends the connection. A call that
//! nobody waits for any more keeps its place: its reply is read and dropped.

use crate::client::wire::command::Expect;
use crate::client::wire::reply::{Decoder, Fault};
use std::collections::VecDeque;
use std::vec;

/// One call: the replies that it waits for, and what it is known by.
#[derive(Debug)]
pub(in crate::client) struct Waiting<T> {
    next: Expect,
    rest: vec::IntoIter<Expect>,
    /// The requests, if values are asked for: they name the keys.
    asked: Vec<u8>,
    /// Where in `asked` the next key is looked for.
    at: usize,
    /// What has arrived.
    arrived: Vec<u8>,
    pub caller: T,
}

impl<T> Waiting<T> {
    /// A call with one reply at least.
    pub(crate) fn new(requests: &[u8], next: Expect, rest: Vec<Expect>, caller: T) -> Self {
        let names_keys = next == Expect::Values || rest.contains(&Expect::Values);
        let asked = if names_keys { requests.to_vec() } else { Vec::new() };
        Self { next, rest: rest.into_iter(), asked, at: 0, arrived: Vec::new(), caller }
    }

    /// Whether one of the requests has this key as a word, best the one after the last.
    fn asked_for(&mut self, key: &[u8]) -> bool {
        let end = |at: usize| at + key.len();
        let is_here = |at: &usize| {
            self.asked[..*at].ends_with(b" ")
                && self.asked[*at..].starts_with(key)
                && matches!(self.asked.get(end(*at)), Some(b' ' | b'\r'))
        };
        let find = |from: usize, to: usize| {
            let ends = memchr::memchr_iter(b' ', &self.asked[from..to]);
            ends.map(|blank| from + blank + 1).find(is_here)
        };
        let found = find(self.at, self.asked.len()).or_else(|| find(0, self.at));
        if let Some(at) = found {
            self.at = end(at);
        }
        found.is_some()
    }
}

/// The calls under way on one connection.
#[derive(Debug)]
pub(in crate::client) struct Pipeline<T> {
    waiting: VecDeque<Waiting<T>>,
}

impl<T> Default for Pipeline<T> {
    fn default() -> Self {
        Self { waiting: VecDeque::new() }
    }
}

impl<T> Pipeline<T> {
    pub(crate) fn push(&mut self, waiting: Waiting<T>) {
        self.waiting.push_back(waiting);
    }

    pub(crate) fn callers(&self) -> impl Iterator<Item = &T> {
        self.waiting.iter().map(|waiting| &waiting.caller)
    }

    /// Hands over every reply that is complete; returns how many.
    pub(crate) fn advance(
        &mut self,
        decoder: &mut Decoder,
        hand_over: &mut impl FnMut(T, Vec<u8>),
    ) -> Result<usize, Fault> {
        let mut count = 0;
        while let Some(first) = self.waiting.front_mut() {
            let Some(part) = decoder.next_part(first.next)? else { return Ok(count) };
            if part.key.is_some_and(|key| !first.asked_for(key)) {
                return Err(Fault("a value that was not asked for".into()));
            }
            first.arrived.extend_from_slice(part.bytes);
            if !part.ends {
                continue;
            }
            if let Some(next) = first.rest.next() {
                first.next = next;
                continue;
            }
            if let Some(done) = self.waiting.pop_front() {
                hand_over(done.caller, done.arrived);
                count += 1;
            }
        }
        match decoder.is_empty() {
            true => Ok(count),
            false => Err(Fault("bytes that nobody asked for".into())),
        }
    }

    /// The end of the connection: all that waited, with what had arrived for them.
    pub(crate) fn end(&mut self) -> impl Iterator<Item = (T, Vec<u8>)> {
        std::mem::take(&mut self.waiting).into_iter().map(|one| (one.caller, one.arrived))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// A request with its replies and what is expected.
    fn call(kind: u8, number: u32) -> (String, Expect, String) {
        match kind % 5 {
            0 => (format!("get k{number}\r\n"), Expect::Values, "END\r\n".into()),
            1 => (
                format!("gets a k{number}\r\n"),
                Expect::Values,
                format!("VALUE k{number} 0 7 1\r\n{number:07}\r\nEND\r\n"),
            ),
            2 => (format!("incr k{number} 1\r\n"), Expect::Line, format!("{number}\r\n")),
            3 => (
                format!("mg k{number} O{number} v\r\n"),
                Expect::Meta { opaque: number },
                format!("VA 4 O{number}\r\n\r\n\r\n\r\n"),
            ),
            _ => ("stats\r\n".into(), Expect::Stats, format!("STAT number {number}\r\nEND\r\n")),
        }
    }

    fn feed(decoder: &mut Decoder, bytes: &[u8]) {
        decoder.room()[..bytes.len()].copy_from_slice(bytes);
        decoder.arrived(bytes.len());
    }

    proptest! {
        /// Each caller gets the bytes of its own reply, in whatever pieces they arrive.
        #[test]
        fn every_reply_finds_its_caller(
            kinds in prop::collection::vec(any::<u8>(), 1..40),
            piece_bytes in 1..200usize,
        ) {
            let mut pipeline = Pipeline::default();
            let (mut replies, mut expected) = (String::new(), Vec::new());
            let mut decoder = Decoder::default();
            for (number, kind) in (100_000u32..).zip(&kinds) {
                let (request, expect, reply) = call(*kind, number);
                pipeline.push(Waiting::new(request.as_bytes(), expect, Vec::new(), number));
                replies.push_str(&reply);
                expected.push((number, reply.into_bytes()));
            }
            let mut got = Vec::new();
            for piece in replies.as_bytes().chunks(piece_bytes) {
                feed(&mut decoder, piece);
                pipeline.advance(&mut decoder, &mut |caller, bytes| got.push((caller, bytes)))
                    .unwrap();
            }
            prop_assert_eq!(got, expected);
            prop_assert!(pipeline.waiting.is_empty());
        }

        /// A reply that is left out or comes twice is noticed where replies say whose they are.
        #[test]
        fn replies_out_of_step_are_faults(
            values in prop::collection::vec(any::<bool>(), 2..20),
            at in 0..19usize,
            twice: bool,
        ) {
            let mut pipeline = Pipeline::default();
            let mut replies = Vec::new();
            for (number, is_value) in (100_000u32..).zip(&values) {
                let (request, expect, reply) = call(if *is_value { 1 } else { 3 }, number);
                pipeline.push(Waiting::new(request.as_bytes(), expect, Vec::new(), number));
                replies.push((number, reply));
            }
            let at = at % replies.len();
            match twice {
                true => replies.insert(at, replies[at].clone()),
                false => drop(replies.remove(at)),
            }
            let mut decoder = Decoder::default();
            let mut fault = false;
            for (_, reply) in &replies {
                feed(&mut decoder, reply.as_bytes());
                let mut check = |caller: u32, bytes: Vec<u8>| {
                    let text = String::from_utf8(bytes).unwrap();
                    assert!(text.contains(&caller.to_string()), "{caller} got {text:?}");
                };
                match pipeline.advance(&mut decoder, &mut check) {
                    Ok(_) => {}
                    Err(_) => { fault = true; break }
                }
            }
            prop_assert!(fault || (!twice && !pipeline.waiting.is_empty()));
        }
    }

    #[test]
    fn many_replies_of_one_call_and_a_call_that_broke_off() {
        let mut pipeline = Pipeline::default();
        let requests = b"get a b\r\nmg x O5 v\r\n";
        let rest = vec![Expect::Meta { opaque: 5 }];
        pipeline.push(Waiting::new(requests, Expect::Values, rest, 'x'));
        pipeline.push(Waiting::new(b"delete c\r\n", Expect::Line, Vec::new(), 'y'));
        let mut decoder = Decoder::default();
        let mut got = Vec::new();
        let mut sink = |caller, bytes: Vec<u8>| got.push((caller, bytes));
        feed(&mut decoder, b"VALUE b 0 1\r\n2\r\nVALUE a 0 1\r\n1\r\nEND\r\n");
        assert_eq!(pipeline.advance(&mut decoder, &mut sink), Ok(0));
        feed(&mut decoder, b"EN\r\nDELE");
        assert_eq!(pipeline.advance(&mut decoder, &mut sink), Ok(1));
        assert_eq!(got.len(), 1);
        assert!(got[0].1.ends_with(b"END\r\nEN\r\n"));
        assert_eq!(pipeline.end().map(|(caller, _)| caller).collect::<Vec<_>>(), ['y']);
    }

    #[test]
    fn strangers_and_the_unasked_are_faults() {
        for (request, expect, reply) in [
            ("get ab\r\n", Expect::Values, "VALUE a 0 1\r\n1\r\nEND\r\n"),
            ("get ab\r\n", Expect::Values, "VALUE get 0 1\r\n1\r\nEND\r\n"),
            ("get a\r\n", Expect::Values, "VALUE b 0 1\r\n1\r\nEND\r\n"),
            ("get a\r\n", Expect::Values, "END\r\nEND\r\n"),
            ("mg a O1\r\n", Expect::Meta { opaque: 1 }, "HD O2\r\n"),
        ] {
            let mut pipeline = Pipeline::default();
            pipeline.push(Waiting::new(request.as_bytes(), expect, Vec::new(), ()));
            let mut decoder = Decoder::default();
            feed(&mut decoder, reply.as_bytes());
            let advanced = pipeline.advance(&mut decoder, &mut |_, _| {});
            assert!(advanced.is_err(), "{reply:?} to {request:?}");
        }
    }
}
