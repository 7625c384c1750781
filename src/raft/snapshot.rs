//! Snapshots: a catalog at a point of the log, each in a file of its own (docs/formats.md). A file is written beside the
//! one before it under a name that nobody reads, synced, and renamed; the one before goes only then. Knows files and
//! checksums; not when a snapshot is due.

use std::{
    fs::{self, File},
    io::{self, BufReader, BufWriter, Read, Write},
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use openraft::{BasicNode, SnapshotMeta};
use serde::Deserialize;

use super::stored::{self, Damage};
use crate::catalog::{Catalog, Mismatch, Row};

type Meta = SnapshotMeta<u64, BasicNode>;

/// The folder of snapshots. One file stands there, and for a moment two. Clones share it.
#[derive(Clone, Debug)]
pub struct Snapshots {
    folder: PathBuf,
    /// Of the newest.
    bytes: Arc<AtomicU64>,
}

/// Why a snapshot is not to be had.
#[derive(Debug, thiserror::Error)]
pub enum SnapshotError {
    #[error("{path}: {error}", path = .0.display(), error = .1)]
    Io(PathBuf, io::Error),
    #[error("{path} is damaged: {fault}; expected a whole snapshot", path = .0.display(), fault = .1)]
    Damaged(PathBuf, String),
}

/// Then a version, then frames: length, checksum over number and bytes, bytes. An empty frame is the last.
const MAGIC: &[u8; 8] = b"lictsnap";
/// The first had rows of indexes, groups and nodes only.
const VERSION: u32 = 2;
/// A frame is closed when it holds this much.
const FRAME_BYTES: usize = 64 << 10;
/// How deep a row goes, pieces of a restore included; twice what there is. A row that goes on and on ends the stack.
const DEPTH_MAX: usize = 64;
const ENDING: &str = "snapshot";

/// What is gone already need not be removed.
fn remove(path: PathBuf) -> Result<(), SnapshotError> {
    match fs::remove_file(&path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(SnapshotError::Io(path, error)),
        _ => Ok(()),
    }
}

impl Snapshots {
    /// Makes the folder if it is not there, and removes what a crash left half written.
    pub fn open(folder: &Path) -> Result<Self, SnapshotError> {
        let snapshots = Snapshots { folder: folder.into(), bytes: Arc::default() };
        fs::create_dir_all(folder).map_err(|error| snapshots.io(error))?;
        for path in snapshots.files("tmp")? {
            remove(path)?;
        }
        if let Some(newest) = snapshots.files(ENDING)?.pop() {
            let metadata = fs::metadata(&newest).map_err(|error| SnapshotError::Io(newest, error))?;
            snapshots.bytes.store(metadata.len(), Ordering::Relaxed);
        }
        Ok(snapshots)
    }

    /// What the newest snapshot says.
    ///
    /// # Errors
    /// Where it cannot be read, or is not whole: nothing else may stand in for it, since the log behind it is gone.
    pub fn newest(&self) -> Result<Option<(Meta, Catalog)>, SnapshotError> {
        let Some(path) = self.files(ENDING)?.pop() else { return Ok(None) };
        let file = File::open(&path).map_err(|error| SnapshotError::Io(path.clone(), error))?;
        let read = read(BufReader::with_capacity(FRAME_BYTES, file));
        read.map(Some).map_err(|fault| fault.at(path))
    }

    /// Writes one, and returns when it is safe on disk.
    ///
    /// # Errors
    /// Where it is not: the one before stands, and nothing half written takes the room that may be missing.
    pub fn write(&self, meta: &Meta, catalog: &Catalog) -> Result<(), SnapshotError> {
        let last = meta.last_log_id.unwrap_or_default();
        let name = format!("{:020}-{}", last.index, last.leader_id.term);
        let (path, temporary) =
            (self.folder.join(format!("{name}.{ENDING}")), self.folder.join(format!("{name}.tmp")));
        let bytes = put(&temporary, &path, meta, catalog).map_err(|fault| {
            let _gone = fs::remove_file(&temporary);
            fault.at(temporary)
        })?;
        self.sync_folder()?;
        self.bytes.store(bytes, Ordering::Relaxed);
        if let Err(error) = self.remove_all_but(&path) {
            tracing::warn!(%error, "a former snapshot is not removed: the next one tries again");
        }
        Ok(())
    }

    fn remove_all_but(&self, path: &Path) -> Result<(), SnapshotError> {
        for former in self.files(ENDING)?.into_iter().filter(|former| former != path) {
            remove(former)?;
        }
        Ok(())
    }

    /// Of the newest; 0 where there is none.
    pub fn bytes(&self) -> u64 {
        self.bytes.load(Ordering::Relaxed)
    }

    /// By index, since names begin with it.
    fn files(&self, ending: &str) -> Result<Vec<PathBuf>, SnapshotError> {
        let entries = fs::read_dir(&self.folder).map_err(|error| self.io(error))?;
        let paths: io::Result<Vec<PathBuf>> = entries.map(|entry| entry.map(|entry| entry.path())).collect();
        let mut paths = paths.map_err(|error| self.io(error))?;
        paths.retain(|path| path.extension().is_some_and(|own| own == ending));
        paths.sort();
        Ok(paths)
    }

    fn sync_folder(&self) -> Result<(), SnapshotError> {
        File::open(&self.folder).and_then(|folder| folder.sync_all()).map_err(|error| self.io(error))
    }

    fn io(&self, error: io::Error) -> SnapshotError {
        SnapshotError::Io(self.folder.clone(), error)
    }
}

/// What goes wrong within a file, whose name others know.
#[derive(Debug)]
pub enum Fault {
    Io(io::Error),
    Damaged(String),
}

impl Fault {
    fn at(self, path: PathBuf) -> SnapshotError {
        match self {
            Fault::Io(error) if error.kind() == io::ErrorKind::UnexpectedEof => {
                SnapshotError::Damaged(path, "it ends before its end".into())
            }
            Fault::Io(error) => SnapshotError::Io(path, error),
            Fault::Damaged(fault) => SnapshotError::Damaged(path, fault),
        }
    }
}

impl From<io::Error> for Fault {
    fn from(error: io::Error) -> Self {
        Fault::Io(error)
    }
}

impl From<Damage> for Fault {
    fn from(damage: Damage) -> Self {
        Fault::Damaged(damage.to_string())
    }
}

impl From<Mismatch> for Fault {
    fn from(mismatch: Mismatch) -> Self {
        Fault::Damaged(mismatch.to_string())
    }
}

/// Writes it under a name that nobody reads, and gives it its own when it is safe. How many bytes it has.
fn put(temporary: &Path, path: &Path, meta: &Meta, catalog: &Catalog) -> Result<u64, Fault> {
    let mut out = BufWriter::with_capacity(FRAME_BYTES, File::create(temporary)?);
    write(&mut out, meta, catalog)?;
    let file = out.into_inner().map_err(io::IntoInnerError::into_error)?;
    file.sync_all()?;
    let bytes = file.metadata()?.len();
    fs::rename(temporary, path)?;
    Ok(bytes)
}

pub fn write(out: &mut impl Write, meta: &Meta, catalog: &Catalog) -> Result<(), Fault> {
    out.write_all(MAGIC)?;
    out.write_all(&VERSION.to_le_bytes())?;
    let mut frames = 0;
    let mut put = |bytes: &[u8], out: &mut dyn Write| {
        let length = u32::try_from(bytes.len()).map_err(io::Error::other)?;
        out.write_all(&length.to_le_bytes())?;
        out.write_all(&checksum(frames, bytes).to_le_bytes())?;
        frames += 1;
        out.write_all(bytes)
    };
    put(&stored::head_bytes(meta)?, out)?;
    let mut frame = Vec::with_capacity(2 * FRAME_BYTES);
    for row in catalog.rows() {
        rmp_serde::encode::write_named(&mut frame, &row)
            .map_err(|error| Fault::Damaged(error.to_string()))?;
        if frame.len() >= FRAME_BYTES {
            put(&frame, out)?;
            frame.clear();
        }
    }
    if !frame.is_empty() {
        put(&frame, out)?;
    }
    Ok(put(&[], out)?)
}

/// Reads a whole snapshot; anything that is not one is a fault, whatever it is.
pub fn read(from: impl Read) -> Result<(Meta, Catalog), Fault> {
    let (head, mut rows) = open(from)?;
    let catalog = Catalog::from_rows(&mut rows)?;
    rows.end()?;
    Ok((head.meta, catalog))
}

/// What stands before a snapshot's rows.
pub struct Head {
    pub version: u32,
    pub meta: Meta,
}

/// Reads as far as its rows, which are still to come.
pub fn open<R: Read>(mut from: R) -> Result<(Head, Rows<R>), Fault> {
    let mut magic = [0; MAGIC.len()];
    from.read_exact(&mut magic)?;
    if magic != *MAGIC {
        return Err(Fault::Damaged("it does not begin as a snapshot of lictor's does".into()));
    }
    let version = read_u32(&mut from)?;
    if !(1..=VERSION).contains(&version) {
        return Err(Fault::Damaged(format!(
            "it is of version {version}, and this lictor reads up to {VERSION}"
        )));
    }
    let mut frames = Frames { from, number: 0, ended: false };
    let head = frames.next_frame()?.ok_or_else(|| Fault::Damaged("it has no head".into()))?;
    let meta = stored::head(&head)?;
    Ok((Head { version, meta }, Rows { frames, frame: io::Cursor::new(Vec::new()) }))
}

struct Frames<R> {
    from: R,
    number: u32,
    ended: bool,
}

impl<R: Read> Frames<R> {
    /// `None` at the end.
    fn next_frame(&mut self) -> Result<Option<Vec<u8>>, Fault> {
        if self.ended {
            return Ok(None);
        }
        let (length, sum) = (read_u32(&mut self.from)? as usize, read_u32(&mut self.from)?);
        // A node is one row, however much is registered there; what a wrong length asks for ends with the file.
        let mut frame = Vec::new();
        (&mut self.from).take(length as u64).read_to_end(&mut frame)?;
        if frame.len() < length {
            return Err(io::Error::from(io::ErrorKind::UnexpectedEof).into());
        }
        if checksum(self.number, &frame) != sum {
            return Err(Fault::Damaged(format!(
                "the checksum of frame {} is not that of its bytes",
                self.number
            )));
        }
        self.number += 1;
        self.ended = frame.is_empty();
        Ok(Some(frame).filter(|frame| !frame.is_empty()))
    }
}

pub struct Rows<R> {
    frames: Frames<R>,
    frame: io::Cursor<Vec<u8>>,
}

impl<R: Read> Rows<R> {
    /// Once all rows were read: nothing stands behind them.
    pub fn end(&mut self) -> Result<(), Fault> {
        match self.frames.from.read(&mut [0])? {
            0 => Ok(()),
            _ => Err(Fault::Damaged("something stands behind its end".into())),
        }
    }
}

impl<R: Read> Iterator for Rows<R> {
    type Item = Result<Row, Fault>;

    fn next(&mut self) -> Option<Result<Row, Fault>> {
        if self.frame.position() as usize == self.frame.get_ref().len() {
            match self.frames.next_frame() {
                Ok(frame) => self.frame = io::Cursor::new(frame?),
                Err(fault) => return Some(Err(fault)),
            }
        }
        let mut row = rmp_serde::Deserializer::new(&mut self.frame);
        row.set_max_depth(DEPTH_MAX);
        Some(Row::deserialize(&mut row).map_err(|error| Fault::Damaged(error.to_string())))
    }
}

fn read_u32(from: &mut impl Read) -> io::Result<u32> {
    let mut bytes = [0; 4];
    from.read_exact(&mut bytes)?;
    Ok(u32::from_le_bytes(bytes))
}

pub(super) fn checksum(number: u32, bytes: &[u8]) -> u32 {
    let mut sum = crc32fast::Hasher::new();
    sum.update(&number.to_le_bytes());
    sum.update(bytes);
    sum.finalize()
}
