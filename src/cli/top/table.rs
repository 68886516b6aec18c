//! Numbers as text, and rows as cells: for the screen, short; for scripts, exact. No I/O.

use super::model::{Row, Series, State, descending};
use super::sample::{HotKey, Latency, printable};
use std::cmp::Ordering;

/// How numbers are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Style {
    /// To be read at a glance: `1.2k`, `3.4M`, `5.6ms`.
    Short,
    /// To be computed with: operations with one decimal, bytes, microseconds.
    Exact,
}

/// What a number counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Unit {
    /// Things, or things a second.
    Count,
    Rate,
    Bytes,
    Micros,
    Percent,
}

/// A column of the table of servers.
#[derive(Debug)]
pub(super) struct Column {
    /// For the screen.
    pub title: &'static str,
    /// For scripts.
    pub name: &'static str,
    pub unit: Unit,
    /// On the screen.
    pub width: u16,
    /// Narrow screens do without the higher ones.
    pub rank: u8,
    pub value: fn(&Row) -> Option<f64>,
}

const fn column(
    (title, name): (&'static str, &'static str),
    unit: Unit,
    (width, rank): (u16, u8),
    value: fn(&Row) -> Option<f64>,
) -> Column {
    Column { title, name, unit, width, rank, value }
}

/// In the order in which they are shown.
pub(super) const COLUMNS: [Column; 16] = [
    column(("OPS/S", "ops_per_second"), Unit::Rate, (6, 0), |row| row.ops),
    column(("GET/S", "gets_per_second"), Unit::Rate, (6, 0), |row| row.get),
    column(("SET/S", "sets_per_second"), Unit::Rate, (6, 0), |row| row.set),
    column(("DEL/S", "deletes_per_second"), Unit::Rate, (6, 2), |row| row.delete),
    column(("TCH/S", "touches_per_second"), Unit::Rate, (6, 3), |row| row.touch),
    column(("INC/S", "incrs_per_second"), Unit::Rate, (6, 3), |row| row.incr),
    column(("HIT%", "hit_percent"), Unit::Percent, (5, 0), |row| row.hits),
    column(("MEM", "bytes"), Unit::Bytes, (6, 0), |row| row.bytes),
    column(("LIMIT", "bytes_max"), Unit::Bytes, (6, 1), |row| row.bytes_max),
    column(("ITEMS", "items"), Unit::Count, (6, 1), |row| row.items),
    column(("EVI/S", "evictions_per_second"), Unit::Rate, (6, 1), |row| row.evictions),
    column(("CONN", "connections"), Unit::Count, (5, 1), |row| row.connections),
    column(("IN/S", "bytes_in_per_second"), Unit::Bytes, (6, 2), |row| row.bytes_in),
    column(("OUT/S", "bytes_out_per_second"), Unit::Bytes, (6, 2), |row| row.bytes_out),
    column(("P50", "p50_us"), Unit::Micros, (6, 2), |row| row.p50),
    column(("P99", "p99_us"), Unit::Micros, (6, 1), |row| row.p99),
];

/// What servers can be sorted by.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) enum Sort {
    /// As they were named.
    #[default]
    Listed,
    Ops,
    Hits,
    Memory,
    Evictions,
    Out,
    P99,
}

impl Sort {
    pub(super) fn next(self) -> Self {
        match self {
            Self::Listed => Self::Ops,
            Self::Ops => Self::Hits,
            Self::Hits => Self::Memory,
            Self::Memory => Self::Evictions,
            Self::Evictions => Self::Out,
            Self::Out => Self::P99,
            Self::P99 => Self::Listed,
        }
    }

    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Listed => "as listed",
            Self::Ops => "by operations",
            Self::Hits => "by misses",
            Self::Memory => "by memory",
            Self::Evictions => "by evictions",
            Self::Out => "by bytes sent",
            Self::P99 => "by p99",
        }
    }

    /// The order of rows, as places in the list. What is worth a look comes first.
    pub(super) fn order(self, rows: &[Row]) -> Vec<usize> {
        let compare = |a: &Row, b: &Row| match self {
            Self::Listed => Ordering::Equal,
            Self::Ops => descending(a.ops, b.ops),
            Self::Hits => descending(a.hits.map(|hits| -hits), b.hits.map(|hits| -hits)),
            Self::Memory => descending(a.bytes, b.bytes),
            Self::Evictions => descending(a.evictions, b.evictions),
            Self::Out => descending(a.bytes_out, b.bytes_out),
            Self::P99 => descending(a.p99, b.p99),
        };
        let mut order: Vec<usize> = (0..rows.len()).collect();
        order.sort_by(|a, b| compare(&rows[*a], &rows[*b]));
        order
    }
}

