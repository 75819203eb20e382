//! Reaching a running Weir: where it is, with which key, and what its errors mean to a person.

use std::{fmt, path::PathBuf, str::FromStr, time::Duration};

use anyhow::{Context as _, Result, bail};
use clap::Args;
use tonic::{
    Code, Request, Status,
    metadata::{Ascii, MetadataValue},
    service::{Interceptor, interceptor::InterceptedService},
    transport::{Certificate, Channel, ClientTlsConfig, Endpoint},
};
use tonic_types::StatusExt as _;
use weir_proto::{
    analytics::v1::analytics_service_client::AnalyticsServiceClient,
    ingest::v1::ingest_service_client::IngestServiceClient,
    processing::v1::processing_service_client::ProcessingServiceClient,
};

/// How long a connection may take to come about. Loopback and data centres need milliseconds.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// Answers with many rows outgrow tonic's default of 4 MiB.
const MAX_ANSWER_BYTES: usize = 64 << 20;
/// HTTP/2 windows that a loopback stream of batches fills; the default of 64 KiB stalls it.
const WINDOW_BYTES: u32 = 4 << 20;

/// A channel that adds the credential to each call.
pub(crate) type Wire = InterceptedService<Channel, Credential>;

/// Where Weir is and who asks.
#[derive(Args, Clone, Debug)]
#[command(next_help_heading = "Connection")]
pub(crate) struct Connection {
    /// Where Weir is: the gateway, which serves every service, or `producer=URL,consumer=URL,analytics=URL` with the
    /// gRPC ports of the services themselves
    #[arg(long, env = "WEIR_ENDPOINT", default_value = "http://127.0.0.1:8080", value_name = "URL")]
    pub(crate) endpoint: Endpoints,
    /// The API key
    #[arg(long, env = "WEIR_API_KEY", hide_env_values = true, value_name = "KEY")]
    pub(crate) api_key: Option<String>,
    /// PEM file with the certificate authority to trust, for an https:// endpoint
    #[arg(long, env = "WEIR_CA_FILE", value_name = "FILE")]
    pub(crate) ca_file: Option<PathBuf>,
}

/// The URL of each service; all alike when there is a gateway.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Endpoints {
    pub(crate) producer: String,
    pub(crate) consumer: String,
    pub(crate) analytics: String,
}

impl Endpoints {
    /// One URL that serves everything.
    pub(crate) fn one(url: &str) -> Self {
        Self { producer: url.to_owned(), consumer: url.to_owned(), analytics: url.to_owned() }
    }
}

impl FromStr for Endpoints {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if !text.contains('=') {
            return Ok(Self::one(&url(text)?));
        }
        let (mut producer, mut consumer, mut analytics) = (None, None, None);
        for part in text.split(',') {
            let slot = match part.split_once('=') {
                Some(("producer", address)) => (&mut producer, address),
                Some(("consumer", address)) => (&mut consumer, address),
                Some(("analytics", address)) => (&mut analytics, address),
                _ => return Err(format!("`{part}`: expected producer=URL, consumer=URL or analytics=URL")),
            };
            *slot.0 = Some(url(slot.1)?);
        }
        // A command speaks to the services it needs; one that was not named is missed only then.
        let given =
            producer.as_ref().or(consumer.as_ref()).or(analytics.as_ref()).cloned().unwrap_or_default();
        let or_given = |url: Option<String>| url.unwrap_or_else(|| given.clone());
        Ok(Self {
            producer: or_given(producer),
            consumer: or_given(consumer),
            analytics: or_given(analytics),
        })
    }
}

impl fmt::Display for Endpoints {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { producer, consumer, analytics } = self;
        if producer == consumer && consumer == analytics {
            f.write_str(producer)
        } else {
            write!(f, "producer={producer},consumer={consumer},analytics={analytics}")
        }
    }
}

/// `host:port` is short for `http://host:port`.
fn url(text: &str) -> Result<String, String> {
    let text = text.trim();
    let full = if text.contains("://") { text.to_owned() } else { format!("http://{text}") };
    let uri: tonic::transport::Uri =
        full.parse().map_err(|error| format!("`{text}` is not a URL: {error}"))?;
    match (uri.scheme_str(), uri.authority()) {
        (Some("http" | "https"), Some(_)) if uri.path() == "/" => Ok(full.trim_end_matches('/').to_owned()),
        _ => Err(format!("`{text}`: expected http://HOST:PORT or https://HOST:PORT")),
    }
}

/// Adds the API key to each call.
#[derive(Clone, Debug)]
pub(crate) struct Credential(Option<MetadataValue<Ascii>>);

impl Interceptor for Credential {
    fn call(&mut self, mut request: Request<()>) -> Result<Request<()>, Status> {
        if let Some(value) = &self.0 {
            request.metadata_mut().insert("authorization", value.clone());
        }
        Ok(request)
    }
}

impl Connection {
    /// Speaks to `endpoint` without a key.
    pub(crate) fn to(endpoint: Endpoints) -> Self {
        Self { endpoint, api_key: None, ca_file: None }
    }

    /// The producer. Connects with the first call.
    pub(crate) fn ingest(&self) -> Result<IngestServiceClient<Wire>> {
        Ok(IngestServiceClient::new(self.wire(&self.endpoint.producer)?))
    }

