//! Weir's own schema: every rule is served.

use prost_reflect::{DescriptorPool, MethodDescriptor};

use crate::fixture::{Services, answer};

pub(crate) fn rpcs() -> Vec<MethodDescriptor> {
    let pool = DescriptorPool::decode(weir_proto::DESCRIPTORS).unwrap();
    let own: Vec<_> = pool.services().filter(|service| service.full_name().starts_with("weir.")).collect();
    own.iter().flat_map(|service| service.methods().collect::<Vec<_>>()).collect()
}

/// Full names of the services.
pub(crate) fn services() -> Vec<String> {
    let mut names: Vec<String> =
        rpcs().iter().map(|rpc| rpc.parent_service().full_name().to_owned()).collect();
    names.dedup();
    names
}

#[tokio::test]
async fn every_rule_has_a_route_and_none_collide() {
    let rpcs = rpcs();
    let names = services();
    let services: Vec<&str> = names.iter().map(String::as_str).collect();
    let limits = weir_runtime::Config::default().server;
    let stub = Services::default();
    let http = weir_transcode::rest(weir_proto::DESCRIPTORS, &services, stub.routes(), &limits).unwrap();
    let http = |_| http;
    let f =
        crate::fixture::Fixture::serve(stub.clone(), stub.routes(), weir_proto::DESCRIPTORS, http, limits)
            .await;
    let (_, index) = answer(f.get("/v1")).await;
    let routed: Vec<&str> =
        index["routes"].as_array().unwrap().iter().map(|route| route["rpc"].as_str().unwrap()).collect();
    let http_rule = rpcs[0].parent_pool().get_extension_by_name("google.api.http").unwrap();
    for rpc in &rpcs {
        let ruled = rpc.options().has_extension(&http_rule);
        assert_eq!(ruled, routed.contains(&rpc.full_name()), "{}", rpc.full_name());
        let both_ways = rpc.is_client_streaming() && rpc.is_server_streaming();
        let internal = rpc.parent_service().full_name() == "weir.store.v1.HotService";
        assert_eq!(
            ruled,
            !both_ways && !internal,
            "{}: every RPC but those that stream both ways and those between services has a rule",
            rpc.full_name()
        );
    }
    // What has no literal match must still come to the table: the answer is the backend's, or about the request.
    for route in index["routes"].as_array().unwrap() {
        let path = route["path"].as_str().unwrap().replace(['{', '}'], "");
        let response = f.request(route["method"].as_str().unwrap(), &path).send().await.unwrap();
        assert!(![404, 405].contains(&response.status().as_u16()), "{route}: {}", response.status());
    }
}
