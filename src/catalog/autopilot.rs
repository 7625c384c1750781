//! What an operator sets of how servers come and go (`cluster.md` §3.3): one row, compared and set.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::{Catalog, Table, Topic, record::Text, write::Write};

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Autopilot {
    pub cleanup_dead_servers: bool,
    pub last_contact_threshold_nanos: i64,
    pub max_trailing_logs: u64,
    pub min_quorum: u64,
    pub server_stabilization_nanos: i64,
    pub redundancy_zone_tag: Text,
    pub disable_upgrade_migration: bool,
    pub upgrade_version_tag: Text,
    pub created: u64,
    pub modified: u64,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SetAutopilot {
    pub autopilot: Autopilot,
    /// Only where the row was modified at this index; 0 where nothing was ever set.
    pub cas: Option<u64>,
}

impl Default for Autopilot {
    fn default() -> Self {
        Autopilot {
            cleanup_dead_servers: true,
            last_contact_threshold_nanos: 200_000_000,
            max_trailing_logs: 250,
            min_quorum: 0,
            server_stabilization_nanos: 10_000_000_000,
            redundancy_zone_tag: Text::default(),
            disable_upgrade_migration: false,
            upgrade_version_tag: Text::default(),
            created: 0,
            modified: 0,
        }
    }
}

impl Catalog {
    /// What was set, or what counts where nothing was.
    pub fn autopilot(&self) -> Arc<Autopilot> {
        self.autopilot.clone().unwrap_or_default()
    }
}

impl Write<'_> {
    /// `false` where the row was not modified where it should have been.
    pub fn set_autopilot(&mut self, set: SetAutopilot) -> bool {
        let SetAutopilot { mut autopilot, cas } = set;
        let former = self.catalog.autopilot();
        if cas.is_some_and(|index| index != former.modified) {
            return false;
        }
        (autopilot.created, autopilot.modified) = (former.created, former.modified);
        if self.catalog.autopilot.is_some() && autopilot == *former {
            return true;
        }
        autopilot.created = if former.created == 0 { self.index } else { former.created };
        autopilot.modified = self.index;
        self.catalog.autopilot = Some(Arc::new(autopilot));
        self.touch(Table::Autopilot, [Topic::Autopilot]);
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::catalog::{Answer, Command};

    #[test]
    fn it_is_compared_and_set() {
        let mut catalog = Catalog::default();
        let mut set = |min_quorum, cas| {
            let autopilot = Autopilot { min_quorum, created: 77, ..Autopilot::default() };
            let command = Command::Autopilot(SetAutopilot { autopilot, cas });
            let done = catalog.apply(command).0.unwrap().answer == Answer::Done;
            let row = catalog.autopilot();
            (done, row.min_quorum, row.created, row.modified)
        };
        assert_eq!(set(3, Some(5)), (false, 0, 0, 0));
        assert_eq!(set(3, Some(0)), (true, 3, 1, 1));
        assert_eq!(set(4, Some(0)), (false, 3, 1, 1));
        assert_eq!(set(3, None), (true, 3, 1, 1), "the same again is no change");
        assert_eq!(set(5, Some(1)), (true, 5, 1, 2));
    }
}
