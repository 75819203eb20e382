use std::time::Duration;

use super::*;

fn load(overrides: &[(&str, &str)]) -> Result<Config, Error> {
    let overrides = overrides.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect();
    Config::load(Sources { overrides, ..Sources::default() })
}

fn load_file(text: &str) -> Result<Config, Error> {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("weir.toml");
    std::fs::write(&path, text).unwrap();
    Config::load(Sources { file: Some(path), ..Sources::default() })
}

fn load_env(name: &str, value: &str) -> Result<Config, Error> {
    Config::load(Sources { env: vec![(name.to_owned(), value.to_owned())], ..Sources::default() })
}

#[test]
fn the_printed_defaults_are_the_defaults() {
    assert_eq!(load_file(DEFAULT_TOML).unwrap(), Config::default());
}

#[test]
fn the_defaults_are_those_of_the_design() {
    let config = Config::default();
    assert_eq!(config.producer.grpc.to_string(), "127.0.0.1:50051");
    assert_eq!(config.producer.max_past, Duration::from_secs(30 * 86400));
    assert_eq!(config.consumer.micro_batch_delay, Duration::from_millis(10));
    assert_eq!(config.rollups.retention.second, Some(Duration::from_secs(3600)));
    assert_eq!(config.rollups.retention.day, None);
    assert_eq!(config.log.kafka.sasl_password, None);
    assert_eq!(config.topics.events_retention_bytes, None);
}

#[test]
fn later_sources_win() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("weir.toml");
    std::fs::write(&file, "[topics]\npartitions = 5\nevents = 'from-file'\nmetrics = 'm-file'").unwrap();
    let config = Config::load(Sources {
        file: Some(file),
        env: vec![
            ("WEIR__TOPICS__EVENTS".into(), "from-env".into()),
            ("WEIR__TOPICS__METRICS".into(), "m-env".into()),
        ],
        overrides: vec![("topics.events".into(), "from-override".into())],
    })
    .unwrap();
    assert_eq!(config.topics.partitions, 5);
    assert_eq!(config.topics.events, "from-override");
    assert_eq!(config.topics.metrics, "m-env");
}

#[test]
fn an_unknown_key_names_its_origin_and_the_nearest_key() {
    let error = load_env("WEIR__PRODUCER__HTPP", "127.0.0.1:1").unwrap_err();
    assert_eq!(
        error.to_string(),
        "unknown key `producer.htpp` in the environment variable WEIR__PRODUCER__HTPP; did you mean `producer.http`?"
    );
    let error = load_file("[consumer]\nmax_watches = 3").unwrap_err().to_string();
    assert!(error.contains("weir.toml; did you mean `analytics.max_watches`?"), "{error}");
    let error = load(&[("zzz", "1")]).unwrap_err().to_string();
    assert!(error.contains("`weir config` prints every key"), "{error}");
}

#[test]
fn a_wrong_value_names_key_value_origin_and_mend() {
    let error = load(&[("producer.max_past", "soon")]).unwrap_err().to_string();
    assert_eq!(
        error,
        "`producer.max_past` = \"soon\" in the command line: expected a duration such as \"20ms\", \"1h\" or \"7d\""
    );
    let error = load_env("WEIR__TOPICS__PARTITIONS", "three").unwrap_err().to_string();
    assert!(error.contains("`topics.partitions` = \"three\"") && error.contains("whole number"), "{error}");
    let error = load_file("[log]\nkind = 'pulsar'").unwrap_err().to_string();
    assert!(error.contains("`log.kind` = \"pulsar\"") && error.contains("`kafka`"), "{error}");
    let error = load_file("[producer]\nmax_event_bytes = -1").unwrap_err().to_string();
    assert!(error.contains("`producer.max_event_bytes` = -1"), "{error}");
    let error = load_file("[producer]\nhttp = 'localhost'").unwrap_err().to_string();
    assert!(error.contains("`producer.http` = \"localhost\""), "{error}");
}

