//! Script probes: a program without a shell, in a process group of its own. The group is killed when the program takes too
//! long or its check is gone; where the agent itself goes, nobody waits for it any more and it is left alone.

use std::{ffi::OsStr, process::Stdio, sync::Arc, time::Duration};

use nix::{
    sys::signal::{Signal, killpg},
    unistd::Pid,
};
use tokio::{
    io::{AsyncRead, AsyncReadExt},
    process::{Child, Command},
    time::timeout,
};
use tokio_util::sync::CancellationToken;

use super::{Seen, output, shown};
use crate::catalog::Status;

/// A program that does not go when its group is killed is left to the system after this long.
const REAP_LIMIT: Duration = Duration::from_secs(5);

/// A program that ended.
pub struct Ended {
    pub code: Option<i32>,
    pub kept: Vec<u8>,
    pub bytes: usize,
}

pub async fn look(args: &Arc<[String]>, gone: &CancellationToken, limit: Duration, bytes_max: usize) -> Seen {
    let Some((program, rest)) = args.split_first() else { return Seen::critical("no program to run") };
    run(OsStr::new(program), rest, gone, limit, bytes_max).await.map_or_else(Seen::critical, Ended::seen)
}

/// Runs a program to its end; or says why it did not come to that.
pub async fn run(
    program: &OsStr,
    args: &[String],
    gone: &CancellationToken,
    limit: Duration,
    output_bytes_max: usize,
) -> Result<Ended, String> {
    let started = Command::new(program)
        .args(args)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .process_group(0)
        .spawn();
    let mut child = started.map_err(|error| format!("fork/exec {}: {}", program.display(), lower(&error)))?;
    let mut tail = output::Tail::new(output_bytes_max);
    let ended = tokio::select! {
        ended = timeout(limit, read_to_end(&mut child, &mut tail)) => ended.ok(),
        () = gone.cancelled() => None,
    };
    let Some(code) = ended else {
        kill(&mut child).await;
        return Err(timed_out(limit));
    };
    let (kept, bytes) = tail.finish();
    Ok(Ended { code, kept, bytes })
}

/// Ends a program with all that it started, and takes leave of it, so that none stays in the system's list of the dead.
async fn kill(child: &mut Child) {
    // Where it has no id any more it was taken leave of already.
    if let Some(group) = child.id().and_then(|id| i32::try_from(id).ok()) {
        // Already gone is what is wanted.
        let _gone = killpg(Pid::from_raw(group), Signal::SIGKILL);
    }
    let _gone_or_left = timeout(REAP_LIMIT, child.wait()).await;
}

pub fn timed_out(limit: Duration) -> String {
    format!("Timed out ({}) running check", shown(limit))
}

impl Ended {
    pub fn seen(self) -> Seen {
        let status = match self.code {
            Some(0) => Status::Passing,
            Some(1) => Status::Warning,
            _ => Status::Critical,
        };
        Seen { status, output: output::of_script(&self.kept, self.bytes) }
    }
}

/// Reads both streams as they come, then the exit code.
async fn read_to_end(child: &mut Child, tail: &mut output::Tail) -> Option<i32> {
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

fn lower(error: &std::io::Error) -> String {
    match error.kind() {
        std::io::ErrorKind::NotFound => "no such file or directory".into(),
        std::io::ErrorKind::PermissionDenied => "permission denied".into(),
        _ => error.to_string(),
    }
}
