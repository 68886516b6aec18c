//! What `-h`, `-V` and `-i` print.
//!
//! Owns the words and their layout; what each option is called is in `table`. Tools search `-h` to
//! learn what is built in, so it has only what works.

use super::extended;
use super::table::{GROUPS, LONG_ONLY, Opt};
use crate::daemon::os::FLAGS_ABSENT;
use crate::server::config::COMPAT_VERSION;
use std::path::Path;

/// The name that scripts know a cache daemon by. Started under it, the first lines are its.
const MEMCACHED: &str = "memcached";

const OWN_VERSION: &str = env!("CARGO_PKG_VERSION");

/// The first number of `-V` and `-h` is what tools compare, so it is memcached's; the second line
/// has this program's own. Scripts that start `memcached` expect one line.
pub(super) fn version(program: &str) -> String {
    if is_memcached(program) {
        return format!("{MEMCACHED} {COMPAT_VERSION}\n");
    }
    format!("distcached {COMPAT_VERSION}\ndistcache {OWN_VERSION}\n")
}

fn is_memcached(program: &str) -> bool {
    Path::new(program).file_name().is_some_and(|name| name == MEMCACHED)
}

pub(super) fn license(program: &str) -> String {
    format!(
        "{}\ndistcache may be used under either license of: {}\n",
        version(program),
        env!("CARGO_PKG_LICENSE")
    )
}

/// Where the explanations of `-h` start.
const HELP_COLUMN: usize = 30;

const USAGE: &str = "
usage: distcached [option]...
       distcached check|dump|repair|backup|load ...  tools for data directories;
                                                     \"distcached help load\": how

  distcached -l 127.0.0.1 -m 1024               a cache of 1 GB for this machine
  distcached -m 1024 --data-dir=/srv/cache      that comes back with its data
  distcached -d -u cache -P /run/distcached.pid in the background, as that user
";

/// `-h`
pub(super) fn help(program: &str) -> String {
    let mut text = version(program);
    if is_memcached(program) {
        text.push_str(&format!("distcache {OWN_VERSION}\n"));
    }
    text.push_str(USAGE);
    for group in GROUPS.iter().filter(|group| !group.heading.is_empty()) {
        text.push_str(&format!("\n{}:\n", group.heading));
        let is_there = |option: &&Opt| FLAGS_ABSENT.iter().all(|(short, _)| *short != option.short);
        for option in group.options.iter().filter(is_there) {
            explain(&mut text, &name_of(option), option.help);
            if option.short == 'o' {
                extended::explain_all(&mut text);
            }
        }
    }
    text.push_str("\nOther options of memcached are accepted where ignoring them does no harm.\n");
    text
}

fn name_of(option: &Opt) -> String {
    match option {
        Opt { short: LONG_ONLY, long, value: "", .. } => format!("--{long}"),
        Opt { short: LONG_ONLY, long, value, .. } => format!("--{long}={value}"),
        Opt { short, long: "", value, .. } => format!("-{short} {value}"),
        Opt { short, long, value: "", .. } => format!("-{short}, --{long}"),
        Opt { short, long, value, .. } => format!("-{short}, --{long}={value}"),
    }
}

/// Appends `name` and, from [`HELP_COLUMN`] on, the lines of `help`.
pub(super) fn explain(text: &mut String, name: &str, help: &str) {
    let mut name = name;
    for line in help.lines() {
        text.push_str(&format!("{name:<HELP_COLUMN$} {line}\n"));
        name = "";
    }
}
