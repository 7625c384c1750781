//! What the flags name, read into trees in the order in which it counts (`config-cli.md` §1.1), and how a later tree
//! is laid over an earlier one. Knows no key but the few whose maps have keys of the user's.

use std::{
    fs, io,
    path::{Path, PathBuf},
    sync::Arc,
};

use ahash::AHashMap;

use super::{
    Flags, hcl, json,
    reader::Findings,
    tree::{Kind, Member, Place, SyntaxError, Value},
};

/// The syntax of a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    Hcl,
    Json,
}

impl Format {
    pub fn of(word: &str) -> Option<Format> {
        match word {
            "hcl" => Some(Format::Hcl),
            "json" => Some(Format::Json),
            _ => None,
        }
    }

    fn of_file(path: &Path) -> Option<Format> {
        path.extension().and_then(|extension| Format::of(extension.to_str()?))
    }
}

/// Maps whose keys the user chose: case counts in these.
const FREE_MAPS: &[&str] = &["node_meta", "service_ttl", "response_headers"];

/// The members of every source, the ones that count most last: lists of flags, files, other flags, fragments.
pub fn read(flags: &Flags, findings: &mut Findings) -> Vec<Vec<Member>> {
    let mut lists = Vec::new();
    merge(&mut lists, flags.lists.clone());
    let mut trees = vec![lists];
    for path in &flags.paths {
        for file in files(Path::new(path), flags.format, findings) {
            trees.extend(read_file(&file, flags.format, findings));
        }
    }
    let mut scalars = Vec::new();
    merge(&mut scalars, flags.scalars.clone());
    trees.push(scalars);
    for (at, fragment) in flags.fragments.iter().enumerate() {
        let file: Arc<str> = format!("flags-{at}.hcl").into();
        trees.extend(keep(hcl::parse(&file, fragment), findings));
    }
    trees
}

/// Lays later members over earlier ones: lists append, blocks and maps merge, the rest is replaced.
pub fn merge(base: &mut Vec<Member>, later: Vec<Member>) {
    merge_as(base, later, str::to_lowercase);
}

fn merge_as(base: &mut Vec<Member>, later: Vec<Member>, name: fn(&str) -> String) {
    let mut known: AHashMap<String, usize> =
        base.iter().enumerate().map(|(at, member)| (name(&member.key), at)).collect();
    for member in later {
        let key = name(&member.key);
        let Some(own) = known.get(&key).and_then(|at| base.get_mut(*at)) else {
            known.insert(key, base.len());
            base.push(member);
            continue;
        };
        let keys_as = if FREE_MAPS.contains(&key.as_str()) { str::to_string } else { str::to_lowercase };
        match (&mut own.value.kind, member.value) {
            (_, Value { kind: Kind::Null, .. }) => {}
            (Kind::Object(own), Value { kind: Kind::Object(members), .. }) => merge_as(own, members, keys_as),
            (Kind::List(own), Value { kind: Kind::List(values), .. }) => own.extend(values),
            (_, later) => own.value = later,
        }
    }
}

/// A file, or the files of a directory by name; what is neither `.hcl` nor `.json` there is skipped.
fn files(path: &Path, format: Option<Format>, findings: &mut Findings) -> Vec<PathBuf> {
    let known = |path: &Path| format.is_some() || Format::of_file(path).is_some();
    let shown = path.display();
    let listed = match fs::metadata(path) {
        Ok(found) if found.is_dir() => list(path),
        Ok(_) if known(path) => return vec![path.to_path_buf()],
        Ok(_) => {
            let must = "must be .hcl or .json, or config format must be set";
            findings.fault::<()>(Place::default(), format!("file {shown} has unknown extension; {must}"));
            return vec![];
        }
        Err(error) => Err(error),
    };
    let listed = listed.unwrap_or_else(|error| {
        let text = format!("config: Open failed on {shown}. open {shown}: {}", reason(&error));
        findings.fault::<()>(Place::default(), text);
        vec![]
    });
    let (read, skipped): (Vec<PathBuf>, Vec<PathBuf>) = listed.into_iter().partition(|file| known(file));
    for file in skipped {
        let must = "extension must be .hcl or .json, or config format must be set";
        findings.warn(&Place::default(), format!("skipping file {}, {must}", file.display()));
    }
    read
}

/// Everything in a directory that can be read as a file, by name. A pipe cannot: it has no end.
fn list(directory: &Path) -> io::Result<Vec<PathBuf>> {
    let mut paths = fs::read_dir(directory)?
        .map(|entry| entry.map(|entry| entry.path()))
        .collect::<io::Result<Vec<PathBuf>>>()?;
    paths.retain(|path| fs::metadata(path).map_or(true, |found| found.is_file()));
    paths.sort_by(|a, b| a.as_os_str().cmp(b.as_os_str()));
    Ok(paths)
}

/// `None` for an empty file, and where there is a fault.
fn read_file(path: &Path, format: Option<Format>, findings: &mut Findings) -> Option<Vec<Member>> {
    let file: Arc<str> = path.display().to_string().into();
    let place = || Place { file: file.clone(), line: 0, column: 0 };
    let bytes = match fs::read(path) {
        Ok(bytes) => bytes,
        Err(error) => return findings.fault(place(), format!("config: ReadFile failed: {}", reason(&error))),
    };
    let Ok(text) = String::from_utf8(bytes) else {
        return findings.fault(place(), "failed to parse: expected UTF-8 text");
    };
    if text.trim().is_empty() {
        return None;
    }
    let parsed = match format.or(Format::of_file(path)) {
        Some(Format::Json) => json::parse(&file, &text),
        _ => hcl::parse(&file, &text),
    };
    keep(parsed, findings)
}

fn keep(parsed: Result<Value, SyntaxError>, findings: &mut Findings) -> Option<Vec<Member>> {
    match parsed {
        Ok(Value { kind: Kind::Object(members), .. }) => Some(members),
        Ok(Value { kind: Kind::Null, .. }) => None,
        Ok(value) => {
            let text = format!("failed to parse: expected an object, found {}", value.kind_word());
            findings.fault(value.place, text)
        }
        Err(error) => findings.fault(error.place, format!("failed to parse: {}", error.text)),
    }
}

/// In the words that scripts know.
pub fn reason(error: &io::Error) -> String {
    match error.kind() {
        io::ErrorKind::NotFound => "no such file or directory".into(),
        io::ErrorKind::PermissionDenied => "permission denied".into(),
        _ => error.to_string(),
    }
}
