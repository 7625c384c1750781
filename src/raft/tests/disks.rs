//! What was acknowledged is there again, whatever the disk did; and what is damaged is found out, never served.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::{Path, PathBuf},
    sync::atomic::{AtomicU64, Ordering},
};

use super::{simulated::Simulated, *};
use crate::catalog::{
    Autopilot, Coordinate, Indexes, KvOp, KvVerb, KvWrite, NodeCoordinate, Op, Query, QueryWrite, Restore,
    Row, ServiceQuery, Session, SessionCheck, SessionWrite, SetAutopilot, Status, Text,
};

/// A folder of the test's own, gone afterwards.
struct Folder(PathBuf);

impl Folder {
    fn new() -> Self {
        let path = std::env::temp_dir().join(format!("lictor-raft-{}", uuid::Uuid::new_v4()));
        fs::create_dir_all(&path).unwrap();
        Folder(path)
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _best_effort = fs::remove_dir_all(&self.0);
    }
}

fn settings(folder: &Path) -> Settings {
    Settings { folder: Some(folder.into()), ..Settings::in_memory(ADDRESS, 1 << 20) }
}

/// A server whose log is on real files.
async fn open(settings: Settings) -> Result<Started, String> {
    let shutdown = CancellationToken::new();
    let (raft, task) = Raft::open(settings, shutdown.clone()).await?;
    Ok(Started { raft, task, shutdown })
}

async fn lead(settings: Settings) -> Started {
    let started = open(settings).await.unwrap();
    started.lead().await.unwrap();
    started
}

/// A server whose log is on a simulated disk, its snapshots in the folder, and that sees so much free.
async fn on(
    disk: &Simulated,
    folder: &Folder,
    log_bytes_max: usize,
    free: impl Fn() -> u64 + Send + Sync + 'static,
) -> Result<Started, String> {
    let shutdown = CancellationToken::new();
    let path = PathBuf::from("simulated");
    let (disk, found) =
        disk::Disk::open_on(disk.clone(), path, &folder.0).map_err(|error| error.to_string())?;
    let snapshots =
        snapshot::Snapshots::open(&folder.0.join("snapshots")).map_err(|error| error.to_string())?;
    let kept =
        Kept { log: log::Log::on(disk, found), snapshots, space: space::Space::simulated(1_000, free) };
    let settings = Settings { log_bytes_max, ..settings(&folder.0) };
    let (raft, task) = Raft::open_on(settings, Some(kept), shutdown.clone()).await?;
    Ok(Started { raft, task, shutdown })
}

/// All that a catalog says, to be compared.
fn said(catalog: &Catalog) -> Vec<String> {
    catalog.assert_consistent();
    catalog.rows().map(|row: Row| serde_json::to_string(&row).unwrap()).collect()
}

/// A service with its check on a node: all of it or nothing.
fn whole(node: &str, port: u16) -> Command {
    let service = Service { name: "web".into(), port, ..Service::default() };
    let check = Check {
        id: "c".into(),
        service_id: "web".into(),
        status: Status::Passing,
        output: port.to_string().into(),
        ..Check::default()
    };
    Command::Register(Box::new(Register {
        service: Some(service),
        checks: vec![check],
        ..registration(node)
    }))
}

#[tokio::test]
async fn a_restart_goes_on_where_it_stood() {
    let folder = Folder::new();
    let raft = lead(settings(&folder.0)).await;
    for turn in 0..50 {
        raft.propose(whole(&format!("node-{}", turn % 7), turn)).await.unwrap().unwrap();
    }
    let before = said(&raft.catalog());
    let term = raft.consensus.metrics().borrow().current_term;
    raft.stop().await;

    let raft = open(settings(&folder.0)).await.unwrap();
    assert!(!raft.fresh().load(Ordering::Relaxed), "nobody leads yet");
    assert!(!raft.is_leader());
    raft.lead().await.unwrap();
    assert!(raft.fresh().load(Ordering::Relaxed));
    assert_eq!(said(&raft.catalog()), before);
    let metrics = raft.consensus.metrics().borrow().clone();
    assert!(metrics.current_term > term, "whoever led stands for election again");
    let reply = raft.propose(whole("node-1", 999)).await.unwrap().unwrap();
    assert_eq!(reply.index, 51, "indexes go on");
    raft.stop().await;
}

