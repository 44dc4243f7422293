//! The policy of the guest's network, from files and options, and what it denied.

use std::convert::Infallible;
use std::fmt::Write as _;
use std::fs::{self, File};
use std::io::{self, Read as _};
use std::path::{Path, PathBuf};

use sandbox::audit::AuditLog;
use sandbox::policy::Mode;
use sandbox::{Denied, Error, NetworkPolicy, Sandbox, UpstreamProxy};

use crate::failure::Failure;
use crate::print::say;

/// The user's own policy, in the folder for settings.
const GLOBAL: &str = "cofferdam/policy.toml";
/// The repository's, in this folder of the workspace.
const REPOSITORY: (&str, &str) = (".cofferdam", "policy.toml");
/// How often the network is started again: what ends it again and again may be the guest.
const MOST_RESTARTS: u32 = 3;
/// Destinations that are told of at the end.
const MOST_DENIED: usize = 8;

/// What a command line says of the policy.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Sources<'a> {
    /// `--policy`.
    pub(crate) policy: Option<&'a Path>,
    /// Each `--allow`.
    pub(crate) allow: &'a [String],
    /// The workspace.
    pub(crate) workspace: Option<&'a Path>,
}

/// The policy that the options ask for; `None`: there is to be no network.
pub(crate) fn policy(sources: Sources<'_>) -> Result<Option<NetworkPolicy>, Failure> {
    if sources.policy.is_none() && sources.allow.is_empty() {
        return Ok(None);
    }
    let mut policy = NetworkPolicy::new();
    if let Some((origin, text)) = settings_folder()
        .map(|folder| folder.join(GLOBAL))
        .map_or(Ok(None), |file| read(&file))?
    {
        policy = policy.global(&origin, text);
    }
    let (origin, mut text) = match sources.policy {
        Some(file) => read_named(file)?,
        None => ("--allow".to_owned(), Vec::new()),
    };
    text.extend(allowed(sources.allow).into_bytes());
    policy = policy.sandbox(&origin, text);
    if let Some((origin, text)) = sources.workspace.map_or(Ok(None), read_of_repository)? {
        policy = policy.repository(&origin, text);
    }
    Ok(Some(policy))
}

/// Tells of a mode in which the policy keeps the guest from little. What is no policy is told by who decides by it.
pub(crate) fn say_mode(policy: &NetworkPolicy) {
    let mode = policy.engine().map(|engine| engine.mode());
    if mode.is_ok_and(|mode| mode == Mode::Audit) {
        say(
            "coffer: the policy's mode is audit: the guest reaches every public host that no rule denies",
        );
    }
}

/// The policy with its audit log, if there is to be one.
pub(crate) fn logged(policy: NetworkPolicy, audit_log: Option<&Path>) -> NetworkPolicy {
    let Some(file) = audit_log else {
        return policy;
    };
    let log = AuditLog::new(file);
    #[cfg(feature = "otel")]
    let log = log.export();
    policy.audit_log(log)
}

/// Tells who has set a collector up that it gets nothing.
#[cfg(feature = "otel")]
pub(crate) fn say_not_exported() {
    let names = [
        "OTEL_EXPORTER_OTLP_ENDPOINT",
        "OTEL_EXPORTER_OTLP_LOGS_ENDPOINT",
    ];
    let is_set = |name: &&str| std::env::var_os(name).is_some_and(|it| !it.is_empty());
    if let Some(name) = names.iter().find(|name| is_set(name)) {
        say(&format!(
            "coffer: {name} is set, but it is the audit log that is exported: give --audit-log, too"
        ));
    }
}

/// The files of that policy, also those that are not there.
pub(crate) fn files(sources: Sources<'_>) -> Vec<PathBuf> {
    let (folder, name) = REPOSITORY;
    let global = settings_folder().map(|settings| settings.join(GLOBAL));
    let own = sources.policy.map(std::path::absolute);
    let repository = sources
        .workspace
        .map(|workspace| workspace.join(folder).join(name));
    let files = [global, own.and_then(Result::ok), repository];
    files.into_iter().flatten().collect()
}

/// The proxy of the host's network: what was asked for, or what the variables say by which other tools know it.
pub(crate) fn upstream_proxy(asked: Option<&str>) -> Result<Option<UpstreamProxy>, Failure> {
    chosen_proxy(asked, |name| std::env::var(name).ok())
}

