//! `--config FILE`: flags from a file, in the form of Debian's `/etc/memcached.conf`.
//!
//! One flag a line, `#` starts a comment. `-d` and `-h` are skipped and so are lines that are no
//! flags (`logfile ...`), as Debian's start scripts skip them, so that the same file serves here
//! unchanged. Quotes keep spaces within a word. Owns that form; what the flags mean is decided
//! where those of the command line are.

use super::Exit;
use std::ffi::{OsStr, OsString};
use std::io;
use std::path::Path;

/// The option, as it is written.
const OPTION: &str = "--config";

/// Puts the flags of files in place of each `--config FILE` and `--config=FILE`.
///
/// # Errors
/// A file that cannot be read, or quotes that do not end.
pub fn expand(
    args: impl IntoIterator<Item = OsString>,
    read: impl Fn(&Path) -> io::Result<String>,
) -> Result<Vec<OsString>, Exit> {
    let mut expanded = Vec::new();
    let mut args = args.into_iter();
    while let Some(arg) = args.next() {
        let attached = arg.to_str().and_then(|arg| arg.strip_prefix("--config=")).map(OsStr::new);
        let named = match attached {
            Some(path) => Some(path.to_owned()),
            None if arg == OPTION => args.next(),
            None => None,
        };
        let Some(named) = named else {
            expanded.push(arg);
            continue;
        };
        let path = Path::new(&named);
        let refused = |why: String| Exit::usage(format!("{OPTION} {}: {why}", path.display()));
        let text = read(path).map_err(|why| refused(why.to_string()))?;
        expanded.extend(flags(&text).map_err(refused)?.into_iter().map(OsString::from));
    }
    Ok(expanded)
}

/// The words of the lines that are flags.
fn flags(text: &str) -> Result<Vec<String>, String> {
    let mut all = Vec::new();
    for (at, line) in text.lines().enumerate() {
        let line = line.trim_start();
        if line.starts_with('-') && !line.starts_with("-d") && !line.starts_with("-h") {
            let words = words(line).ok_or(format!("line {}: a quote does not end", at + 1))?;
            all.extend(words);
        }
    }
    Ok(all)
}

/// The words of a line, up to a comment. `None`: a quote does not end.
fn words(line: &str) -> Option<Vec<String>> {
    let mut found = Vec::new();
    let mut word: Option<String> = None;
    let mut quote = None;
    let mut letters = line.chars();
    while let Some(letter) = letters.next() {
        match (letter, quote) {
            (letter, Some(open)) if letter == open => quote = None,
            (letter, Some(_)) => word.get_or_insert_default().push(letter),
            ('\'' | '"', None) => {
                quote = Some(letter);
                word.get_or_insert_default();
            }
            ('\\', None) => word.get_or_insert_default().push(letters.next().unwrap_or('\\')),
            ('#', None) => break,
            (letter, None) if letter.is_whitespace() => found.extend(word.take()),
            (letter, None) => word.get_or_insert_default().push(letter),
        }
    }
    found.extend(word);
    quote.is_none().then_some(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn expanded(args: &[&str], file: &str) -> Result<Vec<String>, String> {
        let read = |path: &Path| match path.to_str() {
            Some("/conf") => Ok(file.to_owned()),
            _ => Err(io::Error::from(io::ErrorKind::NotFound)),
        };
        let words = expand(args.iter().map(OsString::from), read).map_err(|exit| exit.message)?;
        Ok(words.into_iter().map(|word| word.into_string().unwrap()).collect())
    }

    #[test]
    fn lines_become_flags_in_the_place_of_the_option() {
        let debian = "# a comment\n\n-d\nlogfile /var/log/memcached.log\n# -v\n-m 64\n\
                      -p 11211 # the port\n-u memcache\n  -l 127.0.0.1\n-P /run/m.pid\n";
        let flags = "-m 64 -p 11211 -u memcache -l 127.0.0.1 -P /run/m.pid";
        let words = |text: &str| text.split(' ').map(str::to_owned).collect::<Vec<_>>();
        for (args, expected) in [
            ("d --config /conf", format!("d {flags}")),
            ("d --config=/conf -m 5", format!("d {flags} -m 5")),
            ("d -m 5 --config /conf", format!("d -m 5 {flags}")),
            ("d -m 5", "d -m 5".to_owned()),
        ] {
            assert_eq!(
                expanded(&words(args).iter().map(|w| &**w).collect::<Vec<_>>(), debian),
                Ok(words(&expected)),
                "{args}"
            );
        }
    }

    #[test]
    fn quotes_and_backslashes() {
        for (line, expected) in [
            ("-s '/run/a b' -D \"#\"", &["-s", "/run/a b", "-D", "#"][..]),
            ("-D \\# x#y", &["-D", "#", "x"]),
            ("-o ''", &["-o", ""]),
            ("--data-dir=\"/a b\"c", &["--data-dir=/a bc"]),
            ("-hello -d", &[]),
        ] {
            let found = expanded(&["--config", "/conf"], line).unwrap();
            assert_eq!(found, expected, "{line}");
        }
    }

    #[test]
    fn files_that_cannot_be_followed() {
        for (path, text, why) in [
            ("/gone", "", "--config /gone: entity not found"),
            ("/conf", "-m 5\n-s '/a", "--config /conf: line 2: a quote does not end"),
        ] {
            assert_eq!(expanded(&["--config", path], text), Err(why.to_owned()));
        }
    }
}