#[tokio::test]
async fn who_may_not_begin_does_not() {
    let folder = Folder::new();
    let may_not = Settings { may_begin: false, ..settings(&folder.0) };
    let raft = open(may_not.clone()).await.unwrap();
    assert!(raft.lead().await.unwrap_err().starts_with("no datacenter is kept here yet"));
    raft.stop().await;
    lead(settings(&folder.0)).await.stop().await;
    lead(may_not).await.stop().await;
}

/// openraft's own suite over its two storage traits, on a disk.
#[test]
fn storage_keeps_its_contract_on_disk() {
    struct OnDisk;
    impl StoreBuilder<Types, log::Log, machine::Machine, Folder> for OnDisk {
        async fn build(&self) -> Result<(Folder, log::Log, machine::Machine), StorageError<u64>> {
            let folder = Folder::new();
            let Kept { log, snapshots, .. } = Kept::open(folder.0.clone(), 0).expect("a fresh folder");
            let mut machine = machine::Machine::new(Published::default(), Arc::default());
            machine.recover(snapshots).expect("nothing is there to be damaged");
            Ok((folder, log, machine))
        }
    }
    Suite::test_all(OnDisk).unwrap();
}

/// The log is cut behind snapshots, and both together bring everything back.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_on_disk_stays_bounded_under_endless_rewriting() {
    const BYTES_MAX: usize = 64 << 10;
    let folder = Folder::new();
    let bounded = Settings { log_bytes_max: BYTES_MAX, ..settings(&folder.0) };
    let raft = lead(bounded.clone()).await;
    let (mut written, mut most) = (0, 0);
    for turn in 0..2_000 {
        let command = noted(&format!("node-{}", turn % 3), 1_000 + turn);
        written += log::bytes_of(&command);
        raft.propose(command).await.unwrap().unwrap();
        if turn % 100 == 0 {
            most = most.max(bytes_of_folder(&folder.0));
        }
    }
    assert!(written > 3 << 20 && most < 2 << 20, "{most} bytes on disk for {written} written");
    let before = said(&raft.catalog());
    raft.stop().await;
    let snapshots = fs::read_dir(folder.0.join("snapshots")).unwrap().count();
    assert_eq!(snapshots, 1, "the former ones are gone");
    let raft = lead(bounded).await;
    assert_eq!(said(&raft.catalog()), before);
    raft.stop().await;
}

fn bytes_of_folder(folder: &Path) -> u64 {
    let entries = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap());
    entries
        .map(|entry| match entry.metadata() {
            Ok(metadata) if metadata.is_dir() => bytes_of_folder(&entry.path()),
            Ok(metadata) => metadata.len(),
            // Removed since it was listed.
            Err(_) => 0,
        })
        .sum()
}

/// Writers register; at some moment the power goes. What was acknowledged is there after the next start, nothing is
/// there in part, and so it goes on for many rounds on the same disk.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_power_cut_loses_nothing_that_was_acknowledged() {
    for seed in 0..4 {
        let mut random = fastrand::Rng::with_seed(seed);
        let folder = Folder::new();
        let mut image = Vec::new();
        let mut acknowledged: BTreeMap<String, u16> = BTreeMap::new();
        for round in 0..8u16 {
            let disk = Simulated::of(std::mem::take(&mut image));
            let log_bytes_max = if round % 2 == 0 { 16 << 10 } else { 1 << 20 };
            let raft = on(&disk, &folder, log_bytes_max, || u64::MAX).await.unwrap();
            raft.lead().await.unwrap();
            check(&raft.catalog(), &acknowledged, seed, round);
            let mut writers = tokio::task::JoinSet::new();
            for writer in 0..8 {
                let (raft, mut random) = (raft.raft.clone(), random.fork());
                writers.spawn(async move {
                    let mut done = Vec::new();
                    for turn in 0..200u16 {
                        let node = format!("node-{writer}-{}", random.u8(..5));
                        let port = round * 1_000 + turn;
                        match raft.propose(whole(&node, port)).await {
                            Ok(reply) => done.push((node, reply.map(|_| port).unwrap())),
                            Err(_) => break,
                        }
                    }
                    done
                });
            }
            let syncs = disk.syncs() + random.u64(3..60);
            while disk.syncs() < syncs && !writers.is_empty() {
                tokio::task::yield_now().await;
            }
            image = disk.cut_power(&mut random);
            while let Some(done) = writers.join_next().await {
                acknowledged.extend(done.unwrap());
            }
            assert!(raft.failed().await.contains("the power is off"));
            raft.stop().await;
        }
        assert!(!acknowledged.is_empty());
    }
}

