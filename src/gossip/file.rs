//! The files that a pool keeps: small, each there as a whole or not at all. Errors name the path.

use std::{
    fs::{self, DirBuilder, File, OpenOptions},
    io::{self, Read, Write},
    os::unix::fs::{DirBuilderExt, OpenOptionsExt},
    path::{Path, PathBuf},
};

/// No file of ours comes near it.
const BYTES_MAX: u64 = 64 << 20;

/// What is in it; `None` where there is none.
///
/// # Errors
/// Where it is there and cannot be read.
pub fn read(path: &Path) -> Result<Option<Vec<u8>>, String> {
    let mut bytes = Vec::new();
    let outcome = File::open(path).and_then(|file| file.take(BYTES_MAX + 1).read_to_end(&mut bytes));
    match outcome {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(named(path)(error)),
        Ok(_) if bytes.len() as u64 > BYTES_MAX => {
            Err(format!("{}: it is larger than {BYTES_MAX} bytes", path.display()))
        }
        Ok(_) => Ok(Some(bytes)),
    }
}

/// Puts a file in its place, for us alone, and returns when it would survive a power cut.
///
/// # Errors
/// Where it is not there then; the former one stays.
pub fn put(path: &Path, bytes: &[u8]) -> Result<(), String> {
    let folder = path.parent().unwrap_or(path);
    DirBuilder::new().recursive(true).mode(0o700).create(folder).map_err(named(folder))?;
    let beside = beside(path, "tmp");
    let write = || {
        let mut file =
            OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&beside)?;
        file.write_all(bytes)?;
        file.sync_all()
    };
    write().map_err(named(&beside)).inspect_err(|_| drop(fs::remove_file(&beside)))?;
    fs::rename(&beside, path).map_err(named(path))?;
    File::open(folder).and_then(|folder| folder.sync_all()).map_err(named(folder))
}

/// Takes what cannot be read out of the way, for people to look at; a former one of it is gone. Its new name.
///
/// # Errors
/// Where it stays where it is.
pub fn set_aside(path: &Path) -> Result<PathBuf, String> {
    let aside = beside(path, "unreadable");
    fs::rename(path, &aside).map_err(named(path))?;
    Ok(aside)
}

pub fn named(path: &Path) -> impl Fn(io::Error) -> String {
    move |error| format!("{}: {error}", path.display())
}

fn beside(path: &Path, ending: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(".");
    name.push(ending);
    name.into()
}
