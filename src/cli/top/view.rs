//! The screen: what is known, as a frame. No I/O and no clock: the loop hands over the frame.

use super::model::{Row, Series, State, all_hot_keys, all_latencies, total};
use super::sample::{HotKey, Latency, printable};
use super::table::{self, COLUMNS, Column, HOT_TITLES, LATENCY_TITLES, Sort, Style};
use ratatui::Frame;
use ratatui::layout::{Alignment, Constraint, Layout, Rect};
use ratatui::style::{Color, Modifier, Style as Paint};
use ratatui::text::{Line, Span};
use ratatui::widgets::{Block, Borders, Cell, Clear, Paragraph, Table, TableState, Wrap};
use std::time::Duration;

/// Narrowest useful column of names.
const NAME_WIDTH_MIN: u16 = 10;
const NAME_WIDTH_MAX: u16 = 40;
const STATE_WIDTH: u16 = 11;

/// Highest rank of a column.
const RANK_MAX: u8 = 3;

/// Lines about servers that are down.
const CAUSES_MAX: usize = 4;

/// Widths of the cells of a latency, and of a hot key before the key itself.
const LATENCY_WIDTHS: [u16; 6] = [9, 6, 6, 6, 6, 6];
const HOT_WIDTHS: [u16; 3] = [6, 6, 6];

const HELP: &str = "\
q, Esc          quit
s               sort: as listed, by operations, misses, memory,
                evictions, bytes sent, p99
arrows, Tab     select a server; the first line is all of them
+ -             longer, shorter interval
?               this help

Rates are those of the last interval. HIT% is of the keys asked
for in it. P50 and P99 are of the most used command; for all
servers, of the slowest. - is what a server does not tell.";

/// What the keys have changed.
#[derive(Debug, Clone, Default)]
pub(super) struct Screen {
    pub sort: Sort,
    /// Place of a server in the list; `None` is all of them.
    pub selected: Option<usize>,
    pub help: bool,
}

impl Screen {
    /// Moves the selection through what is shown, around the ends.
    pub(super) fn select(&mut self, forwards: bool, servers: &[Series]) {
        let order = self.sort.order(&servers.iter().map(Series::row).collect::<Vec<_>>());
        let count = order.len() + 1;
        let step = if forwards { 1 } else { count - 1 };
        let next = (self.line(&order) + step) % count;
        self.selected = next.checked_sub(1).map(|at| order[at]);
    }

    /// The line of the selection.
    fn line(&self, order: &[usize]) -> usize {
        let at = self.selected.and_then(|selected| order.iter().position(|one| *one == selected));
        at.map_or(0, |at| at + 1)
    }
}

/// Draws everything.
pub(super) fn draw(frame: &mut Frame<'_>, servers: &[Series], screen: &Screen, interval: Duration) {
    let rows: Vec<Row> = servers.iter().map(Series::row).collect();
    let order = screen.sort.order(&rows);
    let total = total(&rows);
    let shown: Vec<&Row> =
        std::iter::once(&total).chain(order.iter().map(|at| &rows[*at])).collect();
    let area = frame.area();
    // Titles, the sum, and the servers; at most half of the screen, or all there is to show.
    let wanted = u16::try_from(shown.len() + 1).unwrap_or(u16::MAX);
    let half = (area.height / 2).max(4);
    let [head, list, details, foot] = Layout::vertical([
        Constraint::Length(1),
        Constraint::Length(wanted.min(half)),
        Constraint::Min(0),
        Constraint::Length(1),
    ])
    .areas(area);
    let up = table::state(&total);
    let line = format!(
        "distcache top   {up}   every {:.1} s   {}",
        interval.as_secs_f64(),
        screen.sort.name()
    );
    frame
        .render_widget(Paragraph::new(line).style(Paint::new().add_modifier(Modifier::BOLD)), head);
    let keys = " q quit   s sort   arrows select   + - interval   ? help";
    frame.render_widget(Paragraph::new(keys).style(Paint::new().fg(Color::DarkGray)), foot);
    let selected = screen.line(&order);
    draw_servers(frame, list, &shown, selected);
    let series = selected.checked_sub(1).map(|at| &servers[order[at]]);
    draw_details(frame, details, servers, series, shown[selected]);
    if screen.help {
        draw_help(frame, area);
    }
}

/// The width that names want: all of the longest one, with its port.
fn names_width(rows: &[&Row], width: u16) -> u16 {
    let longest = rows.iter().map(|row| row.name.chars().count()).max().unwrap_or(0);
    let longest = u16::try_from(longest).unwrap_or(u16::MAX);
    longest.min(NAME_WIDTH_MAX).min(width / 2).max(NAME_WIDTH_MIN)
}

