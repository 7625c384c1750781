//! Coming, going, coming back.
