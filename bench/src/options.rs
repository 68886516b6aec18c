//! Long options of a subcommand. Owns the table of options, their defaults and the help text made
//! of it; the meaning of a value belongs to whoever asks for it.

use std::collections::HashMap;
use std::fmt::Display;
use std::fmt::Write as _;
use std::str::FromStr;

use lexopt::{Arg, Parser};

use crate::Result;

/// One option of a subcommand.
#[derive(Clone, Copy, Debug)]
pub struct Opt {
    /// Without the dashes.
    pub name: &'static str,
    /// What the help calls the value; empty for a switch.
    pub value: &'static str,
    /// The value if not given; empty if there is none.
    pub default: &'static str,
    /// One line.
    pub help: &'static str,
}

/// Shorthand for a line of a table of options.
pub const fn opt(
    name: &'static str,
    value: &'static str,
    default: &'static str,
    help: &'static str,
) -> Opt {
    Opt { name, value, default, help }
}

/// The options given.
#[derive(Clone, Debug)]
pub struct Options {
    table: Vec<Opt>,
    given: HashMap<&'static str, Vec<String>>,
}

impl Options {
    /// Reads the rest of the command line. `None` if the help was asked for, and printed. Of two
    /// lines with the same name the one in the earlier table counts.
    pub fn parse(parser: &mut Parser, usage: &str, tables: &[&[Opt]]) -> Result<Option<Self>> {
        let mut options = Self { table: Vec::new(), given: HashMap::new() };
        for opt in tables.concat() {
            if options.table.iter().all(|earlier| earlier.name != opt.name) {
                options.table.push(opt);
            }
        }
        while let Some(argument) = parser.next()? {
            match argument {
                Arg::Long("help") | Arg::Short('h') => {
                    print!("{}", options.help(usage));
                    return Ok(None);
                }
                Arg::Long(name) => match options.table.iter().find(|opt| opt.name == name) {
                    None => return Err(format!("no option --{name}; see --help").into()),
                    Some(&opt) => {
                        let value = match opt.value {
                            "" => String::new(),
                            _ => parser.value()?.into_string().map_err(|v| format!("{v:?}"))?,
                        };
                        options.given.entry(opt.name).or_default().push(value);
                    }
                },
                other => return Err(other.unexpected().into()),
            }
        }
        Ok(Some(options))
    }

    /// The value given last, or the default.
    pub fn text(&self, name: &str) -> &str {
        let opt = self.table.iter().find(|opt| opt.name == name);
        let default = opt.unwrap_or_else(|| panic!("--{name} is not in the table")).default;
        self.given.get(name).and_then(|values| values.last()).map_or(default, String::as_str)
    }

    /// The value parsed.
    pub fn get<T: FromStr<Err: Display>>(&self, name: &str) -> Result<T> {
        let text = self.text(name);
        text.parse().map_err(|e| format!("--{name} \"{text}\": {e}").into())
    }

    /// The value parsed, if there is one.
    pub fn maybe<T: FromStr<Err: Display>>(&self, name: &str) -> Result<Option<T>> {
        if self.text(name).is_empty() { Ok(None) } else { self.get(name).map(Some) }
    }

    /// The value split at commas and parsed.
    pub fn list<T: FromStr<Err: Display>>(&self, name: &str) -> Result<Vec<T>> {
        let parse = |part: &str| {
            part.parse().map_err(|e: T::Err| format!("--{name} \"{part}\": {e}").into())
        };
        self.text(name).split(',').filter(|part| !part.is_empty()).map(parse).collect()
    }

    /// Every value given to an option that may be repeated.
    pub fn all(&self, name: &str) -> &[String] {
        self.given.get(name).map_or(&[], Vec::as_slice)
    }

    /// Whether a switch was given.
    pub fn has(&self, name: &str) -> bool {
        self.given.contains_key(name)
    }

    fn help(&self, usage: &str) -> String {
        let mut help = format!("{usage}\n\n");
        for opt in &self.table {
            let left = format!("--{} {}", opt.name, opt.value);
            let default = match opt.default {
                "" => String::new(),
                default => format!(" [{default}]"),
            };
            writeln!(help, "  {left:<24} {}{default}", opt.help).expect("writing to a String");
        }
        help
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TABLE: &[Opt] = &[
        opt("rounds", "N", "5", "rounds"),
        opt("cores", "LIST", "", "cores"),
        opt("verbose", "", "", "switch"),
    ];

    fn parse(words: &[&str]) -> Result<Options> {
        Ok(Options::parse(&mut Parser::from_args(words), "x", &[TABLE])?.expect("not help"))
    }

    #[test]
    fn values_lists_switches_and_defaults() {
        let options = parse(&["--cores=0,1", "--verbose"]).unwrap();
        assert_eq!(options.get::<u32>("rounds").unwrap(), 5);
        assert_eq!(options.list::<usize>("cores").unwrap(), [0, 1]);
        assert!(options.has("verbose"));
        let options = parse(&["--rounds", "3", "--rounds", "4"]).unwrap();
        assert_eq!(options.get::<u32>("rounds").unwrap(), 4);
        assert_eq!(options.all("rounds"), ["3", "4"]);
        assert_eq!(options.maybe::<u32>("cores").unwrap(), None);
    }

    #[test]
    fn mistakes_are_named() {
        let message = |words: &[&str]| parse(words).unwrap_err().to_string();
        assert_eq!(message(&["--round", "3"]), "no option --round; see --help");
        let wrong = parse(&["--rounds", "x"]).unwrap().get::<u32>("rounds").unwrap_err();
        assert_eq!(wrong.to_string(), "--rounds \"x\": invalid digit found in string");
    }
}
