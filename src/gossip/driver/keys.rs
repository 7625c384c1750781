//! The keyring of a running pool: what operators ask of all members goes to them as a query, and each answers when its own
//! file would survive a power cut. One step after the other: which key is in use never depends on which disk was faster.

use std::{
    collections::{HashMap, VecDeque},
    path::{Path, PathBuf},
};

use serde::{Deserialize, Serialize};
use tokio::sync::oneshot;

use crate::{
    catalog::Text,
    gossip::{
        file,
        keyring::{Key, Keyring, Operation, Report, Said},
        machine::Query,
        pool::Encryption,
    },
};

/// The name of such queries.
pub const QUERY: &str = "keyring";

/// What travels. Versions may be added; whoever does not know one says so.
#[derive(Serialize, Deserialize)]
enum Asked {
    V1(Operation),
}

#[derive(Serialize, Deserialize)]
enum Answered {
    V1(Said),
}

/// Whom a member's answer is for.
pub enum To {
    Origin(Query),
    Here(oneshot::Sender<Report>),
}

/// What waits for the disk, and for others.
pub struct Keys {
    file: Option<PathBuf>,
    waiting: VecDeque<(Operation, To)>,
    writing: Option<(Keyring, To)>,
    /// By query.
    gathered: HashMap<u64, Gathering>,
    queries: u64,
}

struct Gathering {
    report: Report,
    reply: oneshot::Sender<Report>,
}

/// What is to be done now.
pub enum Step {
    /// Put the keyring into its file, then call [`Keys::written`].
    Write(PathBuf, String),
    /// It is the keyring from now on.
    Use(Keyring),
    Respond(Query, Vec<u8>),
}

/// Operators are few; whoever asks for more is told to come again.
const WAITING_MAX: usize = 64;
const GATHERED_MAX: usize = 64;

impl Keys {
    pub fn new(file: Option<PathBuf>) -> Keys {
        Keys { file, waiting: VecDeque::new(), writing: None, gathered: HashMap::new(), queries: 0 }
    }

    /// Something that all members are to do: the query that asks them, unless too many are under way.
    pub fn ask(
        &mut self,
        operation: Operation,
        members: usize,
        reply: oneshot::Sender<Report>,
        own: &Text,
    ) -> Option<(u64, Vec<u8>)> {
        self.gathered.retain(|_, gathering| !gathering.reply.is_closed());
        if self.gathered.len() >= GATHERED_MAX {
            say(To::Here(reply), Said::Refused("too many changes of keyrings are under way".into()), own);
            return None;
        }
        let payload = encode(&Asked::V1(operation));
        self.queries += 1;
        self.gathered.insert(self.queries, Gathering { report: Report::of(members), reply });
        Some((self.queries, payload))
    }

    /// Another member's answer to our query. With the last one it is over.
    pub fn answered(&mut self, query: u64, from: &Text, payload: &[u8]) {
        let Some(gathering) = self.gathered.get_mut(&query) else { return };
        let said = postcard::from_bytes(payload).map_or_else(
            |_| Said::Refused("its answer is of a form that this lictor does not read".into()),
            |Answered::V1(said)| said,
        );
        gathering.report.add(from, said);
        if gathering.report.answered >= gathering.report.members {
            self.over(query);
        }
    }

    pub fn over(&mut self, query: u64) {
        if let Some(Gathering { report, reply }) = self.gathered.remove(&query) {
            let _nobody_waits = reply.send(report);
        }
    }

    /// What another member asks us, or we ourselves.
    pub fn asked(&mut self, query: Query, keyring: &Keyring, own: &Text) -> Vec<Step> {
        match postcard::from_bytes(&query.payload) {
            Ok(Asked::V1(operation)) => self.add(operation, To::Origin(query), keyring, own),
            Err(_) => {
                let why = Said::Refused("the request is of a form that this lictor does not read".into());
                vec![Step::Respond(query, encode(&Answered::V1(why)))]
            }
        }
    }

