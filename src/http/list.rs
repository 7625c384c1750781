//! Lists of a service's instances, encoded once for each change of a chunk and sent as often as they are asked for. What
//! is kept stands in the chunk's slot: filled by the first question of its kind, gone with the chunk. A list that is
//! picked or ordered by a parameter is written anew for each request instead, by `encode` alone, which is this room's
//! judge: the two say the same.
//!
//! Of each chunk its instances are kept as one JSON list, and that list as one gzip member. A group of several chunks is
//! put together from the insides of theirs:
//!
//! ```text
//! json    [ items ]                             [ items , items , items ]
//! gzip    head [ items ] last crc length        head [ items , items , items ] last crc length     brackets and commas
//!                                               are stored blocks; each chunk's items end on a whole byte (RFC 1951 §3.2.4)
//! ```

use std::{
    io::{self, Write},
    mem::take,
    sync::{Arc, OnceLock},
};

use bytes::Bytes;
use crc32fast::Hasher;
use flate2::{Compression, write::DeflateEncoder};
use tokio::sync::OnceCell;

use super::{
    encode::{self, Json},
    frames::Frames,
};
use crate::catalog::{Chunk, Group, Health, Instance};

/// Some of a group's instances, to be told.
pub struct List {
    chunks: Vec<Arc<Chunk>>,
    form: Form,
    passing: bool,
}

/// How an instance is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Form {
    /// With its checks, as under `/v1/health`.
    Health,
    /// In one with its node, as under `/v1/catalog`.
    Catalog,
}

/// Larger ones are compressed where nobody else waits for the thread.
pub const ZIP_BYTES_HERE_MAX: usize = 64 * 1024;

impl List {
    /// Of nobody, where there is no such group.
    pub fn of(group: Option<&Arc<Group>>, form: Form, passing: bool) -> List {
        List { chunks: group.map(|group| group.chunks().to_vec()).unwrap_or_default(), form, passing }
    }

    /// Of the JSON.
    pub fn bytes(&self) -> usize {
        let (runs, bytes) = self.runs().fold((0, 0), |(runs, bytes), run| (runs + 1, bytes + run.json.len()));
        // Each run has two brackets of its own; together they have two, and a comma between each pair.
        if runs == 0 { NOBODY.len() } else { bytes - (runs - 1) }
    }

    pub fn frames(&self) -> Frames {
        let mut runs = self.runs();
        let Some(first) = runs.next() else { return Frames::One(Bytes::from_static(NOBODY)) };
        let Some(second) = runs.next() else { return Frames::One(first.json.clone()) };
        let mut frames = vec![first.json.slice(..first.json.len() - 1)];
        for run in [second].into_iter().chain(runs) {
            frames.extend([Bytes::from_static(b","), run.json.slice(1..run.json.len() - 1)]);
        }
        frames.push(Bytes::from_static(b"]"));
        frames.into()
    }

    /// As one gzip member; `None` where that cannot be done.
    pub async fn zipped(&self) -> Option<Frames> {
        let mut members = Vec::new();
        for run in self.runs() {
            members.push(run.member().await?);
        }
        let (first, rest) = members.split_first()?;
        if rest.is_empty() {
            return Some(Frames::One(first.whole.clone()));
        }
        let mut check = Hasher::new();
        check.update(b"[");
        let mut frames = vec![Bytes::from_static(&HEAD), Bytes::from_static(&OPEN)];
        for (at, member) in members.iter().enumerate() {
            if at > 0 {
                check.update(b",");
                frames.push(Bytes::from_static(&COMMA));
            }
            check.combine(&member.check);
            frames.push(member.items.clone());
        }
        check.update(b"]");
        frames.push([&CLOSE[..], &end(check, self.bytes())].concat().into());
        Some(frames.into())
    }

    pub fn to_vec(&self) -> Vec<u8> {
        self.frames().to_vec()
    }

    fn runs(&self) -> impl Iterator<Item = &Run> {
        self.chunks.iter().filter_map(|chunk| Kept::of(chunk).run(chunk, self.form, self.passing))
    }
}

/// The list of nobody.
const NOBODY: &[u8] = b"[]";

/// What is kept of a chunk.
#[derive(Default)]
struct Kept {
    health: Runs,
    catalog: Runs,
}

#[derive(Default)]
struct Runs {
    all: OnceLock<Run>,
    passing: OnceLock<Passing>,
}

