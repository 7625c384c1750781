//! Which files change, and into what. Pure: sees files through what it is given, and writes none. What is ours is known by
//! its marks: so a second run changes nothing, and `undo` finds everything without being told.

use std::path::PathBuf;

use super::render::{Piece, Place, RESOLVERS, Resolver, Want, render};

/// What is at a path.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum State {
    Missing,
    Folder,
    File(File),
    Link(PathBuf),
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct File {
    pub text: String,
    pub mode: u32,
    /// User and group; `None` is whoever writes it.
    pub owner: Option<(u32, u32)>,
}

/// One path, by its state before and after.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Change {
    pub path: String,
    pub before: State,
    pub after: State,
}

/// The files of a machine.
pub trait Files {
    fn look(&self, path: &str) -> Result<State, String>;
    /// What a file says, through links; `None` where there is none.
    fn read(&self, path: &str) -> Result<Option<String>, String>;
    /// The names in a folder, in order; none where there is no such folder.
    fn list(&self, folder: &str) -> Result<Vec<String>, String>;
}

const OWN: &str = "Written by `lictor dns install`";
const OWN_FOLDER: &str = "Written by `lictor dns install`, with its folder";
const UNDO: &str = "`lictor dns install -undo` takes it away.";
const BLOCK: &str = "lictor dns install";
/// Beside a file that was replaced.
const KEPT: &str = ".before-lictor";
/// Name servers that the C library reads.
const NAME_SERVERS_MAX: usize = 3;
const MODE: u32 = 0o644;

/// The changes that have a resolver ask lictor: none where it does already.
///
/// # Errors
/// What was found in a file, and what is expected there.
pub fn install(resolver: Resolver, want: &Want, files: &dyn Files) -> Result<Vec<Change>, String> {
    let mut plan = Plan { files, changes: Vec::new() };
    let pieces = render(resolver, want)?;
    check_ground(resolver, files)?;
    for Piece { place, text } in pieces {
        match place {
            Place::Own(path, comment) => plan.write_own(path, comment, &text)?,
            Place::Options(paths) => plan.write_options(paths, &text)?,
            Place::End(paths) => plan.write_end(paths, &text)?,
            Place::NameServers(path) => plan.write_name_servers(path, &text)?,
        }
    }
    Ok(plan.made())
}

/// The changes that take away everything of ours, and the resolvers that it was for.
///
/// # Errors
/// Files that cannot be read, or in which our lines have no end.
pub fn undo(files: &dyn Files) -> Result<(Vec<Change>, Vec<Resolver>), String> {
    // Where lines belong does not depend on what they say.
    let any = Want { domain: "consul".into(), server: ([127, 0, 0, 1], 53).into(), reverse: Vec::new() };
    let mut plan = Plan { files, changes: Vec::new() };
    let mut resolvers = Vec::new();
    for resolver in RESOLVERS {
        let before = plan.made().len();
        for piece in render(resolver, &any)? {
            match piece.place {
                Place::Own(path, _) => plan.take_own(path)?,
                Place::Options(paths) => plan.take_block(paths, "options")?,
                Place::End(paths) => plan.take_block(paths, "zones")?,
                Place::NameServers(path) => plan.take_name_servers(path)?,
            }
        }
        if plan.made().len() > before {
            resolvers.push(resolver);
        }
    }
    Ok((plan.made(), resolvers))
}

/// What we write must be read, and do what it says.
fn check_ground(resolver: Resolver, files: &dyn Files) -> Result<(), String> {
    match resolver {
        Resolver::SystemdResolved => has_no_other_servers(files),
        Resolver::Dnsmasq => has_folder_read(
            files,
            &["/etc/dnsmasq.conf", "/etc/default/dnsmasq"],
            "/etc/dnsmasq.d",
            "conf-dir=/etc/dnsmasq.d/,*.conf",
        ),
        Resolver::Unbound => has_folder_read(
            files,
            &["/etc/unbound/unbound.conf"],
            "/etc/unbound/unbound.conf.d",
            "include-toplevel: \"/etc/unbound/unbound.conf.d/*.conf\"",
        ),
        Resolver::Bind | Resolver::ResolvConf => Ok(()),
    }
}

