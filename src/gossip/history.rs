//! The file of a pool: who was here, and the numbers that must not fall, so that an agent that starts again finds the
//! others without being told where they are. Lines are appended; each has its checksum, so what a sudden death tore is one
//! line at most, and it is cut off. Described in `docs/formats.md`.
//!
//! ```text
//! lictor members 1
//! 3f2a9c0e5b7d1146 {"here":{"name":"oak","address":"10.0.0.1:8301"}}
//! ```

use std::{
    collections::BTreeMap,
    fs::{File, OpenOptions},
    io::Write,
    net::SocketAddr,
    path::{Path, PathBuf},
};

use ring::digest::{SHA256, digest};
use serde::{Deserialize, Serialize};

use super::{
    file,
    settings::{Keep, Past},
};
use crate::catalog::Text;

pub struct History {
    path: PathBuf,
    /// Opened for appending; `None` where it must be written anew first.
    file: Option<File>,
    length: usize,
    /// At this length it is written anew, with what still counts.
    length_max: usize,
    past: Past,
    /// Who was here when this node left.
    parted: Peers,
}

type Peers = BTreeMap<Text, SocketAddr>;

/// The first form. Lines may be added that an older version passes over; none may change its meaning.
mod v1 {
    use std::net::SocketAddr;

    use super::{Deserialize, Serialize};
    use crate::catalog::Text;

    #[derive(Serialize, Deserialize)]
    #[serde(rename_all = "snake_case")]
    pub enum Line {
        Here { name: Text, address: SocketAddr },
        Gone { name: Text },
        Generation(u64),
        Clock(u64),
        Left,
    }
}

const FIRST_LINE: &str = "lictor members 1";
const LENGTH_MAX: usize = 128 << 10;

impl History {
    /// Reads it, or begins one. What cannot be read of it is logged and passed over: whoever starts must start. With
    /// `rejoin` a node that had left knows its former peers again.
    pub fn open(path: &Path, rejoin: bool) -> History {
        let bytes = file::read(path).unwrap_or_else(|error| {
            tracing::warn!(%error, "what was kept of the members cannot be read");
            None
        });
        let (mut past, mut parted) = match bytes.as_deref().map(read) {
            None => Default::default(),
            Some(Ok((past, parted, 0))) => (past, parted),
            Some(Ok((past, parted, cut))) => {
                let path = path.display();
                tracing::warn!(%path, lines = cut, "lines of what was kept of the members are damaged, and left out");
                (past, parted)
            }
            Some(Err(found)) => {
                let now = file::set_aside(path).map_or_else(|error| error, |path| path.display().to_string());
                tracing::warn!(path = %path.display(), found, now, "what was kept of the members is not of a form that \
                     this lictor reads; expected {FIRST_LINE:?}");
                Default::default()
            }
        };
        if rejoin && past.peers.is_empty() {
            past.peers = std::mem::take(&mut parted);
        }
        History { path: path.into(), file: None, length: 0, length_max: 0, past, parted }
    }

    pub fn past(&self) -> &Past {
        &self.past
    }

    /// What was said is on the disk when this returns; a power cut may still take it.
    ///
    /// # Errors
    /// Where it is not; the next time all of it is written anew.
    pub fn keep(&mut self, news: &[Keep]) -> Result<(), String> {
        let mut lines = String::new();
        for keep in news {
            remember(&mut self.past, &mut self.parted, keep);
            lines.push_str(&line(keep));
        }
        let Some(file) = self.file.as_mut().filter(|_| self.length + lines.len() <= self.length_max) else {
            return self.write_anew();
        };
        let written = file.write_all(lines.as_bytes()).map_err(file::named(&self.path));
        self.length += lines.len();
        written.inspect_err(|_| self.file = None)
    }

    fn write_anew(&mut self) -> Result<(), String> {
        self.file = None;
        let mut bytes = format!("{FIRST_LINE}\n");
        let Past { peers, generation, clock } = &self.past;
        let here =
            |(name, address): (&Text, &SocketAddr)| Keep::Here { name: name.clone(), address: *address };
        let mut all = vec![Keep::Generation(*generation), Keep::Clock(*clock)];
        if !self.parted.is_empty() {
            all.extend(self.parted.iter().map(here).chain([Keep::Left]));
        }
        all.extend(peers.iter().map(here));
        all.iter().for_each(|keep| bytes.push_str(&line(keep)));
        file::put(&self.path, bytes.as_bytes())?;
        let opened = OpenOptions::new().append(true).open(&self.path);
        self.file = Some(opened.map_err(file::named(&self.path))?);
        (self.length, self.length_max) = (bytes.len(), LENGTH_MAX.max(4 * bytes.len()));
        Ok(())
    }
}

