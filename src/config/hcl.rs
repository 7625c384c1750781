//! HCL 1, the syntax that Consul's files are written in: keys, blocks and values, without expressions. Newer HCL
//! readers refuse much of it (quoted keys, several keys on a line, repeated blocks), so this one is ours.

use std::sync::Arc;

use super::{
    json,
    tree::{Cursor, DEPTH_MAX, Kind, Member, SyntaxError, Value},
};

/// Reads a whole file. Repeated keys stay as written; who reads the tree says what they mean. A text that begins with
/// a brace is JSON, as HCL 1 has it.
///
/// # Errors
/// The first place where the text is no HCL.
pub fn parse(file: &Arc<str>, text: &str) -> Result<Value, SyntaxError> {
    let mut reader = Reader { cursor: Cursor::new(file, text) };
    if reader.cursor.rest().trim_start().starts_with('{') {
        return json::parse(file, text);
    }
    let place = reader.cursor.place();
    let members = reader.members(None, 0)?;
    Ok(Value { kind: Kind::Object(members), place })
}

struct Reader<'a> {
    cursor: Cursor<'a>,
}

type Read<T> = Result<T, SyntaxError>;

impl Reader<'_> {
    /// Keys and their values, up to `end` or the end of the file.
    fn members(&mut self, end: Option<char>, depth: usize) -> Read<Vec<Member>> {
        if depth > DEPTH_MAX {
            return Err(self.cursor.error(format!("nested deeper than {DEPTH_MAX}")));
        }
        let mut members = Vec::new();
        loop {
            self.skip_blank()?;
            match (self.cursor.peek(), end) {
                (None, None) => return Ok(members),
                (None, Some(end)) => {
                    return Err(self
                        .cursor
                        .error(format!("object expected closing RBRACE got: EOF; expected {end:?}")));
                }
                (Some(letter), Some(end)) if letter == end => {
                    self.cursor.next();
                    return Ok(members);
                }
                (Some(','), _) => drop(self.cursor.next()),
                _ => members.extend(self.member(depth)?),
            }
        }
    }

    /// `key = value`, `key { … }`, or `key "label" { … }`, which is an object within an object. A last line without a
    /// value says nothing.
    fn member(&mut self, depth: usize) -> Read<Option<Member>> {
        let place = self.cursor.place();
        let mut keys = vec![self.key()?];
        loop {
            self.skip_blank()?;
            match self.cursor.peek() {
                Some('=') => {
                    self.cursor.next();
                    self.skip_blank()?;
                    if self.cursor.peek().is_none() {
                        return Ok(None);
                    }
                    let value = self.value(depth + keys.len())?;
                    return Ok(Some(nest(keys, value)));
                }
                Some('{') => {
                    self.cursor.next();
                    let kind = Kind::Object(self.members(Some('}'), depth + keys.len())?);
                    return Ok(Some(nest(keys, Value { kind, place })));
                }
                Some(letter) if keys.len() <= DEPTH_MAX && (letter == '"' || is_key(letter)) => {
                    keys.push(self.key()?)
                }
                _ => {
                    let (found, key) = (self.cursor.found(), keys.concat());
                    return Err(self
                        .cursor
                        .error(format!("expected '=' or '{{' after the key {key:?}, found {found}")));
                }
            }
        }
    }

    fn key(&mut self) -> Read<String> {
        if self.cursor.peek() == Some('"') {
            return self.string();
        }
        let key = self.cursor.take_while(is_key);
        if key.is_empty() {
            return Err(self.cursor.error(format!("expected a key, found {}", self.cursor.found())));
        }
        Ok(key.to_string())
    }

    fn value(&mut self, depth: usize) -> Read<Value> {
        let place = self.cursor.place();
        let kind = match self.cursor.peek() {
            Some('"') => Kind::Text(self.string()?),
            Some('{') => {
                self.cursor.next();
                Kind::Object(self.members(Some('}'), depth)?)
            }
            Some('[') => self.list(depth)?,
            Some('<') => Kind::Text(self.heredoc()?),
            _ => self.word()?,
        };
        Ok(Value { kind, place })
    }

    fn list(&mut self, depth: usize) -> Read<Kind> {
        if depth > DEPTH_MAX {
            return Err(self.cursor.error(format!("nested deeper than {DEPTH_MAX}")));
        }
        self.cursor.next();
        let mut values = Vec::new();
        loop {
            self.skip_blank()?;
            match self.cursor.peek() {
                Some(']') => {
                    self.cursor.next();
                    return Ok(Kind::List(values));
                }
                Some(',') if !values.is_empty() => drop(self.cursor.next()),
                None => {
                    return Err(self.cursor.error("expected ']' at the end of a list, found end of file"));
                }
                _ => values.push(self.value(depth + 1)?),
            }
        }
    }

    /// A number, `true` or `false`.
    fn word(&mut self) -> Read<Kind> {
        let start = self.cursor.place();
        let word = self
            .cursor
            .take_while(|letter| letter.is_alphanumeric() || matches!(letter, '.' | '-' | '+' | '_'));
        let kind = match word {
            "true" => Some(Kind::Bool(true)),
            "false" => Some(Kind::Bool(false)),
            _ => number(word),
        };
        kind.ok_or_else(|| {
            let found = if word.is_empty() { self.cursor.found() } else { format!("{word:?}") };
            SyntaxError {
                place: start,
                text: format!(
                    "expected a value (string, number, true, false, list or object), found {found}"
                ),
            }
        })
    }

    fn string(&mut self) -> Read<String> {
        let start = self.cursor.place();
        self.cursor.next();
        let mut text = String::new();
        loop {
            match self.cursor.next() {
                Some('"') => return Ok(text),
                Some('\\') => text.push(self.cursor.escape()?),
                Some('\n') | None => {
                    return Err(SyntaxError {
                        place: start,
                        text: "a string that does not end on its line".into(),
                    });
                }
                Some(letter) => text.push(letter),
            }
        }
    }

    /// `<<END` to a line that says `END`; with `<<-END` that line may be indented, and where all lines are as much as
    /// it is, they lose that.
    fn heredoc(&mut self) -> Read<String> {
        let start = self.cursor.place();
        let fault = |text: &str| SyntaxError { place: start.clone(), text: text.into() };
        if !self.cursor.rest().starts_with("<<") {
            return Err(fault("expected a value, found '<'"));
        }
        self.cursor.next();
        self.cursor.next();
        let indented = self.cursor.eat('-');
        let end = self.cursor.take_while(|letter| letter != '\n').trim();
        if end.is_empty() || !self.cursor.eat('\n') {
            return Err(fault("expected a word and a new line after <<"));
        }
        let mut lines = Vec::new();
        let mut shared = loop {
            let line = self.cursor.take_while(|letter| letter != '\n');
            let closing = if indented { line.trim() } else { line.trim_end() };
            if closing == end {
                break &line[..line.len() - line.trim_start().len()];
            }
            if !self.cursor.eat('\n') {
                return Err(fault("a heredoc that does not end"));
            }
            lines.push(line.strip_suffix('\r').unwrap_or(line));
        };
        if !lines.iter().all(|line| line.starts_with(shared)) {
            shared = "";
        }
        Ok(lines.iter().map(|line| format!("{}\n", line.strip_prefix(shared).unwrap_or(line))).collect())
    }

    /// White space and comments.
    fn skip_blank(&mut self) -> Read<()> {
        loop {
            self.cursor.take_while(char::is_whitespace);
            let rest = self.cursor.rest();
            if rest.starts_with('#') || rest.starts_with("//") {
                self.cursor.take_while(|letter| letter != '\n');
            } else if rest.starts_with("/*") {
                let start = self.cursor.place();
                let Some(length) = rest.find("*/") else {
                    return Err(SyntaxError { place: start, text: "a comment that does not end".into() });
                };
                for _ in rest[..length + 2].chars() {
                    self.cursor.next();
                }
            } else {
                return Ok(());
            }
        }
    }
}

