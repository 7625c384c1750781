//! `lictor snapshot`: everything that the servers agree on as one file, and back. A file is read and tested before it is
//! called saved.

use std::{
    collections::BTreeMap,
    fs::{self, File},
    io::{BufReader, Write},
    path::{Path, PathBuf},
    time::Duration,
};

use serde_json::json;

use super::{
    Doing, Failure, Outcome,
    client::{self, Client, Request, reason},
    line::{Command, Flag, Line, Run},
    output::{FORMAT, Progress, say, say_json, spread, wants_json},
};
use crate::agent::{ArchiveSummary, COMPATIBLE_VERSION, inspect_archive};

pub const SAVE: Command = Command {
    name: "snapshot save",
    arguments: "FILE",
    does: "Writes everything that the servers agree on into a file",
    flags: &[
        client::AGENT,
        client::SERVERS,
        &[Flag::text("append-filename", "version, dc or both, with a comma: put into the file's name")],
    ],
    run: Run::Line(|line| client::ask(line, save)),
};

pub const RESTORE: Command = Command {
    name: "snapshot restore",
    arguments: "FILE",
    does: "Puts back what a file holds, in place of everything",
    flags: &[client::AGENT, client::SERVERS],
    run: Run::Line(|line| client::ask(line, restore)),
};

pub const INSPECT: Command = Command {
    name: "snapshot inspect",
    arguments: "FILE",
    does: "Tells what a file holds, and whether it is whole",
    flags: &[
        FORMAT,
        &[
            Flag::switch("kvdetails", "the keys of the KV store, too, by the beginnings of their names"),
            Flag::number("kvdepth", "how many parts of a name are its beginning; 2 where not given"),
            Flag::text("kvfilter", "only keys with this prefix"),
        ],
    ],
    run: Run::Line(inspect),
};

/// The servers write and read it on disk meanwhile.
const RESTORE_DEADLINE: Duration = Duration::from_secs(600);
/// Between two pieces of what is saved.
const PIECE_DEADLINE: Duration = Duration::from_secs(60);

fn file(line: &Line) -> Result<&str, Failure> {
    match line.rest.as_slice() {
        [file] => Ok(file),
        [] => Err(Failure::new("Missing FILE argument")),
        more => Err(Failure::new(format!("Too many arguments (expected 1, got {})", more.len()))),
    }
}

async fn save(client: Client, line: Line) -> Outcome {
    let file = PathBuf::from(file(&line)?);
    let file = match line.text("append-filename") {
        Some(parts) if !parts.is_empty() => named(&client, &file, parts).await?,
        _ => file,
    };
    let beside = PathBuf::from(format!("{}.unverified", file.display()));
    let saved = download(&client, &beside).await.and_then(|()| {
        let summary = verify(&beside).doing("Error verifying snapshot file")?;
        fs::rename(&beside, &file).map_err(|error| reason(&error)).doing("Error renaming snapshot file")?;
        Ok(summary)
    });
    let summary = saved.inspect_err(|_| drop(fs::remove_file(&beside)))?;
    say(format_args!("Saved and verified snapshot to index {}", summary.head.index))
}

/// `b.snap` with the version and the datacenter is `b-1.16.4-dc1.snap`.
async fn named(client: &Client, file: &Path, parts: &str) -> Result<PathBuf, Failure> {
    let about: serde_json::Value =
        client.read(Request::get("/v1/agent/self")).await.doing("Error querying Consul agent")?;
    let mut name = file.file_stem().unwrap_or_default().to_os_string();
    for part in parts.split(',').map(str::trim) {
        let part = match part {
            "version" => about["Config"]["Version"].as_str().unwrap_or(COMPATIBLE_VERSION),
            "dc" => about["Config"]["Datacenter"].as_str().unwrap_or_default(),
            _ => continue,
        };
        name.push(format!("-{part}"));
    }
    if let Some(extension) = file.extension() {
        name.push(".");
        name.push(extension);
    }
    Ok(file.with_file_name(name))
}

