//! Reading the records of one file in order, and telling a torn end from damage.
//!
//! Owns the judgement of a single place: a record, the end, or neither, and what lies behind it.
//! Which record belongs there is the caller's to know.

use super::Error;
use super::disk::DiskFile;
use super::record::{
    ALIGN_BYTES, BODY_BYTES_MAX, FILE_HEADER_BYTES, FileHeader, Found, Parsed, RECORD_HEADER_BYTES,
    Seed, parse, record_bytes,
};
use std::io;
use std::ops::{Deref, Range};
use std::sync::{Arc, Mutex, PoisonError};

/// A part this long of a torn write that the device never got shows as zeros.
const SECTOR_BYTES: usize = 512;
/// What a reader keeps of the file at a time.
pub const WINDOW_BYTES: usize = 1 << 20;

const _: () = assert!(WINDOW_BYTES > 2 * (RECORD_HEADER_BYTES + BODY_BYTES_MAX + ALIGN_BYTES));

/// Memory for windows, used again and again: fresh memory costs more than what is read into it.
#[derive(Debug, Clone, Default)]
pub struct Windows(Arc<Mutex<Vec<Vec<u8>>>>);

/// A part of a file in memory, which several threads can look at.
#[derive(Debug, Default)]
pub struct Window {
    bytes: Vec<u8>,
    home: Windows,
}

impl Windows {
    fn take(&self) -> Window {
        let mut spare = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        Window { bytes: spare.pop().unwrap_or_default(), home: self.clone() }
    }
}

impl Drop for Window {
    fn drop(&mut self) {
        let mut spare = self.home.0.lock().unwrap_or_else(PoisonError::into_inner);
        spare.push(std::mem::take(&mut self.bytes));
    }
}

impl Deref for Window {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.bytes
    }
}

/// A record as it was read.
#[derive(Debug, Clone)]
pub struct Record {
    /// Kind, shard, sequence.
    pub found: Found,
    /// Where it begins in the file.
    pub offset: u64,
    /// Where its body lies in the reader's window.
    pub body: Range<usize>,
}

/// What stands at the reader's place in the file.
#[derive(Debug, Clone)]
pub enum Step {
    /// A valid record.
    Record(Record),
    /// Nothing more, or zeros written ahead: the regular end.
    End,
    /// Bytes that are no valid record.
    Bad,
}

/// What follows a place that holds no valid record.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Behind {
    /// No valid record: a torn last write, or damage that cannot be told from one.
    Nothing,
    /// Valid records, but a sector before them is all zeros: parts of one unsynced write that
    /// reached the device out of order.
    AfterHole,
    /// Valid records behind a damaged one.
    Records,
}

/// See the module's text.
pub struct Reader {
    file: Arc<dyn DiskFile>,
    end: u64,
    seed: Seed,
    offset: u64,
    windows: Windows,
    window: Arc<Window>,
    window_offset: u64,
}

impl Reader {
    /// Starts at the first record.
    ///
    /// # Errors
    /// The file's size cannot be read.
    pub fn new(file: Arc<dyn DiskFile>, seed: Seed, windows: &Windows) -> io::Result<Self> {
        let end = file.len()?;
        Ok(Self {
            file,
            end,
            seed,
            offset: FILE_HEADER_BYTES as u64,
            windows: windows.clone(),
            window: Arc::default(),
            window_offset: 0,
        })
    }

    /// Goes on at another place.
    pub fn go_to(&mut self, offset: u64) {
        self.offset = offset;
    }

    /// Where the next record begins.
    pub fn offset(&self) -> u64 {
        self.offset
    }

    /// Reads no further than this offset.
    pub fn end_at(&mut self, offset: u64) {
        self.end = self.end.min(offset);
    }

    /// Bytes behind the reader's place.
    pub fn bytes_left(&self) -> u64 {
        self.end.saturating_sub(self.offset)
    }

    /// The window that the last record lies in.
    pub fn window(&self) -> &Arc<Window> {
        &self.window
    }

    /// The body of the last record.
    pub fn body(&self, record: &Record) -> &[u8] {
        &self.window[record.body.clone()]
    }

    /// The next record, if there is one.
    ///
    /// # Errors
    /// The file cannot be read.
    pub fn step(&mut self) -> io::Result<Step> {
        match self.look()? {
            Some((found, body)) => {
                let offset = self.offset;
                self.offset += record_bytes(found.body_bytes) as u64;
                Ok(Step::Record(Record { found, offset, body }))
            }
            None if self.is_zero_to_end()? => Ok(Step::End),
            None => Ok(Step::Bad),
        }
    }

    /// A valid record at the present place, and where its body lies in the window.
    fn look(&mut self) -> io::Result<Option<(Found, Range<usize>)>> {
        let mut wanted = RECORD_HEADER_BYTES;
        loop {
            let at = self.fill(wanted)?;
            match parse(&self.window[at..], self.seed) {
                Parsed::Record(found) if self.fits(&found) => {
                    let body = at + RECORD_HEADER_BYTES;
                    return Ok(Some((found, body..body + found.body_bytes)));
                }
                Parsed::Needs(bytes) if bytes > wanted && bytes as u64 <= self.bytes_left() => {
                    wanted = bytes;
                }
                _ => return Ok(None),
            }
        }
    }

