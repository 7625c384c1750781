//! The files of the zones: which there are, what each said when it was last right, and whether any has changed since.
//! The rim of this room: here files are read, and nothing waits.

use std::{
    collections::BTreeMap,
    fmt, fs,
    io::{self, Read as _},
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
    sync::Arc,
    time::SystemTime,
};

use super::{
    Fault, Opened, Served, StaticZones,
    lex::At,
    master,
    zone::{Zone, key_in, shown},
};
use crate::dns::wire::name_of;

/// Of a zone, over all its files.
const BYTES_MAX: u64 = 64 << 20;
/// In all directories together.
const FILES_MAX: usize = 4096;

/// The zones of an operator's files.
#[derive(Default)]
pub struct ZoneFiles {
    held: BTreeMap<PathBuf, Held>,
    /// What was there when the files were last read.
    seen: Seen,
    /// What was there when they were last looked at.
    looked: Seen,
}

/// Every file that matters, and how it looked; `None` where there is none.
type Seen = BTreeMap<PathBuf, Option<Stamp>>;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Stamp {
    modified: Option<SystemTime>,
    bytes: u64,
    file: (u64, u64),
}

/// One file's zone.
struct Held {
    name: Option<Vec<u8>>,
    served: Served,
    /// The file and all that it includes.
    reads: Seen,
}

/// What came of reading, for the log.
#[derive(Debug)]
pub enum Told {
    Fault(Fault),
    /// A file with faults: its zone stays as it was read before.
    Kept(Arc<str>, String),
    /// A file with faults whose zone was never right.
    Unserved(Arc<str>, Option<String>),
    Loaded {
        file: Arc<str>,
        zone: Arc<Zone>,
    },
    Removed(Arc<str>, String),
}

impl ZoneFiles {
    /// Looks at the files that `paths` name: whether they have changed since they were read, and not since the last
    /// look, so that nothing is read while it is being written.
    pub fn have_changed(&mut self, paths: &[PathBuf]) -> bool {
        let listed = list(paths).files;
        let included = self.held.values().flat_map(|held| held.reads.keys());
        let now: Seen = listed.iter().chain(included).map(|path| (path.clone(), stamp(path))).collect();
        let settled = now == self.looked;
        self.looked = now;
        settled && self.looked != self.seen
    }

    /// Reads the files that `paths` name: those that have changed, or all. A file with faults keeps the zone that it
    /// had; a file that is gone takes its zone along. No zone may be one of `domains` or lie in one.
    pub fn read(&mut self, paths: &[PathBuf], domains: &[&str], all: bool) -> Vec<Told> {
        let Listed { files, faults } = list(paths);
        let mut told: Vec<Told> = faults.iter().map(|(_, fault)| Told::Fault(fault.clone())).collect();
        let unseen = |path: &Path| faults.iter().any(|(directory, _)| path.parent() == Some(directory));
        let gone = self.held.keys().filter(|path| !files.contains(path) && !unseen(path));
        for path in gone.cloned().collect::<Vec<_>>() {
            if let Some(Held { name: Some(name), .. }) = self.held.remove(&path) {
                told.push(Told::Removed(display(&path), shown(&name)));
            }
        }
        let same = |held: &Held| held.reads.iter().all(|(path, seen)| stamp(path) == *seen);
        let changed = files.iter().filter(|path| all || !self.held.get(*path).is_some_and(same));
        let read: Vec<_> = changed.map(|path| (path, open_zone(path))).collect();
        // Files may have changed places: none stands in the way of another as it was.
        let right = read.iter().filter(|(_, (read, _))| read.zone.is_ok());
        let mut before: BTreeMap<&PathBuf, Held> =
            right.filter_map(|(path, _)| Some((*path, self.held.remove(*path)?))).collect();
        for (path, (read, reads)) in read {
            let before = before.remove(path).or_else(|| self.held.remove(path));
            self.place(path, (read, reads), before, domains, &mut told);
        }
        self.seen = self.held.values().flat_map(|held| held.reads.clone()).collect();
        told
    }

    /// What is served, with the zones that are built in or without.
    pub fn zones(&self, builtin: bool) -> StaticZones {
        let named =
            self.held.values().filter_map(|held| Some((held.name.as_deref()?.into(), held.served.clone())));
        StaticZones::new(named, builtin)
    }

    fn place(
        &mut self,
        path: &Path,
        (read, reads): (master::Read, Seen),
        before: Option<Held>,
        domains: &[&str],
        told: &mut Vec<Told>,
    ) {
        let file = display(path);
        let mut found = read.zone;
        if let (Some((name, place)), Ok(_)) = (&read.name, &found)
            && let Some(text) = self.misplaced(path, name, domains)
        {
            found = Err(vec![Fault { file: place.0.clone(), at: place.1, text }]);
        }
        let held = match found {
            Ok(zone) => {
                let zone = Arc::new(zone);
                told.push(Told::Loaded { file, zone: zone.clone() });
                Held { name: Some(zone.name.to_vec()), served: Some(zone), reads }
            }
            Err(faults) => {
                told.extend(faults.into_iter().map(Told::Fault));
                match before {
                    Some(Held { name: Some(name), served: Some(zone), .. })
                        if self.misplaced(path, &name, domains).is_none() =>
                    {
                        told.push(Told::Kept(file, shown(&name)));
                        Held { name: Some(name), served: Some(zone), reads }
                    }
                    _ => {
                        let name = read.name.map(|(name, _)| name);
                        let name = name.filter(|name| self.misplaced(path, name, domains).is_none());
                        told.push(Told::Unserved(file, name.as_deref().map(shown)));
                        Held { name, served: None, reads }
                    }
                }
            }
        };
        self.held.insert(path.into(), held);
    }

