//! How much of a check's output is kept, by kind (`config-cli.md` §4.3).

/// The end of what a script printed. `total` counts all of it, of which `kept` are the last bytes.
pub fn of_script(kept: &[u8], total: usize) -> String {
    let text = String::from_utf8_lossy(kept);
    if kept.len() < total {
        format!("Captured {} of {total} bytes\n...\n{text}", kept.len())
    } else {
        text.into_owned()
    }
}

/// The beginning of what a program said of itself.
pub fn of_ttl(text: &str, bytes_max: usize) -> String {
    if text.len() <= bytes_max {
        return text.to_string();
    }
    let cut = (0..=bytes_max).rev().find(|at| text.is_char_boundary(*at)).unwrap_or(0);
    format!("{} ... (captured {cut} of {} bytes)", &text[..cut], text.len())
}

/// The last bytes of a stream, whose beginning is forgotten.
pub struct Tail {
    kept: std::collections::VecDeque<u8>,
    bytes_max: usize,
    total: usize,
}

impl Tail {
    pub fn new(bytes_max: usize) -> Self {
        Tail { kept: Default::default(), bytes_max, total: 0 }
    }

    pub fn push(&mut self, bytes: &[u8]) {
        self.total += bytes.len();
        let bytes = &bytes[bytes.len().saturating_sub(self.bytes_max)..];
        let over = (self.kept.len() + bytes.len()).saturating_sub(self.bytes_max);
        self.kept.drain(..over);
        self.kept.extend(bytes);
    }

    /// How much there was.
    pub fn bytes(&self) -> usize {
        self.total
    }

    /// What is kept, and how much there was.
    pub fn finish(self) -> (Vec<u8>, usize) {
        (self.kept.into(), self.total)
    }
}

impl std::io::Write for Tail {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.push(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn long_outputs_are_cut_where_their_kind_says() {
        let mut tail = Tail::new(4);
        tail.push(b"ab");
        tail.push(b"cdefg");
        tail.push(b"h");
        let (kept, total) = tail.finish();
        assert_eq!(of_script(&kept, total), "Captured 4 of 8 bytes\n...\nefgh");
        assert_eq!(of_script(b"all", 3), "all");
        assert_eq!(of_ttl("sixty", 20), "sixty");
        assert_eq!(of_ttl(&"x".repeat(60), 20), format!("{} ... (captured 20 of 60 bytes)", "x".repeat(20)));
        assert_eq!(of_ttl("éé", 3), "é ... (captured 2 of 4 bytes)", "no letter is cut in two");
    }
}
