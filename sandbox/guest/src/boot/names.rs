//! The guest's own name, for programs that look it up (`sudo` does, and servers that say where they are).

use std::fs;

const HOSTS: &str = "/etc/hosts";
/// Where Debian has a host that has no fixed address.
const ADDRESS: &str = "127.0.1.1";

/// Has `name` resolve within the guest. A root where that cannot be written goes without.
pub(super) fn know(name: &str) {
    let known = fs::read(HOSTS).unwrap_or_default();
    if let Some(hosts) = with(&known, name) {
        // A link in its place may lead to what nobody makes here.
        let _ = fs::remove_file(HOSTS);
        let _ = fs::write(HOSTS, hosts);
    }
}

/// The table with `name`; nothing if it has it.
fn with(hosts: &[u8], name: &str) -> Option<Vec<u8>> {
    let is_name = |word: &[u8]| word == name.as_bytes();
    let mut lines = hosts.split(|byte| *byte == b'\n');
    let is_known = lines.any(|line| {
        let meant = line.split(|byte| *byte == b'#').next().unwrap_or_default();
        let mut words = meant.split(u8::is_ascii_whitespace).skip(1);
        words.any(is_name)
    });
    if is_known {
        return None;
    }
    let mut hosts = match hosts {
        [] => b"127.0.0.1 localhost\n::1 localhost\n".to_vec(),
        hosts => hosts.to_vec(),
    };
    if !hosts.ends_with(b"\n") {
        hosts.push(b'\n');
    }
    hosts.extend_from_slice(format!("{ADDRESS} {name}\n").as_bytes());
    Some(hosts)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_added_once() {
        let local = "127.0.0.1 localhost\n::1 localhost\n";
        for (hosts, expected) in [
            ("", Some(format!("{local}127.0.1.1 box\n"))),
            (local, Some(format!("{local}127.0.1.1 box\n"))),
            (
                "127.0.0.1 localhost",
                Some("127.0.0.1 localhost\n127.0.1.1 box\n".into()),
            ),
            ("127.0.0.1 localhost box\n", None),
            ("127.0.1.1\tbox # us\n", None),
            (
                "127.0.1.1 other # box\n",
                Some("127.0.1.1 other # box\n127.0.1.1 box\n".into()),
            ),
            ("box\n", Some("box\n127.0.1.1 box\n".into())),
        ] {
            let seen = with(hosts.as_bytes(), "box");
            assert_eq!(seen, expected.map(String::into_bytes), "{hosts:?}");
        }
    }
}