/// A number as text; `-` for what is not known.
pub(super) fn text(value: Option<f64>, unit: Unit, style: Style) -> String {
    let Some(value) = value.filter(|value| value.is_finite()) else { return "-".to_owned() };
    match (style, unit) {
        (_, Unit::Percent) | (Style::Exact, Unit::Rate) => format!("{value:.1}"),
        (Style::Exact, _) => format!("{value:.0}"),
        (Style::Short, Unit::Rate) if value > 0.0 && value < 9.95 => format!("{value:.1}"),
        (Style::Short, Unit::Count | Unit::Rate) => scaled(value, 1000.0, &["", "k", "M", "G"]),
        (Style::Short, Unit::Bytes) => scaled(value, 1024.0, &["", "K", "M", "G", "T"]),
        (Style::Short, Unit::Micros) => scaled(value, 1000.0, &["us", "ms", "s"]),
    }
}

/// With the largest unit that leaves something before the point.
fn scaled(mut value: f64, step: f64, units: &[&str]) -> String {
    let mut at = 0;
    while at + 1 < units.len() && value >= step - 0.5 {
        value /= step;
        at += 1;
    }
    let decimals = usize::from(at > 0 && value < 9.95);
    format!("{value:.decimals$}{}", units[at])
}

/// A row's state in a word or two.
pub(super) fn state(row: &Row) -> String {
    match &row.state {
        State::Waiting => "waiting".to_owned(),
        State::Up => "up".to_owned(),
        State::Down(_) => "down".to_owned(),
        State::Sum { up, of } => format!("{up} of {of} up"),
    }
}

/// One command's latency as cells, in the order of `LATENCY_TITLES`.
pub(super) fn latency_cells(latency: &Latency, style: Style) -> [String; 6] {
    let micros = |value: Option<u64>| text(value.map(|one| one as f64), Unit::Micros, style);
    [
        latency.command.clone(),
        text(Some(latency.count as f64), Unit::Count, style),
        micros(latency.p50),
        micros(latency.p99),
        micros(latency.p999),
        micros(latency.max),
    ]
}

pub(super) const LATENCY_TITLES: [&str; 6] = ["COMMAND", "COUNT", "P50", "P99", "P99.9", "MAX"];

/// One hot key as cells, in the order of `HOT_TITLES`.
pub(super) fn hot_cells(hot: &HotKey, style: Style) -> [String; 4] {
    [
        text(hot.ops_per_second, Unit::Rate, style),
        text(hot.share, Unit::Percent, style),
        text(hot.bytes.map(|bytes| bytes as f64), Unit::Bytes, style),
        hot.key.clone(),
    ]
}

pub(super) const HOT_TITLES: [&str; 4] = ["OPS/S", "SHARE%", "BYTES", "KEY"];

/// One sample of everything, for scripts: a table of servers, then what each tells besides. Each
/// line is blank-separated words.
pub(super) fn plain(servers: &[Series]) -> String {
    let rows: Vec<Row> = servers.iter().map(Series::row).collect();
    let names = COLUMNS.iter().map(|column| column.name.to_owned());
    let heads = ["server", "state"].map(str::to_owned).into_iter();
    let mut lines: Vec<Vec<String>> = vec![heads.chain(names).collect()];
    for row in &rows {
        let values = COLUMNS.iter().map(|one| text((one.value)(row), one.unit, Style::Exact));
        let state = state(row).replace(' ', "_");
        lines.push([row.name.replace(' ', "_"), state].into_iter().chain(values).collect());
    }
    let mut out = aligned(&lines);
    for (row, series) in rows.iter().zip(servers) {
        if let State::Down(cause) = &row.state {
            out += &format!("{} down: {}\n", row.name, printable(cause));
        }
        let cells = |latency: &Latency| latency_cells(latency, Style::Exact).to_vec();
        out += &details(&row.name, "latency", &LATENCY_TITLES, series.latencies(), cells);
        let cells = |hot: &HotKey| hot_cells(hot, Style::Exact).to_vec();
        out += &details(&row.name, "hot_key", &HOT_TITLES, series.hot_keys(), cells);
    }
    out
}

fn details<T>(
    name: &str,
    kind: &str,
    titles: &[&str],
    list: Option<&[T]>,
    cells: impl Fn(&T) -> Vec<String>,
) -> String {
    let Some(list) = list.filter(|list| !list.is_empty()) else { return String::new() };
    let line = |cells: Vec<String>| [vec![name.replace(' ', "_"), kind.to_owned()], cells].concat();
    let head = titles.iter().map(|title| title.to_lowercase()).collect();
    let rows = list.iter().map(|one| line(cells(one)));
    aligned(&std::iter::once(line(head)).chain(rows).collect::<Vec<_>>())
}

