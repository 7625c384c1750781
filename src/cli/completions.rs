//! `lictor completions`: what a shell needs to complete our commands and flags, as a script for it to read. It is made of
//! what the commands declare, so that none is forgotten.

use super::{
    COMMANDS, Failure, GROUPS, Outcome,
    line::{Command, Line, Run},
    output::say,
};

pub const COMMAND: Command = Command {
    name: "completions",
    arguments: "bash, zsh or fish",
    does: "Prints a script that lets a shell complete commands and flags",
    flags: &[],
    run: Run::Line(completions),
};

fn completions(line: Line) -> Outcome {
    let script = match line.rest.as_slice() {
        [shell] if shell == "bash" => bash(),
        [shell] if shell == "zsh" => zsh(),
        [shell] if shell == "fish" => fish(),
        [other] => {
            return Err(Failure::new(format!("Unknown shell {other:?}: expected bash, zsh or fish")));
        }
        other => {
            let text = format!("Expected one argument, found {}\n{}", other.len(), COMMAND.usage());
            return Err(Failure::new(text));
        }
    };
    say(script.trim_end())
}

/// A place on the line, and the words that may come there, each with what it does.
struct Place {
    /// The commands so far; none at the beginning.
    words: String,
    next: Vec<(String, &'static str)>,
}

/// Every place where something can be completed.
fn places() -> Vec<Place> {
    let groups = std::iter::once("").chain(GROUPS.iter().map(|(group, _)| *group)).map(|group| {
        let below = super::below(group).into_iter().map(|(name, does)| (name.to_string(), does));
        Place { words: group.into(), next: below.collect() }
    });
    let commands = COMMANDS.iter().map(|command| {
        let flags = command.flag_help().into_iter().map(|(flag, does)| (format!("-{flag}"), does));
        Place { words: command.name.into(), next: flags.collect() }
    });
    groups.chain(commands).collect()
}

/// A word of ours may hold neither quotes nor what a shell gives a meaning to; what it does may.
fn quoted(text: &str) -> String {
    format!("'{}'", text.replace('\'', "'\\''"))
}

/// The part that bash and zsh share: which place the line has come to.
fn cases(each: impl Fn(&Place) -> String) -> (String, String) {
    let places = places();
    let known: Vec<String> = places
        .iter()
        .filter(|place| !place.words.is_empty())
        .map(|place| quoted(&format!(" {}", place.words)))
        .collect();
    let lines = places.iter().filter(|place| !place.next.is_empty()).map(|place| {
        let at = if place.words.is_empty() { String::new() } else { format!(" {}", place.words) };
        format!("        {}) {} ;;\n", quoted(&at), each(place))
    });
    (known.join("|"), lines.collect())
}

fn bash() -> String {
    let (known, cases) = cases(|place| {
        let words: Vec<&str> = place.next.iter().map(|(word, _)| word.as_str()).collect();
        format!("words={}", quoted(&words.join(" ")))
    });
    format!(
        r#"_lictor() {{
    local word at='' words=''
    for word in "${{COMP_WORDS[@]:1:COMP_CWORD-1}}"; do
        case "$at $word" in
        {known}) at="$at $word" ;;
        esac
    done
    case "$at" in
{cases}    esac
    COMPREPLY=($(compgen -W "$words" -- "${{COMP_WORDS[COMP_CWORD]}}"))
}}
complete -o default -F _lictor lictor
"#
    )
}

fn zsh() -> String {
    let (known, cases) = cases(|place| {
        let words = place.next.iter().map(|(word, does)| quoted(&format!("{word}:{does}")));
        format!("next=({})", words.collect::<Vec<_>>().join(" "))
    });
    format!(
        r#"#compdef lictor
_lictor() {{
    local word at=''
    local -a next
    for word in "${{(@)words[2,CURRENT-1]}}"; do
        case "$at $word" in
        {known}) at="$at $word" ;;
        esac
    done
    case "$at" in
{cases}    esac
    _describe lictor next || _files
}}
compdef _lictor lictor
"#
    )
}

fn fish() -> String {
    let mut script = String::from(
        "function __lictor_at
    set -l at (string join ' ' (string match -v -- '-*' (commandline -opc)[2..]))
    test \"$at\" = \"$argv[1]\"; and return 0
    test -n \"$argv[2]\"; and string match -q -- \"$argv[1] *\" \"$at\"
end
",
    );
    for place in places() {
        // Behind a command its arguments may stand already; behind a group only commands come.
        let is_command = COMMANDS.iter().any(|command| command.name == place.words);
        let condition = format!("__lictor_at '{}'{}", place.words, if is_command { " deeper" } else { "" });
        for (word, does) in &place.next {
            let what = match word.strip_prefix('-') {
                Some(flag) => format!("-o {flag}"),
                None => format!("-f -a {word}"),
            };
            script.push_str(&format!(
                "complete -c lictor -n {} {what} -d {}\n",
                quoted(&condition),
                quoted(does)
            ));
        }
    }
    script
}
