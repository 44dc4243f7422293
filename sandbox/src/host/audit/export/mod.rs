//! Exports the records of an audit log to an OpenTelemetry collector, as log records by OTLP over HTTP.
//!
//! Batches, their thread, the protocol and when to try again are the SDK's. What it lacks is here: how many records wait is bounded and known, so
//! each one that does not arrive is counted, and the end has a time limit that holds for requests under way, too. Whoever hands over a record never
//! waits for the collector.

mod convert;
mod place;
mod post;

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use netproxy::audit::{Digest, Record};
use opentelemetry::InstrumentationScope;
use opentelemetry::logs::{Logger as _, LoggerProvider as _};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::logs::{
    BatchConfigBuilder, BatchLogProcessor, SdkLogger, SdkLoggerProvider,
};

use self::place::Place;
use self::post::Exporter;
use crate::audit::Export;
use crate::error::Result;
use crate::text::printable;

/// Most records that wait for the collector, with those that are on their way. At most some five KiB each.
const MAX_WAITING: u64 = 2048;

/// How long what waits may take at the end.
pub(crate) const FLUSH_LIMIT: Duration = Duration::from_secs(5);

/// What the service is called where the environment does not say it.
const SERVICE: &str = "cofferdam";

/// A collector that records can be exported to.
#[derive(Debug)]
pub(crate) struct Ready {
    exporter: Exporter,
    tally: Tally,
    sandbox: String,
}

impl Ready {
    /// What is asked for, of the sandbox with this name; none, if nothing is. Does not connect yet.
    pub(crate) fn open(asked: &Export, sandbox: &str) -> Result<Option<Self>> {
        let Some(place) = Place::of(asked, |name| std::env::var(name).ok())? else {
            return Ok(None);
        };
        let tally = Tally::default();
        Ok(Some(Self {
            exporter: Exporter::new(place, tally.clone())?,
            tally,
            sandbox: sandbox.to_owned(),
        }))
    }

    pub(crate) fn tally(&self) -> Tally {
        self.tally.clone()
    }

    /// Starts the thread that exports. It ends with [`Exporting::finish`].
    pub(crate) fn start(self) -> Exporting {
        let queue = usize::try_from(MAX_WAITING).unwrap_or(usize::MAX);
        let config = BatchConfigBuilder::default().with_max_queue_size(queue);
        let processor = BatchLogProcessor::builder(self.exporter)
            .with_batch_config(config.build())
            .build();
        let provider = SdkLoggerProvider::builder()
            .with_resource(resource())
            .with_log_processor(processor)
            .build();
        let scope = InstrumentationScope::builder(SERVICE).with_version(env!("CARGO_PKG_VERSION"));
        Exporting {
            logger: provider.logger_with_scope(scope.build()),
            provider,
            tally: self.tally,
            sandbox: self.sandbox,
        }
    }
}

/// What the environment says of who exports.
fn resource() -> Resource {
    let resource = Resource::builder();
    let told = Resource::builder().build();
    let name = told.get_ref(&"service.name".into());
    let is_named = name.is_some_and(|name| !name.as_str().starts_with("unknown_service"));
    if is_named {
        resource.build()
    } else {
        resource.with_service_name(SERVICE).build()
    }
}

/// Takes records to the collector.
#[derive(Debug)]
pub(crate) struct Exporting {
    logger: SdkLogger,
    provider: SdkLoggerProvider,
    tally: Tally,
    sandbox: String,
}

impl Exporting {
    /// Has a record exported; `digest` is that of its line, if it has one. Never waits: what finds no room is counted.
    pub(crate) fn export(&self, record: &Record, digest: Option<Digest>) {
        if let Some(missing) = self.tally.admit() {
            let mut log = self.logger.create_log_record();
            convert::fill(&mut log, &record.bounded(), &self.sandbox, digest, missing);
            self.logger.emit(log);
        }
    }

    /// Waits until what waits is exported, for [`FLUSH_LIMIT`] at most.
    pub(crate) fn finish(self) {
        self.tally.lock().until = Some(Instant::now() + FLUSH_LIMIT);
        // Whatever it says, the tally knows what was not exported.
        drop(self.provider.shutdown_with_timeout(FLUSH_LIMIT));
        self.tally.lock().has_ended = true;
    }
}

/// What becomes of the records. Clones are about the same ones.
#[derive(Clone, Debug, Default)]
pub(crate) struct Tally(Arc<Mutex<Counts>>);

#[derive(Debug, Default)]
struct Counts {
    /// Handed over, and neither taken by the collector nor lost.
    waiting: u64,
    lost: u64,
    /// Why the last ones were lost.
    why: String,
    /// Nothing is sent after it.
    until: Option<Instant>,
    /// What still waits is not waited for any more.
    has_ended: bool,
}

impl Tally {
    /// Whether there is room for one more, which waits from then on; and how many are lost so far. It is lost if there is none.
    fn admit(&self) -> Option<u64> {
        let mut counts = self.lock();
        if counts.waiting < MAX_WAITING {
            counts.waiting += 1;
            Some(counts.lost)
        } else {
            counts.lost += 1;
            "they came faster than the collector took them".clone_into(&mut counts.why);
            None
        }
    }

    /// So many wait no more, of which the collector did not get `lost`.
    fn settle(&self, records: u64, lost: u64, why: &str) {
        let mut counts = self.lock();
        counts.waiting = counts.waiting.saturating_sub(records);
        counts.lost += lost;
        if lost > 0 {
            counts.why = printable(why);
        }
    }

    /// How long a request that begins now may take, of `most`.
    fn time_left(&self, most: Duration) -> Duration {
        let until = self.lock().until;
        let left = until.map(|until| until.saturating_duration_since(Instant::now()));
        left.map_or(most, |left| left.min(most))
    }

    /// What was not exported, in a line for a person.
    pub(crate) fn problem(&self) -> Option<String> {
        let counts = self.lock();
        let (missing, why) = match counts.waiting {
            waiting @ 1.. if counts.has_ended => (
                counts.lost + waiting,
                "the collector did not answer in time at the end",
            ),
            _ => (counts.lost, &*counts.why),
        };
        (missing > 0)
            .then(|| format!("{missing} records of the audit log were not exported: {why}"))
    }

    fn lock(&self) -> MutexGuard<'_, Counts> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod collector;
#[cfg(test)]
mod tests;
