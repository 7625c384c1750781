//! Archives: all that is agreed on in one file for an operator to keep, to look into, and to put back. It is what a
//! snapshot is (docs/formats.md), compressed. Whatever is not whole, is another's, or is newer is refused by name.

use std::io::{self, BufRead, BufReader, Read, Write};

use flate2::{Compression, bufread::GzDecoder, write::GzEncoder};
use openraft::{CommittedLeaderId, LogId, SnapshotMeta};
use serde::Serialize;

use super::{
    log::bytes_of,
    snapshot::{self, Fault},
};
use crate::catalog::{Blob, Catalog, NodeRow, Row, ServiceRow};

/// Where in the log an archive was taken, as far as the server that took it knew.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ArchiveHead {
    pub id: String,
    pub term: u64,
    /// Of the log: the archive holds this entry and all before it.
    pub index: u64,
}

/// What an archive holds, told without putting it anywhere.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ArchiveSummary {
    pub head: ArchiveHead,
    /// Of the form.
    pub version: u32,
    /// The catalog's own, which is what HTTP tells.
    pub catalog_index: u64,
    /// All there are, those without rows, too.
    pub tables: Vec<ArchiveTable>,
    /// The keys of the KV store in order, each with the bytes of its row.
    pub keys: Vec<(Blob, u64)>,
    /// Not compressed.
    pub bytes: u64,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ArchiveTable {
    pub name: &'static str,
    pub rows: u64,
    pub bytes: u64,
}

/// Why an archive cannot be read. Nothing was done with it.
#[derive(Debug, thiserror::Error)]
pub enum ArchiveError {
    #[error("failed to decompress snapshot: {0}")]
    Compression(String),
    #[error("failed to read snapshot: {0}")]
    Damaged(String),
}

/// Writes an archive. `out` should take large pieces at once.
///
/// # Errors
/// What `out` says.
pub fn write_archive(out: impl Write, head: &ArchiveHead, catalog: &Catalog) -> io::Result<()> {
    let leader = CommittedLeaderId::new(head.term, 0);
    let meta = SnapshotMeta {
        last_log_id: Some(LogId::new(leader, head.index)),
        snapshot_id: head.id.clone(),
        ..SnapshotMeta::default()
    };
    let mut out = GzEncoder::new(out, Compression::fast());
    snapshot::write(&mut out, &meta, &catalog.settled()).map_err(|fault| match fault {
        Fault::Io(error) => error,
        Fault::Damaged(fault) => io::Error::other(fault),
    })?;
    out.finish()?.flush()
}

/// Reads a whole archive, and proves that what it holds is a catalog. No more than `bytes_max` of it are taken, once it is
/// not compressed any more.
///
/// # Errors
/// The first fault.
pub fn read_archive(from: impl Read, bytes_max: u64) -> Result<(ArchiveHead, Catalog), ArchiveError> {
    let mut from = Bounded::new(from, bytes_max);
    let (meta, catalog) = snapshot::read(&mut from).map_err(ArchiveError::from)?;
    from.end()?;
    Ok((ArchiveHead::of(&meta), catalog.settled()))
}

/// Tells what an archive holds; all of it is read and tested on the way.
///
/// # Errors
/// The first fault.
pub fn inspect_archive(from: impl Read) -> Result<ArchiveSummary, ArchiveError> {
    let mut from = Bounded::new(from, u64::MAX);
    let (head, mut rows) = snapshot::open(&mut from).map_err(ArchiveError::from)?;
    let mut tables = TABLES.map(|name| ArchiveTable { name, rows: 0, bytes: 0 });
    let (mut catalog_index, mut keys) = (0, Vec::new());
    // As it is read it is put together, too: else nobody would know that its rows are of one catalog.
    let counted = (&mut rows).inspect(|row| {
        let Ok(row) = row else { return };
        if let Row::Indexes(indexes) = row {
            catalog_index = indexes.index;
        }
        if let Row::Entry(entry) = row {
            keys.push((entry.key.clone(), bytes_of(row) as u64));
        }
        for (name, rows, bytes) in contents(row) {
            if let Some(table) = tables.iter_mut().find(|table| table.name == name) {
                (table.rows, table.bytes) = (table.rows + rows as u64, table.bytes + bytes as u64);
            }
        }
    });
    Catalog::from_rows(counted).map_err(ArchiveError::from)?;
    rows.end().map_err(ArchiveError::from)?;
    drop(rows);
    from.end()?;
    Ok(ArchiveSummary {
        head: ArchiveHead::of(&head.meta),
        version: head.version,
        catalog_index,
        tables: tables.into(),
        keys,
        bytes: from.taken,
    })
}

