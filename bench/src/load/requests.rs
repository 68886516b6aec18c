//! From the stream of keys to batches of commands. Owns the choice of verbs and the list of what
//! each command must be answered with; no sockets.

use std::collections::VecDeque;
use std::sync::Arc;

use super::{Mix, Plan, Verb};
use crate::frames;
use crate::population::Population;
use crate::resp;
use crate::stream::Stream;
use crate::wire::{self, Protocol};

/// The kind of reply a command must get.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Answer {
    /// Any number of values, then `END`.
    Values,
    /// A meta value or a meta miss.
    Meta,
    /// `STORED`.
    Stored,
}

/// A reply that is still out.
#[derive(Clone, Copy, Debug)]
pub(super) struct Expected {
    pub(super) answer: Answer,
    /// Keys of the command not yet accounted for; their ids are in `Pending::keys`.
    pub(super) keys_left: u32,
    /// Commands this reply vouches for: its own and the noreply ones before it.
    pub(super) commands: u32,
    /// When the command was, or was meant to be, sent: nanoseconds on the engine's clock.
    pub(super) sent_ns: u64,
}

/// Everything still out on one connection, in order of sending.
#[derive(Debug, Default)]
pub(super) struct Pending {
    pub(super) replies: VecDeque<Expected>,
    pub(super) keys: VecDeque<u64>,
}

/// Writes commands for one load thread.
#[derive(Debug)]
pub(super) struct Requests {
    pub(super) population: Arc<Population>,
    stream: Stream,
    mix: Vec<(Verb, u32)>,
    weight_sum: u64,
    keys_per_get: usize,
    protocol: Protocol,
}

impl Requests {
    pub(super) fn new(plan: &Plan, part: usize) -> Self {
        let Mix(mix) = plan.mix.clone();
        Self {
            population: Arc::clone(&plan.population),
            stream: Stream::new(
                &plan.stream,
                plan.population.keys(),
                part as u64,
                plan.threads as u64,
            ),
            weight_sum: mix.iter().map(|&(_, weight)| u64::from(weight)).sum(),
            mix,
            keys_per_get: plan.keys_per_get,
            protocol: plan.protocol,
        }
    }

    /// Appends `count` commands to `out` and what they expect to `pending`.
    #[inline]
    pub(super) fn push_batch(
        &mut self,
        count: usize,
        sent_ns: u64,
        out: &mut Vec<u8>,
        pending: &mut Pending,
    ) {
        let mut commands = 0;
        for index in 0..count {
            commands += 1;
            let verb = match self.next_verb() {
                Verb::SetNoreply if index + 1 == count => Verb::Set,
                Verb::FrameSetQuiet if index + 1 == count => Verb::FrameSet,
                verb => verb,
            };
            let expected = match self.protocol {
                Protocol::Text => self.push_command(verb, out, &mut pending.keys),
                Protocol::Resp => Some(self.push_resp(verb, out, &mut pending.keys)),
            };
            if let Some((answer, keys_left)) = expected {
                pending.replies.push_back(Expected { answer, keys_left, commands, sent_ns });
                commands = 0;
            }
        }
        debug_assert_eq!(commands, 0, "the last command of a batch has a reply");
    }

    /// Stores a key without a reply. Answers the bytes of key and value.
    pub(super) fn push_fill(&self, id: u64, out: &mut Vec<u8>) -> u64 {
        wire::push_set(out, &self.population, id, true);
        (self.population.key_bytes(id) + self.population.value_bytes(id)) as u64
    }

    #[inline]
    fn next_verb(&mut self) -> Verb {
        if let [(verb, _)] = self.mix[..] {
            return verb;
        }
        let mut draw = self.stream.random().below(self.weight_sum);
        for &(verb, weight) in &self.mix {
            match draw.checked_sub(u64::from(weight)) {
                Some(rest) => draw = rest,
                None => return verb,
            }
        }
        unreachable!("draw is below the sum of weights")
    }

    #[inline]
    fn push_command(
        &mut self,
        verb: Verb,
        out: &mut Vec<u8>,
        keys: &mut VecDeque<u64>,
    ) -> Option<(Answer, u32)> {
        let population = &*self.population;
        match verb {
            Verb::Get | Verb::Miss | Verb::MultiGet => {
                let count = if verb == Verb::MultiGet { self.keys_per_get } else { 1 };
                wire::push_get(out);
                for _ in 0..count {
                    let absent = verb == Verb::Miss;
                    let id = if absent { self.stream.absent_id() } else { self.stream.next_id() };
                    wire::push_get_key(out, population, id);
                    keys.push_back(id);
                }
                wire::push_line_end(out);
                Some((Answer::Values, count as u32))
            }
            Verb::MetaGet => {
                let id = self.stream.next_id();
                wire::push_meta_get(out, population, id);
                keys.push_back(id);
                Some((Answer::Meta, 1))
            }
            Verb::Set => {
                wire::push_set(out, population, self.stream.next_id(), false);
                Some((Answer::Stored, 0))
            }
            Verb::SetNoreply => {
                wire::push_set(out, population, self.stream.next_id(), true);
                None
            }
            Verb::FrameGet | Verb::FrameMultiGet | Verb::FrameSet | Verb::FrameSetQuiet => {
                self.push_frames(verb, out, keys)
            }
        }
    }

    /// A command of the binary protocol.
    fn push_frames(
        &mut self,
        verb: Verb,
        out: &mut Vec<u8>,
        keys: &mut VecDeque<u64>,
    ) -> Option<(Answer, u32)> {
        let population = &*self.population;
        match verb {
            Verb::FrameMultiGet => {
                for _ in 0..self.keys_per_get {
                    let id = self.stream.next_id();
                    frames::push_quiet_get(out, population, id);
                    keys.push_back(id);
                }
                frames::push_noop(out);
                Some((Answer::Values, self.keys_per_get as u32))
            }
            Verb::FrameSet | Verb::FrameSetQuiet => {
                let quiet = verb == Verb::FrameSetQuiet;
                frames::push_set(out, population, self.stream.next_id(), quiet);
                (!quiet).then_some((Answer::Stored, 0))
            }
            _ => {
                let id = self.stream.next_id();
                frames::push_get(out, population, id);
                keys.push_back(id);
                Some((Answer::Meta, 1))
            }
        }
    }

    /// `Plan::check` lets no other verbs through. Redis answers every set.
    #[inline]
    fn push_resp(
        &mut self,
        verb: Verb,
        out: &mut Vec<u8>,
        keys: &mut VecDeque<u64>,
    ) -> (Answer, u32) {
        let absent = verb == Verb::Miss;
        let id = if absent { self.stream.absent_id() } else { self.stream.next_id() };
        if matches!(verb, Verb::Set | Verb::SetNoreply) {
            resp::push_set(out, &self.population, id);
            return (Answer::Stored, 0);
        }
        resp::push_get(out, &self.population, id);
        keys.push_back(id);
        (Answer::Meta, 1)
    }
}
