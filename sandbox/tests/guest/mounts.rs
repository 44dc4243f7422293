//! Directories beside the workspace.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, ensure};
use sandbox::{ExecSpec, Mount, Sandbox, ShareMode};
use tempfile::TempDir;

use crate::fixture::{Fixture, cases};

cases!(Guest:
    they_are_on_one_device_and_each_by_itself,
    there_may_be_more_than_a_machine_has_lines,
);

/// A guest with shares at the top of its file system.
struct Guest {
    sandbox: Sandbox,
    place: TempDir,
}

impl Guest {
    /// Shares directories of these names, in which a file says the name.
    async fn start(fixture: &Fixture, shares: &[(&str, ShareMode)]) -> Result<Self> {
        let place = tempfile::tempdir()?;
        let mut config = fixture.small();
        for (name, mode) in shares {
            let host = place.path().join(name);
            fs::create_dir(&host)?;
            fs::write(host.join("name"), name)?;
            config = config.mount(Mount {
                host,
                guest: Some(Path::new("/").join(name)),
                mode: mode.clone(),
            });
        }
        let sandbox = config.start().await?;
        Ok(Self { sandbox, place })
    }

    async fn answer(&self, script: &str) -> Result<String> {
        let spec = ExecSpec::new("sh").args(["-ec", script]);
        let output = self.sandbox.output(spec).await?;
        let errors = String::from_utf8_lossy(&output.stderr).into_owned();
        ensure!(output.success(), "{script}: {:?} {errors}", output.status);
        let text = String::from_utf8(output.stdout).context("not UTF-8")?;
        Ok(text.trim_end().to_owned())
    }

    async fn python(&self, script: &str) -> Result<String> {
        self.answer(&format!("python3 - <<'EOF'\n{script}\nEOF"))
            .await
    }

    fn host(&self, path: &str) -> PathBuf {
        self.place.path().join(path)
    }
}

/// Every way from one share into another; each must give `EXDEV`, or `EROFS` where it would change what is kept.
const ACROSS: &str = r#"
import errno, os
ways = ["/workspace", "/data", "/more", "/kept"]
for source in ways:
    for target in ways:
        for name, act in [("rename", os.rename), ("link", os.link)]:
            if source == target:
                continue
            try:
                act(source + "/name", target + "/new")
                print(name, source, target, "succeeded")
            except OSError as error:
                kept = target == "/kept" and error.errno == errno.EROFS
                if error.errno != errno.EXDEV and not kept:
                    print(name, source, target, errno.errorcode[error.errno])
"#;

/// Changes a file by a mapping alone: nobody has it open when it is changed, and so no close writes the change back.
const MAPPED: &str = r#"
import ctypes, os
libc = ctypes.CDLL(None, use_errno=True)
libc.mmap.restype = ctypes.c_void_p
libc.mmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t] + [ctypes.c_int] * 3 + [ctypes.c_long]
for share in ["/workspace", "/data", "/more"]:
    file = os.open(share + "/name", os.O_RDWR)
    place = libc.mmap(None, 4096, 3, 1, file, 0)
    os.close(file)
    ctypes.memmove(place, b"X", 1)
"#;

async fn they_are_on_one_device_and_each_by_itself(fixture: &Fixture) -> Result<()> {
    let shares = [
        ("workspace", ShareMode::Direct),
        ("kept", ShareMode::ReadOnly),
        ("data", ShareMode::Direct),
        ("more", ShareMode::Direct),
    ];
    let guest = Guest::start(fixture, &shares).await?;
    let devices = "ls -d /sys/bus/virtio/drivers/virtiofs/virtio* | wc -l";
    assert_eq!(guest.answer(devices).await?, "2", "with the workspace's");
    let shares = "/workspace /kept /data /more";
    let names = format!("for share in {shares}; do cat $share/name; echo; done");
    assert_eq!(guest.answer(&names).await?, "workspace\nkept\ndata\nmore");
    let numbers = format!("stat -c %d {shares} | sort -u | wc -l");
    assert_eq!(guest.answer(&numbers).await?, "4", "a device number each");
    let of_files = "stat -c %d /data /data/name | sort -u | wc -l";
    assert_eq!(guest.answer(of_files).await?, "1");
    let mounted = "grep virtiofs /proc/mounts | cut -d' ' -f2,4 | sort";
    let mounted = guest.answer(mounted).await?;
    let safe = "nosuid,nodev,relatime";
    let expected =
        format!("/data rw,{safe}\n/kept ro,{safe}\n/more rw,{safe}\n/workspace rw,{safe}");
    assert_eq!(mounted, expected, "and nothing else");
    assert_eq!(guest.answer("ls -A /dev | grep shares || true").await?, "");
    assert_eq!(guest.python(ACROSS).await?, "");
    let written = "for share in /data /more /workspace; do echo $share > $share/made; \
                   ls $share | xargs; done; mv /data/made /more/moved; cat /more/moved";
    let seen = "made name\nmade name\nmade name\n/data";
    assert_eq!(guest.answer(written).await?, seen);
    assert_eq!(fs::read_to_string(guest.host("more/moved"))?, "/data\n");
    assert!(!guest.host("data/made").exists());
    let refused = "for way in 'touch /kept/new' 'rm /kept/name' 'mount -o remount,rw /kept; echo x > /kept/name'; \
                   do sh -ec \"$way\" 2>/dev/null && echo \"$way\"; done; true";
    assert_eq!(guest.answer(refused).await?, "");
    // The tag is known to root there, but leads nowhere else.
    let again = "mkdir /again; mount -t virtiofs shares /again; echo x 2>/dev/null > /again/1/name || true; umount /again || true; cat /kept/name";
    assert_eq!(guest.answer(again).await?, "kept");
    assert_eq!(fs::read_dir(guest.host("kept"))?.count(), 1);
    guest.python(MAPPED).await?;
    guest.answer("sync").await?;
    for (share, content) in [
        ("workspace", "Xorkspace"),
        ("data", "Xata"),
        ("more", "Xore"),
    ] {
        let name = guest.host(share).join("name");
        assert_eq!(fs::read_to_string(name)?, content, "written back");
    }
    guest.sandbox.stop().await?;
    Ok(())
}

async fn there_may_be_more_than_a_machine_has_lines(fixture: &Fixture) -> Result<()> {
    let names: Vec<_> = (0..40).map(|number| format!("share{number}")).collect();
    let modes = [ShareMode::ReadOnly, ShareMode::Direct].into_iter().cycle();
    let shares: Vec<_> = names.iter().map(String::as_str).zip(modes).collect();
    let guest = Guest::start(fixture, &shares).await?;
    let told = guest
        .answer("for share in /share*; do cat $share/name; echo; done | sort -V; stat -c %d /share* | sort -u | wc -l")
        .await?;
    assert_eq!(told, format!("{}\n40", names.join("\n")));
    let written =
        "for share in /share*; do touch $share/new 2>/dev/null && echo $share; done | wc -l";
    assert_eq!(guest.answer(written).await?, "20");
    let new = names
        .iter()
        .filter(|name| guest.host(name).join("new").exists());
    assert_eq!(new.count(), 20);
    guest.sandbox.stop().await?;
    Ok(())
}
