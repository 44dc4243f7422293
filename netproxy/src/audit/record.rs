//! What one line tells.

use std::net::SocketAddr;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::chain::Digest;
use crate::json::{self, bounded};
use crate::policy::Scheme;
use crate::proxy::{Denial, Destination, Flow, Request, RuleText, Ruling};
use crate::relay::Carried;

/// Most bytes that are kept of a name, a method or a reason.
pub const LONGEST_TEXT: usize = 300;
/// Most bytes that are kept of a path and of a rule.
pub const LONGEST_PATH: usize = 1024;
/// Most bytes of a line, with its break: a byte becomes six at most.
pub const MAX_LINE: usize = 24 << 10;

/// One decision, or what came of it. Its texts are bounded and otherwise as they came: [`Record::line`] escapes them.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Record {
    /// When, in milliseconds since 1970.
    pub time: u64,
    /// What.
    pub event: Event,
    /// The connection's number.
    pub flow: Option<u64>,
    /// Whom the guest meant.
    pub host: Option<String>,
    /// The port it meant.
    pub port: Option<u16>,
    /// What was spoken.
    pub scheme: Option<Scheme>,
    /// What was dialled.
    pub address: Option<SocketAddr>,
    /// Method and path of a request.
    pub request: Option<(String, String)>,
    /// What was decided.
    pub verdict: Option<Verdict>,
    /// Why it was denied, or would have been.
    pub reason: Option<String>,
    /// The rule that decided.
    pub rule: Option<String>,
    /// Where that rule is written.
    pub from: Option<String>,
}

/// What happened.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub enum Event {
    /// A connection was let through.
    Opened,
    /// A connection has ended.
    Ended {
        /// Bytes from the guest.
        sent: u64,
        /// Bytes to the guest.
        received: u64,
        /// How long it was, in milliseconds.
        ms: u64,
    },
    /// A request of plain HTTP was let through.
    Request,
    /// Something was denied, or could not be done.
    Denied,
    /// Records are missing here.
    Lost {
        /// How many.
        records: u64,
    },
}

/// What was decided.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Verdict {
    /// It was let through.
    Allow,
    /// It was let through only because the mode is audit.
    Audit,
    /// It was not, or it could not be done.
    Deny,
}

impl Record {
    /// So many records are missing.
    #[must_use]
    pub const fn lost(time: u64, records: u64) -> Self {
        Self {
            time,
            event: Event::Lost { records },
            flow: None,
            host: None,
            port: None,
            scheme: None,
            address: None,
            request: None,
            verdict: None,
            reason: None,
            rule: None,
            from: None,
        }
    }

    /// A connection was let through.
    #[must_use]
    pub fn opened(time: u64, flow: &Flow) -> Self {
        Self::of(time, Event::Opened, flow).ruled(&flow.ruling)
    }

    /// A connection has ended.
    #[must_use]
    pub fn ended(time: u64, flow: &Flow, carried: Carried, duration: std::time::Duration) -> Self {
        let event = Event::Ended {
            sent: carried.sent,
            received: carried.received,
            ms: u64::try_from(duration.as_millis()).unwrap_or(u64::MAX),
        };
        Self::of(time, event, flow)
    }

    /// A request was let through.
    #[must_use]
    pub fn request(time: u64, flow: &Flow, request: &Request, ruling: &Ruling) -> Self {
        let mut record = Self::of(time, Event::Request, flow).ruled(ruling);
        record.request = Some(bounded_request(request));
        record
    }

    /// Something was denied, or could not be done.
    #[must_use]
    pub fn denied(time: u64, denial: &Denial) -> Self {
        let mut record = Self::to(time, Event::Denied, &denial.destination);
        record.flow = denial.flow;
        record.scheme = denial.scheme;
        record.request = denial.request.as_ref().map(bounded_request);
        record.verdict = Some(Verdict::Deny);
        record.reason = Some(bounded(&denial.why.to_string(), LONGEST_TEXT));
        record.by(denial.decided_by.as_ref())
    }

    fn to(time: u64, event: Event, to: &Destination) -> Self {
        Self {
            event,
            host: Some(bounded(&to.host.to_string(), LONGEST_TEXT)),
            port: (to.port > 0).then_some(to.port),
            ..Self::lost(time, 0)
        }
    }

    fn of(time: u64, event: Event, flow: &Flow) -> Self {
        Self {
            flow: Some(flow.number),
            scheme: Some(flow.scheme),
            address: flow.address,
            ..Self::to(time, event, &flow.destination)
        }
    }