/// Every acknowledged registration, or a later one that nobody was told of, and each of them whole.
fn check(catalog: &Catalog, acknowledged: &BTreeMap<String, u16>, seed: u64, round: u16) {
    catalog.assert_consistent();
    for (node, port) in acknowledged {
        let home = catalog.node(node);
        let found = home.and_then(|home| home.instance("web")).map(|instance| instance.service.port);
        assert!(found >= Some(*port), "seed {seed}, round {round}: {node} has {found:?}, told {port}");
    }
    for home in catalog.nodes() {
        let instance = home.instance("web").expect("a node comes with its service");
        assert_eq!(*instance.checks[0].output, *instance.service.port.to_string(), "in part");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_refused_sync_ends_the_writing_and_says_so() {
    let (disk, folder) = (Simulated::default(), Folder::new());
    let raft = on(&disk, &folder, 1 << 20, || u64::MAX).await.unwrap();
    raft.lead().await.unwrap();
    raft.propose(whole("ash", 80)).await.unwrap().unwrap();
    let image = disk.image();
    disk.refuse_syncs_after(0);
    assert_eq!(raft.propose(whole("birch", 80)).await, Err(ProposeError::Unknown));
    let reason = raft.failed().await;
    assert!(
        reason.starts_with("the log cannot be written: ") && reason.contains("refuses to sync"),
        "{reason}"
    );
    let syncs = disk.syncs();
    assert!(raft.propose(whole("cedar", 80)).await.is_err(), "nothing is tried again");
    assert_eq!(disk.syncs(), syncs);
    assert!(raft.catalog().node("ash").is_some(), "what is known is still answered");
    raft.stop().await;

    let raft = on(&Simulated::of(image), &folder, 1 << 20, || u64::MAX).await.unwrap();
    raft.lead().await.unwrap();
    assert!(raft.catalog().node("ash").is_some());
    raft.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_slow_disk_holds_up_writes_and_nothing_else() {
    let (disk, folder) = (Simulated::default(), Folder::new());
    let raft = on(&disk, &folder, 1 << 20, || u64::MAX).await.unwrap();
    raft.lead().await.unwrap();
    raft.propose(whole("ash", 80)).await.unwrap().unwrap();
    disk.hold_syncs(true);
    let mut writers = tokio::task::JoinSet::new();
    for writer in 0..100 {
        let raft = raft.raft.clone();
        writers.spawn(async move { raft.propose(whole(&format!("n{writer}"), 80)).await.unwrap().unwrap() });
    }
    tokio::task::yield_now().await;
    assert_eq!(raft.catalog().node_count(), 1, "nothing is acknowledged or shown before it is safe");
    let syncs = disk.syncs();
    disk.hold_syncs(false);
    writers.join_all().await;
    assert_eq!(raft.catalog().node_count(), 101);
    assert!(disk.syncs() - syncs < 50, "what waited went together: {} syncs", disk.syncs() - syncs);
    raft.stop().await;
}

#[tokio::test]
async fn who_waits_for_a_disk_that_hangs_is_told() {
    let (disk, folder) = (Simulated::default(), Folder::new());
    let raft = on(&disk, &folder, 1 << 20, || u64::MAX).await.unwrap();
    raft.lead().await.unwrap();
    raft.propose(whole("ash", 80)).await.unwrap().unwrap();
    disk.hold_syncs(true);
    tokio::time::pause();
    let told = tokio::time::timeout(Duration::from_secs(3_600), raft.propose(whole("birch", 80))).await;
    tokio::time::resume();
    let shown = raft.catalog().node("birch").is_some();
    disk.hold_syncs(false);
    assert_eq!((told, shown), (Ok(Err(ProposeError::Late)), false));
    raft.propose(whole("cedar", 80)).await.unwrap().unwrap();
    assert!(raft.catalog().node("birch").is_some(), "as it was said: it may be done yet");
    raft.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_full_disk_refuses_writes_and_recovers() {
    let (disk, folder, free) = (Simulated::default(), Folder::new(), Arc::new(AtomicU64::new(u64::MAX)));
    let seen = free.clone();
    let raft = on(&disk, &folder, 1 << 20, move || seen.load(Ordering::Relaxed)).await.unwrap();
    raft.lead().await.unwrap();
    raft.propose(whole("ash", 80)).await.unwrap().unwrap();
    let syncs = disk.syncs();
    free.store(999, Ordering::Relaxed);
    for _ in 0..3 {
        assert_eq!(raft.propose(whole("birch", 80)).await, Err(ProposeError::DiskFull));
    }
    assert_eq!(
        (raft.counters().refused(ProposeError::DiskFull).get(), disk.syncs()),
        (3, syncs),
        "nothing is written"
    );
    assert!(raft.catalog().node("ash").is_some());
    free.store(1_000, Ordering::Relaxed);
    raft.propose(whole("birch", 80)).await.unwrap().unwrap();
    raft.stop().await;
}

/// Should it be hit all the same, that is the end of this process, and nothing is lost.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_disk_that_is_hit_full_loses_nothing() {
    let (disk, folder) = (Simulated::default(), Folder::new());
    let raft = on(&disk, &folder, 1 << 30, || u64::MAX).await.unwrap();
    raft.lead().await.unwrap();
    disk.fill_at(disk.image().len() + (256 << 10));
    let mut acknowledged = Vec::new();
    for turn in 0.. {
        match raft.propose(noted(&format!("n{turn}"), 4_000)).await {
            Ok(reply) => acknowledged.push((turn, reply.unwrap().index)),
            Err(error) => {
                assert_eq!(error, ProposeError::Unknown);
                break;
            }
        }
    }
    assert!(acknowledged.len() > 10);
    assert!(raft.failed().await.starts_with("the log cannot be written: "));
    raft.stop().await;
    let raft = on(&Simulated::of(disk.image()), &folder, 1 << 30, || u64::MAX).await.unwrap();
    raft.lead().await.unwrap();
    let catalog = raft.catalog();
    assert!(acknowledged.iter().all(|(turn, _)| catalog.node(&format!("n{turn}")).is_some()));
    raft.stop().await;
}

/// A flipped bit anywhere: the log is refused by name, or it was in nothing that counts.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_flipped_bit_in_the_log_is_never_served() {
    let (disk, folder) = (Simulated::default(), Folder::new());
    let raft = on(&disk, &folder, 1 << 20, || u64::MAX).await.unwrap();
    raft.lead().await.unwrap();
    for turn in 0..40 {
        raft.propose(whole(&format!("node-{turn}"), turn)).await.unwrap().unwrap();
    }
    let before = said(&raft.catalog());
    raft.stop().await;
    let (image, mut random, mut refused) = (disk.image(), fastrand::Rng::with_seed(11), 0);
    for _ in 0..150 {
        let mut damaged = image.clone();
        damaged[random.usize(..image.len())] ^= 1 << random.u8(..8);
        match on(&Simulated::of(damaged), &folder, 1 << 20, || u64::MAX).await {
            Err(text) => {
                assert!(text.starts_with("simulated"), "it is named: {text}");
                refused += 1;
            }
            Ok(raft) => {
                raft.lead().await.unwrap();
                assert_eq!(said(&raft.catalog()), before);
                raft.stop().await;
            }
        }
    }
    assert!(refused > 10, "{refused} of 150 were found out");
}

/// redb would go on from the transaction before; its number tells.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_log_that_is_older_than_what_was_safe_is_refused() {
    let (disk, folder) = (Simulated::default(), Folder::new());
    let raft = on(&disk, &folder, 1 << 20, || u64::MAX).await.unwrap();
    raft.lead().await.unwrap();
    raft.propose(whole("ash", 80)).await.unwrap().unwrap();
    let older = disk.image();
    raft.propose(whole("birch", 80)).await.unwrap().unwrap();
    raft.stop().await;
    let Err(text) = on(&Simulated::of(older), &folder, 1 << 20, || u64::MAX).await else {
        panic!("an acknowledged write is gone, and nobody says so")
    };
    assert!(text.starts_with("simulated is damaged: transaction "), "{text}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_damaged_snapshot_is_refused_by_name_and_a_torn_one_is_swept_away() {
    let folder = Folder::new();
    let small = Settings { log_bytes_max: 8 << 10, ..settings(&folder.0) };
    let raft = lead(small.clone()).await;
    for turn in 0..200 {
        raft.propose(whole(&format!("node-{}", turn % 90), turn)).await.unwrap().unwrap();
    }
    let before = said(&raft.catalog());
    raft.stop().await;
    let path = fs::read_dir(folder.0.join("snapshots")).unwrap().next().unwrap().unwrap().path();
    let (bytes, mut random) = (fs::read(&path).unwrap(), fastrand::Rng::with_seed(5));
    for turn in 0..60 {
        let mut damaged = bytes.clone();
        if turn % 2 == 0 {
            damaged[random.usize(..bytes.len())] ^= 1 << random.u8(..8);
        } else {
            damaged.truncate(random.usize(..bytes.len()));
        }
        fs::write(&path, damaged).unwrap();
        let text = open(small.clone()).await.err().expect("a damaged snapshot is not served");
        assert!(text.starts_with(&format!("{} is damaged: ", path.display())), "{text}");
    }
    fs::write(&path, &bytes).unwrap();
    let torn = path.with_file_name("00000000000000000999-1.tmp");
    fs::write(&torn, &bytes[..bytes.len() / 2]).unwrap();
    let raft = lead(small).await;
    assert_eq!(said(&raft.catalog()), before);
    assert!(!torn.exists());
    raft.stop().await;
}

/// A node takes what its services take together: no bound of ours may stand in the way of reading it again.
#[test]
fn a_node_of_any_size_comes_back_from_a_snapshot() {
    let folder = Folder::new();
    let mut catalog = Catalog::default();
    for turn in 0..17 {
        let check =
            Check { id: turn.to_string().into(), output: "x".repeat(4 << 20).into(), ..Check::default() };
        let command = Command::Register(Box::new(Register { checks: vec![check], ..registration("ash") }));
        catalog.apply(command).0.unwrap();
    }
    let snapshots = snapshot::Snapshots::open(&folder.0).unwrap();
    snapshots.write(&openraft::SnapshotMeta::default(), &catalog).unwrap();
    let (_, read) = snapshots.newest().unwrap().unwrap();
    assert!(said(&read) == said(&catalog));
}

/// The log holds what a snapshot would: as long as that can be written, the server goes on, and tries again.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_snapshot_that_cannot_be_written_ends_nothing() {
    let folder = Folder::new();
    let small = Settings { log_bytes_max: 8 << 10, ..settings(&folder.0) };
    let snapshots = folder.0.join("snapshots");
    let raft = lead(small.clone()).await;
    fs::remove_dir(&snapshots).unwrap();
    fs::write(&snapshots, "in the way").unwrap();
    for turn in 0..200 {
        raft.propose(whole(&format!("node-{}", turn % 9), turn)).await.unwrap().unwrap();
    }
    assert!(raft.stats().log_bytes > 16 << 10, "nothing of the log is cut");
    fs::remove_file(&snapshots).unwrap();
    fs::create_dir(&snapshots).unwrap();
    let most = 8 * raft.stats().log_bytes;
    let (mut written, mut turn) = (0, 0);
    while fs::read_dir(&snapshots).unwrap().count() == 0 {
        let command = whole(&format!("node-{}", turn % 9), 1_000 + turn);
        written += log::bytes_of(&command);
        raft.propose(command).await.unwrap().unwrap();
        turn += 1;
        assert!(written < most, "it is not tried again");
    }
    let before = said(&raft.catalog());
    raft.stop().await;
    let raft = lead(small).await;
    assert_eq!(said(&raft.catalog()), before);
    raft.stop().await;
}

/// Half a snapshot is no use to anybody, and takes the room that is missing.
#[test]
fn a_snapshot_that_fails_leaves_nothing_behind() {
    let folder = Folder::new();
    let snapshots = snapshot::Snapshots::open(&folder.0).unwrap();
    // Its place is taken by what no file can replace.
    fs::create_dir(folder.0.join("00000000000000000000-0.snapshot")).unwrap();
    let failed = snapshots.write(&openraft::SnapshotMeta::default(), &Catalog::default());
    assert!(failed.is_err());
    assert_eq!(fs::read_dir(&folder.0).unwrap().count(), 1);
}

/// Parts of different times make no whole, and are told apart from one.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_log_and_a_snapshot_that_do_not_fit_are_refused_by_name() {
    let folder = Folder::new();
    let small = Settings { log_bytes_max: 8 << 10, ..settings(&folder.0) };
    let raft = lead(small.clone()).await;
    for turn in 0..200 {
        raft.propose(whole(&format!("node-{}", turn % 9), turn)).await.unwrap().unwrap();
    }
    raft.stop().await;
    let (snapshots, aside) = (folder.0.join("snapshots"), folder.0.join("aside"));
    fs::rename(&snapshots, &aside).unwrap();
    let text = open(small.clone()).await.err().expect("what was acknowledged is gone");
    let expected = format!("{} is damaged: the log goes on from entry ", folder.0.display());
    assert!(text.starts_with(&expected), "{text}");
    fs::remove_dir_all(&snapshots).unwrap();
    fs::rename(&aside, &snapshots).unwrap();
    fs::remove_file(folder.0.join("log.redb")).unwrap();
    fs::remove_file(folder.0.join("log.note")).unwrap();
    let text = open(small).await.err().expect("what was acknowledged since the snapshot is gone");
    let expected = format!("{} is damaged: the snapshot goes to entry ", folder.0.display());
    assert!(text.starts_with(&expected), "{text}");
}

