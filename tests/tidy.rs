//! The source tree against its own rules. Goal: what reviewers would have to look for is looked for
//! here, and a change that breaks a rule says so in `cargo test`. Method: read every source file as
//! lines of text; each rule is a function from one file to its violations, tested on a snippet of
//! its own. No parser: the rules lean on rustfmt's layout.

use std::fmt;
use std::fs;
use std::path::Path;

const COLUMNS_MAX: usize = 100;
const FUNCTION_LINES_MAX: usize = 70;

/// Folders that hold sources of ours.
const FOLDERS: [&str; 10] = [
    "src",
    "tests",
    "examples",
    "protocol-tests",
    "bench",
    "crash-tests",
    "models",
    "ports",
    "fuzz",
    "etc",
];

/// Folders within them that do not: what cargo and the fuzzer leave behind.
const FOLDERS_SKIPPED: [&str; 4] = ["target", "corpus", "artifacts", "coverage"];

/// What the modules at the top of `src` may import from one another, besides themselves.
const LAYERS: [(&str, &[&str]); 10] = [
    ("limits", &[]),
    ("system", &[]),
    ("protocol", &["limits"]),
    ("store", &["limits"]),
    ("durable", &["limits", "system", "protocol", "store"]),
    ("shard", &["limits", "protocol", "store", "durable"]),
    ("server", &["limits", "system", "protocol", "store", "durable", "shard"]),
    ("daemon", &["limits", "system", "protocol", "store", "durable", "server"]),
    ("client", &["limits", "protocol"]),
    ("cli", &["client"]),
];

/// The places that read time: the daemon's, the client's and the tool's.
const CLOCKS: [&str; 3] = ["src/server/clock.rs", "src/client/clock.rs", "src/cli/clock.rs"];

/// Functions above the limit: path, name, lines, and why. They may shrink (then lower the number),
/// not grow.
const LONG_FUNCTIONS: [(&str, &str, usize, &str); 0] = [];

#[derive(Debug, PartialEq, Eq)]
struct Violation {
    path: String,
    line: usize,
    what: String,
}

impl fmt::Display for Violation {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "{}:{}: {}", self.path, self.line, self.what)
    }
}

/// A file as the rules see it.
struct Source<'a> {
    /// From the root of the repository.
    path: &'a str,
    text: &'a str,
}

impl Source<'_> {
    fn lines(&self) -> impl Iterator<Item = (usize, &str)> {
        self.text.lines().enumerate().map(|(at, line)| (at + 1, line))
    }

    fn violation(&self, line: usize, what: impl Into<String>) -> Violation {
        Violation { path: self.path.to_owned(), line, what: what.into() }
    }

    /// The lines for which `complain` has something to say.
    fn each_line(&self, complain: impl Fn(&str) -> Option<String>) -> Vec<Violation> {
        let found = self.lines().filter_map(|(at, line)| Some((at, complain(line)?)));
        found.map(|(at, what)| self.violation(at, what)).collect()
    }

    fn is_rust(&self) -> bool {
        self.path.ends_with(".rs")
    }

    /// Part of the library or the daemon.
    fn is_product(&self) -> bool {
        self.is_rust() && self.path.starts_with("src/")
    }
}

fn columns(source: &Source<'_>) -> Vec<Violation> {
    if !source.is_rust() {
        return Vec::new();
    }
    source.each_line(|line| {
        let columns = line.chars().count();
        (columns > COLUMNS_MAX).then(|| format!("{columns} columns, {COLUMNS_MAX} are allowed"))
    })
}

fn ascii(source: &Source<'_>) -> Vec<Violation> {
    if !source.is_rust() {
        return Vec::new();
    }
    source.each_line(|line| {
        line.chars()
            .find(|letter| !letter.is_ascii())
            .map(|letter| format!("{letter:?}: not ASCII"))
    })
}

fn opens_with_docs(source: &Source<'_>) -> Vec<Violation> {
    if !source.is_product() || source.text.starts_with("//!") {
        return Vec::new();
    }
    vec![source.violation(1, "does not open with `//!`: say what the file owns and never does")]
}

