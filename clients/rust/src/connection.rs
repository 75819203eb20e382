//! Where Weir is, and how to call it.

use std::{fmt, str::FromStr, time::Duration};

use tonic::{
    Code, Request, Status,
    metadata::{Ascii, MetadataValue},
    service::{Interceptor, interceptor::InterceptedService},
    transport::{Certificate, ClientTlsConfig, Endpoint},
};
use weir_proto::{
    analytics::v1::analytics_service_client::AnalyticsServiceClient,
    ingest::v1::ingest_service_client::IngestServiceClient,
    processing::v1::processing_service_client::ProcessingServiceClient,
};

use crate::channel::{Channel, Options};

/// How long a connection may take to come about. Loopback and data centres need milliseconds.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// Answers with many rows outgrow tonic's default of 4 MiB.
const MAX_ANSWER_BYTES: usize = 64 << 20;
/// HTTP/2 windows that a loopback stream of batches fills; the default of 64 KiB stalls it.
const WINDOW_BYTES: u32 = 4 << 20;

/// A channel that says in each call who asks.
pub type Wire = InterceptedService<Channel, Credential>;

/// Why Weir can't be called.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The URL of a service is none.
    #[error("`{url}` is not a URL")]
    Url {
        /// As it was given.
        url: String,
        /// What is wrong with it.
        source: tonic::transport::Error,
    },
    /// The certificate authority that was given is no PEM file.
    #[error("the certificate authority cannot be used")]
    CertificateAuthority(#[source] tonic::transport::Error),
    /// The key could not be sent in a header.
    #[error("the API key has characters that no key has")]
    ApiKey,
    /// The name could not be sent in a header.
    #[error("the project's name has characters that no name has")]
    Project,
}

/// An API key. It never shows in debug output.
#[derive(Clone, PartialEq, Eq)]
pub struct ApiKey(String);

impl<T: Into<String>> From<T> for ApiKey {
    fn from(key: T) -> Self {
        Self(key.into())
    }
}

impl fmt::Debug for ApiKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ApiKey(…)")
    }
}

/// The URL of each service; all alike when there is a gateway. As text: one URL, or `producer=URL,consumer=URL,analytics=URL`, in which
/// `HOST:PORT` is short for `http://HOST:PORT`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Endpoints {
    /// The producer's.
    pub producer: String,
    /// The consumer's.
    pub consumer: String,
    /// The analytics service's.
    pub analytics: String,
}

impl Endpoints {
    /// One URL that serves everything.
    pub fn one(url: &str) -> Self {
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

/// Says in each call who asks, and about which project.
#[derive(Clone, Debug)]
pub struct Credential {
    authorization: Option<MetadataValue<Ascii>>,
    project: Option<MetadataValue<Ascii>>,
}

impl Interceptor for Credential {
    fn call(&mut self, mut request: Request<()>) -> Result<Request<()>, Status> {
        if let Some(authorization) = &self.authorization {
            request.metadata_mut().insert("authorization", authorization.clone());
        }
        if let Some(project) = &self.project {
            request.metadata_mut().insert("weir-project", project.clone());
        }
        Ok(request)
    }
}

/// Where Weir is and who asks.
#[derive(Clone, Debug)]
pub struct Connection {
    /// Where the services are.
    pub endpoints: Endpoints,
    /// Who asks.
    pub api_key: Option<ApiKey>,
    /// The project, where the credential is not of one.
    pub project: Option<String>,
    /// The certificate authority to trust for `https://`, in PEM.
    pub certificate_authority: Option<Vec<u8>>,
}

impl Connection {
    /// Calls `endpoints` without a key.
    pub fn to(endpoints: Endpoints) -> Self {
        Self { endpoints, api_key: None, project: None, certificate_authority: None }
    }

    /// The producer. Connects with the first call.
    ///
    /// # Errors
    /// [`Error`] when a part of this is malformed.
    pub fn ingest(&self) -> Result<IngestServiceClient<Wire>, Error> {
        Ok(IngestServiceClient::new(self.wire(&self.endpoints.producer)?))
    }

    /// The analytics service. Connects with the first call.
    ///
    /// # Errors
    /// [`Error`] when a part of this is malformed.
    pub fn analytics(&self) -> Result<AnalyticsServiceClient<Wire>, Error> {
        let client = AnalyticsServiceClient::new(self.wire(&self.endpoints.analytics)?);
        Ok(client.max_decoding_message_size(MAX_ANSWER_BYTES))
    }

    /// The consumer. Connects with the first call.
    ///
    /// # Errors
    /// [`Error`] when a part of this is malformed.
    pub fn processing(&self) -> Result<ProcessingServiceClient<Wire>, Error> {
        Ok(ProcessingServiceClient::new(self.wire(&self.endpoints.consumer)?))
    }

    fn wire(&self, url: &str) -> Result<Wire, Error> {
        let malformed = |source| Error::Url { url: url.to_owned(), source };
        let mut endpoint = Endpoint::from_shared(url.to_owned())
            .map_err(malformed)?
            .connect_timeout(CONNECT_TIMEOUT)
            .initial_stream_window_size(WINDOW_BYTES)
            .initial_connection_window_size(WINDOW_BYTES)
            .user_agent(concat!("weir/", env!("CARGO_PKG_VERSION")))
            .expect("a name and a version");
        if let Some(pem) = &self.certificate_authority {
            let tls = ClientTlsConfig::new().ca_certificate(Certificate::from_pem(pem));
            endpoint = endpoint.tls_config(tls).map_err(Error::CertificateAuthority)?;
        }
        let mut authorization: Option<MetadataValue<Ascii>> = None;
        if let Some(ApiKey(key)) = &self.api_key {
            let mut value: MetadataValue<Ascii> =
                format!("Bearer {key}").parse().map_err(|_| Error::ApiKey)?;
            value.set_sensitive(true);
            authorization = Some(value);
        }
        let project = self.project.as_ref().map(|project| project.parse()).transpose();
        let project = project.map_err(|_| Error::Project)?;
        let credential = Credential { authorization, project };
        Ok(InterceptedService::new(Channel::new(endpoint, Options::default()), credential))
    }
}

/// Whether the same call may succeed later. Only for calls that may be repeated: after some of these codes it is unknown
/// whether the call took effect.
pub fn is_transient(status: &Status) -> bool {
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

    #[test]
    fn a_key_does_not_show() {
        let connection =
            Connection { api_key: Some("weir_sec_1".into()), ..Connection::to(Endpoints::one("http://a:1")) };
        assert!(!format!("{connection:?}").contains("weir_sec"));
    }
}
