//! Writes `src/gen/validate.rs`: an `impl Validate` for every message that a request can hold, from its `buf.validate`
//! options. It knows the rules that our schemas use and panics at any other, so that none is silently not enforced.

use std::{collections::BTreeSet, fmt::Write as _};

use prost_reflect::{
    DescriptorPool, DynamicMessage, FieldDescriptor, Kind, MessageDescriptor, OneofDescriptor,
    ReflectMessage as _, Value,
};

/// Types whose checks are written by hand, in `src/validate/well_known.rs`.
const WELL_KNOWN: [&str; 5] = [
    "google.protobuf.Timestamp",
    "google.protobuf.Duration",
    "google.protobuf.Struct",
    "google.protobuf.Value",
    "google.type.Money",
];

pub(crate) fn generate(descriptors: &[u8]) -> String {
    let pool = DescriptorPool::decode(descriptors).unwrap();
    let requests: Vec<_> = pool
        .services()
        .filter(|service| service.package_name().starts_with("weir."))
        .flat_map(|service| service.methods().map(|method| method.input()).collect::<Vec<_>>())
        .collect();
    let mut reachable = BTreeSet::new();
    requests.iter().for_each(|request| reach(request, &mut reachable));

    let mut code = "// This file is @generated from the buf.validate options of the schemas.\n".to_owned();
    code += "use super::{Path, Validate, Violations, rules};\n";
    for name in &reachable {
        let message = pool.get_message_by_name(name).unwrap();
        let checks = checks(&message);
        let (at, found) = if checks.is_empty() { ("_", "_") } else { ("at", "found") };
        writeln!(
            code,
            "\nimpl Validate for {} {{\n    fn check(&self, {at}: &Path<'_>, {found}: &mut Violations) {{\n{checks}    }}\n}}",
            rust_path(&message)
        )
        .unwrap();
    }
    code
}

/// Adds the message and what its fields hold, but for the well-known types.
fn reach(message: &MessageDescriptor, reachable: &mut BTreeSet<String>) {
    if WELL_KNOWN.contains(&message.full_name()) || !reachable.insert(message.full_name().to_owned()) {
        return;
    }
    assert!(options(&message.options(), "message").is_empty(), "{}: rules of messages", message.full_name());
    message
        .fields()
        .filter_map(|field| field.kind().as_message().cloned())
        .for_each(|m| reach(&m, reachable));
}

/// The statements that check one message's fields.
fn checks(message: &MessageDescriptor) -> String {
    let plain = message.fields().filter(|field| field.containing_oneof().is_none());
    let mut checks: String = plain.map(|field| check_field(&field)).collect();
    checks.extend(message.oneofs().map(|oneof| check_oneof(message, &oneof)));
    checks
}