/// Columns as wide as their widest cell.
fn aligned(lines: &[Vec<String>]) -> String {
    let columns = lines.iter().map(Vec::len).max().unwrap_or(0);
    let width = |at: usize| lines.iter().filter_map(|line| line.get(at)).map(String::len).max();
    let widths: Vec<usize> = (0..columns).map(|at| width(at).unwrap_or(0)).collect();
    let mut out = String::new();
    for line in lines {
        let cells: Vec<String> =
            line.iter().zip(&widths).map(|(cell, width)| format!("{cell:<width$}")).collect();
        out += cells.join(" ").trim_end();
        out.push('\n');
    }
    out
}

#[cfg(test)]
mod tests {
    use super::super::model::tests::series;
    use super::super::sample::{Sample, tests::stats};
    use super::*;
    use crate::clock;
    use std::time::Duration;

    #[test]
    fn numbers_as_text() {
        for (value, unit, short, exact) in [
            (0.0, Unit::Rate, "0", "0.0"),
            (0.25, Unit::Rate, "0.2", "0.2"),
            (9.9, Unit::Rate, "9.9", "9.9"),
            (12.4, Unit::Rate, "12", "12.4"),
            (999.0, Unit::Rate, "999", "999.0"),
            (999.7, Unit::Rate, "1.0k", "999.7"),
            (1234.0, Unit::Rate, "1.2k", "1234.0"),
            (45_678.0, Unit::Count, "46k", "45678"),
            (9_950_000.0, Unit::Count, "10M", "9950000"),
            (2e12, Unit::Count, "2000G", "2000000000000"),
            (1536.0, Unit::Bytes, "1.5K", "1536"),
            (67_108_864.0, Unit::Bytes, "64M", "67108864"),
            (7.0, Unit::Micros, "7us", "7"),
            (1500.0, Unit::Micros, "1.5ms", "1500"),
            (75_000_000.0, Unit::Micros, "75s", "75000000"),
            (99.96, Unit::Percent, "100.0", "100.0"),
        ] {
            let both = [Style::Short, Style::Exact].map(|style| text(Some(value), unit, style));
            assert_eq!(both, [short, exact], "{value} {unit:?}");
        }
        assert_eq!(text(None, Unit::Rate, Style::Short), "-");
        assert_eq!(text(Some(f64::NAN), Unit::Rate, Style::Exact), "-");
    }

    #[test]
    fn rows_are_sorted() {
        let row = |ops, hits| Row { ops, hits, ..Row::default() };
        let rows = [row(Some(1.0), None), row(None, Some(90.0)), row(Some(3.0), Some(50.0))];
        for (sort, expected) in
            [(Sort::Listed, [0, 1, 2]), (Sort::Ops, [2, 0, 1]), (Sort::Hits, [2, 1, 0])]
        {
            assert_eq!(sort.order(&rows), expected, "{sort:?}");
        }
        let all: Vec<Sort> = std::iter::successors(Some(Sort::default()), |sort| Some(sort.next()))
            .take(8)
            .collect();
        assert_eq!(all[7], Sort::Listed);
        assert!((1..7).all(|at| all[at] != Sort::Listed && !all[..at].contains(&all[at])));
    }

    #[test]
    fn a_plain_sample() {
        let mut down = Series::new("b:1");
        down.push(Err("it\r\nis \u{1b}gone".into()));
        let start = clock::now();
        let mut up = series("a:1", "", "cmd_get 1\nbytes 5", start);
        let latency = stats("get:count 5\nget:p99_us 8");
        let at = start + Duration::from_secs(4);
        let now = stats("cmd_get 5\nbytes 7");
        up.push(Ok(Sample::new(at, now, Some(&latency), Some(&stats("")))));
        let shown = plain(&[up, down]);
        let lines: Vec<Vec<&str>> =
            shown.lines().map(|line| line.split_whitespace().collect()).collect();
        assert_eq!(lines[0][..4], ["server", "state", "ops_per_second", "gets_per_second"]);
        assert_eq!(lines[1][..5], ["a:1", "up", "2.0", "2.0", "-"]);
        assert_eq!(lines[1][9], "7", "{shown}");
        assert_eq!(lines[2][..3], ["b:1", "down", "-"]);
        assert_eq!(
            lines[3],
            "a:1 latency command count p50 p99 p99.9 max".split(' ').collect::<Vec<_>>()
        );
        assert_eq!(lines[4], "a:1 latency get 5 - 8 - -".split(' ').collect::<Vec<_>>());
        assert_eq!(shown.lines().last(), Some("b:1 down: it??is ?gone"));
    }
}
