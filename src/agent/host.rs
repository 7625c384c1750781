//! The machine that this agent runs on, as Linux tells of it under `/proc` (`http-api.md` §8.1, `/agent/host`). What is not
//! told there is left out, and what cannot be read is named; nothing is guessed.

use std::{collections::BTreeMap, fs};

use nix::sys::statvfs::statvfs;
use serde_json::{Map, Value, json};

/// The answer, as JSON. Reads files.
pub fn describe() -> Vec<u8> {
    let mut unread = Vec::new();
    let mut read = |path: &str| {
        fs::read_to_string(path).unwrap_or_else(|error| {
            unread.push(format!("{path}: {error}"));
            String::new()
        })
    };
    let (memory, cpus) = (memory(&read("/proc/meminfo")), cpus(&read("/proc/cpuinfo")));
    let host = host(&mut read);
    let disk = disk("/").unwrap_or_else(|error| {
        unread.push(format!("/: {error}"));
        Value::Null
    });
    let errors = if unread.is_empty() { Value::Null } else { json!(unread) };
    let at = chrono::Utc::now().timestamp_nanos_opt();
    let all = json!({
        "Memory": memory, "CPU": cpus, "Host": host, "Disk": disk, "CollectionTime": at, "Errors": errors
    });
    all.to_string().into_bytes()
}

/// Of `/proc/meminfo`, in bytes.
fn memory(text: &str) -> Value {
    let figures: BTreeMap<&str, u64> = pairs(text)
        .filter_map(|(key, value)| Some((key, value.trim_end_matches(" kB").parse::<u64>().ok()? * 1024)))
        .collect();
    let get = |key: &str| figures.get(key).copied().unwrap_or(0);
    let cached = get("Cached") + get("SReclaimable");
    let used = get("MemTotal").saturating_sub(get("MemFree") + get("Buffers") + cached);
    json!({
        "total": get("MemTotal"), "available": get("MemAvailable"), "used": used,
        "usedPercent": percent(used, get("MemTotal")), "free": get("MemFree"), "active": get("Active"),
        "inactive": get("Inactive"), "buffers": get("Buffers"), "cached": cached, "dirty": get("Dirty"),
        "shared": get("Shmem"), "slab": get("Slab"), "swapTotal": get("SwapTotal"), "swapFree": get("SwapFree"),
    })
}

/// Of `/proc/cpuinfo`: a paragraph for each, whose words depend on the kind of processor.
fn cpus(text: &str) -> Vec<Value> {
    let described = text.split("\n\n").map(|one| pairs(one).collect::<BTreeMap<_, _>>());
    let cpus = described.filter_map(|one| {
        let number = |key: &str| one.get(key).and_then(|value| value.parse::<f64>().ok());
        let mut cpu =
            Map::from_iter([("cpu".to_string(), json!(one.get("processor")?.parse::<u32>().ok()?))]);
        let texts = [
            ("vendorId", "vendor_id"),
            ("family", "cpu family"),
            ("model", "model"),
            ("physicalId", "physical id"),
            ("coreId", "core id"),
            ("modelName", "model name"),
            ("microcode", "microcode"),
        ];
        for (name, key) in texts {
            cpu.extend(one.get(key).map(|text| (name.to_string(), json!(text))));
        }
        cpu.extend(number("stepping").map(|stepping| ("stepping".to_string(), json!(stepping as i64))));
        cpu.extend(number("cpu MHz").map(|mhz| ("mhz".to_string(), json!(mhz))));
        cpu.insert("cores".into(), json!(1));
        let flags = one.get("flags").or(one.get("Features")).copied().unwrap_or_default();
        cpu.insert("flags".into(), flags.split_whitespace().collect());
        Some(Value::Object(cpu))
    });
    cpus.collect()
}

fn host(read: &mut impl FnMut(&str) -> String) -> Value {
    let mut word = |path: &str| read(path).trim().to_string();
    let (hostname, kernel) = (word("/proc/sys/kernel/hostname"), word("/proc/sys/kernel/osrelease"));
    let (uptime, stat, release) = (word("/proc/uptime"), word("/proc/stat"), word("/etc/os-release"));
    let uptime = uptime.split('.').next().and_then(|seconds| seconds.parse::<u64>().ok());
    let boot_time = stat.lines().find_map(|line| line.strip_prefix("btime ")?.parse::<u64>().ok());
    let release: BTreeMap<&str, &str> = release.lines().filter_map(|line| line.split_once('=')).collect();
    let of_release = |key: &str| release.get(key).map_or("", |value| value.trim_matches('"'));
    let is_process = |name: &str| name.bytes().all(|byte| byte.is_ascii_digit());
    let processes = fs::read_dir("/proc").map_or(0, |entries| {
        entries.flatten().filter(|entry| entry.file_name().to_str().is_some_and(is_process)).count()
    });
    json!({
        "hostname": hostname, "uptime": uptime, "bootTime": boot_time, "procs": processes,
        "os": std::env::consts::OS, "platform": of_release("ID"), "platformVersion": of_release("VERSION_ID"),
        "kernelVersion": kernel, "kernelArch": std::env::consts::ARCH,
    })
}

fn disk(path: &str) -> nix::Result<Value> {
    let disk = statvfs(path)?;
    let bytes = |blocks: u64| blocks * disk.fragment_size();
    let (free, used) = (bytes(disk.blocks_available()), bytes(disk.blocks() - disk.blocks_free()));
    let inodes_used = disk.files() - disk.files_free();
    Ok(json!({
        "path": path, "total": bytes(disk.blocks()), "free": free, "used": used,
        "usedPercent": percent(used, used + free), "inodesTotal": disk.files(), "inodesUsed": inodes_used,
        "inodesFree": disk.files_free(), "inodesUsedPercent": percent(inodes_used, disk.files()),
    }))
}

/// Lines of the form `key : value`.
fn pairs(text: &str) -> impl Iterator<Item = (&str, &str)> {
    text.lines().filter_map(|line| line.split_once(':')).map(|(key, value)| (key.trim(), value.trim()))
}

fn percent(part: u64, whole: u64) -> f64 {
    if whole == 0 { 0.0 } else { part as f64 * 100.0 / whole as f64 }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_is_told_in_bytes() {
        let text = "MemTotal:        1000 kB\nMemFree:          100 kB\nMemAvailable:     600 kB\nBuffers:           50 kB\nCached:           300 kB\nSReclaimable:      50 kB\nHugePages_Total:       0\n";
        let memory = memory(text);
        let wanted = json!([1_024_000, 614_400, 512_000, 50.0, 358_400]);
        let found = ["total", "available", "used", "usedPercent", "cached"].map(|key| memory[key].clone());
        assert_eq!(json!(found), wanted);
        assert_eq!(super::memory("")["usedPercent"], 0.0);
    }

    #[test]
    fn processors_are_told_as_far_as_they_tell() {
        let text = "processor\t: 0\nvendor_id\t: GenuineIntel\ncpu family\t: 6\nmodel name\t: Some CPU\nstepping\t: 4\ncpu MHz\t\t: 2000.5\nflags\t\t: fpu vme\n\nprocessor\t: 1\nFeatures\t: fp asimd\n\nHardware\t: board\n";
        let wanted = json!([
            {"cpu": 0, "vendorId": "GenuineIntel", "family": "6", "modelName": "Some CPU", "stepping": 4, "mhz": 2000.5,
             "cores": 1, "flags": ["fpu", "vme"]},
            {"cpu": 1, "cores": 1, "flags": ["fp", "asimd"]},
        ]);
        assert_eq!(json!(cpus(text)), wanted);
    }
}
