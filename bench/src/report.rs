//! Tables of results. Owns their Markdown and CSV form, the description of the machine, and the
//! files; the figures come from the caller.

use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::Result;
use crate::options::Options;

/// Rows of text under a header.
#[derive(Clone, Debug)]
pub struct Table {
    header: Vec<String>,
    rows: Vec<Vec<String>>,
}

impl Table {
    /// An empty table.
    pub fn new(header: &[&str]) -> Self {
        Self { header: header.iter().map(|&cell| cell.to_owned()).collect(), rows: Vec::new() }
    }

    /// Appends a row.
    pub fn push(&mut self, row: Vec<String>) {
        assert_eq!(row.len(), self.header.len(), "a row has as many cells as the header");
        self.rows.push(row);
    }

    /// As Markdown, with columns padded so that it also reads as plain text.
    pub fn markdown(&self) -> String {
        let width = |column: usize| {
            let cells = self.rows.iter().chain([&self.header]);
            cells.map(|row| row[column].len()).max().unwrap_or(0).max(3)
        };
        let widths: Vec<usize> = (0..self.header.len()).map(width).collect();
        let line = |row: &[String]| {
            let cells = row.iter().zip(&widths).enumerate();
            let cells = cells.map(|(column, (cell, width))| match column {
                0 => format!(" {cell:<width$} |"),
                _ => format!(" {cell:>width$} |"),
            });
            format!("|{}\n", cells.collect::<String>())
        };
        let rule = widths.iter().enumerate().map(|(column, &width)| match column {
            0 => format!("{}|", "-".repeat(width + 2)),
            _ => format!("{}:|", "-".repeat(width + 1)),
        });
        let rows = self.rows.iter().map(|row| line(row)).collect::<String>();
        format!("{}|{}\n{rows}", line(&self.header), rule.collect::<String>())
    }

    /// As comma-separated values; no cell of ours holds a comma or a quote.
    pub fn csv(&self) -> String {
        let line = |row: &Vec<String>| format!("{}\n", row.join(","));
        [&self.header].into_iter().chain(&self.rows).map(line).collect()
    }
}

/// A Markdown file about one run of the bench.
#[derive(Debug)]
pub struct Report {
    text: String,
}

impl Report {
    /// A report that opens with the machine, the versions and the command line.
    pub fn new(title: &str, versions: &[(String, String)]) -> Self {
        let mut text = format!("# {title}\n\n{}", machine());
        for (name, version) in versions {
            writeln!(text, "- {name}: version {version}").expect("writing to a String");
        }
        write!(text, "- command: `{}`\n\n", command_line(std::env::args()))
            .expect("writing to a String");
        Self { text }
    }

    /// Appends a paragraph.
    pub fn paragraph(&mut self, text: &str) {
        self.text.push_str(text);
        self.text.push_str("\n\n");
    }

    /// Appends a table and shows it on standard output.
    pub fn table(&mut self, table: &Table) {
        let markdown = table.markdown();
        println!("{markdown}");
        self.text.push_str(&markdown);
        self.text.push('\n');
    }

    /// Writes the report where `--out` and `--name` say, if there is a name.
    pub fn save_if_named(&self, options: &Options) -> Result<()> {
        match options.text("name") {
            "" => Ok(()),
            name => self.save(&options.get::<PathBuf>("out")?, name),
        }
    }

    /// Writes the report to `directory/name.md`.
    pub fn save(&self, directory: &Path, name: &str) -> Result<()> {
        save(directory, &format!("{name}.md"), &format!("{}\n", self.text.trim_end()))
    }
}

/// Writes a file of results and says so on standard error.
pub fn save(directory: &Path, file_name: &str, text: &str) -> Result<()> {
    fs::create_dir_all(directory).map_err(|e| format!("creating {}: {e}", directory.display()))?;
    let path = directory.join(file_name);
    fs::write(&path, text).map_err(|e| format!("writing {}: {e}", path.display()))?;
    eprintln!("wrote {}", path.display());
    Ok(())
}

/// The command line with directories left out: results are published, paths of a machine are not.
fn command_line(arguments: impl Iterator<Item = String>) -> String {
    let shorten = |word: &str| match word.rsplit_once('/') {
        Some((before, file)) if before.contains('=') => {
            format!("{}={file}", before.split('=').next().unwrap_or_default())
        }
        Some((_, file)) => file.to_owned(),
        None => word.to_owned(),
    };
    let shorten_all = |argument: String| {
        let words: Vec<String> = argument.split(' ').map(shorten).collect();
        if words.len() > 1 { format!("'{}'", words.join(" ")) } else { words.concat() }
    };
    arguments.map(shorten_all).collect::<Vec<_>>().join(" ")
}

fn machine() -> String {
    let read = |path: &str| fs::read_to_string(path).unwrap_or_default();
    let cpu_info = read("/proc/cpuinfo");
    let cpu = cpu_info.lines().find_map(|line| line.strip_prefix("model name"));
    let cpu = cpu.map_or("unknown", |rest| rest.trim_start_matches([' ', '\t', ':']));
    let cores = std::thread::available_parallelism().map_or(0, usize::from);
    let date = Command::new("date").args(["-u", "+%Y-%m-%d %H:%M UTC"]).output();
    let date = date.map(|output| String::from_utf8_lossy(&output.stdout).trim().to_owned());
    format!(
        "- machine: {cores} cores, {cpu}, Linux {}\n- date: {}\n",
        read("/proc/sys/kernel/osrelease").trim(),
        date.unwrap_or_else(|_| "unknown".to_owned()),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tables_are_padded_markdown() {
        let mut table = Table::new(&["name", "us"]);
        table.push(vec!["a".into(), "10.25".into()]);
        let expected = "| name |    us |\n|------|------:|\n| a    | 10.25 |\n";
        assert_eq!(table.markdown(), expected);
        assert_eq!(table.csv(), "name,us\na,10.25\n");
    }

    #[test]
    fn command_lines_lose_their_directories() {
        let check = |arguments: &[&str], expected: &str| {
            let arguments = arguments.iter().map(|&argument| argument.to_owned());
            assert_eq!(command_line(arguments), expected);
        };
        check(&["/a/b/bench", "compare"], "bench compare");
        check(&["bench", "--server", "x=/usr/bin/x -o a"], "bench --server 'x=x -o a'");
        check(&["bench", "--server=x=/usr/bin/x", "--rounds=3"], "bench --server=x --rounds=3");
    }
}
