//! How long loading takes as the files grow: `cargo bench --bench config` doubles each shape of input and prints
//! microseconds and what the last doubling cost. Growth stays near 2: nothing is quadratic.

#![allow(clippy::disallowed_methods, reason = "a bench reads the clock")]

use std::{fs, io, time::Instant};

use lictor::config;

type Shape = (&'static str, &'static str, fn(usize) -> String);

const SHAPES: &[Shape] = &[
    ("services, HCL", "hcl", |n| {
        repeat(n, |i| {
            format!(
                "services {{\n  id = \"web-{i}\"\n  name = \"web\"\n  port = 80\n  tags = [\"a\", \"b\"]\n  check {{ ttl = \"30s\" }}\n}}\n"
            )
        })
    }),
    ("services, JSON", "json", |n| {
        format!(
            "{{\"services\":[{}]}}",
            list(n, |i| format!(
                "{{\"id\":\"web-{i}\",\"name\":\"web\",\"port\":80,\"tags\":[\"a\",\"b\"],\"check\":{{\"ttl\":\"30s\"}}}}"
            ))
        )
    }),
    ("one service again and again", "hcl", |n| "services { name = \"web\" }\n".repeat(n)),
    ("checks of services", "hcl", |n| {
        repeat(n, |i| {
            format!(
                "services {{ name = \"s{i}\" }}\nchecks {{ id = \"c{i}\", ttl = \"1s\", service_id = \"s{i}\" }}\n"
            )
        })
    }),
    ("ttls", "hcl", |n| {
        format!("dns_config {{ service_ttl {{ {} }} }}", repeat(n, |i| format!("s{i} = \"5s\" ")))
    }),
    ("headers", "hcl", |n| {
        format!(
            "check {{ id = \"c\" http = \"http://a\" interval = \"1s\" header {{ {} }} }}",
            repeat(n, |i| format!("h{i} = [\"v\"] "))
        )
    }),
    ("unknown keys", "hcl", |n| repeat(n, |i| format!("k{i} = 1\n"))),
    ("a list", "json", |n| format!("{{\"recursors\":[{}]}}", list(n, |i| format!("\"{i}\"")))),
    ("comments", "hcl", |n| "/* a */ # b\n// c\n".repeat(n)),
    ("a heredoc", "hcl", |n| format!("pid_file = <<-E\n{}  E\n", "  line\n".repeat(n))),
    ("a string", "json", |n| format!("{{\"pid_file\":\"{}\"}}", "\\u00e9\\n".repeat(n))),
    ("brackets that never close", "hcl", |n| "a = [".repeat(n)),
    ("heredocs that never end", "hcl", |n| "a = <<E\n".repeat(n)),
];

fn main() -> io::Result<()> {
    // `cargo test` runs benches too: small, to see that they work.
    let sizes: &[usize] = if std::env::args().any(|word| word == "--bench") {
        &[2_000, 4_000, 8_000, 16_000, 32_000]
    } else {
        &[10, 20]
    };
    let directory = std::env::temp_dir().join(format!("lictor-bench-config-{}", std::process::id()));
    fs::create_dir_all(&directory)?;
    println!("{:<28}{:>9}{:>12}{:>10}", "microseconds to load", "size", "us", "growth");
    for (name, extension, text) in SHAPES {
        let mut before = None;
        for size in sizes {
            let path = directory.join(format!("a.{extension}"));
            fs::write(&path, text(*size))?;
            let micros = best_of(3, &path.display().to_string());
            let growth = before.map_or(String::new(), |before: f64| format!("{:.2}", micros / before));
            println!("{name:<28}{size:>9}{micros:>12.0}{growth:>10}");
            before = Some(micros);
        }
    }
    fs::remove_dir_all(&directory)
}

/// The result does not count: what is refused must be refused as quickly.
fn best_of(runs: usize, path: &str) -> f64 {
    let words = ["-dev".to_string(), format!("-config-file={path}")];
    let flags = config::parse_flags(&words).unwrap_or_default();
    let run = |_| {
        let start = Instant::now();
        let _ = std::hint::black_box(config::load(&flags));
        start.elapsed().as_secs_f64() * 1e6
    };
    (0..runs).map(run).fold(f64::INFINITY, f64::min)
}

fn repeat(n: usize, text: impl Fn(usize) -> String) -> String {
    (0..n).map(text).collect()
}

fn list(n: usize, text: impl Fn(usize) -> String) -> String {
    (0..n).map(text).collect::<Vec<_>>().join(",")
}
