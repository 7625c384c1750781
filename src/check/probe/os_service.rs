//! Services of the operating system: what systemd says of a unit, asked through `systemctl`.

use std::{ffi::OsStr, time::Duration};

use tokio_util::sync::CancellationToken;

use super::{Seen, script};
use crate::catalog::Status;

/// What is asked is answered in much less.
const ANSWER_BYTES_MAX: usize = 4096;

pub async fn look(name: &str, systemctl: &OsStr, gone: &CancellationToken, limit: Duration) -> Seen {
    let args = ["show", "--no-pager", "--property=LoadState,ActiveState,SubState", "--", name];
    let args = args.map(String::from);
    match script::run(systemctl, &args, gone, limit, ANSWER_BYTES_MAX).await {
        Ok(ended) if ended.code == Some(0) => read(name, &String::from_utf8_lossy(&ended.kept)),
        Ok(ended) => {
            let said = String::from_utf8_lossy(&ended.kept);
            Seen::critical(format!("OS service {name}: systemctl: {}", said.trim()))
        }
        Err(error) => Seen::critical(format!(
            "OS service {name}: {error} (os_service checks ask systemd, through systemctl)"
        )),
    }
}

/// `Key=value` lines, of one unit.
fn read(name: &str, answer: &str) -> Seen {
    let values = |key: &str| {
        let of_key =
            answer.lines().filter_map(|line| line.split_once('=')).filter(|(found, _)| *found == key);
        of_key.map(|(_, value)| value).collect::<Vec<_>>()
    };
    let ([loaded], [active], [sub]) =
        (&values("LoadState")[..], &values("ActiveState")[..], &values("SubState")[..])
    else {
        return Seen::critical(format!("OS service {name}: not the name of one unit"));
    };
    if *loaded == "not-found" {
        return Seen::critical(format!("OS service {name}: not found"));
    }
    let status = match *active {
        "active" | "reloading" | "refreshing" => Status::Passing,
        "inactive" | "failed" => Status::Critical,
        // On its way up or down, or worked on.
        _ => Status::Warning,
    };
    Seen { status, output: format!("OS service {name}: {active} ({sub})") }
}
