//! A master file (RFC 1035 §5, RFC 2308 §4), and what it includes, becomes a zone, or a list of all that is wrong with
//! it. Reads no file itself: it is given a way to.

use std::sync::Arc;

use super::{
    Fault, Opened,
    lex::{At, Entry, Lexer, Token, Wrong, wrong},
    rdata, text,
    zone::{Record, Zone},
};
use crate::dns::wire::kind;

/// Of a zone, over all its files.
pub const RECORDS_MAX: usize = 500_000;
/// Files within files.
const DEPTH_MAX: usize = 8;
/// More faults than these nobody reads at once.
const FAULTS_MAX: usize = 20;

/// A file, and where in it.
pub type Place = (Arc<str>, At);

/// A file, read.
pub struct Read {
    pub zone: Result<Zone, Vec<Fault>>,
    /// The zone's name, lower-cased, and where it is said: known of most files that are wrong, too.
    pub name: Option<(Vec<u8>, Place)>,
}

/// How a file that another includes is come by: the including file, and the word that stands there.
pub type Open<'a> = &'a mut dyn FnMut(&str, &str) -> Result<Opened, String>;

/// Reads a file and all that it includes. Names before any `$ORIGIN` are relative to `origin`.
pub fn read(file: Arc<str>, text: &[u8], origin: Option<Vec<u8>>, open: Open) -> Read {
    let mut reader = Reader {
        open,
        origin,
        owner: None,
        owner_is_wrong: false,
        default_secs: None,
        last_secs: None,
        name: None,
        records: Vec::new(),
        places: Vec::new(),
        faults: Vec::new(),
    };
    reader.read_file(&file, text, 0);
    let Reader { mut faults, records, places, name, .. } = reader;
    let built = Zone::build(records).map_err(|wrongs| {
        let of = |(place, text): (usize, String)| match places.get(place) {
            Some((file, at)) => Fault { file: file.clone(), at: *at, text },
            None => Fault { file: file.clone(), at: At { line: 1, column: 1 }, text },
        };
        wrongs.into_iter().map(of).collect::<Vec<Fault>>()
    });
    let zone = match built {
        Ok(zone) if faults.is_empty() => Ok(zone),
        // Of half a zone only nonsense could follow.
        Err(wrongs) if faults.is_empty() => Err(wrongs),
        _ => {
            faults.truncate(FAULTS_MAX);
            Err(faults)
        }
    };
    Read { zone, name }
}

struct Reader<'a> {
    open: Open<'a>,
    origin: Option<Vec<u8>>,
    owner: Option<Vec<u8>>,
    owner_is_wrong: bool,
    /// Of `$TTL`.
    default_secs: Option<u32>,
    /// Of the last record that says one.
    last_secs: Option<u32>,
    name: Option<(Vec<u8>, Place)>,
    records: Vec<Record>,
    /// Where each record stands.
    places: Vec<Place>,
    faults: Vec<Fault>,
}

