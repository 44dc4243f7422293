//! What the guest cannot reach.

use std::fs;
use std::os::unix::fs::symlink;

use anyhow::Result;

use crate::fixture::{Fixture, cases};

const SECRET: &str = "the host's own secret";

cases!(Guest: files_beside_the_workspace, links_resolve_in_the_guest, no_network, no_host_devices);

async fn files_beside_the_workspace(fixture: &Fixture) -> Result<()> {
    let guest = fixture.shared().await?;
    let sentinel = guest.outside.path().canonicalize()?.join("sentinel");
    fs::write(&sentinel, SECRET)?;
    // By its path, and by way of the workspace's parent: both name the guest's own directories.
    let script = format!("cat {} ../sentinel 2>&1; ls ..", sentinel.display());
    let output = guest.shell(&script).await?;
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(!text.contains(SECRET), "{text}");
    assert_eq!(text.matches("No such file").count(), 2, "{text}");
    assert!(text.ends_with("workspace\n"), "{text}");
    Ok(())
}

async fn links_resolve_in_the_guest(fixture: &Fixture) -> Result<()> {
    let guest = fixture.shared().await?;
    let outside = guest.outside.path().canonicalize()?;
    fs::write(outside.join("target"), SECRET)?;
    fs::create_dir_all(outside.join("directory"))?;
    fs::write(outside.join("directory/target"), SECRET)?;
    for (link, target) in [
        ("absolute", outside.join("target")),
        ("relative", "../target".into()),
        ("directory", outside.join("directory")),
        ("hostname", "/etc/hostname".into()),
        ("process", "/proc/self/root/etc/hostname".into()),
    ] {
        symlink(target, guest.workspace.join(link))?;
    }
    let script = "cat absolute relative directory/target; echo guest > /etc/hostname; cat hostname process; \
        echo guest > absolute; rm absolute relative directory hostname process";
    let output = guest.shell(script).await?;
    assert_eq!(String::from_utf8_lossy(&output.stdout), "guest\nguest\n");
    assert_eq!(fs::read_to_string(outside.join("target"))?, SECRET);
    Ok(())
}

const CONNECT: &str = r#"
import errno, os, socket
print(*sorted(os.listdir("/sys/class/net")))
for host in "1.1.1.1", "10.0.2.2", "192.168.0.1", "169.254.169.254":
    s = socket.socket()
    s.settimeout(5)
    try:
        s.connect((host, 80))
        print(host, "connected")
    except OSError as error:
        print(errno.errorcode.get(error.errno, error))
try:
    socket.getaddrinfo("example.com", 80)
    print("resolved")
except OSError:
    print("unresolved")
"#;

async fn no_network(fixture: &Fixture) -> Result<()> {
    let guest = fixture.shared().await?;
    let answer = guest
        .answer(&format!("python3 - <<'EOF'\n{CONNECT}\nEOF"))
        .await?;
    assert_eq!(
        answer,
        "lo\nENETUNREACH\nENETUNREACH\nENETUNREACH\nENETUNREACH\nunresolved"
    );
    Ok(())
}

async fn no_host_devices(fixture: &Fixture) -> Result<()> {
    let guest = fixture.shared().await?;
    // The root image is the one disk, and it cannot be written.
    assert_eq!(
        guest
            .answer("ls /sys/block | grep -v -e ^ram -e ^loop -e ^nbd")
            .await?,
        "vda"
    );
    assert_eq!(guest.answer("cat /sys/block/vda/ro").await?, "1");
    assert_eq!(
        guest
            .shell("dd if=/dev/zero of=/dev/vda count=1")
            .await?
            .status,
        sandbox::ExitStatus::Code(1)
    );
    Ok(())
}
