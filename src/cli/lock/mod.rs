//! `lictor lock`: runs a program while a lock is held that all who speak Consul's protocol for locks respect: a session
//! that is renewed, and below a prefix the key `.lock` that it holds, alone (`mutex`) or as one of several (`semaphore`).
//! Without the lock the program does not run, and nothing of ours stays behind.

mod mutex;
mod semaphore;
mod session;

use std::{future::Future, pin::pin, time::Duration};

use tokio::time::timeout;

use self::{mutex::Mutex, semaphore::Semaphore, session::Session};
use super::{
    Doing, Failure, Outcome,
    child::{Child, Input, Interrupt},
    client::{self, Client, Lost, Request},
    kv::{self, Entry},
    line::{Command, Flag, Line, Run},
    output::{complain, say},
};

pub const COMMAND: Command = Command {
    name: "lock",
    arguments: "PREFIX CHILD...",
    does: "Runs a program while it holds a lock",
    flags: &[
        client::AGENT,
        client::SERVERS,
        &[
            Flag::number("n", "how many may hold it at once; 1 where not given"),
            Flag::text("name", "the name of the session"),
            Flag::duration("timeout", "how long to wait for the lock; without end where not given"),
            Flag::duration("try", "the same"),
            Flag::number(
                "monitor-retry",
                "errors in a row, 3 where not given, before a held lock counts as lost",
            ),
            Flag::switch("pass-stdin", "the program reads standard input"),
            Flag::switch("shell", "run the program by a shell; so it is where not given"),
            Flag::switch("child-exit-code", "exit with 2 where the program fails"),
            Flag::switch("verbose", "tell each step"),
        ],
    ],
    run: Run::Child(|line| client::ask(line, lock)),
};

/// How long a server holds a question about a lock that nothing happens to.
const WAIT: Duration = Duration::from_secs(15);
/// Until a lock that may not be taken yet (its last holder was lost) is tried for again.
const PAUSE: Duration = Duration::from_secs(5);
/// For giving a lock back. After that it ends by itself, with a session that nobody renews.
const GIVE_BACK_WAIT: Duration = Duration::from_secs(15);
/// Between errors of a lock that is held.
const RETRY_PAUSE: Duration = Duration::from_secs(2);