    /// The analytics service. Connects with the first call.
    pub(crate) fn analytics(&self) -> Result<AnalyticsServiceClient<Wire>> {
        let client = AnalyticsServiceClient::new(self.wire(&self.endpoint.analytics)?);
        Ok(client.max_decoding_message_size(MAX_ANSWER_BYTES))
    }

    /// The consumer. Connects with the first call.
    pub(crate) fn processing(&self) -> Result<ProcessingServiceClient<Wire>> {
        Ok(ProcessingServiceClient::new(self.wire(&self.endpoint.consumer)?))
    }

    fn wire(&self, url: &str) -> Result<Wire> {
        let mut endpoint = Endpoint::from_shared(url.to_owned())?
            .connect_timeout(CONNECT_TIMEOUT)
            .tcp_nodelay(true)
            .initial_stream_window_size(WINDOW_BYTES)
            .initial_connection_window_size(WINDOW_BYTES)
            .user_agent(concat!("weir/", env!("CARGO_PKG_VERSION")))?;
        if url.starts_with("https://") {
            let Some(path) = &self.ca_file else {
                bail!("{url} is encrypted: name the certificate authority to trust with --ca-file FILE");
            };
            let pem = std::fs::read(path).with_context(|| format!("cannot read {}", path.display()))?;
            let tls = ClientTlsConfig::new().ca_certificate(Certificate::from_pem(pem));
            endpoint = endpoint.tls_config(tls).with_context(|| format!("cannot use {}", path.display()))?;
        }
        let credential = match &self.api_key {
            Some(key) => {
                Some(format!("Bearer {key}").parse().context("the API key has characters that no key has")?)
            }
            None => None,
        };
        Ok(InterceptedService::new(endpoint.connect_lazy(), Credential(credential)))
    }

    /// A failed call in words, with what to do about it.
    pub(crate) fn explain(&self, status: Status) -> anyhow::Error {
        explain(&status, &self.endpoint)
    }
}

/// Whether the same call may succeed later. Only for calls that may be repeated: after some of these codes it is unknown
/// whether the call took effect.
pub(crate) fn is_transient(status: &Status) -> bool {
    match status.code() {
        Code::Unavailable
        | Code::ResourceExhausted
        | Code::Aborted
        | Code::Cancelled
        | Code::DeadlineExceeded => true,
        // What our own side makes of a connection that broke.
        Code::Unknown | Code::Internal => std::error::Error::source(status).is_some(),
        _ => false,
    }
}

fn explain(status: &Status, endpoints: &Endpoints) -> anyhow::Error {
    let mut innermost = std::error::Error::source(status);
    while let Some(next) = innermost.and_then(std::error::Error::source) {
        innermost = Some(next);
    }
    if let Some(cause) = innermost {
        return anyhow::anyhow!(
            "cannot reach Weir at {endpoints}: {cause}\n  start it with `weir up`, or say where it is with --endpoint or \
             WEIR_ENDPOINT"
        );
    }
    let mut text = match status.message() {
        "" => format!("the service answered {:?}", status.code()),
        message => message.to_owned(),
    };
    let details = status.get_error_details();
    for violation in details.bad_request().map(|bad| bad.field_violations.as_slice()).unwrap_or_default() {
        if !text.contains(&violation.description) {
            text.push_str(&format!("\n  {}: {}", violation.field, violation.description));
        }
    }
    let hint = match status.code() {
        Code::Unauthenticated => Some("give an API key with --api-key or WEIR_API_KEY"),
        Code::Unimplemented => Some("is this the right port? the gateway's is 8080; `weir up` prints it"),
        _ => None,
    };
    if let Some(hint) = hint {
        text.push_str("\n  ");
        text.push_str(hint);
    }
    anyhow::Error::msg(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_url_serves_everything_and_services_can_be_named() {
        let one: Endpoints = "127.0.0.1:9080/".parse().unwrap();
        assert_eq!(one, Endpoints::one("http://127.0.0.1:9080"));
        assert_eq!(one.to_string(), "http://127.0.0.1:9080");
        let three: Endpoints = "producer=a:1,analytics=http://c:3,consumer=b:2".parse().unwrap();
        assert_eq!(three.to_string(), "producer=http://a:1,consumer=http://b:2,analytics=http://c:3");
        assert_eq!(three.to_string().parse::<Endpoints>().unwrap(), three);
    }

    #[test]
    fn what_is_no_endpoint_says_what_is() {
        for text in ["ftp://host", "http://host/path", "producr=a:1", "http://", "ho st"] {
            let error = text.parse::<Endpoints>().unwrap_err();
            assert!(error.contains(text), "{text}: {error}");
        }
    }

    #[tokio::test]
    async fn nobody_listening_is_explained() {
        let connection = Connection::to(Endpoints::one("http://127.0.0.1:1"));
        let request = weir_proto::analytics::v1::GetSummaryRequest::default();
        let status = connection.analytics().unwrap().get_summary(request).await.unwrap_err();
        assert!(is_transient(&status));
        let text = connection.explain(status).to_string();
        assert!(text.contains("127.0.0.1:1") && text.contains("weir up"), "{text}");
    }
}