/// A file of each form that a released version has written is read for ever. This writes today's where none is kept.
#[tokio::test]
async fn files_of_released_versions_are_read() {
    let first = kept_of("v1").await;
    first.assert_consistent();
    assert_eq!((first.index(), first.node_count()), (12, 12));
    let instance = first.node("node-7").unwrap().instance("web").unwrap().clone();
    assert_eq!((instance.service.port, &*instance.checks[0].output), (7, "7"));

    let second = kept_of("v2").await;
    second.assert_consistent();
    let rows: Vec<Row> = second.rows().collect();
    let kinds: BTreeSet<String> =
        rows.iter().map(|row| format!("{row:?}").split([' ', '(']).next().unwrap().to_string()).collect();
    let all = [
        "Autopilot",
        "Coordinate",
        "Entry",
        "Group",
        "Indexes",
        "LockDelay",
        "Node",
        "Query",
        "Session",
        "Staged",
        "Tombstone",
    ];
    assert_eq!(kinds.iter().map(|kind| &**kind).collect::<Vec<_>>(), all);
    let entry = second.entry(b"lock/7").unwrap();
    assert_eq!(
        (&*entry.value, entry.flags, entry.session),
        (&b"\x00\xff7"[..], u64::MAX, Some(session_id(7)))
    );
    assert_eq!(second.lock_delay(b"lock/1").unwrap().nanos, 15_000_000_000);
}

