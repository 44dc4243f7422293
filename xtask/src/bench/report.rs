//! What a bench has found, as a table and as a file.

use std::{fmt, fs};

use anyhow::{Context, Error, Result, bail};
use serde::Serialize;
use xshell::{Shell, cmd};

use crate::host;

/// The result of a bench.
#[derive(Debug, Serialize)]
pub(super) struct Report {
    name: &'static str,
    /// Whose time it is, where a row does not say otherwise.
    mode: &'static str,
    machine: String,
    rows: Vec<Row>,
    #[serde(skip)]
    failures: Vec<Error>,
}

/// One figure and its target.
#[derive(Debug, Serialize)]
pub(super) struct Row {
    what: String,
    ours: f64,
    peer: Option<f64>,
    unit: &'static str,
    /// Ours through the peer's.
    ratio: Option<f64>,
    target: Target,
    met: bool,
    /// Whose the peer's figure is.
    against: Option<&'static str>,
    mode: Option<&'static str>,
    /// The same in wall time, for information.
    wall: Option<Beside>,
}

/// Figures beside those of a row, in the same unit.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub(super) struct Beside {
    pub(super) ours: f64,
    pub(super) peer: Option<f64>,
}

/// What is to be reached.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Target {
    /// Our figure, in the row's unit.
    AtMost(f64),
    /// Our figure through the peer's.
    TimesPeer(f64),
}

impl Report {
    /// An empty report.
    pub(super) fn new(name: &'static str, mode: &'static str) -> Self {
        Self {
            name,
            mode,
            machine: machine(),
            rows: Vec::new(),
            failures: Vec::new(),
        }
    }

    /// Adds rows, or notes that they could not be measured.
    pub(super) fn add(&mut self, rows: Result<Vec<Row>>) {
        match rows {
            Ok(rows) => self.rows.extend(rows),
            Err(error) => {
                eprintln!("xtask bench {}: {error:#}", self.name);
                self.failures.push(error);
            }
        }
    }

    /// Prints the table and writes the file.
    ///
    /// # Errors
    ///
    /// Something could not be measured or written.
    pub(super) fn finish(self) -> Result<()> {
        let dir = host::target().join("bench");
        fs::create_dir_all(&dir)?;
        let file = dir.join(format!("{}.json", self.name));
        fs::write(&file, serde_json::to_vec_pretty(&self)?)
            .with_context(|| format!("cannot write {}", file.display()))?;
        println!("{self}");
        match self.failures.len() {
            0 => Ok(()),
            count => bail!("{count} parts of the bench could not be measured"),
        }
    }
}

impl Row {
    /// A figure by itself.
    pub(super) fn new(
        what: impl Into<String>,
        ours: f64,
        unit: &'static str,
        target: Target,
    ) -> Self {
        let row = Self {
            what: what.into(),
            ours,
            peer: None,
            unit,
            ratio: None,
            target,
            met: false,
            against: None,
            mode: None,
            wall: None,
        };
        row.judged()
    }

    /// Puts the peer's figure beside ours.
    pub(super) fn against(mut self, peer: f64, whose: &'static str) -> Self {
        self.peer = Some(peer);
        self.ratio = Some(self.ours / peer);
        self.against = Some(whose);
        self.judged()
    }

    /// Says that this row's time is not the report's.
    pub(super) fn mode(mut self, mode: &'static str) -> Self {
        self.mode = Some(mode);
        self
    }

    /// Adds the same in wall time, if it was measured.
    pub(super) fn wall(mut self, wall: Option<Beside>) -> Self {
        self.wall = wall;
        self
    }

    fn judged(mut self) -> Self {
        self.met = match self.target {
            Target::AtMost(limit) => self.ours <= limit,
            Target::TimesPeer(limit) => self.ratio.is_some_and(|ratio| ratio <= limit),
        };
        self
    }

