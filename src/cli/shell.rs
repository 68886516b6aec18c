//! `distcache shell`: commands from a prompt, one a line. Owns the quoting of words, and where the
//! history is kept; what commands do is `Session`'s.

use crate::exit::{Failure, Status};
use crate::{Session, help};
use rustyline::completion::Completer;
use rustyline::error::ReadlineError;
use rustyline::history::DefaultHistory;
use rustyline::{Config, Context, Editor, Helper};
use std::ffi::OsString;
use std::path::PathBuf;

const PROMPT: &str = "distcache> ";

/// Lines that the history holds.
const HISTORY_LINES_MAX: usize = 1000;

/// Carries out lines until there are no more; the status is that of the last one.
pub(crate) fn run(session: &Session<'_>) -> Result<Status, Failure> {
    let config = Config::builder()
        .max_history_size(HISTORY_LINES_MAX)
        .map_err(ended)?
        .history_ignore_space(true)
        .auto_add_history(true)
        .build();
    let mut editor: Editor<Commands, DefaultHistory> =
        Editor::with_config(config).map_err(ended)?;
    editor.set_helper(Some(Commands));
    let history = history_file(|name| std::env::var_os(name)).filter(|_| is_terminal());
    if let Some(path) = &history {
        // There is none yet, or none that can be read: it begins here.
        let _ = editor.load_history(path);
    }
    let mut status = Status::Done;
    loop {
        let line = match editor.readline(PROMPT) {
            Ok(line) => line,
            Err(ReadlineError::Interrupted) => continue,
            Err(ReadlineError::Eof) => break,
            Err(error) => return Err(ended(error)),
        };
        match carry_out(session, &line) {
            Some(now) => status = now,
            None => break,
        }
    }
    if let Some(path) = &history
        && let Some(folder) = path.parent()
    {
        // A history that cannot be kept is no reason to fail.
        let _ = std::fs::create_dir_all(folder);
        let _ = editor.save_history(path);
    }
    Ok(status)
}

fn is_terminal() -> bool {
    use std::io::IsTerminal;
    std::io::stdin().is_terminal()
}

fn ended(error: ReadlineError) -> Failure {
    std::io::Error::other(error).into()
}

/// What became of a line; `None` is the end.
fn carry_out(session: &Session<'_>, line: &str) -> Option<Status> {
    let words = match words(line) {
        Ok(words) => words,
        Err(why) => return Some(Failure::from(why).report()),
    };
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    match words[..] {
        [] => Some(Status::Done),
        ["quit" | "exit"] => None,
        ["shell"] => Some(Failure::from("this is the shell").report()),
        [command, .., "-"] if READ_INPUT.contains(&command) => {
            Some(Failure::from("standard input has the commands here: write the value").report())
        }
        _ => Some(session.carry_out(&words).unwrap_or_else(|failure| failure.report())),
    }
}

/// Commands for which `-` is standard input.
const READ_INPUT: [&str; 6] = ["set", "add", "replace", "append", "prepend", "cas"];

/// A line as words: blanks separate, `'...'` and `"..."` hold together, `\` makes the next
/// character an ordinary one except within `'...'`.
fn words(line: &str) -> Result<Vec<String>, &'static str> {
    let mut words = Vec::new();
    let mut word: Option<String> = None;
    let mut quote = None;
    let mut letters = line.chars();
    while let Some(letter) = letters.next() {
        match (quote, letter) {
            (None, letter) if letter.is_whitespace() => words.extend(word.take()),
            (None, '\'' | '"') => {
                quote = Some(letter);
                word.get_or_insert_default();
            }
            (Some(open), letter) if open == letter => quote = None,
            (None | Some('"'), '\\') => {
                let escaped = letters.next().ok_or("the line ends with a backslash")?;
                word.get_or_insert_default().push(escaped);
            }
            (_, letter) => word.get_or_insert_default().push(letter),
        }
    }
    if quote.is_some() {
        return Err("a quote is not closed");
    }
    words.extend(word);
    Ok(words)
}

/// The file of the history; `None` is nowhere.
fn history_file(variable: impl Fn(&str) -> Option<OsString>) -> Option<PathBuf> {
    if let Some(file) = variable("DISTCACHE_HISTORY") {
        return (!file.is_empty()).then(|| file.into());
    }
    let set = |name| variable(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    let folder = match cfg!(windows) {
        true => set("LOCALAPPDATA")?,
        false => {
            set("XDG_STATE_HOME").or_else(|| Some(set("HOME")?.join(".local").join("state")))?
        }
    };
    Some(folder.join("distcache").join("history"))
}

/// Completes the first word of a line.
struct Commands;

impl Completer for Commands {
    type Candidate = String;

    fn complete(
        &self,
        line: &str,
        at: usize,
        _: &Context<'_>,
    ) -> rustyline::Result<(usize, Vec<String>)> {
        let typed = line.get(..at).unwrap_or_default();
        let (start, begun) = match typed.strip_prefix("help ") {
            Some(begun) => (at - begun.len(), begun),
            None => (0, typed),
        };
        let known = help::COMMANDS.iter().map(|command| command.name);
        let found = known.filter(|name| name.starts_with(begun));
        Ok((start, found.map(|name| format!("{name} ")).collect()))
    }
}

impl rustyline::hint::Hinter for Commands {
    type Hint = String;
}
impl rustyline::highlight::Highlighter for Commands {}
impl rustyline::validate::Validator for Commands {}
impl Helper for Commands {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_words() {
        for (line, expected) in [
            ("", Ok(&[][..])),
            ("  get  a\tb ", Ok(&["get", "a", "b"][..])),
            ("set a 'b c' \"d 'e'\"", Ok(&["set", "a", "b c", "d 'e'"])),
            ("set a ''", Ok(&["set", "a", ""])),
            ("set a b\\ c \"d\\\"e\" 'f\\g'", Ok(&["set", "a", "b c", "d\"e", "f\\g"])),
            ("set a x\"y z\"w", Ok(&["set", "a", "xy zw"])),
            ("set a 'b", Err("a quote is not closed")),
            ("set a b\\", Err("the line ends with a backslash")),
        ] {
            let found = words(line);
            let expected: Result<Vec<String>, _> =
                expected.map(|words| words.iter().map(|word| (*word).to_owned()).collect());
            assert_eq!(found, expected, "{line}");
        }
    }

    #[test]
    fn where_the_history_is() {
        let file = |set: &[(&str, &str)]| {
            let set: Vec<_> = set.iter().map(|(name, value)| (name.to_string(), value)).collect();
            history_file(|name| {
                let found = set.iter().find(|(known, _)| known == name);
                found.map(|(_, value)| OsString::from(value))
            })
        };
        assert_eq!(file(&[("DISTCACHE_HISTORY", ""), ("HOME", "h"), ("LOCALAPPDATA", "h")]), None);
        assert_eq!(file(&[("DISTCACHE_HISTORY", "f"), ("HOME", "h")]), Some("f".into()));
        assert_eq!(file(&[]), None);
        if cfg!(unix) {
            let state = "h/.local/state/distcache/history";
            assert_eq!(file(&[("HOME", "h"), ("XDG_STATE_HOME", "")]), Some(state.into()));
            let state = "x/distcache/history";
            assert_eq!(file(&[("HOME", "h"), ("XDG_STATE_HOME", "x")]), Some(state.into()));
        }
    }
}
