//! `coffer log`: the log of the network's decisions, for a person.

use std::fs::File;
use std::io::{self, BufRead as _, BufReader, Read as _, Write as _};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use sandbox::Error;
use sandbox::audit::{Digest, MAX_FILES, MAX_LINE, rotated, verify};
use serde_json::Value;

use crate::cli::LogOptions;
use crate::failure::Failure;
use crate::print::{escaped, print, say};

/// How often a file that is followed is looked at.
const PAUSE: Duration = Duration::from_millis(200);

/// Prints the log, or looks whether it is whole.
pub(crate) fn main(options: &LogOptions) -> Result<ExitCode, Failure> {
    if options.verify {
        return check(&options.file);
    }
    let mut follower = Follower::open(&options.file)?;
    loop {
        let mut lines = Vec::new();
        let is_more = follower.read(|line| {
            if let Some(text) = shown(line, options.denied) {
                lines.extend(text.into_bytes());
            }
        })?;
        if !printed(&lines)? {
            return Ok(ExitCode::SUCCESS);
        }
        match (is_more, options.follow) {
            (true, _) => {}
            (false, true) => std::thread::sleep(PAUSE),
            (false, false) => return Ok(ExitCode::SUCCESS),
        }
    }
}

/// Prints; false: nobody reads any more.
fn printed(lines: &[u8]) -> Result<bool, Failure> {
    let mut stdout = io::stdout().lock();
    match stdout.write_all(lines).and_then(|()| stdout.flush()) {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(false),
        Err(error) => Err(Failure::Output("standard output", error)),
    }
}

/// Looks whether every line of the log's files continues the one before it.
fn check(file: &Path) -> Result<ExitCode, Failure> {
    let (mut lines, mut begin, mut from) = (0_u64, None, None);
    let paths = files(file);
    for path in &paths {
        let open = File::open(path).map_err(|error| unreadable(path, &error))?;
        match verify(BufReader::new(open), from) {
            Ok(verified) => {
                lines = lines.saturating_add(verified.lines);
                begin = begin.or(Some(verified.begin));
                from = Some(verified.head);
            }
            Err(broken) => {
                say(&format!("coffer: {}: {broken}", path.display()));
                return Ok(ExitCode::FAILURE);
            }
        }
    }
    let files = paths.len();
    let begins = match begin {
        Some(begin) if begin != Digest::default() => "; what came before was rotated away",
        _ => "",
    };
    let head = from.unwrap_or_default();
    print(
        format!("{lines} records in {files} files, each continues the one before{begins}\nlast: {head}\n")
            .as_bytes(),
    )?;
    Ok(ExitCode::SUCCESS)
}

/// The files of a log, the oldest first.
pub(crate) fn files(file: &Path) -> Vec<PathBuf> {
    let older = (1..MAX_FILES).map(|times| rotated(file, times));
    let older = older.take_while(|path| path.exists());
    let mut files: Vec<PathBuf> = [file.to_owned()].into_iter().chain(older).collect();
    files.reverse();
    files
}

pub(crate) fn unreadable(file: &Path, error: &io::Error) -> Failure {
    Failure::from(Error::Path {
        what: "audit log",
        path: file.to_owned(),
        problem: error.to_string(),
    })
}

/// A file that is read as far as it goes, and on when it was put aside for another.
struct Follower<'a> {
    path: &'a Path,
    file: BufReader<File>,
    /// The beginning of a line whose end is not there yet.
    line: Vec<u8>,
}

impl<'a> Follower<'a> {
    fn open(path: &'a Path) -> Result<Self, Failure> {
        let file = File::open(path).map_err(|error| unreadable(path, &error))?;
        Ok(Self {
            path,
            file: BufReader::new(file),
            line: Vec::new(),
        })
    }

    /// Gives the lines that are there, up to a number of them; says whether there may be more.
    fn read(&mut self, mut take: impl FnMut(&[u8])) -> Result<bool, Failure> {
        const MOST: usize = 1000;
        for _ in 0..MOST {
            let room = MAX_LINE.saturating_sub(self.line.len());
            let most = u64::try_from(room).unwrap_or(u64::MAX);
            let mut limited = (&mut self.file).take(most);
            limited
                .read_until(b'\n', &mut self.line)
                .map_err(|error| unreadable(self.path, &error))?;
            let is_whole = self.line.ends_with(b"\n");
            if !is_whole && self.line.len() < MAX_LINE {
                return self.turn();
            }
            take(&self.line);
            self.line.clear();
        }
        Ok(true)
    }

    /// Goes on with another file in the place of this one, if there is one. What is left of this one was read before.
    fn turn(&mut self) -> Result<bool, Failure> {
        let id = |file: &File| {
            let data = file.metadata().ok()?;
            Some((data.dev(), data.ino()))
        };
        let next = match File::open(self.path) {
            Ok(next) => next,
            // It is between two files.
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(false),
            Err(error) => return Err(unreadable(self.path, &error)),
        };
        if id(&next) == id(self.file.get_ref()) {
            return Ok(false);
        }
        // Nothing is added to the old one any more: its last lines may have come since it was read.
        if !self.at_end() {
            return Ok(true);
        }
        self.file = BufReader::new(next);
        self.line.clear();
        Ok(true)
    }

