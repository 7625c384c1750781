//! A disk in memory that does what disks do on bad days: it forgets at a power cut what was not synced, refuses a sync,
//! waits, or is full. Everything by the word of a test, and from a seed.

use std::{
    io,
    sync::{Arc, Condvar, Mutex, MutexGuard},
};

use redb::StorageBackend;

/// Clones share the disk.
#[derive(Clone, Debug, Default)]
pub struct Simulated(Arc<(Mutex<State>, Condvar)>);

#[derive(Debug, Default)]
struct State {
    /// As it is read.
    now: Vec<u8>,
    /// As it surely is after a power cut.
    safe: Vec<u8>,
    /// What was written since the last sync.
    unsynced: Vec<(usize, Vec<u8>)>,
    syncs: u64,
    /// After so many syncs more, each is refused.
    syncs_left: Option<u64>,
    /// Syncs wait until this is lifted.
    is_held: bool,
    bytes_max: Option<usize>,
    /// The power is off.
    is_off: bool,
}

/// What a disk writes whole or not at all.
const SECTOR_BYTES: usize = 512;

impl Simulated {
    pub fn of(image: Vec<u8>) -> Self {
        let disk = Simulated::default();
        disk.change(|state| (state.now, state.safe) = (image.clone(), image));
        disk
    }

    /// What is on it, as it is read.
    pub fn image(&self) -> Vec<u8> {
        self.state().now.clone()
    }

    pub fn syncs(&self) -> u64 {
        self.state().syncs
    }

    pub fn refuse_syncs_after(&self, more: u64) {
        self.change(|state| state.syncs_left = Some(more));
    }

    pub fn fill_at(&self, bytes_max: usize) {
        self.change(|state| state.bytes_max = Some(bytes_max));
    }

    pub fn hold_syncs(&self, is_held: bool) {
        self.change(|state| state.is_held = is_held);
        self.0.1.notify_all();
    }

    /// Turns the power off. What is left is what was synced, and of what was not, any sectors.
    pub fn cut_power(&self, random: &mut fastrand::Rng) -> Vec<u8> {
        let mut state = self.state();
        state.is_off = true;
        let mut left = state.safe.clone();
        for (at, bytes) in &state.unsynced {
            for (number, sector) in bytes.chunks(SECTOR_BYTES).enumerate() {
                let at = at + number * SECTOR_BYTES;
                if random.bool() && at + sector.len() <= left.len() {
                    left[at..at + sector.len()].copy_from_slice(sector);
                }
            }
        }
        drop(state);
        self.0.1.notify_all();
        left
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.0.lock().unwrap()
    }

    fn change(&self, change: impl FnOnce(&mut State)) {
        change(&mut self.state());
    }
}

impl State {
    fn check_power(&self) -> io::Result<()> {
        if self.is_off { Err(io::Error::other("the power is off")) } else { Ok(()) }
    }

    fn check_room(&self, bytes: usize) -> io::Result<()> {
        let is_full = self.bytes_max.is_some_and(|most| bytes > most);
        if is_full { Err(io::ErrorKind::StorageFull.into()) } else { Ok(()) }
    }
}

impl StorageBackend for Simulated {
    fn len(&self) -> io::Result<u64> {
        Ok(self.state().now.len() as u64)
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        let state = self.state();
        let at = offset as usize;
        let found = state.now.get(at..at + out.len()).ok_or(io::ErrorKind::UnexpectedEof)?;
        out.copy_from_slice(found);
        Ok(())
    }

    fn set_len(&self, length: u64) -> io::Result<()> {
        let mut state = self.state();
        state.check_power()?;
        state.check_room(length as usize)?;
        state.now.resize(length as usize, 0);
        // A length is a matter of the file system's own log: it may be there before a sync.
        state.safe.resize(length as usize, 0);
        Ok(())
    }

    fn sync_data(&self) -> io::Result<()> {
        let mut state = self.state();
        while state.is_held && !state.is_off {
            state = self.0.1.wait(state).unwrap();
        }
        state.check_power()?;
        if let Some(left) = &mut state.syncs_left {
            *left = left.checked_sub(1).ok_or_else(|| io::Error::other("the disk refuses to sync"))?;
        }
        state.syncs += 1;
        let unsynced = std::mem::take(&mut state.unsynced);
        for (at, bytes) in unsynced {
            if let Some(place) = state.safe.get_mut(at..at + bytes.len()) {
                place.copy_from_slice(&bytes);
            }
        }
        Ok(())
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        let mut state = self.state();
        state.check_power()?;
        let at = offset as usize;
        state.check_room(at + data.len())?;
        let place = state.now.get_mut(at..at + data.len()).ok_or(io::ErrorKind::UnexpectedEof)?;
        place.copy_from_slice(data);
        state.unsynced.push((at, data.to_vec()));
        Ok(())
    }
}
