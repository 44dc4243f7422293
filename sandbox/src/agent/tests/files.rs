//! Files in the guest.

use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::PermissionsExt;

use super::*;
use crate::protocol::WINDOW;

fn bytes(path: &Path) -> &[u8] {
    path.as_os_str().as_bytes()
}

fn errno<T: std::fmt::Debug>(result: Result<T, AgentError>) -> i32 {
    match result.unwrap_err() {
        AgentError::File { errno } => errno,
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn what_is_written_is_read_again() {
    let (client, _server) = guest().await;
    let directory = tempfile::tempdir().unwrap();
    for size in [0, 1, 32 * 1024, WINDOW as usize + 1, 3_000_000] {
        let path = directory.path().join(format!("f{size}"));
        let data: Vec<u8> = (0..size)
            .map(|at| u8::try_from(at % 253).unwrap())
            .collect();
        within(client.write_file(bytes(&path), 0o640, &data))
            .await
            .unwrap();
        assert_eq!(
            path.metadata().unwrap().permissions().mode() & 0o7777,
            0o640
        );
        assert!(
            within(client.read_file(bytes(&path), 0, size as u64))
                .await
                .unwrap()
                == data,
            "{size}"
        );
        assert!(
            client.read_file(bytes(&path), 1, u64::MAX).await.unwrap()
                == data.get(1..).unwrap_or_default()
        );
    }
}

#[tokio::test]
async fn a_write_replaces() {
    let (client, _server) = guest().await;
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("file");
    client
        .write_file(bytes(&path), 0o600, b"a long first text")
        .await
        .unwrap();
    client
        .write_file(bytes(&path), 0o644, b"short")
        .await
        .unwrap();
    assert_eq!(std::fs::read(&path).unwrap(), b"short");
    assert_eq!(
        path.metadata().unwrap().permissions().mode() & 0o777,
        0o600,
        "the mode is for new files"
    );
}

#[tokio::test]
async fn a_file_that_is_too_long_is_an_error() {
    let (client, _server) = guest().await;
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("file");
    std::fs::write(&path, vec![7; 1_000_000]).unwrap();
    for limit in [0, 1, 999_999] {
        let error = within(client.read_file(bytes(&path), 0, limit))
            .await
            .unwrap_err();
        assert!(
            matches!(error, AgentError::TooLarge { limit: found } if found == limit),
            "{error:?}"
        );
    }
    assert_eq!(
        client
            .read_file(bytes(&path), 0, 1_000_000)
            .await
            .unwrap()
            .len(),
        1_000_000
    );
}

#[tokio::test]
async fn only_regular_files_and_with_the_errno_of_what_failed() {
    let (client, _server) = guest().await;
    let read = async |path: &str| errno(within(client.read_file(path.as_bytes(), 0, 10)).await);
    assert_eq!(read("/no/such/file").await, libc::ENOENT);
    assert_eq!(read("/tmp").await, libc::EISDIR);
    assert_eq!(read("/dev/zero").await, libc::EINVAL);
    assert_eq!(read("").await, libc::ENOENT);
    assert_eq!(read("/etc/passwd/x").await, libc::ENOTDIR);
    let write = async |path: &str| {
        errno(within(client.write_file(path.as_bytes(), 0o644, &[1; 1_000_000])).await)
    };
    assert_eq!(write("/no/such/directory/file").await, libc::ENOENT);
    assert_eq!(write("/tmp").await, libc::EISDIR);
    assert_eq!(write("/dev/null").await, libc::EINVAL);
    assert_eq!(stdout(&client, sh("echo still here")).await, "still here\n");
}

#[tokio::test]
async fn a_pipe_blocks_nobody() {
    let (client, _server) = guest().await;
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("pipe");
    assert!(
        output(&client, ExecSpec::new("mkfifo").arg(&path))
            .await
            .success()
    );
    assert_eq!(
        errno(within(client.read_file(bytes(&path), 0, 10)).await),
        libc::EINVAL
    );
    assert_eq!(
        errno(within(client.write_file(bytes(&path), 0, b"x")).await),
        libc::ENXIO
    );
}

#[tokio::test]
async fn files_of_the_kernel_without_a_size() {
    let (client, _server) = guest().await;
    let version = client.read_file(b"/proc/version", 0, 10_000).await.unwrap();
    assert_eq!(version, std::fs::read("/proc/version").unwrap());
}

#[tokio::test]
async fn a_transfer_that_is_given_up_makes_room_for_others() {
    let (client, _server) = guest().await;
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("file");
    std::fs::write(&path, vec![7; 1_000_000]).unwrap();
    for _ in 0..3 * crate::protocol::MAX_TRANSFERS {
        let mut call = Box::pin(client.read_file(bytes(&path), 0, u64::MAX));
        tokio::select! { biased; _ = &mut call => panic!("it cannot be answered yet"), () = std::future::ready(()) => {} }
    }
    assert_eq!(
        within(client.read_file(bytes(&path), 0, u64::MAX))
            .await
            .unwrap()
            .len(),
        1_000_000
    );
}