fn chosen_proxy(
    asked: Option<&str>,
    variable: impl Fn(&str) -> Option<String>,
) -> Result<Option<UpstreamProxy>, Failure> {
    let one_of = |names: [&str; 2]| {
        let mut values = names.into_iter().filter_map(&variable);
        values.find(|value| !value.is_empty())
    };
    let no_proxy = one_of(["NO_PROXY", "no_proxy"]).unwrap_or_default();
    let (url, origin) = match asked {
        Some("none") => return Ok(None),
        Some(url) => (url.to_owned(), "--upstream-proxy"),
        None => match one_of(["HTTPS_PROXY", "https_proxy"]) {
            Some(url) => (url, "HTTPS_PROXY"),
            None => return Ok(None),
        },
    };
    let proxy = UpstreamProxy::new(&url, &no_proxy);
    let proxy = proxy.map_err(|error| {
        Error::Config(format!(
            "{origin}: {error}; `--upstream-proxy none` does without"
        ))
    })?;
    Ok(Some(proxy))
}

/// Starts the guest's network again when it ends while the machine goes on.
pub(crate) async fn keep(sandbox: &Sandbox) -> Infallible {
    for _ in 0..MOST_RESTARTS {
        sandbox.network_ended().await;
        match sandbox.restart_network().await {
            Ok(()) => say("coffer: the network has ended, and was started again"),
            Err(error) => say(&format!(
                "coffer: the network has ended, and does not start again: {error}"
            )),
        }
    }
    sandbox.network_ended().await;
    say("coffer: the network has ended once more, and stays so");
    std::future::pending().await
}

/// Rules for the hosts of `--allow`, to be put behind those of a file.
fn allowed(hosts: &[String]) -> String {
    let mut rules = String::new();
    for host in hosts {
        // Writing to a text does not fail. Debug's escapes are among those of TOML's strings, or the parser says so.
        let _ = write!(rules, "\n[[allow]]\nhost = {host:?}\n");
    }
    rules
}

pub(crate) fn settings_folder() -> Option<PathBuf> {
    let folder = |name: &str| {
        std::env::var_os(name)
            .map(PathBuf::from)
            .filter(|path| path.is_absolute())
    };
    folder("XDG_CONFIG_HOME").or_else(|| Some(folder("HOME")?.join(".config")))
}

/// A policy file's name and content; `None`: there is no such file.
fn read(file: &Path) -> Result<Option<(String, Vec<u8>)>, Failure> {
    found(file, File::open(file).and_then(content))
}

/// The same for a file that was named, so that it has to be there.
pub(crate) fn read_named(file: &Path) -> Result<(String, Vec<u8>), Failure> {
    read(file)?.ok_or_else(|| unreadable(file, &io::ErrorKind::NotFound.into()))
}

/// The same for the repository's. Who wrote it is not trusted: links are not followed, and only a file is read.
fn read_of_repository(workspace: &Path) -> Result<Option<(String, Vec<u8>)>, Failure> {
    let (folder, name) = REPOSITORY;
    let folder = workspace.join(folder);
    let file = folder.join(name);
    let text = fs::symlink_metadata(&folder).and_then(|metadata| {
        if metadata.is_dir() {
            content(open_regular(&file)?)
        } else {
            Err(io::Error::other(format!(
                "{} is no folder",
                folder.display()
            )))
        }
    });
    found(&file, text)
}

pub(crate) fn open_regular(file: &Path) -> io::Result<File> {
    let mut options = File::options();
    options.read(true);
    #[cfg(unix)]
    {
        use rustix::fs::OFlags;
        use std::os::unix::fs::OpenOptionsExt as _;
        // Without a wait for the other end of a pipe.
        let flags = OFlags::NOFOLLOW | OFlags::NONBLOCK;
        options.custom_flags(flags.bits().cast_signed());
    }
    let open = options.open(file)?;
    if open.metadata()?.is_file() {
        Ok(open)
    } else {
        Err(io::Error::other("it is no regular file"))
    }
}

/// All of a file, or enough of it to be refused.
fn content(file: File) -> io::Result<Vec<u8>> {
    let most = u64::try_from(NetworkPolicy::LARGEST_LAYER).unwrap_or(u64::MAX);
    let mut text = Vec::new();
    file.take(most.saturating_add(1)).read_to_end(&mut text)?;
    Ok(text)
}

