//! The grammar of filters (`http-api.md` §4), read in one pass from left to right. What was expected is told of the
//! furthest place that was reached.
//!
//! ```text
//! any   := all { "or" all }          all := not { "and" not }          not := "not" not | "(" any ")" | match
//! match := Sel "==" V | Sel "is empty" | V "in" Sel | Sel "contains" V | Sel "matches" V, each also denied
//! ```

use std::{collections::BTreeSet, str::Chars};

/// An expression as it was written, not yet held against what it selects from.
#[derive(Clone, Debug, PartialEq)]
pub enum Tree {
    Any(Vec<Tree>),
    All(Vec<Tree>),
    Not(Box<Tree>),
    Match(Clause),
}

/// One comparison.
#[derive(Clone, Debug, PartialEq)]
pub struct Clause {
    pub selector: Vec<String>,
    pub operator: Operator,
    pub denied: bool,
    /// Without its quotes; empty for `is empty`.
    pub value: String,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Operator {
    Equal,
    In,
    Empty,
    Matches,
}

/// Longer expressions are refused.
pub const EXPRESSION_BYTES_MAX: usize = 16 * 1024;
/// So many parentheses and `not` may stand within one another.
pub const DEPTH_MAX: usize = 64;

/// # Errors
/// Where the text leaves the grammar, as line, column and offset, and what was expected there.
pub fn parse(text: &str) -> Result<Tree, String> {
    if text.len() > EXPRESSION_BYTES_MAX {
        return Err(format!("the expression is longer than {EXPRESSION_BYTES_MAX} bytes"));
    }
    let mut parser = Parser { text, at: 0, depth: 0, furthest: 0, expected: BTreeSet::new() };
    parser.whole().map_err(|stop| match stop {
        Stop::Fault(fault) => fault,
        Stop::NoMatch => parser.no_match(),
    })
}

struct Parser<'a> {
    text: &'a str,
    at: usize,
    depth: usize,
    /// The furthest place where something was expected, and what it was.
    furthest: usize,
    expected: BTreeSet<&'static str>,
}

enum Stop {
    /// Not this; something else may stand here.
    NoMatch,
    /// Whatever else may stand here, this is wrong.
    Fault(String),
}

type Parsed<T> = Result<T, Stop>;

const BLANKS: &str = r"[ \t\r\n]";
const LETTER: &str = "[a-zA-Z]";
const END: &str = "EOF";
/// Each with its denial.
const COMPARED: [(Operator, &str); 2] = [(Operator::In, "contains"), (Operator::Matches, "matches")];

