//! Files that are there as a whole or not at all: written beside their place, synced, renamed. Errors name the path.

use std::{
    fs::{self, DirBuilder, File, OpenOptions},
    io::{self, Read, Write},
    os::unix::fs::{DirBuilderExt, OpenOptionsExt},
    path::{Path, PathBuf},
};

/// No file of ours comes near it.
const FILE_BYTES_MAX: u64 = 64 << 20;

/// Puts a file in its place, and returns when it would survive a power cut.
pub fn put(path: &Path, bytes: &[u8]) -> Result<(), String> {
    put_beside(path, bytes).and_then(|file| sync_beside(path, &file)).inspect_err(|_| forget_beside(path))?;
    rename(path)?;
    sync_directory(path.parent().unwrap_or(path))
}

/// Writes a file beside its place; it is not synced yet.
pub fn put_beside(path: &Path, bytes: &[u8]) -> Result<File, String> {
    let beside = beside(path);
    let written = (|| {
        match fs::remove_file(&beside) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&beside)?;
        file.write_all(bytes)?;
        Ok(file)
    })();
    written.map_err(named(&beside))
}

/// What was written beside `path` would survive a power cut.
pub fn sync_beside(path: &Path, file: &File) -> Result<(), String> {
    file.sync_all().map_err(named(&beside(path)))
}

pub fn forget_beside(path: &Path) {
    let _is_gone = fs::remove_file(beside(path));
}

/// What was written beside takes its place.
pub fn rename(path: &Path) -> Result<(), String> {
    fs::rename(beside(path), path).map_err(named(path))
}

pub fn remove(path: &Path) -> Result<(), String> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(named(path)(error)),
        _ => Ok(()),
    }
}

pub fn sync_directory(path: &Path) -> Result<(), String> {
    File::open(path).and_then(|directory| directory.sync_all()).map_err(named(path))
}

/// For us alone; its parents too, where they are missing. It would survive a power cut.
pub fn make_directory(path: &Path) -> Result<(), String> {
    DirBuilder::new().recursive(true).mode(0o700).create(path).map_err(named(path))?;
    path.parent().filter(|parent| !parent.as_os_str().is_empty()).map_or(Ok(()), sync_directory)
}

pub fn read(path: &Path) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    File::open(path)?.take(FILE_BYTES_MAX + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > FILE_BYTES_MAX {
        return Err(io::Error::other(format!("it is larger than {FILE_BYTES_MAX} bytes")));
    }
    Ok(bytes)
}

pub fn named(path: &Path) -> impl Fn(io::Error) -> String {
    move |error| format!("{}: {error}", path.display())
}

fn beside(path: &Path) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(".tmp");
    name.into()
}
