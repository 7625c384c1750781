//! One tree for everything that is configured, whichever syntax it was written in: each value knows where it stood.

use std::{fmt, sync::Arc};

/// A value and its place.
#[derive(Clone, Debug, PartialEq)]
pub struct Value {
    pub kind: Kind,
    pub place: Place,
}

#[derive(Clone, Debug, PartialEq)]
pub enum Kind {
    /// In the order written; HCL may say a key more than once.
    Object(Vec<Member>),
    List(Vec<Value>),
    Text(String),
    Int(i64),
    Float(f64),
    Bool(bool),
    Null,
}

#[derive(Clone, Debug, PartialEq)]
pub struct Member {
    pub key: String,
    pub value: Value,
}

/// A file, or the flag that stood for one; line and column count from 1, 0 where there are none. The default is no
/// place at all: what is wrong stands nowhere, or is missing.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Place {
    pub file: Arc<str>,
    pub line: u32,
    pub column: u32,
}

/// Text that is no tree, and where that shows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SyntaxError {
    pub place: Place,
    pub text: String,
}

/// Letters of a text that an error shows.
const SHOWN_MAX: usize = 80;

/// Values may be nested this deep.
pub const DEPTH_MAX: usize = 64;

impl Value {
    pub fn kind_word(&self) -> &'static str {
        match self.kind {
            Kind::Object(_) => "map",
            Kind::List(_) => "list",
            Kind::Text(_) => "string",
            Kind::Int(_) => "int",
            Kind::Float(_) => "float64",
            Kind::Bool(_) => "bool",
            Kind::Null => "null",
        }
    }

    /// As it would be printed in an error: short.
    pub fn shown(&self) -> String {
        match &self.kind {
            Kind::Text(text) => text.escape_debug().take(SHOWN_MAX).collect(),
            Kind::Int(number) => number.to_string(),
            Kind::Float(number) => number.to_string(),
            Kind::Bool(word) => word.to_string(),
            _ => self.kind_word().to_string(),
        }
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.line {
            0 => write!(f, "{}", self.file),
            _ => write!(f, "{}:{}:{}", self.file, self.line, self.column),
        }
    }
}

/// A text being read, letter by letter.
pub struct Cursor<'a> {
    text: &'a str,
    at: usize,
    line: u32,
    line_start: usize,
    file: Arc<str>,
}

impl<'a> Cursor<'a> {
    pub fn new(file: &Arc<str>, text: &'a str) -> Self {
        let text = text.strip_prefix('\u{feff}').unwrap_or(text);
        Cursor { text, at: 0, line: 1, line_start: 0, file: file.clone() }
    }

    pub fn peek(&self) -> Option<char> {
        self.text[self.at..].chars().next()
    }

    pub fn rest(&self) -> &'a str {
        &self.text[self.at..]
    }

    pub fn next(&mut self) -> Option<char> {
        let letter = self.peek()?;
        self.at += letter.len_utf8();
        if letter == '\n' {
            self.line += 1;
            self.line_start = self.at;
        }
        Some(letter)
    }

    pub fn eat(&mut self, letter: char) -> bool {
        let eaten = self.peek() == Some(letter);
        if eaten {
            self.next();
        }
        eaten
    }

    pub fn take_while(&mut self, keep: impl Fn(char) -> bool) -> &'a str {
        let start = self.at;
        while self.peek().is_some_and(&keep) {
            self.next();
        }
        &self.text[start..self.at]
    }

    pub fn place(&self) -> Place {
        let column = self.at.saturating_sub(self.line_start) as u32 + 1;
        Place { file: self.file.clone(), line: self.line, column }
    }

    pub fn error(&self, text: impl Into<String>) -> SyntaxError {
        SyntaxError { place: self.place(), text: text.into() }
    }

    /// The letter that stands here, for an error.
    pub fn found(&self) -> String {
        self.peek().map_or("end of file".into(), |letter| format!("{letter:?}"))
    }

    /// What follows a backslash, in either syntax.
    pub fn escape(&mut self) -> Result<char, SyntaxError> {
        Ok(match self.next() {
            Some('n') => '\n',
            Some('t') => '\t',
            Some('r') => '\r',
            Some('b') => '\u{8}',
            Some('f') => '\u{c}',
            Some('a') => '\u{7}',
            Some('v') => '\u{b}',
            Some(letter @ ('"' | '\\' | '/' | '\'')) => letter,
            Some('x') => self.code(2)?,
            Some('U') => self.code(8)?,
            Some(first @ '0'..='7') => self.octal(first)?,
            Some('u') => self.utf16()?,
            _ => return Err(self.error("unknown escape in a string")),
        })
    }

    /// Four digits, and four more where they are the first half of a pair. A half alone is no character.
    fn utf16(&mut self) -> Result<char, SyntaxError> {
        let code = self.hex(4)?;
        let is_low = |rest: &str| {
            let low = rest.strip_prefix("\\u").and_then(|rest| rest.get(..4));
            low.is_some_and(|low| matches!(u32::from_str_radix(low, 16), Ok(0xdc00..0xe000)))
        };
        if !(0xd800..0xdc00).contains(&code) || !is_low(self.rest()) {
            return Ok(char::from_u32(code).unwrap_or(char::REPLACEMENT_CHARACTER));
        }
        self.next();
        self.next();
        let low = self.hex(4)?;
        Ok(char::from_u32(0x10000 + ((code - 0xd800) << 10) + (low - 0xdc00))
            .unwrap_or(char::REPLACEMENT_CHARACTER))
    }

    /// Three digits, of which the first is read.
    fn octal(&mut self, first: char) -> Result<char, SyntaxError> {
        let mut code = first.to_digit(8).unwrap_or(0);
        for _ in 0..2 {
            let digit = self.next().and_then(|letter| letter.to_digit(8));
            code = code << 3 | digit.ok_or_else(|| self.error("expected an octal digit"))?;
        }
        char::from_u32(code).ok_or_else(|| self.error("an escape that is no character"))
    }

    fn code(&mut self, digits: usize) -> Result<char, SyntaxError> {
        let code = self.hex(digits)?;
        char::from_u32(code).ok_or_else(|| self.error("an escape that is no character"))
    }

    fn hex(&mut self, digits: usize) -> Result<u32, SyntaxError> {
        let mut value = 0u32;
        for _ in 0..digits {
            let digit = self.next().and_then(|letter| letter.to_digit(16));
            value = value << 4 | digit.ok_or_else(|| self.error("expected a hexadecimal digit"))?;
        }
        Ok(value)
    }
}