/// What the files of a version say, read by today's; of the newest version they are written first where there are none.
async fn kept_of(version: &str) -> Arc<Catalog> {
    let kept = Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("tests/formats/{version}/raft"));
    if !kept.exists() {
        let raft = lead(Settings { log_bytes_max: 4 << 10, ..settings(&kept) }).await;
        for turn in 0..12 {
            for command in of_every_kind(turn) {
                raft.propose(command).await.unwrap().unwrap();
            }
        }
        raft.stop().await;
        panic!("{} was missing and is written now: look at it, and keep it", kept.display());
    }
    let folder = Folder::new();
    fs::create_dir(folder.0.join("snapshots")).unwrap();
    fs::copy(kept.join("log.redb"), folder.0.join("log.redb")).unwrap();
    let snapshots: Vec<PathBuf> =
        fs::read_dir(kept.join("snapshots")).unwrap().map(|entry| entry.unwrap().path()).collect();
    assert_eq!(snapshots.len(), 1);
    fs::copy(&snapshots[0], folder.0.join("snapshots").join(snapshots[0].file_name().unwrap())).unwrap();
    let raft = lead(settings(&folder.0)).await;
    let catalog = raft.catalog();
    raft.stop().await;
    catalog
}

fn session_id(turn: u16) -> uuid::Uuid {
    uuid::Uuid::from_u128(turn.into())
}

