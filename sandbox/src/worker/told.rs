//! What the egress worker tells the host program of the network's decisions.
//!
//! Its one thread must not wait for anybody, so reports go through a bounded queue to a thread that writes them. What does not fit is
//! counted, and told as soon as there is room.

use std::cell::{Cell, RefCell};
use std::collections::HashSet;
use std::io;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread::JoinHandle;
use std::time::Duration;

use netproxy::DroppedFrame;
use netproxy::audit::Record;
use netproxy::policy::Decision;
use netproxy::proxy::{Denial, Flow, Observer, Request, Ruling};
use netproxy::relay::Carried;

use super::Reporter;
use crate::control::Report;
use crate::host::now;
use crate::network::{Denied, MAX_DENIED};

/// Most reports that wait for the host program.
const MAX_QUEUED: usize = 1024;

/// What was told of, each once.
type Known = RefCell<HashSet<Denied>>;

/// Tells the host program: of each destination that was or would have been denied once, and for the audit log, if there is one, of everything.
pub(super) struct Told {
    queue: SyncSender<Report>,
    /// There is an audit log.
    is_audited: bool,
    denied: Known,
    /// What would have been denied.
    audited: Known,
    /// Records that are to be told of as lost.
    lost: Cell<u64>,
}

impl Told {
    /// Begins to tell. The thread ends when the value has gone and all is told.
    pub(super) fn start(
        reporter: &Arc<Reporter>,
        is_audited: bool,
    ) -> io::Result<(Self, JoinHandle<()>)> {
        let (told, reports) = Self::new(is_audited);
        let reporter = Arc::clone(reporter);
        let thread = std::thread::Builder::new()
            .name("reports".into())
            .stack_size(256 << 10)
            .spawn(move || reports.iter().for_each(|report| reporter.send(&report)))?;
        Ok((told, thread))
    }

    fn new(is_audited: bool) -> (Self, Receiver<Report>) {
        let (queue, reports) = sync_channel(MAX_QUEUED);
        let told = Self {
            queue,
            is_audited,
            denied: Known::default(),
            audited: Known::default(),
            lost: Cell::default(),
        };
        (told, reports)
    }

    /// Where reports go that wait for nobody.
    pub(super) fn reports(&self) -> SyncSender<Report> {
        self.queue.clone()
    }

    fn audit(&self, record: impl FnOnce(u64) -> Record) {
        if !self.is_audited {
            return;
        }
        let now = now();
        let queued = self.tell_lost(now) && self.queue(Report::Audit(Box::new(record(now))));
        if !queued {
            self.lost.set(self.lost.get().saturating_add(1));
        }
    }

    /// Tells how many records were lost, if any were. False: there is no room.
    fn tell_lost(&self, now: u64) -> bool {
        let lost = self.lost.get();
        let is_told = lost == 0 || self.queue(Report::Audit(Box::new(Record::lost(now, lost))));
        if is_told {
            self.lost.set(0);
        }
        is_told
    }

    /// Tells of what it is the first time for.
    fn tell_once(&self, known: &Known, denial: &Denial, report: fn(Denied) -> Report) {
        let denied = summary(denial);
        let mut known = known.borrow_mut();
        let is_new = known.len() < MAX_DENIED && !known.contains(&denied);
        // What there is no room for is told the next time.
        if is_new && self.queue(report(denied.clone())) {
            known.insert(denied);
        }
    }

    fn queue(&self, report: Report) -> bool {
        self.queue.try_send(report).is_ok()
    }
}

impl Drop for Told {
    fn drop(&mut self) {
        let lost = self.lost.get();
        if lost > 0 {
            // Nothing is served any more, so this may wait. It fails when nobody listens.
            let report = Report::Audit(Box::new(Record::lost(now(), lost)));
            drop(self.queue.send(report));
        }
    }
}

impl Observer for Told {
    fn opened(&self, flow: &Flow) {
        self.audit(|now| Record::opened(now, flow));
    }

    fn requested(&self, flow: &Flow, (method, target): (&str, &str), decision: &Decision<'_>) {
        self.audit(|now| {
            let request = Request::new(method, target);
            Record::request(now, flow, &request, &Ruling::of(decision))
        });
    }

    fn denied(&self, denial: &Denial) {
        self.audit(|now| Record::denied(now, denial));
        self.tell_once(&self.denied, denial, Report::Denied);
    }

    fn audited(&self, denial: &Denial) {
        self.tell_once(&self.audited, denial, Report::WouldBeDenied);
    }

