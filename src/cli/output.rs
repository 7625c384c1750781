//! What commands print: lines, tables, JSON, and how far they are (`config-cli.md` §5.1).

use std::{
    fmt::{self, Display},
    io::{self, IsTerminal, Write},
};

use super::{
    Failure, Outcome,
    line::{Flag, Line},
};

/// For commands whose table or list programs may want to read.
pub const FORMAT: &[Flag] = &[Flag::text("format", "pretty or json")];

/// Whether `-format=json` was given.
pub fn wants_json(line: &Line) -> Result<bool, Failure> {
    match line.text("format") {
        None | Some("pretty") => Ok(false),
        Some("json") => Ok(true),
        Some(other) => Err(Failure::new(format!("Invalid format {other:?}: expected pretty or json"))),
    }
}

/// A line on standard output.
pub fn say(text: impl Display) -> Outcome {
    put(format!("{text}\n").as_bytes())
}

/// Bytes on standard output. Who has stopped reading is told nothing more.
pub fn put(bytes: &[u8]) -> Outcome {
    let mut out = io::stdout().lock();
    out.write_all(bytes).and_then(|()| out.flush()).map_err(|error| match error.kind() {
        io::ErrorKind::BrokenPipe => Failure { code: 1, text: String::new() },
        _ => Failure::new(format!("Error writing to standard output: {error}")),
    })
}

/// A line on standard error. Where nobody hears it, nothing can be done.
pub fn complain(text: impl Display) {
    let _unheard = writeln!(io::stderr(), "{text}");
}

/// Columns as wide as their widest cell and two spaces; the last one as it is.
pub fn table(rows: &[Vec<String>]) -> String {
    padded(rows, 2)
}

/// As a table, with more space.
pub fn spread(rows: &[Vec<String>]) -> String {
    padded(rows, 6)
}

/// Names and values, six spaces apart.
pub fn labels(rows: &[(&str, String)]) -> String {
    let rows: Vec<_> = rows.iter().map(|(name, value)| vec![name.to_string(), value.clone()]).collect();
    padded(&rows, 6)
}

fn padded(rows: &[Vec<String>], space: usize) -> String {
    let columns = rows.iter().map(Vec::len).max().unwrap_or(0);
    let widest = |column: usize| {
        rows.iter().filter_map(|row| row.get(column)).map(|cell| cell.chars().count()).max().unwrap_or(0)
    };
    let widths: Vec<usize> = (0..columns).map(|column| widest(column) + space).collect();
    let lines = rows.iter().map(|row| {
        let last = row.len().saturating_sub(1);
        let cells = row.iter().zip(&widths).enumerate();
        cells
            .map(|(at, (cell, width))| if at == last { cell.clone() } else { format!("{cell:<width$}") })
            .collect::<String>()
    });
    lines.collect::<Vec<_>>().join("\n")
}

/// JSON with its whitespace laid anew: nested by `indent`, or without any. Order, numbers and escapes stay as they are.
pub fn reformat(json: &str, indent: Option<&str>) -> String {
    let (mut out, mut depth) = (String::with_capacity(json.len()), 0_usize);
    let mut letters = json.chars().peekable();
    let new_line = |out: &mut String, depth: usize| {
        if let Some(indent) = indent {
            out.push('\n');
            (0..depth).for_each(|_| out.push_str(indent));
        }
    };
    while let Some(letter) = letters.next() {
        match letter {
            '"' => {
                out.push('"');
                while let Some(letter) = letters.next() {
                    out.push(letter);
                    match letter {
                        '"' => break,
                        '\\' => out.extend(letters.next()),
                        _ => {}
                    }
                }
            }
            '{' | '[' => {
                out.push(letter);
                while letters.next_if(|next| next.is_ascii_whitespace()).is_some() {}
                if let Some(close) = letters.next_if(|next| matches!(next, '}' | ']')) {
                    out.push(close);
                } else {
                    depth += 1;
                    new_line(&mut out, depth);
                }
            }
            '}' | ']' => {
                depth = depth.saturating_sub(1);
                new_line(&mut out, depth);
                out.push(letter);
            }
            ',' => {
                out.push(',');
                new_line(&mut out, depth);
            }
            ':' => out.push_str(if indent.is_some() { ": " } else { ":" }),
            letter if letter.is_ascii_whitespace() => {}
            letter => out.push(letter),
        }
    }
    out
}

