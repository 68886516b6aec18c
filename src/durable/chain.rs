//! Reading the logs of one shard and one run, in order: which records count, where a torn end is
//! cut off, and what is damage.
//!
//! Owns these judgements; what the changes do is the caller's.
//!
//! A log that no other follows may end in a torn write: its last record is cut off, and so is a
//! stretch of valid records behind a hole of zeros, which the device never got in order. Neither
//! may lie before a place that a later record calls synced. Everything else is damage.

use super::change::{Begin, Change, kind, unpack_synced};
use super::disk::Disk;
use super::manifest::{LogEnd, LogEntry, log_name};
use super::record::{Behind, CONTINUES, FILE_HEADER_BYTES, FileHeader, FileKind, Reader, Step};
use super::{Damage, Error};
use crate::limits::ITEM_BYTES_LIMIT_MAX;

/// Longest body put together from pieces: the largest item, its header and popularity.
const BODY_BYTES_TOTAL_MAX: usize = ITEM_BYTES_LIMIT_MAX as usize + 1024;

/// What was read.
#[derive(Debug, Default)]
pub struct Chain {
    /// Changes handed out.
    pub changes: u64,
    /// Bytes of records that count.
    pub bytes: u64,
    /// Bytes that were cut off.
    pub cut_bytes: u64,
    /// How far each log counts.
    pub ends: Vec<LogEnd>,
}

/// How a log was found to end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Ending {
    /// With its last record; another log follows.
    Complete,
    /// Without it.
    Open,
    /// In bytes that were cut off.
    Cut,
}

struct LogRead {
    ending: Ending,
    end: LogEnd,
    cut_bytes: u64,
    last_crc: u32,
}

/// Reads the logs that one shard wrote in one run; `apply` gets the changes in order. On an error
/// it has got those before the damage, and `chain` tells of them.
///
/// # Errors
/// A log is damaged, missing, or does not continue the one before.
pub fn read_chain(
    disk: &dyn Disk,
    directory_id: u64,
    shard: usize,
    logs: &[(u64, LogEntry)],
    chain: &mut Chain,
    apply: &mut dyn FnMut(Change<'_>),
) -> Result<(), Error> {
    let mut before: Option<(LogRead, u64)> = None;
    for (generation, entry) in logs {
        let name = log_name(*generation, shard);
        let header = FileHeader {
            kind: FileKind::Log,
            directory_id,
            file_id: entry.file_id,
            generation: *generation,
            shard: shard as u32,
        };
        let mut log = OneLog::open(disk, &name, &header, entry, before.as_ref())?;
        let whole = before.as_ref().is_none_or(|(read, _)| read.ending == Ending::Complete);
        let read = if whole || entry.end.is_some() {
            log.read(chain, apply)?
        } else {
            log.read_behind_a_cut()?
        };
        chain.cut_bytes += read.cut_bytes;
        chain.ends.push(read.end);
        before = Some((read, entry.file_id));
    }
    Ok(())
}

/// One log being read.
struct OneLog<'a> {
    name: &'a str,
    reader: Reader,
    end: Option<LogEnd>,
    /// Id and last checksum of the log before, if its end was read.
    before: Option<(u64, u32)>,
    assembly: Assembly,
}

/// A body made of pieces.
#[derive(Default)]
pub struct Assembly {
    bytes: Vec<u8>,
    kind: u8,
    /// Where its first piece begins, and that piece's sequence.
    start: Option<(u64, u64)>,
}

impl Assembly {
    /// Adds a piece. `true`: the body is whole, see [`Assembly::take`].
    ///
    /// # Errors
    /// The piece does not belong to those before.
    pub fn add(
        &mut self,
        kind: u8,
        body: &[u8],
        offset: u64,
        sequence: u64,
    ) -> Result<bool, Damage> {
        let bare = kind & !CONTINUES;
        if self.start.is_none() {
            (self.kind, self.start) = (bare, Some((offset, sequence)));
        } else if self.kind != bare {
            return Err(Damage::new("a value's pieces are mixed with other records"));
        }
        if self.bytes.len() + body.len() > BODY_BYTES_TOTAL_MAX {
            return Err(Damage::new("a value is larger than any can be"));
        }
        self.bytes.extend_from_slice(body);
        Ok(kind & CONTINUES == 0)
    }