    pub fn add(&mut self, operation: Operation, to: To, keyring: &Keyring, own: &Text) -> Vec<Step> {
        if self.waiting.len() >= WAITING_MAX {
            let why = "too many changes of the keyring wait for the disk".into();
            return Vec::from_iter(say(to, Said::Refused(why), own));
        }
        self.waiting.push_back((operation, to));
        self.next(keyring, own)
    }

    /// The file is written, or is not.
    pub fn written(&mut self, outcome: Result<(), String>, keyring: &Keyring, own: &Text) -> Vec<Step> {
        let Some((after, to)) = self.writing.take() else { return Vec::new() };
        let mut steps = Vec::new();
        let now = match outcome {
            Ok(()) => {
                steps.extend(say(to, Said::Keys(after.keys().to_vec()), own));
                // Before the answer goes: whoever knows of a new key must be understood.
                steps.insert(0, Step::Use(after.clone()));
                after
            }
            Err(error) => {
                tracing::error!(%error, "the keyring cannot be kept, and stays as it was");
                steps.extend(say(to, Said::Refused(error), own));
                keyring.clone()
            }
        };
        steps.extend(self.next(&now, own));
        steps
    }

    fn next(&mut self, keyring: &Keyring, own: &Text) -> Vec<Step> {
        let (mut steps, mut now) = (Vec::new(), keyring.clone());
        while self.writing.is_none() {
            let Some((operation, to)) = self.waiting.pop_front() else { break };
            match (now.after(&operation), &self.file) {
                (Err(refusal), _) => steps.extend(say(to, Said::Refused(refusal.to_string()), own)),
                (Ok(after), Some(file)) if after != now => {
                    steps.push(Step::Write(file.clone(), after.json()));
                    self.writing = Some((after, to));
                }
                (Ok(after), _) => {
                    if after != now {
                        steps.push(Step::Use(after.clone()));
                        now = after;
                    }
                    steps.extend(say(to, Said::Keys(now.keys().to_vec()), own));
                }
            }
        }
        steps
    }
}

fn say(to: To, said: Said, own: &Text) -> Option<Step> {
    match to {
        To::Origin(query) => Some(Step::Respond(query, encode(&Answered::V1(said)))),
        To::Here(reply) => {
            let mut report = Report::of(1);
            report.add(own, said);
            let _nobody_waits = reply.send(report);
            None
        }
    }
}

fn encode(value: &impl Serialize) -> Vec<u8> {
    postcard::to_allocvec(value).expect("a form of bounded size goes into memory")
}

/// The keyring that a pool starts with: its file's, if it has one; else the key that the configuration has, and from then
/// on the file.
///
/// # Errors
/// What is wrong with the file.
pub fn keyring_of(encryption: &Encryption) -> Result<Keyring, String> {
    let from_key = Keyring::new(encryption.key.clone());
    let Some(path) = &encryption.keyring else { return Ok(from_key) };
    match read(path)? {
        Some(kept) => {
            let differs = |key: &Key| !kept.keys().contains(key);
            if encryption.key.as_ref().is_some_and(differs) {
                tracing::warn!(path = %path.display(), "the keyring has a file, so the key of the configuration is \
                     not used; remove the file to begin with that key");
            }
            Ok(kept)
        }
        None if from_key.is_empty() => Ok(from_key),
        None => file::put(path, from_key.json().as_bytes()).map(|()| from_key),
    }
}

