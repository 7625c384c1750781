//! What is free on the disk, so that a full one is found before it is hit: a log that cannot be written to its end is
//! worse than one that takes no more.

use std::{fmt, path::PathBuf};

use nix::sys::statvfs::statvfs;

/// The disk that a folder is on, and what must stay free there.
pub struct Space {
    folder: PathBuf,
    free_bytes_min: u64,
    free: Box<dyn Fn() -> Option<u64> + Send + Sync>,
}

impl Space {
    pub fn of(folder: PathBuf, free_bytes_min: u64) -> Self {
        let asked = folder.clone();
        // Of a disk that does not say it, nothing is assumed.
        let free = move || statvfs(&asked).ok().map(|disk| disk.blocks_available() * disk.fragment_size());
        Space { folder, free_bytes_min, free: Box::new(free) }
    }

    #[cfg(test)]
    pub fn simulated(free_bytes_min: u64, free: impl Fn() -> u64 + Send + Sync + 'static) -> Self {
        Space { folder: PathBuf::from("simulated"), free_bytes_min, free: Box::new(move || Some(free())) }
    }

    /// Whether less than the least would be free after writing so much.
    pub fn is_short_of(&self, bytes: u64) -> bool {
        (self.free)().is_some_and(|free| free < self.free_bytes_min.saturating_add(bytes))
    }
}

impl fmt::Display for Space {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let free = (self.free)().unwrap_or(0);
        write!(f, "{}: {free} bytes are free, and {} must be", self.folder.display(), self.free_bytes_min)
    }
}
