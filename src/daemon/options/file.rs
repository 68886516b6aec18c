//! `--config FILE`: flags from a file, in the form of Debian's `/etc/memcached.conf`.
//!
//! One flag a line, `#` starts a comment. `-d` and `-h` are skipped and so are lines that are no
//! flags, as Debian's start scripts skip them, so that the same file serves here unchanged; but for
//! `logfile ...`, which Debian's has, they are warned of. Quotes keep spaces within a word. Bytes
//! are bytes, in whatever encoding, and a byte-order mark is skipped. Owns that form; what the
//! flags mean is decided where those of the command line are.

use super::Exit;
use crate::system;
use std::ffi::{OsStr, OsString};
use std::io;
use std::path::Path;

/// The option, as it is written.
const OPTION: &str = "--config";

/// Some editors begin a file with it.
const BYTE_ORDER_MARK: &[u8] = b"\xef\xbb\xbf";

/// The one word of Debian's file that is no flag. It names the log of `memcached -v`, which its
/// start scripts redirect; here it is `--log-file`.
const SKIPPED: &[u8] = b"logfile";

/// Longest part of a line that a warning repeats.
const REPEATED_BYTES_MAX: usize = 40;

/// Puts the flags of files in place of each `--config FILE` and `--config=FILE`. Answers them, and
/// a warning for each line that is no flag.
///
/// # Errors
/// A file that cannot be read, or quotes that do not end.
pub(super) fn expand(
    args: impl IntoIterator<Item = OsString>,
    read: impl Fn(&Path) -> io::Result<Vec<u8>>,
) -> Result<(Vec<OsString>, Vec<String>), Exit> {
    let (mut expanded, mut warnings) = (Vec::new(), Vec::new());
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
        let named = |why: String| format!("{OPTION} {}: {why}", path.display());
        let refused = |why: String| Exit::usage(named(why));
        let text = read(path).map_err(|why| refused(why.to_string()))?;
        let (flags, odd) = flags(&text).map_err(refused)?;
        expanded.extend(flags);
        warnings.extend(odd.into_iter().map(named));
    }
    Ok((expanded, warnings))
}

/// The words of the lines that are flags, and what is odd about others.
fn flags(text: &[u8]) -> Result<(Vec<OsString>, Vec<String>), String> {
    let (mut all, mut odd) = (Vec::new(), Vec::new());
    let text = text.strip_prefix(BYTE_ORDER_MARK).unwrap_or(text);
    for (at, line) in text.split(|byte| *byte == b'\n').enumerate() {
        let line = line.trim_ascii();
        match line.first() {
            None | Some(b'#') => {}
            Some(b'-') if line.starts_with(b"-d") || line.starts_with(b"-h") => {}
            Some(b'-') => {
                let words = words(line).ok_or(format!("line {}: a quote does not end", at + 1))?;
                all.extend(words);
            }
            _ if line.starts_with(SKIPPED) => {}
            _ => {
                let line = String::from_utf8_lossy(&line[..line.len().min(REPEATED_BYTES_MAX)]);
                odd.push(format!("line {}: {line:?} is no flag and is ignored", at + 1));
            }
        }
    }
    Ok((all, odd))
}

/// The words of a line, up to a comment. `None`: a quote does not end.
fn words(line: &[u8]) -> Option<Vec<OsString>> {
    let mut found = Vec::new();
    let mut word: Option<Vec<u8>> = None;
    let mut quote = None;
    let mut bytes = line.iter().copied();
    while let Some(byte) = bytes.next() {
        match (byte, quote) {
            (byte, Some(open)) if byte == open => quote = None,
            (byte, Some(_)) => word.get_or_insert_default().push(byte),
            (b'\'' | b'"', None) => {
                quote = Some(byte);
                word.get_or_insert_default();
            }
            (b'\\', None) => word.get_or_insert_default().push(bytes.next().unwrap_or(b'\\')),
            (b'#', None) => break,
            (byte, None) if byte.is_ascii_whitespace() => found.extend(word.take()),
            (byte, None) => word.get_or_insert_default().push(byte),
        }
    }
    found.extend(word);
    quote.is_none().then(|| found.into_iter().map(system::os_string).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn expanded(args: &[&str], file: impl AsRef<[u8]>) -> Result<Vec<String>, String> {
        let (words, _) = expanded_and_warned(args, file)?;
        Ok(words.into_iter().map(|word| word.into_string().unwrap()).collect())
    }

    fn expanded_and_warned(
        args: &[&str],
        file: impl AsRef<[u8]>,
    ) -> Result<(Vec<OsString>, Vec<String>), String> {
        let read = |path: &Path| match path.to_str() {
            Some("/conf") => Ok(file.as_ref().to_owned()),
            _ => Err(io::Error::from(io::ErrorKind::NotFound)),
        };
        expand(args.iter().map(OsString::from), read).map_err(|exit| exit.message)
    }

    /// Once such files were refused, or lost their first line without a word.
    #[test]
    fn bytes_are_bytes() {
        let check = |file: &[u8], flags: &[&[u8]], warned: &[&str]| {
            let (found, warnings) = expanded_and_warned(&["--config", "/conf"], file).unwrap();
            let flags: Vec<_> = flags.iter().map(|flag| system::os_string(flag.to_vec())).collect();
            assert_eq!(found, flags, "{file:?}");
            let warned: Vec<_> =
                warned.iter().map(|line| format!("--config /conf: {line}")).collect();
            assert_eq!(warnings, warned, "{file:?}");
        };
        check(b"\xef\xbb\xbf-l 127.0.0.1\n-m 5\n", &[b"-l", b"127.0.0.1", b"-m", b"5"], &[]);
        check(b"# f\xfcr alle\n-m 5 # gr\xf6\xdfer\r\n", &[b"-m", b"5"], &[]);
        check(b"-s /run/\xe9 -v", &[b"-s", b"/run/\xe9", b"-v"], &[]);
        let odd = "line 2: \"m 64\" is no flag and is ignored";
        check(b"-v\nm 64\nlogfile /x\n\n -m 5", &[b"-v", b"-m", b"5"], &[odd]);
        let odd = "line 1: \"\\u{feff}-l 127.0.0.1\" is no flag and is ignored";
        check(b"\xef\xbb\xbf\xef\xbb\xbf-l 127.0.0.1", &[], &[odd]);
        let long = "x".repeat(100);
        let odd = format!("line 1: {:?} is no flag and is ignored", "x".repeat(40));
        check(long.as_bytes(), &[], &[&odd]);
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