enum Passing {
    All,
    Some(Run),
    None,
}

/// Instances of one chunk, one at least.
struct Run {
    json: Bytes,
    member: OnceCell<Member>,
}

/// A run as a gzip member.
struct Member {
    whole: Bytes,
    /// What stands between the brackets.
    items: Bytes,
    /// Of the same.
    check: Hasher,
}

impl Kept {
    fn of(chunk: &Chunk) -> &Kept {
        let slot = chunk.http_slot().get_or_init(|| Box::new(Kept::default()));
        slot.downcast_ref().expect("nobody else fills this slot")
    }

    /// `None` where nobody passes.
    fn run(&self, chunk: &Chunk, form: Form, passing: bool) -> Option<&Run> {
        let runs = match form {
            Form::Health => &self.health,
            Form::Catalog => &self.catalog,
        };
        let all = || runs.all.get_or_init(|| Run::of(chunk.instances().iter(), form));
        if !passing {
            return Some(all());
        }
        match runs.passing.get_or_init(|| Passing::of(chunk, form)) {
            Passing::All => Some(all()),
            Passing::Some(run) => Some(run),
            Passing::None => None,
        }
    }
}

impl Passing {
    fn of(chunk: &Chunk, form: Form) -> Passing {
        let passes = |instance: &&Arc<Instance>| instance.health == Health::Passing;
        match chunk.instances().iter().filter(passes).count() {
            0 => Passing::None,
            count if count == chunk.instances().len() => Passing::All,
            _ => Passing::Some(Run::of(chunk.instances().iter().filter(passes), form)),
        }
    }
}

impl Run {
    fn of<'a>(instances: impl Iterator<Item = &'a Arc<Instance>>, form: Form) -> Run {
        let mut json = Json::default();
        json.list(|json| instances.for_each(|instance| form.write(json, instance)));
        let mut json = json.into_bytes();
        json.shrink_to_fit();
        Run { json: json.into(), member: OnceCell::new() }
    }

    /// Made now if it is not there yet; others who ask meanwhile wait for it.
    async fn member(&self) -> Option<&Member> {
        let make = || async {
            let json = self.json.clone();
            match json.len() <= ZIP_BYTES_HERE_MAX {
                true => Member::of(&json).map_err(drop),
                false => {
                    let made = tokio::task::spawn_blocking(move || Member::of(&json)).await;
                    made.map_err(drop)?.map_err(drop)
                }
            }
        };
        self.member.get_or_try_init(make).await.ok()
    }
}

impl Member {
    fn of(json: &[u8]) -> io::Result<Member> {
        let items = json.get(1..json.len() - 1).unwrap_or_default();
        let mut whole = Vec::with_capacity(json.len() / 8);
        whole.extend([&HEAD[..], &OPEN].concat());
        let before = whole.len();
        let mut encoder = DeflateEncoder::new(whole, Compression::fast());
        encoder.write_all(items)?;
        encoder.flush()?; // to a whole byte, and not the end
        let mut whole = take(encoder.get_mut());
        let after = whole.len();
        let (mut check, mut check_items) = (Hasher::new(), Hasher::new());
        check.update(json);
        check_items.update(items);
        whole.extend([&CLOSE[..], &end(check, json.len())].concat());
        whole.shrink_to_fit();
        let whole = Bytes::from(whole);
        Ok(Member { items: whole.slice(before..after), whole, check: check_items })
    }
}

impl Form {
    pub fn write(self, json: &mut Json, instance: &Instance) {
        match self {
            Form::Health => encode::instance(json, instance),
            Form::Catalog => encode::service_node(json, &instance.node, &instance.service),
        }
    }
}

/// Of a gzip member: deflate, no name, no time, any system (RFC 1952 §2.3).
const HEAD: [u8; 10] = [0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 0xff];
/// The last block of a member, empty.
const LAST: [u8; 2] = [3, 0];

const OPEN: [u8; 6] = stored(b'[');
const COMMA: [u8; 6] = stored(b',');
const CLOSE: [u8; 6] = stored(b']');

/// A block of one byte as it is (RFC 1951 §3.2.4).
const fn stored(byte: u8) -> [u8; 6] {
    [0, 1, 0, 0xfe, 0xff, byte]
}

