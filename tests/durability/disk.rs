//! A disk that exists only in memory: it can stop at any call, fail any call, and show every state
//! in which a loss of power could leave the real one.
//!
//! Files are only ever appended to, so what a crash can do to one is decided by its unsynced
//! writes: each may be there, or not (a hole of zeros if a later one is), or the last one in part.
//! Names made, changed or removed since the directory was last synced may be lost from the end.

use distcache::durable::disk::{Disk, DiskFile, Growth};
use std::collections::BTreeMap;
use std::io::{self, IoSlice};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// Devices write whole sectors.
const SECTOR_BYTES: usize = 512;

/// Zeros behind the end of a file that grows ahead.
const AHEAD_BYTES: usize = 2000;

/// Unsynced writes of which every subset is tried.
const SUBSET_WRITES: usize = 4;

/// What to do to the calls.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fault {
    /// Nothing.
    None,
    /// Every call from this one on fails: the machine has stopped.
    Stop(usize),
    /// One call fails.
    Once(usize, io::ErrorKind),
    /// All calls that change something fail from this one on, until healed.
    From(usize, io::ErrorKind),
}

#[derive(Debug, Clone, Default)]
struct Inode {
    synced: Vec<u8>,
    writes: Vec<Vec<u8>>,
    /// A sync has failed: the unsynced writes will not survive a crash.
    sync_failed: bool,
    /// Zeros are written ahead of what is appended.
    grows_ahead: bool,
}

impl Inode {
    fn bytes(&self) -> Vec<u8> {
        let mut bytes = self.synced.clone();
        bytes.extend(self.writes.iter().flatten());
        bytes
    }

    /// What a crash leaves if of the unsynced writes those in `mask` reached the device, the last
    /// of them only up to the sector boundary number `torn` within it.
    fn after_crash(&self, mask: u64, torn: Option<usize>) -> Vec<u8> {
        let writes: &[Vec<u8>] = if self.sync_failed { &[] } else { &self.writes };
        let first = writes.len().saturating_sub(SUBSET_WRITES);
        let whole = self.bytes();
        let mut end = self.synced.len();
        let mut kept_sectors = vec![false; whole.len().div_ceil(SECTOR_BYTES)];
        let mut start = end;
        for (number, write) in writes.iter().enumerate() {
            let behind = start + write.len();
            if !write.is_empty() && (number < first || mask >> (number - first) & 1 == 1) {
                // A sector goes to the device as a whole, with what other writes put there.
                kept_sectors[start / SECTOR_BYTES..behind.div_ceil(SECTOR_BYTES)].fill(true);
                end = behind;
            }
            start = behind;
        }
        let mut bytes = whole[..end].to_vec();
        for (at, byte) in bytes.iter_mut().enumerate().skip(self.synced.len()) {
            if !kept_sectors[at / SECTOR_BYTES] {
                *byte = 0;
            }
        }
        if let (Some(torn), Some(last)) = (torn, writes.last()) {
            let start = self.synced.len().max(bytes.len().saturating_sub(last.len()));
            let cut = (start / SECTOR_BYTES + torn) * SECTOR_BYTES;
            bytes.truncate(cut.clamp(start, bytes.len()));
        }
        if self.grows_ahead && !self.synced.is_empty() {
            bytes.resize(bytes.len() + AHEAD_BYTES, 0);
        }
        bytes
    }
}

#[derive(Debug, Clone)]
enum NameChange {
    Link(String, usize),
    Unlink(String),
    /// From, to.
    Rename(String, String),
}

#[derive(Debug, Clone)]
struct State {
    inodes: Vec<Inode>,
    names: BTreeMap<String, usize>,
    synced_names: BTreeMap<String, usize>,
    changes: Vec<NameChange>,
    calls: usize,
    fault: Fault,
    grows_ahead: bool,
    /// A byte of this file turns bad when it is next synced beyond it.
    rot: Option<(String, usize)>,
}

/// See the module's text.
#[derive(Clone)]
pub(crate) struct SimulatedDisk(Arc<Mutex<State>>);

struct SimulatedFile {
    disk: SimulatedDisk,
    inode: usize,
}

/// One way in which a crash can leave the disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Crash {
    /// Which of the last unsynced writes of each file are there.
    pub mask: u64,
    /// The last write is there in part.
    pub torn: Option<usize>,
    /// How many of the unsynced changes of names are lost, from the last one on.
    pub names_lost: usize,
    /// One more that is lost, whatever came after it.
    pub name_lost: Option<usize>,
    /// Each file has a mask of its own, made of that one.
    pub apart: bool,
}

impl Crash {
    /// Everything reached the device: what the end of a process leaves.
    pub(crate) const ALL: Self =
        Self { mask: !0, torn: None, names_lost: 0, name_lost: None, apart: false };
}

impl SimulatedDisk {
    /// An empty disk.
    pub(crate) fn new(fault: Fault) -> Self {
        Self(Arc::new(Mutex::new(State {
            inodes: Vec::new(),
            names: BTreeMap::new(),
            synced_names: BTreeMap::new(),
            changes: Vec::new(),
            calls: 0,
            fault,
            grows_ahead: false,
            rot: None,
        })))
    }

