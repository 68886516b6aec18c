//! `distcache top`: servers, live. Owns the threads that ask, the terminal and the keys; what is
//! asked is in `sample`, what it means in `model` and `table`, what it looks like in `view`.

mod model;
mod sample;
mod table;
mod view;

use crate::clock;
use crate::exit::{Failure, Status};
use distcache::client::{Client, Config, Error, Node};
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

/// Time between two samples, unless told otherwise.
const INTERVAL_DEFAULT: Duration = Duration::from_secs(2);

/// Intervals one can choose, in milliseconds.
const INTERVALS_MILLIS: [u64; 9] = [250, 500, 1000, 2000, 5000, 10_000, 15_000, 30_000, 60_000];

/// What `distcache top` was told.
pub(crate) struct Options {
    pub interval: Duration,
    /// One sample as text, and the end.
    pub once: bool,
}

impl Options {
    pub(crate) fn new(seconds: Option<&str>, once: bool) -> Result<Self, Failure> {
        let Some(seconds) = seconds else { return Ok(Self { interval: INTERVAL_DEFAULT, once }) };
        let seconds: f64 = seconds.parse().unwrap_or(f64::NAN);
        match Duration::try_from_secs_f64(seconds) {
            Ok(interval) if (0.1..=3600.0).contains(&seconds) => Ok(Self { interval, once }),
            _ => Err("top: the interval is from 0.1 to 3600 seconds".into()),
        }
    }
}

/// One sample as text says whether all servers answered; a screen has shown it.
pub(crate) fn run(servers: &[&str], config: &Config, options: &Options) -> Result<Status, Failure> {
    let config = Config {
        // Each sample is a trial of its own: a server is up when it answers.
        check_every: None,
        failures_max: u32::MAX,
        discovery: None,
        ..config.clone()
    };
    // Addresses that make no sense are an error, not a server that is down.
    let nodes: Vec<Node> = servers.iter().map(|server| server.parse()).collect::<Result<_, _>>()?;
    Client::with_nodes(nodes.clone(), config.clone())?;
    let sources =
        nodes.into_iter().map(|node| Source { node, config: config.clone(), client: None });
    let sources: Vec<Source> = sources.collect();
    let series = sources.iter().map(|source| Series::new(&label(&source.node))).collect();
    if options.once || !std::io::stdout().is_terminal() {
        return once(series, sources, options.interval);
    }
    live(series, sources, options.interval)
}

/// Its address with the port, behind its name if it was given one.
fn label(node: &Node) -> String {
    match node.given_name() {
        Some(name) => format!("{name} {}", node.address()),
        None => node.address(),
    }
}

