//! `weir up`, and one service each: `weir producer`, `consumer`, `analytics`, `gateway`.

use std::time::Instant;

use anyhow::Result;
use clap::Args;
use weir_runtime::{Config, Shutdown, config::LogKind, telemetry};

use crate::{
    allocator,
    launch::{self, Address, Running, Service},
    output,
    render::{FAINT, STRONG, paint},
    settings::Settings,
};

/// The gateway's port by default.
const GATEWAY_PORT: u16 = 8080;

/// Run everything in this process, on this machine
///
/// Producer, consumer, analytics and gateway on a log under --data-dir: nothing else is needed. What was accepted survives a
/// crash. Ctrl-C finishes what is under way; a second one aborts.
#[derive(Args, Debug)]
#[command(after_long_help = "Examples:
  weir up
  weir up --data-dir /var/lib/weir --config weir.toml
  weir up --port-offset 1000 --data-dir /tmp/second          beside another one
  weir up --kafka-brokers localhost:9092                     the same on Kafka")]
pub(crate) struct Up {
    #[command(flatten)]
    settings: Settings,
}

/// Settings of one service that runs by itself.
#[derive(Args, Debug)]
#[command(after_long_help = "Examples:
  weir producer --kafka-brokers kafka-1:9092,kafka-2:9092
  weir consumer --config weir.toml --set consumer.group=weir-blue
  weir gateway --set gateway.analytics_url=http://analytics:50053

Services that run in processes of their own share their log through Kafka. `weir config` explains every setting.")]
pub(crate) struct Alone {
    #[command(flatten)]
    settings: Settings,
}

/// Runs everything.
pub(crate) async fn up(args: &Up) -> Result<()> {
    let began = Instant::now();
    let config = args.settings.load()?;
    let described = describe_log(&config);
    let running = start(config, &Service::ALL).await?;
    if running.ready().await {
        output::text(banner(&running.addresses, &described, began.elapsed().as_secs_f64()))?;
    }
    running.ended().await
}

/// Runs one service.
pub(crate) async fn alone(service: Service, args: &Alone) -> Result<()> {
    let began = Instant::now();
    let config = args.settings.load()?;
    let (is_embedded, described) = (config.log.kind == LogKind::Embedded, describe_log(&config));
    let running = start(config, &[service]).await?;
    if is_embedded && service != Service::Gateway {
        tracing::warn!(
            "the embedded log serves one process: run `weir up` for all services in one, or use --kafka-brokers"
        );
    }
    if running.ready().await {
        let address = running.addresses[0];
        let grpc = address.grpc.map(|grpc| format!(", gRPC {grpc}")).unwrap_or_default();
        let seconds = began.elapsed().as_secs_f64();
        let name = service.name();
        output::line(format_args!(
            "weir {name} is ready after {seconds:.1} s: http://{}{grpc}; {described}",
            address.http
        ))?;
    }
    running.ended().await
}

async fn start(config: Config, services: &[Service]) -> Result<Running> {
    telemetry::init(&config.telemetry)?;
    tokio::spawn(allocator::give_back());
    launch::start(config, services, Shutdown::on_signal()?).await
}

fn describe_log(config: &Config) -> String {
    match config.log.kind {
        LogKind::Embedded => {
            let path = std::path::absolute(&config.data_dir).unwrap_or_else(|_| config.data_dir.clone());
            format!("data in {}", path.display())
        }
        LogKind::Kafka => format!("log on Kafka at {}", config.log.kafka.brokers.join(",")),
    }
}

/// What is said once everything is ready: where, and what to do next.
fn banner(addresses: &[Address], log: &str, seconds: f64) -> String {
    let mut out = format!(
        "\n{}  {}\n\n",
        paint(STRONG, format_args!("Weir is ready after {seconds:.1} s")),
        paint(FAINT, log)
    );
    let gateway = addresses.iter().find(|address| address.service == Service::Gateway);
    for address in addresses.iter().rev() {
        let grpc = address
            .grpc
            .map(|grpc| format!("   gRPC {grpc}"))
            .unwrap_or("   gRPC and REST of all services".to_owned());
        out.push_str(&format!(
            "  {:<10} http://{}{}\n",
            address.service.name(),
            address.http,
            paint(FAINT, grpc)
        ));
    }
    let Some(gateway) = gateway else { return out };
    let url = format!("http://{}", gateway.http);
    out.push_str(&format!(
        "\n{}\n  curl -H 'content-type: application/json' -d '{{\"eventName\":\"signup\",\"userId\":\"ada\"}}' {url}/v1/events\n",
        paint(FAINT, "Send an event:")
    ));
    out.push_str(&format!("\n{}\n", paint(FAINT, "Then, in another terminal:")));
    if gateway.http.port() != GATEWAY_PORT || !gateway.http.ip().is_loopback() {
        out.push_str(&format!("  export WEIR_ENDPOINT={url}\n"));
    }
    out.push_str(
        "  weir simulate --rate 200                 some traffic\n\
         \x20 weir query summary --last 1h --watch     see it being counted\n\
         \x20 weir tail                                see the events\n\n",
    );
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_banner_can_be_pasted() {
        let address = |service, http: &str, grpc: Option<&str>| Address {
            service,
            http: http.parse().unwrap(),
            grpc: grpc.map(|grpc| grpc.parse().unwrap()),
        };
        let addresses = [
            address(Service::Producer, "127.0.0.1:9081", Some("127.0.0.1:51051")),
            address(Service::Gateway, "127.0.0.1:9080", None),
        ];
        let plain = banner(&addresses, "data in /tmp/weir", 0.42);
        let plain = anstream::adapter::strip_str(&plain).to_string();
        insta::assert_snapshot!(plain, @r#"

        Weir is ready after 0.4 s  data in /tmp/weir

          gateway    http://127.0.0.1:9080   gRPC and REST of all services
          producer   http://127.0.0.1:9081   gRPC 127.0.0.1:51051

        Send an event:
          curl -H 'content-type: application/json' -d '{"eventName":"signup","userId":"ada"}' http://127.0.0.1:9080/v1/events

        Then, in another terminal:
          export WEIR_ENDPOINT=http://127.0.0.1:9080
          weir simulate --rate 200                 some traffic
          weir query summary --last 1h --watch     see it being counted
          weir tail                                see the events
        "#);
    }
}