    /// Why a zone of this name cannot be served from this file.
    fn misplaced(&self, path: &Path, name: &[u8], domains: &[&str]) -> Option<String> {
        let within = |domain: &&&str| {
            name_of(domain).is_some_and(|zone| key_in(name, &[&zone[..], &[0]].concat()).is_some())
        };
        if let Some(domain) = domains.iter().find(within) {
            return Some(format!(
                "the zone {} is, or lies in, {domain}, which the catalog answers; expected a zone outside it or above",
                shown(name)
            ));
        }
        let other =
            self.held.iter().find(|(other, held)| *other != path && held.name.as_deref() == Some(name));
        other.map(|(other, _)| {
            format!(
                "the zone {} stands in {} already; expected one file for it",
                shown(name),
                other.display()
            )
        })
    }
}

struct Listed {
    files: Vec<PathBuf>,
    /// Directories that cannot be read: what was in them stays.
    faults: Vec<(PathBuf, Fault)>,
}

/// The files themselves, and all `*.zone` of the directories, by name.
fn list(paths: &[PathBuf]) -> Listed {
    let mut listed = Listed { files: Vec::new(), faults: Vec::new() };
    for path in paths {
        if !path.is_dir() {
            if stamp(path).is_some() {
                listed.files.push(path.clone());
            }
            continue;
        }
        match list_directory(path) {
            Ok(mut files) => listed.files.append(&mut files),
            Err(error) => {
                let fault = Fault { file: display(path), at: At::default(), text: error.to_string() };
                listed.faults.push((path.clone(), fault));
            }
        }
    }
    listed.files.sort();
    listed.files.dedup();
    listed
}

fn list_directory(directory: &Path) -> io::Result<Vec<PathBuf>> {
    let mut files = Vec::new();
    for entry in fs::read_dir(directory)? {
        let path = entry?.path();
        let hidden = path.file_name().is_some_and(|name| name.as_encoded_bytes().starts_with(b"."));
        if path.extension().is_some_and(|extension| extension == "zone") && !hidden && path.is_file() {
            files.push(path);
        }
        if files.len() > FILES_MAX {
            return Err(io::Error::other(format!("more than {FILES_MAX} zone files")));
        }
    }
    Ok(files)
}

fn stamp(path: &Path) -> Option<Stamp> {
    let found = fs::metadata(path).ok()?;
    Some(Stamp { modified: found.modified().ok(), bytes: found.len(), file: (found.dev(), found.ino()) })
}

/// A file, read, and every file that had a part in it.
fn open_zone(path: &Path) -> (master::Read, Seen) {
    let mut reads = Seen::from([(path.into(), stamp(path))]);
    let mut left = BYTES_MAX;
    let root = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let text = match read_file(path, &mut left) {
        Ok(text) => text,
        Err(text) => {
            let fault = Fault { file: display(path), at: At::default(), text };
            return (master::Read { zone: Err(vec![fault]), name: None }, reads);
        }
    };
    let mut open = |file: &str, word: &str| {
        let path = Path::new(file).parent().unwrap_or(Path::new("")).join(word);
        reads.insert(path.clone(), stamp(&path));
        let inside =
            |path: &Path| Ok::<bool, io::Error>(path.canonicalize()?.starts_with(root.canonicalize()?));
        match inside(&path) {
            Ok(true) => {}
            Ok(false) => return Err(format!("it is outside {}; expected a file within", root.display())),
            Err(error) => return Err(error.to_string()),
        }
        Ok(Opened { text: read_file(&path, &mut left)?, file: display(&path) })
    };
    let origin = path.file_name().and_then(|name| master::origin_of(name.to_str()?));
    let read = master::read(display(path), &text, origin, &mut open);
    (read, reads)
}

/// What is no regular file might have no end.
fn read_file(path: &Path, left: &mut u64) -> Result<Vec<u8>, String> {
    let found = fs::metadata(path).map_err(|error| error.to_string())?;
    if !found.is_file() {
        return Err("not a regular file".into());
    }
    let mut text = Vec::new();
    let file = fs::File::open(path).map_err(|error| error.to_string())?;
    file.take(*left + 1).read_to_end(&mut text).map_err(|error| error.to_string())?;
    *left = left.checked_sub(text.len() as u64).ok_or_else(|| {
        format!("more than {BYTES_MAX} bytes; expected at most so many for a zone and what it includes")
    })?;
    Ok(text)
}

fn display(path: &Path) -> Arc<str> {
    path.display().to_string().into()
}

impl Told {
    /// Whether somebody has to look after it.
    pub fn is_fault(&self) -> bool {
        matches!(self, Told::Fault(_) | Told::Kept(..) | Told::Unserved(..))
    }
}

impl fmt::Display for Told {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Told::Fault(fault) => write!(f, "{fault}"),
            Told::Kept(file, zone) => {
                write!(f, "{file}: has faults; the zone {zone} stays as it was read before")
            }
            Told::Unserved(file, Some(zone)) => {
                write!(f, "{file}: has faults; names in {zone} are SERVFAIL until they are gone")
            }
            Told::Unserved(file, None) => write!(f, "{file}: has faults; it is not served"),
            Told::Loaded { file, zone } => {
                let (name, serial, records) = (shown(&zone.name), zone.serial, zone.records);
                write!(f, "{file}: serving the zone {name}, serial {serial}, {records} records")
            }
            Told::Removed(file, zone) => write!(f, "{file}: is gone, and the zone {zone} with it"),
        }
    }
}
