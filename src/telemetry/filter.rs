//! Which figures are told, by the beginnings of their names.

/// Of all beginnings that fit a name the longest decides.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Filter {
    /// For names that no rule fits.
    pub otherwise: bool,
    rules: Vec<(String, bool)>,
}

/// A rule that says neither yes nor no.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("Filter rule must begin with either '+' or '-': {0:?}")]
pub struct NoSign(pub String);

impl Default for Filter {
    fn default() -> Self {
        Filter { otherwise: true, rules: Vec::new() }
    }
}

impl Filter {
    /// `+` and the beginning of names to be told, or `-` and that of names to be kept back.
    pub fn add(&mut self, rule: &str) -> Result<(), NoSign> {
        let (told, beginning) = match (rule.strip_prefix('+'), rule.strip_prefix('-')) {
            (Some(beginning), _) => (true, beginning),
            (_, Some(beginning)) => (false, beginning),
            _ => return Err(NoSign(rule.into())),
        };
        self.rules.push((beginning.into(), told));
        Ok(())
    }

    /// Of two equal rules that keep back and tell, the one that keeps back counts.
    pub fn tells(&self, name: &str) -> bool {
        let fitting = self.rules.iter().filter(|(beginning, _)| name.starts_with(beginning));
        fitting
            .max_by_key(|(beginning, told)| (beginning.len(), !told))
            .map_or(self.otherwise, |(_, told)| *told)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_longest_rule_decides() {
        let mut filter = Filter::default();
        for rule in ["-consul.raft", "+consul.raft.apply", "-lictor", "+lictor"] {
            filter.add(rule).unwrap();
        }
        let told = ["consul.dns.x", "consul.raft.apply", "consul.raft.applying"];
        assert!(told.iter().all(|name| filter.tells(name)));
        assert!(!filter.tells("consul.raft.commitTime") && !filter.tells("lictor.dns.queries"));
        filter.otherwise = false;
        assert!(!filter.tells("consul.dns.x") && filter.tells("consul.raft.apply"));
        assert_eq!(
            filter.add("x").unwrap_err().to_string(),
            "Filter rule must begin with either '+' or '-': \"x\""
        );
    }
}
