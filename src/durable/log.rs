//! The file being written: records of all shards, and a few of its own, one behind the other.
//!
//! Owns the place where the log ends. Used by one thread at a time (`committer`), and holds what it
//! has taken from journals and not yet written: large values go in pieces.
//!
//! **Invariant:** a file with a failed write or sync is never written again: the kernel may have
//! dropped what it could not write, and would report success the next time (Rebello et al., "Can
//! applications recover from fsync failures?", USENIX ATC 2020).

use super::Error;
use super::change::{Begin, Begun, Mark, kind};
use super::directory::{self, Random, log_name};
use super::disk::{Disk, DiskFile, Growth};
use super::identity::Identity;
use super::journal::{Batch, Journal};
use super::record::{
    FILE_HEADER_BYTES, FileHeader, FileKind, NO_SHARD, Place, RECORD_HEADER_BYTES, Seed, frame,
    push_record,
};
use crate::limits::SEGMENT_BYTES_MIN;
use crate::store::Ticks;
use bytes::Bytes;
use std::io::{self, IoSlice};
use std::ops::Range;
use std::sync::Arc;

/// Segment sequences for tokens that each file grants beyond those used before: those of a gibibyte
/// of changes in the smallest segments.
pub const TOKENS_GRANTED: u64 = 1 << 16;

/// A file of this size is followed by another one.
pub const LOG_FILE_BYTES: u64 = 256 << 20;

const _: () = assert!(TOKENS_GRANTED * SEGMENT_BYTES_MIN as u64 >= 4 * LOG_FILE_BYTES);

/// Memory for the records of a shard that is kept for the next ones.
const ENCODED_BYTES_KEPT: usize = 64 << 10;

/// Slices in one call: the system takes 1024.
const SLICES_MAX: usize = 512;

/// How often the log notes the time, while something is written.
const MARK_INTERVAL: Ticks = Ticks(Ticks::PER_SECOND);

/// A file that the log can go on in: made and synced, with nothing in it but its header.
pub struct NextLog {
    name: String,
    header: FileHeader,
    file: Arc<dyn DiskFile>,
}

impl NextLog {
    /// Makes one. It stands for nothing before it is begun.
    ///
    /// # Errors
    /// The system refused.
    pub fn make(
        disk: &dyn Disk,
        identity: &Identity,
        number: u64,
        predecessor: (u64, u64),
        growth: Growth,
        random: &mut Random,
    ) -> Result<Self, Error> {
        let name = log_name(number);
        let file_id = random().map_err(|why| Error::io(&name, "no random number", why))?;
        let header = FileHeader {
            kind: FileKind::Log,
            directory_id: identity.directory_id,
            file_id,
            number,
            hash_secret: identity.hash_secret,
            shards: identity.shards,
            predecessor,
        };
        let file = directory::create(disk, &name, &header, growth)?;
        Ok(Self { name, header, file })
    }

    /// In place of one that could not be made: nothing can be written to it.
    pub fn none(identity: &Identity, predecessor: (u64, u64)) -> Self {
        let header = FileHeader {
            kind: FileKind::Log,
            directory_id: identity.directory_id,
            file_id: predecessor.1,
            number: predecessor.0,
            hash_secret: identity.hash_secret,
            shards: identity.shards,
            predecessor,
        };
        Self { name: "no log".to_owned(), header, file: Arc::new(NoFile) }
    }

    /// Its number.
    pub fn number(&self) -> u64 {
        self.header.number
    }

    /// The file.
    pub fn file(&self) -> &Arc<dyn DiskFile> {
        &self.file
    }

    /// Writes what it begins with.
    ///
    /// # Errors
    /// Those of the system.
    pub fn begin(&self, begin: &Begin) -> io::Result<u64> {
        let mut record = Vec::new();
        let seed = Seed::of(self.header.directory_id);
        push_record(&mut record, seed, own_place(1), kind::BEGIN, &[&begin.pack()]);
        super::disk::append_all(&*self.file, &record)?;
        Ok((FILE_HEADER_BYTES + record.len()) as u64)
    }
}

/// A file that could not be made.
struct NoFile;

