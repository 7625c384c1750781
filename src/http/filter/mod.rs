//! `?filter=`: expressions that choose from a list (`http-api.md` §4). One is read and held against the kind of records
//! that the list shows before any is looked at; records are then looked into as they are, without writing them out.
//! What a kind of record shows stands in `shape`; nothing here knows routes or the catalog as a whole.

#[cfg(test)]
mod fuzz;
mod parse;
mod shape;

use regex::{Regex, RegexBuilder};

use super::query::parse_flag;
use parse::{Clause, Operator, Tree};
use shape::{Field, Found, Kind};

pub use shape::{AgentMember, CatalogService, HealthCheck, HealthService, NodeRecord, ServiceRecord, Shape};

/// What a list is to show; everything where nothing was asked.
pub struct Filter<S: Shape>(Option<Chosen<S::Record>>);

/// Why an expression is refused, in Consul's words.
#[derive(Debug, PartialEq, thiserror::Error)]
#[error("Failed to create boolean expression evaluator: {0}")]
pub struct Invalid(String);

enum Chosen<T> {
    Any(Vec<Chosen<T>>),
    All(Vec<Chosen<T>>),
    Not(Box<Chosen<T>>),
    Match { field: Field<T>, test: Test, denied: bool },
}

enum Test {
    Text(String),
    Flag(bool),
    Number(i128),
    In(String),
    Empty,
    Matches(Regex),
}

/// Of one expression; each is compiled before anything is read.
const REGEXES_MAX: usize = 32;
/// Of one regular expression, compiled, and of what it remembers while it runs.
const REGEX_BYTES_MAX: usize = 256 * 1024;

impl<S: Shape> Filter<S> {
    /// # Errors
    /// Where the expression leaves the grammar, selects what the records do not have, compares what cannot be compared,
    /// or is too large.
    pub fn parse(text: &str) -> Result<Self, Invalid> {
        let mut regexes_left = REGEXES_MAX;
        let tree = parse::parse(text).map_err(Invalid)?;
        Ok(Filter(Some(choose::<S>(tree, &mut regexes_left).map_err(Invalid)?)))
    }

    pub fn everything() -> Self {
        Filter(None)
    }

    pub fn shows(&self, record: &S::Record) -> bool {
        self.0.as_ref().is_none_or(|chosen| chosen.holds(record))
    }
}

fn choose<S: Shape>(tree: Tree, regexes_left: &mut usize) -> Result<Chosen<S::Record>, String> {
    let mut each = |trees: Vec<Tree>| -> Result<Vec<_>, String> {
        trees.into_iter().map(|tree| choose::<S>(tree, regexes_left)).collect()
    };
    Ok(match tree {
        Tree::Any(trees) => Chosen::Any(each(trees)?),
        Tree::All(trees) => Chosen::All(each(trees)?),
        Tree::Not(tree) => Chosen::Not(choose::<S>(*tree, regexes_left)?.into()),
        Tree::Match(clause) => {
            let selector = clause.selector.join(".");
            let path: Vec<&str> = clause.selector.iter().map(String::as_str).collect();
            let field = S::field(&path).ok_or_else(|| format!("Selector {selector:?} is not valid"))?;
            let test = test(field.kind, &clause, &selector, regexes_left)?;
            Chosen::Match { field, test, denied: clause.denied }
        }
    })
}

/// What can be asked of a kind of value.
fn test(kind: Kind, clause: &Clause, selector: &str, regexes_left: &mut usize) -> Result<Test, String> {
    let Clause { value, denied, .. } = clause;
    let wrong = |type_name: &str, fault: &str| {
        let value = format!("{value:?}");
        format!(
            "Failed to coerce value {value} for selector {selector:?}: strconv.Parse{type_name}: parsing {value}: {fault}"
        )
    };
    Ok(match (clause.operator, kind) {
        (Operator::Equal, Kind::Text) => Test::Text(value.clone()),
        (Operator::Equal, Kind::Flag) => {
            Test::Flag(parse_flag(value).ok_or_else(|| wrong("Bool", "invalid syntax"))?)
        }
        (Operator::Equal, Kind::Number) => Test::Number(number(value).map_err(|fault| wrong("Int", fault))?),
        (Operator::In, Kind::Text | Kind::Texts | Kind::Keys) => Test::In(value.clone()),
        (Operator::Empty, Kind::Texts | Kind::Keys | Kind::List) => Test::Empty,
        (Operator::Matches, Kind::Text) => Test::Matches(regex(value, regexes_left)?),
        (operator, _) => {
            let name = match (operator, denied) {
                (Operator::Equal, false) => "Equal",
                (Operator::Equal, true) => "Not Equal",
                (Operator::In, false) => "In",
                (Operator::In, true) => "Not In",
                (Operator::Empty, false) => "Is Empty",
                (Operator::Empty, true) => "Is Not Empty",
                (Operator::Matches, false) => "Matches",
                (Operator::Matches, true) => "Not Matches",
            };
            return Err(format!("Invalid match operator {name:?} for selector {selector:?}"));
        }
    })
}

