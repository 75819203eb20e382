//! Creating topics, and checking those that somebody else created.

use std::{collections::HashMap, fmt::Write as _, sync::Arc, time::Duration};

use rdkafka::{
    admin::{AdminClient, AdminOptions, ConfigResource, NewTopic, ResourceSpecifier, TopicReplication},
    config::FromClientConfigAndContext,
    error::{KafkaError, RDKafkaErrorCode},
};
use tokio::time::{Instant, sleep};

use super::{Inner, KafkaConfig, cause::Plain, refused};
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
            Some(topic) => look(spec, topic, policy, &inner.config, &mut findings),
        }
    }
    if findings.is_empty() { Ok(()) } else { Err(Error::Topic { wanted: wanted.to_vec(), findings }) }
}

/// Compares. Pure. Whatever loses records is a finding under either policy: a topic that exists is never changed here, and
/// nobody reads a warning of today when results are gone next week.
fn look(spec: &TopicSpec, topic: &Found, policy: TopicPolicy, config: &KafkaConfig, findings: &mut String) {
    let mut finding = |text: String| {
        let _ = writeln!(findings, "{}: {text}", spec.name);
    };
    if topic.partitions != spec.partitions {
        finding(format!(
            "has {} partitions where {} are wanted; set the number it has, or use another topic name",
            topic.partitions, spec.partitions
        ));
    }
    if policy == TopicPolicy::Check && topic.replicas < REPLICAS {
        finding(format!(
            "has {} replicas; reassign its partitions to have at least {REPLICAS}",
            topic.replicas
        ));
    }

    let mut changes: Vec<String> = Vec::new();
    let mut demand = |name: &str, holds: &dyn Fn(&str) -> bool, wanted: &str, why: &str| {
        let found = topic.settings.get(name).map_or("unknown", String::as_str);
        if !holds(found) {
            finding(format!("{name} is {found}; set it to {wanted}{why}"));
            changes.push(format!("{name}={wanted}"));
        }
    };
    let at_least = |limit: i64| move |found: &str| found.parse().is_ok_and(|found: i64| found >= limit);
    // -1 is no limit; what is kept longer than wanted costs only room.
    let keeps = |wanted: &str| {
        let wanted: i64 = wanted.parse().expect("it was written as a number");
        move |found: &str| found.parse().is_ok_and(|n: i64| n < 0 || (wanted >= 0 && n >= wanted))
    };
    let (age, bytes) = retention(spec.retention);
    let sooner = ": it deletes records sooner than the [topics] section says; or say there what is meant";
    demand("message.timestamp.type", &|found| found == "LogAppendTime", "LogAppendTime", "");
    demand("retention.ms", &keeps(&age), &age, sooner);
    demand("retention.bytes", &keeps(&bytes), &bytes, sooner);
    let compacts = ": compaction deletes all but the last record of a key";
    demand("cleanup.policy", &|found| found != "unknown" && !found.contains("compact"), "delete", compacts);
    if policy == TopicPolicy::Check {
        demand("min.insync.replicas", &at_least(IN_SYNC as i64), &IN_SYNC.to_string(), "");
        let vanish = ": acknowledged records could vanish";
        demand("unclean.leader.election.enable", &|found| found == "false", "false", vanish);
        let limit = config.max_record_bytes;
        let largest = ": records may be that large";
        demand("max.message.bytes", &at_least(limit as i64), &limit.to_string(), largest);
    }
    if !changes.is_empty() {
        finding(format!(
            "to change that: kafka-configs.sh --bootstrap-server {} --alter --entity-type topics --entity-name {} \
             --add-config {}",
            config.brokers.join(","),
            spec.name,
            changes.join(",")
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

    fn findings(
        settings: &[(&str, &str)],
        retention: Retention,
        policy: TopicPolicy,
        replicas: usize,
    ) -> Vec<String> {
        let settings = settings.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect();
        let topic = Found { partitions: 3, replicas, settings };
        let spec = TopicSpec { name: "t".to_owned(), partitions: 3, retention };
        let mut findings = String::new();
        look(&spec, &topic, policy, &KafkaConfig::new(["a:1", "b:2"]), &mut findings);
        findings.lines().map(|line| line.strip_prefix("t: ").expect(line).to_owned()).collect()
    }

    const SAFE: [(&str, &str); 7] = [
        ("message.timestamp.type", "LogAppendTime"),
        ("retention.ms", "-1"),
        ("retention.bytes", "-1"),
        ("cleanup.policy", "delete"),
        ("min.insync.replicas", "2"),
        ("unclean.leader.election.enable", "false"),
        ("max.message.bytes", "8388608"),
    ];

    #[test]
    fn an_unsafe_topic_is_told_every_finding_and_the_command_that_mends_it() {
        let safe = findings(&SAFE, Retention::default(), TopicPolicy::Check, 3);
        assert!(safe.is_empty(), "{safe:?}");
        let unsafe_settings = [
            ("message.timestamp.type", "CreateTime"),
            ("retention.ms", "604800000"),
            ("retention.bytes", "1000"),
            ("cleanup.policy", "compact,delete"),
            ("min.insync.replicas", "1"),
            ("unclean.leader.election.enable", "true"),
            ("max.message.bytes", "1048588"),
        ];
        let found = findings(&unsafe_settings, Retention::default(), TopicPolicy::Check, 1);
        assert_eq!(found.len(), 9, "{found:#?}");
        assert_eq!(
            found[8],
            "to change that: kafka-configs.sh --bootstrap-server a:1,b:2 --alter --entity-type topics --entity-name t \
             --add-config message.timestamp.type=LogAppendTime,retention.ms=-1,retention.bytes=-1,\
             cleanup.policy=delete,min.insync.replicas=2,unclean.leader.election.enable=false,max.message.bytes=8388608"
        );
        let unknown = findings(&[], Retention::default(), TopicPolicy::Check, 3);
        assert_eq!(unknown.len(), 8, "what a broker does not tell does not pass: {unknown:#?}");
    }

    #[test]
    fn a_topic_that_deletes_sooner_than_configured_does_not_pass_even_where_topics_are_created() {
        let week = Retention { age: Some(Duration::from_secs(7 * 86_400)), bytes: Some(1000) };
        let with = |name: &str, value: &'static str| {
            SAFE.map(|(key, safe)| (key, if key == name { value } else { safe }))
        };
        for (name, value, wanted, passes) in [
            ("retention.ms", "604800000", Retention::default(), false),
            ("retention.ms", "604799999", week, false),
            ("retention.ms", "604800000", week, true),
            ("retention.ms", "604800001", week, true),
            ("retention.bytes", "999", week, false),
            ("retention.bytes", "1000", week, true),
            ("retention.bytes", "-1", week, true),
            ("cleanup.policy", "compact", week, false),
        ] {
            let found = findings(&with(name, value), wanted, TopicPolicy::Create, 1);
            assert_eq!(found.is_empty(), passes, "{name}={value} for {wanted:?}: {found:?}");
            assert!(passes || found[0].starts_with(&format!("{name} is {value}; set it to")), "{found:?}");
        }
    }

    #[test]
    fn limits_that_are_not_set_keep_for_ever() {
        assert_eq!(retention(Retention::default()), ("-1".to_owned(), "-1".to_owned()));
        let limits = Retention { age: Some(Duration::from_secs(1)), bytes: Some(7) };
        assert_eq!(retention(limits), ("1000".to_owned(), "7".to_owned()));
    }
}