    /// The body, once it is whole; the next piece begins another.
    pub fn take(&mut self) -> Vec<u8> {
        self.start = None;
        std::mem::take(&mut self.bytes)
    }

    /// Pieces are there, but not all.
    pub fn is_open(&self) -> bool {
        self.start.is_some()
    }
}

impl<'a> OneLog<'a> {
    fn open(
        disk: &dyn Disk,
        name: &'a str,
        header: &FileHeader,
        entry: &LogEntry,
        before: Option<&(LogRead, u64)>,
    ) -> Result<Self, Error> {
        let file = disk.open(name).map_err(|why| Error::io(name, "cannot be opened", why))?;
        let mut reader = Reader::open(name, file, header)?;
        let after = before.map(|(read, _)| read.end.sequence + 1);
        reader.start_at(entry.first_sequence.or(after).unwrap_or(1));
        if let Some(end) = entry.end {
            reader.end_at(end.bytes);
        }
        let complete = before.filter(|(read, _)| read.ending == Ending::Complete);
        let before = complete.map(|(read, file_id)| (*file_id, read.last_crc));
        Ok(Self { name, reader, end: entry.end, before, assembly: Assembly::default() })
    }

    fn damaged(&self, offset: u64, what: &'static str) -> Error {
        Error::damaged(self.name, offset, what)
    }

    fn io(&self, why: std::io::Error) -> Error {
        Error::io(self.name, "cannot be read", why)
    }