/// What the API answered, for programs to read.
pub fn say_json(body: &[u8]) -> Outcome {
    say(reformat(&String::from_utf8_lossy(body), Some("    ")))
}

/// How far a long work is, on a terminal only; gone when it ends.
pub struct Progress {
    what: &'static str,
    unit: &'static str,
    done: u64,
    told: u64,
    /// Told again after so many.
    step: u64,
    out: Option<Box<dyn Write + Send>>,
}

impl Progress {
    pub fn of_bytes(what: &'static str) -> Progress {
        Progress::on(what, "bytes", 1 << 20, io::stderr().is_terminal())
    }

    /// Of a work that tells each step on standard output, so that it is wanted only where that goes elsewhere.
    pub fn of_lines(what: &'static str, unit: &'static str) -> Progress {
        Progress::on(what, unit, 50, io::stderr().is_terminal() && !io::stdout().is_terminal())
    }

    fn on(what: &'static str, unit: &'static str, step: u64, seen: bool) -> Progress {
        let out = seen.then(|| Box::new(io::stderr()) as Box<dyn Write + Send>);
        Progress { what, unit, done: 0, told: 0, step, out }
    }

    pub fn add(&mut self, more: u64) {
        self.done += more;
        if self.done - self.told >= self.step {
            self.told = self.done;
            let (what, done, unit) = (self.what, self.done, self.unit);
            self.write(format_args!("\r{what}: {done} {unit}"));
        }
    }

    fn write(&mut self, text: fmt::Arguments) {
        let Some(out) = &mut self.out else { return };
        // Where nobody sees it, nothing is lost.
        let _unseen = out.write_fmt(text).and_then(|()| out.flush());
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        if self.told > 0 {
            self.write(format_args!("\r\x1b[K"));
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use super::*;

    #[test]
    fn tables_are_padded_but_for_the_last_column() {
        let row = |cells: &[&str]| cells.iter().map(|cell| cell.to_string()).collect::<Vec<_>>();
        let rows = [row(&["Node", "Address"]), row(&["é-long", "a"]), row(&["x", ""])];
        assert_eq!(table(&rows), "Node    Address\né-long  a\nx       ");
        assert_eq!(labels(&[("Key", "a".into()), ("Value", "".into())]), "Key        a\nValue      ");
    }

    #[test]
    fn json_keeps_everything_but_whitespace() {
        let json = r#"{"b":[1.50,{"a":"x\"{,:"}, null],  "c":{ },"d":[]}"#;
        let nested = "{\n  \"b\": [\n    1.50,\n    {\n      \"a\": \"x\\\"{,:\"\n    },\n    null\n  ],\n  \"c\": {},\n  \"d\": []\n}";
        assert_eq!(reformat(json, Some("  ")), nested);
        assert_eq!(reformat(nested, None), r#"{"b":[1.50,{"a":"x\"{,:"},null],"c":{},"d":[]}"#);
    }
    #[test]
    fn progress_is_told_now_and_then_and_taken_back() {
        #[derive(Clone, Default)]
        struct Seen(Arc<Mutex<Vec<u8>>>);
        impl Write for Seen {
            fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
                self.0.lock().unwrap().write(bytes)
            }

            fn flush(&mut self) -> io::Result<()> {
                Ok(())
            }
        }
        let seen = Seen::default();
        let mut progress = Progress::on("Importing", "keys", 50, false);
        progress.out = Some(Box::new(seen.clone()));
        (0..120).for_each(|_| progress.add(1));
        drop(progress);
        let seen = String::from_utf8(seen.0.lock().unwrap().clone()).unwrap();
        assert_eq!(seen, "\rImporting: 50 keys\rImporting: 100 keys\r\x1b[K");
    }
}