/// Commands of every kind, so that some of each stand in the snapshot and some behind it.
pub(super) fn of_every_kind(turn: u16) -> Vec<Command> {
    let node = Text::from(format!("node-{turn}"));
    let kv = |verb, key: String, value: &[u8]| {
        Command::Kv(KvWrite { verb, key: key.as_str().into(), value: value.into(), flags: u64::MAX })
    };
    let session = Session {
        id: session_id(turn),
        name: "deploy".into(),
        node: node.clone(),
        lock_delay: 15_000_000_000,
        ttl: "1h".into(),
        ttl_nanos: 3_600_000_000_000,
        node_checks: Some(Arc::new([])),
        service_checks: Some(["c".into()].map(|id| SessionCheck { id, namespace: Text::default() }).into()),
        ..Session::default()
    };
    let coordinate = Coordinate { vec: [0.5; 8].into(), error: 0.25, adjustment: -0.125, height: 0.001 };
    let query = Query {
        id: session_id(100 + turn),
        name: format!("query-{turn}").into(),
        service: ServiceQuery {
            service: "web".into(),
            tags: Some(["!old".into()].into()),
            ..Default::default()
        },
        ..Query::default()
    };
    let restoring = session_id(1000);
    let staged = Row::Indexes(Indexes { index: 7, ..Indexes::default() });
    let set = KvOp { verb: "set".into(), key: format!("txn/{turn}").as_str().into(), ..KvOp::default() };
    let mut commands = vec![
        whole(&node, turn),
        Command::Session(SessionWrite::Create(Box::new(session))),
        kv(KvVerb::Lock(session_id(turn)), format!("lock/{turn}"), &[0, 255, b'0' + turn as u8]),
        kv(KvVerb::Set, format!("gone/{turn}"), b"x"),
        kv(KvVerb::Delete, format!("gone/{turn}"), b""),
        Command::Txn(vec![Op::Kv(set)]),
        Command::Coordinates(vec![NodeCoordinate { node, segment: Text::default(), coordinate }]),
        Command::Query(QueryWrite::Create(Box::new(query))),
        Command::Autopilot(SetAutopilot {
            autopilot: Autopilot { min_quorum: turn.into(), ..Autopilot::default() },
            cas: None,
        }),
    ];
    commands.extend(match turn {
        1 | 10 => vec![Command::Session(SessionWrite::Destroy(session_id(turn)))],
        2 => vec![Command::Restore(Restore::Begin { id: restoring })],
        3 => vec![Command::Restore(Restore::Rows { id: restoring, rows: [staged].into() })],
        11 => {
            vec![Command::ForgetTombstones { upto: 20 }, Command::EndLockDelays(vec![("lock/9".into(), 1)])]
        }
        _ => vec![],
    });
    commands
}

/// Whoever led may have told others what it did not write; so it is elected again before it leads again.
#[tokio::test]
async fn a_won_vote_is_won_no_more_after_a_restart() {
    let folder = Folder::new();
    let raft = lead(settings(&folder.0)).await;
    let won = raft.consensus.metrics().borrow().vote;
    assert!(won.committed);
    raft.stop().await;
    let Kept { mut log, .. } = Kept::open(folder.0.clone(), 0).unwrap();
    let kept = openraft::storage::RaftLogStorage::read_vote(&mut log).await.unwrap().unwrap();
    assert_eq!((kept.leader_id, kept.committed), (won.leader_id, false));
}
