//! The committed code in `src/gen` is what the schemas say. `WEIR_REGENERATE=1 cargo test --release -p weir-proto` writes it
//! anew; without the variable the test fails when anything differs.

#![allow(clippy::unwrap_used, reason = "a test: a panic is how it fails")]

mod validation;

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
};

const REGENERATE: &str = "WEIR_REGENERATE";

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

/// Every schema of our own, relative to `proto/`, sorted.
fn schemas() -> Vec<String> {
    let mut found = Vec::new();
    let mut folders = vec![root().join("proto/weir")];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|e| e == "proto") {
                found.push(path.strip_prefix(root().join("proto")).unwrap().to_str().unwrap().to_owned());
            }
        }
    }
    found.sort();
    found
}

fn generate(into: &Path) {
    let mut compiler = protox::Compiler::new([root().join("proto"), root().join("third_party")]).unwrap();
    compiler.include_imports(true).include_source_info(true);
    compiler.open_files(schemas()).unwrap();
    // Error details travel as `Any`: reflection clients can print them only if the descriptor set has them.
    compiler.open_file("google/rpc/error_details.proto").unwrap();
    let descriptors = compiler.encode_file_descriptor_set();
    fs::write(into.join("validate.rs"), validation::generate(&descriptors)).unwrap();
    fs::write(into.join("descriptors.binpb"), descriptors).unwrap();

    tonic_prost_build::configure()
        .out_dir(into)
        .bytes(".weir.event.v1.DeadLetter")
        .bytes(".weir.store.v1.ProjectEvents")
        .bytes(".google.api.HttpBody")
        // Examples in those comments are not Rust.
        .disable_comments([".google.api"])
        .extern_path(".google.rpc", "::tonic_types::pb")
        .compile_fds(compiler.file_descriptor_set())
        .unwrap();
    // Options of the schemas, read through the descriptors only.
    fs::remove_file(into.join("buf.validate.rs")).unwrap();
}

#[test]
fn committed_code_is_what_the_schemas_say() {
    let fresh = tempfile::tempdir().unwrap();
    generate(fresh.path());
    let committed = root().join("proto/src/gen");
    if std::env::var_os(REGENERATE).is_some() {
        fs::remove_dir_all(&committed).unwrap();
        fs::create_dir_all(&committed).unwrap();
        for (name, content) in files(fresh.path()) {
            fs::write(committed.join(name), content).unwrap();
        }
    }
    let (fresh, committed) = (files(fresh.path()), files(&committed));
    assert_eq!(
        fresh.keys().collect::<Vec<_>>(),
        committed.keys().collect::<Vec<_>>(),
        "files differ: run {REGENERATE}=1 cargo test --release -p weir-proto"
    );
    for (name, content) in fresh {
        assert!(
            content == committed[&name],
            "{name} is out of date: run {REGENERATE}=1 cargo test --release -p weir-proto"
        );
    }
}

/// A constraint that nothing enforces must not get into a schema unnoticed.
#[test]
#[should_panic(expected = "weir.odd.v1.PingRequest.text: rule string.prefix")]
fn a_rule_that_the_generator_does_not_know_stops_it() {
    let schema = r#"
        syntax = "proto3";
        package weir.odd.v1;
        import "buf/validate/validate.proto";
        service PingService { rpc Ping(PingRequest) returns (PingResponse); }
        message PingRequest { string text = 1 [(buf.validate.field).string.prefix = "a"]; }
        message PingResponse {}
    "#;
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("odd.proto"), schema).unwrap();
    let mut compiler = protox::Compiler::new([folder.path().to_owned(), root().join("third_party")]).unwrap();
    compiler.include_imports(true).open_file("odd.proto").unwrap();
    validation::generate(&compiler.encode_file_descriptor_set());
}

fn files(folder: &Path) -> BTreeMap<String, Vec<u8>> {
    fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .map(|path| (path.file_name().unwrap().to_str().unwrap().to_owned(), fs::read(path).unwrap()))
        .collect()
}
