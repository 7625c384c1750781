//! The files and daemons of this machine, or the files below another root: where changes are made whole or not at all.

use std::{
    fs,
    io::{self, Write},
    os::unix::{
        fs::{MetadataExt, OpenOptionsExt, PermissionsExt, chown, symlink},
        process::CommandExt,
    },
    path::{Path, PathBuf},
    process::{Command, Stdio},
    sync::mpsc,
    thread,
    time::Duration,
};

use nix::{
    sys::signal::{Signal, killpg},
    unistd::Pid,
};

use super::{
    change::{Change, File, Files, State},
    render::{Piece, Resolver},
};

/// A program that checks, or restarts, a resolver has this long: as long as systemd gives a service to start.
const LIMIT: Duration = Duration::from_secs(90);

pub struct Machine {
    root: PathBuf,
}

/// What a program came to.
pub enum Ran {
    Well,
    Missing,
    Badly(String),
}

impl Machine {
    pub fn new(root: PathBuf) -> Self {
        Machine { root }
    }

    /// Whether this is the machine that runs.
    pub fn is_here(&self) -> bool {
        self.root == Path::new("/")
    }

    /// Makes every change, or none.
    ///
    /// # Errors
    /// The change that could not be made.
    pub fn make(&self, changes: &[Change]) -> Result<(), String> {
        for (at, change) in changes.iter().enumerate() {
            if let Err(error) = self.put(&change.path, &change.after) {
                let undone = self.unmake(&changes[..at]);
                let rest =
                    undone.err().map_or("nothing was changed".into(), |rest| format!("and then {rest}"));
                return Err(format!("{}: {error}; {rest}", self.at(&change.path).display()));
            }
        }
        Ok(())
    }

    /// Takes changes back that were made.
    ///
    /// # Errors
    /// Everything that could not be taken back.
    pub fn unmake(&self, changes: &[Change]) -> Result<(), String> {
        let faults = changes.iter().rev().filter_map(|change| {
            let error = self.put(&change.path, &change.before).err()?;
            Some(format!("{} could not be put back: {error}", self.at(&change.path).display()))
        });
        let faults: Vec<String> = faults.collect();
        if faults.is_empty() { Ok(()) } else { Err(faults.join("; ")) }
    }

    /// What the resolver's own checker says of its configuration. Below another root only of what we wrote there: the rest
    /// names paths of this one.
    pub fn check(&self, resolver: Resolver, pieces: &[Piece]) -> Ran {
        let path = |path: &str| self.at(path).display().to_string();
        match resolver {
            Resolver::SystemdResolved | Resolver::ResolvConf => Ran::Missing,
            Resolver::Dnsmasq => run(
                "dnsmasq",
                &["--test", &format!("--conf-file={}", path("/etc/dnsmasq.d/lictor.conf"))],
                "",
                LIMIT,
            ),
            Resolver::Unbound if self.is_here() => run("unbound-checkconf", &[], "", LIMIT),
            Resolver::Unbound => {
                run("unbound-checkconf", &[&path("/etc/unbound/unbound.conf.d/lictor.conf")], "", LIMIT)
            }
            Resolver::Bind if self.is_here() => run("named-checkconf", &[], "", LIMIT),
            Resolver::Bind => {
                let [options, zones] = pieces else { return Ran::Missing };
                let text = format!("options {{\n{}}};\n{}", options.text, zones.text);
                run("named-checkconf", &["/dev/stdin"], &text, LIMIT)
            }
        }
    }

    /// Has a resolver read its configuration again; `Missing` where no program that could is here.
    pub fn reload(&self, resolver: Resolver) -> Ran {
        let Some(words) = reload_command(resolver) else { return Ran::Well };
        if words[0] == "systemctl" && !Path::new("/run/systemd/system").is_dir() {
            return Ran::Missing; // the program is here, and the system does not run by it
        }
        run(words[0], &words[1..], "", LIMIT)
    }

    fn at(&self, path: &str) -> PathBuf {
        self.root.join(path.trim_start_matches('/'))
    }

    /// In one step, so that whoever reads sees the old or the new.
    fn put(&self, path: &str, state: &State) -> io::Result<()> {
        let at = self.at(path);
        let beside = beside(&at);
        match state {
            State::Missing => match fs::symlink_metadata(&at) {
                Ok(found) if found.is_dir() => remove_empty(&at),
                Ok(_) => fs::remove_file(&at),
                Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
                Err(error) => Err(error),
            },
            State::Folder => fs::create_dir_all(&at),
            State::File(file) => put_file(&at, &beside, file).inspect_err(|_| drop(fs::remove_file(&beside))),
            State::Link(to) => {
                let _of_a_former_run = fs::remove_file(&beside);
                symlink(to, &beside)?;
                fs::rename(&beside, &at).inspect_err(|_| drop(fs::remove_file(&beside)))
            }
        }
    }
}

