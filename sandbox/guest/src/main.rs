//! PID 1 of a Cofferdam guest: see the library of this package.

#[cfg(target_os = "linux")]
fn main() -> std::process::ExitCode {
    let Err(error) = sandbox_guest::boot::run();
    sandbox_guest::boot::console::error(&error);
    std::process::ExitCode::FAILURE
}

#[cfg(not(target_os = "linux"))]
fn main() -> std::process::ExitCode {
    use std::io::Write;

    let _ = writeln!(
        std::io::stderr(),
        "sandbox-guest is the first process of a Linux guest and does nothing elsewhere"
    );
    std::process::ExitCode::FAILURE
}