/// As they are told of.
const TABLES: [&str; 11] = [
    "Nodes",
    "Services",
    "Checks",
    "KVS",
    "Tombstones",
    "Sessions",
    "LockDelays",
    "Coordinates",
    "PreparedQueries",
    "Autopilot",
    "Indexes",
];

/// The tables that a row is of: how many of their rows it has, and their bytes.
fn contents(row: &Row) -> Vec<(&'static str, usize, usize)> {
    fn size<T: Serialize>(rows: &[T]) -> usize {
        rows.iter().map(bytes_of).sum()
    }
    match row {
        Row::Node(NodeRow { node, checks, services, .. }) => {
            let mut all = services_of(services);
            all.push(("Nodes", 1, bytes_of(node)));
            all.push(("Checks", checks.len(), size(checks)));
            all
        }
        Row::MoreServices(services) => services_of(services),
        Row::Entry(_) => vec![("KVS", 1, bytes_of(row))],
        Row::Tombstone { .. } => vec![("Tombstones", 1, bytes_of(row))],
        Row::Session(_) => vec![("Sessions", 1, bytes_of(row))],
        Row::LockDelay { .. } => vec![("LockDelays", 1, bytes_of(row))],
        Row::Coordinate(_) => vec![("Coordinates", 1, bytes_of(row))],
        Row::Query(_) => vec![("PreparedQueries", 1, bytes_of(row))],
        Row::Autopilot(_) => vec![("Autopilot", 1, bytes_of(row))],
        Row::Indexes(_) | Row::Group { .. } => vec![("Indexes", 1, bytes_of(row))],
        // Not in an archive.
        Row::Staged { .. } => vec![],
    }
}

fn services_of(services: &[ServiceRow]) -> Vec<(&'static str, usize, usize)> {
    let checks = services.iter().flat_map(|row| &row.checks);
    let bytes = checks.clone().map(bytes_of).sum();
    vec![
        ("Services", services.len(), services.iter().map(|row| bytes_of(&row.service)).sum()),
        ("Checks", checks.count(), bytes),
    ]
}

impl ArchiveHead {
    fn of(meta: &SnapshotMeta<u64, openraft::BasicNode>) -> Self {
        let last = meta.last_log_id.unwrap_or_default();
        ArchiveHead { id: meta.snapshot_id.clone(), term: last.leader_id.term, index: last.index }
    }
}

impl From<Fault> for ArchiveError {
    fn from(fault: Fault) -> Self {
        match fault {
            Fault::Damaged(fault) => ArchiveError::Damaged(fault),
            Fault::Io(error) => ArchiveError::Compression(match error.kind() {
                io::ErrorKind::UnexpectedEof => "unexpected EOF".into(),
                io::ErrorKind::InvalidInput | io::ErrorKind::InvalidData => format!("gzip: {error}"),
                _ => error.to_string(),
            }),
        }
    }
}

/// What stands in a compressed file, as far as one lets it.
struct Bounded<R> {
    from: GzDecoder<Counted<BufReader<R>>>,
    taken: u64,
    bytes_max: u64,
}

impl<R: Read> Bounded<R> {
    fn new(from: R, bytes_max: u64) -> Self {
        let from = GzDecoder::new(Counted { from: BufReader::new(from), taken: 0 });
        Bounded { from, taken: 0, bytes_max }
    }

    /// Nothing stands behind the compressed part.
    fn end(&mut self) -> Result<(), ArchiveError> {
        match self.from.get_mut().from.fill_buf() {
            Ok([]) => Ok(()),
            Ok(_) => Err(ArchiveError::Damaged("something stands behind its end".into())),
            Err(error) => Err(Fault::Io(error).into()),
        }
    }
}

impl<R: Read> Read for Bounded<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.from.read(buffer).map_err(|error| match self.from.get_ref().taken {
            0 => io::Error::other("EOF"),
            _ => error,
        })?;
        self.taken += read as u64;
        if self.taken > self.bytes_max {
            return Err(io::Error::other(format!("it holds more than {} bytes", self.bytes_max)));
        }
        Ok(read)
    }
}

/// Knows whether anything came at all.
struct Counted<R> {
    from: R,
    taken: u64,
}

impl<R: BufRead> Read for Counted<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.from.read(buffer)?;
        self.taken += read as u64;
        Ok(read)
    }
}

impl<R: BufRead> BufRead for Counted<R> {
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        self.from.fill_buf()
    }

    fn consume(&mut self, bytes: usize) {
        self.taken += bytes as u64;
        self.from.consume(bytes);
    }
}