impl DiskFile for NoFile {
    fn append(&self, _: &[IoSlice<'_>]) -> io::Result<usize> {
        Err(io::ErrorKind::NotFound.into())
    }

    fn sync(&self) -> io::Result<()> {
        Err(io::ErrorKind::NotFound.into())
    }

    fn read_at(&self, _: &mut [u8], _: u64) -> io::Result<usize> {
        Ok(0)
    }

    fn len(&self) -> io::Result<u64> {
        Ok(0)
    }
}

fn own_place(sequence: u64) -> Place {
    Place { shard: NO_SHARD, sequence }
}

/// Records of a shard that were taken.
#[derive(Default)]
struct Pending {
    batch: Batch,
    /// How much of its encoded bytes is written.
    written_bytes: usize,
}

/// What one call of the system is to write, in order.
enum Part {
    Encoded(usize, Range<usize>),
    Piece { header: [u8; RECORD_HEADER_BYTES], body: Bytes, padding: &'static [u8] },
}

/// See the module's text.
pub struct Log {
    seed: Seed,
    current: NextLog,
    /// Where the present file begins in the log as a whole, and where that ends.
    file_position: u64,
    position: u64,
    /// Sequence of the log's own last record; its own records that wait to be written.
    own_sequence: u64,
    own: Vec<u8>,
    pending: Vec<Pending>,
    /// The last record of each shard in the log.
    sequences: Vec<u64>,
    /// Records of shards are in the present file.
    holds_changes: bool,
    marked: Mark,
    /// Records that are taken from here on were made after this.
    taken_since: Ticks,
    token_ceiling: u64,
    parts: Vec<Part>,
    /// The shard that is written first.
    first: usize,
}

impl Log {
    /// The log of a run, in a file that is begun already.
    pub fn new(current: NextLog, begin: &Begin, begin_bytes: u64) -> Self {
        let pending = begin.sequences.iter().map(|_| Pending::default()).collect();
        Self {
            seed: Seed::of(current.header.directory_id),
            current,
            file_position: begin.position,
            position: begin.position + begin_bytes,
            own_sequence: 1,
            own: Vec::new(),
            pending,
            sequences: begin.sequences.clone(),
            holds_changes: false,
            marked: Mark { synced: begin.position + begin_bytes, time: begin.time },
            taken_since: begin.time,
            token_ceiling: begin.token_ceiling,
            parts: Vec::new(),
            first: 0,
        }
    }

    /// The present file.
    pub fn current(&self) -> &NextLog {
        &self.current
    }

    /// The name of the present file.
    pub fn name(&self) -> &str {
        &self.current.name
    }

    /// The present file, as the header of the next one names it.
    pub fn as_predecessor(&self) -> (u64, u64) {
        (self.current.header.number, self.current.header.file_id)
    }

    /// Where the log as a whole ends.
    pub fn position(&self) -> u64 {
        self.position
    }

    /// Where the present file begins in it.
    pub fn file_position(&self) -> u64 {
        self.file_position
    }

    /// Whether there are changes in the present file.
    pub fn holds_changes(&self) -> bool {
        self.holds_changes
    }

    /// The next file grants tokens beyond this segment sequence, which stores have come to.
    pub fn note_tokens(&mut self, sequence_now: u64) {
        self.token_ceiling = self.token_ceiling.max(sequence_now + TOKENS_GRANTED);
    }

    /// Takes the records of a shard.
    pub fn take(&mut self, shard: usize, journal: &mut Journal, synced: u64) {
        journal.take(&mut self.pending[shard].batch, synced);
    }

    /// Drops what was taken and not written.
    pub fn discard(&mut self) {
        self.pending.iter_mut().for_each(|pending| *pending = Pending::default());
        self.own.clear();
    }

    /// Whether something was taken and not written.
    pub fn has_pending(&self) -> bool {
        !self.own.is_empty() || self.pending.iter().any(|pending| !pending.batch.is_empty())
    }

    fn push_own(&mut self, kind: u8, body: &[u8]) {
        self.own_sequence += 1;
        push_record(&mut self.own, self.seed, own_place(self.own_sequence), kind, &[body]);
    }

    /// Notes that a snapshot counts.
    pub fn note_snapshot(&mut self, number: u64) {
        self.push_own(kind::SNAPSHOT, &number.to_le_bytes());
    }

    /// Tells later readers what was on the device when this was written, and a time that was over
    /// when what follows was done: after records were taken last.
    fn mark(&mut self, synced: u64) {
        let synced = synced.max(self.marked.synced);
        let time = self.taken_since;
        let is_due = synced > self.marked.synced || time.0 >= self.marked.time.0 + MARK_INTERVAL.0;
        if is_due {
            self.marked = Mark { synced, time };
            self.push_own(kind::MARK, &self.marked.pack());
        }
    }