/// Asks one server; a connection that fails is made anew at the next sample.
struct Source {
    node: Node,
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
        .map_err(|error| {
            let text = error.to_string();
            let about = format!("{}: ", self.node.name());
            text.strip_prefix(&about).unwrap_or(&text).to_owned()
        })
    }

    fn try_sample(&mut self) -> Result<Sample, Error> {
        let client = match self.client.take() {
            Some(client) => client,
            None => Client::with_nodes(vec![self.node.clone()], self.config.clone())?,
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
fn once(
    mut series: Vec<Series>,
    sources: Vec<Source>,
    interval: Duration,
) -> Result<Status, Failure> {
    std::thread::scope(|scope| {
        for (series, mut source) in series.iter_mut().zip(sources) {
            scope.spawn(move || {
                series.push(source.sample());
                std::thread::sleep(interval);
                series.push(source.sample());
            });
        }
    });
    std::io::stdout().write_all(table::plain(&series).as_bytes())?;
    let all_up = series.iter().all(|one| one.row().state == model::State::Up);
    Ok(if all_up { Status::Done } else { Status::Unavailable })
}

/// The threads that ask. They end by themselves when this is dropped.
struct Watch {
    news: Receiver<(usize, Result<Sample, String>)>,
    /// Wakes each thread to look at the interval again.
    wakers: Vec<Sender<()>>,
    interval_millis: Arc<AtomicU64>,
}

impl Watch {
    fn start(sources: Vec<Source>, interval: Duration) -> Result<Self, Failure> {
        let millis = u64::try_from(interval.as_millis()).unwrap_or(u64::MAX);
        let interval_millis = Arc::new(AtomicU64::new(millis));
        let (sender, news) = channel();
        let mut wakers = Vec::new();
        for (at, mut source) in sources.into_iter().enumerate() {
            let (waker, woken) = channel();
            wakers.push(waker);
            let (sender, interval) = (sender.clone(), Arc::clone(&interval_millis));
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
struct Held {
    terminal: DefaultTerminal,
    /// Standard input is one too: otherwise keys come from the terminal that we belong to.
    input: bool,
}

impl Held {
    fn new() -> Result<Self, Failure> {
        let input = std::io::stdin().is_terminal();
        let terminal = ratatui::try_init().inspect_err(|_| drop(ratatui::try_restore()))?;
        Ok(Self { terminal, input })
    }

    /// Whether nobody is at its other end any more.
    #[cfg(unix)]
    fn is_gone(&self) -> bool {
        use rustix::event::{PollFd, PollFlags, Timespec, poll};
        let (input, output) = (std::io::stdin(), std::io::stdout());
        let mut ends = vec![PollFd::new(&output, PollFlags::empty())];
        if self.input {
            ends.push(PollFd::new(&input, PollFlags::empty()));
        }
        let now = Timespec { tv_sec: 0, tv_nsec: 0 };
        let gone = PollFlags::HUP | PollFlags::ERR | PollFlags::NVAL;
        poll(&mut ends, Some(&now)).is_ok() && ends.iter().any(|end| end.revents().intersects(gone))
    }

    /// The system ends us with it.
    #[cfg(not(unix))]
    fn is_gone(&self) -> bool {
        let _ = self.input;
        false
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        let _ = ratatui::try_restore();
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

/// What the terminal sends, from a thread of its own: reading never returns when the terminal has
/// gone, and this must not keep us. The thread ends with the process.
fn keys() -> Result<Receiver<std::io::Result<Event>>, Failure> {
    let (sender, keys) = channel();
    let read = move || {
        while let Ok(()) = sender.send(event::read()) {}
    };
    std::thread::Builder::new().name("distcache-keys".into()).spawn(read)?;
    Ok(keys)
}

fn live(
    mut series: Vec<Series>,
    sources: Vec<Source>,
    interval: Duration,
) -> Result<Status, Failure> {
    let ended = Arc::new(AtomicBool::new(false));
    end_on_signals(&ended)?;
    let watch = Watch::start(sources, interval)?;
    let mut held = Held::new()?;
    let shown = show(&mut held, &mut series, &watch, &ended);
    if held.is_gone() {
        // There is nobody to give it back to, and none to hear that this failed.
        std::mem::forget(held);
        return Ok(Status::Done);
    }
    shown.map(|()| Status::Done)
}

/// Draws news and obeys keys until the end.
fn show(
    held: &mut Held,
    series: &mut [Series],
    watch: &Watch,
    ended: &AtomicBool,
) -> Result<(), Failure> {
    let keys = keys()?;
    let mut screen = Screen::default();
    let mut changed = true;
    while !ended.load(Ordering::Relaxed) && !held.is_gone() {
        for (at, sampled) in watch.news.try_iter() {
            series[at].push(sampled);
            changed = true;
        }
        if std::mem::take(&mut changed) {
            held.terminal.draw(|frame| view::draw(frame, series, &screen, watch.interval()))?;
        }
        let Ok(event) = keys.recv_timeout(KEY_WAIT) else { continue };
        changed = true;
        match event? {
            Event::Key(key) if key.kind == KeyEventKind::Release => {}
            Event::Key(key) if !handle(key, &mut screen, watch, series) => break,
            _ => {}
        }
    }
    Ok(())
}

/// False for the end.
fn handle(key: KeyEvent, screen: &mut Screen, watch: &Watch, servers: &[Series]) -> bool {
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
        assert!(Options::new(Some("0.5"), false).is_ok());
        for wrong in ["0", "-1", "x", "inf", "NaN", "4000"] {
            assert!(Options::new(Some(wrong), true).is_err(), "{wrong}");
        }
    }
}
