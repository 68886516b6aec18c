//! The event loop of one load thread. Owns its connections and the clock; decides when each
//! connection sends.

use std::io::ErrorKind;
use std::time::{Duration, Instant};

use mio::event::Event;
use mio::{Events, Interest, Poll, Token};

use super::connection::Connection;
use super::requests::Requests;
use super::tally::Outcome;
use super::{Plan, Until};
use crate::Result;

/// A server that answers nothing for this long is taken for dead.
const SILENCE_MAX: Duration = Duration::from_secs(20);
/// A loop that has not come round for this long was stopped itself; that is not the server's
/// silence.
const LOOK_GAP_MAX: Duration = Duration::from_secs(2);
/// How often a loop without events looks at the clock.
const POLL_TIMEOUT: Duration = Duration::from_millis(100);
/// epoll's timeout is in milliseconds and rounded up: an open loop whose next command is nearer
/// than this polls without waiting.
const SPIN_BELOW: Duration = Duration::from_millis(3);
/// Few, so that with many connections the server has work again before the load thread has gone
/// through all of them; waiting for each other in turns would keep neither side busy.
const EVENTS_MAX: usize = 64;

#[derive(Debug)]
pub(super) struct Engine {
    poll: Poll,
    connections: Vec<Connection>,
    requests: Requests,
    pipeline: usize,
    /// Zero for a thread with a core to itself: polling without sleep spares the server the cost
    /// of waking the load thread, which a client on another machine would not cause either.
    poll_timeout: Duration,
    /// Commands per second of this thread.
    rate: Option<f64>,
    epoch: Instant,
    last_reply_ns: u64,
    last_look_ns: u64,
    tally: Outcome,
}

impl Engine {
    pub(super) fn connect(plan: &Plan, part: usize) -> Result<Self> {
        let poll = Poll::new()?;
        let count =
            plan.connections / plan.threads + usize::from(part < plan.connections % plan.threads);
        let mut connections = Vec::with_capacity(count);
        for index in 0..count {
            let mut connection = Connection::open(plan)?;
            let interest = Interest::READABLE | Interest::WRITABLE;
            poll.registry().register(&mut connection.stream, Token(index), interest)?;
            connections.push(connection);
        }
        Ok(Self {
            poll,
            connections,
            requests: Requests::new(plan, part),
            pipeline: plan.pipeline,
            poll_timeout: if plan.cores.is_empty() { POLL_TIMEOUT } else { Duration::ZERO },
            rate: plan.rate.map(|rate| rate / plan.threads as f64),
            epoch: Instant::now(),
            last_reply_ns: 0,
            last_look_ns: 0,
            tally: Outcome::default(),
        })
    }

    pub(super) fn run(&mut self, until: Until) -> Result<Outcome> {
        self.epoch = Instant::now();
        self.last_reply_ns = 0;
        self.last_look_ns = 0;
        match self.rate {
            None => self.run_closed(until)?,
            Some(rate) => self.run_open(until, rate)?,
        }
        self.tally.elapsed = self.epoch.elapsed();
        Ok(std::mem::take(&mut self.tally))
    }

    /// Each connection sends its next batch when the last one is answered.
    fn run_closed(&mut self, until: Until) -> Result<()> {
        let mut events = Events::with_capacity(EVENTS_MAX);
        let mut issued = 0;
        let mut busy = vec![false; self.connections.len()];
        for (index, busy) in busy.iter_mut().enumerate() {
            *busy = self.send_batch(index, until, &mut issued)?;
        }
        let mut busy_count = busy.iter().filter(|&&busy| busy).count();
        while busy_count > 0 {
            self.wait(&mut events, self.poll_timeout)?;
            for event in &events {
                let index = event.token().0;
                self.handle(event)?;
                if busy[index] && self.connections[index].is_quiet() {
                    busy[index] = self.send_batch(index, until, &mut issued)?;
                    busy_count -= usize::from(!busy[index]);
                }
            }
            self.check_silence(&events)?;
        }
        Ok(())
    }

    /// False if it is time to stop.
    fn send_batch(&mut self, index: usize, until: Until, issued: &mut u64) -> Result<bool> {
        let now_ns = self.now_ns();
        let count = match until {
            Until::Elapsed(time) if now_ns < nanoseconds(time) => self.pipeline,
            Until::Elapsed(_) => 0,
            Until::Operations(all) => self.pipeline.min((all - *issued) as usize),
        };
        if count == 0 {
            return Ok(false);
        }
        *issued += count as u64;
        let connection = &mut self.connections[index];
        connection.queue(&mut self.requests, count, now_ns, &mut self.tally);
        connection.flush()?;
        Ok(true)
    }

    /// Command `n` leaves at `n / rate` seconds, on the connections in turn.
    fn run_open(&mut self, until: Until, rate: f64) -> Result<()> {
        let total = match until {
            Until::Elapsed(time) => (time.as_secs_f64() * rate) as u64,
            Until::Operations(all) => all,
        };
        let due_ns = |n: u64| (n as f64 * 1e9 / rate) as u64;
        let mut events = Events::with_capacity(EVENTS_MAX);
        let mut issued = 0;
        while issued < total || self.tally.operations < total {
            while issued < total && due_ns(issued) <= self.now_ns() {
                let index = issued as usize % self.connections.len();
                let connection = &mut self.connections[index];
                connection.queue(&mut self.requests, 1, due_ns(issued), &mut self.tally);
                connection.flush()?;
                issued += 1;
            }
            let until_next = match issued < total {
                true => Duration::from_nanos(due_ns(issued).saturating_sub(self.now_ns())),
                false => self.poll_timeout,
            };
            // Leave a margin for the rounding up, then spin for the rest.
            self.wait(&mut events, until_next.saturating_sub(SPIN_BELOW))?;
            for event in &events {
                self.handle(event)?;
            }
            self.check_silence(&events)?;
        }
        Ok(())
    }

    fn wait(&mut self, events: &mut Events, timeout: Duration) -> Result<()> {
        match self.poll.poll(events, Some(timeout)) {
            Err(error) if error.kind() != ErrorKind::Interrupted => Err(error.into()),
            _ => Ok(()),
        }
    }

    #[inline]
    fn handle(&mut self, event: &Event) -> Result<()> {
        let connection = &mut self.connections[event.token().0];
        if event.is_writable() {
            connection.flush()?;
        }
        if event.is_readable() || event.is_read_closed() || event.is_error() {
            let epoch = self.epoch;
            let now_ns = || nanoseconds(epoch.elapsed());
            connection.receive(&self.requests.population, now_ns, &mut self.tally)?;
        }
        Ok(())
    }

    /// Fails if commands are out and nothing has come back for long.
    fn check_silence(&mut self, events: &Events) -> Result<()> {
        let now_ns = self.now_ns();
        let was_stopped = now_ns.saturating_sub(self.last_look_ns) > nanoseconds(LOOK_GAP_MAX);
        self.last_look_ns = now_ns;
        if was_stopped || !events.is_empty() {
            self.last_reply_ns = now_ns;
            return Ok(());
        }
        let silent_ns = now_ns.saturating_sub(self.last_reply_ns);
        let is_waiting = || self.connections.iter().any(|connection| !connection.is_quiet());
        if silent_ns > nanoseconds(SILENCE_MAX) && is_waiting() {
            return Err(format!("no reply for {} s", SILENCE_MAX.as_secs()).into());
        }
        Ok(())
    }

    fn now_ns(&self) -> u64 {
        nanoseconds(self.epoch.elapsed())
    }
}

fn nanoseconds(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)
}