    fn ruled(mut self, ruling: &Ruling) -> Self {
        self.verdict = Some(match ruling.audited {
            None => Verdict::Allow,
            Some(_) => Verdict::Audit,
        });
        self.reason = ruling.audited.map(|reason| reason.to_string());
        self.by(ruling.rule.as_ref())
    }

    fn by(mut self, rule: Option<&RuleText>) -> Self {
        self.rule = rule.map(|rule| bounded(&rule.text, LONGEST_PATH));
        self.from = rule.map(|rule| bounded(&rule.place, LONGEST_TEXT));
        self
    }

    /// The record with its texts bounded, whatever the process did from which it came.
    #[must_use]
    pub fn bounded(&self) -> Self {
        let text = |text: &Option<String>| Some(bounded(text.as_ref()?, LONGEST_TEXT));
        let request = |(method, path): &(String, String)| {
            (bounded(method, LONGEST_TEXT), bounded(path, LONGEST_PATH))
        };
        Self {
            host: text(&self.host),
            request: self.request.as_ref().map(request),
            reason: text(&self.reason),
            rule: self.rule.as_ref().map(|rule| bounded(rule, LONGEST_PATH)),
            from: text(&self.from),
            ..*self
        }
    }

    /// The record as a line, without its break, that continues the line with the digest `prev`. Its texts are bounded.
    #[must_use]
    pub fn line(&self, prev: &Digest, sandbox: &str) -> String {
        let record = self.bounded();
        let (sent, received, ms) = match record.event {
            Event::Ended { sent, received, ms } => (Some(sent), Some(received), Some(ms)),
            _ => (None, None, None),
        };
        let (method, path) = record.request.unzip();
        json::line(&Line {
            prev: prev.to_string(),
            time: rfc3339(record.time),
            sandbox: bounded(sandbox, LONGEST_TEXT),
            event: record.event.name(),
            flow: record.flow,
            host: record.host,
            port: record.port,
            scheme: record.scheme,
            address: record.address,
            method,
            path,
            verdict: record.verdict,
            reason: record.reason,
            rule: record.rule,
            from: record.from,
            sent,
            received,
            ms,
            records: match record.event {
                Event::Lost { records } => Some(records),
                _ => None,
            },
        })
    }
}

/// The keys of a line in their order; what is not known is absent.
#[derive(Serialize)]
struct Line {
    prev: String,
    time: String,
    sandbox: String,
    event: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    flow: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    host: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    port: Option<u16>,
    #[serde(skip_serializing_if = "Option::is_none")]
    scheme: Option<Scheme>,
    #[serde(skip_serializing_if = "Option::is_none")]
    address: Option<SocketAddr>,
    #[serde(skip_serializing_if = "Option::is_none")]
    method: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    path: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    verdict: Option<Verdict>,
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    rule: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    from: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    sent: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    received: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    ms: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    records: Option<u64>,
}

/// Milliseconds since 1970 in UTC, as `2026-08-01T12:00:00.000Z`. Beyond the year 9999 it stays there: the form has no other.
fn rfc3339(since_1970: u64) -> String {
    let moment = i64::try_from(since_1970).unwrap_or(i64::MAX);
    let moment = Timestamp::from_millisecond(moment).unwrap_or(Timestamp::MAX);
    format!("{moment:.3}")
}

impl Event {
    const fn name(self) -> &'static str {
        match self {
            Self::Opened => "opened",
            Self::Ended { .. } => "ended",
            Self::Request => "request",
            Self::Denied => "denied",
            Self::Lost { .. } => "lost",
        }
    }
}

fn bounded_request(request: &Request) -> (String, String) {
    (
        bounded(request.method(), LONGEST_TEXT),
        bounded(request.path(), LONGEST_PATH),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_have_one_form() {
        for (ms, text) in [
            (0, "1970-01-01T00:00:00.000Z"),
            (951_782_400_000, "2000-02-29T00:00:00.000Z"),
            (1_234_567_890_123, "2009-02-13T23:31:30.123Z"),
        ] {
            assert_eq!(rfc3339(ms), text);
        }
        for ms in [u64::MAX, u64::MAX / 2] {
            let text = rfc3339(ms);
            assert!(text.starts_with("9999-12-3") && text.len() == 24, "{text}");
        }
    }
}
