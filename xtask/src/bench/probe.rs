//! Builds `bench_probe` and has it measure.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use anyhow::{Context, Result, bail};
use serde_json::{Value, json};
use xshell::{Shell, cmd};

use super::samples::Samples;
use crate::{
    guest::Assets,
    host,
    nested::{self, Clock, NestedJob},
    progress::stage,
};

/// Gives the probe folders of its own, and keeps waits for files out of the measurement.
const PREPARE: &str = include_str!("prepare.sh");

/// The programs that measure, as they are released.
#[derive(Debug)]
pub(super) struct Probe {
    programs: PathBuf,
    /// Memory of the emulated host, if not the usual.
    memory_mib: Option<u32>,
}

impl Probe {
    /// Builds them.
    pub(super) fn build() -> Result<Self> {
        Ok(Self {
            programs: build_release("bench_probe")?,
            memory_mib: None,
        })
    }

    /// Measures in an emulated host with so much memory.
    pub(super) fn memory_mib(self, memory: u32) -> Self {
        Self {
            memory_mib: Some(memory),
            ..self
        }
    }

    /// The program that forks and executes in the guest.
    pub(super) fn fork_exec_loop(&self) -> PathBuf {
        self.programs.join("fork_exec_loop")
    }

    /// Measures in the emulated host.
    pub(super) fn run_nested(&self, job: &Value, clock: Clock, limit: Duration) -> Result<Samples> {
        let program = self.programs.join("bench_probe");
        let program = program.to_string_lossy();
        let words = ["sh", "-c", PREPARE, "sh", &program, &job.to_string()];
        measure(|folder| {
            let job = NestedJob::new(words)
                .clock(clock)
                .timeout(limit)
                .out(folder);
            let job = match self.memory_mib {
                Some(memory) => job.memory_mib(memory),
                None => job,
            };
            let result = nested::run(&job)?;
            if result.status != 0 {
                bail!("the probe {result} in the emulated host");
            }
            Ok(())
        })
    }

    /// Measures on this machine itself.
    pub(super) fn run_native(&self, job: &Value) -> Result<Samples> {
        measure(|folder| {
            let status = Command::new(self.programs.join("bench_probe"))
                .arg(job.to_string())
                .env("NESTED_OUT", folder)
                .status()
                .context("cannot start the probe")?;
            if !status.success() {
                bail!("the probe ended with {status}");
            }
            Ok(())
        })
    }
}

/// Gives `run` an empty folder and reads the figures that it has brought there.
fn measure(run: impl FnOnce(&Path) -> Result<()>) -> Result<Samples> {
    let folder = host::target().join(format!("bench/run-{}", std::process::id()));
    fs::create_dir_all(&folder)?;
    let samples = run(&folder).and_then(|()| Samples::read(&folder));
    fs::remove_dir_all(&folder)?;
    samples
}

/// Builds the programs of a package as they are released and gives the folder that they are in.
pub(crate) fn build_release(package: &str) -> Result<PathBuf> {
    let shell = Shell::new()?;
    shell.change_dir(host::workspace());
    let target = host::target();
    stage(&format!("build {package} (release)"), || {
        cmd!(
            shell,
            "cargo build --quiet --release -p {package} --target-dir {target}"
        )
        .quiet()
        .run()?;
        Ok(())
    })?;
    Ok(target.join("release"))
}

/// A guest as the probe is told of it, with or without its root image.
pub(super) fn guest(assets: &Assets, root: bool) -> Value {
    json!({
        "kernel": assets.kernel,
        "initrd": assets.initrd,
        "root": root.then_some(&assets.root),
        // A kernel whose virtio console is a module has no other way to say its first line.
        "serial": !assets.own_kernel,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stock_kernel_gets_a_serial_port() {
        let assets = |own_kernel| Assets {
            own_kernel,
            kernel: "/k".into(),
            initrd: "/i".into(),
            root: "/r".into(),
        };
        let own = guest(&assets(true), false);
        assert_eq!(
            (&own["serial"], &own["root"]),
            (&json!(false), &Value::Null)
        );
        let stock = guest(&assets(false), true);
        assert_eq!(
            (&stock["serial"], &stock["root"]),
            (&json!(true), &json!("/r"))
        );
    }
}