    fn ended(&self, flow: &Flow, carried: Carried, duration: Duration) {
        self.audit(|now| Record::ended(now, flow, carried, duration));
    }

    fn dropped(&self, _: DroppedFrame) {}
}

fn summary(denial: &Denial) -> Denied {
    let mut destination = denial.destination.to_string();
    if let Some(request) = &denial.request {
        destination.push_str(&format!(" {request}"));
    }
    Denied::new(
        &destination,
        &denial.why.to_string(),
        denial.rule.as_deref(),
    )
}

#[cfg(test)]
mod tests {
    use std::net::IpAddr;

    use bytes::BytesMut;
    use netproxy::audit::Event;
    use netproxy::policy::{Host, Reason, Scheme};
    use netproxy::proxy::{Destination, RuleText, Why};

    use super::*;
    use crate::control;

    fn denial(path: &str) -> Denial {
        Denial {
            flow: Some(u64::MAX),
            destination: Destination {
                host: Host::Address(IpAddr::from([192, 0, 2, 1])),
                port: 80,
            },
            scheme: Some(Scheme::Http),
            request: Some(Request::new(&"M".repeat(1000), path)),
            why: Why::Policy(Reason::Request),
            decided_by: Some(RuleText {
                text: path.to_owned(),
                place: path.to_owned(),
            }),
            rule: Some(path.to_owned()),
        }
    }

    #[test]
    fn whatever_a_guest_asks_for_fits_into_a_report() {
        for piece in ["\u{202e}x", "\u{1}", "\u{10ffff}", "?a=b"] {
            let denial = denial(&format!("/{}", piece.repeat(100_000)));
            let denied = summary(&denial);
            assert!(
                denied.destination.starts_with("192.0.2.1:80 MMM"),
                "{denied:?}"
            );
            assert!(denied.rule.is_none(), "{piece:?}");
            for report in [
                Report::Denied(denied),
                Report::Audit(Box::new(Record::denied(u64::MAX, &denial))),
            ] {
                let mut bytes = BytesMut::from(&*control::encode(&report));
                assert_eq!(control::decode(&mut bytes).unwrap(), Some(report));
            }
        }
    }

    #[test]
    fn without_an_audit_log_only_denials_are_told_each_once() {
        let (told, reports) = Told::new(false);
        told.denied(&denial("/x"));
        told.denied(&denial("/x"));
        told.denied(&denial("/y"));
        drop(told);
        let all: Vec<_> = reports.iter().collect();
        assert_eq!(all.len(), 2);
        assert!(all.iter().all(|report| matches!(report, Report::Denied(_))));
    }

    #[test]
    fn what_only_the_mode_lets_through_is_told_once() {
        let (told, reports) = Told::new(false);
        told.denied(&denial("/x"));
        told.audited(&denial("/x"));
        told.audited(&denial("/x"));
        told.audited(&denial("/y"));
        drop(told);
        let would_be = |path| Report::WouldBeDenied(summary(&denial(path)));
        let expected = [
            Report::Denied(summary(&denial("/x"))),
            would_be("/x"),
            would_be("/y"),
        ];
        assert_eq!(reports.iter().collect::<Vec<_>>(), expected);
    }

    #[test]
    fn what_nobody_takes_is_counted_and_told() {
        let (told, reports) = Told::new(true);
        told.denied(&denial("/x"));
        for _ in 0..MAX_QUEUED + 9 {
            told.denied(&denial("/x"));
        }
        // All but two of the queue were the records of the denials.
        let lost = u64::try_from(1 + MAX_QUEUED + 9 - (MAX_QUEUED - 1)).unwrap();
        assert_eq!(told.lost.get(), lost);
        let first = reports.recv().unwrap();
        assert!(matches!(first, Report::Audit(record) if record.event == Event::Denied));
        // Room for the count alone.
        told.denied(&denial("/x"));
        assert_eq!(told.lost.get(), 1);
        let end = std::thread::spawn(move || reports.iter().collect::<Vec<_>>());
        drop(told);
        let all = end.join().unwrap();
        let lost_in = |report: &Report| match report {
            Report::Audit(record) => match record.event {
                Event::Lost { records } => records,
                _ => 0,
            },
            _ => 0,
        };
        assert_eq!(all.iter().map(lost_in).sum::<u64>(), lost + 1);
        assert_eq!(lost_in(all.last().unwrap()), 1);
    }
}
