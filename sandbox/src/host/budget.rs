//! Room for one more guest on this host, without a daemon and without files.
//!
//! Every worker's command line says how much memory its guest may use, so the workers that run can
//! be added up from `/proc`. A new worker is started first and counted after, together with those
//! that are older: of many started at once, the oldest get the room and the rest are refused, and
//! each comes to the same answer.

use std::fs::{self, File};
use std::io::Read as _;

/// How a worker's command line begins.
pub(super) const WORKER_NAME: &str = "cofferdam-vmm";

/// A running worker.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
struct Worker {
    /// Start time in clock ticks, then process id: the order in which room is given.
    age: (u64, u32),
    /// Bytes that its guest may use.
    promised: u64,
    /// Bytes that it uses now.
    resident: u64,
}

/// The words of a worker's command line after its name.
pub(super) fn argument(memory: u64) -> String {
    format!("memory={memory}")
}

/// Whether there is room for the worker `id`, which has been started.
///
/// Returns how much memory is there for it when there is not enough.
pub(super) fn room_for(id: u32) -> Result<(), u64> {
    let workers = workers();
    let Some(own) = workers.iter().find(|worker| worker.age.1 == id) else {
        return Ok(()); // It has ended already, which is reported elsewhere.
    };
    room(*own, &workers, available().unwrap_or(u64::MAX))
}

fn room(own: Worker, workers: &[Worker], available: u64) -> Result<(), u64> {
    let sum = |bytes: &mut dyn Iterator<Item = u64>| bytes.fold(0, u64::saturating_add);
    let resident = sum(&mut workers.iter().map(|worker| worker.resident));
    let older = workers.iter().filter(|other| other.age < own.age);
    let older = sum(&mut older.map(|other| other.promised));
    let left = available.saturating_add(resident).saturating_sub(older);
    if own.promised <= left {
        Ok(())
    } else {
        Err(left)
    }
}

fn workers() -> Vec<Worker> {
    let processes = fs::read_dir("/proc").into_iter().flatten().flatten();
    processes
        .filter_map(|entry| entry.file_name().to_str()?.parse().ok())
        .filter_map(worker)
        .collect()
}

fn worker(id: u32) -> Option<Worker> {
    // Most processes are none of ours, and a guest waits for this: one short read has to do.
    let mut command = [0; 64];
    let mut file = File::open(format!("/proc/{id}/cmdline")).ok()?;
    let length = file.read(&mut command).ok()?;
    let promised = promised(command.get(..length)?)?;
    // Another user's process could say anything.
    let status = fs::read_to_string(format!("/proc/{id}/status")).ok()?;
    let user = real_user(&status)?;
    if user != rustix::process::getuid().as_raw() && user != 0 {
        return None;
    }
    let stat = fs::read_to_string(format!("/proc/{id}/stat")).ok()?;
    let (started, pages) = started_and_pages(&stat)?;
    let page = u64::try_from(rustix::param::page_size()).ok()?;
    Some(Worker {
        age: (started, id),
        promised,
        resident: pages * page,
    })
}

fn promised(command: &[u8]) -> Option<u64> {
    let mut words = command.split(|byte| *byte == 0);
    if words.next()? != WORKER_NAME.as_bytes() {
        return None;
    }
    std::str::from_utf8(words.next()?)
        .ok()?
        .strip_prefix("memory=")?
        .parse()
        .ok()
}

/// Who started the process, of `/proc/PID/status`. The owner of the files there is root for everybody's
/// process that is not dumpable, and the effective user is root for everybody's set-user-id program.
fn real_user(status: &str) -> Option<u32> {
    let line = status.lines().find_map(|line| line.strip_prefix("Uid:"))?;
    line.split_whitespace().next()?.parse().ok()
}

/// Fields 22 (start time) and 24 (resident pages) of `/proc/PID/stat`; the name in parentheses
/// before them may hold anything.
fn started_and_pages(stat: &str) -> Option<(u64, u64)> {
    let fields: Vec<&str> = stat.rsplit_once(')')?.1.split_whitespace().collect();
    Some((fields.get(19)?.parse().ok()?, fields.get(21)?.parse().ok()?))
}

/// Bytes of memory that this host can give without swapping; `None` where it does not tell.
pub(crate) fn available() -> Option<u64> {
    let text = fs::read_to_string("/proc/meminfo").ok()?;
    let line = text
        .lines()
        .find_map(|line| line.strip_prefix("MemAvailable:"));
    let kib: u64 = line?.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(kib.saturating_mul(1024))
}

#[cfg(test)]
mod tests {
    use super::*;

    const GIB: u64 = 1 << 30;

    fn worker(started: u64, id: u32) -> Worker {
        Worker {
            age: (started, id),
            promised: GIB,
            resident: GIB / 8,
        }
    }

    #[test]
    fn of_fifty_at_once_exactly_those_with_room_start() {
        let workers: Vec<Worker> = (0..50).map(|id| worker(u64::from(id) / 7, id)).collect();
        let available = 10 * GIB - 50 * (GIB / 8) + GIB / 2;
        let started: Vec<u32> = workers
            .iter()
            .filter(|own| room(**own, &workers, available).is_ok())
            .map(|own| own.age.1)
            .collect();
        assert_eq!(started, (0..10).collect::<Vec<_>>());
    }

    #[test]
    fn a_refusal_says_what_is_left() {
        let workers = [worker(1, 1), worker(2, 2)];
        assert_eq!(room(workers[1], &workers, GIB), Err(GIB / 4));
        assert_eq!(room(workers[0], &workers, GIB), Ok(()));
    }

    #[test]
    fn a_command_line_is_a_workers_only_by_its_whole_name() {
        let line = format!("{WORKER_NAME}\0{}\0", argument(4096));
        assert_eq!(promised(line.as_bytes()), Some(4096));
        for other in [
            &b"cofferdam-vmmx\0memory=1\0"[..],
            b"",
            b"cofferdam-vmm\0memory=x\0",
        ] {
            assert_eq!(promised(other), None);
        }
    }

    #[test]
    fn a_worker_belongs_to_who_started_it() {
        let status = "Name:\tUid: 7\nTgid:\t5\nUid:\t1000\t0\t0\t0\nGid:\t0\t0\t0\t0\n";
        assert_eq!(real_user(status), Some(1000));
        assert_eq!(real_user("Name:\tUid: 7\n"), None);
    }

    #[test]
    fn this_host_has_memory_to_give() {
        let available = available().unwrap();
        assert!(available > 0 && available <= crate::platform::total_memory());
    }

    #[test]
    fn stat_is_read_behind_the_name() {
        let fields: Vec<String> = (3..=52).map(|n| n.to_string()).collect();
        let stat = format!("7 (a) b)) {}", fields.join(" "));
        assert_eq!(started_and_pages(&stat), Some((22, 24)));
        assert_eq!(started_and_pages("7 (a)"), None);
    }
}
