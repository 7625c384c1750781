//! The last word of each TTL check's program, and until when it counts: a journal, since words come often. A word is
//! appended before its program is answered, so it survives the death of this process; the disk is made to hold it
//! within a second, so a power cut may take the words of that second, never the ones before. A line is good or it is
//! not: each has its checksum, and what is torn is set aside.

use std::{
    collections::BTreeMap,
    fs::{File, OpenOptions},
    io::{self, Write},
    path::{Path, PathBuf},
};

use serde::{Deserialize, Serialize};

use super::{disk, folder::set_aside, record, record::Refused};
use crate::catalog::{Key, Status, Text, fold};

/// What a check's program last said.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct State {
    pub status: Status,
    pub output: Text,
    /// In seconds since 1970, by the clock on the wall: the only one that goes on while nothing runs here. It is looked
    /// at when an agent starts, and never decides anything while it runs.
    pub expires: u64,
}

pub struct States {
    data_dir: PathBuf,
    /// Opened for appending; `None` where it must be written anew first.
    file: Option<File>,
    length: u64,
    /// At this length the journal is written anew, with what still counts.
    length_max: u64,
    states: BTreeMap<Key, State>,
    unsynced: bool,
}

/// A line of the journal. Without a status it says that the check is gone.
#[derive(Serialize, Deserialize)]
struct Line {
    check: Text,
    #[serde(default)]
    status: Option<Status>,
    #[serde(default)]
    output: Text,
    #[serde(default)]
    expires: u64,
}

pub const JOURNAL: &str = "checks/state/journal";
const LENGTH_MAX: u64 = 1 << 20;

impl States {
    /// Reads the journal. A damaged one is set aside, and what is good of it counts.
    ///
    /// # Errors
    /// Where its directory cannot be made.
    pub fn open(data_dir: &Path) -> Result<States, String> {
        disk::make_directory(&data_dir.join("checks/state"))?;
        let path = data_dir.join(JOURNAL);
        let (states, fault) = match disk::read(&path) {
            Ok(bytes) => read(&bytes),
            Err(error) if error.kind() == io::ErrorKind::NotFound => (BTreeMap::new(), None),
            Err(error) => (BTreeMap::new(), Some(Refused::Unreadable(error.to_string()))),
        };
        if let Some(refused) = fault {
            set_aside(data_dir, &path, &refused);
        }
        let data_dir = data_dir.into();
        Ok(States { data_dir, file: None, length: 0, length_max: 0, states, unsynced: false })
    }

    pub fn iter(&self) -> impl Iterator<Item = (&Key, &State)> {
        self.states.iter()
    }

    pub fn has(&self, id: &str) -> bool {
        self.states.contains_key(id)
    }

    /// Keeps only what counts, and writes that.
    pub fn retain(&mut self, counts: impl Fn(&Key, &State) -> bool) -> Result<(), String> {
        self.states.retain(|id, state| counts(id, state));
        self.write_anew()
    }

    /// Takes words down, `None` where a check is gone. They count here even where they cannot be written.
    pub fn append(&mut self, words: Vec<(Key, Option<State>)>) -> Result<(), String> {
        let lines: String = words.iter().map(|(id, state)| line(id, state.as_ref())).collect();
        for (id, state) in words {
            match state {
                Some(state) => drop(self.states.insert(id, state)),
                None => drop(self.states.remove(&id)),
            }
        }
        self.length += lines.len() as u64;
        let Some(file) = self.file.as_mut().filter(|_| self.length <= self.length_max) else {
            return self.write_anew();
        };
        if let Err(error) = file.write_all(lines.as_bytes()) {
            // Half a line may stand at its end now.
            self.file = None;
            return Err(disk::named(&self.path())(error));
        }
        self.unsynced = true;
        Ok(())
    }

    pub fn is_unsynced(&self) -> bool {
        self.unsynced
    }

    pub fn sync(&mut self) -> Result<(), String> {
        self.unsynced = false;
        let Some(file) = &self.file else { return Ok(()) };
        file.sync_data().map_err(|error| {
            self.file = None;
            disk::named(&self.path())(error)
        })
    }

    fn write_anew(&mut self) -> Result<(), String> {
        self.file = None;
        let path = self.path();
        let bytes = write(&self.states);
        disk::put(&path, bytes.as_bytes())?;
        let file = OpenOptions::new().append(true).open(&path).map_err(disk::named(&path))?;
        self.length = bytes.len() as u64;
        self.length_max = LENGTH_MAX.max(4 * self.length);
        (self.file, self.unsynced) = (Some(file), false);
        Ok(())
    }

    fn path(&self) -> PathBuf {
        self.data_dir.join(JOURNAL)
    }
}

/// The bytes of a journal that holds this and nothing else.
pub fn write(states: &BTreeMap<Key, State>) -> String {
    let lines: String = states.iter().map(|(id, state)| line(id, Some(state))).collect();
    format!("lictor states {}\n{lines}", record::VERSION)
}

/// What a journal says, as far as it can be read, and why not further.
pub fn read(bytes: &[u8]) -> (BTreeMap<Key, State>, Option<Refused>) {
    let (mut states, mut fault) = (BTreeMap::new(), None);
    let mut lines = bytes.split_inclusive(|byte| *byte == b'\n');
    let head = lines.next().and_then(|head| std::str::from_utf8(head).ok()).unwrap_or_default();
    match head.trim_end().strip_prefix("lictor states ").map(str::parse::<u32>) {
        Some(Ok(record::VERSION)) => {}
        Some(Ok(newer)) if newer > record::VERSION => return (states, Some(Refused::Newer(newer))),
        _ => return (states, Some(Refused::Foreign)),
    }
    for line in lines {
        match read_line(line) {
            Ok((id, Some(state))) => drop(states.insert(id, state)),
            Ok((id, None)) => drop(states.remove(&id)),
            Err(refused) => fault = Some(refused),
        }
    }
    (states, fault)
}

fn line(id: &Key, state: Option<&State>) -> String {
    let status = state.map(|state| state.status.clone());
    let output = state.map_or_else(Text::default, |state| state.output.clone());
    let line = Line { check: id.clone(), status, output, expires: state.map_or(0, |state| state.expires) };
    let json = record::json(&line);
    format!("{} {json}", &record::checksum(&[json.as_bytes()])[..CHECKSUM])
}

fn read_line(line: &[u8]) -> Result<(Key, Option<State>), Refused> {
    let (checksum, json) = line.split_at_checked(CHECKSUM + 1).ok_or(Refused::Torn)?;
    if record::checksum(&[json]).as_bytes()[..CHECKSUM] != checksum[..CHECKSUM] {
        return Err(Refused::Torn);
    }
    let Line { check, status, output, expires } = record::parse(json)?;
    Ok((fold(&check).into(), status.map(|status| State { status, output, expires })))
}

/// Digits of a line's checksum.
const CHECKSUM: usize = 16;