async fn download(client: &Client, file: &Path) -> Outcome {
    let mut stream = client.stream(Request::get("/v1/snapshot")).await.doing("Error saving snapshot")?;
    let failed = |error| format!("{}: {}", file.display(), reason(&error));
    let mut out = File::create(file).map_err(failed).doing("Error creating snapshot file")?;
    let mut progress = Progress::of_bytes("Saving");
    loop {
        let next = tokio::time::timeout(PIECE_DEADLINE, stream.next()).await;
        let next = next.map_err(|_| "nothing more came").doing("Error saving snapshot")?;
        let Some(piece) = next.doing("Error saving snapshot")? else { break };
        out.write_all(&piece).map_err(failed).doing("Error writing snapshot file")?;
        progress.add(piece.len() as u64);
    }
    out.sync_all().map_err(failed).doing("Error writing snapshot file")
}

fn verify(file: &Path) -> Result<ArchiveSummary, String> {
    let opened = File::open(file).map_err(|error| format!("open {}: {}", file.display(), reason(&error)))?;
    inspect_archive(BufReader::new(opened)).map_err(|error| error.to_string())
}

async fn restore(client: Client, line: Line) -> Outcome {
    let file = file(&line)?;
    let read = fs::read(file).map_err(|error| format!("open {file}: {}", reason(&error)));
    let body = read.doing("Error opening snapshot file")?;
    let request = Request::put("/v1/snapshot")
        .body(body)
        .deadline(RESTORE_DEADLINE)
        .told(Progress::of_bytes("Sending"));
    client.ok(request).await.doing("Error restoring snapshot")?;
    say("Restored snapshot")
}

/// A name, and how many bytes and how often.
type Sum = (String, u64, u64);

fn inspect(line: Line) -> Outcome {
    let file = file(&line)?;
    let json = wants_json(&line)?;
    let summary = verify(Path::new(file)).doing("Error reading snapshot")?;
    let tables = summary.tables.iter().filter(|table| table.rows > 0);
    let tables = largest_first(tables.map(|table| (table.name.to_string(), table.bytes, table.rows)));
    let keys = if line.is("kvdetails") {
        let depth = line.number("kvdepth").and_then(|depth| usize::try_from(depth).ok()).unwrap_or(2);
        by_beginning(&summary, depth, line.text("kvfilter").unwrap_or(""))
    } else {
        Vec::new()
    };
    if json { say_as_json(&summary, &tables, &keys) } else { say_tables(&summary, &tables, &keys) }
}

fn largest_first(sums: impl Iterator<Item = Sum>) -> Vec<Sum> {
    let mut sums: Vec<Sum> = sums.collect();
    sums.sort_by(|a, b| b.1.cmp(&a.1).then_with(|| a.0.cmp(&b.0)));
    sums
}

/// Keys summed up by the first parts of their names.
fn by_beginning(summary: &ArchiveSummary, depth: usize, filter: &str) -> Vec<Sum> {
    let mut sums: BTreeMap<String, (u64, u64)> = BTreeMap::new();
    for (key, bytes) in summary.keys.iter().filter(|(key, _)| key.starts_with(filter.as_bytes())) {
        let name = String::from_utf8_lossy(key);
        let parts: Vec<&str> = name.split('/').take(depth.max(1)).collect();
        let sum = sums.entry(parts.join("/")).or_default();
        *sum = (sum.0 + bytes, sum.1 + 1);
    }
    largest_first(sums.into_iter().map(|(name, (bytes, count))| (name, bytes, count)))
}