fn check_field(field: &FieldDescriptor) -> String {
    assert!(!field.is_map(), "{}: rules of maps", field.full_name());
    let name = rust_name(field.name());
    let mut conditions = Vec::new();
    let (mut optional_rules, mut skip_empty, mut check_items) = (Vec::new(), false, true);
    for (rule, value) in options(&field.options(), "field") {
        match (rule.as_str(), value) {
            ("required", Value::Bool(true)) if field.supports_presence() => {
                conditions.push(format!("rules::required(self.{name}.is_some(), &at, found);"));
            }
            // buf.validate.Ignore: 1 is IF_ZERO_VALUE.
            ("ignore", Value::EnumNumber(1)) => skip_empty = true,
            ("repeated", Value::Message(rules)) => {
                for (rule, value) in set_fields(&rules) {
                    match (rule.as_str(), value) {
                        ("min_items" | "max_items", Value::U64(bound)) => {
                            conditions
                                .push(format!("rules::{rule}(self.{name}.len(), {bound}, &at, found);"));
                        }
                        ("items", Value::Message(items)) if ignores_all(&items) => check_items = false,
                        (rule, value) => unknown(field, &format!("repeated.{rule}"), &value),
                    }
                }
            }
            ("duration", Value::Message(rules)) => {
                for (rule, value) in set_fields(&rules) {
                    let ("gt" | "gte" | "lt" | "lte", Value::Message(bound)) = (rule.as_str(), &value) else {
                        unknown(field, &format!("duration.{rule}"), &value)
                    };
                    let (seconds, nanos) = (integer(bound, "seconds"), integer(bound, "nanos"));
                    let bound = format!("::prost_types::Duration {{ seconds: {seconds}, nanos: {nanos} }}");
                    let values = format!("rules::span(value), rules::span(&{bound})");
                    optional_rules.push(format!("rules::{rule}({values}, &at, found);"));
                }
            }
            (kind @ ("string" | "uint32" | "uint64" | "double" | "enum"), Value::Message(rules))
                if !field.is_list() && !field.supports_presence() =>
            {
                for (rule, value) in set_fields(&rules) {
                    conditions.push(scalar_rule(field, kind, &rule, &value));
                }
            }
            (rule, value) => unknown(field, rule, &value),
        }
    }
    if field.kind().as_message().is_some() && check_items {
        optional_rules.insert(0, "value.check(&at, found);".to_owned());
    }
    if field.is_list() && !optional_rules.is_empty() {
        let each = optional_rules.join(" ");
        conditions.push(format!(
            "for (index, value) in self.{name}.iter().enumerate() {{ let at = at.index(index); {each} }}"
        ));
    } else if !optional_rules.is_empty() {
        conditions.push(format!("if let Some(value) = &self.{name} {{ {} }}", optional_rules.join(" ")));
    }
    if conditions.is_empty() {
        return String::new();
    }
    let condition = if skip_empty { format!("if !self.{name}.is_empty() ") } else { String::new() };
    let at = format!("let at = at.field(\"{}\");", field.name());
    format!(
        "        {condition}{{\n            {at}\n            {}\n        }}\n",
        conditions.join("\n            ")
    )
}

fn scalar_rule(field: &FieldDescriptor, kind: &str, rule: &str, value: &Value) -> String {
    let name = rust_name(field.name());
    match (kind, rule, value) {
        ("string", "min_len" | "max_bytes", Value::U64(bound)) => {
            format!("rules::{rule}(&self.{name}, {bound}, &at, found);")
        }
        ("string", "not_in", Value::List(refused)) => {
            let refused: Vec<_> =
                refused.iter().map(|text| format!("{:?}", text.as_str().unwrap())).collect();
            format!("rules::not_in(&self.{name}, &[{}], &at, found);", refused.join(", "))
        }
        ("string", "uuid" | "ip", Value::Bool(true)) => format!("rules::{rule}(&self.{name}, &at, found);"),
        // The one pattern that schemas use has a name, as its check is written by hand.
        ("string", "pattern", Value::String(pattern)) if pattern == weir_proto::validate::VISIBLE_ENDS => {
            format!("rules::visible_ends(&self.{name}, &at, found);")
        }
        ("uint64", "lte" | "gte", Value::U64(bound)) => {
            format!("rules::{rule}(self.{name}, {bound}, &at, found);")
        }
        ("uint32", "lte" | "gte", Value::U32(bound)) => {
            format!("rules::{rule}(self.{name}, {bound}, &at, found);")
        }
        ("double", "lte" | "gte", Value::F64(bound)) => {
            format!("rules::{rule}(self.{name}, {bound:?}, &at, found);")
        }
        ("enum", "defined_only", Value::Bool(true)) => {
            let kind = field.kind();
            let of = kind.as_enum().unwrap();
            let path = path(of.package_name(), of.parent_message(), of.name());
            format!("rules::defined_only(self.{name}, {path}::is_valid(self.{name}), &at, found);")
        }
        _ => unknown(field, &format!("{kind}.{rule}"), value),
    }
}

