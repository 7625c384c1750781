//! The id of this node: drawn once, and kept in the data directory (`config-cli.md` §2.1).

use std::{fs, io, path::Path};

use uuid::Uuid;

use super::disk;

/// The id that the operator gave; else the one kept in `data_dir`; else a new one, kept from now on where it can be.
///
/// # Errors
/// What is kept is no id, or cannot be read or written.
pub fn node_id(data_dir: Option<&Path>, given: Option<Uuid>) -> Result<Uuid, String> {
    let (None, Some(data_dir)) = (given, data_dir) else {
        return Ok(given.unwrap_or_else(Uuid::new_v4));
    };
    let path = data_dir.join("node-id");
    let failed = |text: String| format!("failed to setup node ID: {text}");
    match fs::read(&path) {
        Ok(bytes) => {
            let parsed = parse(&String::from_utf8_lossy(&bytes));
            parsed.map_err(|what| failed(format!("NodeID in {} is invalid: {what}", path.display())))
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            let id = Uuid::new_v4();
            disk::make_directory(data_dir).map_err(failed)?;
            disk::put(&path, id.to_string().as_bytes()).map_err(failed)?;
            Ok(id)
        }
        Err(error) => Err(failed(disk::named(&path)(error))),
    }
}

fn parse(text: &str) -> Result<Uuid, &'static str> {
    let text = text.trim();
    if text.len() != uuid::fmt::Hyphenated::LENGTH {
        return Err("uuid string is wrong length");
    }
    Uuid::try_parse(text).map_err(|_| "uuid is improperly formatted")
}