fn is_key(letter: char) -> bool {
    letter.is_alphanumeric() || matches!(letter, '_' | '-' | '.')
}

/// `a b { }` is `a { b { } }`.
fn nest(keys: Vec<String>, value: Value) -> Member {
    let mut keys = keys.into_iter().rev();
    let innermost = Member { key: keys.next().unwrap_or_default(), value };
    keys.fold(innermost, |inner, key| {
        let place = inner.value.place.clone();
        Member { key, value: Value { kind: Kind::Object(vec![inner]), place } }
    })
}

fn number(word: &str) -> Option<Kind> {
    let (sign, digits) = word.strip_prefix('-').map_or((1, word), |digits| (-1, digits));
    let hex = digits.strip_prefix("0x").or(digits.strip_prefix("0X"));
    if let Some(hex) = hex {
        if !hex.starts_with(|first: char| first.is_ascii_hexdigit()) {
            return None;
        }
        return i64::from_str_radix(hex, 16).ok().map(|value| Kind::Int(sign * value));
    }
    if !digits.starts_with(|first: char| first.is_ascii_digit()) {
        return None;
    }
    if digits.len() > 1 && digits.starts_with('0') && digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return i64::from_str_radix(digits, 8).ok().map(|value| Kind::Int(sign * value));
    }
    if let Ok(value) = word.parse::<i64>() {
        return Some(Kind::Int(value));
    }
    word.parse::<f64>().ok().filter(|value| value.is_finite()).map(Kind::Float)
}