fn read(path: &Path) -> Result<Option<Keyring>, String> {
    let Some(bytes) = file::read(path)? else { return Ok(None) };
    Keyring::parse(&bytes).map(Some).map_err(|fault| format!("{}: {fault}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(byte: u8) -> Key {
        Key::of(vec![byte; 16]).unwrap()
    }

    fn ask(
        keys: &mut Keys,
        operation: Operation,
        keyring: &Keyring,
    ) -> (Vec<Step>, oneshot::Receiver<Report>) {
        let (reply, answer) = oneshot::channel();
        (keys.add(operation, To::Here(reply), keyring, &"oak".into()), answer)
    }

    /// The second change begins when the first one is on the disk, and from what that came to.
    #[test]
    fn one_change_after_the_other_is_written() {
        let (mut keys, own) = (Keys::new(Some("serf/local.keyring".into())), Text::from("oak"));
        let ring = Keyring::new(Some(key(1)));
        let (steps, mut installed) = ask(&mut keys, Operation::Install(key(2)), &ring);
        assert!(matches!(&steps[..], [Step::Write(_, json)] if json.matches('=').count() == 4));
        let (steps, mut used) = ask(&mut keys, Operation::Use(key(2)), &ring);
        assert!(steps.is_empty() && installed.try_recv().is_err());
        let steps = keys.written(Ok(()), &ring, &own);
        let [Step::Use(ring), Step::Write(..)] = &steps[..] else { panic!("{}", steps.len()) };
        assert_eq!(installed.try_recv().unwrap().keys.len(), 2);
        assert!(used.try_recv().is_err());
        let steps = keys.written(Ok(()), ring, &own);
        assert!(matches!(&steps[..], [Step::Use(ring)] if ring.primary() == Some(&key(2))));
        assert_eq!(used.try_recv().unwrap().primary, [(key(2).base64(), 1)].into());
    }

    #[test]
    fn what_cannot_be_kept_is_not_done() {
        let (mut keys, own) = (Keys::new(Some("serf/local.keyring".into())), Text::from("oak"));
        let ring = Keyring::new(Some(key(1)));
        let (_, mut installed) = ask(&mut keys, Operation::Install(key(2)), &ring);
        assert!(keys.written(Err("no space left".into()), &ring, &own).is_empty());
        assert_eq!(installed.try_recv().unwrap().refused[&own], "no space left");
        // What changes nothing needs no disk.
        let (steps, mut listed) = ask(&mut keys, Operation::List, &ring);
        assert!(steps.is_empty() && listed.try_recv().unwrap().keys.len() == 1);
    }

    #[test]
    fn changes_that_wait_have_an_end() {
        let mut keys = Keys::new(Some("serf/local.keyring".into()));
        let ring = Keyring::new(Some(key(1)));
        let mut waiting: Vec<_> =
            (2..=100).map(|byte| ask(&mut keys, Operation::Install(key(byte)), &ring).1).collect();
        let refused = waiting.iter_mut().filter_map(|answer| answer.try_recv().ok()).count();
        assert_eq!(refused, 99 - 1 - WAITING_MAX);
    }

    #[test]
    fn a_query_is_over_with_the_last_answer_or_its_deadline() {
        let (mut keys, own) = (Keys::new(None), Text::from("oak"));
        let said = encode(&Answered::V1(Said::Keys(vec![key(1)])));
        let (reply, mut answer) = oneshot::channel();
        let (first, payload) = keys.ask(Operation::List, 2, reply, &own).unwrap();
        assert!(matches!(postcard::from_bytes(&payload), Ok(Asked::V1(Operation::List))));
        keys.answered(first, &"oak".into(), &said);
        keys.answered(first, &"elm".into(), b"\xff");
        let report = answer.try_recv().unwrap();
        assert_eq!((report.answered, report.refused.len()), (2, 1));
        let (reply, mut answer) = oneshot::channel();
        let (second, _) = keys.ask(Operation::List, 2, reply, &own).unwrap();
        keys.answered(second, &"oak".into(), &said);
        keys.answered(first, &"elm".into(), &said);
        keys.over(second);
        assert_eq!(answer.try_recv().unwrap().fault().as_deref(), Some("1/2 nodes reported success"));
        assert!(keys.gathered.is_empty());
    }
}
