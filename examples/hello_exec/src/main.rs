//! Runs one command in a fresh Linux guest and prints what it wrote.
//!
//! `cargo xtask guest` makes the guest's files; see README.md.

#![expect(clippy::print_stdout, reason = "an example prints its result")]

use sandbox::{Error, ExecSpec, Sandbox};

fn main() -> Result<(), Error> {
    // The machine runs in this program, executed again as its worker.
    sandbox::worker::init();
    run()
}

#[tokio::main(flavor = "current_thread")]
async fn run() -> Result<(), Error> {
    let sandbox = Sandbox::builder().start().await?;
    let output = sandbox.output(ExecSpec::new("uname").arg("-a")).await?;
    println!("{}", String::from_utf8_lossy(&output.stdout).trim_end());
    sandbox.stop().await?;
    Ok(())
}
