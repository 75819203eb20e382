//! Reaching a running Weir: where it is, with which key, and what its errors mean to a person.

use std::path::PathBuf;

use anyhow::{Context as _, Result, bail};
use clap::Args;
use tonic::{Code, Status};
use tonic_types::StatusExt as _;
use weir_client::{ApiKey, Endpoints, Wire};
use weir_proto::{
    analytics::v1::analytics_service_client::AnalyticsServiceClient,
    ingest::v1::ingest_service_client::IngestServiceClient,
    processing::v1::processing_service_client::ProcessingServiceClient,
};

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
    pub(crate) api_key: Option<ApiKey>,
    /// The project, where the key is not of one
    #[arg(long, env = "WEIR_PROJECT", value_name = "NAME")]
    pub(crate) project: Option<String>,
    /// PEM file with the certificate authority to trust, for an https:// endpoint
    #[arg(long, env = "WEIR_CA_FILE", value_name = "FILE")]
    pub(crate) ca_file: Option<PathBuf>,
}

impl Connection {
    /// Speaks to `endpoint` without a key.
    pub(crate) fn to(endpoint: Endpoints) -> Self {
        Self { endpoint, api_key: None, project: None, ca_file: None }
    }

    /// The producer. Connects with the first call.
    pub(crate) fn ingest(&self) -> Result<IngestServiceClient<Wire>> {
        Ok(self.client(&self.endpoint.producer)?.ingest()?)
    }

    /// The analytics service. Connects with the first call.
    pub(crate) fn analytics(&self) -> Result<AnalyticsServiceClient<Wire>> {
        Ok(self.client(&self.endpoint.analytics)?.analytics()?)
    }

    /// The consumer. Connects with the first call.
    pub(crate) fn processing(&self) -> Result<ProcessingServiceClient<Wire>> {
        Ok(self.client(&self.endpoint.consumer)?.processing()?)
    }

    fn client(&self, url: &str) -> Result<weir_client::Connection> {
        let certificate_authority = match &self.ca_file {
            Some(path) => {
                Some(std::fs::read(path).with_context(|| format!("cannot read {}", path.display()))?)
            }
            None if url.starts_with("https://") => {
                bail!("{url} is encrypted: name the certificate authority to trust with --ca-file FILE")
            }
            None => None,
        };
        Ok(weir_client::Connection {
            endpoints: self.endpoint.clone(),
            api_key: self.api_key.clone(),
            project: self.project.clone(),
            certificate_authority,
        })
    }

    /// A failed call in words, with what to do about it.
    pub(crate) fn explain(&self, status: Status) -> anyhow::Error {
        explain(&status, &self.endpoint)
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
    use weir_client::is_transient;

    use super::*;

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