fn check_oneof(message: &MessageDescriptor, oneof: &OneofDescriptor) -> String {
    assert!(!oneof.is_synthetic(), "{}: optional scalars", oneof.full_name());
    let name = rust_name(oneof.name());
    let mut code = String::new();
    for (rule, value) in options(&oneof.options(), "oneof") {
        let ("required", Value::Bool(true)) = (rule.as_str(), &value) else {
            panic!("{}: rule {rule} = {value:?} is not supported", oneof.full_name())
        };
        let set = format!("self.{name}.is_some()");
        writeln!(code, "        rules::required({set}, &at.field(\"{}\"), found);", oneof.name()).unwrap();
    }
    let mut arms = String::new();
    for field in oneof.fields() {
        assert!(options(&field.options(), "field").is_empty(), "{}: rules within a oneof", field.full_name());
        if let Kind::Message(_) = field.kind() {
            let module = path(message.package_name(), message.parent_message(), &snake(message.name()));
            let variant = format!("{module}::{}::{}", camel(oneof.name()), camel(field.name()));
            let check = format!("value.check(&at.field(\"{}\"), found)", field.name());
            writeln!(arms, "            Some({variant}(value)) => {check},").unwrap();
        }
    }
    let scalars = oneof.fields().any(|field| field.kind().as_message().is_none());
    let rest = if scalars { "_" } else { "None" };
    if !arms.is_empty() {
        write!(code, "        match &self.{name} {{\n{arms}            {rest} => {{}}\n        }}\n")
            .unwrap();
    }
    code
}

/// What the option `buf.validate.<target>` sets.
fn options(options: &DynamicMessage, target: &str) -> Vec<(String, Value)> {
    let pool = options.descriptor().parent_pool().clone();
    let extension = pool.get_extension_by_name(&format!("buf.validate.{target}")).unwrap();
    if !options.has_extension(&extension) {
        return Vec::new();
    }
    set_fields(options.get_extension(&extension).as_message().unwrap())
}

fn set_fields(message: &DynamicMessage) -> Vec<(String, Value)> {
    assert_eq!(message.unknown_fields().count(), 0, "rules that validate.proto does not have");
    message.fields().map(|(field, value)| (field.name().to_owned(), value.clone())).collect()
}

/// Whether the only rule is `ignore: IGNORE_ALWAYS`, number 3.
fn ignores_all(rules: &DynamicMessage) -> bool {
    matches!(set_fields(rules).as_slice(), [(rule, Value::EnumNumber(3))] if rule == "ignore")
}

fn integer(message: &DynamicMessage, field: &str) -> i64 {
    let value = message.get_field_by_name(field).unwrap();
    value.as_i64().or(value.as_i32().map(i64::from)).unwrap()
}

fn unknown(field: &FieldDescriptor, rule: &str, value: &Value) -> ! {
    panic!("{}: rule {rule} = {value:?} is not supported here; teach it to this generator", field.full_name())
}

fn rust_path(message: &MessageDescriptor) -> String {
    path(message.package_name(), message.parent_message(), message.name())
}

/// As prost names types: packages are modules, and so is a message that has types nested in it.
fn path(package: &str, parent: Option<MessageDescriptor>, name: &str) -> String {
    match parent {
        Some(parent) => {
            format!("{}::{name}", path(package, parent.parent_message(), &snake(parent.name())))
        }
        None => format!("crate::{}::{name}", package.replace('.', "::")),
    }
}

fn rust_name(field: &str) -> String {
    if matches!(field, "type" | "match" | "in" | "ref" | "as") {
        format!("r#{field}")
    } else {
        field.to_owned()
    }
}

fn snake(camel: &str) -> String {
    let mut snake = String::new();
    for (index, letter) in camel.char_indices() {
        if letter.is_ascii_uppercase() && index > 0 {
            snake.push('_');
        }
        snake.push(letter.to_ascii_lowercase());
    }
    snake
}

fn camel(snake: &str) -> String {
    snake.split('_').map(|word| word[..1].to_ascii_uppercase() + &word[1..]).collect()
}
