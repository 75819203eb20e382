//! Kafka alone: a broker that is away, dies, or refuses us; settings of topics.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use uuid::Uuid;
use weir_log::{
    Error, EventLog, KafkaConfig, KafkaLog, Membership, Retention, TopicPolicy, TopicSpec,
    kafka::{Sasl, Tls},
};
use weir_tests::kafka::{CREDENTIALS, KafkaBroker};

use super::{Home, PATIENCE, Rig, a_full_queue_refuses_and_recovers, read, record};

fn topic(partitions: u32) -> TopicSpec {
    TopicSpec { name: format!("topic-{}", Uuid::new_v4()), partitions, retention: Retention::default() }
}

fn config(bootstrap: String) -> KafkaConfig {
    KafkaConfig { replication: Some(1), linger: Duration::ZERO, ..KafkaConfig::new([bootstrap]) }
}

async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> T {
    tokio::task::spawn_blocking(work).await.unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_broker_killed_under_load_loses_nothing_it_acknowledged() {
    let broker = Arc::new(blocking(|| KafkaBroker::start().unwrap()).await);
    let log = KafkaLog::connect(config(broker.bootstrap())).unwrap();
    let topic = topic(1);
    log.ensure_topics(std::slice::from_ref(&topic), TopicPolicy::Create).await.unwrap();
    let mut reader = log.reader(&topic.name, 0, 0).await.unwrap();

    let stop = Arc::new(AtomicBool::new(false));
    let appending = tokio::spawn({
        let (log, topic, stop) = (log.clone(), topic.name.clone(), stop.clone());
        async move {
            let mut acknowledged = Vec::new();
            for n in 0.. {
                let at = log
                    .append(&topic, 0, vec![record(n)])
                    .await
                    .expect("librdkafka retries until it is there");
                acknowledged.push((at.first, n));
                if stop.load(Ordering::Relaxed) {
                    break;
                }
            }
            acknowledged
        }
    });
    for _ in 0..2 {
        let from = reader.position();
        while reader.position() < from + 500 {
            reader.next(PATIENCE).await.unwrap();
        }
        let dying = broker.clone();
        blocking(move || dying.kill().and_then(|()| dying.restart()).unwrap()).await;
    }
    let from = reader.position();
    while reader.position() < from + 500 {
        reader.next(PATIENCE).await.unwrap();
    }
    stop.store(true, Ordering::Relaxed);
    let acknowledged = appending.await.unwrap();
    let end = log.bounds(&topic.name, 0).await.unwrap().end;
    let kept = read(&mut *log.reader(&topic.name, 0, 0).await.unwrap(), end as usize).await;
    assert_eq!(kept.len(), acknowledged.len(), "an idempotent producer writes nothing twice");
    for (offset, n) in acknowledged {
        assert_eq!(kept[offset as usize].2, record(n), "record {n} was acknowledged at {offset}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_broker_that_is_away_at_start_is_told_until_it_comes() {
    let broker = Arc::new(blocking(|| KafkaBroker::start().unwrap()).await);
    let dying = broker.clone();
    blocking(move || dying.stop().unwrap()).await;
    let patient = KafkaConfig { request_timeout: Duration::from_secs(1), ..config(broker.bootstrap()) };
    let log = KafkaLog::connect(patient).expect("connecting needs no broker");
    let told = async {
        loop {
            match log.ping().await {
                // The first call may be over before the first refused connection.
                Err(Error::Unavailable(why)) if why.contains("Connect") => return why,
                Err(Error::Unavailable(_)) => {}
                other => panic!("{other:?}"),
            }
        }
    };
    let why = tokio::time::timeout(PATIENCE, told).await.unwrap();
    assert!(why.contains(&broker.bootstrap()), "{why}");
    let away = log.append("any", 0, vec![record(0)]).await;
    assert!(matches!(&away, Err(e @ Error::Unavailable(_)) if e.is_retryable()), "{away:?}");
    let coming = broker.clone();
    blocking(move || coming.restart().unwrap()).await;
    let comes = async { while log.ping().await.is_err() {} };
    tokio::time::timeout(PATIENCE, comes).await.expect("it is found when it comes");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn wrong_credentials_and_certificates_are_told_apart() {
    let broker = blocking(|| KafkaBroker::start_secure().unwrap()).await;
    let sasl = |password: &str| {
        let (user, mechanism) = (CREDENTIALS.0.to_owned(), "SCRAM-SHA-512".to_owned());
        Some(Sasl { mechanism, user, password: password.to_owned() })
    };
    let secure = KafkaConfig {
        request_timeout: Duration::from_secs(3),
        tls: Some(Tls { ca: Some(broker.ca()), client: None }),
        sasl: sasl(CREDENTIALS.1),
        ..config(broker.bootstrap())
    };
    let told = |config: KafkaConfig| async {
        let log = KafkaLog::connect(config).unwrap();
        let mut outcome = log.ping().await;
        for _ in 0..10 {
            // The cause may come a moment after the first failure.
            if !matches!(outcome, Err(Error::Unavailable(_))) {
                break;
            }
            outcome = log.ping().await;
        }
        outcome
    };
    let wrong = told(KafkaConfig { sasl: sasl("wrong"), ..secure.clone() }).await;
    assert!(
        matches!(&wrong, Err(Error::Config(why)) if why.to_lowercase().contains("authentication")),
        "a wrong password: {wrong:?}"
    );
    let wrong = told(KafkaConfig { tls: Some(Tls::default()), ..secure.clone() }).await;
    assert!(matches!(&wrong, Err(Error::Config(why)) if why.contains("SSL")), "a wrong authority: {wrong:?}");
    assert!(!format!("{secure:?}").contains(CREDENTIALS.1), "a password is never printed");

    let log = KafkaLog::connect(secure).unwrap();
    let topic = topic(1);
    log.ensure_topics(std::slice::from_ref(&topic), TopicPolicy::Create).await.unwrap();
    log.append(&topic.name, 0, vec![record(1)]).await.unwrap();
    assert_eq!(read(&mut *log.reader(&topic.name, 0, 0).await.unwrap(), 1).await[0].2, record(1));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_topic_that_could_lose_records_does_not_pass_the_check() {
    let rig = Rig::kafka().await;
    let Err(Error::Topic { findings, .. }) = rig.log.ensure_topics(&[rig.spec()], TopicPolicy::Check).await
    else {
        panic!("one replica is not enough");
    };
    assert!(findings.contains("has 1 replicas"), "{findings}");
    assert!(findings.contains("min.insync.replicas is 1; set it to 2"), "{findings}");
    assert!(!findings.contains("LogAppendTime"), "we created it with the log's own time: {findings}");
    assert!(
        !findings.contains("retention.ms"),
        "we created it with the retention that was asked for: {findings}"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_topic_that_deletes_too_soon_passes_under_no_policy() {
    let rig = Rig::kafka().await;
    let week = Retention { age: Some(Duration::from_secs(7 * 86_400)), bytes: None };
    let topic = TopicSpec { retention: week, ..topic(1) };
    rig.log.ensure_topics(std::slice::from_ref(&topic), TopicPolicy::Create).await.unwrap();
    rig.log
        .ensure_topics(std::slice::from_ref(&topic), TopicPolicy::Create)
        .await
        .expect("it is as it was created");
    let for_ever = TopicSpec { retention: Retention::default(), ..topic };
    for policy in [TopicPolicy::Create, TopicPolicy::Check] {
        let refused = rig.log.ensure_topics(std::slice::from_ref(&for_ever), policy).await;
        let Err(Error::Topic { findings, .. }) = refused else { panic!("{policy:?}: {refused:?}") };
        assert!(findings.contains("retention.ms is 604800000; set it to -1"), "{findings}");
        assert!(findings.contains("--add-config retention.ms=-1"), "{findings}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_member_that_the_group_does_not_take_is_told_why() {
    let rig = Rig::kafka().await;
    let Home::Kafka(config) = &rig.home else { unreachable!("it is on Kafka") };
    // Longer than brokers allow (group.max.session.timeout.ms, 30 min).
    let mut refused = KafkaConfig { session_timeout: Duration::from_secs(1860), ..(**config).clone() };
    refused.extra.insert("max.poll.interval.ms".to_owned(), "3600000".to_owned());
    let log = KafkaLog::connect(refused).unwrap();
    let mut member = log.join(&rig.topic, &rig.group).await.unwrap();
    let told = super::change(&mut *member).await;
    assert!(matches!(&told, Membership::Refused(why) if why.contains("session timeout")), "{told:?}");
    let again = tokio::time::timeout(Duration::from_secs(3), member.next()).await;
    assert!(again.is_err(), "the same cause is told once: {again:?}");
    member.leave().await.unwrap();
}

#[tokio::test]
async fn settings_that_librdkafka_does_not_know_are_named() {
    let mut config = config("127.0.0.1:1".to_owned());
    config.extra.insert("no.such.setting".to_owned(), "1".to_owned());
    let refused = KafkaLog::connect(config).map(|_| ());
    assert!(matches!(&refused, Err(Error::Config(why)) if why.contains("no.such.setting")), "{refused:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_full_queue() {
    let rig = Rig::kafka().await;
    let Home::Kafka(config) = &rig.home else { unreachable!("it is on Kafka") };
    let slow = KafkaConfig { linger: Duration::from_millis(500), ..(**config).clone() };
    a_full_queue_refuses_and_recovers(Rig::new(Home::Kafka(Box::new(slow))).await).await;
}
