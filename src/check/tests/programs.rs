//! Programs: scripts, and what systemd says of a unit.

use std::{fs, os::unix::fs::PermissionsExt, path::PathBuf, sync::Arc};

use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};

use super::{CheckSpec, Tools, look, look_with, text, timeout_of, until};

fn script(args: &[&str]) -> CheckSpec {
    CheckSpec { args: Some(args.iter().map(|arg| arg.to_string()).collect()), ..CheckSpec::default() }
}

#[tokio::test]
async fn an_exit_code_is_a_status() {
    let table = [
        ("echo fine", 'p', "fine\n"),
        ("echo slow >&2; exit 1", 'w', "slow\n"),
        ("exit 2", 'c', ""),
        ("kill -9 $$", 'c', ""),
        ("exec >&- 2>&-; exit 1", 'w', ""),
        ("printf '%0100d' 7", 'p', "Captured 40 of 100 bytes\n...\n0000000000000000000000000000000000000007"),
        ("printf '\\377'", 'p', "\u{fffd}"),
    ];
    for (program, status, output) in table {
        assert_eq!(look(script(&["/bin/sh", "-c", program])).await, (status, output.into()), "{program}");
    }
    let not_there = "fork/exec /nope: no such file or directory".into();
    assert_eq!(look(script(&["/nope", "x"])).await, ('c', not_there));
    assert_eq!(look(script(&["/bin/echo", "$HOME *"])).await, ('p', "$HOME *\n".into()), "no shell");
}

#[cfg(target_os = "linux")]
#[tokio::test]
async fn with_a_script_that_takes_too_long_goes_what_it_started() {
    // Found again by a word that nobody else says.
    let word = format!("31536000.{}{:09}", std::process::id(), fastrand::u32(..1_000_000_000));
    let program = format!("sleep {word} & wait");
    let spec = CheckSpec { timeout: timeout_of(1000), ..script(&["/bin/sh", "-c", &program]) };
    let (looked, ()) = tokio::join!(look(spec), until(|| process(&word).is_some()));
    assert_eq!(looked, ('c', "Timed out (1s) running check".into()));
    until(|| process(&word).is_none()).await;
}

/// The process that has this word among its arguments.
#[cfg(target_os = "linux")]
fn process(word: &str) -> Option<Pid> {
    let has_word = |id: &i32| {
        let arguments = fs::read(format!("/proc/{id}/cmdline")).unwrap_or_default();
        arguments.split(|byte| *byte == 0).any(|argument| argument == word.as_bytes())
    };
    let names = fs::read_dir("/proc").unwrap().flatten().map(|process| process.file_name());
    let ids = names.filter_map(|name| name.to_str()?.parse().ok());
    ids.into_iter().find(has_word).map(Pid::from_raw)
}

/// Consul leaves a script alone that still runs when its agent ends.
#[cfg(target_os = "linux")]
#[tokio::test]
async fn a_script_outlives_its_agent_and_not_its_check() {
    use crate::check::{Runner, Settings, Span, runner};
    for leaves in [true, false] {
        let word = format!("31536000.{}{:09}", std::process::id(), fastrand::u32(..1_000_000_000));
        let (told, _tells) = tokio::sync::mpsc::channel(8);
        let settings = Settings { output_bytes_max: 9, discard_output: false };
        let mut runner = Runner::new(settings, told, "own".into(), Arc::new(runner::tests::Nothing));
        let interval = Some(Span { nanos: 1_000_000_000, text: "1s".into() });
        let spec = CheckSpec { id: text("c"), interval, ..script(&["sleep", &word]) };
        runner.put(&spec.build().unwrap());
        until(|| process(&word).is_some()).await;
        if !leaves {
            runner.remove("c");
            until(|| process(&word).is_none()).await;
        }
        runner.stop().await;
        assert_eq!(process(&word).is_some(), leaves);
        if let Some(left) = process(&word) {
            kill(left, Signal::SIGKILL).unwrap();
        }
    }
}

/// A program in the place of systemctl, gone with the test.
struct Systemctl(PathBuf);

impl Systemctl {
    fn new(program: &str) -> Systemctl {
        let name = format!("lictor-systemctl-{}-{}", std::process::id(), fastrand::u64(..));
        let path = std::env::temp_dir().join(name);
        fs::write(&path, format!("#!/bin/sh\n{program}\n")).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
        Systemctl(path)
    }

    async fn look(&self, name: &str) -> (char, String) {
        let tools = Tools { systemctl: self.0.clone().into(), ..Tools::here() };
        let os_service = text(name);
        look_with(&tools, CheckSpec { os_service, timeout: timeout_of(1000), ..CheckSpec::default() }).await
    }
}

impl Drop for Systemctl {
    fn drop(&mut self) {
        let _best_effort = fs::remove_file(&self.0);
    }
}

/// `cluster.md` §6.4.
#[tokio::test]
async fn what_systemd_says_of_a_unit_is_a_status() {
    let unit = |load: &str, active: &str, sub: &str| {
        format!("echo LoadState={load}; echo ActiveState={active}; echo SubState={sub}")
    };
    let table = [
        (unit("loaded", "active", "running"), 'p', "OS service web: active (running)"),
        (unit("loaded", "reloading", "reload"), 'p', "OS service web: reloading (reload)"),
        (unit("loaded", "activating", "auto-restart"), 'w', "OS service web: activating (auto-restart)"),
        (unit("loaded", "failed", "failed"), 'c', "OS service web: failed (failed)"),
        (unit("loaded", "inactive", "dead"), 'c', "OS service web: inactive (dead)"),
        (unit("not-found", "inactive", "dead"), 'c', "OS service web: not found"),
        ("exit 0".into(), 'c', "OS service web: not the name of one unit"),
        ("echo no systemd here >&2; exit 1".into(), 'c', "OS service web: systemctl: no systemd here"),
        (
            "sleep 9".into(),
            'c',
            "OS service web: Timed out (1s) running check (os_service checks ask systemd, through systemctl)",
        ),
    ];
    for (program, status, output) in table {
        assert_eq!(Systemctl::new(&program).look("web").await, (status, output.into()), "{program}");
    }
    let asked = Systemctl::new("echo \"$*\"; exit 1").look("-H x").await.1;
    let expected = "show --no-pager --property=LoadState,ActiveState,SubState -- -H x";
    assert_eq!(asked, format!("OS service -H x: systemctl: {expected}"), "a name is no option");
    let missing = Systemctl("/nope".into()).look("web").await;
    let why = "OS service web: fork/exec /nope: no such file or directory (os_service checks ask systemd, through systemctl)";
    assert_eq!(missing, ('c', why.into()));
}
