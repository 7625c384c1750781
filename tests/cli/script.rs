//! Scripts of what is typed, and what comes of it.

use std::{fs, io::Write, path::Path, process::Stdio};

use super::{
    lictor,
    support::{self, Agent},
};

const NODE_ID: &str = "78307162-8c69-0600-c53d-b924d468106e";
/// Of nodes that scripts register.
const OTHER_ID: &str = "00000000-0000-0000-0000-00000000000b";

/// A case is `== what it shows` and steps. `$ WORDS` runs them, `$1 WORDS` keeps the first line of each stream, `$n WORDS`
/// no numbers and widths, `< TEXT` is
/// a line of its input, `write NAME TEXT` makes a file below DIR, `PUT PATH BODY` asks the agent, `until PATH` waits until it has such a
/// thing, `session NAME` makes one. What came of it stands
/// behind: `  ` a line of output, `! ` one of standard error, `exit CODE` where that is not 0.
pub fn run(file: &str) {
    run_by(file, &start(&[]));
}

/// An agent that scripts run by, with more flags.
pub fn start(flags: &[&str]) -> Agent {
    let id = format!("-node-id={NODE_ID}");
    Agent::start(&[&["-dev", "-advertise=10.0.0.1", &id], flags].concat())
}

/// As [`run`], by this agent.
pub fn run_by(file: &str, agent: &Agent) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/cli").join(file);
    let script = fs::read_to_string(&path).unwrap();
    let (mut written, mut names) = (String::new(), Vec::new());
    let mut lines = script.lines().peekable();
    while let Some(line) = lines.next() {
        if ["  ", "! ", "exit "].iter().any(|found| line.starts_with(found)) {
            continue;
        }
        written.push_str(&format!("{line}\n"));
        let mut input = String::new();
        while let Some(more) = lines.next_if(|next| next.starts_with("< ")) {
            input.push_str(&format!("{}\n", &more[2..]));
            written.push_str(&format!("{more}\n"));
        }
        written.push_str(&step(agent, line, &input, &mut names));
    }
    if std::env::var("LICTOR_EXPECT").is_ok_and(|mode| mode == "write") {
        fs::write(&path, written).unwrap();
        return;
    }
    for (number, (expected, found)) in script.lines().zip(written.lines()).enumerate() {
        assert_eq!(expected, found, "{file}:{} (expected, found)", number + 1);
    }
    assert_eq!(script.trim_end(), written.trim_end(), "{file}");
}

/// Takes a step, and gives what came of it.
fn step(agent: &Agent, line: &str, input: &str, names: &mut Vec<(String, String)>) -> String {
    let folder = agent.folder.display().to_string();
    let (verb, rest) = line.split_once(' ').unwrap_or((line, ""));
    match verb {
        "$" | "$1" | "$n" => {
            let rest =
                names.iter().fold(rest.replace("DIR", &folder), |rest, (name, id)| rest.replace(name, id));
            let told = type_words(agent, &words(&rest), input);
            let told = told.replace(&agent.http().to_string(), "AGENT").replace(&folder, "DIR");
            let told = plain(&told, verb == "$1");
            if verb == "$n" { without_numbers(&told) } else { told }
        }
        "write" => {
            let (name, text) = rest.split_once(' ').unwrap_or((rest, ""));
            fs::write(agent.folder.join(name), text.replace("\\n", "\n")).unwrap();
            String::new()
        }
        "PUT" => {
            let (path, body) = rest.split_once(' ').unwrap_or((rest, ""));
            let (status, answer) = agent.request("PUT", path, body);
            assert_eq!(status, 200, "{line}: {answer}");
            String::new()
        }
        "session" => {
            let (status, answer) = agent.request("PUT", "/v1/session/create", "");
            assert_eq!(status, 200, "{line}: {answer}");
            let session: serde_json::Value = serde_json::from_str(&answer).unwrap();
            names.push((format!("-session={rest}"), format!("-session={}", session["ID"].as_str().unwrap())));
            String::new()
        }
        "until" => {
            support::wait_for(
                line,
                || (agent.request("GET", rest, "").0 == 200).then_some(()),
                || agent.request("GET", rest, "").1,
            );
            String::new()
        }
        _ => String::new(),
    }
}

