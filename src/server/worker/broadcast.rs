//! What one connection's command asks of all workers: their counters, or to set them to 0.
//!
//! A worker asks all, itself included, by message, for one of its connections at a time; the others
//! wait in line. So an inbox holds one question of each worker, whatever clients ask, and one
//! answer is made at a time. Owns the line; the texts are in `crate::server::stats::text`.

use super::inbox::{Address, Ask, AskedBy, Message, Question};
use crate::server::connection::socket::ConnectionId;
use crate::server::stats::report::Report;
use crate::server::stats::text::Topic;
use std::collections::VecDeque;

/// What to answer when all workers have done what was asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Asked {
    /// That counters were reset.
    Reset,
    /// A part of the statistics.
    Stats(Topic),
}

/// A question that is under way, or waits for its turn.
struct Pending {
    connection: ConnectionId,
    question: Question,
    asked: Asked,
}

/// See the module's text.
pub struct Broadcasts {
    worker: usize,
    workers: Vec<Address>,
    /// The first one is under way.
    pending: VecDeque<Pending>,
    reports: Vec<Box<Report>>,
}

impl Broadcasts {
    /// Nothing asked by this worker yet.
    pub fn new(worker: usize, workers: Vec<Address>) -> Self {
        Self { worker, workers, pending: VecDeque::new(), reports: Vec::new() }
    }

    /// How to reach the workers.
    pub fn workers(&self) -> &[Address] {
        &self.workers
    }

    /// Nothing is under way.
    pub fn is_empty(&self) -> bool {
        self.pending.is_empty()
    }

    /// Asks all workers, after what is under way.
    pub fn ask(&mut self, connection: ConnectionId, question: Question, asked: Asked) {
        self.pending.push_back(Pending { connection, question, asked });
        if self.pending.len() == 1 {
            self.send();
        }
    }

    /// A worker has done what was asked. Returns the reports of all, and whose question it was,
    /// when it was the last one.
    pub fn done(&mut self, report: Box<Report>) -> Option<(ConnectionId, Asked, Vec<Box<Report>>)> {
        self.reports.push(report);
        if self.reports.len() < self.workers.len() {
            return None;
        }
        let reports = std::mem::take(&mut self.reports);
        let Pending { connection, asked, .. } = self.pending.pop_front()?;
        self.send();
        Some((connection, asked, reports))
    }

    /// Asks what is first in line.
    fn send(&self) {
        let Some(Pending { question, .. }) = self.pending.front() else { return };
        for address in &self.workers {
            let (question, by) = (*question, AskedBy::Worker(self.worker));
            address.send(Message::Ask(Ask { question, by }));
        }
    }
}
