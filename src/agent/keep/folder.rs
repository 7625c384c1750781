//! The files of what was registered, a file for each thing that changes as one: read at start, written before whoever
//! registered is answered.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs::{self, File},
    path::{Path, PathBuf},
    thread,
};

use super::{
    disk, record,
    record::{Record, Refused},
};
use crate::agent::local::Kept;

pub struct Folder {
    data_dir: PathBuf,
    /// The checksum of what stands at each place; `None` where a write failed half-way.
    there: BTreeMap<String, Option<String>>,
    /// The newest.
    writing: u64,
}

/// Files that are synced at the same time.
const SYNCS_MAX: usize = 16;

/// A write that failed.
#[derive(Debug)]
pub struct Failed {
    pub text: String,
    /// Places where the new or the old may stand now; at all others it is the old.
    pub half: Vec<String>,
}

impl Folder {
    /// Reads everything that is kept, oldest first. What cannot be used is set aside.
    ///
    /// # Errors
    /// Where the directories cannot be made or listed.
    pub fn open(data_dir: &Path) -> Result<(Folder, Vec<Kept>), String> {
        let mut folder = Folder { data_dir: data_dir.into(), there: BTreeMap::new(), writing: 0 };
        let mut kept = Vec::new();
        for (name, word) in [("services", "service"), ("checks", "check")] {
            let directory = data_dir.join(name);
            disk::make_directory(&directory)?;
            for entry in fs::read_dir(&directory).map_err(disk::named(&directory))? {
                let path = entry.map_err(disk::named(&directory))?.path();
                let file = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
                if file == "state" && name == "checks" {
                    continue;
                }
                if file.ends_with(".tmp") {
                    tracing::warn!(file, "Ignoring temporary {word} file");
                    continue;
                }
                match read(&path, &format!("{name}/{file}")) {
                    Ok(found) => kept.push(found),
                    Err(refused) => set_aside(data_dir, &path, &refused),
                }
            }
        }
        kept.sort_by_key(|(writing, _)| *writing);
        folder.writing = kept.last().map_or(0, |(writing, _)| *writing);
        for (_, kept) in &kept {
            folder.there.insert(record::place(kept), Some(Record::of(kept).checksum()));
        }
        Ok((folder, kept.into_iter().map(|(_, kept)| kept).collect()))
    }

    /// Makes these places be so, and returns when that would survive a power cut. Everything that is likely to fail
    /// comes before the first place changes.
    ///
    /// # Errors
    /// What could not be written, and which places are in doubt now.
    pub fn write(&mut self, wanted: Vec<(String, Option<Kept>)>) -> Result<(), Failed> {
        let wanted = wanted.into_iter().map(|(place, kept)| (place, kept.as_ref().map(Record::of)));
        let differs = |(place, record): &(String, Option<Record>)| match (self.there.get(place), record) {
            (None, None) => false,
            (Some(Some(there)), Some(record)) => *there != record.checksum(),
            _ => true,
        };
        let wanted: Vec<(String, Option<Record>)> = wanted.filter(differs).collect();
        let forget = || wanted.iter().for_each(|(place, _)| disk::forget_beside(&self.data_dir.join(place)));
        write_beside(&self.data_dir, &mut self.writing, &wanted).map_err(|text| {
            forget();
            Failed { text, half: vec![] }
        })?;
        for (place, _) in &wanted {
            self.there.insert(place.clone(), None);
        }
        let half = |text| Failed { text, half: wanted.iter().map(|(place, _)| place.clone()).collect() };
        self.replace(&wanted).map_err(|text| {
            forget();
            half(text)
        })?;
        for (place, record) in wanted {
            match record {
                Some(record) => drop(self.there.insert(place, Some(record.checksum()))),
                None => drop(self.there.remove(&place)),
            }
        }
        Ok(())
    }

    /// What is new first: where a check moves from one file to another and this ends between the two, it is in both,
    /// and the later writing counts.
    fn replace(&self, wanted: &[(String, Option<Record>)]) -> Result<(), String> {
        for (place, _) in wanted.iter().filter(|(_, record)| record.is_some()) {
            disk::rename(&self.path(place))?;
        }
        for (place, _) in wanted.iter().filter(|(_, record)| record.is_none()) {
            disk::remove(&self.path(place))?;
        }
        let paths = wanted.iter().map(|(place, _)| self.path(place));
        let directories: BTreeSet<PathBuf> = paths.filter_map(|path| Some(path.parent()?.into())).collect();
        directories.iter().try_for_each(|directory| disk::sync_directory(directory))
    }

    fn path(&self, place: &str) -> PathBuf {
        self.data_dir.join(place)
    }
}

/// All of them are written, then synced at the same time: a file system does many syncs for little more than the price
/// of one, but not one after the other.
fn write_beside(
    data_dir: &Path,
    writing: &mut u64,
    wanted: &[(String, Option<Record>)],
) -> Result<(), String> {
    let mut files = Vec::new();
    for (place, record) in wanted {
        let Some(record) = record else { continue };
        *writing += 1;
        let path = data_dir.join(place);
        files.push((disk::put_beside(&path, &record.bytes(*writing))?, path));
    }
    let sync =
        |some: &[(File, PathBuf)]| some.iter().try_for_each(|(file, path)| disk::sync_beside(path, file));
    let share = files.len().div_ceil(SYNCS_MAX).max(1);
    thread::scope(|scope| {
        let (first, others) = files.split_at(share.min(files.len()));
        let others: Vec<_> = others.chunks(share).map(|some| scope.spawn(move || sync(some))).collect();
        let done = std::iter::once(sync(first));
        done.chain(others.into_iter().map(|other| other.join().expect("syncing does not panic"))).collect()
    })
}

fn read(path: &Path, place: &str) -> Result<(u64, Kept), Refused> {
    let bytes = disk::read(path).map_err(|error| Refused::Unreadable(error.to_string()))?;
    let (writing, kept) = record::read(&bytes)?;
    let expected = record::place(&kept);
    if expected != place {
        return Err(Refused::Misnamed(record::id(&kept).into(), expected));
    }
    Ok((writing, kept))
}

/// Moves what cannot be used out of the way, never over anything. It takes no more room there than it did; nothing is
/// set aside while the agent runs, so nothing here grows.
pub fn set_aside(data_dir: &Path, path: &Path, refused: &Refused) {
    let quarantine = data_dir.join("quarantine");
    let moved = disk::make_directory(&quarantine).and_then(|()| {
        let name = path.strip_prefix(data_dir).unwrap_or(path).to_string_lossy().replace('/', "-");
        let free = (0..).map(|number| match number {
            0 => quarantine.join(&name),
            number => quarantine.join(format!("{name}.{number}")),
        });
        let to = free.into_iter().find(|to| to.symlink_metadata().is_err()).unwrap_or_default();
        fs::rename(path, &to).map_err(disk::named(path))?;
        Ok(to)
    });
    let file = path.display();
    match moved {
        Ok(to) => tracing::warn!(%file, to = %to.display(), "A kept file is set aside: {refused}"),
        Err(error) => {
            tracing::warn!(%file, error, "A kept file is ignored, and cannot be set aside: {refused}")
        }
    }
}
