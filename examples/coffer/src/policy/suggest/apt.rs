//! The sources of apt (sources.list(5)): lines, and fields as deb822(5) has them.

use std::path::PathBuf;

use super::Parsed;

/// `sources.list` and `*.list`: `deb [option=value ...] uri suite component...`.
pub(super) fn lines(text: &str) -> Parsed {
    let mut parsed = Parsed::default();
    for (number, line) in (1..).zip(text.lines()) {
        let line = line.split_once('#').map_or(line, |(line, _)| line).trim();
        if line.is_empty() {
            continue;
        }
        match uri(line) {
            Some((kind, uri)) => parsed.add(kind, uri),
            None => parsed.problems.push(format!("line {number} is no source")),
        }
    }
    parsed
}

fn uri(line: &str) -> Option<(&str, &str)> {
    let (kind, rest) = line.split_once(char::is_whitespace)?;
    let rest = rest.trim_start();
    let rest = match rest.strip_prefix('[') {
        Some(options) => options.split_once(']')?.1,
        None => rest,
    };
    let uri = rest.split_whitespace().next()?;
    matches!(kind, "deb" | "deb-src").then_some((kind, uri))
}

/// `*.sources`: paragraphs of fields.
pub(super) fn fields(text: &str) -> Parsed {
    let mut parsed = Parsed::default();
    let mut paragraph: Vec<(String, String)> = Vec::new();
    for (number, line) in (1..).zip(text.lines().chain([""])) {
        if line.starts_with('#') {
            continue;
        }
        if line.trim().is_empty() {
            uris(&paragraph, &mut parsed);
            paragraph.clear();
        } else if line.starts_with([' ', '\t']) {
            match paragraph.last_mut() {
                Some((_, value)) => *value = format!("{value} {line}"),
                None => parsed
                    .problems
                    .push(format!("line {number} continues nothing")),
            }
        } else if let Some((name, value)) = line.split_once(':') {
            paragraph.push((name.trim().to_ascii_lowercase(), value.to_owned()));
        } else {
            parsed.problems.push(format!("line {number} is no field"));
        }
    }
    parsed
}

/// The URIs of a paragraph, if it counts.
fn uris(paragraph: &[(String, String)], parsed: &mut Parsed) {
    let value = |name: &str| {
        let field = paragraph.iter().find(|(other, _)| other == name);
        field.map(|(_, value)| value.trim())
    };
    let off = ["no", "false", "without", "off", "disable"];
    if value("enabled").is_some_and(|value| off.contains(&value.to_ascii_lowercase().as_str())) {
        return;
    }
    for uri in value("uris").unwrap_or_default().split_whitespace() {
        parsed.add("URIs", uri);
    }
}

/// The files of mirrors that sources name (apt-transport-mirror(1)).
pub(super) fn mirrors(parsed: &Parsed) -> Vec<PathBuf> {
    let urls = parsed.urls.iter();
    let files = urls.filter_map(|(_, url)| url.strip_prefix("mirror+file:"));
    let files = files.map(|file| PathBuf::from(format!("/{}", file.trim_start_matches('/'))));
    files.collect()
}

/// A file of mirrors: a URI a line, and what is said of it.
pub(super) fn mirror_list(text: &str) -> Parsed {
    let mut parsed = Parsed::default();
    let lines = text.lines().filter(|line| !line.starts_with('#'));
    for uri in lines.filter_map(|line| line.split_whitespace().next()) {
        parsed.add("mirror", uri);
    }
    parsed
}

#[cfg(test)]
mod tests {
    use super::*;

    fn urls(parsed: &Parsed) -> Vec<&str> {
        parsed.urls.iter().map(|(_, url)| &**url).collect()
    }

    #[test]
    fn lines_have_a_uri_behind_their_options() {
        let text = "# deb http://comment.example/ x\n\
            deb http://a.example/debian stable main # a comment\n\
            \tdeb-src\t[ signed-by=/usr/share/k.gpg arch=amd64 ]  https://user:secret@b.example:8443/x stable main\n\
            deb [arch=amd64]https://c.example stable main\n\
            deb cdrom:[Medium of 2026]/ stable main\n\
            rpm http://d.example/ stable\ndeb\ndeb [a=b http://e.example/ stable\n\n";
        let parsed = lines(text);
        assert_eq!(
            urls(&parsed),
            [
                "http://a.example/debian",
                "https://user:secret@b.example:8443/x",
                "https://c.example",
                "cdrom:[Medium",
            ]
        );
        assert_eq!(
            parsed.problems,
            [
                "line 6 is no source",
                "line 7 is no source",
                "line 8 is no source"
            ]
        );
    }

    #[test]
    fn mirrors_are_in_files_of_their_own() {
        let parsed = lines(
            "deb mirror+file:/etc/apt/m.list stable main\ndeb mirror+file:///n.list x y\ndeb http://a.example/ x",
        );
        let files = ["/etc/apt/m.list", "/n.list"].map(PathBuf::from);
        assert_eq!(mirrors(&parsed), files);
        let list =
            "# a comment\nhttp://a.example/debian\tpriority:1\n\n  https://b.example/debian\n";
        let expected = ["http://a.example/debian", "https://b.example/debian"];
        assert_eq!(urls(&mirror_list(list)), expected);
    }

    #[test]
    fn paragraphs_have_uris_unless_they_are_off() {
        let text = "# a comment\nTypes: deb\nURIs: http://a.example/debian\n# within\n https://b.example/debian\n\
            Suites: stable\nSigned-By:\n -----BEGIN\n .\n x://y\n\nEnabled: No\nURIs: http://c.example/\n\n\
            uris:http://d.example\nEnabled: yes\n\nnothing\n\n continued\nURIs:\n";
        let parsed = fields(text);
        assert_eq!(
            urls(&parsed),
            [
                "http://a.example/debian",
                "https://b.example/debian",
                "http://d.example"
            ]
        );
        assert_eq!(
            parsed.problems,
            ["line 18 is no field", "line 20 continues nothing"]
        );
    }
}