    fn cells(&self) -> [String; 8] {
        let number = |value: f64| format!("{value:.3}");
        let maybe = |value: Option<f64>| value.map_or_else(String::new, number);
        let wall = |wall: Beside| format!("{} {}", number(wall.ours), maybe(wall.peer));
        [
            self.what.clone(),
            number(self.ours),
            maybe(self.peer),
            self.unit.to_owned(),
            maybe(self.ratio),
            self.target.to_string(),
            if self.met { "met" } else { "MISSED" }.to_owned(),
            self.wall.map_or_else(String::new, wall),
        ]
    }
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::AtMost(limit) => write!(f, "<= {limit}"),
            Self::TimesPeer(limit) => write!(f, "<= {limit} x"),
        }
    }
}

impl Serialize for Target {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{} ({}), {}", self.name, self.mode, self.machine)?;
        let head = [
            "what", "ours", "peer", "unit", "ratio", "target", "", "wall",
        ];
        let mut table = vec![head.map(str::to_owned)];
        table.extend(self.rows.iter().map(Row::cells));
        let width = |column: usize| table.iter().map(|row| row[column].chars().count()).max();
        let widths: [usize; 8] = std::array::from_fn(|column| width(column).unwrap_or(0));
        for row in &table {
            let cells = row.iter().zip(widths);
            let line: Vec<_> = cells
                .map(|(cell, width)| format!("{cell:width$}"))
                .collect();
            writeln!(f, "{}", line.join("  ").trim_end())?;
        }
        Ok(())
    }
}

/// The machine that everything ran on, emulated host and all.
fn machine() -> String {
    let cpuinfo = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let model = cpuinfo
        .lines()
        .find_map(|line| line.strip_prefix("model name")?.split_once(':'))
        .map_or("unknown processor", |(_, model)| model.trim());
    let cpus = std::thread::available_parallelism().map_or(1, usize::from);
    let qemu = Shell::new()
        .and_then(|shell| cmd!(shell, "qemu-system-x86_64 --version").quiet().read())
        .unwrap_or_default();
    let qemu = qemu.lines().next().unwrap_or("no QEMU");
    format!("{cpus} x {model}, {qemu}")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rows() -> Vec<Row> {
        vec![
            Row::new("boot", 0.3, "s", Target::TimesPeer(0.5)).against(0.75, "QEMU"),
            Row::new("boot, large", 0.4, "s", Target::TimesPeer(0.5))
                .against(0.75, "QEMU")
                .wall(Some(Beside {
                    ours: 3.0,
                    peer: None,
                })),
            Row::new("size", 3.0, "MiB", Target::AtMost(3.0)).mode("static"),
            Row::new("alone", 1.0, "s", Target::TimesPeer(9.0)),
        ]
    }

    #[test]
    fn rows_are_judged_by_their_target() {
        let met: Vec<bool> = rows().iter().map(|row| row.met).collect();
        assert_eq!(met, [true, false, true, false]);
    }

    #[test]
    fn file_has_the_fields_that_are_agreed() {
        let mut report = Report::new("boot", "icount");
        report.add(Ok(rows()));
        let value = serde_json::to_value(&report).unwrap();
        assert_eq!(
            (&value["name"], &value["mode"]),
            (&"boot".into(), &"icount".into())
        );
        let row = &value["rows"][0];
        assert_eq!(row["target"], "<= 0.5 x");
        assert_eq!(
            (row["ours"].as_f64(), row["met"].as_bool()),
            (Some(0.3), Some(true))
        );
        for key in ["what", "peer", "unit", "ratio"] {
            assert!(row.get(key).is_some(), "{key}");
        }
    }

    #[test]
    fn table_says_what_was_missed() {
        let mut report = Report::new("boot", "icount");
        report.add(Ok(rows()));
        let text = report.to_string();
        let missed: Vec<_> = text
            .lines()
            .filter(|line| line.contains("MISSED"))
            .collect();
        assert_eq!(missed.len(), 2, "{text}");
        assert!(
            missed[0].contains("0.533") && missed[0].contains("3.000"),
            "{text}"
        );
    }

    #[test]
    fn what_cannot_be_measured_fails_the_bench() {
        let mut report = Report::new("none", "wall");
        report.add(Err(anyhow::anyhow!("no KVM")));
        assert_eq!(report.failures.len(), 1);
    }
}
