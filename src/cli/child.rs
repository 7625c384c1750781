//! The program that a command starts: by a shell or as it stands, in a process group of its own, so that it can be ended
//! with all that it started.

use std::{env, process::Stdio, time::Duration};

use nix::{
    sys::signal::{Signal, killpg},
    unistd::Pid,
};
use tokio::{
    io::AsyncWriteExt,
    process::{self, Command},
    signal::unix::{Signal as Signals, SignalKind, signal},
    time::timeout,
};

use super::client::reason;

/// Between being asked to end and being made to.
const GRACE: Duration = Duration::from_secs(5);

pub struct Child {
    process: process::Child,
    group: Option<Pid>,
}

/// What it reads.
pub enum Input {
    Nothing,
    /// Our own standard input, in our own process group: the terminal is whose group is in front.
    Ours,
    Text(String),
}

impl Child {
    /// # Errors
    /// Why it could not be started.
    pub fn start(
        words: &[String],
        by_shell: bool,
        variable: (&str, &str),
        input: Input,
    ) -> Result<Child, String> {
        let shell = env::var("SHELL").ok().filter(|shell| !shell.is_empty());
        let shell = shell.unwrap_or_else(|| "/bin/sh".into());
        let mut command = match words {
            [] => return Err("no program to run".into()),
            words if by_shell => {
                let mut command = Command::new(&shell);
                command.args(["-c", &words.join(" ")]);
                command
            }
            [program, arguments @ ..] => {
                let mut command = Command::new(program);
                command.args(arguments);
                command
            }
        };
        command.env(variable.0, variable.1).stdin(match input {
            Input::Nothing => Stdio::null(),
            Input::Ours => Stdio::inherit(),
            Input::Text(_) => Stdio::piped(),
        });
        if !matches!(input, Input::Ours) {
            command.process_group(0);
        }
        let program = if by_shell { &shell } else { &words[0] };
        let told = |error| format!("fork/exec {program}: {}", reason(&error));
        let mut process = command.spawn().map_err(told)?;
        let id = process.id().and_then(|id| i32::try_from(id).ok());
        let group = id.filter(|_| !matches!(input, Input::Ours)).map(Pid::from_raw);
        if let (Input::Text(text), Some(mut stdin)) = (input, process.stdin.take()) {
            // What it does not read it does not want.
            tokio::spawn(async move { stdin.write_all(text.as_bytes()).await });
        }
        Ok(Child { process, group })
    }

    /// Waits for its end.
    ///
    /// # Errors
    /// How it ended, if not well: `exit status 3`, `signal: 15`.
    pub async fn wait(&mut self) -> Result<(), String> {
        use std::os::unix::process::ExitStatusExt;
        let status = self.process.wait().await.map_err(|error| reason(&error))?;
        match (status.code(), status.signal()) {
            (Some(0), _) => Ok(()),
            (Some(code), _) => Err(format!("exit status {code}")),
            (None, signal) => Err(format!("signal: {}", signal.unwrap_or(0))),
        }
    }

    /// Asks it to end, and makes it.
    pub async fn stop(&mut self) {
        self.signal(Signal::SIGTERM);
        if timeout(GRACE, self.process.wait()).await.is_err() {
            self.signal(Signal::SIGKILL);
            let _gone_or_left = timeout(GRACE, self.process.wait()).await;
        }
    }

    /// Gone already is what is wanted.
    fn signal(&self, signal: Signal) {
        let id = self.process.id().and_then(|id| i32::try_from(id).ok()).map(Pid::from_raw);
        let _gone = match (self.group, id) {
            (Some(group), _) => killpg(group, signal),
            (None, Some(id)) => nix::sys::signal::kill(id, signal),
            (None, None) => Ok(()),
        };
    }
}

/// Hears of whoever wants this command to end, from when it is made: a signal that comes while nobody waits is kept.
pub struct Interrupt(Option<[Signals; 2]>);

impl Interrupt {
    pub fn listen() -> Interrupt {
        let listen =
            || Ok::<_, std::io::Error>([signal(SignalKind::interrupt())?, signal(SignalKind::terminate())?]);
        Interrupt(listen().ok())
    }

    /// Where it cannot be heard, only what cannot be refused ends us.
    pub async fn came(&mut self) {
        let Some([interrupt, terminate]) = &mut self.0 else { return std::future::pending().await };
        tokio::select! {
            _ = interrupt.recv() => {}
            _ = terminate.recv() => {}
        }
    }
}