/// A number as Go reads it where nobody says of which base it is.
fn number(text: &str) -> Result<i128, &'static str> {
    let (sign, digits) = match text.strip_prefix('-') {
        Some(digits) => (-1, digits),
        None => (1, text.strip_prefix('+').unwrap_or(text)),
    };
    let prefixed = |prefix: &str| digits.get(..2).filter(|start| start.eq_ignore_ascii_case(prefix));
    let (radix, digits) = match () {
        () if prefixed("0x").is_some() => (16, &digits[2..]),
        () if prefixed("0b").is_some() => (2, &digits[2..]),
        () if prefixed("0o").is_some() => (8, &digits[2..]),
        () if digits.len() > 1 && digits.starts_with('0') => (8, &digits[1..]),
        () => (10, digits),
    };
    if digits.is_empty() || !digits.chars().all(|c| c.is_digit(radix)) {
        return Err("invalid syntax");
    }
    let number = i128::from_str_radix(digits, radix).ok().map(|number| sign * number);
    number.filter(|number| i64::try_from(*number).is_ok()).ok_or("value out of range")
}

fn regex(text: &str, left: &mut usize) -> Result<Regex, String> {
    *left = left.checked_sub(1).ok_or_else(|| format!("more than {REGEXES_MAX} regular expressions"))?;
    pattern(text).map_err(|fault| format!("Failed to compile regular expression {text:?}: {fault}"))
}

/// A pattern that a client gave us, bounded.
///
/// # Errors
/// What is wrong with it.
pub fn pattern(text: &str) -> Result<Regex, String> {
    let mut builder = RegexBuilder::new(text);
    builder.size_limit(REGEX_BYTES_MAX).dfa_size_limit(REGEX_BYTES_MAX);
    builder.build().map_err(|error| {
        let text = error.to_string();
        // Of several lines that show the place, the last one says what is wrong.
        let fault = text.lines().last().unwrap_or_default();
        format!("error parsing regexp: {}", fault.strip_prefix("error: ").unwrap_or(fault))
    })
}

impl<T: 'static> Chosen<T> {
    fn holds(&self, record: &T) -> bool {
        match self {
            Chosen::Any(chosen) => chosen.iter().any(|chosen| chosen.holds(record)),
            Chosen::All(chosen) => chosen.iter().all(|chosen| chosen.holds(record)),
            Chosen::Not(chosen) => !chosen.holds(record),
            Chosen::Match { field, test, denied } => field.any(record, &|found| test.holds(&found, *denied)),
        }
    }
}

