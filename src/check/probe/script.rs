//! Script probes: a program without a shell, in a process group of its own, which ends with the look at it.

use std::{process::Stdio, sync::Arc, time::Duration};

use nix::{
    sys::signal::{Signal, killpg},
    unistd::Pid,
};
use tokio::{
    io::{AsyncRead, AsyncReadExt},
    process::{Child, Command},
};

use super::{Seen, output, shown};
use crate::catalog::Status;

/// A program that does not go when its group is killed is left to the system after this long.
const REAP_LIMIT: Duration = Duration::from_secs(5);

pub async fn look(args: &Arc<[String]>, limit: Duration, output_bytes_max: usize) -> Seen {
    let Some((program, rest)) = args.split_first() else { return Seen::critical("no program to run") };
    let started = Command::new(program)
        .args(rest)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .process_group(0)
        .spawn();
    let mut child = match started {
        Ok(child) => child,
        Err(error) => return Seen::critical(format!("fork/exec {program}: {}", lower(&error))),
    };
    let group = Group(child.id().and_then(|id| i32::try_from(id).ok()).map(Pid::from_raw));
    let mut tail = output::Tail::new(output_bytes_max);
    let ended = tokio::time::timeout(limit, run(&mut child, &mut tail)).await;
    let Ok(code) = ended else {
        drop(group);
        let _gone_or_left = tokio::time::timeout(REAP_LIMIT, child.wait()).await;
        return Seen::critical(format!("Timed out ({}) running check", shown(limit)));
    };
    group.forget();
    let (kept, total) = tail.finish();
    let status = match code {
        Some(0) => Status::Passing,
        Some(1) => Status::Warning,
        _ => Status::Critical,
    };
    Seen { status, output: output::of_script(&kept, total) }
}

/// Reads both streams as they come, then the exit code.
async fn run(child: &mut Child, tail: &mut output::Tail) -> Option<i32> {
    let (mut out, mut err) = (child.stdout.take(), child.stderr.take());
    let (mut from_out, mut from_err) = ([0; 4096], [0; 4096]);
    while out.is_some() || err.is_some() {
        tokio::select! {
            read = read(&mut out, &mut from_out) => match read {
                0 => out = None,
                length => tail.push(&from_out[..length]),
            },
            read = read(&mut err, &mut from_err) => match read {
                0 => err = None,
                length => tail.push(&from_err[..length]),
            },
        }
    }
    child.wait().await.ok().and_then(|status| status.code())
}

/// Never ends where there is no stream to read.
async fn read<R: AsyncRead + Unpin>(stream: &mut Option<R>, buffer: &mut [u8]) -> usize {
    match stream {
        Some(stream) => stream.read(buffer).await.unwrap_or(0),
        None => std::future::pending().await,
    }
}

/// A process group that is killed when nobody looks at it any more.
struct Group(Option<Pid>);

impl Group {
    /// It ended by itself.
    fn forget(mut self) {
        self.0 = None;
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        if let Some(group) = self.0 {
            // Already gone is what is wanted.
            let _gone = killpg(group, Signal::SIGKILL);
        }
    }
}

fn lower(error: &std::io::Error) -> String {
    match error.kind() {
        std::io::ErrorKind::NotFound => "no such file or directory".into(),
        std::io::ErrorKind::PermissionDenied => "permission denied".into(),
        _ => error.to_string(),
    }
}