    fn at_end(&mut self) -> bool {
        self.file.fill_buf().map_or(true, <[u8]>::is_empty)
    }
}

/// A line for a person, if it is to be shown. What would act on a terminal is escaped.
fn shown(line: &[u8], only_denied: bool) -> Option<String> {
    let Ok(record) = serde_json::from_slice::<Value>(line) else {
        return Some("?        not a record\n".to_owned());
    };
    let text = |key: &str| match &record[key] {
        Value::String(text) => escaped(text),
        Value::Null => String::new(),
        other => escaped(&other.to_string()),
    };
    let is_denied = ["deny", "audit"].contains(&&*text("verdict")) || text("event") == "lost";
    if only_denied && !is_denied {
        return None;
    }
    let mut words = vec![text("time"), text("sandbox")];
    let flow = text("flow");
    if !flow.is_empty() {
        words.push(format!("#{flow}"));
    }
    words.push(match text("verdict").as_str() {
        "audit" => format!("{} (audit)", text("event")),
        _ => text("event"),
    });
    words.extend([text("scheme"), destination(&text("host"), &text("port"))]);
    words.extend([text("method"), text("path"), numbers(&record)]);
    let reason = text("reason");
    if !reason.is_empty() {
        words.push(format!(": {reason}"));
    }
    let from = text("from");
    if !from.is_empty() {
        words.push(format!("[{from}]"));
    }
    words.retain(|word| !word.is_empty());
    Some(format!("{}\n", words.join(" ")))
}

fn destination(host: &str, port: &str) -> String {
    if port.is_empty() {
        host.to_owned()
    } else {
        format!("{host}:{port}")
    }
}

fn numbers(record: &Value) -> String {
    let number = |key: &str| record[key].as_u64().unwrap_or_default();
    match record["event"].as_str() {
        Some("ended") => format!(
            "{} bytes sent, {} received, {} ms",
            number("sent"),
            number("received"),
            number("ms")
        ),
        Some("lost") => format!("{} records", number("records")),
        _ => String::new(),
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    fn line(number: usize) -> String {
        format!("{{\"event\":\"lost\",\"records\":{number}}}\n")
    }

    #[test]
    fn a_record_is_a_line_in_which_nothing_acts_on_a_terminal() {
        let denied = br#"{"time":"T","sandbox":"box","event":"denied","flow":3,"host":"a.example","port":80,"scheme":"http","method":"GET","path":"/\u001b[2J\u202e\n","verdict":"deny","reason":"no","from":"p:1"}"#;
        let text = shown(denied, true).unwrap();
        assert!(
            text.starts_with("T box #3 denied http a.example:80 GET /"),
            "{text}"
        );
        assert!(text.ends_with(" : no [p:1]\n"), "{text}");
        let acts = |c: char| c == '\u{1b}' || c == '\u{202e}' || c == '\n';
        assert!(!text.trim_end_matches('\n').contains(acts), "{text:?}");
        let ended = br#"{"time":"T","event":"ended","flow":3,"host":"a","port":1,"sent":1,"received":2,"ms":4}"#;
        assert_eq!(
            shown(ended, false).unwrap(),
            "T #3 ended a:1 1 bytes sent, 2 received, 4 ms\n"
        );
        assert_eq!(shown(ended, true), None);
        // It would have been denied.
        let audited = br#"{"time":"T","event":"opened","flow":3,"host":"a","port":1,"verdict":"audit","reason":"no"}"#;
        assert_eq!(
            shown(audited, true).unwrap(),
            "T #3 opened (audit) a:1 : no\n"
        );
        assert!(shown(b"x", true).unwrap().contains("not a record"));
        assert!(
            shown(line(4).as_bytes(), true)
                .unwrap()
                .contains("4 records")
        );
    }

    #[test]
    fn a_file_is_followed_over_its_rotation_and_parts_of_lines() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("log");
        fs::write(&path, line(1)).unwrap();
        let mut follower = Follower::open(&path).unwrap();
        let mut seen = Vec::new();
        let mut read = |seen: &mut Vec<String>| {
            while follower
                .read(|line| seen.push(String::from_utf8_lossy(line).into_owned()))
                .unwrap()
            {}
        };
        read(&mut seen);
        let mut file = File::options().append(true).open(&path).unwrap();
        let second = line(2);
        let (begin, end) = second.split_at(5);
        file.write_all(begin.as_bytes()).unwrap();
        read(&mut seen);
        assert_eq!(seen.len(), 1);
        file.write_all(end.as_bytes()).unwrap();
        read(&mut seen);
        fs::rename(&path, rotated(&path, 1)).unwrap();
        read(&mut seen);
        file.write_all(line(3).as_bytes()).unwrap();
        fs::write(&path, line(4)).unwrap();
        read(&mut seen);
        assert_eq!(seen, (1..=4).map(line).collect::<Vec<_>>());
    }
}
