//! The peer of the share: Debian's `virtiofsd` and QEMU's `microvm` machine, which boots the same kernel.

use std::fs;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};

use crate::share::Shares;

const SERVER: &str = "/usr/lib/qemu/virtiofsd";
/// How long it may take to listen.
const LIMIT: Duration = Duration::from_secs(20);

/// As in `peer`. The transport is the same as ours: the guest's kernel knows no other.
const MACHINE: &str =
    "microvm,accel=kvm,acpi=on,rtc=on,pit=on,pic=on,isa-serial=on,memory-backend=ram";
/// What our plan says to save the guest work, as far as it is true for this machine too.
const WORDS: &str =
    "console=ttyS0 quiet panic=-1 tsc=reliable no_timer_check cryptomgr.notests noreplace-smp";

/// A process that ends with this value.
struct Ending(Child);

impl Drop for Ending {
    fn drop(&mut self) {
        // It may have ended by itself, when QEMU closed its connection.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// What the peer's guest says on its console while it works on `directory`, of which it remembers what `cache` says.
pub(crate) fn run(shares: &Shares, directory: &Path, folder: &Path, cache: &str) -> Result<String> {
    let socket = folder.join("virtiofsd.sock");
    let server = serve(directory, &socket, cache)?;
    let console = boot(shares, &socket);
    drop(server);
    // The server leaves its socket behind.
    let _ = fs::remove_file(&socket);
    console
}

fn serve(directory: &Path, socket: &Path, cache: &str) -> Result<Ending> {
    let child = Command::new(SERVER)
        .arg(format!("--socket-path={}", socket.display()))
        .args(["-o", cache])
        .args(["-o", &format!("source={}", directory.display())])
        .stdin(Stdio::null())
        .spawn()
        .context(SERVER)?;
    let server = Ending(child);
    let begin = Instant::now();
    while !socket.exists() {
        ensure!(begin.elapsed() < LIMIT, "{SERVER} does not listen");
        thread::sleep(Duration::from_millis(10));
    }
    Ok(server)
}

fn boot(shares: &Shares, socket: &Path) -> Result<String> {
    let root = shares
        .guest
        .root
        .as_deref()
        .context("a guest without a root")?;
    let memory = shares.memory_mib;
    let output = Command::new("qemu-system-x86_64")
        .args(["-M", MACHINE, "-cpu", "host,kvm-pv-eoi=off", "-smp", "1"])
        .args(["-m", &memory.to_string()])
        // The server works in the guest's memory.
        .args([
            "-object",
            &format!("memory-backend-memfd,id=ram,size={memory}M,share=on"),
        ])
        .args(["-global", "virtio-mmio.force-legacy=false"])
        .args([
            "-chardev",
            &format!("socket,id=fs,path={}", socket.display()),
        ])
        .args([
            "-device",
            "vhost-user-fs-device,chardev=fs,tag=share,queue-size=1024",
        ])
        .args([
            "-drive",
            &format!(
                "if=none,id=root,format=raw,readonly=on,file={}",
                root.display()
            ),
        ])
        .args(["-device", "virtio-blk-device,drive=root"])
        .args(["-nodefaults", "-no-user-config", "-no-reboot"])
        .args(["-display", "none", "-serial", "stdio"])
        .arg("-kernel")
        .arg(&shares.guest.kernel)
        .arg("-initrd")
        .arg(&shares.peer_initrd)
        .args(["-append", WORDS])
        .stdin(Stdio::null())
        .stderr(Stdio::inherit())
        .output()
        .context("cannot start QEMU")?;
    let console = String::from_utf8_lossy(&output.stdout).into_owned();
    ensure!(
        output.status.success(),
        "QEMU: {}, {console}",
        output.status
    );
    Ok(console)
}