    /// The same disk, for logs that grow ahead.
    pub(crate) fn growing_ahead(self) -> Self {
        self.lock().grows_ahead = true;
        self
    }

    /// Whether logs are to grow ahead.
    pub(crate) fn grows_ahead(&self) -> bool {
        self.lock().grows_ahead
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Calls made so far that change something.
    pub(crate) fn calls(&self) -> usize {
        self.lock().calls
    }

    /// From here on all calls succeed, or fail as told.
    pub(crate) fn set_fault(&self, fault: Fault) {
        self.lock().fault = fault;
    }

    /// The device loses a bit of a byte of this file when that is synced.
    pub(crate) fn rot_on_sync(&self, name: &str, at: usize) {
        self.lock().rot = Some((name.to_owned(), at));
    }

    /// The number of unsynced changes of names.
    pub(crate) fn unsynced_names(&self) -> usize {
        self.lock().changes.len()
    }

    /// The disk as a crash may leave it.
    pub(crate) fn after(&self, crash: Crash) -> Self {
        let state = self.lock();
        let mut names = state.synced_names.clone();
        let kept = state.changes.len().saturating_sub(crash.names_lost);
        for (number, change) in state.changes[..kept].iter().enumerate() {
            if crash.name_lost != Some(number) {
                apply(&mut names, change);
            }
        }
        let settle = |(number, inode): (usize, &Inode)| {
            let mask = if crash.apart { mask_of(crash.mask, number) } else { crash.mask };
            Inode { synced: inode.after_crash(mask, crash.torn), ..Inode::default() }
        };
        let inodes = state.inodes.iter().enumerate().map(settle).collect();
        Self(Arc::new(Mutex::new(State {
            inodes,
            synced_names: names.clone(),
            names,
            changes: Vec::new(),
            calls: 0,
            fault: Fault::None,
            grows_ahead: state.grows_ahead,
            rot: None,
        })))
    }

    /// The disk as a loss of power may leave it: of one file nothing that was not synced is there,
    /// of all others everything.
    pub(crate) fn after_losing(&self, name: &str) -> Self {
        let disk = self.copy();
        {
            let mut state = disk.lock();
            let inode = state.names[name];
            state.inodes[inode].writes.clear();
        }
        disk.after(Crash::ALL)
    }

    /// Every way in which a crash now can leave the disk.
    pub(crate) fn crashes(&self) -> Vec<Crash> {
        let names = self.unsynced_names();
        let mut crashes = Vec::new();
        for names_lost in 0..=names {
            for mask in 0..1 << SUBSET_WRITES {
                crashes.push(Crash { mask, names_lost, ..Crash::ALL });
            }
            let torn = (0..3).map(|torn| Crash { torn: Some(torn), names_lost, ..Crash::ALL });
            crashes.extend(torn);
        }
        for number in 0..names {
            let name_lost = Some(number);
            crashes.push(Crash { name_lost, ..Crash::ALL });
            crashes.push(Crash { mask: 0, name_lost, ..Crash::ALL });
        }
        crashes
    }

    /// The names of the files.
    pub(crate) fn names(&self) -> Vec<String> {
        self.lock().names.keys().cloned().collect()
    }

    /// The bytes of a file.
    pub(crate) fn contents(&self, name: &str) -> Vec<u8> {
        let state = self.lock();
        state.inodes[state.names[name]].bytes()
    }

    /// Puts a file in place, durably.
    pub(crate) fn put(&self, name: &str, bytes: Vec<u8>) {
        let mut state = self.lock();
        let inode = state.inodes.len();
        state.inodes.push(Inode { synced: bytes, ..Inode::default() });
        state.names.insert(name.to_owned(), inode);
        state.synced_names.insert(name.to_owned(), inode);
    }

    /// A disk of its own with the same files.
    pub(crate) fn copy(&self) -> Self {
        Self(Arc::new(Mutex::new(self.lock().clone())))
    }

    /// Counts a call that changes something, and says whether it fails.
    fn call(&self) -> io::Result<MutexGuard<'_, State>> {
        let mut state = self.lock();
        let call = state.calls;
        state.calls += 1;
        let error = match state.fault {
            Fault::Stop(at) if call >= at => Some(io::ErrorKind::Other),
            Fault::Once(at, kind) if call == at => Some(kind),
            Fault::From(at, kind) if call >= at => Some(kind),
            _ => None,
        };
        match error {
            Some(kind) => Err(kind.into()),
            None => Ok(state),
        }
    }

    fn change_name(&self, change: NameChange) -> io::Result<()> {
        let mut state = self.call()?;
        apply(&mut state.names, &change);
        state.changes.push(change);
        Ok(())
    }
}

/// Some mask for one file of several.
fn mask_of(mask: u64, inode: usize) -> u64 {
    (mask + 1).wrapping_mul(0x9E37_79B9_7F4A_7C15).wrapping_mul(2 * inode as u64 + 1) >> 60
}