fn found(file: &Path, text: io::Result<Vec<u8>>) -> Result<Option<(String, Vec<u8>)>, Failure> {
    match text {
        Ok(text) => Ok(Some((file.display().to_string(), text))),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(unreadable(file, &error)),
    }
}

fn unreadable(file: &Path, error: &io::Error) -> Failure {
    Error::Config(format!(
        "the policy {} cannot be read: {error}",
        file.display()
    ))
    .into()
}

/// Tells what became of what the policy does not allow.
pub(crate) fn say_denied(what: &str, denied: &[Denied]) {
    for denied in denied.iter().take(MOST_DENIED) {
        say(&format!("coffer: {what}: {denied}"));
        if let Some(rule) = &denied.rule {
            say(&format!("coffer:   to allow it: {rule}"));
        }
    }
    match denied.len().saturating_sub(MOST_DENIED) {
        0 => {}
        more => say(&format!("coffer: and {more} more destinations")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_upstream_proxy_is_what_was_asked_for_or_the_variables_say() {
        let place = |asked, variables: &[(&str, &str)]| {
            let variable = |name: &str| {
                let mut found = variables.iter().filter(|(known, _)| *known == name);
                found.next().map(|(_, value)| (*value).to_owned())
            };
            let proxy = chosen_proxy(asked, variable).map_err(|failure| failure.to_string());
            proxy.map(|proxy| proxy.map(|proxy| proxy.place()))
        };
        let there = |place: &str| Ok(Some(place.to_owned()));
        let both = [("https_proxy", "http://b:1"), ("HTTPS_PROXY", "http://a:1")];
        assert_eq!(place(None, &[]), Ok(None));
        assert_eq!(place(None, &both), there("a:1"));
        assert_eq!(place(None, &both[..1]), there("b:1"));
        assert_eq!(place(None, &[("HTTPS_PROXY", "")]), Ok(None));
        assert_eq!(place(Some("none"), &both), Ok(None));
        assert_eq!(place(Some("http://c:2"), &both), there("c:2"));
        // What is for other tools only is nothing of ours.
        assert_eq!(place(None, &[("HTTP_PROXY", "http://a:1")]), Ok(None));
        let refused = place(None, &[("HTTPS_PROXY", "https://user:hunter2@a:1")]).unwrap_err();
        assert!(
            refused.contains("HTTPS_PROXY") && !refused.contains("hunter2"),
            "{refused}"
        );
    }

    #[test]
    fn hosts_become_rules_and_nothing_more() {
        let rules = allowed(&["a.example".into(), "x\"\n[[allow]]\nhost = \"y".into()]);
        assert_eq!(
            rules,
            "\n[[allow]]\nhost = \"a.example\"\n\n[[allow]]\nhost = \"x\\\"\\n[[allow]]\\nhost = \\\"y\"\n"
        );
    }

    #[cfg(unix)]
    #[test]
    fn the_repositorys_policy_is_a_file_of_its_own() {
        use std::os::unix::fs::symlink;

        let workspace = tempfile::tempdir().unwrap();
        let secret = workspace.path().join("secret");
        fs::write(&secret, "x").unwrap();
        let read = || read_of_repository(workspace.path()).map_err(|failure| failure.to_string());
        assert_eq!(read().unwrap(), None);

        let folder = workspace.path().join(".cofferdam");
        symlink(".", &folder).unwrap();
        assert!(read().unwrap_err().contains("is no folder"));
        fs::remove_file(&folder).unwrap();
        fs::create_dir(&folder).unwrap();
        assert_eq!(read().unwrap(), None);

        let file = folder.join("policy.toml");
        symlink(&secret, &file).unwrap();
        assert!(read().unwrap_err().contains("cannot be read"));
        fs::remove_file(&file).unwrap();
        // Nobody writes into it: opening must not wait.
        let pipe = rustix::fs::FileType::Fifo;
        rustix::fs::mknodat(rustix::fs::CWD, &file, pipe, 0o600.into(), 0).unwrap();
        assert!(read().unwrap_err().contains("no regular file"));
        fs::remove_file(&file).unwrap();

        fs::write(&file, vec![b'#'; NetworkPolicy::LARGEST_LAYER * 3]).unwrap();
        let (origin, text) = read().unwrap().unwrap();
        assert_eq!(origin, file.display().to_string());
        assert_eq!(text.len(), NetworkPolicy::LARGEST_LAYER + 1);
    }
}
