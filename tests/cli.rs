//! The command line against a real agent: what is typed, what comes out of which stream, and the exit code, since scripts
//! look for all three. The cases are data under `tests/cli/`; `LICTOR_EXPECT=write` rewrites what is expected, for the
//! diff to be read. Here is what a script cannot say: commands that wait, and are ended.

mod support;

use std::{
    fs,
    io::Write,
    path::Path,
    process::{Command, Stdio},
};

use support::Agent;

const BINARY: &str = env!("CARGO_BIN_EXE_lictor");
const NODE_ID: &str = "78307162-8c69-0600-c53d-b924d468106e";
/// Of nodes that scripts register.
const OTHER_ID: &str = "00000000-0000-0000-0000-00000000000b";

macro_rules! scripts {
    ($($name:ident)*) => {$(
        #[test]
        fn $name() {
            run_script(concat!(stringify!($name), ".txt"));
        }
    )*};
}

scripts! { catalog conventions maintenance operator services }

/// A case is `== what it shows` and steps. `$ WORDS` runs them, `$1 WORDS` keeps the first line of each stream, `< TEXT` is
/// a line of its input, `write NAME TEXT` makes a file below DIR, `PUT PATH BODY` asks the agent, `until PATH` waits until it has such a
/// thing. What came of it stands
/// behind: `  ` a line of output, `! ` one of standard error, `exit CODE` where that is not 0.
fn run_script(file: &str) {
    let arguments = ["-dev", "-advertise=10.0.0.1", &format!("-node-id={NODE_ID}")];
    let agent = Agent::start(&arguments);
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/cli").join(file);
    let script = fs::read_to_string(&path).unwrap();
    let mut written = String::new();
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
        written.push_str(&step(&agent, line, &input));
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
fn step(agent: &Agent, line: &str, input: &str) -> String {
    let folder = agent.folder.display().to_string();
    let (verb, rest) = line.split_once(' ').unwrap_or((line, ""));
    match verb {
        "$" | "$1" => {
            let told = type_words(agent, &words(&rest.replace("DIR", &folder)), input);
            let told = told.replace(&agent.http().to_string(), "AGENT").replace(&folder, "DIR");
            plain(&told, verb == "$1")
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
    let output = child.wait_with_output().unwrap();
    let told = |mark: &str, bytes: &[u8]| -> String {
        String::from_utf8_lossy(bytes).lines().map(|line| format!("{mark}{line}\n")).collect()
    };
    let code = output.status.code().unwrap();
    let exit = if code == 0 { String::new() } else { format!("exit {code}\n") };
    [told("  ", &output.stdout), told("! ", &output.stderr), exit].concat()
}

/// A command of ours that finds the agent.
fn lictor(agent: &Agent, words: &[String]) -> Command {
    let mut command = Command::new(BINARY);
    command.args(words).env("CONSUL_HTTP_ADDR", agent.http().to_string()).env_remove("CONSUL_HTTP_TOKEN");
    command
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