/// Words as a shell has them, quotes and all; variables for the command stand first.
fn words(line: &str) -> Vec<String> {
    let (mut words, mut word, mut quote) = (Vec::new(), None::<String>, None);
    for letter in line.chars() {
        match letter {
            '\'' | '"' if quote.is_none() => {
                quote = Some(letter);
                word.get_or_insert_default();
            }
            letter if quote == Some(letter) => quote = None,
            ' ' if quote.is_none() => words.extend(word.take()),
            letter => word.get_or_insert_default().push(letter),
        }
    }
    words.extend(word);
    words
}

fn type_words(agent: &Agent, words: &[String], input: &str) -> String {
    let is_variable = |word: &&String| word.starts_with("CONSUL_") || word.starts_with("SHELL=");
    let variables = words.iter().take_while(is_variable).count();
    let (variables, words) = words.split_at(variables);
    assert_eq!(words.first().map(String::as_str), Some("lictor"));
    let mut command = lictor(agent, &words[1..]);
    command.envs(variables.iter().filter_map(|word| word.split_once('=')));
    let mut child =
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    // Most commands read nothing, and may be gone already.
    let _unread = child.stdin.take().unwrap().write_all(input.as_bytes());
    let output = support::ended(child, support::DEADLINE);
    let told = |mark: &str, bytes: &[u8]| -> String {
        String::from_utf8_lossy(bytes).lines().map(|line| format!("{mark}{line}\n")).collect()
    };
    let code = output.status.code().unwrap();
    let exit = if code == 0 { String::new() } else { format!("exit {code}\n") };
    [told("  ", &output.stdout), told("! ", &output.stderr), exit].concat()
}

/// Without what differs from run to run: ids and indexes.
fn plain(told: &str, first_only: bool) -> String {
    let mut seen = Vec::new();
    let lines = told.lines().filter(|line| {
        let mark = &line[..2];
        let again = seen.contains(&mark) && mark != "ex";
        seen.push(mark);
        !(first_only && again)
    });
    lines.map(|line| format!("{}\n", without_index(&without_id(line)))).collect()
}

fn without_id(line: &str) -> String {
    let is_id = |word: &str| {
        word.len() == 36
            && word.bytes().enumerate().all(|(at, byte)| match at {
                8 | 13 | 18 | 23 => byte == b'-',
                _ => byte.is_ascii_hexdigit(),
            })
    };
    let mut line = line.to_string();
    let mut at = 0;
    while at + 36 <= line.len() {
        if line.get(at..at + 36).is_some_and(|word| is_id(word) && word != NODE_ID && word != OTHER_ID) {
            line.replace_range(at..at + 36, "UUID");
        }
        at += 1;
    }
    line
}

/// Numbers become N; sizes, and how far columns are apart, differ with them.
fn without_numbers(told: &str) -> String {
    let lines = told.lines().map(|line| {
        let (mark, text) = line.split_at(2);
        let mut found = String::from(mark);
        for letter in text.chars() {
            match (letter, found.chars().next_back()) {
                (letter, Some('N')) if letter.is_ascii_digit() || letter == '.' => {}
                (letter, _) if letter.is_ascii_digit() => found.push('N'),
                (' ', Some(' ')) => {}
                (letter, _) => found.push(letter),
            }
        }
        format!("{}\n", found.replace("NKB", "NB"))
    });
    lines.collect()
}

fn without_index(line: &str) -> String {
    let is_index = ["CreateIndex", "ModifyIndex"]
        .iter()
        .any(|name| line.trim_start().trim_start_matches('"').starts_with(name));
    let Some(number) = line.find(|c: char| c.is_ascii_digit()).filter(|_| is_index) else {
        return line.to_string();
    };
    let behind = line[number..].trim_start_matches(|c: char| c.is_ascii_digit());
    format!("{}N{behind}", &line[..number])
}
