//! The static zones: read when the agent starts, when it is told to, and when their files have changed.

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use arc_swap::ArcSwap;
use tokio::{sync::Notify, time};
use tokio_util::sync::CancellationToken;

use super::Shared;
use crate::dns::{Settings, StaticZones, ZoneFiles};

/// A change is taken up by the second look at it.
const LOOK_EVERY: Duration = Duration::from_secs(1);

#[derive(Default)]
pub struct Zones {
    pub published: Arc<ArcSwap<StaticZones>>,
    files: Mutex<ZoneFiles>,
    was_read: Notify,
}

impl Zones {
    /// Reads all files that the settings name.
    pub fn read(&self, settings: &ArcSwap<Settings>) {
        self.update(settings, true);
        self.was_read.notify_one();
    }

    /// As `read`, beside whatever else there is to do: a disk may take its time, and nobody else must wait for it.
    pub async fn read_aside(self: &Arc<Self>, settings: Arc<ArcSwap<Settings>>) {
        let zones = self.clone();
        aside(move || zones.read(&settings)).await;
    }

    /// Reads those that have changed.
    async fn look_aside(self: &Arc<Self>, settings: Arc<ArcSwap<Settings>>) {
        let zones = self.clone();
        aside(move || zones.update(&settings, false)).await;
    }

    fn update(&self, settings: &ArcSwap<Settings>, all: bool) {
        let mut files = self.files.lock().unwrap_or_else(PoisonError::into_inner);
        // Not sooner: what was set while we waited counts.
        let settings = settings.load_full();
        if !all && !files.have_changed(&settings.zones) {
            return;
        }
        for told in files.read(&settings.zones, &settings.domains(), all) {
            if told.is_fault() { tracing::error!("{told}") } else { tracing::info!("{told}") }
        }
        // Who may ask others learns from them where private addresses end, and has no need of these.
        let builtin = settings.recursion.recursors.is_empty();
        self.published.store(Arc::new(files.zones(builtin)));
    }
}

/// Looks after the files, for as long as there are any.
pub async fn watch(shared: Arc<Shared>, stop: CancellationToken) {
    loop {
        let none = shared.dns.load().zones.is_empty();
        tokio::select! {
            () = stop.cancelled() => return,
            () = shared.zones.was_read.notified() => continue,
            () = time::sleep(LOOK_EVERY), if !none => {}
        }
        shared.zones.look_aside(shared.dns.clone()).await;
    }
}

async fn aside(work: impl FnOnce() + Send + 'static) {
    if let Err(error) = tokio::task::spawn_blocking(work).await {
        tracing::error!(%error, "cannot look after the zone files");
    }
}