    fn fits(&self, found: &Found) -> bool {
        record_bytes(found.body_bytes) as u64 <= self.bytes_left()
    }

    /// Goes on at the next valid record behind this place.
    ///
    /// # Errors
    /// The file cannot be read.
    pub fn skip_damage(&mut self) -> io::Result<bool> {
        let found = self.find_behind()?;
        self.offset = found.unwrap_or(self.offset);
        Ok(found.is_some())
    }

    /// What follows the bytes here, which are no valid record.
    ///
    /// # Errors
    /// The file cannot be read.
    pub fn behind(&mut self) -> io::Result<Behind> {
        let Some(found) = self.find_behind()? else { return Ok(Behind::Nothing) };
        let hole = self.has_zero_sector(self.offset, found)?;
        Ok(if hole { Behind::AfterHole } else { Behind::Records })
    }

    fn find_behind(&mut self) -> io::Result<Option<u64>> {
        let start = self.offset;
        let mut found = None;
        self.offset += ALIGN_BYTES as u64;
        while found.is_none() && self.bytes_left() >= RECORD_HEADER_BYTES as u64 {
            found = self.look()?.map(|_| self.offset);
            self.offset += ALIGN_BYTES as u64;
        }
        self.offset = start;
        Ok(found)
    }

    fn is_zero_to_end(&mut self) -> io::Result<bool> {
        let at = self.fill(RECORD_HEADER_BYTES)?;
        if self.window[at..].iter().take(self.bytes_left() as usize).any(|byte| *byte != 0) {
            return Ok(false);
        }
        let mut offset = self.window_offset + self.window.len() as u64;
        let mut bytes = vec![0; WINDOW_BYTES.min(self.bytes_left() as usize)];
        while offset < self.end {
            let wanted = bytes.len().min((self.end - offset) as usize);
            let count = self.file.read_at(&mut bytes[..wanted], offset)?;
            if count == 0 || bytes[..count].iter().any(|byte| *byte != 0) {
                return Ok(count == 0);
            }
            offset += count as u64;
        }
        Ok(true)
    }

    /// Bytes behind this place, without zeros at the end.
    ///
    /// # Errors
    /// The file cannot be read.
    pub fn bytes_left_before_zeros(&self) -> io::Result<u64> {
        let mut end = self.end;
        let mut bytes = vec![0; SECTOR_BYTES];
        while end > self.offset {
            let start = end.saturating_sub(SECTOR_BYTES as u64).max(self.offset);
            let count = self.file.read_at(&mut bytes[..(end - start) as usize], start)?;
            if let Some(last) = bytes[..count].iter().rposition(|byte| *byte != 0) {
                return Ok(start + last as u64 + 1 - self.offset);
            }
            end = start;
        }
        Ok(0)
    }

    /// Whether a sector in this range is all zeros; of the first one only what is in the range,
    /// which is the header of a record at least.
    fn has_zero_sector(&mut self, from: u64, to: u64) -> io::Result<bool> {
        let mut sector = [0; SECTOR_BYTES];
        let mut offset = from;
        while offset < to {
            let end = (offset + 1).next_multiple_of(SECTOR_BYTES as u64);
            let bytes = &mut sector[..(end - offset) as usize];
            let count = self.file.read_at(bytes, offset)?;
            if end <= to && bytes[..count].iter().all(|byte| *byte == 0) {
                return Ok(true);
            }
            offset = end;
        }
        Ok(false)
    }

    /// Brings so many bytes at the present offset into the window, as far as there are; answers
    /// where in it they begin.
    fn fill(&mut self, wanted: usize) -> io::Result<usize> {
        let wanted = (wanted as u64).min(self.bytes_left()) as usize;
        let at = self.offset.wrapping_sub(self.window_offset) as usize;
        let in_window = self.offset >= self.window_offset && at <= self.window.len();
        if in_window && self.window.len() - at >= wanted {
            return Ok(at);
        }
        let mut window = self.windows.take();
        window.bytes.resize(WINDOW_BYTES.min(self.bytes_left() as usize), 0);
        let count = self.file.read_at(&mut window.bytes, self.offset)?;
        window.bytes.truncate(count);
        self.window = Arc::new(window);
        self.window_offset = self.offset;
        Ok(0)
    }
}

/// Reads and checks the header of a file.
///
/// # Errors
/// It cannot be read, or is damaged.
pub fn read_header(name: &str, file: &dyn DiskFile) -> Result<FileHeader, Error> {
    let mut bytes = [0; FILE_HEADER_BYTES];
    let count =
        file.read_at(&mut bytes, 0).map_err(|why| Error::io(name, "cannot be read", why))?;
    FileHeader::unpack(&bytes[..count]).map_err(|damage| Error::of(name, 0, damage))
}
