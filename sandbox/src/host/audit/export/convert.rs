//! What a record is in OpenTelemetry's data model.
//!
//! Names and body of a record are ours and constant; whatever the guest wrote is the value of an attribute, and bounded. Where the semantic conventions
//! have an attribute, that is it; the others begin with `cofferdam.`.

use std::time::{Duration, UNIX_EPOCH};

use netproxy::audit::{Digest, Event, Record, Verdict};
use netproxy::policy::Scheme;
use opentelemetry::logs::{AnyValue, LogRecord, Severity};

/// The methods that the conventions know; others are `_OTHER`.
const METHODS: [&str; 10] = [
    "CONNECT", "DELETE", "GET", "HEAD", "OPTIONS", "PATCH", "POST", "PUT", "QUERY", "TRACE",
];

/// Makes `log` what `record` is. `missing` records before it were not exported.
pub(super) fn fill(
    log: &mut impl LogRecord,
    record: &Record,
    sandbox: &str,
    digest: Option<Digest>,
    missing: u64,
) {
    let (name, body) = told(record.event);
    let severity = severity(record);
    log.set_event_name(name);
    log.set_body(body.into());
    log.set_severity_number(severity);
    log.set_severity_text(severity.name());
    if let Some(time) = UNIX_EPOCH.checked_add(Duration::from_millis(record.time)) {
        log.set_timestamp(time);
    }
    let mut add = Attributes(log);
    add.text("cofferdam.sandbox", Some(sandbox));
    add.text("log.record.uid", digest.map(|it| it.to_string()));
    add.number("cofferdam.not_exported", Some(missing).filter(|it| *it > 0));
    add.number("cofferdam.flow", record.flow);
    add.text("cofferdam.verdict", record.verdict.map(verdict));
    add.text("cofferdam.reason", record.reason.as_deref());
    add.text("cofferdam.rule", record.rule.as_deref());
    add.text("cofferdam.rule.from", record.from.as_deref());
    add.text("server.address", record.host.as_deref());
    add.number("server.port", record.port);
    destination(&mut add, record);
    request(&mut add, record);
    match record.event {
        Event::Ended { sent, received, ms } => {
            add.number("cofferdam.sent", Some(sent));
            add.number("cofferdam.received", Some(received));
            add.number("cofferdam.duration_ms", Some(ms));
        }
        Event::Lost { records } => add.number("cofferdam.records", Some(records)),
        _ => {}
    }
}

/// The event's name, and what it means.
const fn told(event: Event) -> (&'static str, &'static str) {
    match event {
        Event::Opened => ("cofferdam.network.opened", "a connection was let through"),
        Event::Ended { .. } => ("cofferdam.network.ended", "a connection has ended"),
        Event::Request => ("cofferdam.network.request", "a request was let through"),
        Event::Denied => (
            "cofferdam.network.denied",
            "something was denied, or could not be done",
        ),
        Event::Lost { .. } => ("cofferdam.network.lost", "records are missing here"),
        _ => ("cofferdam.network.other", "something else happened"),
    }
}

const fn severity(record: &Record) -> Severity {
    match (record.event, record.verdict) {
        (Event::Lost { .. }, _) => Severity::Error,
        (Event::Denied, _) | (_, Some(Verdict::Audit | Verdict::Deny)) => Severity::Warn,
        _ => Severity::Info,
    }
}

const fn verdict(verdict: Verdict) -> &'static str {
    match verdict {
        Verdict::Allow => "allow",
        Verdict::Audit => "audit",
        Verdict::Deny => "deny",
    }
}

fn destination(add: &mut Attributes<'_, impl LogRecord>, record: &Record) {
    if let Some(address) = record.address {
        let kind = if address.is_ipv4() { "ipv4" } else { "ipv6" };
        add.text("network.type", Some(kind));
        add.text("network.peer.address", Some(address.ip().to_string()));
        add.number("network.peer.port", Some(address.port()));
    }
    if let Some(scheme) = record.scheme {
        add.text("network.transport", Some("tcp"));
        add.text("cofferdam.scheme", Some(scheme.to_string()));
        let is_of_urls = matches!(scheme, Scheme::Http | Scheme::Https);
        add.text("url.scheme", is_of_urls.then(|| scheme.to_string()));
    }
}

fn request(add: &mut Attributes<'_, impl LogRecord>, record: &Record) {
    let Some((method, target)) = &record.request else {
        return;
    };
    if METHODS.contains(&&**method) {
        add.text("http.request.method", Some(&**method));
    } else {
        add.text("http.request.method", Some("_OTHER"));
        add.text("http.request.method_original", Some(&**method));
    }
    let (path, query) = match target.split_once('?') {
        Some((path, query)) => (path, Some(query)),
        None => (&**target, None),
    };
    add.text("url.path", Some(path));
    add.text("url.query", query);
}

/// The attributes of a log record; what is not known is absent.
struct Attributes<'a, L>(&'a mut L);

impl<L: LogRecord> Attributes<'_, L> {
    fn text(&mut self, name: &'static str, value: Option<impl Into<String>>) {
        if let Some(value) = value {
            self.0.add_attribute(name, AnyValue::from(value.into()));
        }
    }

    /// The data model's numbers are signed: larger ones stay at the largest.
    fn number(&mut self, name: &'static str, value: Option<impl Into<u64>>) {
        if let Some(value) = value {
            let value = i64::try_from(value.into()).unwrap_or(i64::MAX);
            self.0.add_attribute(name, AnyValue::from(value));
        }
    }
}