/// Marks of unfinished work. Spelled in two parts, or this file would hold them.
fn unfinished(source: &Source<'_>) -> Vec<Violation> {
    if !source.is_rust() {
        return Vec::new();
    }
    let marks = [
        concat!("to", "do!"),
        concat!("unimple", "mented!"),
        concat!("FIX", "ME"),
        concat!("XX", "X"),
    ];
    source.each_line(|line| {
        let mark = marks.iter().find(|mark| holds_word(line, mark))?;
        Some(format!("{mark}: finish it, or write down why not"))
    })
}

/// Paths of the machine somebody worked on.
fn machine_paths(source: &Source<'_>) -> Vec<Violation> {
    let paths = [concat!("/", "work/"), concat!("/", "opt/"), concat!("/", "root/")];
    source.each_line(|line| {
        let path = paths.iter().find(|path| holds_word(line, path))?;
        Some(format!("{path}: a path of one machine"))
    })
}

/// Whether `line` holds `word`, not as the end of a longer word or path nor as the start of one.
fn holds_word(line: &str, word: &str) -> bool {
    let continues = |letter: char| letter.is_alphanumeric() || letter == '_';
    let joins = |letter: char| continues(letter) || letter == '.' || letter == '-';
    let ends_open = word.ends_with(continues);
    line.match_indices(word).any(|(at, _)| {
        let starts = line[..at].chars().next_back().is_none_or(|letter| !joins(letter));
        let ends = line[at + word.len()..].chars().next().is_none_or(|letter| !continues(letter));
        starts && (ends || !ends_open)
    })
}

fn time_has_one_reader(source: &Source<'_>) -> Vec<Violation> {
    if !source.is_product() || CLOCKS.contains(&source.path) {
        return Vec::new();
    }
    source.each_line(|line| {
        let call = ["Instant::now", "SystemTime::now"];
        let call = call.iter().find(|call| is_code(line) && line.contains(**call))?;
        Some(format!("{call}: only {} read time", CLOCKS.join(" and ")))
    })
}

fn imports_run_one_way(source: &Source<'_>) -> Vec<Violation> {
    let Some(module) = source.path.strip_prefix("src/") else { return Vec::new() };
    let Some(module) = module.strip_suffix(".rs") else { return Vec::new() };
    let parts: Vec<&str> = module.split('/').collect();
    let top = parts[0];
    if ["lib", "main"].contains(&top) {
        return Vec::new();
    }
    let Some((_, allowed)) = LAYERS.iter().find(|(layer, _)| *layer == top) else {
        return vec![source.violation(1, format!("src/{top} has no place in LAYERS"))];
    };
    // How many `super` lead from this file to the root.
    let depth = parts.len() - usize::from(parts.last() == Some(&"mod"));
    source.each_line(|line| {
        let wrong = imports(line, depth).into_iter().find(|import| {
            let is_layer = LAYERS.iter().any(|(layer, _)| layer == import);
            is_layer && *import != top && !allowed.contains(&import.as_str())
        })?;
        Some(format!("{top} must not know {wrong}"))
    })
}

/// The modules at the top of the crate that a line names, through `crate` or enough `super`.
fn imports(line: &str, depth: usize) -> Vec<String> {
    if !is_code(line) {
        return Vec::new();
    }
    let to_root = "super::".repeat(depth);
    let name = |text: &str| -> String {
        text.chars().take_while(|letter| letter.is_alphanumeric() || *letter == '_').collect()
    };
    let mut found = Vec::new();
    for root in ["crate::", to_root.as_str()] {
        for (at, _) in line.match_indices(root) {
            let behind = &line[at + root.len()..];
            match behind.strip_prefix('{') {
                // Names behind another name's `::` are no modules of the top, and do no harm here.
                Some(group) => found.extend(group.split([',', ' ', '{', '}']).map(name)),
                None => found.push(name(behind)),
            }
        }
    }
    found
}

/// Not a comment. Code behind which a comment stands counts as code.
fn is_code(line: &str) -> bool {
    !line.trim_start().starts_with("//")
}