/// A name in so many columns. What is left out is the beginning: ports are at the end.
fn shortened(name: &str, width: u16) -> String {
    let name = printable(name);
    let excess = name.chars().count().saturating_sub(width.into());
    if excess == 0 {
        return name;
    }
    ["..", &name.chars().skip(excess + 2).collect::<String>()].concat()
}

/// The columns that fit beside names of this width, those of low rank first.
fn columns(width: u16, names_width: u16) -> Vec<&'static Column> {
    let mut left = width.saturating_sub(names_width + 1 + STATE_WIDTH);
    let mut chosen = [false; COLUMNS.len()];
    for rank in 0..=RANK_MAX {
        for (column, chosen) in COLUMNS.iter().zip(&mut chosen) {
            if column.rank == rank && left > column.width {
                left -= column.width + 1;
                *chosen = true;
            }
        }
    }
    COLUMNS.iter().zip(chosen).filter(|(_, chosen)| *chosen).map(|(column, _)| column).collect()
}

fn right(text: String) -> Cell<'static> {
    Cell::from(Line::from(text).alignment(Alignment::Right))
}

fn draw_servers(frame: &mut Frame<'_>, area: Rect, rows: &[&Row], selected: usize) {
    let columns = columns(area.width, names_width(rows, area.width));
    let taken: u16 = columns.iter().map(|column| column.width + 1).sum();
    let name_width = area.width.saturating_sub(taken + STATE_WIDTH + 1).min(NAME_WIDTH_MAX);
    let titles = columns.iter().map(|column| right(column.title.to_owned()));
    let titles = [Cell::from("SERVER"), Cell::from("STATE")].into_iter().chain(titles);
    let line = |row: &&Row| {
        let cells = columns
            .iter()
            .map(|column| right(table::text((column.value)(row), column.unit, Style::Short)));
        let state = table::state(row);
        let name = shortened(&row.name, name_width);
        let names = [Cell::from(name), Cell::from(state)].into_iter();
        let paint = match row.state {
            State::Down(_) => Paint::new().fg(Color::Red),
            State::Waiting => Paint::new().fg(Color::DarkGray),
            _ => Paint::new(),
        };
        ratatui::widgets::Row::new(names.chain(cells)).style(paint)
    };
    let widths = [name_width, STATE_WIDTH]
        .into_iter()
        .chain(columns.iter().map(|column| column.width))
        .map(Constraint::Length);
    let header =
        ratatui::widgets::Row::new(titles).style(Paint::new().add_modifier(Modifier::UNDERLINED));
    let list = Table::new(rows.iter().map(line), widths)
        .header(header)
        .row_highlight_style(Paint::new().add_modifier(Modifier::REVERSED));
    let mut state = TableState::new().with_selected(selected);
    frame.render_stateful_widget(list, area, &mut state);
}

/// Latencies and hot keys of the selected server, or why it is down.
fn draw_details(
    frame: &mut Frame<'_>,
    area: Rect,
    servers: &[Series],
    series: Option<&Series>,
    row: &Row,
) {
    let name = printable(&row.name);
    if let State::Down(cause) = &row.state {
        let block = Block::new().borders(Borders::TOP).title(format!(" {name} is down "));
        let text = Paragraph::new(printable(cause)).wrap(Wrap { trim: true }).block(block);
        return frame.render_widget(text, area);
    }
    let area = match series {
        Some(_) => area,
        None => draw_causes(frame, area, servers),
    };
    let latencies = match series {
        Some(series) => series.latencies().map(<[Latency]>::to_vec),
        None => all_latencies(servers),
    };
    let hot_keys = match series {
        Some(series) => series.hot_keys().map(<[HotKey]>::to_vec),
        None => all_hot_keys(servers),
    };
    let latency_width = LATENCY_WIDTHS.iter().map(|width| width + 1).sum();
    let [left, right_side] =
        Layout::horizontal([Constraint::Length(latency_width), Constraint::Min(0)]).areas(area);
    let version = row.version.as_deref().map(|version| format!(" {}", printable(version)));
    let title = format!(" {name}{}: latency ", version.unwrap_or_default());
    let cells: Option<Vec<Vec<String>>> = latencies.map(|list| {
        list.iter().map(|one| table::latency_cells(one, Style::Short).into()).collect()
    });
    draw_list(frame, left, title, &LATENCY_TITLES, &LATENCY_WIDTHS, cells);
    let cells: Option<Vec<Vec<String>>> = hot_keys
        .map(|list| list.iter().map(|one| table::hot_cells(one, Style::Short).into()).collect());
    let key_width = right_side.width.saturating_sub(HOT_WIDTHS.iter().map(|one| one + 1).sum());
    let widths = [&HOT_WIDTHS[..], &[key_width]].concat();
    draw_list(frame, right_side, " hot keys ".to_owned(), &HOT_TITLES, &widths, cells);
}