/// systemd-resolved takes all servers of its files for alike, and asks one of them for all names.
fn has_no_other_servers(files: &dyn Files) -> Result<(), String> {
    let folder = "/etc/systemd/resolved.conf.d";
    let mut paths = vec!["/etc/systemd/resolved.conf".to_string()];
    let names = files.list(folder)?.into_iter();
    let others = names.filter(|name| name.ends_with(".conf") && name != "lictor.conf");
    paths.extend(others.map(|name| format!("{folder}/{name}")));
    for path in paths {
        let text = files.read(&path)?.unwrap_or_default();
        let other =
            text.lines().find(|line| line.strip_prefix("DNS=").is_some_and(|list| !list.trim().is_empty()));
        if let Some(line) = other {
            let expected = "expected no DNS= beside ours, since systemd-resolved asks all of them alike: give yours to the link, by its network configuration";
            return Err(format!("{path}: found {line}; {expected}"));
        }
    }
    Ok(())
}

fn has_folder_read(files: &dyn Files, among: &[&str], folder: &str, line: &str) -> Result<(), String> {
    for path in among {
        let text = files.read(path)?.unwrap_or_default();
        if text.lines().any(|line| !is_comment(line) && line.contains(folder)) {
            return Ok(());
        }
    }
    Err(format!("{}: found no line that has {folder} read; expected one, as {line}", among.join(", ")))
}

/// Files as they will be, over those that are.
struct Plan<'a> {
    files: &'a dyn Files,
    changes: Vec<Change>,
}

