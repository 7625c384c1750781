//! `lictor keygen`: a key that gossip may be encrypted with.

use base64::{Engine, prelude::BASE64_STANDARD};
use ring::rand::{SecureRandom, SystemRandom};

use super::{
    Failure, Outcome,
    line::{Command, Line, Run},
    output::say,
};

pub const COMMAND: Command = Command {
    name: "keygen",
    arguments: "",
    does: "Prints a new key for gossip",
    flags: &[],
    run: Run::Line(keygen),
};

const KEY_BYTES: usize = 32;

fn keygen(_: Line) -> Outcome {
    let mut key = [0; KEY_BYTES];
    let drawn = SystemRandom::new().fill(&mut key);
    drawn.map_err(|_| Failure::new("Error reading random data: the system gives none"))?;
    say(BASE64_STANDARD.encode(key))
}
