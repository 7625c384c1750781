//! A master file (RFC 1035 §5.1) as entries of words, each with its line and column. Knows lines, comments,
//! parentheses, quotes and where an escape ends; not what any word means.

/// Where something stands; both count from 1.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct At {
    pub line: u32,
    pub column: u32,
}

/// What is wrong, and where.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Wrong {
    pub at: At,
    pub text: String,
}

/// A word as it is written, without the quotes around it. Its escapes are not resolved yet.
#[derive(Clone, Copy, Debug)]
pub struct Token<'a> {
    pub raw: &'a [u8],
    pub quoted: bool,
    pub at: At,
}

/// A line, or several within parentheses.
#[derive(Debug, Default)]
pub struct Entry<'a> {
    pub tokens: Vec<Token<'a>>,
    /// It begins with a blank: the owner is the one before.
    pub indented: bool,
    /// Where it ends.
    pub end: At,
}

pub struct Lexer<'a> {
    text: &'a [u8],
    next: usize,
    line: u32,
    line_start: usize,
}

impl<'a> Lexer<'a> {
    pub fn new(text: &'a [u8]) -> Self {
        let next = if text.starts_with(b"\xef\xbb\xbf") { 3 } else { 0 };
        Lexer { text, next, line: 1, line_start: next }
    }

    /// The next entry that has words; `None` at the end. After a fault it goes on with the next line.
    pub fn entry(&mut self) -> Option<Result<Entry<'a>, Wrong>> {
        match self.read_entry() {
            Ok(entry) if entry.tokens.is_empty() => None,
            Ok(entry) => Some(Ok(entry)),
            Err(wrong) => {
                while self.text.get(self.next).is_some_and(|byte| *byte != b'\n') {
                    self.next += 1;
                }
                Some(Err(wrong))
            }
        }
    }

    fn read_entry(&mut self) -> Result<Entry<'a>, Wrong> {
        let mut entry = Entry::default();
        let mut open: Vec<At> = Vec::new();
        while let Some(byte) = self.text.get(self.next) {
            let at = self.at();
            match byte {
                b'\n' if open.is_empty() && !entry.tokens.is_empty() => break,
                b'\n' => {
                    self.next += 1;
                    self.line += 1;
                    self.line_start = self.next;
                    entry.indented &= !entry.tokens.is_empty();
                }
                b' ' | b'\t' | b'\r' => {
                    entry.indented |= entry.tokens.is_empty() && self.next == self.line_start;
                    self.next += 1;
                }
                b';' => self.skip_comment(),
                b'(' if open.len() == DEPTH_MAX => return wrong(at, "parentheses nested too deep"),
                b'(' => {
                    open.push(at);
                    self.next += 1;
                }
                b')' if open.pop().is_none() => {
                    return wrong(at, "a ) that closes nothing; expected ( before it");
                }
                b')' => self.next += 1,
                b'"' => entry.tokens.push(self.read_quoted()?),
                _ => entry.tokens.push(self.read_word()?),
            }
        }
        entry.end = self.at();
        match open.first() {
            Some(at) => wrong(*at, "this ( is never closed; expected ) before the end of the file"),
            None => Ok(entry),
        }
    }

    fn at(&self) -> At {
        let column = self.next - self.line_start + 1;
        At { line: self.line, column: u32::try_from(column).unwrap_or(u32::MAX) }
    }

    fn skip_comment(&mut self) {
        while self.text.get(self.next).is_some_and(|byte| *byte != b'\n') {
            self.next += 1;
        }
    }

    fn read_quoted(&mut self) -> Result<Token<'a>, Wrong> {
        let (at, start) = (self.at(), self.next + 1);
        self.skip_quoted()?;
        Ok(Token { raw: &self.text[start..self.next - 1], quoted: true, at })
    }

    /// A `"` within a word opens a quoted part of it: `alpn="h2,h3"`.
    fn read_word(&mut self) -> Result<Token<'a>, Wrong> {
        let (at, start) = (self.at(), self.next);
        loop {
            match self.text.get(self.next) {
                None | Some(b' ' | b'\t' | b'\r' | b'\n' | b';' | b'(' | b')') => break,
                Some(b'"') => self.skip_quoted()?,
                Some(b'\\') => self.skip_escape()?,
                Some(_) => self.next += 1,
            }
        }
        Ok(Token { raw: &self.text[start..self.next], quoted: false, at })
    }

    fn skip_quoted(&mut self) -> Result<(), Wrong> {
        let at = self.at();
        self.next += 1;
        loop {
            match self.text.get(self.next) {
                None | Some(b'\n') => {
                    return wrong(at, "this \" is not closed; expected another before the line ends");
                }
                Some(b'"') => {
                    self.next += 1;
                    return Ok(());
                }
                Some(b'\\') => self.skip_escape()?,
                Some(_) => self.next += 1,
            }
        }
    }

    fn skip_escape(&mut self) -> Result<(), Wrong> {
        match self.text.get(self.next + 1) {
            None | Some(b'\n' | b'\r') => {
                wrong(self.at(), "a \\ at the end of a line; expected a letter or three digits after it")
            }
            Some(_) => {
                self.next += 2;
                Ok(())
            }
        }
    }
}

