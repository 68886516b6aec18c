//! Horizontal bars as SVG. Owns the drawing only: no figures, no files.

use std::fmt::Write as _;

/// Bars in groups: one group per label, one bar per series in each.
#[derive(Clone, Debug)]
pub struct Bars<'a> {
    /// Above the plot.
    pub title: &'a str,
    /// Below the axis.
    pub axis: &'a str,
    /// One per group.
    pub labels: Vec<String>,
    /// Name and one value per label.
    pub series: Vec<(String, Vec<f64>)>,
    /// A vertical line at a value, and what it stands for.
    pub line: Option<(f64, String)>,
}

const WIDTH: f64 = 900.0;
const LEFT: f64 = 240.0;
const RIGHT: f64 = 70.0;
const TOP: f64 = 70.0;
const BOTTOM: f64 = 50.0;
const BAR: f64 = 13.0;
const GAP: f64 = 9.0;
const COLORS: [&str; 6] = ["#4477aa", "#ee6677", "#228833", "#ccbb44", "#66ccee", "#aa3377"];

impl Bars<'_> {
    /// The drawing.
    pub fn svg(&self) -> String {
        let group = BAR * self.series.len().max(1) as f64 + GAP;
        let height = TOP + group * self.labels.len() as f64 + BOTTOM;
        let mut out = format!(
            "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {height}\" \
             font-family=\"sans-serif\" font-size=\"12\">\n\
             <rect width=\"100%\" height=\"100%\" fill=\"white\"/>\n"
        );
        text(
            &mut out,
            LEFT,
            24.0,
            "start",
            &format!("<tspan font-size=\"16\">{}</tspan>", escape(self.title)),
        );
        text(&mut out, LEFT, height - 12.0, "start", &escape(self.axis));
        self.draw_legend(&mut out);
        self.draw_axis(&mut out, height);
        for (index, label) in self.labels.iter().enumerate() {
            let y = TOP + group * index as f64;
            let middle = y + (group - GAP) / 2.0 + 4.0;
            text(&mut out, LEFT - 8.0, middle, "end", &escape(label));
            for (number, (_, values)) in self.series.iter().enumerate() {
                self.draw_bar(&mut out, y + BAR * number as f64, values[index], color(number));
            }
        }
        self.draw_line(&mut out, height);
        out.push_str("</svg>\n");
        out
    }

    fn draw_bar(&self, out: &mut String, y: f64, value: f64, color: &str) {
        let width = self.x(value) - LEFT;
        rect(out, LEFT, y, width, BAR - 2.0, color);
        text(out, LEFT + width + 4.0, y + BAR - 3.0, "start", &format!("{value:.2}"));
    }

    fn draw_legend(&self, out: &mut String) {
        let mut x = LEFT;
        for (number, (name, _)) in self.series.iter().enumerate() {
            rect(out, x, 38.0, 10.0, 10.0, color(number));
            text(out, x + 14.0, 47.0, "start", &escape(name));
            x += 40.0 + 8.0 * name.len() as f64;
        }
    }

    fn draw_axis(&self, out: &mut String, height: f64) {
        let step = step(self.max());
        let mut value = 0.0;
        while value <= self.max() {
            let x = self.x(value);
            vertical(out, x, height, "#dddddd", "1");
            text(out, x, height - BOTTOM + 16.0, "middle", &format!("{value}"));
            // Steps are 1, 2 or 5 times a power of ten: rounding keeps labels short.
            value = ((value + step) * 1e6).round() / 1e6;
        }
    }

    fn draw_line(&self, out: &mut String, height: f64) {
        if let Some((value, name)) = &self.line {
            vertical(out, self.x(*value), height, "black", "1.5");
            text(out, self.x(*value), TOP - 8.0, "middle", &escape(name));
        }
    }

    fn x(&self, value: f64) -> f64 {
        LEFT + value / self.max() * (WIDTH - LEFT - RIGHT)
    }

    fn max(&self) -> f64 {
        let values = self.series.iter().flat_map(|(_, values)| values).copied();
        let line = self.line.as_ref().map_or(0.0, |(value, _)| *value);
        values.fold(line, f64::max).max(f64::MIN_POSITIVE)
    }
}

fn color(number: usize) -> &'static str {
    COLORS[number % COLORS.len()]
}

/// The largest of 1, 2 and 5 times a power of ten that divides the axis at least four times.
fn step(max: f64) -> f64 {
    let power = 10_f64.powf((max / 4.0).log10().floor());
    [5.0, 2.0].map(|factor| factor * power).into_iter().find(|&s| s <= max / 4.0).unwrap_or(power)
}

fn rect(out: &mut String, x: f64, y: f64, width: f64, height: f64, color: &str) {
    writeln!(
        out,
        "<rect x=\"{x:.1}\" y=\"{y:.1}\" width=\"{width:.1}\" height=\"{height:.1}\" \
         fill=\"{color}\"/>"
    )
    .expect("writing to a String");
}

fn vertical(out: &mut String, x: f64, height: f64, color: &str, width: &str) {
    writeln!(
        out,
        "<line x1=\"{x:.1}\" y1=\"{TOP}\" x2=\"{x:.1}\" y2=\"{:.1}\" stroke=\"{color}\" \
         stroke-width=\"{width}\"/>",
        height - BOTTOM
    )
    .expect("writing to a String");
}

/// `content` is markup: escape what comes from outside.
fn text(out: &mut String, x: f64, y: f64, anchor: &str, content: &str) {
    writeln!(out, "<text x=\"{x:.1}\" y=\"{y:.1}\" text-anchor=\"{anchor}\">{content}</text>")
        .expect("writing to a String");
}

fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_label_series_and_value_is_drawn() {
        let bars = Bars {
            title: "a < b",
            axis: "ratio",
            labels: vec!["one".into(), "two".into()],
            series: vec![("x".into(), vec![0.5, 2.25]), ("y".into(), vec![1.0, 3.0])],
            line: Some((1.0, "reference".into())),
        };
        let svg = bars.svg();
        for part in ["a &lt; b", ">ratio<", ">one<", ">two<", ">x<", ">2.25<", ">reference<"] {
            assert!(svg.contains(part), "{part} in {svg}");
        }
        // The background, two legend entries and four bars.
        assert_eq!(svg.matches("<rect").count(), 7);
    }

    #[test]
    fn steps_are_round() {
        for (max, expected) in [(1.0, 0.2), (4.0, 1.0), (3.0, 0.5), (100.0, 20.0), (0.04, 0.01)] {
            assert!((step(max) - expected).abs() < 1e-9, "{max}: {}", step(max));
        }
    }
}
