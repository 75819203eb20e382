//! What the kernel says of a process: its memory, and whether its threads rest.

use std::{
    collections::BTreeMap,
    fs,
    path::PathBuf,
    thread::sleep,
    time::{Duration, Instant},
};

/// The memory of a process.
#[derive(Clone, Debug)]
pub(crate) struct Memory {
    proc: PathBuf,
}

impl Memory {
    pub(crate) fn of(pid: u32) -> Self {
        Self { proc: format!("/proc/{pid}").into() }
    }

    /// Bytes resident now.
    pub(crate) fn resident(&self) -> Option<u64> {
        self.read("VmRSS:")
    }

    /// The most bytes resident since [`Self::reset`].
    pub(crate) fn peak(&self) -> Option<u64> {
        self.read("VmHWM:")
    }

    /// Sets the peak to what is resident now.
    pub(crate) fn reset(&self) {
        // 5: see proc_pid_clear_refs(5).
        let _ = fs::write(self.proc.join("clear_refs"), "5");
    }

    fn read(&self, key: &str) -> Option<u64> {
        let status = fs::read_to_string(self.proc.join("status")).ok()?;
        let line = status.lines().find_map(|line| line.strip_prefix(key))?;
        Some(line.trim().strip_suffix(" kB")?.parse::<u64>().ok()? << 10)
    }
}

/// Time over which threads are observed: long beside the kernel's ticks of 10 ms.
const WINDOW: Duration = Duration::from_millis(250);
/// A thread rests if it computes less than this share of the window: other clients go on.
const BUSY: f64 = 0.6;

/// Waits until no thread of the process is busy.
///
/// # Errors
/// The threads that still are after `within`.
pub(crate) fn rests(pid: u32, within: Duration) -> Result<(), String> {
    let began = Instant::now();
    loop {
        let before = ticks(pid);
        sleep(WINDOW);
        let after = ticks(pid);
        let busy: Vec<_> = after
            .iter()
            .filter_map(|(thread, (name, ticks))| {
                let spent = ticks - before.get(thread).map_or(*ticks, |(_, ticks)| *ticks);
                // `USER_HZ` is 100 wherever Linux runs.
                let share = spent as f64 / 100.0 / WINDOW.as_secs_f64();
                (share > BUSY).then(|| format!("{name} ({:.0} %)", share * 100.0))
            })
            .collect();
        if busy.is_empty() {
            return Ok(());
        }
        if began.elapsed() > within {
            return Err(format!("busy {within:?} after the last answer: {}", busy.join(", ")));
        }
    }
}

/// Name and CPU time of each thread, in ticks.
fn ticks(pid: u32) -> BTreeMap<String, (String, u64)> {
    let mut threads = BTreeMap::new();
    for entry in fs::read_dir(format!("/proc/{pid}/task")).into_iter().flatten().flatten() {
        let Ok(stat) = fs::read_to_string(entry.path().join("stat")) else { continue };
        let (Some(open), Some(close)) = (stat.find('('), stat.rfind(')')) else { continue };
        let fields: Vec<_> = stat[close + 2..].split(' ').collect();
        let number = |at: usize| fields.get(at).and_then(|field| field.parse::<u64>().ok()).unwrap_or(0);
        // Fields 14 and 15 of proc_pid_stat(5), counted from the state, which is the third.
        let spent = number(11) + number(12);
        threads.insert(
            entry.file_name().to_string_lossy().into_owned(),
            (stat[open + 1..close].to_owned(), spent),
        );
    }
    threads
}