/// A function: its name, its first line, and how many there are.
#[derive(Debug, PartialEq, Eq)]
struct Function {
    name: String,
    line: usize,
    lines: usize,
}

/// The functions of a file laid out by rustfmt: each ends with the first brace at its own indent.
fn functions(text: &str) -> Vec<Function> {
    let lines: Vec<&str> = text.lines().collect();
    let mut found = Vec::new();
    for (at, line) in lines.iter().enumerate() {
        let Some(name) = function_name(line) else { continue };
        let closing = format!("{}}}", &line[..line.len() - line.trim_start().len()]);
        let body = &lines[at..];
        // A signature ends where its body opens; with a short body it ends there too, or has none.
        let signature = body.iter().position(|line| line.ends_with(['{', '}', ';'])).unwrap_or(0);
        let last = match body[signature].ends_with('{') {
            true => body.iter().position(|line| *line == closing).unwrap_or(signature),
            false => signature,
        };
        found.push(Function { name, line: at + 1, lines: last + 1 });
    }
    found
}

fn function_name(line: &str) -> Option<String> {
    if !is_code(line) {
        return None;
    }
    let mut words = line.split_whitespace();
    let qualifier =
        |word: &str| word.starts_with("pub") || ["const", "async", "unsafe", "in"].contains(&word);
    let keyword = words.by_ref().find(|word| !qualifier(word) && !word.ends_with(')'))?;
    let name = words.next().filter(|_| keyword == "fn")?;
    Some(name.chars().take_while(|letter| letter.is_alphanumeric() || *letter == '_').collect())
}

fn functions_fit_a_screen(source: &Source<'_>) -> Vec<Violation> {
    if !source.is_rust() {
        return Vec::new();
    }
    let complain = |function: Function| {
        let Function { name, line, lines } = function;
        let listed = LONG_FUNCTIONS.iter().find(|entry| (entry.0, entry.1) == (source.path, &name));
        let limit = listed.map_or(FUNCTION_LINES_MAX, |entry| entry.2);
        let what = if lines > limit {
            format!("fn {name} has {lines} lines, {limit} are allowed")
        } else if listed.is_some() && lines < limit {
            format!("fn {name} has shrunk to {lines} lines: lower its entry in LONG_FUNCTIONS")
        } else {
            return None;
        };
        Some(source.violation(line, what))
    };
    functions(source.text).into_iter().filter_map(complain).collect()
}

const RULES: [fn(&Source<'_>) -> Vec<Violation>; 8] = [
    columns,
    ascii,
    opens_with_docs,
    unfinished,
    machine_paths,
    time_has_one_reader,
    imports_run_one_way,
    functions_fit_a_screen,
];

/// Calls `visit` with every text file below a folder.
fn walk(root: &Path, folder: &Path, visit: &mut impl FnMut(&str, &str)) {
    let Ok(entries) = fs::read_dir(folder) else { return };
    for entry in entries {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap().to_string_lossy().into_owned();
        if path.is_dir() {
            if !FOLDERS_SKIPPED.contains(&name.as_str()) {
                walk(root, &path, visit);
            }
        } else if let Ok(text) = fs::read_to_string(&path) {
            visit(&path.strip_prefix(root).unwrap().to_string_lossy(), &text);
        }
    }
}

#[test]
fn the_tree_keeps_its_rules() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let (mut files, mut violations) = (0, Vec::new());
    let mut visit = |path: &str, text: &str| {
        files += 1;
        let source = Source { path, text };
        violations.extend(RULES.iter().flat_map(|rule| rule(&source)));
    };
    for folder in FOLDERS {
        walk(root, &root.join(folder), &mut visit);
    }
    for file in ["Cargo.toml", "README.md", "ARCHITECTURE.md", "CHANGELOG.md"] {
        if let Ok(text) = fs::read_to_string(root.join(file)) {
            visit(file, &text);
        }
    }
    assert!(files > 50, "only {files} files found below {}", root.display());
    for (path, name, lines, why) in LONG_FUNCTIONS {
        println!("allowed: {path} fn {name}, {lines} lines: {why}");
    }
    for violation in &violations {
        println!("{violation}");
    }
    assert!(violations.is_empty(), "{} violations, listed above", violations.len());
}