/// What a member ends with: its last block, checksum and length.
fn end(check: Hasher, bytes: usize) -> Vec<u8> {
    [&LAST[..], &check.finalize().to_le_bytes(), &(bytes as u32).to_le_bytes()].concat()
}

#[cfg(test)]
mod tests {
    use std::io::Read;

    use flate2::bufread::GzDecoder;

    use super::*;
    use crate::catalog::{Catalog, Check, Command, Node, Register, Service, Status, Target};

    /// What `encode` says alone.
    fn judged(group: Option<&Arc<Group>>, form: Form, passing: bool) -> Vec<u8> {
        let mut json = Json::default();
        let instances = group.into_iter().flat_map(|group| group.instances());
        let told = instances.filter(|instance| !passing || instance.health == Health::Passing);
        json.list(|json| told.for_each(|instance| form.write(json, instance)));
        json.into_bytes()
    }

    /// One change to a service, of which about so many instances are there.
    fn change(random: &mut fastrand::Rng, instances: u32) -> Command {
        let node = format!("n{}", random.u32(..instances));
        if random.u32(..4) == 0 {
            return Command::Deregister { node: node.into(), target: Target::Node };
        }
        let status = ["passing", "passing", "passing", "critical"][random.usize(..4)];
        let check = Check {
            id: "c".into(),
            status: Status::from(status),
            output: "\"<é>\"".repeat(random.usize(..4)).into(),
            service_id: "web".into(),
            ..Check::default()
        };
        let service =
            Service { id: "web".into(), name: "web".into(), port: random.u16(..), ..Service::default() };
        let node = Node { name: node.into(), address: "10.0.0.1".into(), ..Node::default() };
        Command::Register(Box::new(Register {
            node,
            service: Some(service),
            checks: vec![check],
            ..Register::default()
        }))
    }

    /// Over catalogs of every size, with what is kept of one while the next is made.
    #[tokio::test]
    async fn what_is_kept_says_what_the_plain_way_says() {
        let mut random = fastrand::Rng::with_seed(11);
        let mut catalog = Catalog::default();
        let (mut zips, mut several) = (0, 0);
        for step in 0..4_000 {
            let (_, _) = catalog.apply(change(&mut random, if step < 3_000 { 1_500 } else { 2 }));
            if step % 601 != 0 && step < 3_980 {
                continue;
            }
            let published = catalog.clone();
            let group = published.service("web");
            several += usize::from(group.is_some_and(|group| group.chunks().len() > 1));
            for (form, passing) in
                [(Form::Health, false), (Form::Health, true), (Form::Catalog, false), (Form::Catalog, true)]
            {
                let (list, judge) = (List::of(group, form, passing), judged(group, form, passing));
                let told = list.to_vec();
                assert!(told == judge, "step {step}, {form:?}, passing {passing}");
                assert_eq!(list.bytes(), judge.len());
                let Some(zipped) = list.zipped().await else {
                    assert_eq!(told, NOBODY);
                    continue;
                };
                let zipped = zipped.to_vec();
                let mut unzipped = Vec::new();
                let mut decoder = GzDecoder::new(&*zipped);
                decoder.read_to_end(&mut unzipped).expect("a whole member");
                assert!(decoder.into_inner().is_empty(), "and one only");
                assert!(unzipped == judge, "step {step}, {form:?}, passing {passing}, unzipped");
                zips += 1;
            }
        }
        assert!(zips > 50 && several > 2, "{zips} {several}");
    }

    #[test]
    fn a_list_is_encoded_once_for_each_change_of_its_chunk() {
        let mut random = fastrand::Rng::with_seed(3);
        let mut catalog = Catalog::default();
        (0..2_000).for_each(|_| drop(catalog.apply(change(&mut random, 3_000))));
        let places = |catalog: &Catalog| -> Vec<*const u8> {
            let list = List::of(catalog.service("web"), Form::Health, false);
            list.runs().map(|run| run.json.as_ptr()).collect()
        };
        let first = places(&catalog);
        assert!(first.len() > 1 && places(&catalog.clone()) == first, "asked again, it is sent as it was");
        let home =
            catalog.service("web").and_then(|group| group.instances().next()).unwrap().node.name.clone();
        let gone = Command::Deregister { node: home, target: Target::Service("web".into()) };
        drop(catalog.apply(gone));
        let second = places(&catalog);
        assert!(
            second[0] != first[0] && second[1..] == first[1..],
            "only the changed chunk is encoded again"
        );
    }
}
