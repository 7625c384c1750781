//! What an answer holds already: a set that is emptied at no cost, kept from question to question. Two IPv6 addresses
//! that meet in 64 bits by chance cost one record of an answer, once in more answers than will ever be given.

/// What was drawn, by 64 bits of what it is.
pub struct Seen {
    /// The question in which a slot was last written, and what.
    slots: Vec<(u32, u64)>,
    question: u32,
    count: usize,
}

impl Default for Seen {
    fn default() -> Self {
        Seen { slots: vec![(0, 0); 256], question: 0, count: 0 }
    }
}

impl Seen {
    pub fn clear(&mut self) {
        self.count = 0;
        self.question = self.question.wrapping_add(1);
        if self.question == 0 {
            self.slots.fill((0, 0));
            self.question = 1;
        }
    }

    /// Whether it is new.
    pub fn insert(&mut self, key: u64) -> bool {
        if 2 * self.count >= self.slots.len() {
            self.grow();
        }
        let mask = self.slots.len() - 1;
        let mut at = (mixed(key) >> 32) as usize & mask;
        loop {
            let slot = &mut self.slots[at];
            if slot.0 != self.question {
                *slot = (self.question, key);
                self.count += 1;
                return true;
            }
            if slot.1 == key {
                return false;
            }
            at = (at + 1) & mask;
        }
    }

    fn grow(&mut self) {
        let larger = vec![(0, 0); 2 * self.slots.len()];
        let (former, question) = (std::mem::replace(&mut self.slots, larger), self.question);
        self.count = 0;
        for (_, key) in former.into_iter().filter(|slot| slot.0 == question) {
            self.insert(key);
        }
    }
}

/// Spreads what differs in few bits over all of them.
pub fn mixed(bits: u64) -> u64 {
    let spread = (bits ^ (bits >> 32)).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    spread ^ (spread >> 29)
}
