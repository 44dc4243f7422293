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
}

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
                _ => {}
            }
        }
        Ok(Self(mappings))
    }

    /// The proportional share of all mappings.
    pub(crate) fn pss_kib(&self) -> u64 {
        self.0.iter().map(|mapping| mapping.pss).sum()
    }

    /// The mappings beside guest RAM. RAM is the run of neighbours that is exactly `ram` bytes long:
    /// the kernel's file is mapped over some of it.
    ///
    /// # Errors
    /// There is no such run, or more than one.
    pub(crate) fn beyond(&self, ram: u64) -> Result<Vec<&Mapping>> {
        let runs: Vec<_> = (0..self.0.len())
            .filter_map(|first| Some(first..first + self.run(first, ram)?))
            .collect();
        let [run] = runs.as_slice() else {
            bail!("{} runs of mappings are as long as guest RAM", runs.len());
        };
        let beside = |(index, _): &(usize, &Mapping)| !run.contains(index);
        Ok(self
            .0
            .iter()
            .enumerate()
            .filter(beside)
            .map(|(_, mapping)| mapping)
            .collect())
    }

    /// How many mappings from `first` on make up a block of `length` bytes, if some do.
    fn run(&self, first: usize, length: u64) -> Option<usize> {
        let rest = self.0.get(first..)?;
        let start = rest.first()?.start;
        let mut end = start;
        for (index, mapping) in rest.iter().enumerate() {
            if mapping.start != end || mapping.end > start + length {
                return None;
            }
            end = mapping.end;
            if end == start + length {
                return Some(index + 1);
            }
        }
        None
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
7f0000004000-7f0000008000 rw-p 00000000 00:1c 6 /boot/vmlinux
Pss:                   4 kB
Private_Clean:         4 kB
7f0000008000-7f0000010000 rw-p 00000000 00:00 0
Private_Dirty:        32 kB
7f0000010000-7f0000012000 rw-p 00000000 00:00 0 [stack]
Private_Dirty:         8 kB
";

    #[test]
    fn memory_beyond_ram_is_all_but_the_run_of_its_length() {
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
    fn ram_must_be_found_exactly_once() {
        let memory = Memory::parse(TEXT).unwrap();
        for length in [63 << 10, 16 << 10, 1 << 30] {
            assert!(memory.beyond(length).is_err(), "{length}");
        }
        for text in ["Pss: 3 kB\n", "nonsense\n", "0-1 r\nPss: x kB\n"] {
            assert!(Memory::parse(text).is_err(), "{text}");
        }
    }
}
