//! What a server under attack has to keep. Owns the thresholds and the comparison with them.

use distcache::limits::{LINE_BYTES_MAX, OUTPUT_BYTES_MAX, READ_BYTES};

use super::rounds::Rounds;
use crate::median;

/// Others' p99 may grow to so many times what it was,
pub const OTHERS_P99_RATIO_MAX: f64 = 3.0;
/// or to this: beside several processes on few cores, time slices alone take it there.
pub const OTHERS_P99_US_FINE: f64 = 5_000.0;
/// The same where hundreds of connections have work for every turn: others wait for rounds of them.
pub const OTHERS_P99_US_FINE_AMONG_MANY: f64 = 50_000.0;
/// The slowest reply others may get in the median round.
pub const OTHERS_MAX_US: f64 = 250_000.0;
/// Descriptors that may stay open after an attack: none.
pub const DESCRIPTORS_LEFT_MAX: usize = 0;
/// Memory of a connection without a partial line and without replies.
pub const CONNECTION_BYTES_MAX: u64 = 2 << 10;
/// What the allocator may keep, and the allowance of replies before the store gives up memory.
pub const RSS_SLACK_BYTES: u64 = 32 << 20;
/// CPU of a server that cannot accept, in cores.
pub const STUCK_CPU_MAX: f64 = 0.05;
/// Throughput with colliding keys, divided by that with random keys.
pub const HASH_RATE_RATIO_MIN: f64 = 0.75;
/// The same of the time of a batch that 99 of 100 stay within.
pub const HASH_P99_RATIO_MAX: f64 = 1.5;

/// Connections that wait or send a byte now and then.
pub fn growth_of_slow_lines(connections: usize) -> u64 {
    RSS_SLACK_BYTES + connections as u64 * (LINE_BYTES_MAX as u64 + CONNECTION_BYTES_MAX)
}

/// Connections of which half send lists of keys without an end: of such a list one read waits.
pub fn growth_of_long_lines(connections: usize) -> u64 {
    growth_of_slow_lines(connections) + connections as u64 / 2 * READ_BYTES as u64
}

/// Connections that take nothing of replies with values of this size, which the store holds.
pub fn growth_of_unread_replies(connections: usize) -> u64 {
    // Values leave by reference, so only what is between them is a copy; one read of the
    // connection's commands waits too. Both are far below one output.
    RSS_SLACK_BYTES + connections as u64 * (OUTPUT_BYTES_MAX as u64 / 4)
}

/// Replies that refer to values which the store no longer holds: counted against `-m`. What was
/// freed goes back to the system after some seconds only, so that two rounds may overlap.
pub fn growth_within_limit(memory_mib: u64) -> u64 {
    RSS_SLACK_BYTES + ((2 * memory_mib) << 20)
}

/// What was broken; empty if nothing was. `growth_max` bounds the growth of resident memory,
/// `p99_us_fine` is a p99 of others that is fine however small it was.
pub fn complaints(rounds: &Rounds, growth_max: u64, p99_us_fine: f64) -> Vec<String> {
    let mut found = Vec::new();
    let of = |part: &[super::rounds::Latency], index: usize| median(part.iter().map(|l| l[index]));
    let (before, during) = (of(&rounds.before, 1), of(&rounds.during, 1));
    if during > (before * OTHERS_P99_RATIO_MAX).max(p99_us_fine) {
        found.push(format!("p99 of others {:.1} times", during / before.max(1.0)));
    }
    let slowest = of(&rounds.during, 2);
    if slowest > OTHERS_MAX_US {
        found.push(format!("others wait {:.0} ms", slowest / 1e3));
    }
    if rounds.growth() > growth_max {
        found.push("RSS beyond its bound".to_owned());
    }
    if rounds.descriptors_after > rounds.descriptors_before + DESCRIPTORS_LEFT_MAX {
        let left = rounds.descriptors_after - rounds.descriptors_before;
        found.push(format!("{left} descriptors leaked"));
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    fn calm() -> Rounds {
        Rounds {
            before: vec![[50.0, 100.0, 500.0]; 3],
            during: vec![[50.0, 120.0, 900.0]; 3],
            resident_before: 10 << 20,
            resident_peak: 11 << 20,
            cpu: vec![0.1; 3],
            done: vec![1; 3],
            descriptors_before: 20,
            descriptors_after: 20,
        }
    }

    #[test]
    fn each_threshold_is_noticed_and_one_bad_round_is_not() {
        let check = |change: &dyn Fn(&mut Rounds), expected: &str| {
            let mut rounds = calm();
            change(&mut rounds);
            assert_eq!(complaints(&rounds, 2 << 20, OTHERS_P99_US_FINE).join(", "), expected);
        };
        check(&|_| (), "");
        check(&|r| r.during[0] = [9e6; 3], "");
        check(&|r| r.during = vec![[50.0, 4_900.0, 5_000.0]; 3], "");
        check(&|r| r.during = vec![[50.0, 5_100.0, 6_000.0]; 3], "p99 of others 51.0 times");
        let slow_before = |r: &mut Rounds| {
            r.before = vec![[50.0, 4_000.0, 5_000.0]; 3];
            r.during = vec![[50.0, 11_000.0, 12_000.0]; 3];
        };
        check(&slow_before, "");
        check(&|r| r.during = vec![[50.0, 120.0, 3e5]; 3], "others wait 300 ms");
        check(&|r| r.resident_peak = 13 << 20, "RSS beyond its bound");
        check(&|r| r.resident_peak = 1, "");
        check(&|r| r.descriptors_after = 23, "3 descriptors leaked");
    }
}
