//! Addresses that were asked together to let this node in, until each has answered.

use std::{collections::HashMap, net::SocketAddr};

use tokio::sync::oneshot;

use crate::gossip::pool::Joined;

#[derive(Default)]
pub struct Joining {
    /// By number of the request: its batch, and its place there.
    asked: HashMap<u64, (u64, usize)>,
    batches: HashMap<u64, Batch>,
    numbered: u64,
}

struct Batch {
    left: usize,
    outcomes: Vec<Joined>,
    reply: oneshot::Sender<Vec<Joined>>,
}

impl Joining {
    /// Numbers to ask under.
    pub fn ask(
        &mut self,
        addresses: Vec<SocketAddr>,
        reply: oneshot::Sender<Vec<Joined>>,
    ) -> Vec<(u64, SocketAddr)> {
        let outcomes: Vec<Joined> = addresses.iter().map(|to| (*to, Err(String::new()))).collect();
        if outcomes.is_empty() {
            let _nobody_waits = reply.send(outcomes);
            return Vec::new();
        }
        let batch = self.numbered;
        self.batches.insert(batch, Batch { left: outcomes.len(), outcomes, reply });
        let number = |(place, to)| {
            let id = self.numbered;
            self.numbered += 1;
            self.asked.insert(id, (batch, place));
            (id, to)
        };
        addresses.into_iter().enumerate().map(number).collect()
    }

    pub fn joined(&mut self, id: u64, outcome: Result<usize, String>) {
        let Some((batch, place)) = self.asked.remove(&id) else { return };
        let Some(waiting) = self.batches.get_mut(&batch) else { return };
        waiting.outcomes[place].1 = outcome;
        waiting.left -= 1;
        if waiting.left == 0
            && let Some(Batch { outcomes, reply, .. }) = self.batches.remove(&batch)
        {
            let _nobody_waits = reply.send(outcomes);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whoever_asks_hears_when_all_have_answered() {
        let mut joining = Joining::default();
        let address = |port| SocketAddr::from(([127, 0, 0, 1], port));
        let (reply, mut answer) = oneshot::channel();
        let asked = joining.ask(vec![address(1), address(2)], reply);
        let (other, mut later) = oneshot::channel();
        let others = joining.ask(vec![address(1)], other);
        joining.joined(asked[1].0, Ok(3));
        joining.joined(asked[1].0, Ok(4));
        assert!(answer.try_recv().is_err());
        joining.joined(asked[0].0, Err("no".into()));
        assert_eq!(answer.try_recv().unwrap(), [(address(1), Err("no".into())), (address(2), Ok(3))]);
        joining.joined(others[0].0, Ok(1));
        assert_eq!(later.try_recv().unwrap(), [(address(1), Ok(1))]);
        assert!(joining.asked.is_empty() && joining.batches.is_empty());
    }
}