fn say_tables(summary: &ArchiveSummary, tables: &[Sum], keys: &[Sum]) -> Outcome {
    let head = [
        ("ID", summary.head.id.clone()),
        ("Size", summary.bytes.to_string()),
        ("Index", summary.head.index.to_string()),
        ("Term", summary.head.term.to_string()),
        ("Version", summary.version.to_string()),
    ];
    let head: Vec<Vec<String>> =
        head.into_iter().map(|(name, value)| vec![format!(" {name}"), value]).collect();
    say(spread(&head))?;
    say(format_args!("\n{}", sums_table("Type", tables)))?;
    if keys.is_empty() { Ok(()) } else { say(format_args!("\n{}", sums_table("Key Name", keys))) }
}

fn sums_table(title: &str, sums: &[Sum]) -> String {
    let row = |cells: [&str; 3]| vec![format!(" {}", cells[0]), cells[1].into(), cells[2].into()];
    let rule = || row(["----"; 3]);
    let mut rows = vec![row([title, "Count", "Size"]), rule()];
    rows.extend(sums.iter().map(|(name, bytes, count)| row([name, &count.to_string(), &shown(*bytes)])));
    rows.extend([rule(), row(["Total", "", &shown(total(sums))])]);
    spread(&rows)
}

fn total(sums: &[Sum]) -> u64 {
    sums.iter().map(|(_, bytes, _)| bytes).sum()
}

/// As people read bytes: `5.7KB`, `721B`.
fn shown(bytes: u64) -> String {
    let units = [("TB", 1_u64 << 40), ("GB", 1 << 30), ("MB", 1 << 20), ("KB", 1 << 10)];
    match units.iter().find(|(_, size)| bytes >= *size) {
        None => format!("{bytes}B"),
        Some((unit, size)) => {
            let number = format!("{:.1}", bytes as f64 / *size as f64);
            format!("{}{unit}", number.trim_end_matches(".0"))
        }
    }
}

fn say_as_json(summary: &ArchiveSummary, tables: &[Sum], keys: &[Sum]) -> Outcome {
    let stats = |sums: &[Sum]| -> Vec<serde_json::Value> {
        let each =
            sums.iter().map(|(name, bytes, count)| json!({ "Name": name, "Sum": bytes, "Count": count }));
        each.collect()
    };
    let meta = json!({
        "ID": summary.head.id,
        "Size": summary.bytes,
        "Index": summary.head.index,
        "Term": summary.head.term,
        "Version": summary.version,
    });
    let all = json!({
        "Meta": meta,
        "Stats": stats(tables),
        "StatsKV": stats(keys),
        "TotalSize": total(tables),
        "TotalSizeKV": total(keys),
    });
    say_json(all.to_string().as_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::agent::ArchiveHead;

    #[test]
    fn sizes_are_short() {
        for (bytes, text) in [(721, "721B"), (5120, "5KB"), (5837, "5.7KB"), (3 << 30, "3GB")] {
            assert_eq!(shown(bytes), text);
        }
    }

    #[test]
    fn keys_are_summed_up_by_their_beginnings() {
        let keys = [("a/b/c", 10), ("a/b/d", 20), ("a/e", 50), ("f", 30)];
        let summary = ArchiveSummary {
            head: ArchiveHead { id: "2-7-1".into(), term: 2, index: 7 },
            version: 2,
            catalog_index: 7,
            tables: Vec::new(),
            keys: keys.map(|(key, bytes)| (key.into(), bytes)).into(),
            bytes: 100,
        };
        let sum = |name: &str, bytes, count| (name.to_string(), bytes, count);
        let expected = [sum("a/e", 50, 1), sum("a/b", 30, 2), sum("f", 30, 1)];
        assert_eq!(by_beginning(&summary, 2, ""), expected);
        assert_eq!(by_beginning(&summary, 1, "a/"), [sum("a", 80, 3)]);
        let table = [
            " Key Name      Count      Size",
            " ----          ----       ----",
            " a             3          80B",
            " ----          ----       ----",
            " Total                    80B",
        ];
        assert_eq!(sums_table("Key Name", &by_beginning(&summary, 1, "a/")), table.join("\n"));
    }
}
