//! Whose turn it is: the lines in which a worker's connections stand.
//!
//! ```text
//! to be served    ready        has sent something, or was waited for
//!                 continuing   has had its turn and wants another: a few of them a turn
//!                 waiting      its shard is held by another worker, until this one is called
//! to be sent to   dirty        has replies
//!                 sending      has more of them than a turn has room for
//!                 gated        has replies that wait for the log
//! ```
//!
//! A connection stands in at most one line to be served and in one to be sent to. It carries its
//! [`Places`], which say whether it does. A connection that is closed leaves its token behind, and
//! another one may have that by then: the places are its own, so a token that was left behind is
//! either passed over or stands for a place that its new owner has taken.
//!
//! Knows neither sockets nor sessions.

use crate::limits::CONTINUING_PER_TURN;
use std::collections::VecDeque;

/// Where a connection stands.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Places {
    to_be_served: bool,
    to_be_sent_to: bool,
    gated: bool,
}

impl Places {
    /// It will be served in this turn or a later one.
    pub fn is_to_be_served(self) -> bool {
        self.to_be_served
    }

    /// Its turn has come. Answers whether it may be served: the token was not left behind, and none
    /// of its replies waits for the log. (Behind that gate it goes on when its replies have left.)
    pub fn take_turn(&mut self) -> bool {
        std::mem::take(&mut self.to_be_served) && !self.gated
    }

    /// What there was is being sent to it.
    pub fn take_sending(&mut self) {
        self.to_be_sent_to = false;
    }
}

/// See the module's text.
#[derive(Debug, Default)]
pub struct Queues {
    ready: Vec<usize>,
    continuing: VecDeque<usize>,
    waiting: Vec<usize>,
    dirty: Vec<usize>,
    sending: VecDeque<usize>,
    gated: Vec<usize>,
}

impl Queues {
    /// Whether somebody is to be served in the next turn.
    pub fn has_turns(&self) -> bool {
        !self.ready.is_empty() || !self.continuing.is_empty()
    }

    /// Whether somebody is to be sent to in the next turn.
    pub fn has_to_send(&self) -> bool {
        !self.dirty.is_empty() || !self.sending.is_empty()
    }

    /// Whether somebody waits for the log.
    pub fn has_gated(&self) -> bool {
        !self.gated.is_empty()
    }

    /// It is served in the next turn.
    pub fn serve_soon(&mut self, token: usize, places: &mut Places) {
        if !std::mem::replace(&mut places.to_be_served, true) {
            self.ready.push(token);
        }
    }

    /// It is served when those before it have been.
    pub fn serve_in_line(&mut self, token: usize, places: &mut Places) {
        if !std::mem::replace(&mut places.to_be_served, true) {
            self.continuing.push_back(token);
        }
    }

    /// It is served once [`Queues::call_waiting`] is called.
    pub fn serve_when_called(&mut self, token: usize, places: &mut Places) {
        if !std::mem::replace(&mut places.to_be_served, true) {
            self.waiting.push(token);
        }
    }

    /// Those whose shard was held try again in the next turn.
    pub fn call_waiting(&mut self) {
        self.ready.append(&mut self.waiting);
    }

    /// Those to be served in this turn: who has just sent something, and then a few of those that
    /// want another turn, so that many of them do not make a turn long for the others.
    pub fn take_turns(&mut self) -> Vec<usize> {
        let mut tokens = std::mem::take(&mut self.ready);
        let again = CONTINUING_PER_TURN.min(self.continuing.len());
        tokens.extend(self.continuing.drain(..again));
        tokens
    }

    /// Keeps the memory of what [`Queues::take_turns`] gave.
    pub fn give_back_turns(&mut self, tokens: Vec<usize>) {
        if self.ready.is_empty() && tokens.is_empty() {
            self.ready = tokens;
        }
    }

    /// It is sent to at the end of this turn.
    pub fn send_soon(&mut self, token: usize, places: &mut Places) {
        if !std::mem::replace(&mut places.to_be_sent_to, true) {
            self.dirty.push(token);
        }
    }

    /// Those with replies.
    pub fn take_dirty(&mut self) -> Vec<usize> {
        std::mem::take(&mut self.dirty)
    }

    /// Keeps the memory of what [`Queues::take_dirty`] gave.
    pub fn give_back_dirty(&mut self, tokens: Vec<usize>) {
        if self.dirty.is_empty() && tokens.is_empty() {
            self.dirty = tokens;
        }
    }

    /// It has much to take: it is sent to when those before it have been.
    pub fn send_in_line(&mut self, token: usize, places: &mut Places) {
        places.to_be_sent_to = true;
        self.sending.push_back(token);
    }

    /// How many have much to take.
    pub fn sending_count(&self) -> usize {
        self.sending.len()
    }

    /// The next of them.
    pub fn next_sending(&mut self) -> Option<usize> {
        self.sending.pop_front()
    }

    /// Its replies wait for the log.
    pub fn gate(&mut self, token: usize, places: &mut Places) {
        places.gated = true;
        self.gated.push(token);
    }

    /// Those whose replies wait for the log.
    pub fn take_gated(&mut self) -> Vec<usize> {
        std::mem::take(&mut self.gated)
    }

    /// The log has moved: it is sent to, and the gate looked at then.
    pub fn look_again(&mut self, token: usize, places: &mut Places) {
        if std::mem::take(&mut places.gated) {
            self.send_soon(token, places);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_connection_stands_in_one_line_to_be_served() {
        let (mut queues, mut places) = (Queues::default(), Places::default());
        queues.serve_when_called(7, &mut places);
        queues.serve_soon(7, &mut places);
        queues.serve_in_line(7, &mut places);
        assert!(!queues.has_turns() && places.is_to_be_served());
        queues.call_waiting();
        assert_eq!(queues.take_turns(), [7]);
        assert!(places.take_turn());
        assert!(!queues.has_turns() && !places.is_to_be_served());
    }

    #[test]
    fn a_token_left_behind_is_passed_over() {
        let (mut queues, mut gone) = (Queues::default(), Places::default());
        queues.serve_in_line(3, &mut gone);
        queues.send_soon(3, &mut gone);
        queues.gate(3, &mut gone);
        // Another connection has its token now.
        let mut new = Places::default();
        assert_eq!(queues.take_turns(), [3]);
        assert!(!new.take_turn());
        assert_eq!(queues.take_gated(), [3]);
        queues.look_again(3, &mut new);
        assert_eq!(new, Places::default());
    }

    #[test]
    fn who_is_gated_is_not_served_until_the_log_has_moved() {
        let (mut queues, mut places) = (Queues::default(), Places::default());
        queues.gate(1, &mut places);
        queues.serve_soon(1, &mut places);
        assert!(!places.take_turn());
        queues.look_again(1, &mut places);
        assert_eq!((queues.take_dirty(), queues.has_gated()), (vec![1], true));
        queues.serve_soon(1, &mut places);
        assert!(places.take_turn());
    }

    #[test]
    fn some_of_those_that_continue_are_served_a_turn() {
        let mut queues = Queues::default();
        for token in 0..CONTINUING_PER_TURN + 1 {
            queues.serve_in_line(token, &mut Places::default());
        }
        queues.serve_soon(1_000, &mut Places::default());
        assert_eq!(queues.take_turns().len(), CONTINUING_PER_TURN + 1);
        assert_eq!(queues.take_turns(), [CONTINUING_PER_TURN]);
    }
}
