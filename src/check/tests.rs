//! Checks against real targets.
