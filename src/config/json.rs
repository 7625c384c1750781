//! JSON (RFC 8259), into the same tree as HCL so that errors say where. Of a key said twice the last counts.

use std::sync::Arc;

use super::tree::{Cursor, DEPTH_MAX, Kind, Member, SyntaxError, Value};

/// Reads a whole file.
///
/// # Errors
/// The first place where the text is no JSON.
pub fn parse(file: &Arc<str>, text: &str) -> Result<Value, SyntaxError> {
    let mut reader = Reader { cursor: Cursor::new(file, text) };
    let value = reader.value(0)?;
    reader.skip_blank();
    match reader.cursor.peek() {
        None => Ok(value),
        Some(_) => {
            Err(reader.cursor.error(format!("expected the end of the file, found {}", reader.cursor.found())))
        }
    }
}

struct Reader<'a> {
    cursor: Cursor<'a>,
}

type Read<T> = Result<T, SyntaxError>;

impl Reader<'_> {
    fn value(&mut self, depth: usize) -> Read<Value> {
        self.skip_blank();
        if depth > DEPTH_MAX {
            return Err(self.cursor.error(format!("nested deeper than {DEPTH_MAX}")));
        }
        let place = self.cursor.place();
        let kind = match self.cursor.peek() {
            Some('{') => self.object(depth)?,
            Some('[') => self.list(depth)?,
            Some('"') => Kind::Text(self.string()?),
            Some(_) => self.word()?,
            None => return Err(self.cursor.error("unexpected end of JSON input")),
        };
        Ok(Value { kind, place })
    }

    fn object(&mut self, depth: usize) -> Read<Kind> {
        self.cursor.next();
        let mut members: Vec<Member> = Vec::new();
        let mut seen = ahash::AHashMap::new();
        self.skip_blank();
        if self.cursor.eat('}') {
            return Ok(Kind::Object(members));
        }
        loop {
            self.skip_blank();
            if self.cursor.peek() != Some('"') {
                return Err(self
                    .cursor
                    .error(format!("expected a key in double quotes, found {}", self.found())));
            }
            let key = self.string()?;
            self.skip_blank();
            if !self.cursor.eat(':') {
                return Err(self
                    .cursor
                    .error(format!("expected ':' after the key {key:?}, found {}", self.found())));
            }
            let value = self.value(depth + 1)?;
            match seen.get(&key) {
                Some(at) => members[*at] = Member { key, value },
                None => {
                    seen.insert(key.clone(), members.len());
                    members.push(Member { key, value });
                }
            }
            if self.ends('}')? {
                return Ok(Kind::Object(members));
            }
        }
    }

    fn list(&mut self, depth: usize) -> Read<Kind> {
        self.cursor.next();
        let mut values = Vec::new();
        self.skip_blank();
        if self.cursor.eat(']') {
            return Ok(Kind::List(values));
        }
        loop {
            values.push(self.value(depth + 1)?);
            if self.ends(']')? {
                return Ok(Kind::List(values));
            }
        }
    }

    /// After a member: `false` where another follows.
    fn ends(&mut self, end: char) -> Read<bool> {
        self.skip_blank();
        if self.cursor.eat(',') {
            return Ok(false);
        }
        if self.cursor.eat(end) {
            return Ok(true);
        }
        Err(self.cursor.error(format!("expected ',' or {end:?}, found {}", self.found())))
    }

    fn string(&mut self) -> Read<String> {
        self.cursor.next();
        let mut text = String::new();
        loop {
            match self.cursor.next() {
                Some('"') => return Ok(text),
                Some('\\')
                    if self.cursor.rest().starts_with(['"', '\\', '/', 'b', 'f', 'n', 'r', 't', 'u']) =>
                {
                    text.push(self.cursor.escape()?);
                }
                Some('\\') => return Err(self.cursor.error("unknown escape in a string")),
                Some(letter) if letter >= ' ' => text.push(letter),
                Some(_) => return Err(self.cursor.error("a control character in a string")),
                None => return Err(self.cursor.error("unexpected end of JSON input in a string")),
            }
        }
    }

    fn word(&mut self) -> Read<Kind> {
        let start = self.cursor.place();
        let part = |letter: char| letter.is_ascii_alphanumeric() || matches!(letter, '.' | '-' | '+');
        let word = self.cursor.take_while(part);
        let kind = match word {
            "true" => Some(Kind::Bool(true)),
            "false" => Some(Kind::Bool(false)),
            "null" => Some(Kind::Null),
            _ if !is_number(word) => None,
            _ => match word.parse() {
                Ok(number) => Some(Kind::Int(number)),
                Err(_) => word.parse().ok().filter(|number: &f64| number.is_finite()).map(Kind::Float),
            },
        };
        kind.ok_or_else(|| {
            let found = if word.is_empty() { self.found() } else { format!("{word:?}") };
            SyntaxError { place: start, text: format!("expected a value, found {found}") }
        })
    }

    fn skip_blank(&mut self) {
        self.cursor.take_while(|letter| matches!(letter, ' ' | '\t' | '\r' | '\n'));
    }

    fn found(&self) -> String {
        self.cursor.found()
    }
}

/// `-`? int frac? exp? (RFC 8259 §6).
fn is_number(word: &str) -> bool {
    let unsigned = word.strip_prefix('-').unwrap_or(word);
    let (mantissa, exponent) = match unsigned.split_once(['e', 'E']) {
        Some((mantissa, exponent)) => (mantissa, Some(exponent.strip_prefix(['+', '-']).unwrap_or(exponent))),
        None => (unsigned, None),
    };
    let (whole, fraction) = match mantissa.split_once('.') {
        Some((whole, fraction)) => (whole, Some(fraction)),
        None => (mantissa, None),
    };
    let digits = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    digits(whole)
        && (whole == "0" || !whole.starts_with('0'))
        && fraction.is_none_or(digits)
        && exponent.is_none_or(digits)
}
