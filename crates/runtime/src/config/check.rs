//! Rules between values, and ranges that types don't carry.

use std::collections::BTreeSet;

use super::{Config, Error, LogKind};

/// Topic names that Kafka takes: 1–249 of `[A-Za-z0-9._-]`. The embedded log uses them as folder names.
fn is_topic_name(name: &str) -> bool {
    (1..=249).contains(&name.len())
        && !matches!(name, "." | "..")
        && name.bytes().all(|b| b.is_ascii_alphanumeric() || b"._-".contains(&b))
}

pub(super) fn check(config: &Config) -> Result<(), Error> {
    let Config { log, topics, producer, consumer, analytics, gateway, rollups, server, store, .. } = config;
    let rule = |holds: bool, reason: &dyn Fn() -> String| {
        if holds { Ok(()) } else { Err(Error::Conflict { reason: reason() }) }
    };
    let positive = |key: &str, value: usize| {
        rule(value > 0, &|| format!("`{key}` = 0: nothing would get through; expected 1 or more"))
    };

    let names = [&topics.events, &topics.metrics, &topics.dead_letters, &topics.control];
    for name in names {
        rule(is_topic_name(name), &|| {
            format!("topic name \"{name}\": expected 1 to 249 letters, digits, dots, underscores or dashes")
        })?;
    }
    rule(BTreeSet::from(names).len() == names.len(), &|| {
        "the four names under [topics] must differ from each other".to_owned()
    })?;
    rule((1..=1024).contains(&topics.partitions), &|| {
        format!("`topics.partitions` = {}: expected 1 to 1024", topics.partitions)
    })?;
    rule(topics.replication_factor > 0, &|| {
        "`topics.replication_factor` = 0: expected 1 or more".to_owned()
    })?;

    if log.kind == LogKind::Kafka {
        rule(!log.kafka.brokers.is_empty(), &|| {
            "`log.kafka.brokers` is empty: name at least one, such as \"127.0.0.1:9092\"".to_owned()
        })?;
        let has_credentials = log.kafka.sasl_username.is_some() && log.kafka.sasl_password.is_some();
        rule(!log.kafka.security_protocol.uses_sasl() || has_credentials, &|| {
            format!(
                "`log.kafka.security_protocol` = \"{}\" needs `log.kafka.sasl_username` and \
                 `log.kafka.sasl_password_file`",
                log.kafka.security_protocol.as_str()
            )
        })?;
        let (certificate, key) = (&log.kafka.client_certificate_file, &log.kafka.client_key_file);
        rule(certificate.is_some() == key.is_some(), &|| {
            "`log.kafka.client_certificate_file` and `log.kafka.client_key_file` belong together: set both or neither"
                .to_owned()
        })?;
        rule(certificate.is_none() || log.kafka.security_protocol.uses_tls(), &|| {
            format!(
                "`log.kafka.client_certificate_file` is never shown with `log.kafka.security_protocol` = \"{}\"; \
                 expected \"ssl\" or \"sasl_ssl\"",
                log.kafka.security_protocol.as_str()
            )
        })?;
    }
    // Below this the index and the open files of a partition outgrow its data.
    const MIN_SEGMENT_BYTES: u64 = 1 << 16;
    rule(log.embedded.segment_bytes >= MIN_SEGMENT_BYTES, &|| {
        format!("`log.embedded.segment_bytes` = {}: expected 65536 or more", log.embedded.segment_bytes)
    })?;

    for (key, value) in [
        ("log.embedded.max_pending_bytes", log.embedded.max_pending_bytes),
        ("producer.max_event_bytes", producer.max_event_bytes),
        ("producer.max_batch_events", producer.max_batch_events),
        ("producer.max_streams", producer.max_streams),
        ("producer.stream_credits", producer.stream_credits as usize),
        ("consumer.micro_batch_events", consumer.micro_batch_events),
        ("consumer.dedup_max_events", consumer.dedup_max_events),
        ("analytics.max_watches", analytics.max_watches),
        ("analytics.watch_buffer", analytics.watch_buffer),
        ("analytics.max_result_rows", analytics.max_result_rows),
        ("analytics.query_memory_bytes", analytics.query_memory_bytes),
        ("analytics.watch_buffer_bytes", analytics.watch_buffer_bytes),
        ("analytics.export_buffer_bytes", analytics.export_buffer_bytes),
        ("store.flush_bytes", store.flush_bytes),
        ("store.compaction_bytes", store.compaction_bytes),
        ("rollups.max_values_per_dimension", rollups.max_values_per_dimension),
        ("server.max_connections", server.max_connections),
        ("server.max_concurrent_requests", server.max_concurrent_requests),
        ("server.max_concurrent_streams", server.max_concurrent_streams as usize),
        ("server.max_header_bytes", server.max_header_bytes as usize),
    ] {
        positive(key, value)?;
    }

    rule(store.compact_files >= 2, &|| {
        format!("`store.compact_files` = {}: expected 2 or more", store.compact_files)
    })?;
    for (small, small_key, large, large_key) in [
        (store.flush_bytes, "store.flush_bytes", store.max_hot_bytes, "store.max_hot_bytes"),
        (
            producer.max_batch_events,
            "producer.max_batch_events",
            producer.stream_credits as usize,
            "producer.stream_credits",
        ),
        (
            server.max_message_bytes,
            "server.max_message_bytes",
            server.request_memory_bytes,
            "server.request_memory_bytes",
        ),
        (
            server.message_memory_bytes,
            "server.message_memory_bytes",
            server.request_memory_bytes,
            "server.request_memory_bytes",
        ),
        (
            producer.max_event_bytes,
            "producer.max_event_bytes",
            producer.max_batch_bytes,
            "producer.max_batch_bytes",
        ),
        (
            producer.max_batch_bytes,
            "producer.max_batch_bytes",
            server.max_message_bytes,
            "server.max_message_bytes",
        ),
        (
            producer.max_batch_bytes,
            "producer.max_batch_bytes",
            producer.max_in_flight_bytes,
            "producer.max_in_flight_bytes",
        ),
        (
            producer.max_batch_bytes,
            "producer.max_batch_bytes",
            log.embedded.max_pending_bytes,
            "log.embedded.max_pending_bytes",
        ),
    ] {
        rule(small <= large, &|| {
            format!("`{small_key}` = {small} can never pass `{large_key}` = {large}; raise the latter")
        })?;
    }

    let urls = [
        ("gateway.producer_url", Some(&gateway.producer_url)),
        ("gateway.consumer_url", Some(&gateway.consumer_url)),
        ("gateway.analytics_url", Some(&gateway.analytics_url)),
        ("consumer.advertised_url", consumer.advertised_url.as_ref()),
    ];
    for (key, url) in urls {
        let Some(url) = url else { continue };
        let is_http = url
            .parse::<http::Uri>()
            .is_ok_and(|uri| uri.authority().is_some() && matches!(uri.scheme_str(), Some("http" | "https")));
        rule(is_http, &|| format!("`{key}` = \"{url}\": expected a URL such as \"http://127.0.0.1:50051\""))?;
    }

    for origin in &server.cors_origins {
        let is_origin = origin.parse::<http::Uri>().is_ok_and(|uri| {
            uri.authority().is_some() && uri.scheme().is_some() && !origin.ends_with('/') && uri.path() == "/"
        });
        rule(origin == "*" || is_origin, &|| {
            format!(
                "`server.cors_origins` has \"{origin}\": expected \"https://console.example.com\", without a path, or \"*\""
            )
        })?;
    }

    for host in &server.allowed_hosts {
        let is_name = host.parse::<http::uri::Authority>().is_ok_and(|authority| authority.host() == host);
        rule(host == "*" || is_name, &|| {
            format!(
                "`server.allowed_hosts` has \"{host}\": expected a name such as \"weir.example.com\", without scheme and \
                 port, or \"*\""
            )
        })?;
    }

    let mut names = BTreeSet::new();
    for definition in &rollups.definitions {
        let name = &definition.name;
        let well_named = !name.is_empty()
            && name.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_');
        rule(well_named, &|| {
            format!(
                "rollup name \"{name}\" in `rollups.definitions`: expected lower case letters, digits and _"
            )
        })?;
        rule(names.insert(name), &|| format!("`rollups.definitions` names \"{name}\" twice"))?;
        rule((1..=4).contains(&definition.dimensions.len()), &|| {
            format!("rollup \"{name}\" has {} dimensions: expected 1 to 4", definition.dimensions.len())
        })?;
    }
    Ok(())
}