#[test]
fn a_broken_file_is_told_by_line() {
    let error = load_file("[producer\nhttp = 1").unwrap_err().to_string();
    assert!(error.contains("weir.toml is not valid TOML") && error.contains("line 1"), "{error}");
    let missing = Config::load(Sources { file: Some("absent.toml".into()), ..Sources::default() });
    assert!(missing.unwrap_err().to_string().contains("cannot read absent.toml"));
}

#[test]
fn an_empty_section_changes_nothing_and_a_value_for_a_section_is_refused() {
    assert_eq!(load_file("[producer]\n[log.kafka]\n[log.kafka.extra]").unwrap(), Config::default());
    assert!(matches!(load_file("producer = 3"), Err(Error::UnknownKey { .. })));
    assert!(matches!(load_file("[log.kafka]\nextra = 3"), Err(Error::Invalid { .. })));
}

#[test]
fn lists_come_with_commas_or_as_toml() {
    assert_eq!(
        load_env("WEIR__ROLLUPS__DIMENSIONS", "platform, channel").unwrap().rollups.dimensions,
        ["platform", "channel"]
    );
    assert!(load(&[("rollups.dimensions", "")]).unwrap().rollups.dimensions.is_empty());
    let config =
        load(&[("rollups.definitions", r#"[{ name = "by_plan", dimensions = ["plan", "channel"] }]"#)])
            .unwrap();
    assert_eq!(config.rollups.definitions[0].dimensions, ["plan", "channel"]);
    let error =
        load(&[("rollups.definitions", r#"[{ name = "x", filter = "y" }]"#)]).unwrap_err().to_string();
    assert!(error.contains("rollups.definitions") && error.contains("filter"), "{error}");
}

#[test]
fn librdkafka_properties_pass_with_their_dots() {
    let config =
        load_file("[log.kafka.extra]\n'socket.timeout.ms' = 1000\nlog.connection.close = false").unwrap();
    assert_eq!(config.log.kafka.extra.expose()["socket.timeout.ms"], "1000");
    assert_eq!(config.log.kafka.extra.expose()["log.connection.close"], "false");
    let config = load_env("WEIR__LOG__KAFKA__EXTRA__FETCH__WAIT__MAX__MS", "5").unwrap();
    assert_eq!(config.log.kafka.extra.expose()["fetch.wait.max.ms"], "5");
}

#[test]
fn names_with_one_underscore_are_not_configuration() {
    assert_eq!(load_env("WEIR_ENDPOINT", "http://127.0.0.1:8080").unwrap(), Config::default());
}

#[test]
fn passwords_are_read_from_files_and_never_printed() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("password");
    std::fs::write(&file, "hush\n").unwrap();
    let config = load(&[("log.kafka.sasl_password_file", file.to_str().unwrap())]).unwrap();
    assert_eq!(config.log.kafka.sasl_password.as_ref().unwrap().expose(), "hush");
    assert!(!format!("{config:?}").contains("hush"));

    let error = load_file("[log.kafka]\nsasl_password = 12345").unwrap_err().to_string();
    assert!(!error.contains("12345"), "{error}");
}

#[test]
fn no_listing_error_or_debug_output_holds_a_secret() {
    let secrets = [
        "sasl.password",
        "ssl.key.password",
        "ssl.key.pem",
        "ssl.keystore.password",
        "sasl.jaas.config",
        "sasl.oauthbearer.client.secret",
        "sasl.oauthbearer.config",
        "sasl.oauthbearer.assertion.private.key.passphrase",
        "SSL.Key.Password",
    ];
    let extra: String = secrets.iter().map(|key| format!("'{key}' = 'hush'\n")).collect();
    let text = format!(
        "[log.kafka]\nsasl_password = 'hush'\n[log.kafka.extra]\n{extra}'ssl.key.location' = 'seen'\n\
         [store.s3]\nsecret_access_key = 'hush'\nendpoint = 'https://user:hush@s3.example/x@y'"
    );
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("weir.toml");
    std::fs::write(&path, &text).unwrap();
    let sources = Sources { file: Some(path), ..Sources::default() };

    let listed = Config::effective_toml(sources.clone(), Secrets::Hidden).unwrap();
    assert!(!listed.contains("hush"), "{listed}");
    assert!(listed.contains("seen") && listed.contains("https://(hidden)@s3.example/x@y"), "{listed}");
    for key in secrets {
        assert!(listed.contains(&format!("\"{key}\" = \"(hidden)\"")), "{key}: {listed}");
    }
    let shown = Config::effective_toml(sources.clone(), Secrets::Shown).unwrap();
    assert_eq!(shown.matches("hush").count(), secrets.len() + 3, "{shown}");
    let config = Config::load(sources).unwrap();
    assert!(!format!("{config:?}").contains("'hush'"), "{config:?}");
    assert_eq!(config.log.kafka.extra.expose()["ssl.key.pem"], "hush");

    for wrong in ["[log.kafka]\nsasl_password = hush'", "[log.kafka.extra]\n'ssl.key.pem' = ['hush']"] {
        let error = load_file(wrong).unwrap_err();
        assert!(!format!("{error} {error:?}").contains("hush"), "{error:?}");
    }
}

#[test]
fn services_answer_to_the_names_that_they_call_each_other_by() {
    let config = load(&[("gateway.producer_url", "http://producer:50051")]).unwrap();
    assert_eq!(config.server.allowed_hosts, ["producer"]);
    assert!(Config::default().server.allowed_hosts.is_empty());
}

#[test]
fn values_that_contradict_each_other_do_not_start() {
    for (overrides, expected) in [
        (vec![("producer.max_batch_bytes", "100000000")], "server.max_message_bytes"),
        (vec![("producer.stream_credits", "999")], "raise the latter"),
        (vec![("server.request_memory_bytes", "1000000")], "server.max_message_bytes"),
        (vec![("topics.metrics", "analytics-events")], "must differ"),
        (vec![("topics.events", "a/b")], "topic name \"a/b\""),
        (vec![("topics.partitions", "0")], "1 to 1024"),
        (vec![("log.kind", "kafka"), ("log.kafka.security_protocol", "sasl_ssl")], "sasl_password_file"),
        (vec![("log.kind", "kafka"), ("log.kafka.client_key_file", "k.pem")], "set both or neither"),
        (
            vec![
                ("log.kind", "kafka"),
                ("log.kafka.client_certificate_file", "c.pem"),
                ("log.kafka.client_key_file", "k.pem"),
            ],
            "expected \"ssl\" or \"sasl_ssl\"",
        ),
        (vec![("gateway.producer_url", "127.0.0.1:50051")], "expected a URL"),
        (vec![("server.cors_origins", "https://a.example/page")], "without a path"),
        (vec![("server.allowed_hosts", "http://weir.example")], "without scheme"),
        (vec![("server.allowed_hosts", "weir.example:80")], "without scheme"),
        (vec![("analytics.max_watches", "0")], "`analytics.max_watches` = 0"),
    ] {
        let error = load(&overrides).unwrap_err().to_string();
        assert!(error.contains(expected), "{overrides:?}: {error}");
    }
}

#[test]
fn a_port_offset_moves_defaults_and_leaves_what_was_configured() {
    let mut config = load(&[("consumer.http", "127.0.0.1:9999"), ("producer.http", "127.0.0.1:0")]).unwrap();
    config.offset_ports(100).unwrap();
    assert_eq!(config.gateway.http.port(), 8180);
    assert_eq!(config.analytics.grpc.port(), 50153);
    assert_eq!(config.gateway.analytics_url, "http://127.0.0.1:50153");
    assert_eq!(config.consumer.http.port(), 9999);
    assert_eq!(config.producer.http.port(), 0);
    assert!(Config::default().offset_ports(20000).is_err());
}