/// Why servers are down, a line each. Returns what is left of the area.
fn draw_causes(frame: &mut Frame<'_>, area: Rect, servers: &[Series]) -> Rect {
    let cause = |series: &Series| match series.row() {
        Row { name, state: State::Down(cause), .. } => {
            Some(format!("{} is down: {}", printable(&name), printable(&cause)))
        }
        _ => None,
    };
    let mut lines: Vec<String> = servers.iter().filter_map(cause).collect();
    if lines.len() > CAUSES_MAX {
        let more = lines.len() - (CAUSES_MAX - 1);
        lines.truncate(CAUSES_MAX - 1);
        lines.push(format!("and {more} more are down; select one to see why"));
    }
    let height = u16::try_from(lines.len()).unwrap_or(u16::MAX);
    let [causes, rest] =
        Layout::vertical([Constraint::Length(height), Constraint::Min(0)]).areas(area);
    let text: Vec<Line<'_>> = lines.into_iter().map(Line::from).collect();
    frame.render_widget(Paragraph::new(text).style(Paint::new().fg(Color::Red)), causes);
    rest
}

fn draw_list(
    frame: &mut Frame<'_>,
    area: Rect,
    title: String,
    titles: &[&'static str],
    widths: &[u16],
    cells: Option<Vec<Vec<String>>>,
) {
    let block = Block::new().borders(Borders::TOP).title(title);
    let Some(lines) = cells else {
        let text = Line::from(Span::raw("-  (not told by this server)"));
        return frame.render_widget(Paragraph::new(text).block(block), area);
    };
    // Names are on the left, numbers on the right.
    let cell = |at: usize, text: String| match titles[at] {
        "COMMAND" | "KEY" => Cell::from(text),
        _ => right(text),
    };
    let line = |texts: Vec<String>| {
        texts.into_iter().enumerate().map(|(at, text)| cell(at, text)).collect::<Vec<_>>()
    };
    let header = line(titles.iter().map(|title| (*title).to_owned()).collect());
    let rows = lines.into_iter().map(|texts| ratatui::widgets::Row::new(line(texts)));
    let list = Table::new(rows, widths.iter().map(|width| Constraint::Length(*width)))
        .header(ratatui::widgets::Row::new(header).style(Paint::new().fg(Color::DarkGray)))
        .block(block);
    frame.render_widget(list, area);
}

fn draw_help(frame: &mut Frame<'_>, area: Rect) {
    let lines = u16::try_from(HELP.lines().count()).unwrap_or(u16::MAX);
    let columns = HELP.lines().map(str::len).max().unwrap_or(0);
    let width = u16::try_from(columns + 4).unwrap_or(u16::MAX).min(area.width);
    let height = lines.saturating_add(2).min(area.height);
    let place = Rect {
        x: area.x + (area.width - width) / 2,
        y: area.y + (area.height - height) / 2,
        width,
        height,
    };
    let block = Block::bordered().title(" help ");
    frame.render_widget(Clear, place);
    frame.render_widget(Paragraph::new(HELP).block(block), place);
}

#[cfg(test)]
mod tests {
    use super::super::model::tests::series;
    use super::super::sample::Sample;
    use super::super::sample::tests::stats;
    use super::*;
    use crate::clock;
    use ratatui::Terminal;
    use ratatui::backend::TestBackend;

    const BEFORE: &str = "uptime 10\ncmd_get 0\ncmd_set 0\nget_hits 0\nget_misses 0\nevictions 0";
    const AFTER: &str = "uptime 12\ncmd_get 24680\ncmd_set 20\nget_hits 12340\nget_misses 12340\n\
                         evictions 3\nbytes 1572864\nlimit_maxbytes 67108864\ncurr_items 1500\n\
                         curr_connections 7\nversion 1.6.45";

    fn servers() -> Vec<Series> {
        let start = clock::now();
        let mut told = series("cache1:11211", "", BEFORE, start);
        let latency = stats("get:count 24680\nget:p50_us 12\nget:p99_us 1500");
        let hot = stats("1 key=user%20:7 share=41.5 ops_per_second=5120 bytes=2048");
        let at = start + Duration::from_secs(4);
        told.push(Ok(Sample::new(at, stats(AFTER), Some(&latency), Some(&hot))));
        let mut down = Series::new("cache3:11211");
        down.push(Err("cannot connect: refused".into()));
        vec![told, series("cache2:11211", BEFORE, AFTER, start), down]
    }

    fn shown(screen: &Screen, width: u16, height: u16) -> Vec<String> {
        let mut terminal = Terminal::new(TestBackend::new(width, height)).unwrap();
        let draw = |frame: &mut Frame<'_>| draw(frame, &servers(), screen, Duration::from_secs(2));
        terminal.draw(draw).unwrap();
        let buffer = terminal.backend().buffer();
        let line = |y| (0..width).map(|x| buffer[(x, y)].symbol()).collect::<String>();
        (0..height).map(|y| line(y).trim_end().replace('\u{2500}', "-")).collect()
    }

    #[test]
    fn the_screen_as_a_whole() {
        let screen = Screen { selected: Some(0), ..Screen::default() };
        let expected = [
            "distcache top   2 of 3 up   every 2.0 s   as listed",
            "SERVER        STATE        OPS/S  GET/S  SET/S  HIT%    MEM  LIMIT  ITEMS  EVI/S",
            "all           2 of 3 up      25k    25k     20  50.0   3.0M   128M   3.0k    3.0",
            "cache1:11211  up             12k    12k     10  50.0   1.5M    64M   1.5k    1.5",
            "cache2:11211  up             12k    12k     10  50.0   1.5M    64M   1.5k    1.5",
            "cache3:11211  down             -      -      -     -      -      -      -      -",
            " cache1:11211 1.6.45: latency --------------- hot keys -------------------------",
            "COMMAND    COUNT    P50    P99  P99.9    MAX  OPS/S SHARE%  BYTES KEY",
            "get          25k   12us  1.5ms      -      -   5.1k   41.5   2.0K user%20:7",
            "",
            " q quit   s sort   arrows select   + - interval   ? help",
        ];
        assert_eq!(shown(&screen, 80, 11), expected);
    }

    #[test]
    fn every_size_and_selection_can_be_drawn() {
        for (width, height) in [(1, 1), (20, 3), (40, 8), (80, 24), (300, 100)] {
            for selected in [None, Some(0), Some(2), Some(9)] {
                for help in [false, true] {
                    let screen = Screen { selected, help, sort: Sort::Ops };
                    let lines = shown(&screen, width, height);
                    assert!(
                        width < 20 || help || lines[0].starts_with("distcache top"),
                        "{lines:?}"
                    );
                }
            }
        }
        let wide = shown(&Screen::default(), 200, 24).join("\n");
        assert!(COLUMNS.iter().all(|column| wide.contains(column.title)), "{wide}");
        let down = shown(&Screen { selected: Some(2), ..Screen::default() }, 80, 24).join("\n");
        assert!(down.contains("cannot connect: refused"), "{down}");
        let help = shown(&Screen { help: true, ..Screen::default() }, 80, 24).join("\n");
        assert!(help.contains("+ -             longer, shorter interval"), "{help}");
    }

    #[test]
    fn names_keep_their_ports() {
        for (name, width, expected) in [
            ("cache1:11211", 12, "cache1:11211"),
            ("cache1:11211", 11, "..he1:11211"),
            ("cache1:11211", 3, "..1"),
            ("a\u{1b}b", 3, "a?b"),
        ] {
            assert_eq!(shortened(name, width), expected);
        }
        let start = clock::now();
        let long = "cache1.a-long-name.eu-west-1.internal.example:11211";
        for (name, width) in [("192.168.100.101:11211", 80), (long, 120), (long, 40)] {
            let servers = [series(name, BEFORE, AFTER, start)];
            let mut terminal = Terminal::new(TestBackend::new(width, 12)).unwrap();
            let screen = Screen::default();
            let draw = |frame: &mut Frame<'_>| {
                draw(frame, &servers, &screen, Duration::from_secs(2));
            };
            terminal.draw(draw).unwrap();
            let buffer = terminal.backend().buffer();
            let line: String = (0..width).map(|x| buffer[(x, 3)].symbol()).collect();
            assert!(line.contains(":11211 "), "{width}: {line}");
        }
    }

    #[test]
    fn all_servers_say_why_some_are_down() {
        let text = shown(&Screen::default(), 80, 24).join("\n");
        assert!(text.contains("cache3:11211 is down: cannot connect: refused"), "{text}");
    }

    #[test]
    fn the_selection_goes_around() {
        let mut screen = Screen::default();
        let mut visited = Vec::new();
        for forwards in [true, true, true, false, false, true] {
            screen.select(forwards, &servers()[..2]);
            visited.push(screen.selected);
        }
        assert_eq!(visited, [Some(0), Some(1), None, Some(1), Some(0), Some(1)]);
    }
}
