//! Commands through a real openraft, from many proposers.

use super::*;
use crate::catalog::{Node, Register, Service, Topic};

fn register(node: &str, port: u16) -> Command {
    let service = Service { id: "web".into(), name: "web".into(), port, ..Service::default() };
    let node = Node { name: node.into(), address: "10.0.0.1".into(), ..Node::default() };
    Command::Register(Box::new(Register {
        node,
        skip_node_update: false,
        service: Some(service),
        checks: vec![],
    }))
}

async fn start(log_entries_max: u64) -> (Raft, JoinHandle<()>, CancellationToken) {
    let shutdown = CancellationToken::new();
    let settings = Settings { address: ([127, 0, 0, 1], 8300).into(), log_entries_max };
    let (raft, task) = Raft::start(settings, shutdown.clone()).await.unwrap();
    (raft, task, shutdown)
}

#[tokio::test]
async fn a_command_is_applied_and_published() {
    let (raft, task, shutdown) = start(100).await;
    assert!(raft.published().load().is_none(), "nothing is published before the first apply");
    let reply = raft.propose(register("ash", 80)).await.unwrap().unwrap();
    assert!(reply.changed);
    assert_eq!((raft.catalog().index(), reply.index), (1, 1));
    assert_eq!(raft.leader(), Some(([127, 0, 0, 1], 8300).into()));
    let wait = raft.waiters().register(vec![Topic::Service("web".into())]);
    let same = raft.propose(register("ash", 80)).await.unwrap().unwrap();
    assert!(!same.changed && same.index == 1, "an identical write raises nothing");
    let refused = raft.propose(register("", 80)).await.unwrap();
    assert_eq!(refused.unwrap_err().to_string(), "Must provide node");
    raft.propose(register("ash", 81)).await.unwrap().unwrap();
    wait.changed().await;
    assert_eq!(raft.catalog().index(), 2);
    shutdown.cancel();
    task.await.unwrap();
    assert_eq!(raft.propose(register("ash", 82)).await, Err(ProposeError::Stopped));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn commands_that_wait_share_an_entry_and_keep_their_replies() {
    let (raft, task, shutdown) = start(1_000_000).await;
    let mut writers = tokio::task::JoinSet::new();
    for writer in 0..64 {
        let raft = raft.clone();
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
    assert!(raft.log_entries() < 64 * 50 / 2, "{} entries for 3,200 commands", raft.log_entries());
    shutdown.cancel();
    task.await.unwrap();
}

#[tokio::test]
async fn the_log_stays_short_under_endless_rewriting() {
    let (raft, task, shutdown) = start(100).await;
    let mut longest = 0;
    for turn in 0..3000 {
        raft.propose(register("ash", turn)).await.unwrap().unwrap();
        longest = longest.max(raft.log_entries());
    }
    assert!(longest < 1000, "{longest} entries");
    shutdown.cancel();
    task.await.unwrap();
}

#[tokio::test]
async fn too_many_proposals_are_told_at_once() {
    let (raft, task, shutdown) = start(100).await;
    let mut asked: Vec<_> =
        (0..=PROPOSALS_MAX as u16).map(|port| Box::pin(raft.propose(register("ash", port)))).collect();
    let mut overloaded = 0;
    for proposal in &mut asked {
        let polled =
            std::future::poll_fn(|context| std::task::Poll::Ready(proposal.as_mut().poll(context))).await;
        overloaded += usize::from(polled == std::task::Poll::Ready(Err(ProposeError::Overloaded)));
    }
    assert_eq!(overloaded, 1);
    asked.pop();
    for proposal in asked {
        proposal.await.unwrap().unwrap();
    }
    shutdown.cancel();
    task.await.unwrap();
}
