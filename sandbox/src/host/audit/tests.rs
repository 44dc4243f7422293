use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;

use super::*;
use crate::audit::{rotated, verify};

fn record(number: u64) -> Record {
    Record {
        event: Event::Request,
        flow: Some(number),
        request: Some(("GET".into(), "x".repeat(1000))),
        ..Record::lost(0, 0)
    }
}

fn settings(folder: &Path) -> AuditLog {
    AuditLog::new(folder.join("log")).file_bytes(MIN_FILE_BYTES)
}

fn problem(settings: &AuditLog) -> String {
    open(settings, "box").unwrap_err().to_string()
}

#[test]
fn a_log_goes_on_after_its_last_line() {
    let folder = tempfile::tempdir().unwrap();
    let settings = settings(folder.path());
    for round in 0..3 {
        let mut log = open(&settings, "box").unwrap();
        assert!(problem(&settings).contains("another sandbox writes it"));
        log.write(&record(round)).unwrap();
    }
    let text = fs::read(folder.path().join("log")).unwrap();
    assert_eq!(verify(&*text, Some(Digest::default())).unwrap().lines, 3);
}

#[test]
fn no_more_files_are_kept_than_asked_for_and_each_continues_the_one_before() {
    let folder = tempfile::tempdir().unwrap();
    let settings = settings(folder.path()).files(3);
    let mut log = open(&settings, "box").unwrap();
    for number in 0..5000 {
        log.write(&record(number)).unwrap();
    }
    let head = log.head();
    drop(log);
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 3);
    let mut from = None;
    for times in [2, 1, 0] {
        let text = fs::read(rotated(&settings.file, times)).unwrap();
        assert!(u64::try_from(text.len()).unwrap() <= MIN_FILE_BYTES);
        from = Some(verify(&*text, from).unwrap().head);
    }
    assert_eq!(from, Some(head));
    // As after an end of the program in the midst of a rotation.
    fs::remove_file(&settings.file).unwrap();
    let before = fs::read(rotated(&settings.file, 1)).unwrap();
    let log = open(&settings, "box").unwrap();
    assert_eq!(log.head(), verify(&*before, None).unwrap().head);
}

#[test]
fn a_part_of_a_line_is_cut_off_and_counted() {
    let folder = tempfile::tempdir().unwrap();
    let settings = settings(folder.path());
    let part = b"{\"prev\":\"00";
    for whole in [0, 2] {
        let mut text = fs::read(&settings.file).unwrap_or_default();
        text.extend(part);
        fs::write(&settings.file, text).unwrap();
        let mut log = open(&settings, "box").unwrap();
        assert_eq!(log.lost(), 1);
        log.write(&record(0)).unwrap();
        let text = fs::read(&settings.file).unwrap();
        let verified = verify(&*text, Some(Digest::default())).unwrap();
        assert_eq!(verified.lines, whole + 2);
    }
}

#[test]
fn other_files_are_left_alone() {
    let folder = tempfile::tempdir().unwrap();
    let settings = settings(folder.path());
    let foreign = "it is there, and is not an audit log";
    for text in [
        "x",
        "alias ls=ls\n",
        "{\"prev\":\"\"}\n",
        "\n",
        &"x".repeat(100_000),
    ] {
        fs::write(&settings.file, text).unwrap();
        assert!(problem(&settings).contains(foreign), "{text}");
        assert_eq!(fs::read_to_string(&settings.file).unwrap(), text);
    }
    fs::rename(&settings.file, folder.path().join("other")).unwrap();
    symlink("other", &settings.file).unwrap();
    assert!(problem(&settings).contains("audit log"));
    fs::remove_file(&settings.file).unwrap();
    fs::create_dir(&settings.file).unwrap();
    assert!(problem(&settings).contains("audit log"));
    let nowhere = AuditLog::new(folder.path().join("none/log"));
    assert!(problem(&nowhere).contains("audit log"));
}

#[test]
fn sizes_and_numbers_out_of_range_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    let log = || settings(folder.path());
    for (settings, told) in [
        (log().file_bytes(1000), "1000 bytes a file"),
        (log().files(1), "1 files: choose 2 to 1000"),
        (log().files(1001), "1001 files: choose 2 to 1000"),
    ] {
        assert!(problem(&settings).contains(told), "{settings:?}");
    }
    assert!(!folder.path().join("log").exists());
}

#[test]
fn a_rotation_that_fails_loses_no_file() {
    let folder = tempfile::tempdir().unwrap();
    let settings = settings(folder.path()).files(3);
    let mut log = open(&settings, "box").unwrap();
    for number in 0..1500 {
        log.write(&record(number)).unwrap();
    }
    // A folder that is not empty stands where the file is to go.
    fs::remove_file(rotated(&settings.file, 1)).unwrap();
    fs::create_dir_all(rotated(&settings.file, 2).join("x")).unwrap();
    fs::create_dir_all(rotated(&settings.file, 1).join("x")).unwrap();
    let mut failed = 0;
    for number in 0..1500 {
        failed += u64::from(log.write(&record(number)).is_err());
    }
    assert!(failed > 0);
    let kept = fs::read(&settings.file).unwrap();
    // A count is short, and may have found room at the file's end.
    let text = String::from_utf8_lossy(&kept);
    let counts = text
        .lines()
        .filter_map(|line| line.split_once("\"records\":"));
    let told: u64 = counts
        .map(|(_, count)| count.trim_end_matches('}').parse::<u64>().unwrap())
        .sum();
    assert_eq!(told + log.lost(), failed);
    assert_eq!(verify(&*kept, None).unwrap().head, log.head());
    fs::remove_dir_all(rotated(&settings.file, 1)).unwrap();
    log.write(&record(0)).unwrap();
    assert_eq!(log.lost(), 0);
    // The count of the lost ones may have found room in it.
    let put_aside = fs::read(rotated(&settings.file, 1)).unwrap();
    assert!(put_aside.starts_with(&kept));
}

#[tokio::test]
async fn what_is_handed_over_is_written_when_the_log_is_closed() {
    let folder = tempfile::tempdir().unwrap();
    let settings = AuditLog::new(folder.path().join("log"));
    let (writer, state) = AuditWriter::start(prepare(&settings, "box").unwrap()).unwrap();
    for number in 0..1000 {
        writer.write(record(number)).await;
    }
    assert_eq!(state.problem(), None);
    writer.write(Record::lost(0, 7)).await;
    drop(writer);
    state.closed().await;
    let text = fs::read_to_string(&settings.file).unwrap();
    assert_eq!(text.lines().count(), 1001);
    assert!(text.contains(&format!("\"sandbox\":\"box-{}-", std::process::id())));
    let problem = state.problem().unwrap();
    assert!(problem.contains("lacks 7 records"), "{problem}");
}