/// The lines a rule complains of in a snippet.
fn complains(rule: fn(&Source<'_>) -> Vec<Violation>, path: &str, text: &str) -> Vec<usize> {
    rule(&Source { path, text }).into_iter().map(|violation| violation.line).collect()
}

#[test]
fn columns_are_counted() {
    let text = format!("{}\n{}\n", "a".repeat(100), "a".repeat(101));
    assert_eq!(complains(columns, "src/a.rs", &text), [2]);
    assert_eq!(complains(columns, "README.md", &text), []);
}

#[test]
fn other_letters_than_ascii_are_found() {
    assert_eq!(complains(ascii, "src/a.rs", "a\n\u{e9}\n"), [2]);
}

#[test]
fn files_of_the_product_open_with_docs() {
    assert_eq!(complains(opens_with_docs, "src/a.rs", "use b;\n"), [1]);
    assert_eq!(complains(opens_with_docs, "src/a.rs", "//! A.\nuse b;\n"), []);
    assert_eq!(complains(opens_with_docs, "tests/a.rs", "use b;\n"), []);
}

#[test]
fn unfinished_work_is_found_as_a_word() {
    let text = concat!("fn a() {\n    to", "do!()\n}\n// FIX", "ME\nlet prefix = XX", "XY;\n");
    assert_eq!(complains(unfinished, "src/a.rs", text), [2, 4]);
}

#[test]
fn machine_paths_are_found_where_they_start() {
    let text = concat!("cd /", "work/main\ncd home/", "work/main\n`/", "root/x`\n/workshop\n");
    assert_eq!(complains(machine_paths, "README.md", text), [1, 3]);
}

#[test]
fn time_is_read_in_one_place() {
    let text = "//! Not Instant::now().\nlet a = Instant::now();\nlet b = SystemTime::now();\n";
    assert_eq!(complains(time_has_one_reader, "src/server/worker/turn.rs", text), [2, 3]);
    assert_eq!(complains(time_has_one_reader, CLOCKS[0], text), []);
    assert_eq!(complains(time_has_one_reader, "tests/a.rs", text), []);
}

#[test]
fn imports_against_the_arrows_are_found() {
    let text = "//! See crate::server.\nuse crate::limits::A;\nuse crate::{shard, limits};\n\
                use super::super::server::B;\nuse super::server::C;\nuse crate::store::D;\n";
    assert_eq!(complains(imports_run_one_way, "src/store/index.rs", text), [3, 4]);
    assert_eq!(complains(imports_run_one_way, "src/server/stats/text.rs", text), []);
    assert_eq!(complains(imports_run_one_way, "src/store/mod.rs", "use super::server;\n"), [1]);
    assert_eq!(complains(imports_run_one_way, "src/new/mod.rs", ""), [1]);
    assert_eq!(complains(imports_run_one_way, "src/main.rs", text), []);
}

#[test]
fn functions_are_measured() {
    let text = "impl A {\n    pub(super) const fn one(&self)\n    where\n        C: D,\n    {\n\
                \x20       if e {\n        }\n    }\n\n    fn two() {}\n    fn three();\n\
                    // fn four() {\n    fn five(\n        f: G,\n    ) {\n        h();\n    }\n}\n";
    let found: Vec<(String, usize)> =
        functions(text).into_iter().map(|function| (function.name, function.lines)).collect();
    let expected = [("one", 7), ("two", 1), ("three", 1), ("five", 5)];
    assert_eq!(found, expected.map(|(name, lines)| (name.to_owned(), lines)));
}

#[test]
fn long_functions_are_found() {
    let text = |lines: usize| format!("fn a() {{\n{}}}\n", "    b();\n".repeat(lines - 2));
    assert_eq!(complains(functions_fit_a_screen, "src/a.rs", &text(70)), []);
    assert_eq!(complains(functions_fit_a_screen, "src/a.rs", &text(71)), [1]);
}
