//! Which collector it is: what the program asked for, and the standard variables.

use std::time::Duration;

use rustls_native_certs::load_native_certs;
use ureq::tls::{Certificate, PemItem, RootCerts, parse_pem};

use crate::audit::Export;
use crate::error::{Error, Result};

/// How long an export may take with all its attempts, unless set; the specification's.
const TIMEOUT: Duration = Duration::from_secs(10);

/// Where records are exported to.
#[derive(Debug)]
pub(super) struct Place {
    /// Where requests go; none: the exporter reads it from the variables, which say it.
    pub(super) url: Option<String>,
    pub(super) timeout: Duration,
    /// Whom a collector's certificate has to be from.
    pub(super) roots: RootCerts,
}

impl Place {
    /// What is asked for, where `variable` reads one of the environment; none: nothing is to be exported.
    pub(super) fn of(
        asked: &Export,
        variable: impl Fn(&str) -> Option<String>,
    ) -> Result<Option<Self>> {
        let get = |name: &str| variable(name).filter(|value| !value.is_empty());
        // What is said of logs goes before what is said of all.
        let of_logs = |what: &str| {
            let names = ["OTEL_EXPORTER_OTLP_LOGS_", "OTEL_EXPORTER_OTLP_"];
            let mut names = names.iter().map(|begin| format!("{begin}{what}"));
            names.find_map(|name| get(&name).map(|value| (name, value)))
        };
        let is_off = get("OTEL_SDK_DISABLED").is_some_and(|it| it.eq_ignore_ascii_case("true"))
            || get("OTEL_LOGS_EXPORTER").is_some_and(|it| it == "none");
        let url = match asked {
            Export::No => return Ok(None),
            Export::To(url) => Some(url.clone()),
            Export::AsEnvironmentSays => None,
        };
        let (name, address) = match (&url, of_logs("ENDPOINT")) {
            (Some(url), _) => ("the collector".to_owned(), url.clone()),
            (None, Some(told)) if !is_off => told,
            (None, _) => return Ok(None),
        };
        if !["http://", "https://"]
            .iter()
            .any(|it| address.starts_with(it))
        {
            return Err(refused(
                &name,
                &address,
                "it takes an http:// or https:// URL",
            ));
        }
        if let Some((name, protocol)) = of_logs("PROTOCOL").filter(|it| it.1 != "http/protobuf") {
            return Err(refused(&name, &protocol, "only http/protobuf is spoken"));
        }
        let timeout = of_logs("TIMEOUT").and_then(|(_, ms)| ms.parse().ok());
        let certificates = of_logs("CERTIFICATE");
        Ok(Some(Self {
            url,
            timeout: timeout.map_or(TIMEOUT, Duration::from_millis),
            roots: certificates.map_or_else(
                || Ok(roots_of_host()),
                |(name, file)| roots_in(&file).map_err(|why| refused(&name, &file, &why)),
            )?,
        }))
    }
}

fn refused(name: &str, value: &str, why: &str) -> Error {
    Error::Config(format!("{name} is {value:?}: {why}"))
}

/// What this host trusts. Where that is nothing, no certificate will do; over plain HTTP none is needed.
fn roots_of_host() -> RootCerts {
    let roots = load_native_certs().certs;
    let roots = roots
        .iter()
        .map(|root| Certificate::from_der(root).to_owned());
    RootCerts::new_with_certs(&roots.collect::<Vec<_>>())
}

fn roots_in(file: &str) -> std::result::Result<RootCerts, String> {
    let text = std::fs::read(file).map_err(|error| error.to_string())?;
    let mut roots = Vec::new();
    for item in parse_pem(&text) {
        if let PemItem::Certificate(root) = item.map_err(|error| error.to_string())? {
            roots.push(root);
        }
    }
    if roots.is_empty() {
        return Err("there is no certificate in it".to_owned());
    }
    Ok(RootCerts::new_with_certs(&roots))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn place(asked: &Export, variables: &[(&str, &str)]) -> Result<Option<Place>> {
        Place::of(asked, |name| {
            let found = variables.iter().find(|(other, _)| *other == name);
            found.map(|(_, value)| (*value).to_owned())
        })
    }

    const ENDPOINT: (&str, &str) = ("OTEL_EXPORTER_OTLP_ENDPOINT", "http://127.0.0.1:4318");

    #[test]
    fn only_what_is_asked_for_and_told_is_exported() {
        let asked = Export::AsEnvironmentSays;
        let logs = ("OTEL_EXPORTER_OTLP_LOGS_ENDPOINT", "https://a.example/x");
        for (variables, is_there) in [
            (&[][..], false),
            (&[ENDPOINT], true),
            (&[logs], true),
            (&[("OTEL_EXPORTER_OTLP_ENDPOINT", "")], false),
            (&[ENDPOINT, ("OTEL_SDK_DISABLED", "True")], false),
            (&[ENDPOINT, ("OTEL_SDK_DISABLED", "false")], true),
            (&[ENDPOINT, ("OTEL_LOGS_EXPORTER", "none")], false),
            (&[ENDPOINT, ("OTEL_LOGS_EXPORTER", "otlp")], true),
        ] {
            let place = place(&asked, variables).unwrap();
            assert_eq!(place.is_some(), is_there, "{variables:?}");
        }
        assert!(place(&Export::No, &[ENDPOINT]).unwrap().is_none());
        let to = Export::To("http://a.example/y".into());
        let disabled = [("OTEL_SDK_DISABLED", "true")];
        let place = place(&to, &disabled).unwrap().unwrap();
        assert_eq!(place.url.as_deref(), Some("http://a.example/y"));
    }

    #[test]
    fn the_variable_of_logs_goes_before_that_of_all() {
        let all = ("OTEL_EXPORTER_OTLP_TIMEOUT", "7000");
        let logs = ("OTEL_EXPORTER_OTLP_LOGS_TIMEOUT", "20");
        for (variables, ms) in [
            (&[ENDPOINT][..], 10_000),
            (&[ENDPOINT, all], 7000),
            (&[ENDPOINT, all, logs], 20),
        ] {
            let place = place(&Export::AsEnvironmentSays, variables);
            let timeout = place.unwrap().unwrap().timeout;
            assert_eq!(timeout, Duration::from_millis(ms));
        }
    }

    #[test]
    fn what_cannot_be_done_is_refused() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let empty = file.path().to_str().unwrap();
        for (variable, value, part) in [
            ("OTEL_EXPORTER_OTLP_ENDPOINT", "collector:4317", "URL"),
            ("OTEL_EXPORTER_OTLP_PROTOCOL", "grpc", "http/protobuf"),
            (
                "OTEL_EXPORTER_OTLP_LOGS_PROTOCOL",
                "http/json",
                "http/protobuf",
            ),
            (
                "OTEL_EXPORTER_OTLP_CERTIFICATE",
                "/nowhere/x",
                "No such file",
            ),
            ("OTEL_EXPORTER_OTLP_CERTIFICATE", empty, "no certificate"),
        ] {
            let variables = [(variable, value), ENDPOINT];
            let error = place(&Export::AsEnvironmentSays, &variables).unwrap_err();
            let error = error.to_string();
            assert!(error.contains(variable) && error.contains(part), "{error}");
        }
    }
}
