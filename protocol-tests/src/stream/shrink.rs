//! Finds a short list of slots that still shows a difference.
//!
//! Delta debugging in its simplest form: leave out ever smaller parts, keep what still fails. No
//! I/O here; the caller plays the candidates.

use super::command::Slot;

/// How many candidates may be played. Each takes milliseconds; a result a little too long is fine.
const ATTEMPTS_MAX: usize = 600;

/// Shortens `slots` as long as `fails` says that the rest still fails.
pub fn shrink(slots: Vec<Slot>, mut fails: impl FnMut(&[Slot]) -> bool) -> Vec<Slot> {
    let mut attempts = 0;
    let mut check = |candidate: &[Slot]| {
        attempts += 1;
        attempts <= ATTEMPTS_MAX && !candidate.is_empty() && fails(candidate)
    };
    let slots = leave_out(slots, &mut check);
    // Pipelining within a slot matters rarely: try every command on its own.
    let single = slots.iter().flat_map(|slot| &slot.commands);
    let single: Vec<Slot> =
        single.map(|command| Slot { commands: vec![command.clone()] }).collect();
    if check(&single) { leave_out(single, &mut check) } else { slots }
}

/// Leaves out halves, quarters and so on down to single slots.
fn leave_out(mut slots: Vec<Slot>, fails: &mut impl FnMut(&[Slot]) -> bool) -> Vec<Slot> {
    let mut length = slots.len().div_ceil(2);
    while 0 < length {
        let mut start = 0;
        while start < slots.len() {
            let end = slots.len().min(start + length);
            let candidate = [&slots[..start], &slots[end..]].concat();
            if fails(&candidate) {
                slots = candidate;
            } else {
                start = end;
            }
        }
        length /= 2;
    }
    slots
}

#[cfg(test)]
mod tests {
    use super::super::command::Command;
    use super::*;

    #[test]
    fn what_matters_remains() {
        let slot = |number: u32| Slot { commands: vec![Command::new(number.to_string())] };
        let slots: Vec<Slot> = (0..100).map(slot).collect();
        let needed = [slot(7), slot(93)];
        let shrunk = shrink(slots, |slots| needed.iter().all(|slot| slots.contains(slot)));
        assert_eq!(shrunk, needed);
    }
}
