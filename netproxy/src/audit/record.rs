//! What one line tells.

use std::net::SocketAddr;

use serde::{Deserialize, Serialize};

use super::time::rfc3339;
use crate::json::{Object, bounded};
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

    /// All of it but what binds it to the line before, as an object.
    pub(super) fn members(&self, sandbox: &str) -> String {
        let mut object = Object::new();
        object.text("time", &rfc3339(self.time), LONGEST_TEXT);
        object.text("sandbox", sandbox, LONGEST_TEXT);
        object.text("event", self.event.name(), LONGEST_TEXT);
        if let Some(flow) = self.flow {
            object.number("flow", flow);
        }
        let (method, path) = match &self.request {
            Some((method, path)) => (Some(&**method), Some(&**path)),
            None => (None, None),
        };
        let scheme = self.scheme.map(|scheme| scheme.to_string());
        let address = self.address.map(|address| address.to_string());
        if let Some(host) = &self.host {
            object.text("host", host, LONGEST_TEXT);
        }
        if let Some(port) = self.port {
            object.number("port", port.into());
        }
        for (key, text, most) in [
            ("scheme", scheme.as_deref(), LONGEST_TEXT),
            ("address", address.as_deref(), LONGEST_TEXT),
            ("method", method, LONGEST_TEXT),
            ("path", path, LONGEST_PATH),
            ("verdict", self.verdict.map(Verdict::name), LONGEST_TEXT),
            ("reason", self.reason.as_deref(), LONGEST_TEXT),
            ("rule", self.rule.as_deref(), LONGEST_PATH),
            ("from", self.from.as_deref(), LONGEST_TEXT),
        ] {
            if let Some(text) = text {
                object.text(key, text, most);
            }
        }
        self.event.numbers(&mut object);
        object.end()
    }
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

    fn numbers(self, object: &mut Object) {
        match self {
            Self::Ended { sent, received, ms } => {
                object.number("sent", sent);
                object.number("received", received);
                object.number("ms", ms);
            }
            Self::Lost { records } => object.number("records", records),
            Self::Opened | Self::Request | Self::Denied => {}
        }
    }
}

impl Verdict {
    const fn name(self) -> &'static str {
        match self {
            Self::Allow => "allow",
            Self::Audit => "audit",
            Self::Deny => "deny",
        }
    }
}

fn bounded_request(request: &Request) -> (String, String) {
    (
        bounded(request.method(), LONGEST_TEXT),
        bounded(request.path(), LONGEST_PATH),
    )
}