    fn read(
        &mut self,
        chain: &mut Chain,
        apply: &mut dyn FnMut(Change<'_>),
    ) -> Result<LogRead, Error> {
        let mut has_records = false;
        let ending = loop {
            let (at, sequence) = (self.reader.offset(), self.reader.sequence());
            let step =
                self.reader.step().map_err(|why| Error::io(self.name, "cannot be read", why))?;
            let record = match step {
                Step::Record(record) => record,
                Step::End => break Ending::Open,
                Step::Misplaced => {
                    let what = "records are missing, repeated or in another order";
                    return Err(Error::damaged(self.name, at, what));
                }
                Step::Bad => {
                    self.judge_bad(at)?;
                    break Ending::Cut;
                }
            };
            if has_records == (record.kind == kind::BEGIN) {
                return Err(Error::damaged(self.name, at, "a log's first record is out of place"));
            }
            has_records = true;
            let wrong = |damage| Error::of(self.name, at, damage);
            match record.kind {
                kind::BEGIN => {
                    let begin = Begin::unpack(record.body).map_err(wrong)?;
                    if !continues(&begin, sequence, self.before) {
                        let what = "it does not continue the log before it";
                        return Err(Error::damaged(self.name, at, what));
                    }
                }
                kind::SYNCED => {}
                kind::END => break Ending::Complete,
                kind if kind & CONTINUES != 0 || self.assembly.is_open() => {
                    let body = record.body;
                    if self.assembly.add(kind, body, at, sequence).map_err(wrong)? {
                        let body = self.assembly.take();
                        hand_out(kind, &body, chain, apply).map_err(wrong)?;
                    }
                }
                kind => hand_out(kind, record.body, chain, apply).map_err(wrong)?,
            }
        };
        self.ended(ending, chain)
    }

    fn ended(&mut self, mut ending: Ending, chain: &mut Chain) -> Result<LogRead, Error> {
        let mut end = LogEnd { bytes: self.reader.offset(), sequence: self.reader.sequence() - 1 };
        let mut cut_bytes = match ending {
            Ending::Cut => self.reader.bytes_left_before_zeros().map_err(|why| self.io(why))?,
            Ending::Complete | Ending::Open => 0,
        };
        if let Some((offset, sequence)) = self.assembly.start {
            // The first pieces of a value are of no use without the last.
            cut_bytes += end.bytes - offset;
            end = LogEnd { bytes: offset, sequence: sequence - 1 };
            ending = Ending::Cut;
        }
        if self.end.is_some_and(|expected| expected != end) {
            return Err(self.damaged(end.bytes, "it ends before what was recovered from it once"));
        }
        chain.bytes += end.bytes - FILE_HEADER_BYTES as u64;
        let last_crc = self.reader.last_crc();
        Ok(LogRead { ending, end, cut_bytes, last_crc })
    }

    /// Whether the bytes at `at` may be cut off.
    fn judge_bad(&mut self, at: u64) -> Result<(), Error> {
        if self.end.is_some() {
            return Err(self.damaged(at, "a record is damaged"));
        }
        match self.reader.behind().map_err(|why| self.io(why))? {
            Behind::Nothing => Ok(()),
            Behind::Records => Err(self.damaged(at, "a record is damaged, and others follow it")),
            Behind::AfterHole if self.is_synced_beyond(at)? => {
                Err(self.damaged(at, "zeros where records had been synced"))
            }
            Behind::AfterHole => Ok(()),
        }
    }

    /// Whether a later record says that the file was on the device beyond `at`.
    fn is_synced_beyond(&mut self, at: u64) -> Result<bool, Error> {
        let place = (self.reader.offset(), self.reader.sequence());
        let mut found = false;
        while !found {
            match self.reader.step().map_err(|why| Error::io(self.name, "cannot be read", why))? {
                Step::Record(record) if record.kind == kind::SYNCED => {
                    found = unpack_synced(record.body).is_ok_and(|offset| offset > at);
                }
                Step::Record(_) => {}
                Step::End => break,
                Step::Bad | Step::Misplaced => {
                    if !self.reader.skip_damage().map_err(|why| self.io(why))? {
                        break;
                    }
                }
            }
        }
        self.reader.go_to(place.0, place.1);
        Ok(found)
    }

    /// A log whose predecessor did not reach its end. That is a crash in the moment of changing
    /// from one to the other, unless a record here says that the predecessor was synced.
    fn read_behind_a_cut(&mut self) -> Result<LogRead, Error> {
        let at = self.reader.offset();
        let sequence = self.reader.sequence();
        let mut has_records = false;
        // Its sequences are not known: what was lost before it took some.
        while self.reader.skip_damage_from_here().map_err(|why| self.io(why))? {
            let step =
                self.reader.step().map_err(|why| Error::io(self.name, "cannot be read", why))?;
            let Step::Record(record) = step else { break };
            has_records = true;
            if record.kind == kind::BEGIN
                && Begin::unpack(record.body).is_ok_and(|begin| begin.previous_file_id == 0)
            {
                // Begun after the log before had failed: of use only with its snapshot.
                break;
            }
            if record.kind == kind::SYNCED {
                return Err(self.damaged(at, "the log before this one has lost its end"));
            }
        }
        self.reader.go_to(at, sequence);
        let cut_bytes = if has_records { self.reader.bytes_left() } else { 0 };
        let end = LogEnd { bytes: at, sequence: sequence - 1 };
        let ending = if has_records { Ending::Cut } else { Ending::Open };
        Ok(LogRead { ending, end, cut_bytes, last_crc: 0 })
    }
}

fn continues(begin: &Begin, sequence: u64, before: Option<(u64, u32)>) -> bool {
    let previous = (begin.previous_file_id, begin.previous_crc);
    begin.sequence == sequence && before.is_none_or(|before| before == previous)
}

fn hand_out(
    kind: u8,
    body: &[u8],
    chain: &mut Chain,
    apply: &mut dyn FnMut(Change<'_>),
) -> Result<(), Damage> {
    let change = Change::unpack(kind & !CONTINUES, body)?;
    let change = change.ok_or(Damage::new("a record of no known kind"))?;
    chain.changes += 1;
    apply(change);
    Ok(())
}
