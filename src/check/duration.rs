//! Durations as Go writes them (`1m30s`, `1.5h`, `300ms`), which is how files and requests have always given them.

use super::Span;

/// Units, and their nanoseconds.
const UNITS: [(&str, f64); 8] =
    [("ns", 1.0), ("us", 1e3), ("µs", 1e3), ("μs", 1e3), ("ms", 1e6), ("s", 1e9), ("m", 60e9), ("h", 3600e9)];

/// Reads a duration; it may be negative.
///
/// # Errors
/// Go's words for what is wrong, `time: missing unit in duration "5"`.
pub fn parse_duration(text: &str) -> Result<Span, String> {
    let invalid = || format!("time: invalid duration {text:?}");
    let (negative, unsigned) = match text.strip_prefix('-') {
        Some(rest) => (true, rest),
        None => (false, text.strip_prefix('+').unwrap_or(text)),
    };
    if unsigned == "0" {
        return Ok(Span { nanos: 0, text: text.into() });
    }
    if unsigned.is_empty() {
        return Err(invalid());
    }
    let (mut nanos, mut rest) = (0.0, unsigned);
    while !rest.is_empty() {
        let number = rest.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(rest.len());
        let value: f64 = rest[..number].parse().map_err(|_| invalid())?;
        rest = &rest[number..];
        let end = rest.find(|c: char| c.is_ascii_digit() || c == '.').unwrap_or(rest.len());
        let unit = &rest[..end];
        if unit.is_empty() {
            return Err(format!("time: missing unit in duration {text:?}"));
        }
        let known = UNITS.iter().find(|(name, _)| *name == unit);
        let (_, scale) = known.ok_or_else(|| format!("time: unknown unit {unit:?} in duration {text:?}"))?;
        nanos += value * scale;
        rest = &rest[end..];
    }
    if nanos > i64::MAX as f64 {
        return Err(invalid());
    }
    let nanos = nanos.round() as i64;
    Ok(Span { nanos: if negative { -nanos } else { nanos }, text: text.into() })
}

/// Writes a duration as Go prints it: `1m0s`, `1.5s`, `300ms`, `0s`.
pub fn format_duration(nanos: i64) -> String {
    let sign = if nanos < 0 { "-" } else { "" };
    let nanos = nanos.unsigned_abs();
    let decimal = |value: u64, scale: u64| {
        let fraction = format!("{:0width$}", value % scale, width = scale.ilog10() as usize);
        let fraction = fraction.trim_end_matches('0');
        let dot = if fraction.is_empty() { "" } else { "." };
        format!("{}{dot}{fraction}", value / scale)
    };
    match nanos {
        0 => "0s".into(),
        1..1_000 => format!("{sign}{nanos}ns"),
        1_000..1_000_000 => format!("{sign}{}µs", decimal(nanos, 1_000)),
        1_000_000..1_000_000_000 => format!("{sign}{}ms", decimal(nanos, 1_000_000)),
        _ => {
            let (minutes, rest) = (nanos / 60_000_000_000, nanos % 60_000_000_000);
            let secs = decimal(rest, 1_000_000_000);
            match (minutes / 60, minutes % 60) {
                (0, 0) => format!("{sign}{secs}s"),
                (0, minutes) => format!("{sign}{minutes}m{secs}s"),
                (hours, minutes) => format!("{sign}{hours}h{minutes}m{secs}s"),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_read_and_printed_as_go_does() {
        let table = [
            ("10s", 10_000_000_000, "10s"),
            ("1.5h", 5_400_000_000_000, "1h30m0s"),
            ("1h2m3s", 3_723_000_000_000, "1h2m3s"),
            ("300ms", 300_000_000, "300ms"),
            ("-2s", -2_000_000_000, "-2s"),
            ("0", 0, "0s"),
            ("1500us", 1_500_000, "1.5ms"),
            ("90s", 90_000_000_000, "1m30s"),
            (".5s", 500_000_000, "500ms"),
        ];
        for (text, nanos, printed) in table {
            let span = parse_duration(text).unwrap();
            assert_eq!(
                (span.nanos, span.text.as_str(), format_duration(nanos).as_str()),
                (nanos, text, printed)
            );
        }
        let faults = [
            ("5", "time: missing unit in duration \"5\""),
            ("", "time: invalid duration \"\""),
            ("abc", "time: invalid duration \"abc\""),
            ("5d", "time: unknown unit \"d\" in duration \"5d\""),
            ("1.2.3s", "time: invalid duration \"1.2.3s\""),
            ("-", "time: invalid duration \"-\""),
            ("9999999999h", "time: invalid duration \"9999999999h\""),
        ];
        for (text, fault) in faults {
            assert_eq!(parse_duration(text).unwrap_err(), fault);
        }
    }
}