impl Plan<'_> {
    fn made(&self) -> Vec<Change> {
        self.changes.iter().filter(|change| change.before != change.after).cloned().collect()
    }

    fn look(&self, path: &str) -> Result<State, String> {
        match self.changes.iter().find(|change| change.path == path) {
            Some(change) => Ok(change.after.clone()),
            None => self.files.look(path),
        }
    }

    fn set(&mut self, path: &str, after: State) -> Result<(), String> {
        match self.changes.iter_mut().find(|change| change.path == path) {
            Some(change) => change.after = after,
            None => self.changes.push(Change { path: path.into(), before: self.files.look(path)?, after }),
        }
        Ok(())
    }

    fn write_own(&mut self, path: &str, comment: &str, text: &str) -> Result<(), String> {
        let folder = path.rsplit_once('/').map_or("/", |(folder, _)| folder);
        let is_new = self.look(folder)? == State::Missing;
        let (mut file, with_folder) = match self.look(path)? {
            State::Missing => (File { text: String::new(), mode: MODE, owner: None }, is_new),
            State::File(file) if file.text.contains(OWN) => {
                let with_folder = file.text.contains(OWN_FOLDER);
                (file, with_folder)
            }
            _ => {
                let expected = "expected nothing there: move it away first";
                return Err(format!("{path}: found what lictor did not write; {expected}"));
            }
        };
        if is_new {
            self.set(folder, State::Folder)?;
        }
        let mark = if with_folder { OWN_FOLDER } else { OWN };
        file.text = format!("{comment} {mark}; {UNDO}\n{text}");
        self.set(path, State::File(file))
    }

    fn take_own(&mut self, path: &str) -> Result<(), String> {
        let State::File(file) = self.look(path)? else { return Ok(()) };
        if file.text.contains(OWN) {
            self.set(path, State::Missing)?;
        }
        match path.rsplit_once('/') {
            Some((folder, _)) if file.text.contains(OWN_FOLDER) => self.set(folder, State::Missing),
            _ => Ok(()),
        }
    }

    /// BIND has one `options`, and in it one `validate-except`.
    fn write_options(&mut self, paths: &[&str], text: &str) -> Result<(), String> {
        for path in paths {
            let State::File(mut file) = self.look(path)? else { continue };
            let rest = without(&file.text, "options", path)?;
            let Some(at) = after_options(&rest) else { continue };
            if rest.lines().any(|line| !is_comment(line) && line.contains("validate-except")) {
                let expected = "expected none, since BIND takes only one: put our zones into yours by hand";
                return Err(format!("{path}: found validate-except; {expected}:\n{text}"));
            }
            file.text = format!("{}{}{}", &rest[..at], block("options", "\t", text), &rest[at..]);
            return self.set(path, State::File(file));
        }
        Err(format!("{}: expected a line `options {{` in one of them, found none", paths.join(", ")))
    }

    fn write_end(&mut self, paths: &[&str], text: &str) -> Result<(), String> {
        for path in paths {
            let State::File(mut file) = self.look(path)? else { continue };
            let (rest, block) = (without(&file.text, "zones", path)?, block("zones", "", text));
            file.text = match rest.is_empty() || rest.ends_with('\n') {
                true => rest + &block,
                // So it can be told that there was no end of line.
                false => format!("{rest}\n{}", block.trim_end()),
            };
            return self.set(path, State::File(file));
        }
        Err(format!("expected one of {}, found none of them", paths.join(", ")))
    }

    fn take_block(&mut self, paths: &[&str], name: &str) -> Result<(), String> {
        for path in paths {
            if let State::File(mut file) = self.look(path)? {
                file.text = without(&file.text, name, path)?;
                self.set(path, State::File(file))?;
            }
        }
        Ok(())
    }

    fn write_name_servers(&mut self, path: &str, text: &str) -> Result<(), String> {
        let kept = format!("{path}{KEPT}");
        let now = self.files.read(path)?;
        let now =
            now.ok_or_else(|| format!("{path}: found none; expected one with the name servers in use"))?;
        let old = if now.contains(OWN) {
            let kept_text = self.files.read(&kept)?;
            kept_text.ok_or_else(|| format!("{kept}: found none; expected the original of {path}"))?
        } else {
            self.set(&kept, self.look(path)?)?;
            now
        };
        let mut file = match self.look(path)? {
            State::File(file) if file.text.contains(OWN) => file,
            _ => File { text: String::new(), mode: MODE, owner: None },
        };
        file.text = format!("# {OWN}; {UNDO}\n{text}{}", behind(&old, text));
        self.set(path, State::File(file))
    }

    /// Where someone rewrote the file since, it is not ours any more.
    fn take_name_servers(&mut self, path: &str) -> Result<(), String> {
        let kept = format!("{path}{KEPT}");
        if !self.files.read(path)?.is_some_and(|text| text.contains(OWN)) {
            return Ok(());
        }
        match self.look(&kept)? {
            State::Missing => Err(format!("{kept}: found none; expected the original of {path}")),
            original => {
                self.set(path, original)?;
                self.set(&kept, State::Missing)
            }
        }
    }
}

fn block(name: &str, indent: &str, text: &str) -> String {
    format!("{indent}// BEGIN {BLOCK}, {name}\n{text}{indent}// END {BLOCK}, {name}\n")
}

/// The text as it was before the block came.
fn without(text: &str, name: &str, path: &str) -> Result<String, String> {
    let (begin, end) = (format!("// BEGIN {BLOCK}, {name}"), format!("// END {BLOCK}, {name}"));
    let (mut rest, mut inside) = (String::new(), false);
    for line in text.split_inclusive('\n') {
        if !inside && line.trim() == begin {
            inside = true;
        } else if inside && line.trim() == end {
            inside = false;
            if !line.ends_with('\n') {
                rest.pop(); // there was no end of line
            }
        } else if !inside {
            rest.push_str(line);
        }
    }
    if inside {
        return Err(format!(
            "{path}: found the line {begin:?} without {end:?} behind it; expected both or none"
        ));
    }
    Ok(rest)
}