impl Files for Machine {
    fn look(&self, path: &str) -> Result<State, String> {
        let at = self.at(path);
        let told = |error: io::Error| format!("{}: {error}", at.display());
        let found = match fs::symlink_metadata(&at) {
            Ok(found) => found,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(State::Missing),
            Err(error) => return Err(told(error)),
        };
        if found.is_dir() {
            Ok(State::Folder)
        } else if found.is_symlink() {
            Ok(State::Link(fs::read_link(&at).map_err(told)?))
        } else {
            let text = fs::read_to_string(&at).map_err(told)?;
            let owner = Some((found.uid(), found.gid()));
            Ok(State::File(File { text, mode: found.permissions().mode() & 0o7777, owner }))
        }
    }

    fn read(&self, path: &str) -> Result<Option<String>, String> {
        match fs::read_to_string(self.at(path)) {
            Ok(text) => Ok(Some(text)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(format!("{}: {error}", self.at(path).display())),
        }
    }

    fn list(&self, folder: &str) -> Result<Vec<String>, String> {
        let told = |error: io::Error| format!("{}: {error}", self.at(folder).display());
        let entries = match fs::read_dir(self.at(folder)) {
            Ok(entries) => entries,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            Err(error) => return Err(told(error)),
        };
        let name = |entry: fs::DirEntry| entry.file_name().to_string_lossy().into_owned();
        let mut names: Vec<String> =
            entries.map(|entry| entry.map(name)).collect::<io::Result<_>>().map_err(told)?;
        names.sort();
        Ok(names)
    }
}

/// How an operator has the resolver read its configuration again; `None` where everyone reads it anew.
pub fn reload_command(resolver: Resolver) -> Option<&'static [&'static str]> {
    match resolver {
        Resolver::SystemdResolved => Some(&["systemctl", "restart", "systemd-resolved"]),
        Resolver::Dnsmasq => Some(&["systemctl", "restart", "dnsmasq"]),
        Resolver::Unbound => Some(&["unbound-control", "reload"]),
        Resolver::Bind => Some(&["rndc", "reconfig"]),
        Resolver::ResolvConf => None,
    }
}

fn put_file(at: &Path, beside: &Path, file: &File) -> io::Result<()> {
    let mut written =
        fs::OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(beside)?;
    written.write_all(file.text.as_bytes())?;
    written.set_permissions(fs::Permissions::from_mode(file.mode))?;
    if let Some((user, group)) = file.owner {
        chown(beside, Some(user), Some(group))?;
    }
    written.sync_all()?;
    fs::rename(beside, at)
}

/// A folder that someone else has put something into stays.
fn remove_empty(folder: &Path) -> io::Result<()> {
    match fs::remove_dir(folder) {
        Err(error) if error.kind() == io::ErrorKind::DirectoryNotEmpty => Ok(()),
        removed => removed,
    }
}

fn beside(path: &Path) -> PathBuf {
    let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
    path.with_file_name(format!(".{name}.lictor-new"))
}

/// Runs a program to its end, or for `limit`; then it is killed.
fn run(program: &str, arguments: &[&str], input: &str, limit: Duration) -> Ran {
    let mut command = Command::new(program);
    command.args(arguments).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = match command.process_group(0).spawn() {
        Ok(child) => child,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ran::Missing,
        Err(error) => return Ran::Badly(format!("{program}: {error}")),
    };
    let group = i32::try_from(child.id()).map(Pid::from_raw);
    let (done, ended) = mpsc::channel();
    let input = input.to_string();
    // It ends with the program, which does not outlive the limit.
    thread::spawn(move || {
        // One that does not read its input has said all that it will.
        let _unread = child.stdin.take().map(|mut stdin| stdin.write_all(input.as_bytes()));
        // Nobody may be waiting any more.
        drop(done.send(child.wait_with_output()));
    });
    match ended.recv_timeout(limit) {
        Ok(Ok(output)) if output.status.success() => Ran::Well,
        Ok(Ok(output)) => {
            let text = [output.stdout, output.stderr].concat();
            Ran::Badly(format!("{program} says: {}", String::from_utf8_lossy(&text).trim()))
        }
        Ok(Err(error)) => Ran::Badly(format!("{program}: {error}")),
        Err(_) => {
            // Already gone is what is wanted.
            let _gone = group.map(|group| killpg(group, Signal::SIGKILL));
            Ran::Badly(format!("{program} was still running after {} s, and was ended", limit.as_secs()))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_program_that_does_not_end_is_ended() {
        let Ran::Badly(text) = run("sleep", &["1000"], "", Duration::from_millis(20)) else {
            panic!("it ended by itself")
        };
        assert_eq!(text, "sleep was still running after 0 s, and was ended");
        assert!(matches!(run("cat", &[], "text", LIMIT), Ran::Well));
        assert!(matches!(run("lictor-no-such-program", &[], "", LIMIT), Ran::Missing));
    }
}
