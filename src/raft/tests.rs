//! Commands through a real openraft, from many proposers; on disks of every kind in `disks`.

mod archive;
mod disks;
mod fuzz;
mod simulated;

use std::{future::Future, pin::pin, task::Poll};

use openraft::{
    StorageError,
    testing::{StoreBuilder, Suite},
};

use super::*;
use crate::catalog::{Check, Node, Register, Service, Topic};

#[tokio::test]
async fn a_command_is_applied_and_published() {
    let raft = Started::new().await;
    assert!(raft.is_leader() && raft.leader() == Some(ADDRESS.into()), "a lone voter leads at once");
    assert!(raft.published().load().is_none(), "nothing is published before the first apply");
    let reply = raft.propose(register("ash", 80)).await.unwrap().unwrap();
    assert!(reply.changed);
    assert_eq!((raft.catalog().index(), reply.index), (1, 1));
    raft.stop().await;
}

#[tokio::test]
async fn only_what_changes_something_is_published_and_wakes() {
    let raft = Started::new().await;
    raft.propose(register("ash", 80)).await.unwrap().unwrap();
    let wait = raft.waiters().register(vec![Topic::Service("web".into()), Topic::Nodes, Topic::Checks]);
    let mut changed = Box::pin(wait.changed());
    let before = raft.catalog();

    let same = raft.propose(register("ash", 80)).await.unwrap().unwrap();
    assert!(!same.changed && same.index == 1, "an identical write raises nothing");
    let refused = raft.propose(register("", 80)).await.unwrap();
    assert_eq!(refused.unwrap_err().to_string(), "Must provide node");
    let other = Command::Register(Box::new(Register {
        service: Some(Service { name: "other".into(), ..Service::default() }),
        ..registration("ash")
    }));
    assert!(Arc::ptr_eq(&before, &raft.catalog()), "neither publishes");
    assert!(raft.propose(other).await.unwrap().unwrap().changed);
    assert_eq!(now(changed.as_mut()).await, None, "none of them wakes");

    raft.propose(register("ash", 81)).await.unwrap().unwrap();
    changed.await;
    assert_eq!(raft.catalog().index(), 3);
    assert_eq!(raft.waiters().topics(), 0);
    raft.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn commands_that_wait_share_an_entry_and_keep_their_replies() {
    let raft = Started::new().await;
    let mut writers = tokio::task::JoinSet::new();
    for writer in 0..64 {
        let raft = raft.raft.clone();
        writers.spawn(async move {
            for turn in 0..50u16 {
                let name = if turn % 5 == 4 { String::new() } else { format!("node-{writer}") };
                let reply = raft.propose(register(&name, turn)).await.unwrap();
                assert_eq!(reply.is_err(), name.is_empty(), "every caller gets its own reply");
            }
        });
    }
    while let Some(done) = writers.join_next().await {
        done.unwrap();
    }
    raft.catalog().assert_consistent();
    assert_eq!(raft.catalog().index(), 64 * 40);
    assert!(appended(&raft) < 64 * 50 / 2, "{} entries for 3,200 commands", appended(&raft));
    raft.stop().await;
}

/// 512 commands of 4 kB each wait at once: one entry by number, two by size.
#[tokio::test]
async fn an_entry_is_closed_by_size_too() {
    let raft = Started::new().await;
    let before = appended(&raft);
    let mut all: Vec<_> = (0..512).map(|_| Box::pin(raft.propose(noted("ash", 4096)))).collect();
    for proposal in &mut all {
        assert_eq!(now(proposal).await, None);
    }
    for proposal in all {
        proposal.await.unwrap().unwrap();
    }
    assert!(appended(&raft) >= before + 2);
    raft.stop().await;
}

#[tokio::test]
async fn the_log_stays_small_under_endless_rewriting() {
    const BYTES_MAX: usize = 64 << 10;
    let raft = Started::with(BYTES_MAX).await;
    let (mut most, mut written) = (0, 0);
    for turn in 0..2_000 {
        let command = noted(&format!("node-{}", turn % 3), 1_000 + turn);
        written += log::bytes_of(&command);
        raft.propose(command).await.unwrap().unwrap();
        most = most.max(raft.stats().log_bytes);
    }
    assert!(most < 2 * BYTES_MAX && written > 20 * BYTES_MAX, "{most} bytes held of {written} written");
    raft.stop().await;
}

#[tokio::test]
async fn too_many_proposals_are_told_at_once() {
    let raft = Started::new().await;
    let mut all: Vec<_> = (0..PROPOSALS_MAX).map(|_| Box::pin(raft.propose(register("ash", 80)))).collect();
    for proposal in &mut all {
        assert_eq!(now(proposal).await, None);
    }
    assert_eq!(now(raft.propose(register("ash", 81))).await, Some(Err(ProposeError::Overloaded)));
    for proposal in all {
        proposal.await.unwrap().unwrap();
    }
    raft.stop().await;
}

#[tokio::test]
async fn what_waits_at_a_stop_is_told() {
    let raft = Started::new().await;
    let mut all: Vec<_> = (0..100).map(|_| Box::pin(raft.propose(register("ash", 80)))).collect();
    for proposal in &mut all {
        assert_eq!(now(proposal).await, None);
    }
    raft.shutdown.cancel();
    for proposal in all {
        assert_eq!(proposal.await, Err(ProposeError::Stopped));
    }
    assert_eq!(raft.propose(register("ash", 82)).await, Err(ProposeError::Stopped));
    assert!(raft.published().load().is_none(), "nothing of it was written");
    raft.stop().await;
}

/// What readers hold stays whole; the last of them to let go does not take it apart, the publisher does.
#[tokio::test]
async fn readers_never_free_a_catalog() {
    let raft = Started::new().await;
    raft.propose(register("ash", 80)).await.unwrap().unwrap();
    let read = raft.catalog();
    let weak = Arc::downgrade(&read);
    raft.propose(register("ash", 81)).await.unwrap().unwrap();
    assert_eq!(read.index(), 1);
    drop(read);
    assert!(weak.upgrade().is_some(), "the reader was the last, and yet it is there");
    raft.propose(register("ash", 82)).await.unwrap().unwrap();
    assert!(weak.upgrade().is_none(), "gone with the next publish");
    raft.stop().await;
}

/// openraft's own suite over its two storage traits.
#[test]
fn storage_keeps_its_contract() {
    struct InMemory;
    impl StoreBuilder<Types, log::Log, machine::Machine> for InMemory {
        async fn build(&self) -> Result<((), log::Log, machine::Machine), StorageError<u64>> {
            Ok(((), log::Log::default(), machine::Machine::new(Published::default(), Arc::default())))
        }
    }
    Suite::test_all(InMemory).unwrap();
}

const ADDRESS: ([u8; 4], u16) = ([127, 0, 0, 1], 8300);

struct Started {
    raft: Raft,
    task: JoinHandle<()>,
    shutdown: CancellationToken,
}

impl Started {
    async fn new() -> Self {
        Self::with(1 << 20).await
    }

    async fn with(log_bytes_max: usize) -> Self {
        let shutdown = CancellationToken::new();
        let settings = Settings::in_memory(ADDRESS, log_bytes_max);
        let (raft, task) = Raft::open(settings, shutdown.clone()).await.unwrap();
        raft.lead().await.unwrap();
        Started { raft, task, shutdown }
    }

    async fn stop(self) {
        self.shutdown.cancel();
        self.task.await.unwrap();
    }
}

impl std::ops::Deref for Started {
    type Target = Raft;

    fn deref(&self) -> &Raft {
        &self.raft
    }
}

/// Of the newest entry.
fn appended(raft: &Raft) -> u64 {
    raft.log.last().map_or(0, |last| last.index)
}

/// What a future gives without waiting.
async fn now<F: Future>(future: F) -> Option<F::Output> {
    let mut future = pin!(future);
    std::future::poll_fn(|context| {
        Poll::Ready(match future.as_mut().poll(context) {
            Poll::Ready(output) => Some(output),
            Poll::Pending => None,
        })
    })
    .await
}

fn registration(node: &str) -> Register {
    Register {
        node: Node { name: node.into(), address: "10.0.0.1".into(), ..Node::default() },
        ..Register::default()
    }
}

fn register(node: &str, port: u16) -> Command {
    let service = Service { name: "web".into(), port, ..Service::default() };
    Command::Register(Box::new(Register { service: Some(service), ..registration(node) }))
}

/// Registers a check with an output of so many bytes.
fn noted(node: &str, bytes: usize) -> Command {
    let check = Check { id: "c".into(), output: "x".repeat(bytes).into(), ..Check::default() };
    Command::Register(Box::new(Register { checks: vec![check], ..registration(node) }))
}
