//! `distcache top`: servers, live. Owns the threads that ask, the terminal and the keys; what is
//! asked is in `sample`, what it means in `model` and `table`, what it looks like in `view`.

mod model;
mod sample;
mod table;
mod view;

use super::{Failure, clock};
use distcache::client::{Client, Config, Error};
use model::Series;
use ratatui::DefaultTerminal;
use ratatui::crossterm::event::{self, Event, KeyCode, KeyEvent, KeyEventKind, KeyModifiers};
use sample::{Sample, Stats};
use std::io::{IsTerminal, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::time::Duration;
use view::Screen;

/// Longest wait for a key before news from the servers are looked at.
const KEY_WAIT: Duration = Duration::from_millis(100);

/// Intervals one can choose, in milliseconds.
const INTERVALS_MILLIS: [u64; 9] = [250, 500, 1000, 2000, 5000, 10_000, 15_000, 30_000, 60_000];

/// What `distcache top` was told.
pub struct Options {
    pub interval: Duration,
    /// One sample as text, and the end.
    pub once: bool,
}

impl Options {
    pub fn new(seconds: &str, once: bool) -> Result<Self, Failure> {
        let seconds: f64 = seconds.parse()?;
        match Duration::try_from_secs_f64(seconds) {
            Ok(interval) if (0.1..=3600.0).contains(&seconds) => Ok(Self { interval, once }),
            _ => Err("top: the interval is from 0.1 to 3600 seconds".into()),
        }
    }
}

/// Whether all servers answered, or, with a screen, true.
pub fn run(servers: &[&str], config: &Config, options: &Options) -> Result<bool, Failure> {
    let config = Config {
        // Each sample is a trial of its own: a server is up when it answers.
        check_every: None,
        failures_max: u32::MAX,
        discovery: None,
        ..config.clone()
    };
    let names = servers.iter().map(|server| server.trim()).filter(|name| !name.is_empty());
    let series: Vec<Series> = names.map(Series::new).collect();
    for series in &series {
        // Addresses that make no sense are an error, not a server that is down.
        Client::with_config([&series.name], config.clone())?;
    }
    if options.once || !std::io::stdout().is_terminal() {
        return once(series, &config, options.interval);
    }
    live(series, &config, options.interval)
}

/// Asks one server; a connection that fails is made anew at the next sample.
struct Source {
    server: String,
    config: Config,
    client: Option<Client>,
}

impl Source {
    fn sample(&mut self) -> Result<Sample, String> {
        let reused = self.client.is_some();
        match self.try_sample() {
            // The server was restarted since: that alone is not being down.
            Err(Error::Io { .. }) if reused => self.try_sample(),
            result => result,
        }
        .map_err(|error| error.to_string())
    }

    fn try_sample(&mut self) -> Result<Sample, Error> {
        let client = match self.client.take() {
            Some(client) => client,
            None => Client::with_config([&self.server], self.config.clone())?,
        };
        let ask = |which: &str| -> Result<Stats, Error> {
            client.stats(which).pop().map_or(Err(Error::NoServers), |(_, stats)| stats)
        };
        let optional = |which: &str| match ask(which) {
            Ok(stats) => Ok(Some(stats)),
            // It has no such statistics.
            Err(Error::Refused { .. }) => Ok(None),
            Err(error) => Err(error),
        };
        let sampled = (|| {
            let stats = ask("")?;
            let at = clock::now();
            let (latency, hot) = (optional("latency")?, optional("hotkeys")?);
            Ok(Sample::new(at, stats, latency.as_ref(), hot.as_ref()))
        })();
        // A client whose login was refused knows not to try again at once.
        if matches!(sampled, Ok(_) | Err(Error::Login { .. })) {
            self.client = Some(client);
        }
        sampled
    }
}

/// Two samples of each server, side by side, and what they say.
fn once(mut series: Vec<Series>, config: &Config, interval: Duration) -> Result<bool, Failure> {
    std::thread::scope(|scope| {
        for series in &mut series {
            let (server, config) = (series.name.clone(), config.clone());
            scope.spawn(move || {
                let mut source = Source { server, config, client: None };
                series.push(source.sample());
                std::thread::sleep(interval);
                series.push(source.sample());
            });
        }
    });
    std::io::stdout().write_all(table::plain(&series).as_bytes())?;
    Ok(series.iter().all(|one| one.row().state == model::State::Up))
}

/// The threads that ask. They end by themselves when this is dropped.
struct Watch {
    news: Receiver<(usize, Result<Sample, String>)>,
    /// Wakes each thread to look at the interval again.
    wakers: Vec<Sender<()>>,
    interval_millis: Arc<AtomicU64>,
}

impl Watch {
    fn start(series: &[Series], config: &Config, interval: Duration) -> Result<Self, Failure> {
        let millis = u64::try_from(interval.as_millis()).unwrap_or(u64::MAX);
        let interval_millis = Arc::new(AtomicU64::new(millis));
        let (sender, news) = channel();
        let mut wakers = Vec::new();
        for (at, one) in series.iter().enumerate() {
            let (waker, woken) = channel();
            wakers.push(waker);
            let (sender, interval) = (sender.clone(), Arc::clone(&interval_millis));
            let (server, config) = (one.name.clone(), config.clone());
            let mut source = Source { server, config, client: None };
            std::thread::Builder::new().name("distcache-top".into()).spawn(move || {
                loop {
                    let start = clock::now();
                    if sender.send((at, source.sample())).is_err() {
                        return;
                    }
                    loop {
                        let interval = Duration::from_millis(interval.load(Ordering::Relaxed));
                        let left = interval.saturating_sub(clock::now().duration_since(start));
                        match woken.recv_timeout(left) {
                            Ok(()) => {}
                            Err(RecvTimeoutError::Timeout) => break,
                            Err(RecvTimeoutError::Disconnected) => return,
                        }
                    }
                }
            })?;
        }
        Ok(Self { news, wakers, interval_millis })
    }

    fn interval(&self) -> Duration {
        Duration::from_millis(self.interval_millis.load(Ordering::Relaxed))
    }

    /// The next longer or shorter one.
    fn change_interval(&self, longer: bool) {
        let now = self.interval_millis.load(Ordering::Relaxed);
        self.interval_millis.store(next_interval(now, longer), Ordering::Relaxed);
        for waker in &self.wakers {
            let _ = waker.send(());
        }
    }
}

fn next_interval(now: u64, longer: bool) -> u64 {
    let mut choices = INTERVALS_MILLIS.into_iter();
    let next = match longer {
        true => choices.find(|millis| *millis > now),
        false => choices.rfind(|millis| *millis < now),
    };
    next.unwrap_or(now)
}

/// The terminal, given back as it was when this goes. A panic gives it back too: `ratatui::init`
/// hooks into panics.
struct Held(DefaultTerminal);

impl Drop for Held {
    fn drop(&mut self) {
        ratatui::restore();
    }
}

/// What asks us to end sets the flag.
#[cfg(unix)]
fn end_on_signals(ended: &Arc<AtomicBool>) -> Result<(), Failure> {
    use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
    for signal in [SIGHUP, SIGINT, SIGTERM] {
        signal_hook::flag::register(signal, Arc::clone(ended))?;
    }
    Ok(())
}

/// The system ends us.
#[cfg(not(unix))]
fn end_on_signals(_ended: &Arc<AtomicBool>) -> Result<(), Failure> {
    Ok(())
}

fn live(mut series: Vec<Series>, config: &Config, interval: Duration) -> Result<bool, Failure> {
    let ended = Arc::new(AtomicBool::new(false));
    end_on_signals(&ended)?;
    let watch = Watch::start(&series, config, interval)?;
    let terminal = ratatui::try_init().inspect_err(|_| ratatui::restore())?;
    let mut held = Held(terminal);
    let mut screen = Screen::default();
    let mut changed = true;
    while !ended.load(Ordering::Relaxed) {
        for (at, sampled) in watch.news.try_iter() {
            series[at].push(sampled);
            changed = true;
        }
        if std::mem::take(&mut changed) {
            held.0.draw(|frame| view::draw(frame, &series, &screen, watch.interval()))?;
        }
        if event::poll(KEY_WAIT)? {
            changed = true;
            match event::read()? {
                Event::Key(key) if key.kind == KeyEventKind::Release => {}
                Event::Key(key) if !obey(key, &mut screen, &watch, &series) => break,
                _ => {}
            }
        }
    }
    Ok(true)
}

/// False for the end.
fn obey(key: KeyEvent, screen: &mut Screen, watch: &Watch, servers: &[Series]) -> bool {
    let control = key.modifiers.contains(KeyModifiers::CONTROL);
    let helped = std::mem::take(&mut screen.help);
    match key.code {
        KeyCode::Char('c' | 'd') if control => return false,
        KeyCode::Esc if helped => {}
        KeyCode::Char('q' | 'Q') | KeyCode::Esc => return false,
        KeyCode::Char('?' | 'h') => screen.help = !helped,
        KeyCode::Char('s') => screen.sort = screen.sort.next(),
        KeyCode::Down | KeyCode::Right | KeyCode::Tab | KeyCode::Char('j') => {
            screen.select(true, servers);
        }
        KeyCode::Up | KeyCode::Left | KeyCode::BackTab | KeyCode::Char('k') => {
            screen.select(false, servers);
        }
        KeyCode::Char('+' | '=') => watch.change_interval(true),
        KeyCode::Char('-' | '_') => watch.change_interval(false),
        _ => {}
    }
    true
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn intervals_have_ends() {
        for (now, longer, expected) in [
            (2000, true, 5000),
            (2000, false, 1000),
            (60_000, true, 60_000),
            (250, false, 250),
            (100, false, 100),
            (100, true, 250),
            (3_600_000, false, 60_000),
            (1500, true, 2000),
        ] {
            assert_eq!(next_interval(now, longer), expected);
        }
        assert!(Options::new("0.5", false).is_ok());
        for wrong in ["0", "-1", "x", "inf", "NaN", "4000"] {
            assert!(Options::new(wrong, true).is_err(), "{wrong}");
        }
    }
}