impl Parser<'_> {
    fn whole(&mut self) -> Parsed<Tree> {
        self.blanks();
        let tree = self.any()?;
        self.blanks();
        if self.at == self.text.len() { Ok(tree) } else { self.miss(END) }
    }

    fn any(&mut self) -> Parsed<Tree> {
        let mut trees = vec![self.all()?];
        while self.words(&["or"]) {
            trees.push(self.all()?);
        }
        Ok(if trees.len() == 1 { trees.remove(0) } else { Tree::Any(trees) })
    }

    fn all(&mut self) -> Parsed<Tree> {
        let mut trees = vec![self.not()?];
        while self.words(&["and"]) {
            trees.push(self.not()?);
        }
        Ok(if trees.len() == 1 { trees.remove(0) } else { Tree::All(trees) })
    }

    /// `not` may also be a word that is looked for (`not in Tags`).
    fn not(&mut self) -> Parsed<Tree> {
        let start = self.at;
        if self.token("not") && self.blanks() {
            match self.within(Self::not) {
                Ok(tree) => return Ok(Tree::Not(tree.into())),
                Err(Stop::NoMatch) => {}
                fault => return fault,
            }
        }
        self.at = start;
        self.group()
    }

    fn group(&mut self) -> Parsed<Tree> {
        if !self.token("(") {
            return self.comparison().map(Tree::Match);
        }
        self.blanks();
        let tree = self.within(Self::any)?;
        self.blanks();
        if self.token(")") { Ok(tree) } else { self.fault("grouping", "Unmatched parentheses") }
    }

    /// One step further in.
    fn within(&mut self, read: impl FnOnce(&mut Self) -> Parsed<Tree>) -> Parsed<Tree> {
        if self.depth == DEPTH_MAX {
            return Err(Stop::Fault(format!("the expression is nested deeper than {DEPTH_MAX}")));
        }
        self.depth += 1;
        let tree = read(self);
        self.depth -= 1;
        tree
    }

    fn comparison(&mut self) -> Parsed<Clause> {
        let start = self.at;
        match self.selector_first() {
            Err(Stop::NoMatch) => self.at = start,
            done => return done,
        }
        let value = self.value()?;
        let denied = self.words(&["not", "in"]);
        if !denied && !self.words(&["in"]) {
            return Err(Stop::NoMatch);
        }
        match self.selector() {
            Err(Stop::NoMatch) => self.fault("match", "Invalid selector"),
            selector => Ok(Clause { selector: selector?, operator: Operator::In, denied, value }),
        }
    }

    fn selector_first(&mut self) -> Parsed<Clause> {
        let selector = self.selector()?;
        for (denied, words) in [(false, &["is", "empty"][..]), (true, &["is", "not", "empty"])] {
            if self.last_words(words) {
                return Ok(Clause { selector, operator: Operator::Empty, denied, value: String::new() });
            }
        }
        let (operator, denied) = self.operator()?;
        Ok(Clause { selector, operator, denied, value: self.value()? })
    }

    /// Of those that a value follows.
    fn operator(&mut self) -> Parsed<(Operator, bool)> {
        let start = self.at;
        for (token, denied) in [("==", false), ("!=", true)] {
            self.blanks();
            if self.token(token) {
                self.blanks();
                return Ok((Operator::Equal, denied));
            }
            self.at = start;
        }
        for (operator, word) in COMPARED {
            let denied = self.words(&["not", word]);
            if denied || self.words(&[word]) {
                return Ok((operator, denied));
            }
        }
        Err(Stop::NoMatch)
    }

    fn selector(&mut self) -> Parsed<Vec<String>> {
        let mut path = vec![self.word()?];
        loop {
            let start = self.at;
            if self.token(".") {
                match self.word() {
                    Ok(word) => path.push(word),
                    Err(_) => {
                        self.at = start;
                        return Ok(path);
                    }
                }
            } else if self.token("[") {
                path.push(self.index()?);
            } else {
                return Ok(path);
            }
        }
    }

    fn index(&mut self) -> Parsed<String> {
        self.blanks();
        let Some(key) = self.quoted()? else { return self.fault("index", "Invalid index") };
        self.blanks();
        if self.token("]") { Ok(key) } else { self.fault("index", "Unclosed index expression") }
    }

    fn value(&mut self) -> Parsed<String> {
        let start = self.at;
        if self.word().is_ok() {
            loop {
                let end = self.at;
                if !self.token(".") || self.word().is_err() {
                    self.at = end;
                    return Ok(self.text[start..end].into());
                }
            }
        }
        if let Some(number) = self.number()? {
            return Ok(number);
        }
        match self.quoted()? {
            Some(text) => Ok(text),
            None => self.miss("\""),
        }
    }

    fn word(&mut self) -> Parsed<String> {
        let rest = self.rest();
        if !rest.starts_with(|c: char| c.is_ascii_alphabetic()) {
            return self.miss(LETTER);
        }
        let is_part = |c: char| c.is_ascii_alphanumeric() || c == '_';
        let word = &rest[..rest.find(|c| !is_part(c)).unwrap_or(rest.len())];
        let word = word.to_string();
        self.at += word.len();
        Ok(word)
    }

    fn number(&mut self) -> Parsed<Option<String>> {
        let rest = self.rest();
        let digits = |text: &str| text.bytes().take_while(u8::is_ascii_digit).count();
        let sign = usize::from(rest.starts_with('-'));
        let mut end = sign
            + match rest.as_bytes().get(sign) {
                Some(b'0') => 1,
                _ => digits(&rest[sign..]),
            };
        if end == sign {
            self.note("[0-9]");
            return Ok(None);
        }
        if rest[end..].starts_with('.') {
            let fraction = digits(&rest[end + 1..]);
            end += if fraction > 0 { fraction + 1 } else { 0 };
        }
        let number = rest[..end].to_string();
        self.at += end;
        let ends = |c: char| c == ')' || is_blank(c);
        match self.rest().chars().next().is_none_or(ends) {
            true => Ok(Some(number)),
            false => self.fault("number", "Invalid number literal"),
        }
    }

    fn quoted(&mut self) -> Parsed<Option<String>> {
        let Some(quote) = self.rest().chars().next().filter(|c| matches!(c, '"' | '`')) else {
            self.note("`");
            return Ok(None);
        };
        let Some(length) = self.rest()[1..].find(quote) else {
            self.at = self.text.len();
            return self.fault("string", "Unterminated string literal");
        };
        let inside = &self.rest()[1..=length];
        let text = if quote == '`' { Some(inside.replace('\r', "")) } else { unescape(inside) };
        let Some(text) = text else { return self.fault("string", "invalid syntax") };
        self.at += length + 2;
        Ok(Some(text))
    }

    /// These words in this order, with blanks before, between and after them; or nothing is taken.
    fn words(&mut self, words: &[&'static str]) -> bool {
        let start = self.at;
        let found = self.last_words(words) && self.blanks();
        if !found {
            self.at = start;
        }
        found
    }

    /// As [`words`](Self::words); anything may follow.
    fn last_words(&mut self, words: &[&'static str]) -> bool {
        let start = self.at;
        let found = words.iter().all(|word| self.blanks() && self.token(word));
        if !found {
            self.at = start;
        }
        found
    }

    fn token(&mut self, token: &'static str) -> bool {
        let found = self.rest().starts_with(token);
        if found {
            self.at += token.len();
        } else {
            self.note(token);
        }
        found
    }

    /// Whether there were any.
    fn blanks(&mut self) -> bool {
        let rest = self.rest();
        let length = rest.find(|c| !is_blank(c)).unwrap_or(rest.len());
        self.at += length;
        self.note(BLANKS);
        length > 0
    }

    fn rest(&self) -> &str {
        &self.text[self.at..]
    }

    fn note(&mut self, label: &'static str) {
        if self.at > self.furthest {
            self.furthest = self.at;
            self.expected.clear();
        }
        if self.at == self.furthest {
            self.expected.insert(label);
        }
    }

    fn miss<T>(&mut self, label: &'static str) -> Parsed<T> {
        self.note(label);
        Err(Stop::NoMatch)
    }

    fn fault<T>(&self, rule: &str, fault: &str) -> Parsed<T> {
        Err(Stop::Fault(format!("{}: rule {rule:?}: {fault}", self.place(self.at))))
    }

    fn no_match(&self) -> String {
        let is_class = |label: &str| label.len() > 1 && label.starts_with('[');
        let shown = |label: &&str| match *label {
            label if label == END || is_class(label) => label.to_string(),
            token => format!("{token:?}"),
        };
        let mut expected: Vec<String> = self.expected.iter().map(shown).collect();
        expected.sort();
        let last = expected.pop().unwrap_or_default();
        let list = if expected.is_empty() { last } else { format!("{} or {last}", expected.join(", ")) };
        format!("{}: no match found, expected: {list}", self.place(self.furthest))
    }

    /// Line and column count from 1, columns in characters; the offset counts bytes from 0.
    fn place(&self, at: usize) -> String {
        let before = &self.text[..at];
        let line = before.matches('\n').count() + 1;
        let column = before.rsplit('\n').next().unwrap_or_default().chars().count() + 1;
        format!("{line}:{column} ({at})")
    }
}

fn is_blank(c: char) -> bool {
    matches!(c, ' ' | '\t' | '\r' | '\n')
}

/// What stands between double quotes, with Go's escapes; bytes that are no UTF-8 become U+FFFD.
fn unescape(text: &str) -> Option<String> {
    let (mut bytes, mut rest) = (Vec::with_capacity(text.len()), text.chars());
    while let Some(c) = rest.next() {
        match c {
            '\n' => return None,
            '\\' => escape(&mut rest, &mut bytes)?,
            c => bytes.extend_from_slice(c.encode_utf8(&mut [0; 4]).as_bytes()),
        }
    }
    Some(String::from_utf8_lossy(&bytes).into_owned())
}

/// What follows a backslash.
fn escape(rest: &mut Chars, bytes: &mut Vec<u8>) -> Option<()> {
    let kind = rest.next()?;
    let mut number = |first: u32, digits: u32, radix: u32| {
        (0..digits).try_fold(first, |number, _| Some(number * radix + rest.next()?.to_digit(radix)?))
    };
    match kind {
        '0'..='7' => bytes.push(u8::try_from(number(kind.to_digit(8)?, 2, 8)?).ok()?),
        'x' => bytes.push(number(0, 2, 16)? as u8),
        'u' | 'U' => {
            let c = char::from_u32(number(0, if kind == 'u' { 4 } else { 8 }, 16)?)?;
            bytes.extend_from_slice(c.encode_utf8(&mut [0; 4]).as_bytes());
        }
        kind => bytes.push(*b"\x07\x08\x0c\n\r\t\x0b\\\"".get("abfnrtv\\\"".find(kind)?)?),
    }
    Some(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn clause(selector: &str, operator: Operator, denied: bool, value: &str) -> Tree {
        let selector = selector.split('|').map(String::from).collect();
        Tree::Match(Clause { selector, operator, denied, value: value.into() })
    }

    #[test]
    fn comparisons_are_read() {
        use Operator::*;
        let table = [
            ("a==b", "a", Equal, false, "b"),
            (" a != \"b c\"\n", "a", Equal, true, "b c"),
            ("a == `b\"\\n`", "a", Equal, false, "b\"\\n"),
            ("a == \"\\x41\\u00e9\\t\\\\\\101\\U0001F600\"", "a", Equal, false, "Aé\t\\A😀"),
            ("a.b_1 == -12.50", "a|b_1", Equal, false, "-12.50"),
            ("a[\"b-c\"][ `d` ].e == b.c.d", "a|b-c|d|e", Equal, false, "b.c.d"),
            ("a is empty", "a", Empty, false, ""),
            ("a is\tnot\r\nempty", "a", Empty, true, ""),
            ("a contains b", "a", In, false, "b"),
            ("a not contains 1", "a", In, true, "1"),
            ("b in a", "a", In, false, "b"),
            ("\"b\" not in a", "a", In, true, "b"),
            ("a matches `^b`", "a", Matches, false, "^b"),
            ("a not matches b", "a", Matches, true, "b"),
            // Words of the grammar may be looked for, and be names.
            ("not in a", "a", In, false, "not"),
            ("not == not", "not", Equal, false, "not"),
            ("in in in", "in", In, false, "in"),
            ("or.and contains is", "or|and", In, false, "is"),
        ];
        for (text, selector, operator, denied, value) in table {
            assert_eq!(parse(text), Ok(clause(selector, operator, denied, value)), "{text}");
        }
    }

    #[test]
    fn and_binds_tighter_than_or() {
        let [a, b, c] = ["a", "b", "c"].map(|name| clause(name, Operator::Empty, false, ""));
        let not = |tree: &Tree| Tree::Not(tree.clone().into());
        let table = [
            (
                "a is empty or b is empty and c is empty",
                Tree::Any(vec![a.clone(), Tree::All(vec![b.clone(), c.clone()])]),
            ),
            (
                "(a is empty or b is empty )\tand (c is empty)",
                Tree::All(vec![Tree::Any(vec![a.clone(), b.clone()]), c.clone()]),
            ),
            ("not a is empty and b is empty", Tree::All(vec![not(&a), b.clone()])),
            ("not ( a is empty and b is empty)", not(&Tree::All(vec![a.clone(), b.clone()]))),
            ("not not a is empty", not(&not(&a))),
            ("a is empty or b is empty or c is empty", Tree::Any(vec![a, b, c])),
        ];
        for (text, tree) in table {
            assert_eq!(parse(text), Ok(tree), "{text}");
        }
    }

    #[test]
    fn faults_name_their_place() {
        let operators = r#""!=", "==", "contains", "in", "is", "matches", "not" or [ \t\r\n]"#;
        let table = [
            ("ServiceName web", format!("1:13 (12): no match found, expected: {operators}")),
            (
                "a is empty and\nbö",
                r#"2:2 (16): no match found, expected: "!=", ".", "==", "[" or [ \t\r\n]"#.into(),
            ),
            ("", "1:1 (0): no match found, expected: \"(\", \"\\\"\", \"`\", \"not\", [ \\t\\r\\n], [0-9] or [a-zA-Z]".into()),
            ("(a is empty", "1:12 (11): rule \"grouping\": Unmatched parentheses".into()),
            ("(a is empty)and b is empty", "1:13 (12): no match found, expected: EOF or [ \\t\\r\\n]".into()),
            ("not(a is empty)", "1:4 (3): no match found, expected: \"!=\", \".\", \"==\", \"[\" or [ \\t\\r\\n]".into()),
            ("a == 1x", "1:7 (6): rule \"number\": Invalid number literal".into()),
            ("a == 01", "1:7 (6): rule \"number\": Invalid number literal".into()),
            ("a in 7", "1:6 (5): rule \"match\": Invalid selector".into()),
            ("a == \"\\'\"", "1:6 (5): rule \"string\": invalid syntax".into()),
            ("a == \"\\\"\"", "1:6 (5): rule \"string\": invalid syntax".into()),
            ("a == \"x\ny\"", "1:6 (5): rule \"string\": invalid syntax".into()),
            ("a == `x", "1:8 (7): rule \"string\": Unterminated string literal".into()),
            ("a[b] == x", "1:3 (2): rule \"index\": Invalid index".into()),
            ("a[\"b\" == x", "1:7 (6): rule \"index\": Unclosed index expression".into()),
            ("a == 'x'", "1:6 (5): no match found, expected: \"\\\"\", \"`\", [ \\t\\r\\n], [0-9] or [a-zA-Z]".into()),
        ];
        for (text, fault) in table {
            assert_eq!(parse(text), Err(fault), "{text}");
        }
    }

    #[test]
    fn expressions_have_bounds() {
        let nested = |depth| format!("{}a is empty{}", "(".repeat(depth), ")".repeat(depth));
        assert!(parse(&nested(DEPTH_MAX)).is_ok());
        assert_eq!(parse(&nested(DEPTH_MAX + 1)), Err("the expression is nested deeper than 64".into()));
        assert!(parse(&format!("{}a is empty", "not ".repeat(DEPTH_MAX))).is_ok());
        assert!(parse(&format!("{}a is empty", "not ".repeat(4000))).is_err());
        assert!(parse(&"(".repeat(EXPRESSION_BYTES_MAX)).is_err());
        assert!(parse(&format!("a == {}", "x".repeat(EXPRESSION_BYTES_MAX - 5))).is_ok());
        let long = parse(&format!("a == {}", "x".repeat(EXPRESSION_BYTES_MAX - 4)));
        assert_eq!(long, Err("the expression is longer than 16384 bytes".into()));
        // As many as fit, side by side.
        assert!(parse(&["a is empty"; 1000].join(" or ")).is_ok());
    }
}
