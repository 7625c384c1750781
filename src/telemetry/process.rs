//! What the system says of this process. Names are those that every process has with Prometheus.

use std::{fs, time::Duration};

use nix::sys::{
    resource::{Resource, UsageWho, getrlimit, getrusage},
    time::TimeVal,
};

use super::figure::{Figure, Value};

/// Memory, processor time, threads, descriptors and age; what this system does not tell is left out.
pub fn of_process(age: Duration) -> Vec<Figure> {
    let mut figures =
        vec![Figure::gauge("process.uptime_seconds", "Since the agent was started.", age.as_secs_f64())];
    let mut gauge = |name, help, value: Option<f64>| {
        figures.extend(value.map(|value| Figure::gauge(name, help, value)));
    };
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let resident = field(&status, "VmRSS:").map(|kilobytes| kilobytes * 1024.0);
    gauge("process.resident_memory_bytes", "Memory that is held.", resident);
    gauge("consul.runtime.sys_bytes", "Memory that is held.", resident);
    gauge("process.threads", "Threads.", field(&status, "Threads:"));
    let open = fs::read_dir("/proc/self/fd").ok().map(|open| open.count() as f64);
    gauge("process.open_fds", "Open descriptors.", open);
    let most = getrlimit(Resource::RLIMIT_NOFILE).ok().map(|(soft, _)| soft as f64);
    gauge("process.max_fds", "Descriptors that may be open.", most);
    if let Ok(usage) = getrusage(UsageWho::RUSAGE_SELF) {
        let secs = |time: TimeVal| time.tv_sec() as f64 + time.tv_usec() as f64 / 1e6;
        figures.push(Figure {
            name: "process.cpu_seconds_total",
            labels: Vec::new(),
            help: "Processor time that was used.",
            value: Value::Total(secs(usage.user_time()) + secs(usage.system_time())),
        });
    }
    figures
}

fn field(status: &str, name: &str) -> Option<f64> {
    let line = status.lines().find_map(|line| line.strip_prefix(name))?;
    line.split_whitespace().next()?.parse().ok()
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use super::*;

    #[test]
    fn a_process_has_memory_threads_and_descriptors() {
        let figures = of_process(Duration::from_secs(3));
        for name in [
            "process.resident_memory_bytes",
            "process.threads",
            "process.open_fds",
            "process.cpu_seconds_total",
        ] {
            let figure =
                figures.iter().find(|figure| figure.name == name).unwrap_or_else(|| panic!("{name}"));
            assert!(
                matches!(figure.value, Value::Gauge(value) | Value::Total(value) if value > 0.0),
                "{figure:?}"
            );
        }
    }
}
