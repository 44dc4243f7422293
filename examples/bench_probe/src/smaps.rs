//! What `/proc/PID/smaps` says about a process's memory (proc_pid_smaps(5)). Sizes are in KiB.

use std::fs;

use anyhow::{Context as _, Result, bail};

/// One mapping of a process.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub(crate) struct Mapping {
    start: u64,
    end: u64,
    name: String,
    private: u64,
    pss: u64,
    /// Large pages are asked for.
    large: bool,
}

/// The alignment of guest RAM.
const LARGE_PAGE: u64 = 2 << 20;

/// The mappings of a process, in the order of their addresses.
#[derive(Debug)]
pub(crate) struct Memory(Vec<Mapping>);

impl Memory {
    /// Of the process `id`.
    pub(crate) fn of(id: u32) -> Result<Self> {
        let file = format!("/proc/{id}/smaps");
        let text = fs::read_to_string(&file).with_context(|| format!("cannot read {file}"))?;
        Self::parse(&text)
    }

    fn parse(text: &str) -> Result<Self> {
        let mut mappings: Vec<Mapping> = Vec::new();
        for line in text.lines() {
            let Some((field, value)) = line.split_once(':').filter(|(name, _)| is_field(name))
            else {
                mappings.push(header(line).with_context(|| format!("not a mapping: {line}"))?);
                continue;
            };
            let Some(mapping) = mappings.last_mut() else {
                bail!("a field before any mapping: {line}");
            };
            match field {
                "Private_Clean" | "Private_Dirty" => mapping.private += kib(value)?,
                "Pss" => mapping.pss += kib(value)?,
                "VmFlags" => mapping.large = value.split_whitespace().any(|flag| flag == "hg"),
                _ => {}
            }
        }
        Ok(Self(mappings))
    }

    /// The proportional share of all mappings.
    pub(crate) fn pss_kib(&self) -> u64 {
        self.0.iter().map(|mapping| mapping.pss).sum()
    }

    /// The mappings beside guest RAM of `ram` bytes. RAM is what large pages are asked for, with the kernel's file mapped over
    /// some of it and less than another large page for its alignment.
    ///
    /// # Errors
    /// There is no such block.
    pub(crate) fn beyond(&self, ram: u64) -> Result<Vec<&Mapping>> {
        let large = || self.0.iter().filter(|mapping| mapping.large);
        let start = large().map(|mapping| mapping.start).min().unwrap_or(0);
        let end = large().map(|mapping| mapping.end).max().unwrap_or(0);
        if !(ram..=ram + LARGE_PAGE).contains(&(end - start)) {
            bail!("{} bytes are mapped as guest RAM", end - start);
        }
        let beside = |mapping: &&Mapping| mapping.end <= start || mapping.start >= end;
        Ok(self.0.iter().filter(beside).collect())
    }
}

impl Mapping {
    /// Memory that nobody shares with the process.
    pub(crate) const fn private_kib(&self) -> u64 {
        self.private
    }

    /// What is mapped, for a person.
    pub(crate) fn label(&self) -> String {
        let size = (self.end - self.start) >> 10;
        let name = if self.name.is_empty() {
            "anonymous"
        } else {
            &self.name
        };
        format!("{name} ({size} KiB)")
    }
}

fn is_field(name: &str) -> bool {
    name.starts_with(|first: char| first.is_ascii_uppercase()) && !name.contains(' ')
}

/// `start-end permissions offset device inode name`
fn header(line: &str) -> Option<Mapping> {
    let mut words = line.split_whitespace();
    let (start, end) = words.next()?.split_once('-')?;
    let name: Vec<&str> = words.skip(4).collect();
    Some(Mapping {
        start: u64::from_str_radix(start, 16).ok()?,
        end: u64::from_str_radix(end, 16).ok()?,
        name: name.join(" "),
        ..Mapping::default()
    })
}

fn kib(value: &str) -> Result<u64> {
    let number = value.trim().trim_end_matches(" kB");
    number
        .parse()
        .with_context(|| format!("not a size: {value}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A program, RAM of 64 KiB with a kernel mapped over a part of it, and a stack beside it.
    const TEXT: &str = "\
00400000-00404000 r-xp 00000000 00:1c 5 /usr/bin/my vmm: x
Size:                 16 kB
Pss:                   8 kB
Private_Clean:         4 kB
Private_Dirty:         0 kB
VmFlags: rd ex mr
7f0000000000-7f0000004000 rw-p 00000000 00:00 0
Pss:                  16 kB
Private_Dirty:        16 kB
VmFlags: rd wr mr hg
7f0000004000-7f0000008000 rw-p 00000000 00:1c 6 /boot/vmlinux
Pss:                   4 kB
Private_Clean:         4 kB
VmFlags: rd wr mr
7f0000008000-7f0000010000 rw-p 00000000 00:00 0
Private_Dirty:        32 kB
VmFlags: rd wr mr hg
7f0000010000-7f0000012000 rw-p 00000000 00:00 0 [stack]
Private_Dirty:         8 kB
";

    #[test]
    fn memory_beyond_ram_is_all_but_what_large_pages_are_for() {
        let memory = Memory::parse(TEXT).unwrap();
        assert_eq!(memory.pss_kib(), 28);
        let beyond = memory.beyond(64 << 10).unwrap();
        let found: Vec<_> = beyond
            .iter()
            .map(|mapping| (mapping.label(), mapping.private_kib()))
            .collect();
        let expected = [
            ("/usr/bin/my vmm: x (16 KiB)".to_owned(), 4),
            ("[stack] (8 KiB)".to_owned(), 8),
        ];
        assert_eq!(found, expected);
    }

    #[test]
    fn ram_must_be_as_large_as_it_is_said_to_be() {
        let memory = Memory::parse(TEXT).unwrap();
        for length in [65 << 10, 1 << 30] {
            assert!(memory.beyond(length).is_err(), "{length}");
        }
        assert!(Memory::parse("").unwrap().beyond(4096).is_err());
        for text in ["Pss: 3 kB\n", "nonsense\n", "0-1 r\nPss: x kB\n"] {
            assert!(Memory::parse(text).is_err(), "{text}");
        }
    }
}
