//! The command line against a real agent: what is typed, what comes out of which stream, and the exit code, since scripts
//! look for all three. The cases are data under `tests/cli/`; `LICTOR_EXPECT=write` rewrites what is expected, for the
//! diff to be read. Here is what a script cannot say: commands that wait, and are ended.

mod support;

use std::{
    fs,
    io::{BufRead, BufReader, Write},
    net::TcpListener,
    path::Path,
    process::{Command, Stdio},
    sync::{Arc, Mutex},
    thread,
};

use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
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

scripts! { catalog conventions kv maintenance operator services snapshot waiting }

/// A case is `== what it shows` and steps. `$ WORDS` runs them, `$1 WORDS` keeps the first line of each stream, `$n WORDS`
/// no numbers and widths, `< TEXT` is
/// a line of its input, `write NAME TEXT` makes a file below DIR, `PUT PATH BODY` asks the agent, `until PATH` waits until it has such a
/// thing, `session NAME` makes one. What came of it stands
/// behind: `  ` a line of output, `! ` one of standard error, `exit CODE` where that is not 0.
fn run_script(file: &str) {
    let arguments = ["-dev", "-advertise=10.0.0.1", &format!("-node-id={NODE_ID}")];
    let agent = Agent::start(&arguments);
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
        written.push_str(&step(&agent, line, &input, &mut names));
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

/// A command that goes on until it is ended, and what it has said so far.
struct Running {
    child: std::process::Child,
    out: Arc<Mutex<String>>,
    err: Arc<Mutex<String>>,
    readers: [thread::JoinHandle<()>; 2],
}

impl Running {
    fn start(mut command: Command) -> Running {
        let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let (out, err) = (Arc::default(), Arc::default());
        let readers = [
            support::follow(child.stdout.take().unwrap(), Arc::clone(&out)),
            support::follow(child.stderr.take().unwrap(), Arc::clone(&err)),
        ];
        Running { child, out, err, readers }
    }

    fn of(agent: &Agent, words: &[&str]) -> Running {
        Running::start(lictor(agent, &words.iter().map(|word| word.to_string()).collect::<Vec<_>>()))
    }

    fn said(&self) -> String {
        self.out.lock().unwrap().clone()
    }

    fn complained(&self) -> String {
        self.err.lock().unwrap().clone()
    }

    fn wait_for(&self, text: &str) {
        let state = || format!("{}\n{}", self.said(), self.complained());
        support::wait_for(&format!("{text:?}"), || state().contains(text).then_some(()), state);
    }

    fn interrupt(&self) {
        kill(Pid::from_raw(self.child.id() as i32), Signal::SIGINT).unwrap();
    }

    /// Exit code and both streams, at its end.
    fn ended(mut self) -> (Option<i32>, String, String) {
        let code = self.code();
        (code, self.said(), self.complained())
    }

    fn code(&mut self) -> Option<i32> {
        let child = &mut self.child;
        let status = support::wait_for("the command to end", || child.try_wait().unwrap(), String::new);
        let all_read = || self.readers.iter().all(thread::JoinHandle::is_finished).then_some(());
        support::wait_for("the end of its streams", all_read, String::new);
        status.code()
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _already_gone = self.child.kill();
        let _reaped = self.child.wait();
    }
}

fn register(agent: &Agent, name: &str) {
    let (status, answer) =
        agent.request("PUT", "/v1/agent/service/register", &format!(r#"{{"Name":"{name}"}}"#));
    assert_eq!(status, 200, "{answer}");
}

#[test]
fn a_watch_tells_of_each_change_until_it_is_interrupted() {
    let agent = Agent::start(&["-dev"]);
    let words = ["watch", "-type=services", "cat; test $CONSUL_INDEX -gt 0 && echo told"];
    let mut watch = Running::of(&agent, &words);
    watch.wait_for("{\"consul\":[]}\ntold");
    register(&agent, "web");
    watch.wait_for("{\"consul\":[],\"web\":[]}\ntold");
    // What it is given is not the same again, though the index has moved.
    register(&agent, "api");
    watch.wait_for("\"web\":[]}\ntold\n{\"api\":[],\"consul\":[],\"web\":[]}\ntold");
    watch.interrupt();
    assert_eq!((watch.code(), watch.complained()), (Some(0), String::new()));
    assert_eq!(watch.said().matches("told").count(), 3, "{}", watch.said());
}

#[test]
fn an_interrupt_ends_the_program_of_a_watch_too() {
    let agent = Agent::start(&["-dev"]);
    let mut watch = Running::of(&agent, &["watch", "-type=nodes", "echo started $$; sleep 1000"]);
    watch.wait_for("started");
    let program = watch.said().trim().trim_start_matches("started ").parse().unwrap();
    watch.interrupt();
    assert_eq!(watch.code(), Some(0));
    assert!(kill(Pid::from_raw(program), None).is_err(), "the program still runs");
}

/// What the client owes to an index: one that fell is begun anew, none is below 1; and errors are borne.
#[test]
fn a_watch_bears_errors_and_indexes_that_fall() {
    let listener = TcpListener::bind(("127.0.0.1", 0)).unwrap();
    let address = listener.local_addr().unwrap();
    let answers = [
        ("200 OK", "1", "{}"),
        ("200 OK", "7", r#"["a"]"#),
        ("500 Internal Server Error", "1", "No cluster leader"),
        ("200 OK", "5", r#"["b"]"#),
        ("200 OK", "0", r#"["c"]"#),
        ("200 OK", "3", r#"["d"]"#),
    ];
    let asked = thread::spawn(move || {
        let each = answers.map(|(status, index, body)| {
            let (mut stream, _) = listener.accept().unwrap();
            stream.set_read_timeout(Some(support::DEADLINE)).unwrap();
            let mut head = String::new();
            let mut lines = BufReader::new(stream.try_clone().unwrap()).lines();
            while let Some(Ok(line)) = lines.next().filter(|line| line.as_ref().is_ok_and(|line| !line.is_empty())) {
                head.push_str(&format!("{line}\n"));
            }
            let length = body.len();
            write!(stream, "HTTP/1.1 {status}\r\nX-Consul-Index: {index}\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n{body}")
                .unwrap();
            head.lines().next().unwrap_or_default().to_string()
        });
        // Whoever asks once more waits until the test is over.
        (each, listener.accept())
    });
    let mut command = Command::new(BINARY);
    command.args(["watch", "-type=nodes", "cat; echo $CONSUL_INDEX"]);
    command.env("CONSUL_HTTP_ADDR", address.to_string());
    let mut watch = Running::start(command);
    watch.wait_for("[\"d\"]\n3");
    watch.interrupt();
    assert_eq!(watch.code(), Some(0));
    assert_eq!(watch.said(), "[\"a\"]\n7\n[\"b\"]\n5\n[\"c\"]\n1\n[\"d\"]\n3\n");
    assert_eq!(
        watch.complained(),
        "[ERR] watch: Unexpected response code: 500 (No cluster leader); asked again in 5s\n"
    );
    let (asked, _held) = asked.join().unwrap();
    let line = |query: &str| format!("GET /v1/catalog/nodes{query} HTTP/1.1");
    let expected = [
        "GET /v1/agent/self HTTP/1.1".into(),
        line(""),
        line("?index=7&wait=300000ms"),
        line("?index=7&wait=300000ms"),
        line(""),
        line("?index=1&wait=300000ms"),
    ];
    assert_eq!(asked, expected);
}

#[test]
fn leave_ends_the_agent() {
    let mut agent = Agent::start(&["-dev"]);
    let output = lictor(&agent, &["leave".to_string()]).output().unwrap();
    assert_eq!(String::from_utf8_lossy(&output.stdout), "Graceful leave complete\n");
    assert_eq!((output.status.code(), agent.exit_code()), (Some(0), Some(0)));
}

#[test]
fn one_holds_a_lock_and_the_other_waits() {
    let agent = Agent::start(&["-dev"]);
    let mut first = Running::of(&agent, &["lock", "p", "echo first; sleep 1000"]);
    first.wait_for("first");
    let held = agent.get("/v1/kv/p/.lock");
    assert_eq!(held[0]["Flags"].as_u64(), Some(3_304_740_253_564_472_344));
    let mut second = Running::of(&agent, &["lock", "-verbose", "p", "echo second"]);
    second.wait_for("Attempting lock acquisition");
    let waited = Running::of(&agent, &["lock", "-timeout=100ms", "p", "echo never"]).ended();
    assert_eq!(
        waited,
        (Some(1), String::new(), "Shutdown triggered or timeout during lock acquisition\n".into())
    );
    assert!(!second.said().contains("second"));
    first.interrupt();
    assert_eq!(first.code(), Some(0));
    second.wait_for("second");
    assert_eq!(second.code(), Some(0));
    assert!(
        second.said().ends_with("Child terminated, releasing lock\nCleanup succeeded\n"),
        "{}",
        second.said()
    );
    assert_eq!(agent.get("/v1/kv/?keys"), serde_json::json!([]));
    assert_eq!(agent.get("/v1/session/list"), serde_json::json!([]));
}

/// A program that does not end when it is asked to is made to; and what is left is nobody's.
#[test]
fn a_lock_that_is_lost_ends_the_program() {
    let agent = Agent::start(&["-dev"]);
    for n in ["-n=1", "-n=2"] {
        let stubborn = "trap 'echo asked' TERM; echo started $$; while true; do sleep 0.1; done";
        let mut lock = Running::of(&agent, &["lock", n, "p", stubborn]);
        lock.wait_for("started");
        let program = lock.said().trim().trim_start_matches("started ").parse().unwrap();
        let sessions = agent.get("/v1/session/list");
        let session = sessions[0]["ID"].as_str().unwrap();
        assert_eq!(agent.request("PUT", &format!("/v1/session/destroy/{session}"), "").0, 200);
        lock.wait_for("Lock lost, killing child");
        lock.wait_for("asked");
        assert_eq!(lock.code(), Some(0));
        assert!(kill(Pid::from_raw(program), None).is_err(), "the program still runs");
        assert_eq!(agent.get("/v1/kv/?keys"), serde_json::json!([]), "{n}");
    }
}

#[test]
fn as_many_hold_a_lock_as_may() {
    let agent = Agent::start(&["-dev"]);
    let hold = || Running::of(&agent, &["lock", "-n=2", "p", "echo held; sleep 1000"]);
    let (mut first, mut second) = (hold(), hold());
    first.wait_for("held");
    second.wait_for("held");
    let mut third = hold();
    let contends = || (agent.get("/v1/session/list").as_array().unwrap().len() == 3).then_some(());
    support::wait_for("the third to contend", contends, String::new);
    assert_eq!(third.said(), "");
    first.interrupt();
    assert_eq!(first.code(), Some(0));
    third.wait_for("held");
    second.interrupt();
    third.interrupt();
    assert_eq!((second.code(), third.code()), (Some(0), Some(0)));
    assert_eq!(agent.get("/v1/kv/?keys"), serde_json::json!([]));
}

#[test]
fn shells_are_told_every_command() {
    let script = |shell: &str| {
        let output = Command::new(BINARY).args(["completions", shell]).output().unwrap();
        assert!(output.status.success(), "{shell}");
        String::from_utf8(output.stdout).unwrap()
    };
    for shell in ["bash", "zsh", "fish"] {
        let script = script(shell);
        for word in ["catalog", "datacenters", "list-peers", "config-dir", "node-meta"] {
            assert!(script.contains(word), "{shell}: {word}");
        }
    }
    let complete = |words: &str| {
        let ask = format!(
            "{}\nCOMP_WORDS=({words}); COMP_CWORD=$((${{#COMP_WORDS[@]}} - 1)); _lictor; echo \"${{COMPREPLY[*]}}\"",
            script("bash")
        );
        let output = Command::new("bash").args(["-c", &ask]).output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8_lossy(&output.stdout).trim().to_string()
    };
    assert_eq!(complete("lictor cat"), "catalog");
    assert_eq!(complete("lictor catalog ''"), "datacenters nodes services");
    assert_eq!(complete("lictor catalog nodes -det"), "-detailed");
    assert_eq!(complete("lictor operator raft l"), "list-peers");
    assert_eq!(complete("lictor kv get -stale -sep"), "-separator");
    assert_eq!(complete("lictor kv get a"), "");
}