    /// Writes what was taken; of large values so many bytes. Answers the shards whose records have
    /// come further. The log is on the device up to `synced`; `now` is when taking began.
    ///
    /// # Errors
    /// Those of the system. Nothing more may be written to this file.
    pub fn write(
        &mut self,
        mut large_bytes: usize,
        synced: u64,
        now: Ticks,
    ) -> io::Result<Vec<(usize, u64)>> {
        if !self.has_pending() {
            return Ok(Vec::new());
        }
        self.mark(synced);
        self.taken_since = self.taken_since.max(now);
        let mut moved = Vec::new();
        // From another shard on each time: large values of one do not keep others' waiting.
        self.first = (self.first + 1) % self.pending.len();
        for shard in (self.first..self.pending.len()).chain(0..self.first) {
            if self.pending[shard].batch.is_empty() {
                continue;
            }
            self.plan(shard, &mut large_bytes);
            let Pending { batch, .. } = &self.pending[shard];
            let sequence = batch.large.front().map_or(batch.sequence, |large| large.sequence - 1);
            self.sequences[shard] = sequence;
            moved.push((shard, sequence));
        }
        self.append()?;
        self.holds_changes |= !moved.is_empty();
        for (shard, _) in &moved {
            let Pending { batch, written_bytes } = &mut self.pending[*shard];
            if batch.large.is_empty() {
                batch.encoded.clear();
                // One burst does not stay for ever.
                batch.encoded.shrink_to(ENCODED_BYTES_KEPT);
                *written_bytes = 0;
            }
        }
        Ok(moved)
    }

    /// Notes what of a shard is to be written now.
    fn plan(&mut self, shard: usize, large_bytes: &mut usize) {
        let Pending { batch, written_bytes } = &mut self.pending[shard];
        loop {
            let until = batch.large.front().map_or(batch.encoded.len(), |large| large.at);
            if *written_bytes < until {
                self.parts.push(Part::Encoded(shard, *written_bytes..until));
                *written_bytes = until;
            }
            let Some(large) = batch.large.front_mut().filter(|_| *large_bytes > 0) else { return };
            let (kind, body) = large.next_piece();
            let place = Place { shard: shard as u16, sequence: large.sequence };
            let (header, padding) = frame(self.seed, place, kind, &body);
            *large_bytes = large_bytes.saturating_sub(body.len());
            large.rest = large.rest.slice(body.len()..);
            large.sequence += 1;
            if large.rest.is_empty() {
                batch.large.pop_front();
            }
            self.parts.push(Part::Piece { header, body, padding });
        }
    }

    /// Writes the log's own records and what was planned.
    fn append(&mut self) -> io::Result<()> {
        let mut slices: Vec<&[u8]> = vec![&self.own];
        for part in &self.parts {
            match part {
                Part::Encoded(shard, range) => {
                    slices.push(&self.pending[*shard].batch.encoded[range.clone()]);
                }
                Part::Piece { header, body, padding } => {
                    slices.extend([header, &body[..], padding])
                }
            }
        }
        let written = append_slices(&*self.current.file, &slices);
        drop(slices);
        self.own.clear();
        self.parts.clear();
        self.position += written?;
        Ok(())
    }

    /// Goes on in another file; large values may go on in the middle.
    ///
    /// # Errors
    /// Those of the system. Neither file may be written then.
    pub fn roll(&mut self, next: NextLog) -> io::Result<()> {
        self.push_own(kind::END, &next.number().to_le_bytes());
        self.append()?;
        self.begin(next, Begun::Roll, self.sequences.clone())
    }

    /// Goes on in another file after the present one has failed. What it holds counts only with a
    /// snapshot that is begun with it.
    ///
    /// # Errors
    /// Those of the system; as before then.
    pub fn begin_afresh(&mut self, next: NextLog, sequences: Vec<u64>) -> io::Result<()> {
        self.discard();
        self.begin(next, Begun::Afresh, sequences)
    }

    fn begin(&mut self, next: NextLog, how: Begun, sequences: Vec<u64>) -> io::Result<()> {
        let begin = Begin {
            how,
            position: self.position,
            time: self.taken_since,
            token_ceiling: self.token_ceiling,
            sequences,
        };
        let bytes = next.begin(&begin)?;
        self.file_position = self.position;
        self.position += bytes;
        self.current = next;
        self.own_sequence = 1;
        self.sequences = begin.sequences;
        self.holds_changes = false;
        self.marked.time = begin.time;
        Ok(())
    }
}

/// Writes slices one behind the other at the end of a file; answers how many bytes.
fn append_slices(file: &dyn DiskFile, slices: &[&[u8]]) -> io::Result<u64> {
    let total: usize = slices.iter().map(|slice| slice.len()).sum();
    let mut done = 0;
    let mut rest: Vec<&[u8]> = slices.iter().copied().filter(|slice| !slice.is_empty()).collect();
    let mut first = 0;
    while done < total {
        let until = rest.len().min(first + SLICES_MAX);
        let vectors: Vec<IoSlice<'_>> =
            rest[first..until].iter().map(|it| IoSlice::new(it)).collect();
        let mut count = match file.append(&vectors) {
            Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
            Err(why) if why.kind() == io::ErrorKind::Interrupted => 0,
            other => other?,
        };
        done += count;
        while first < rest.len() && count >= rest[first].len() {
            count -= rest[first].len();
            first += 1;
        }
        if count > 0 {
            rest[first] = &rest[first][count..];
        }
    }
    Ok(total as u64)
}
