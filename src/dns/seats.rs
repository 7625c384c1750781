//! How much may go on at once, over all clients and for each: whoever finds no seat free is turned away, and nobody is
//! put out for him.

use std::{
    collections::HashMap,
    net::IpAddr,
    sync::{Arc, Mutex, PoisonError},
};

/// The seats that are taken.
#[derive(Default)]
pub struct Seats(Mutex<Taken>);

#[derive(Default)]
struct Taken {
    all: usize,
    by_client: HashMap<IpAddr, usize>,
}

/// How many seats there are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SeatsMax {
    pub all: usize,
    pub per_client: usize,
}

impl Default for SeatsMax {
    fn default() -> Self {
        SeatsMax { all: 512, per_client: 256 }
    }
}

/// Given back when dropped.
pub struct Seat {
    pub client: IpAddr,
    seats: Arc<Seats>,
}

impl Seats {
    pub fn take(self: &Arc<Self>, client: IpAddr, most: SeatsMax) -> Option<Seat> {
        let mut taken = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let of_client = taken.by_client.get(&client).copied().unwrap_or(0);
        if taken.all >= most.all || of_client >= most.per_client {
            return None;
        }
        taken.all += 1;
        taken.by_client.insert(client, of_client + 1);
        Some(Seat { client, seats: self.clone() })
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        let mut taken = self.seats.0.lock().unwrap_or_else(PoisonError::into_inner);
        taken.all -= 1;
        if let Some(of_client) = taken.by_client.get_mut(&self.client) {
            *of_client -= 1;
            if *of_client == 0 {
                taken.by_client.remove(&self.client);
            }
        }
    }
}
