//! A producer within the test, so that every byte it allocates is counted.

use std::{net::SocketAddr, time::Duration};

use anyhow::{Result, ensure};
use weir_log::{EmbeddedConfig, EmbeddedLog, EventLog as _, Retention, TopicPolicy, TopicSpec};
use weir_runtime::{Config, Context, Listeners, Shutdown};
use weir_tests::allocations;

use crate::{
    cases::{Action, Case, MAX_BODY, Port, Scope},
    seed,
    send::Sender,
    setting,
};

const ANY: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(std::net::Ipv4Addr::LOCALHOST), 0);
/// What a request may make the producer allocate beside its body: the client's copies, buffers of the connection, and the
/// decoded events of a full batch.
const ALLOWANCE: usize = 64 << 20;
/// How long what earlier requests hold is waited for.
const SETTLE: Duration = Duration::from_millis(5);
/// What does not count, bytes.
const SMALL: usize = 1 << 20;
/// Problems after which there is no use in going on.
const MOST_PROBLEMS: usize = 20;

/// Waits until nothing more is given back: a request that was answered early may still be read to its end.
async fn settle() {
    let mut before = allocations::now();
    loop {
        tokio::time::sleep(SETTLE).await;
        let now = allocations::now();
        if now + SMALL >= before {
            return;
        }
        before = now;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_request_makes_a_producer_allocate_more_than_its_budget() -> Result<()> {
    let dir = tempfile::tempdir()?;
    let log = EmbeddedLog::open(EmbeddedConfig::at(dir.path()))?;
    let config = Config::default();
    let retention = Retention::default();
    let topic = TopicSpec { name: config.topics.events.clone(), partitions: 3, retention };
    log.ensure_topics(&[topic], TopicPolicy::Create).await?;
    let context = Context::new(config, Shutdown::new());
    let listeners = Listeners::bind(ANY, Some(ANY), false).await?;
    let (http, grpc) = (listeners.http_address(), listeners.grpc_address().expect("it has a gRPC port"));
    let served = tokio::spawn(weir_producer::serve(context.clone(), log, listeners));
    let sender =
        Sender::new(&[(Port::ProducerHttp, http.to_string()), (Port::ProducerGrpc, grpc.to_string())])?;

    let (seed, from) = (seed(), setting("WEIR_HOSTILE_FROM", 0));
    let cases = setting("WEIR_HOSTILE_DECODER_CASES", 20_000);
    let (mut worst, mut found, mut last) = ((0, String::new()), Vec::new(), 0);
    for number in from..from + cases {
        let case = Case::new(seed, number, Scope::Producer);
        // Connections of bytes are listened to for a while: one in fifty is enough here.
        if matches!(case.action, Action::Bytes(_)) && !number.is_multiple_of(50) {
            continue;
        }
        if last > SMALL {
            settle().await;
        }
        let before = allocations::begin();
        let answer = sender.send(&case).await?;
        let grown = allocations::peak().saturating_sub(before);
        last = grown;
        let what =
            || format!("case {number} of seed {seed}, {} to {:?}: {}", case.family, case.port, answer.text);
        found.extend(answer.problem.as_ref().map(|problem| format!("{}: {problem}", what())));
        // The case itself is there twice while it is sent.
        if grown >= ALLOWANCE + 2 * MAX_BODY {
            found.push(format!("{}: {} MB allocated", what(), grown >> 20));
        }
        if found.len() >= MOST_PROBLEMS {
            break;
        }
        if grown > worst.0 {
            worst = (grown, what());
        }
        if (number + 1).is_multiple_of(10_000) {
            println!("{} cases; the worst allocated {} MB: {}", number + 1, worst.0 >> 20, worst.1);
        }
    }
    println!("the worst allocated {} MB: {}", worst.0 >> 20, worst.1);
    ensure!(found.is_empty(), "{}", found.join("\n"));
    context.shutdown.trigger();
    tokio::time::timeout(Duration::from_secs(30), served).await???;
    Ok(())
}
