//! What a service manager is told of an agent's life, where one wants to know (`NOTIFY_SOCKET`, as systemd sets it).

use std::time::Duration;

use sd_notify::NotifyState;

/// The agent answers.
pub fn ready() {
    tell(&[NotifyState::Ready]);
}

/// It reads its configuration again, and tells `ready` when that is done.
pub fn reloading() {
    match NotifyState::monotonic_usec_now() {
        Ok(now) => tell(&[NotifyState::Reloading, now]),
        Err(error) => tracing::warn!(%error, "no time for the service manager"),
    }
}

pub fn stopping() {
    tell(&[NotifyState::Stopping]);
}

pub fn alive() {
    tell(&[NotifyState::Watchdog]);
}

/// How often the manager is to hear that this process is alive, if it watches it: twice in the time it allows.
pub fn watchdog_interval() -> Option<Duration> {
    sd_notify::watchdog_enabled().map(|within| within / 2).filter(|interval| !interval.is_zero())
}

fn tell(states: &[NotifyState]) {
    if let Err(error) = sd_notify::notify(states) {
        tracing::warn!(%error, "the service manager does not listen");
    }
}