fn apply(names: &mut BTreeMap<String, usize>, change: &NameChange) {
    match change {
        NameChange::Link(name, inode) => _ = names.insert(name.clone(), *inode),
        NameChange::Unlink(name) => _ = names.remove(name),
        NameChange::Rename(from, to) => {
            if let Some(inode) = names.remove(from) {
                names.insert(to.clone(), inode);
            }
        }
    }
}

impl Disk for SimulatedDisk {
    fn create(&self, name: &str, growth: Growth) -> io::Result<Arc<dyn DiskFile>> {
        let inode = {
            let mut state = self.call()?;
            let inode = state.inodes.len();
            let grows_ahead = growth == Growth::Ahead;
            state.inodes.push(Inode { grows_ahead, ..Inode::default() });
            let change = NameChange::Link(name.to_owned(), inode);
            apply(&mut state.names, &change);
            state.changes.push(change);
            inode
        };
        Ok(Arc::new(SimulatedFile { disk: self.clone(), inode }))
    }

    fn open(&self, name: &str) -> io::Result<Arc<dyn DiskFile>> {
        let inode = self.lock().names.get(name).copied();
        let inode = inode.ok_or(io::ErrorKind::NotFound)?;
        Ok(Arc::new(SimulatedFile { disk: self.clone(), inode }))
    }

    fn list(&self) -> io::Result<Vec<String>> {
        Ok(self.names())
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        if !self.lock().names.contains_key(from) {
            return Err(io::ErrorKind::NotFound.into());
        }
        self.change_name(NameChange::Rename(from.to_owned(), to.to_owned()))
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        if !self.lock().names.contains_key(name) {
            return Err(io::ErrorKind::NotFound.into());
        }
        self.change_name(NameChange::Unlink(name.to_owned()))
    }

    fn sync_directory(&self) -> io::Result<()> {
        let mut state = self.call()?;
        state.changes.clear();
        state.synced_names = state.names.clone();
        Ok(())
    }

    fn free_bytes(&self) -> io::Result<u64> {
        // Enough for everything.
        Ok(u64::MAX)
    }
}

impl DiskFile for SimulatedFile {
    fn append(&self, slices: &[IoSlice<'_>]) -> io::Result<usize> {
        let bytes: Vec<u8> = slices.iter().flat_map(|slice| slice.iter().copied()).collect();
        match self.disk.call() {
            Ok(mut state) => {
                state.inodes[self.inode].writes.push(bytes.clone());
                Ok(bytes.len())
            }
            // A full disk takes a part first.
            Err(error) if error.kind() == io::ErrorKind::StorageFull && bytes.len() > 8 => {
                let part = bytes[..bytes.len() / 2].to_vec();
                let count = part.len();
                self.disk.lock().inodes[self.inode].writes.push(part);
                Ok(count)
            }
            Err(error) => Err(error),
        }
    }

    fn sync(&self) -> io::Result<()> {
        match self.disk.call() {
            Ok(mut state) => {
                let named = |state: &State, name: &String| state.names.get(name).copied();
                let is_here = state.rot.as_ref().map(|(name, _)| named(&state, name));
                let rot = state.rot.take_if(|_| is_here == Some(Some(self.inode)));
                let inode = &mut state.inodes[self.inode];
                if inode.sync_failed {
                    // The kernel has dropped what it could not write, and reports success.
                    return Ok(());
                }
                let writes = std::mem::take(&mut inode.writes);
                inode.synced.extend(writes.into_iter().flatten());
                match rot {
                    Some((_, at)) if at < inode.synced.len() => inode.synced[at] ^= 4,
                    Some(rot) => state.rot = Some(rot),
                    None => {}
                }
                Ok(())
            }
            Err(error) => {
                let mut state = self.disk.lock();
                // A machine that has stopped has not tried.
                let stopped = matches!(state.fault, Fault::Stop(_));
                state.inodes[self.inode].sync_failed |= !stopped;
                Err(error)
            }
        }
    }

    fn read_at(&self, into: &mut [u8], offset: u64) -> io::Result<usize> {
        let state = self.disk.lock();
        let inode = &state.inodes[self.inode];
        if inode.writes.is_empty() {
            return Ok(copy_from(&inode.synced, into, offset));
        }
        Ok(copy_from(&inode.bytes(), into, offset))
    }

    fn len(&self) -> io::Result<u64> {
        let state = self.disk.lock();
        let inode = &state.inodes[self.inode];
        Ok((inode.synced.len() + inode.writes.iter().map(Vec::len).sum::<usize>()) as u64)
    }
}

fn copy_from(bytes: &[u8], into: &mut [u8], offset: u64) -> usize {
    let rest = usize::try_from(offset).ok().and_then(|at| bytes.get(at..)).unwrap_or(&[]);
    let count = rest.len().min(into.len());
    into[..count].copy_from_slice(&rest[..count]);
    count
}
