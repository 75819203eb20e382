//! Creating topics, and checking those that somebody else created.

use std::{collections::HashMap, fmt::Write as _, sync::Arc, time::Duration};

use rdkafka::{
    admin::{AdminClient, AdminOptions, ConfigResource, NewTopic, ResourceSpecifier, TopicReplication},
    config::FromClientConfigAndContext,
    error::{KafkaError, RDKafkaErrorCode},
};
use tokio::time::{Instant, sleep};

use super::{Inner, cause::Plain, refused};
use crate::{Error, Result, Retention, TopicPolicy, TopicSpec};

/// What production asks of a topic: two of three replicas have every acknowledged record.
const REPLICAS: usize = 3;
const IN_SYNC: usize = 2;

/// A topic as the cluster describes it.
struct Found {
    partitions: u32,
    /// Replicas of the partition that has fewest.
    replicas: usize,
    settings: HashMap<String, String>,
}

pub(super) async fn ensure(inner: &Arc<Inner>, wanted: &[TopicSpec], policy: TopicPolicy) -> Result<()> {
    let admin: AdminClient<Plain> =
        AdminClient::from_config_and_context(&inner.config.admin(), Plain(inner.causes.clone()))
            .map_err(refused)?;
    let mut found = describe(inner, &admin, wanted).await?;
    let missing: Vec<&TopicSpec> = wanted.iter().filter(|spec| !found.contains_key(&spec.name)).collect();
    if policy == TopicPolicy::Create && !missing.is_empty() {
        create(inner, &admin, &missing).await?;
        found = wait_for_leaders(inner, &admin, wanted).await?;
    }
    let mut findings = String::new();
    for spec in wanted {
        match found.get(&spec.name) {
            None => {
                let _ = writeln!(
                    findings,
                    "{}: does not exist; create it with {} partitions, or set log.create_topics = true",
                    spec.name, spec.partitions
                );
            }
            Some(topic) => look(spec, topic, policy, inner.config.max_record_bytes, &mut findings),
        }
    }
    if findings.is_empty() { Ok(()) } else { Err(Error::Topic { wanted: wanted.to_vec(), findings }) }
}

/// Compares. Pure.
fn look(spec: &TopicSpec, topic: &Found, policy: TopicPolicy, max_record_bytes: u64, findings: &mut String) {
    let mut finding = |text: String| {
        let _ = writeln!(findings, "{}: {text}", spec.name);
    };
    let setting = |name: &str| topic.settings.get(name).map_or("unknown", String::as_str);
    if topic.partitions != spec.partitions {
        finding(format!(
            "has {} partitions where {} are wanted; set the number it has, or use another topic name",
            topic.partitions, spec.partitions
        ));
    }
    if setting("message.timestamp.type") != "LogAppendTime" {
        let now = setting("message.timestamp.type");
        finding(format!("message.timestamp.type is {now}; set it to LogAppendTime"));
    }
    if policy == TopicPolicy::Create {
        return;
    }
    if topic.replicas < REPLICAS {
        finding(format!(
            "has {} replicas; reassign its partitions to have at least {REPLICAS}",
            topic.replicas
        ));
    }
    let in_sync = setting("min.insync.replicas");
    if in_sync.parse().map_or(true, |n: usize| n < IN_SYNC) {
        finding(format!("min.insync.replicas is {in_sync}; set it to {IN_SYNC}"));
    }
    if setting("unclean.leader.election.enable") != "false" {
        finding(
            "unclean.leader.election.enable is on: acknowledged records could vanish; set it to false"
                .to_owned(),
        );
    }
    let limit = setting("max.message.bytes");
    if limit.parse().is_ok_and(|n: u64| n < max_record_bytes) {
        finding(format!(
            "max.message.bytes is {limit}; set it to {max_record_bytes} (log.kafka.max_record_bytes)"
        ));
    }
}

/// The topics that exist, by name.
async fn describe(
    inner: &Arc<Inner>,
    admin: &AdminClient<Plain>,
    wanted: &[TopicSpec],
) -> Result<HashMap<String, Found>> {
    let mut found = HashMap::new();
    for spec in wanted {
        if let Some((partitions, replicas)) = inner.metadata(&spec.name).await? {
            found.insert(spec.name.clone(), Found { partitions, replicas, settings: HashMap::new() });
        }
    }
    if found.is_empty() {
        return Ok(found);
    }
    let names: Vec<String> = found.keys().cloned().collect();
    let resources: Vec<ResourceSpecifier<'_>> =
        names.iter().map(|name| ResourceSpecifier::Topic(name)).collect();
    let described = admin.describe_configs(resources.iter(), &options(inner)).await;
    for (name, resource) in names.iter().zip(described.map_err(|e| inner.causes.explain("", None, &e))?) {
        let ConfigResource { entries, .. } =
            resource.map_err(|code| inner.causes.explain(name, None, &KafkaError::AdminOp(code)))?;
        if let Some(topic) = found.get_mut(name) {
            topic.settings = entries.into_iter().filter_map(|e| Some((e.name, e.value?))).collect();
        }
    }
    Ok(found)
}