/// Why there is no lock.
#[derive(Debug, thiserror::Error)]
enum Refusal {
    #[error("{0}")]
    Lost(#[from] Lost),
    /// The key is there for something else.
    #[error("{0}")]
    Foreign(String),
}

enum Kind {
    Mutex(Mutex),
    Semaphore(Semaphore),
}

async fn lock(client: Client, line: Line) -> Outcome {
    let [prefix, child @ ..] = line.rest.as_slice() else { return Err(missing()) };
    if child.is_empty() {
        return Err(missing());
    }
    let limit = line.number("n").unwrap_or(1);
    if limit == 0 {
        return Err(Failure::new("Lock holder limit must be positive"));
    }
    let verbose = line.is("verbose");
    let tell = |text: &str| if verbose { say(text) } else { Ok(()) };
    client.ok(Request::get("/v1/agent/self")).await.doing("Error querying Consul agent")?;
    let prefix = prefix.trim_matches('/');
    let name = format!("Consul lock for '{}' at '{prefix}'", child.join(" "));
    let session = Session::create(&client, line.text("name").unwrap_or(&name)).await;
    let session = session.doing("Lock setup failed")?;
    let kind = match limit {
        1 => Kind::Mutex(Mutex::new(prefix)),
        limit => Kind::Semaphore(Semaphore::new(prefix, limit, &session.id)),
    };
    tell(&format!("Setting up lock at path: {}", kind.key()))?;
    // A session that is not renewed takes the lock with it, whatever goes on.
    let mut renewed = pin!(session.keep(&client));
    let outcome = hold(&client, &line, &session, &kind, child, &tell, renewed.as_mut()).await;
    let mut interrupt = Interrupt::listen();
    let given_back = tokio::select! {
        given_back = timeout(GIVE_BACK_WAIT, give_back(&client, &session, &kind)) => given_back.ok(),
        () = interrupt.came() => None,
    };
    match given_back {
        Some(Ok(true)) => tell("Cleanup succeeded")?,
        Some(Ok(false)) => tell("Cleanup aborted, lock in use")?,
        Some(Err(refusal)) => complain(format_args!("Cleanup failed: {refusal}")),
        None => complain("Cleanup failed: the agent does not answer; the lock ends with its session"),
    }
    outcome
}

/// Whether the key is gone, too.
async fn give_back(client: &Client, session: &Session, kind: &Kind) -> Result<bool, Refusal> {
    kind.release(client, session).await;
    session.destroy(client).await;
    kind.clean_up(client).await
}

fn missing() -> Failure {
    Failure::new(format!("Key prefix and child command must be specified\n{}", COMMAND.usage()))
}

/// Gets the lock, and runs the program as long as it is held.
async fn hold(
    client: &Client,
    line: &Line,
    session: &Session,
    kind: &Kind,
    words: &[String],
    tell: &impl Fn(&str) -> Outcome,
    mut renewed: std::pin::Pin<&mut impl Future<Output = ()>>,
) -> Outcome {
    let mut interrupt = Interrupt::listen();
    tell("Attempting lock acquisition")?;
    let limit = line.duration("timeout").or(line.duration("try")).filter(|limit| !limit.is_zero());
    let got = async {
        match limit {
            Some(limit) => timeout(limit, kind.acquire(client, session)).await.ok(),
            None => Some(kind.acquire(client, session).await),
        }
    };
    let got = tokio::select! {
        got = got => got,
        () = renewed.as_mut() => Some(Err(Refusal::Foreign("the session was lost".into()))),
        () = interrupt.came() => None,
    };
    let in_vain = || Failure::new("Shutdown triggered or timeout during lock acquisition");
    got.ok_or_else(in_vain)?.doing("Lock acquisition failed")?;
    tell("Starting handler")?;
    let by_shell = line.text("shell").is_none() || line.is("shell");
    let input = if line.is("pass-stdin") { Input::Ours } else { Input::Nothing };
    let ended = match Child::start(words, by_shell, ("CONSUL_LOCK_HELD", "true"), input) {
        Err(text) => Err(text),
        Ok(mut child) => {
            let retries = line.number("monitor-retry").unwrap_or(3);
            let why = tokio::select! {
                ended = child.wait() => Ok(ended),
                () = renewed => Err("Lock lost, killing child"),
                () = kind.watch(client, session, retries) => Err("Lock lost, killing child"),
                () = interrupt.came() => Err("Shutdown triggered, killing child"),
            };
            match why {
                Ok(ended) => ended,
                Err(why) => {
                    complain(why);
                    child.stop().await;
                    Err("it was made to end".into())
                }
            }
        }
    };
    tell("Child terminated, releasing lock")?;
    match ended {
        Ok(()) => Ok(()),
        Err(text) => {
            complain(format_args!("Error running handler: {text}"));
            let code = if line.is("child-exit-code") { 2 } else { 0 };
            Err(Failure { code, text: String::new() })
        }
    }
}

/// Keys as they are now, or once they are newer than `index`: of who holds a lock only the last word counts.
async fn read(
    client: &Client,
    request: Request,
    index: u64,
    wait: Duration,
) -> Result<(Vec<Entry>, u64), Lost> {
    kv::read(client, request.with("consistent", "").newer_than(index, wait)).await
}

impl Kind {
    fn key(&self) -> &str {
        match self {
            Kind::Mutex(mutex) => &mutex.key,
            Kind::Semaphore(semaphore) => &semaphore.key,
        }
    }

    async fn acquire(&self, client: &Client, session: &Session) -> Result<(), Refusal> {
        match self {
            Kind::Mutex(mutex) => mutex.acquire(client, &session.id).await,
            Kind::Semaphore(semaphore) => semaphore.acquire(client, &session.id).await,
        }
    }

    /// Ends when the lock is not ours any more, or that cannot be told.
    async fn watch(&self, client: &Client, session: &Session, retries: u64) {
        let (mut index, mut failures) = (0, 0);
        loop {
            let seen = match self {
                Kind::Mutex(mutex) => mutex.look(client, &session.id, index).await,
                Kind::Semaphore(semaphore) => semaphore.look(client, &session.id, index).await,
            };
            match seen {
                Ok((true, answered)) => (index, failures) = (client::next_index(index, answered), 0),
                Ok((false, _)) => return,
                Err(_) if failures < retries => {
                    (index, failures) = (0, failures + 1);
                    tokio::time::sleep(RETRY_PAUSE).await;
                }
                Err(_) => return,
            }
        }
    }

    /// What cannot be given back falls with the session.
    async fn release(&self, client: &Client, session: &Session) {
        let _falls_with_session = match self {
            Kind::Mutex(mutex) => mutex.release(client, &session.id).await,
            Kind::Semaphore(semaphore) => semaphore.release(client, &session.id).await,
        };
    }

    /// Takes the key away, unless somebody else uses it.
    async fn clean_up(&self, client: &Client) -> Result<bool, Refusal> {
        match self {
            Kind::Mutex(mutex) => mutex.clean_up(client).await,
            Kind::Semaphore(semaphore) => semaphore.clean_up(client).await,
        }
    }
}