const DEPTH_MAX: usize = 16;

pub fn wrong<T>(at: At, text: impl Into<String>) -> Result<T, Wrong> {
    Err(Wrong { at, text: text.into() })
}

impl Token<'_> {
    /// As an error shows it: short.
    pub fn shown(&self) -> String {
        const SHOWN_MAX: usize = 60;
        let text = String::from_utf8_lossy(self.raw);
        let cut = if text.chars().count() > SHOWN_MAX { "…" } else { "" };
        let text: String = text.chars().take(SHOWN_MAX).flat_map(char::escape_debug).collect();
        format!("\"{text}{cut}\"")
    }

    /// What was found, and what was expected in its place.
    pub fn not<T>(&self, expected: &str) -> Result<T, Wrong> {
        wrong(self.at, format!("found {}; expected {expected}", self.shown()))
    }

    /// The word, where it is a plain one.
    pub fn word(&self) -> Option<&str> {
        if self.quoted { None } else { std::str::from_utf8(self.raw).ok() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Vec<String> {
        let mut lexer = Lexer::new(text.as_bytes());
        let shown = |entry: Entry| {
            let words = entry.tokens.iter().map(|token| {
                let quote = if token.quoted { "\"" } else { "" };
                let raw = String::from_utf8_lossy(token.raw);
                format!("{quote}{raw}{quote}@{}:{}", token.at.line, token.at.column)
            });
            format!("{}{}", if entry.indented { "> " } else { "" }, words.collect::<Vec<_>>().join(" "))
        };
        std::iter::from_fn(|| lexer.entry())
            .map(|entry| entry.map_or_else(|wrong| format!("{:?} {}", wrong.at, wrong.text), shown))
            .collect()
    }

    #[test]
    fn lines_words_and_places() {
        let table: &[(&str, &[&str])] = &[
            ("a b\n  c ; d\n\n;e\n\tf", &["a@1:1 b@1:3", "> c@2:3", "> f@5:2"]),
            ("a ( b ; x )\n c\n) d\r\ne", &["a@1:1 b@1:5 c@2:2 d@3:3", "e@4:1"]),
            ("  \na", &["a@2:1"]),
            ("t \"a;(b\" \"\" c\\;d", &["t@1:1 \"a;(b\"@1:3 \"\"@1:10 c\\;d@1:13"]),
            ("k=\"a b\" \"x\\\"y\"", &["k=\"a b\"@1:1 \"x\\\"y\"@1:9"]),
            ("", &[]),
        ];
        for (text, expected) in table {
            assert_eq!(read(text), *expected, "{text:?}");
        }
    }

    #[test]
    fn faults_do_not_hide_what_follows() {
        let at = |line, column| format!("{:?} ", At { line, column });
        for (text, place, then) in [
            ("a )\nb", at(1, 3), "b@2:1"),
            ("a \"b\nc", at(1, 3), "c@2:1"),
            ("a \\\nc", at(1, 3), "c@2:1"),
            (&format!("{}\nc", "(".repeat(20)), at(1, 17), "c@2:1"),
        ] {
            let found = read(text);
            assert!(found[0].starts_with(&place) && found[1] == then, "{text:?}: {found:?}");
        }
        assert!(read("a (\nb\n")[0].starts_with(&at(1, 3)), "where it was opened");
    }
}