/// What a file says, who was here when the node left, and how many of its lines are damaged.
fn read(bytes: &[u8]) -> Result<(Past, Peers, usize), String> {
    let mut lines = bytes.split_inclusive(|byte| *byte == b'\n');
    let first = String::from_utf8_lossy(lines.next().unwrap_or_default());
    if first.trim_end_matches('\n') != FIRST_LINE {
        // Of a file that is no text, a glance is enough.
        return Err(first.trim_end().chars().take(40).collect());
    }
    let (mut past, mut parted, mut damaged) = (Past::default(), Peers::new(), 0);
    for line in lines {
        match parse(line) {
            Ok(Some(keep)) => remember(&mut past, &mut parted, &keep),
            Ok(None) => {}
            Err(Damaged) => damaged += 1,
        }
    }
    Ok((past, parted, damaged))
}

fn remember(past: &mut Past, parted: &mut Peers, keep: &Keep) {
    match keep {
        Keep::Here { name, address } => {
            past.peers.insert(name.clone(), *address);
        }
        Keep::Gone { name } => drop(past.peers.remove(name)),
        Keep::Generation(generation) => past.generation = past.generation.max(*generation),
        Keep::Clock(clock) => past.clock = past.clock.max(*clock),
        Keep::Left if !past.peers.is_empty() => *parted = std::mem::take(&mut past.peers),
        Keep::Left => {}
    }
}

fn line(keep: &Keep) -> String {
    let line = match keep.clone() {
        Keep::Here { name, address } => v1::Line::Here { name, address },
        Keep::Gone { name } => v1::Line::Gone { name },
        Keep::Generation(generation) => v1::Line::Generation(generation),
        Keep::Clock(clock) => v1::Line::Clock(clock),
        Keep::Left => v1::Line::Left,
    };
    let json =
        serde_json::to_string(&line).expect("lines have text for keys, and no number that is none") + "\n";
    format!("{} {json}", checksum(json.as_bytes()))
}

struct Damaged;

/// `None` is a line that a newer version added.
fn parse(line: &[u8]) -> Result<Option<Keep>, Damaged> {
    let at = line.iter().position(|byte| *byte == b' ').ok_or(Damaged)?;
    let (sum, json) = (&line[..at], &line[at + 1..]);
    if checksum(json).as_bytes() != sum {
        return Err(Damaged);
    }
    Ok(serde_json::from_slice(json).ok().map(|line| match line {
        v1::Line::Here { name, address } => Keep::Here { name, address },
        v1::Line::Gone { name } => Keep::Gone { name },
        v1::Line::Generation(generation) => Keep::Generation(generation),
        v1::Line::Clock(clock) => Keep::Clock(clock),
        v1::Line::Left => Keep::Left,
    }))
}

