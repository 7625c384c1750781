//! The directory where an agent keeps what must outlive it: of a known version, ours, and held by one agent at a time.
//! Knows names and a lock; not what the rooms keep in it.

use std::{
    fs::{self, File, OpenOptions},
    io::{self, Read, Write},
    path::{Path, PathBuf},
};

use nix::{
    errno::Errno,
    fcntl::{Flock, FlockArg},
};

/// A data directory, held until this is dropped.
#[derive(Debug)]
pub struct DataDir {
    path: PathBuf,
    _lock: Flock<File>,
}

/// What the format file says, and the version that it says it of.
const FORMAT: &str = "lictor data ";
const VERSION: u32 = 1;
const FORMAT_FILE: &str = "format";
const FORMAT_NEW: &str = "format.tmp";
const LOCK_FILE: &str = "lock";
/// What may stand in a directory that nobody has used yet.
const OF_NOBODY: [&str; 3] = ["lost+found", LOCK_FILE, FORMAT_NEW];

impl DataDir {
    /// Takes the directory; makes it, and writes down what it is, where there is none yet.
    ///
    /// # Errors
    /// Where it cannot be had, is held by another agent, is not ours, or is a newer lictor's.
    pub fn open(path: &Path) -> Result<DataDir, String> {
        let at = |path: &Path, error: io::Error| format!("data_dir {}: {error}", path.display());
        fs::create_dir_all(path).map_err(|error| at(path, error))?;
        let format = path.join(FORMAT_FILE);
        let known = match fs::read_to_string(&format) {
            Ok(text) => Some(text),
            Err(error) if error.kind() == io::ErrorKind::NotFound => None,
            Err(error) => return Err(at(&format, error)),
        };
        match &known {
            Some(text) => check_format(path, text)?,
            None => check_unused(path).map_err(|error| at(path, error))??,
        }
        let lock = lock(path)?;
        if known.is_none() {
            write_format(path).map_err(|error| at(&format, error))?;
        }
        Ok(DataDir { path: path.into(), _lock: lock })
    }

    pub fn path(&self) -> &Path {
        &self.path
    }
}

fn check_format(path: &Path, text: &str) -> Result<(), String> {
    let version = text
        .strip_prefix(FORMAT)
        .and_then(|rest| rest.trim_end().parse::<u32>().ok())
        .filter(|version| *version > 0);
    match version {
        Some(1..=VERSION) => Ok(()),
        Some(newer) => Err(format!(
            "data_dir {} was written by a newer lictor: it is of format {newer}, expected at most {VERSION}",
            path.display()
        )),
        None => Err(format!(
            "data_dir {} is not lictor's: its file {FORMAT_FILE:?} says {:?}, expected \"{FORMAT}{VERSION}\"",
            path.display(),
            text.chars().take(40).collect::<String>(),
        )),
    }
}

/// Nothing of anybody's may be taken for ours, or be written over.
fn check_unused(path: &Path) -> io::Result<Result<(), String>> {
    for entry in fs::read_dir(path)? {
        let name = entry?.file_name();
        if !OF_NOBODY.iter().any(|own| name == *own) {
            let whose =
                if name == "raft" || name == "serf" { "looks like Consul's" } else { "is not lictor's" };
            return Ok(Err(format!(
                "data_dir {} {whose}: it holds {name:?} and no file {FORMAT_FILE:?}; expected an empty directory or one of lictor's own",
                path.display()
            )));
        }
    }
    Ok(Ok(()))
}

/// The lock goes with the process, however that ends. The file says which one it is, for people.
fn lock(path: &Path) -> Result<Flock<File>, String> {
    let file_path = path.join(LOCK_FILE);
    let at = |error: io::Error| format!("data_dir {}: {error}", file_path.display());
    let file = OpenOptions::new().read(true).write(true).create(true).truncate(false).open(&file_path);
    let mut lock = match Flock::lock(file.map_err(at)?, FlockArg::LockExclusiveNonblock) {
        Ok(lock) => lock,
        Err((mut file, Errno::EWOULDBLOCK)) => {
            let mut holder = String::new();
            let _unknown = file.read_to_string(&mut holder);
            return Err(format!(
                "data_dir {} is in use by another agent (process {}); expected a directory of this agent's own",
                path.display(),
                holder.trim()
            ));
        }
        Err((_, error)) => return Err(at(error.into())),
    };
    lock.set_len(0).and_then(|()| write!(lock, "{}", std::process::id())).map_err(at)?;
    Ok(lock)
}

fn write_format(path: &Path) -> io::Result<()> {
    let new = path.join(FORMAT_NEW);
    let mut file = File::create(&new)?;
    writeln!(file, "{FORMAT}{VERSION}")?;
    file.sync_all()?;
    fs::rename(&new, path.join(FORMAT_FILE))?;
    File::open(path)?.sync_all()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A folder of the test's own, gone afterwards.
    struct Folder(PathBuf);

    impl Folder {
        fn new() -> Self {
            let path = std::env::temp_dir().join(format!("lictor-data-{}", uuid::Uuid::new_v4()));
            fs::create_dir_all(&path).unwrap();
            Folder(path)
        }

        fn refused(&self) -> String {
            DataDir::open(&self.0).unwrap_err().replace(&self.0.display().to_string(), "DIR")
        }
    }

    impl Drop for Folder {
        fn drop(&mut self) {
            let _best_effort = fs::remove_dir_all(&self.0);
        }
    }

    #[test]
    fn a_new_directory_is_ours_and_one_agents_at_a_time() {
        let folder = Folder::new();
        fs::create_dir(folder.0.join("lost+found")).unwrap();
        let held = DataDir::open(&folder.0).unwrap();
        assert_eq!(fs::read_to_string(folder.0.join("format")).unwrap(), "lictor data 1\n");
        let own = std::process::id();
        assert_eq!(
            folder.refused(),
            format!(
                "data_dir DIR is in use by another agent (process {own}); expected a directory of this agent's own"
            )
        );
        drop(held);
        DataDir::open(&folder.0).unwrap();
    }

    #[test]
    fn a_directory_is_made_where_there_is_none() {
        let folder = Folder::new();
        let held = DataDir::open(&folder.0.join("a/b")).unwrap();
        assert!(held.path().join("format").is_file());
    }

    #[test]
    fn what_is_not_ours_is_refused_by_name_and_left_alone() {
        let folder = Folder::new();
        fs::create_dir(folder.0.join("raft")).unwrap();
        assert!(
            folder.refused().starts_with("data_dir DIR looks like Consul's: it holds \"raft\" and no file")
        );
        fs::remove_dir(folder.0.join("raft")).unwrap();
        fs::write(folder.0.join("photos.zip"), "").unwrap();
        assert!(folder.refused().starts_with("data_dir DIR is not lictor's: it holds \"photos.zip\""));
        assert_eq!(fs::read_dir(&folder.0).unwrap().count(), 1, "nothing was written there");
        fs::remove_file(folder.0.join("photos.zip")).unwrap();
        for (text, said) in [
            ("lictor data 2\n", "was written by a newer lictor: it is of format 2, expected at most 1"),
            ("JPEG", "is not lictor's: its file \"format\" says \"JPEG\", expected \"lictor data 1\""),
            ("lictor data 0\n", "is not lictor's"),
        ] {
            fs::write(folder.0.join("format"), text).unwrap();
            assert!(folder.refused().starts_with(&format!("data_dir DIR {said}")), "{}", folder.refused());
        }
    }
}