impl Test {
    fn holds(&self, found: &Found, denied: bool) -> bool {
        let holds = match (self, found) {
            // Whatever is not there matches, and does not match, whatever the pattern.
            (Test::Matches(_), Found::Missing) => return true,
            (Test::Text(wanted), Found::Text(text)) => wanted == text,
            (Test::Flag(wanted), Found::Flag(flag)) => wanted == flag,
            (Test::Number(wanted), Found::Number(number)) => wanted == number,
            (Test::In(part), Found::Text(text)) => text.contains(part.as_str()),
            (Test::In(item), Found::Texts(texts)) => texts.iter().any(|text| **text == **item),
            (Test::In(key), Found::Keys { has, .. }) => has(key),
            (Test::Empty, Found::Texts(texts)) => texts.is_empty(),
            (Test::Empty, Found::Keys { is_empty, .. } | Found::List { is_empty }) => *is_empty,
            (Test::Matches(regex), Found::Text(text)) => regex.is_match(text),
            _ => false,
        };
        holds != denied
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn invalid<S: Shape>(text: &str) -> String {
        let fault = Filter::<S>::parse(text).err().expect(text).to_string();
        fault.strip_prefix("Failed to create boolean expression evaluator: ").expect("the prefix").into()
    }

    #[test]
    fn faults_are_consuls() {
        let table = [
            ("Foo == 1", r#"Selector "Foo" is not valid"#),
            ("serviceName == 1", r#"Selector "serviceName" is not valid"#),
            ("ServiceName.x == 1", r#"Selector "ServiceName.x" is not valid"#),
            (r#"NodeMeta["a-b"].c == 1"#, r#"Selector "NodeMeta.a-b.c" is not valid"#),
            ("ServicePeerName == x", r#"Selector "ServicePeerName" is not valid"#),
            ("ServiceTags == x", r#"Invalid match operator "Equal" for selector "ServiceTags""#),
            ("ServiceTags matches x", r#"Invalid match operator "Matches" for selector "ServiceTags""#),
            ("ServiceName is empty", r#"Invalid match operator "Is Empty" for selector "ServiceName""#),
            ("Node is not empty", r#"Invalid match operator "Is Not Empty" for selector "Node""#),
            ("ServiceWeights != 1", r#"Invalid match operator "Not Equal" for selector "ServiceWeights""#),
            ("8 not in ServicePort", r#"Invalid match operator "Not In" for selector "ServicePort""#),
            ("8 in ServicePort", r#"Invalid match operator "In" for selector "ServicePort""#),
            (
                "ServicePort not matches 8",
                r#"Invalid match operator "Not Matches" for selector "ServicePort""#,
            ),
            (
                "ServicePort == abc",
                r#"Failed to coerce value "abc" for selector "ServicePort": strconv.ParseInt: parsing "abc": invalid syntax"#,
            ),
            (
                "ServicePort == 80.5",
                r#"Failed to coerce value "80.5" for selector "ServicePort": strconv.ParseInt: parsing "80.5": invalid syntax"#,
            ),
            (
                "ServicePort == 9223372036854775808",
                r#"Failed to coerce value "9223372036854775808" for selector "ServicePort": strconv.ParseInt: parsing "9223372036854775808": value out of range"#,
            ),
            (
                "ServiceEnableTagOverride == yes",
                r#"Failed to coerce value "yes" for selector "ServiceEnableTagOverride": strconv.ParseBool: parsing "yes": invalid syntax"#,
            ),
            (
                "ServiceName matches `[`",
                r#"Failed to compile regular expression "[": error parsing regexp: unclosed character class"#,
            ),
        ];
        for (text, fault) in table {
            assert_eq!(invalid::<CatalogService>(text), fault, "{text}");
        }
        assert!(invalid::<HealthService>("Foo.Bar == x").contains("Selector \"Foo.Bar\""));
        assert!(invalid::<HealthService>("Service.Proxy == x").contains("operator \"Equal\""));
    }

    #[test]
    fn patterns_have_bounds() {
        let large = invalid::<NodeRecord>("Node matches `(a{1000}){1000}`");
        assert!(large.contains("Compiled regex exceeds size limit"), "{large}");
        let many = |count| vec!["Node matches a"; count].join(" or ");
        assert!(Filter::<NodeRecord>::parse(&many(REGEXES_MAX)).is_ok());
        assert_eq!(invalid::<NodeRecord>(&many(REGEXES_MAX + 1)), "more than 32 regular expressions");
    }

    #[test]
    fn numbers_are_read_as_go_reads_them() {
        let table = [
            ("80", Ok(80)),
            ("-1", Ok(-1)),
            ("0x1f41", Ok(8001)),
            ("0b11", Ok(3)),
            ("0o17", Ok(15)),
            ("017", Ok(15)),
            ("0", Ok(0)),
            ("-9223372036854775808", Ok(i128::from(i64::MIN))),
            ("-9223372036854775809", Err("value out of range")),
            (&"9".repeat(60), Err("value out of range")),
            ("0x", Err("invalid syntax")),
            ("08", Err("invalid syntax")),
            ("", Err("invalid syntax")),
            ("+-1", Err("invalid syntax")),
            ("é1", Err("invalid syntax")),
        ];
        for (text, wanted) in table {
            assert_eq!(number(text), wanted, "{text}");
        }
    }
}