/// The first 8 bytes of the SHA-256, in hexadecimal digits.
fn checksum(bytes: &[u8]) -> String {
    digest(&SHA256, bytes).as_ref()[..8].iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    struct Folder(PathBuf);

    impl Folder {
        fn new(name: &str) -> Folder {
            let path = std::env::temp_dir().join(format!("lictor-history-{name}-{}", std::process::id()));
            fs::create_dir_all(&path).unwrap();
            Folder(path)
        }

        fn file(&self) -> PathBuf {
            self.0.join("serf/local.snapshot")
        }
    }

    impl Drop for Folder {
        fn drop(&mut self) {
            fs::remove_dir_all(&self.0).unwrap();
        }
    }

    fn here(name: &str, port: u16) -> Keep {
        Keep::Here { name: name.into(), address: ([10, 0, 0, 1], port).into() }
    }

    #[test]
    fn what_is_kept_is_there_at_the_next_start() {
        let folder = Folder::new("kept");
        let mut history = History::open(&folder.file(), false);
        assert_eq!(history.past(), &Past::default());
        history.keep(&[here("oak", 1), here("elm", 2), Keep::Generation(7), Keep::Clock(9)]).unwrap();
        history.keep(&[Keep::Gone { name: "elm".into() }, here("oak", 3), Keep::Generation(5)]).unwrap();
        let past = history.past().clone();
        assert_eq!((past.generation, past.clock), (7, 9), "they never fall");
        assert_eq!(past.peers, [("oak".into(), ([10, 0, 0, 1], 3).into())].into());
        assert_eq!(History::open(&folder.file(), false).past(), &past);

        let mut history = History::open(&folder.file(), false);
        history.keep(&[Keep::Left]).unwrap();
        let past = History::open(&folder.file(), false).past().clone();
        assert!(past.peers.is_empty() && past.generation == 7, "whoever left is with nobody");
        for _ in 0..2 {
            let mut again = History::open(&folder.file(), true);
            assert_eq!(again.past().peers.len(), 1, "unless he wants to be");
            again.keep(&[Keep::Left]).unwrap();
        }
        let mut again = History::open(&folder.file(), false);
        again.keep(&[here("ash", 4)]).unwrap();
        let past = History::open(&folder.file(), false).past().clone();
        assert_eq!(past.peers.keys().map(|name| &**name).collect::<Vec<_>>(), ["ash"]);
    }

    #[test]
    fn it_does_not_grow_for_ever() {
        let folder = Folder::new("bound");
        let mut history = History::open(&folder.file(), false);
        for port in 0..20_000 {
            history.keep(&[here("oak", port)]).unwrap();
        }
        assert!(fs::metadata(folder.file()).unwrap().len() <= LENGTH_MAX as u64);
        assert_eq!(History::open(&folder.file(), false).past().peers.len(), 1);
    }

    /// Cut at any place, changed at any place: it starts, and knows what is whole.
    #[test]
    fn damage_costs_what_is_damaged() {
        let folder = Folder::new("damage");
        let mut history = History::open(&folder.file(), false);
        history.keep(&[]).unwrap();
        history.keep(&[here("oak", 1), here("elm", 2), Keep::Clock(9)]).unwrap();
        let whole = fs::read(folder.file()).unwrap();
        for at in 0..whole.len() {
            let cut = read(&whole[..at]);
            if at < FIRST_LINE.len() {
                assert!(cut.is_err());
            } else {
                let (past, _, damaged) = cut.unwrap();
                assert!(past.peers.len() <= 2 && damaged <= 1, "{at}");
            }
            let mut changed = whole.clone();
            changed[at] ^= 4;
            if at > FIRST_LINE.len() {
                let (past, _, damaged) = read(&changed).unwrap();
                assert!(past.peers.len() <= 2 && (1..=2).contains(&damaged), "{at}: {damaged}");
            }
        }
        fs::write(folder.file(), &whole[..whole.len() - 5]).unwrap();
        let mut history = History::open(&folder.file(), false);
        assert_eq!((history.past().peers.len(), history.past().clock), (2, 0));
        history.keep(&[here("ash", 3)]).unwrap();
        let (past, _, damaged) = read(&fs::read(folder.file()).unwrap()).unwrap();
        assert_eq!((past.peers.len(), damaged), (3, 0), "the torn line is cut off");
    }

    #[test]
    fn another_form_is_set_aside() {
        let folder = Folder::new("aside");
        for bytes in [&b"lictor members 2\nwhatever\n"[..], b"alive: oak 10.0.0.1:8301\n", b"\0\xff"] {
            fs::create_dir_all(folder.0.join("serf")).unwrap();
            fs::write(folder.file(), bytes).unwrap();
            let mut history = History::open(&folder.file(), false);
            assert_eq!(history.past(), &Past::default());
            assert!(!folder.file().exists());
            assert_eq!(fs::read(folder.0.join("serf/local.snapshot.unreadable")).unwrap(), bytes);
            history.keep(&[here("oak", 1)]).unwrap();
        }
    }

    #[test]
    fn lines_that_are_not_known_yet_are_passed_over() {
        let json = "{\"planted\":{\"year\":1999}}\n";
        let file = format!("{FIRST_LINE}\n{} {json}{}", checksum(json.as_bytes()), line(&here("oak", 1)));
        let (past, _, damaged) = read(file.as_bytes()).unwrap();
        assert_eq!((past.peers.len(), damaged), (1, 0));
    }

    #[test]
    fn kept_files_of_every_version_are_read() {
        let kept = include_bytes!("../../tests/formats/v3/serf/local.snapshot");
        let (past, _, damaged) = read(kept).unwrap();
        let peers = [
            ("elm".into(), "[2001:db8::2]:8301".parse().unwrap()),
            ("oak".into(), ([10, 0, 0, 1], 8301).into()),
        ];
        let expected = Past { peers: peers.into(), generation: 1_795_000_000_000, clock: 42 };
        assert_eq!((past, damaged), (expected, 0));
    }
}