/// Where the line behind `options {` begins.
fn after_options(text: &str) -> Option<usize> {
    let mut at = 0;
    text.split_inclusive('\n').find_map(|line| {
        at += line.len();
        let words: String = line.split_whitespace().collect();
        (words == "options{").then_some(at)
    })
}

fn is_comment(line: &str) -> bool {
    let line = line.trim_start();
    line.starts_with("//") || line.starts_with('#')
}

/// What stays of a `resolv.conf` behind our name server.
fn behind(old: &str, ours: &str) -> String {
    let is_server = |line: &str| line.split_whitespace().next() == Some("nameserver");
    let mut servers = 1;
    let stays = |line: &&str| {
        let is_server = is_server(line) && line.trim() != ours.trim();
        servers += usize::from(is_server);
        line.trim() != ours.trim() && (!is_server || servers <= NAME_SERVERS_MAX)
    };
    old.lines().filter(stays).map(|line| format!("{line}\n")).collect()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    struct Machine(BTreeMap<String, State>);

    impl Machine {
        fn with(files: &[(&str, &str)]) -> Machine {
            let file = |text: &str| State::File(File { text: text.into(), mode: 0o640, owner: Some((0, 7)) });
            Machine(files.iter().map(|(path, text)| (path.to_string(), file(text))).collect())
        }

        fn change(&mut self, changes: &[Change]) {
            for change in changes {
                assert_eq!(self.look(&change.path).unwrap(), change.before);
                let mut after = change.after.clone();
                if let State::File(File { owner: owner @ None, .. }) = &mut after {
                    *owner = Some((0, 0)); // whoever writes it
                }
                self.0.insert(change.path.clone(), after);
            }
            self.0.retain(|_, state| *state != State::Missing);
        }
    }

    impl Files for Machine {
        fn look(&self, path: &str) -> Result<State, String> {
            Ok(self.0.get(path).cloned().unwrap_or(State::Missing))
        }

        fn read(&self, path: &str) -> Result<Option<String>, String> {
            Ok(match self.0.get(path) {
                Some(State::File(file)) => Some(file.text.clone()),
                Some(State::Link(to)) => self.read(&to.display().to_string())?,
                _ => None,
            })
        }

        fn list(&self, folder: &str) -> Result<Vec<String>, String> {
            let names = self.0.keys().filter_map(|path| path.strip_prefix(folder)?.strip_prefix('/'));
            Ok(names.map(String::from).collect())
        }
    }

    fn want() -> Want {
        Want {
            domain: "consul".into(),
            server: ([127, 0, 0, 1], 53).into(),
            reverse: vec!["10.in-addr.arpa".into()],
        }
    }

    /// Of a machine that has all of them.
    fn machine() -> Machine {
        let mut machine = Machine::with(&[
            ("/etc/dnsmasq.conf", "# conf-dir=/etc/dnsmasq.d\n"),
            ("/etc/default/dnsmasq", "CONFIG_DIR=/etc/dnsmasq.d,.dpkg-dist"),
            ("/etc/unbound/unbound.conf", "include-toplevel: \"/etc/unbound/unbound.conf.d/*.conf\"\n"),
            ("/etc/bind/named.conf.options", "// options {\noptions {\n\tdirectory \"/var\";\n};\n"),
            ("/etc/bind/named.conf.local", "// no end of line"),
            ("/run/stub", "nameserver 127.0.0.53\nsearch lan\nnameserver 10.0.0.1\nnameserver 10.0.0.2\n"),
        ]);
        machine.0.insert("/etc/resolv.conf".into(), State::Link("/run/stub".into()));
        machine
    }

    #[test]
    fn twice_is_once_and_undo_leaves_no_trace() {
        for resolver in RESOLVERS {
            let mut machine = machine();
            let before = machine.0.clone();
            let changes = install(resolver, &want(), &machine).unwrap();
            assert!(!changes.is_empty());
            machine.change(&changes);
            assert_eq!(install(resolver, &want(), &machine), Ok(vec![]), "{resolver:?}");
            let other = Want { domain: "lan".into(), ..want() };
            machine.change(&install(resolver, &other, &machine).unwrap());
            assert_eq!(install(resolver, &other, &machine), Ok(vec![]), "{resolver:?}");
            let (changes, of) = undo(&machine).unwrap();
            assert_eq!(of, [resolver]);
            machine.change(&changes);
            assert_eq!(machine.0, before, "{resolver:?}");
            assert_eq!(undo(&machine), Ok((vec![], vec![])));
        }
    }

    #[test]
    fn one_file_may_hold_all_of_bind() {
        let mut machine = Machine::with(&[("/etc/named.conf", "options {\n};\nzone \"x\" { };\n")]);
        let before = machine.0.clone();
        machine.change(&install(Resolver::Bind, &want(), &machine).unwrap());
        let text = machine.read("/etc/named.conf").unwrap().unwrap();
        assert!(text.starts_with("options {\n\t// BEGIN lictor dns install, options\n"), "{text}");
        assert!(text.contains("zone \"x\" { };\n// BEGIN lictor dns install, zones\n"), "{text}");
        machine.change(&undo(&machine).unwrap().0);
        assert_eq!(machine.0, before);
    }

    #[test]
    fn the_name_servers_of_before_stand_behind_ours() {
        let mut machine = machine();
        machine.change(&install(Resolver::ResolvConf, &want(), &machine).unwrap());
        let text = machine.read("/etc/resolv.conf").unwrap().unwrap();
        let (_, text) = text.split_once('\n').unwrap();
        assert_eq!(text, "nameserver 127.0.0.1\nnameserver 127.0.0.53\nsearch lan\nnameserver 10.0.0.1\n");
        let mut rewritten = Machine(machine.0.clone());
        rewritten.change(&[Change {
            path: "/etc/resolv.conf".into(),
            before: machine.look("/etc/resolv.conf").unwrap(),
            after: State::File(File { text: "nameserver 9.9.9.9\n".into(), mode: 0o644, owner: None }),
        }]);
        assert_eq!(undo(&rewritten), Ok((vec![], vec![])), "not ours any more");
    }

    #[test]
    fn what_stands_in_the_way_is_told() {
        for (resolver, path, text, fault) in [
            (
                Resolver::Unbound,
                "/etc/unbound/unbound.conf.d/lictor.conf",
                "server:\n",
                "lictor did not write",
            ),
            (Resolver::Unbound, "/etc/unbound/unbound.conf", "#include\n", "found no line that has /etc/unb"),
            (Resolver::Dnsmasq, "/etc/default/dnsmasq", "\n", "found no line that has /etc/dnsmasq.d read"),
            (
                Resolver::SystemdResolved,
                "/etc/systemd/resolved.conf",
                "[Resolve]\nDNS=9.9.9.9\n",
                "found DNS=9.9.9.9",
            ),
            (
                Resolver::SystemdResolved,
                "/etc/systemd/resolved.conf.d/a.conf",
                "DNS=9.9.9.9\n",
                "found DNS=9.9.9.9",
            ),
            (Resolver::Bind, "/etc/bind/named.conf.options", "options { };", "expected a line `options {`"),
            (
                Resolver::Bind,
                "/etc/bind/named.conf.options",
                "options {\n validate-except { \"lan\"; };\n};\n",
                "found validate-except",
            ),
            (
                Resolver::Bind,
                "/etc/bind/named.conf.local",
                "// BEGIN lictor dns install, zones\n",
                "without \"// END lictor dns install, zones\"",
            ),
        ] {
            let mut machine = machine();
            machine.0.extend(Machine::with(&[(path, text)]).0);
            let found = install(resolver, &want(), &machine).unwrap_err();
            assert!(found.contains(fault) && found.contains(path), "{found}");
        }
        let high = Want { server: ([127, 0, 0, 1], 8600).into(), ..want() };
        assert!(install(Resolver::ResolvConf, &high, &machine()).unwrap_err().contains("expected port 53"));
    }
}
