//! Runs the tests of the share's server for Windows under Wine.
//!
//! Wine is not Windows: what fails here is wrong, what passes here may still be wrong there. It shows that the calls are made as they are meant,
//! and that nothing gets out of the tree where it follows names more freely than Windows does.

use std::path::Path;

use anyhow::Result;
use xshell::{Shell, cmd};

use crate::{
    cross,
    host::{self, Need},
    progress::stage,
};

const NEEDS: &[Need] = &[
    Need::new("wine", "wine"),
    Need::new("/usr/lib/wine/wine64", "wine64"),
    Need::new("x86_64-w64-mingw32-gcc", "gcc-mingw-w64-x86-64"),
];

/// All of it, with the standard library when that is new.
const LIMIT_SECONDS: &str = "1200";

/// The random numbers of Rust's standard library come from a library that Wine 8 lacks; this is that one call.
const RANDOM_LIBRARY: &str = r"
#include <windows.h>
#include <ntsecapi.h>
__declspec(dllexport) BOOL WINAPI ProcessPrng(PBYTE data, SIZE_T length)
{
    while (length) {
        ULONG part = length > 0x10000000 ? 0x10000000 : (ULONG)length;
        if (!RtlGenRandom(data, part))
            return FALSE;
        data += part;
        length -= part;
    }
    return TRUE;
}
";

/// Builds and runs the tests.
pub(crate) fn run() -> Result<()> {
    host::ensure(cross::NEEDS)?;
    host::ensure(NEEDS)?;
    let shell = cross::debian_cargo()?;
    let place = host::target().join("wine");
    shell.create_dir(&place)?;
    stage("make what Wine lacks", || {
        make_random_library(&shell, &place)
    })?;
    shell.set_var("WINEPREFIX", place.join("prefix"));
    shell.set_var("WINEPATH", &place);
    shell.set_var("WINEDEBUG", "-all");
    shell.set_var("CARGO_TARGET_X86_64_PC_WINDOWS_GNU_RUNNER", "wine");
    let target = ["--target", "x86_64-pc-windows-gnu"];
    let tests = ["-p", "fsshare", "--lib"];
    Ok(cmd!(
        shell,
        "timeout {LIMIT_SECONDS} /usr/bin/cargo test -Zbuild-std {target...} {tests...}"
    )
    .quiet()
    .run()?)
}

fn make_random_library(shell: &Shell, place: &Path) -> Result<()> {
    let (source, library) = (place.join("random.c"), place.join("bcryptprimitives.dll"));
    shell.write_file(&source, RANDOM_LIBRARY)?;
    Ok(cmd!(
        shell,
        "x86_64-w64-mingw32-gcc -O2 -shared -o {library} {source} -ladvapi32"
    )
    .quiet()
    .run()?)
}
