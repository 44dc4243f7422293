//! What the tests run in: which guests this machine can start, and one that most tests share.

use std::path::PathBuf;
use std::pin::Pin;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, Result, anyhow};
use sandbox::{
    ExecSpec, GuestFiles, Mount, Output, Sandbox, SandboxBuilder, ShareMode, Verdict as Check,
};
use tempfile::TempDir;
use tokio::sync::OnceCell;

use crate::runner::{self, Test, Verdict};

/// A test that takes longer hangs.
const LIMIT: Duration = Duration::from_secs(300);

/// Emulated hosts are slow, and share their processors with other work.
pub(crate) const START_LIMIT: Duration = Duration::from_secs(200);

/// Memory of the shared guest.
pub(crate) const MEMORY_MIB: u64 = 512;

/// The shared guest's console, beside the workspace.
const CONSOLE: &str = "console";

/// Where the shared guest sees the directory that it cannot change.
pub(crate) const READ_ONLY: &str = "/read-only";

/// What a test needs of this machine.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Needs {
    /// A hypervisor that can be opened; it need not be able to run Linux.
    Hypervisor,
    /// A guest with our own kernel.
    Guest,
    /// A guest with the distribution's kernel.
    StockGuest,
}

type Run = for<'a> fn(&'a Fixture) -> Pin<Box<dyn Future<Output = Result<()>> + 'a>>;

/// A test in a table.
pub(crate) struct Case {
    pub(crate) name: &'static str,
    pub(crate) needs: Needs,
    pub(crate) run: Run,
}

/// Defines a module's table of tests, each an async function that takes the [`Fixture`].
macro_rules! cases {
    ($($needs:ident: $($name:ident),+ $(,)?);+) => {
        pub(crate) const CASES: &[crate::fixture::Case] = &[$($(crate::fixture::Case {
            name: concat!(module_path!(), "::", stringify!($name)),
            needs: crate::fixture::Needs::$needs,
            run: |fixture| Box::pin($name(fixture)),
        }),+),+];
    };
}
pub(crate) use cases;

/// The machine and what was started on it.
pub(crate) struct Fixture {
    folder: PathBuf,
    shared: OnceCell<Result<Arc<Shared>, String>>,
}

/// The guest that most tests share.
pub(crate) struct Shared {
    pub(crate) sandbox: Sandbox,
    /// The host's directory in which the workspace lies, so that it has something beside it.
    pub(crate) outside: TempDir,
    /// Shared with the guest at the same path.
    pub(crate) workspace: PathBuf,
    /// Shared with the guest at [`READ_ONLY`].
    pub(crate) read_only: PathBuf,
    /// Shared with the guest at the same path, as an overlay.
    pub(crate) overlay: PathBuf,
}

/// Runs the tests of all tables.
pub(crate) fn run(tables: &[&[Case]]) -> ExitCode {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build();
    let Ok(runtime) = runtime else {
        return ExitCode::from(101);
    };
    let fixture = Fixture::new();
    let lacks = Lacks::of_machine(&fixture);
    let verdict = |case: &Case| -> Verdict {
        if let Some(reason) = lacks.of(case.needs) {
            return Verdict::Skipped(reason.clone());
        }
        let run = async { tokio::time::timeout(LIMIT, (case.run)(&fixture)).await };
        runtime
            .block_on(run)
            .unwrap_or_else(|_| Err(anyhow!("it hangs")))
            .map_err(|error| error.context(fixture.last_words()))
            .into()
    };
    let status = runner::run(tables.iter().copied().flatten().map(|case| Test {
        name: case.name,
        run: Box::new(move || verdict(case)),
    }));
    // A sandbox ends inside of its runtime.
    runtime.block_on(async { drop(fixture) });
    status
}

/// What keeps tests from running here. It is looked up once, because kernels are read for it.
struct Lacks {
    hypervisor: Option<String>,
    guest: Option<String>,
    stock_guest: Option<String>,
}

impl Lacks {
    fn of_machine(fixture: &Fixture) -> Self {
        let lack = |files: &GuestFiles, only: &str| {
            let checks = sandbox::doctor(files).into_iter();
            let mut failed = checks.filter(|check| check.verdict == Check::Failed);
            failed
                .find(|check| check.name.starts_with(only))
                .map(|check| format!("{}: {}", check.name, check.found))
        };
        Self {
            hypervisor: lack(&fixture.files(), "hypervisor"),
            guest: lack(&fixture.files(), ""),
            stock_guest: lack(&fixture.stock_files(), ""),
        }
    }