async fn create(inner: &Arc<Inner>, admin: &AdminClient<Plain>, missing: &[&TopicSpec]) -> Result<()> {
    // -1: as the brokers' default.replication.factor says.
    let replication = inner.config.replication.map_or(-1, i32::from);
    let limit = inner.config.max_record_bytes.to_string();
    let retentions: Vec<(String, String)> = missing.iter().map(|spec| retention(spec.retention)).collect();
    let in_sync = IN_SYNC.to_string();
    let topics: Vec<NewTopic<'_>> = missing
        .iter()
        .zip(&retentions)
        .map(|(spec, (age, bytes))| {
            let topic =
                NewTopic::new(&spec.name, spec.partitions as i32, TopicReplication::Fixed(replication))
                    .set("message.timestamp.type", "LogAppendTime")
                    .set("max.message.bytes", &limit)
                    .set("retention.ms", age)
                    .set("retention.bytes", bytes);
            if replication >= REPLICAS as i32 { topic.set("min.insync.replicas", &in_sync) } else { topic }
        })
        .collect();
    let created = admin.create_topics(topics.iter(), &options(inner)).await;
    let mut findings = String::new();
    for outcome in created.map_err(|e| inner.causes.explain("", None, &e))? {
        match outcome {
            // Another service was faster; what it made is checked below.
            Ok(_) | Err((_, RDKafkaErrorCode::TopicAlreadyExists)) => {}
            Err((name, code)) => {
                let _ = writeln!(findings, "{name}: can't be created: {code}");
            }
        }
    }
    let wanted = || missing.iter().map(|spec| (*spec).clone()).collect();
    if findings.is_empty() { Ok(()) } else { Err(Error::Topic { wanted: wanted(), findings }) }
}

/// A topic that was just created is known to each broker a little later.
async fn wait_for_leaders(
    inner: &Arc<Inner>,
    admin: &AdminClient<Plain>,
    wanted: &[TopicSpec],
) -> Result<HashMap<String, Found>> {
    let deadline = Instant::now() + inner.config.request_timeout;
    loop {
        let found = match describe(inner, admin, wanted).await {
            // Metadata and settings may come from two brokers, one of which does not know yet.
            Err(Error::UnknownTopic(_)) => HashMap::new(),
            other => other?,
        };
        if found.len() == wanted.len() {
            return Ok(found);
        }
        if Instant::now() >= deadline {
            return Err(Error::Unavailable("the topics were created but have no leaders yet".to_owned()));
        }
        sleep(Duration::from_millis(50)).await;
    }
}

/// `retention.ms` and `retention.bytes`; -1 keeps for ever.
fn retention(retention: Retention) -> (String, String) {
    let age = retention.age.map_or(-1, |age| i64::try_from(age.as_millis()).unwrap_or(i64::MAX));
    let bytes = retention.bytes.map_or(-1, |bytes| i64::try_from(bytes).unwrap_or(i64::MAX));
    (age.to_string(), bytes.to_string())
}

fn options(inner: &Arc<Inner>) -> AdminOptions {
    AdminOptions::new()
        .request_timeout(Some(inner.config.request_timeout))
        .operation_timeout(Some(inner.config.request_timeout))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_unsafe_topic_is_told_every_finding() {
        let settings = [
            ("message.timestamp.type", "CreateTime"),
            ("min.insync.replicas", "1"),
            ("unclean.leader.election.enable", "true"),
            ("max.message.bytes", "1048588"),
        ];
        let topic = Found {
            partitions: 1,
            replicas: 1,
            settings: settings.map(|(k, v)| (k.to_owned(), v.to_owned())).into(),
        };
        let spec = TopicSpec { name: "t".to_owned(), partitions: 3, retention: Retention::default() };
        let mut findings = String::new();
        look(&spec, &topic, TopicPolicy::Check, 8 << 20, &mut findings);
        assert_eq!(findings.lines().count(), 6, "{findings}");
        assert!(findings.lines().all(|line| line.starts_with("t: ")), "{findings}");
    }

    #[test]
    fn limits_that_are_not_set_keep_for_ever() {
        assert_eq!(retention(Retention::default()), ("-1".to_owned(), "-1".to_owned()));
        let limits = Retention { age: Some(Duration::from_secs(1)), bytes: Some(7) };
        assert_eq!(retention(limits), ("1000".to_owned(), "7".to_owned()));
    }
}