impl Reader<'_> {
    fn read_file(&mut self, file: &Arc<str>, text: &[u8], depth: usize) {
        let mut lexer = Lexer::new(text);
        while let Some(entry) = lexer.entry() {
            let read = entry.and_then(|entry| self.read_entry(file, &entry, depth));
            if let Err(Wrong { at, text }) = read {
                self.faults.push(Fault { file: file.clone(), at, text });
            }
            if self.faults.len() >= FAULTS_MAX {
                return;
            }
        }
    }

    fn read_entry(&mut self, file: &Arc<str>, entry: &Entry, depth: usize) -> Result<(), Wrong> {
        let [first, rest @ ..] = &entry.tokens[..] else { return Ok(()) };
        let directive = first.word().filter(|word| word.starts_with('$') && !entry.indented);
        match directive.map(str::to_ascii_uppercase).as_deref() {
            Some("$ORIGIN") => {
                let [name] = rest else { return one_word(rest, entry, "a name") };
                self.origin = Some(text::name(name, self.origin.as_deref())?);
                Ok(())
            }
            Some("$TTL") => {
                let [secs] = rest else { return one_word(rest, entry, "seconds") };
                self.default_secs = Some(text::span(secs)?);
                Ok(())
            }
            Some("$INCLUDE") => self.include(file, rest, entry, depth),
            Some(_) => first.not("$ORIGIN, $TTL or $INCLUDE"),
            None => self.read_record(file, entry),
        }
    }

    /// `$INCLUDE file [origin]`: origin and owner are as before afterwards.
    fn include(
        &mut self,
        file: &Arc<str>,
        words: &[Token],
        entry: &Entry,
        depth: usize,
    ) -> Result<(), Wrong> {
        let (path, origin) = match words {
            [path] => (path, self.origin.clone()),
            [path, origin] => (path, Some(text::name(origin, self.origin.as_deref())?)),
            [_, _, more, ..] => return more.not("nothing after the origin"),
            [] => return wrong(entry.end, "nothing after $INCLUDE; expected a file"),
        };
        if depth == DEPTH_MAX {
            return path.not(&format!("files at most {DEPTH_MAX} deep within one another"));
        }
        let word =
            String::from_utf8(text::bytes(path)?).or_else(|_| path.not("a file whose name is UTF-8"))?;
        let opened = (self.open)(file, &word);
        let opened =
            opened.or_else(|error| wrong(path.at, format!("cannot include {}: {error}", path.shown())))?;
        let before = (std::mem::replace(&mut self.origin, origin), self.owner.clone());
        self.read_file(&opened.file, &opened.text, depth + 1);
        (self.origin, self.owner) = before;
        Ok(())
    }

    /// `[owner] [TTL] [class] type data`, TTL and class in any order.
    fn read_record(&mut self, file: &Arc<str>, entry: &Entry) -> Result<(), Wrong> {
        let mut words = &entry.tokens[..];
        let start = words.first().map_or(entry.end, |word| word.at);
        if !entry.indented
            && let Some((owner, rest)) = words.split_first()
        {
            let read = text::name(owner, self.origin.as_deref());
            self.owner_is_wrong = read.is_err();
            self.owner = Some(read?);
            words = rest;
        }
        if self.owner_is_wrong {
            return Ok(()); // which was said
        }
        let Some(owner) = self.owner.clone() else {
            return wrong(start, "a record without an owner; expected a name at the beginning of the line");
        };
        let (mut said_secs, mut said_class) = (None, false);
        let (kind, data) = loop {
            let Some((word, rest)) = words.split_first() else {
                return wrong(entry.end, "the record ends here; expected a type");
            };
            words = rest;
            match word.word() {
                Some(digits) if said_secs.is_none() && digits.starts_with(|c: char| c.is_ascii_digit()) => {
                    said_secs = Some(text::span(word)?);
                }
                Some(class) if !said_class && is_class(class) => {
                    if !class.eq_ignore_ascii_case("IN") && !class.eq_ignore_ascii_case("CLASS1") {
                        return word.not("class IN");
                    }
                    said_class = true;
                }
                other => match other.and_then(rdata::type_of) {
                    Some(kind) if rdata::is_meta(kind) => return word.not("a type that a zone may hold"),
                    Some(kind) => break (kind, rest),
                    None => return word.not("a type, such as A or TYPE65280"),
                },
            }
        };
        if kind == kind::SOA && self.name.is_none() {
            self.name = Some((owner.to_ascii_lowercase(), (file.clone(), start)));
        }
        let data = rdata::read(kind, data, self.origin.as_deref(), entry.end)?;
        // A SOA that says no TTL has that of negative answers (its last number), as it had before RFC 2308.
        let of_soa =
            || (kind == kind::SOA).then(|| data.wire.last_chunk().map(|bytes| u32::from_be_bytes(*bytes)))?;
        self.last_secs = said_secs.or(self.last_secs);
        let Some(ttl_secs) = said_secs.or(self.default_secs).or(self.last_secs).or_else(of_soa) else {
            return wrong(start, "a record without a TTL; expected one here, or $TTL before it");
        };
        if self.records.len() == RECORDS_MAX {
            return wrong(start, format!("more than {RECORDS_MAX} records in a zone"));
        }
        let place = self.places.len();
        self.places.push((file.clone(), start));
        self.records.push(Record { owner, kind, ttl_secs, data, place });
        Ok(())
    }
}

fn one_word<T>(words: &[Token], entry: &Entry, expected: &str) -> Result<T, Wrong> {
    match words {
        [_, more, ..] => more.not("nothing more on this line"),
        _ => wrong(entry.end, format!("the line ends here; expected {expected}")),
    }
}

fn is_class(word: &str) -> bool {
    let numbered = word.get(..5).is_some_and(|head| head.eq_ignore_ascii_case("CLASS"))
        && word[5..].bytes().all(|byte| byte.is_ascii_digit());
    numbered || ["IN", "CH", "HS", "CS"].iter().any(|class| class.eq_ignore_ascii_case(word))
}

/// The name that a file is called by: `example.org.zone` is about `example.org.`
pub fn origin_of(file_name: &str) -> Option<Vec<u8>> {
    let stem = file_name.strip_suffix(".zone").unwrap_or(file_name);
    let raw = format!("{}.", stem.trim_end_matches('.'));
    text::name(&Token { raw: raw.as_bytes(), quoted: false, at: At::default() }, None).ok()
}