    fn of(&self, needs: Needs) -> Option<&String> {
        match needs {
            Needs::Hypervisor => self.hypervisor.as_ref(),
            Needs::Guest => self.guest.as_ref(),
            Needs::StockGuest => self.stock_guest.as_ref(),
        }
    }
}

impl Fixture {
    fn new() -> Self {
        let named = std::env::var_os("COFFERDAM_GUEST").map(PathBuf::from);
        Self {
            folder: named.unwrap_or_default(),
            shared: OnceCell::new(),
        }
    }

    /// The files of the guest with our own kernel.
    pub(crate) fn files(&self) -> GuestFiles {
        GuestFiles::in_folder(&self.folder)
    }

    /// The files of the guest with the distribution's kernel.
    pub(crate) fn stock_files(&self) -> GuestFiles {
        GuestFiles {
            kernel: self.folder.join("stock/vmlinux"),
            initrd: self.folder.join("stock-initrd/initrd.cpio"),
            ..self.files()
        }
    }

    /// A guest of the least size in which the tests run.
    pub(crate) fn small(&self) -> SandboxBuilder {
        Sandbox::of(self.files())
            .memory_mib(256)
            .start_timeout(START_LIMIT)
    }

    /// How the shared guest's kernel ended, if it panicked.
    fn last_words(&self) -> String {
        let shared = self.shared.get().and_then(|shared| shared.as_ref().ok());
        let log = shared.map(|shared| std::fs::read_to_string(shared.outside.path().join(CONSOLE)));
        let log = log.and_then(Result::ok).unwrap_or_default();
        match log.find("Kernel panic") {
            Some(panic) => {
                let (before, after) = log.split_at(panic);
                let from = before.len().saturating_sub(4000);
                let from = before.ceil_char_boundary(from);
                format!("{}{after}", before.get(from..).unwrap_or_default())
            }
            None => "it failed".into(),
        }
    }

    /// The shared guest, started when it is first asked for.
    pub(crate) async fn shared(&self) -> Result<Arc<Shared>> {
        let start = || async {
            self.start()
                .await
                .map(Arc::new)
                .map_err(|e| format!("{e:#}"))
        };
        match self.shared.get_or_init(start).await {
            Ok(shared) => Ok(Arc::clone(shared)),
            Err(error) => Err(anyhow!("the shared guest does not start: {error}")),
        }
    }

    async fn start(&self) -> Result<Shared> {
        let outside = tempfile::tempdir()?;
        // The guest shows the real path, and so does this.
        let real = outside.path().canonicalize()?;
        let (workspace, read_only) = (real.join("workspace"), real.join("read-only"));
        std::fs::create_dir(&workspace)?;
        std::fs::create_dir(&read_only)?;
        let overlay = real.join("overlay");
        std::fs::create_dir(&overlay)?;
        let sandbox = Sandbox::of(self.files())
            .vcpus(2)
            .memory_mib(MEMORY_MIB)
            .start_timeout(START_LIMIT)
            .env("FROM_THE_SANDBOX", "yes")
            .console_log(real.join(CONSOLE))
            .workspace(&workspace)
            .overlay(&overlay, real.join("changes"))
            .mount(Mount {
                host: read_only.clone(),
                guest: Some(READ_ONLY.into()),
                mode: ShareMode::ReadOnly,
            })
            .start()
            .await?;
        Ok(Shared {
            sandbox,
            outside,
            workspace,
            read_only,
            overlay,
        })
    }
}

impl Shared {
    /// Runs a shell script in the guest, in the workspace.
    pub(crate) async fn shell(&self, script: &str) -> Result<Output> {
        Ok(self.sandbox.output(self.script(script)).await?)
    }

    /// A shell script as a command in the workspace.
    pub(crate) fn script(&self, script: &str) -> ExecSpec {
        ExecSpec::new("sh")
            .args(["-c", script])
            .directory(&self.workspace)
    }

    /// What a script that must succeed wrote, without the line break at its end.
    pub(crate) async fn answer(&self, script: &str) -> Result<String> {
        let output = self.shell(script).await?;
        let errors = String::from_utf8_lossy(&output.stderr).into_owned();
        anyhow::ensure!(output.success(), "{script}: {:?} {errors}", output.status);
        let text = String::from_utf8(output.stdout).context("not UTF-8")?;
        Ok(text.trim_end().to_owned())
    }
}
