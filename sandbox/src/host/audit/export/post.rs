//! Batches on their way to the collector.

use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use opentelemetry_http::{Bytes, HttpClient, HttpError, Request, Response};
use opentelemetry_otlp::{
    LogExporter as Otlp, Protocol, WithExportConfig as _, WithHttpConfig as _,
};
use opentelemetry_proto::tonic::collector::logs::v1::ExportLogsServiceResponse;
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::error::OTelSdkResult;
use opentelemetry_sdk::logs::{LogBatch, LogExporter};
use prost::Message as _;
use rustls::crypto::ring;
use ureq::Agent;
use ureq::tls::{TlsConfig, TlsProvider};

use super::Tally;
use super::place::Place;
use crate::error::{Error, Result};

/// Most bytes of an answer that are read.
const LONGEST_ANSWER: u64 = 64 << 10;

/// Exports batches and counts what does not arrive.
pub(super) struct Exporter {
    otlp: Otlp,
    answer: Arc<Mutex<Answer>>,
    tally: Tally,
}

/// What is known of the last request beyond its status.
#[derive(Debug, Default)]
struct Answer {
    /// How many records the collector says that it did not take, of a batch that it took.
    rejected: u64,
    why: String,
}

impl Exporter {
    /// One to `place`.
    pub(super) fn new(place: Place, tally: Tally) -> Result<Self> {
        let answer = Arc::<Mutex<Answer>>::default();
        let client = Client {
            timeout: place.timeout,
            answer: Arc::clone(&answer),
            tally: tally.clone(),
            agent: agent(&place),
        };
        let builder = Otlp::builder()
            .with_http()
            .with_protocol(Protocol::HttpBinary)
            .with_timeout(place.timeout)
            .with_http_client(client);
        let builder = match place.url {
            Some(url) => builder.with_endpoint(url),
            None => builder,
        };
        let otlp = builder.build();
        let otlp = otlp.map_err(|error| Error::Config(format!("OpenTelemetry: {error}")))?;
        Ok(Self {
            otlp,
            answer,
            tally,
        })
    }
}

impl fmt::Debug for Exporter {
    /// Without what is in it: the headers may hold a secret.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Exporter").finish_non_exhaustive()
    }
}

fn agent(place: &Place) -> Agent {
    let tls = TlsConfig::builder()
        .provider(TlsProvider::Rustls)
        .unversioned_rustls_crypto_provider(Arc::new(ring::default_provider()))
        .root_certs(place.roots.clone());
    Agent::config_builder()
        .tls_config(tls.build())
        // The headers may hold a secret: they go where they were meant to and nowhere else.
        .max_redirects(0)
        .max_redirects_will_error(false)
        .http_status_as_error(false)
        .user_agent(concat!("cofferdam/", env!("CARGO_PKG_VERSION")))
        .build()
        .into()
}

impl LogExporter for Exporter {
    async fn export(&self, batch: LogBatch<'_>) -> OTelSdkResult {
        let records = u64::try_from(batch.iter().count()).unwrap_or(u64::MAX);
        let done = self.otlp.export(batch).await;
        let answer = {
            let mut answer = self.answer.lock().unwrap_or_else(PoisonError::into_inner);
            std::mem::take(&mut *answer)
        };
        match &done {
            Ok(()) => {
                let lost = answer.rejected.min(records);
                let why = format!("the collector did not take them: {}", answer.why);
                self.tally.settle(records, lost, &why);
            }
            Err(error) if answer.why.is_empty() => {
                self.tally.settle(records, records, &error.to_string());
            }
            Err(_) => self.tally.settle(records, records, &answer.why),
        }
        done
    }

    fn shutdown_with_timeout(&self, timeout: Duration) -> OTelSdkResult {
        self.otlp.shutdown_with_timeout(timeout)
    }

    fn set_resource(&mut self, resource: &Resource) {
        self.otlp.set_resource(resource);
    }
}

/// Sends requests. The SDK calls it on a thread that does nothing else, so it may block.
#[derive(Debug)]
struct Client {
    agent: Agent,
    timeout: Duration,
    answer: Arc<Mutex<Answer>>,
    tally: Tally,
}

#[async_trait]
impl HttpClient for Client {
    async fn send_bytes(
        &self,
        request: Request<Bytes>,
    ) -> std::result::Result<Response<Bytes>, HttpError> {
        let done = self.send(&request);
        let mut answer = self.answer.lock().unwrap_or_else(PoisonError::into_inner);
        *answer = match &done {
            Ok(response) => Answer::of(response),
            Err(error) => Answer {
                rejected: 0,
                why: error.to_string(),
            },
        };
        Ok(done?)
    }
}

impl Client {
    fn send(&self, request: &Request<Bytes>) -> std::result::Result<Response<Bytes>, ureq::Error> {
        let left = self.tally.time_left(self.timeout);
        if left.is_zero() {
            return Err(ureq::Error::Timeout(ureq::Timeout::Global));
        }
        let mut post = Request::post(request.uri()).body(&request.body()[..])?;
        post.headers_mut().clone_from(request.headers());
        let post = self.agent.configure_request(post);
        let post = post.timeout_global(Some(left)).build();
        let (parts, mut body) = self.agent.run(post)?.into_parts();
        let body = body.with_config().limit(LONGEST_ANSWER).read_to_vec()?;
        Ok(Response::from_parts(parts, body.into()))
    }
}

impl Answer {
    fn of(response: &Response<Bytes>) -> Self {
        if !response.status().is_success() {
            return Self::default();
        }
        // One that is not understood is one of a collector that took all.
        let answer = ExportLogsServiceResponse::decode(&response.body()[..]).unwrap_or_default();
        let partial = answer.partial_success.unwrap_or_default();
        Self {
            rejected: u64::try_from(partial.rejected_log_records).unwrap_or_default(),
            why: partial.error_message,
        }
    }
}
