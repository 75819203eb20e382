//! The HTTP bindings of a service's RPCs, read from the `google.api.http` options in its descriptors and checked, so that
//! whatever is served later cannot contradict the schema.

use std::sync::Arc;

use http::{Method, uri::PathAndQuery};
use prost_reflect::{
    Cardinality, DescriptorPool, DynamicMessage, FieldDescriptor, Kind, MessageDescriptor, MethodDescriptor,
    ServiceDescriptor, Value,
};

use super::{file, template::Template};
use crate::Error;

/// An RPC that has an HTTP form.
#[derive(Debug)]
pub(crate) struct Rpc {
    /// `weir.ingest.v1.IngestService.IngestEvent`.
    pub(crate) name: String,
    /// Where gRPC finds it.
    pub(crate) path: PathAndQuery,
    pub(crate) input: MessageDescriptor,
    pub(crate) output: MessageDescriptor,
    pub(crate) shape: Shape,
}

/// How messages flow.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Shape {
    Unary,
    ServerStream,
    ClientStream,
}

/// One way to call an RPC over HTTP.
#[derive(Debug)]
pub(crate) struct Binding {
    pub(crate) rpc: Arc<Rpc>,
    pub(crate) method: Method,
    pub(crate) template: Template,
    /// The fields that the template's variables set, in its order.
    pub(crate) variables: Vec<FieldPath>,
    pub(crate) body: RequestBody,
    /// The field of the answer that is its body; all of it when absent.
    pub(crate) response_body: Option<FieldDescriptor>,
    /// Where the answer's file is, when it is one.
    pub(crate) file: Option<file::Place>,
}

/// What the request's body holds.
#[derive(Debug, Clone)]
pub(crate) enum RequestBody {
    /// Nothing; what the path does not give comes from the query.
    None,
    /// All fields that the path does not give.
    Message,
    /// This field; the rest comes from the query.
    Field(FieldDescriptor),
}

/// A way from a message down to one field; never empty.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct FieldPath(Vec<FieldDescriptor>);

impl FieldPath {
    /// Follows names (of the schema, or in their JSON form) joined by dots.
    ///
    /// # Errors
    /// The message that lacks a field, and the name that it lacks.
    pub(crate) fn resolve<'a>(
        message: &MessageDescriptor,
        path: &'a str,
    ) -> Result<Self, (MessageDescriptor, &'a str)> {
        let mut fields: Vec<FieldDescriptor> = Vec::new();
        for name in path.split('.') {
            let within = match fields.last() {
                None => message.clone(),
                Some(parent) => match parent.kind() {
                    Kind::Message(inner) if !parent.is_list() && !parent.is_map() => inner,
                    _ => return Err((parent.parent_message().clone(), name)),
                },
            };
            let field = within.get_field_by_name(name).or_else(|| within.get_field_by_json_name(name));
            fields.push(field.ok_or((within, name))?);
        }
        Ok(Self(fields))
    }

    /// The field that it leads to.
    pub(crate) fn field(&self) -> &FieldDescriptor {
        self.0.last().expect("a path has at least one name")
    }

    /// The field of the outermost message.
    pub(crate) fn root(&self) -> &FieldDescriptor {
        self.0.first().expect("a path has at least one name")
    }

    /// The message that holds [`FieldPath::field`], made where it does not exist yet.
    pub(crate) fn holder<'m>(&self, message: &'m mut DynamicMessage) -> &'m mut DynamicMessage {
        self.0[..self.0.len() - 1].iter().fold(message, |message, field| {
            if !message.has_field(field) {
                message.set_field(field, Value::default_value_for_field(field));
            }
            match message.get_field_mut(field) {
                Value::Message(inner) => inner,
                other => unreachable!("resolve() goes only through messages, not {other:?}"),
            }
        })
    }

    /// Names joined by dots, as in the schema.
    pub(crate) fn name(&self) -> String {
        self.0.iter().map(FieldDescriptor::name).collect::<Vec<_>>().join(".")
    }
}

/// All bindings of a service.
///
/// # Errors
/// [`Error::Rule`] for the first that is wrong.
pub(crate) fn bindings(service: &ServiceDescriptor) -> Result<Vec<Binding>, Error> {
    let mut bindings = Vec::new();
    for method in service.methods() {
        let wrong = |reason: String| Error::Rule { rpc: method.full_name().to_owned(), reason };
        let Some(rule) = rule_of(&method) else { continue };
        let shape = match (method.is_client_streaming(), method.is_server_streaming()) {
            (false, false) => Shape::Unary,
            (false, true) => Shape::ServerStream,
            (true, false) => Shape::ClientStream,
            (true, true) => return Err(wrong("a stream in both directions has no HTTP form".to_owned())),
        };
        let path = format!("/{}/{}", service.full_name(), method.name());
        let rpc = Arc::new(Rpc {
            name: method.full_name().to_owned(),
            path: path.parse().map_err(|error| wrong(format!("{path} is no path: {error}")))?,
            input: method.input(),
            output: method.output(),
            shape,
        });
        bindings.push(binding(&rpc, &rule).map_err(wrong)?);
        let additional = rule.get_field_by_name("additional_bindings");
        for rule in
            additional.iter().filter_map(|rules| rules.as_list()).flatten().filter_map(Value::as_message)
        {
            bindings.push(binding(&rpc, rule).map_err(wrong)?);
        }
    }
    Ok(bindings)
}

fn rule_of(method: &MethodDescriptor) -> Option<DynamicMessage> {
    let pool: &DescriptorPool = method.parent_pool();
    let extension = pool.get_extension_by_name("google.api.http")?;
    let options = method.options();
    options
        .has_extension(&extension)
        .then(|| options.get_extension(&extension).as_message().cloned())
        .flatten()
}

fn binding(rpc: &Arc<Rpc>, rule: &DynamicMessage) -> Result<Binding, String> {
    let (method, template) = pattern(rule)?;
    let template = Template::parse(&template)?;
    if template.root().is_none() {
        return Err(format!("path template {:?} does not begin with a literal segment", template.text()));
    }
    let variables = template.fields().map(|name| {
        let path = FieldPath::resolve(&rpc.input, name)
            .map_err(|(within, name)| format!("{} has no field {name:?}", within.full_name()))?;
        let field = path.field();
        let scalar = !field.is_list() && !field.is_map() && !matches!(field.kind(), Kind::Message(_));
        scalar.then_some(path).ok_or_else(|| format!("path variable {name:?} is not a single scalar"))
    });
    let variables = variables.collect::<Result<Vec<_>, _>>()?;
    let named = |key: &str, message: &MessageDescriptor| {
        let name = text(rule, key);
        match name.as_str() {
            "" | "*" => Ok((name, None)),
            name => match message.get_field_by_name(name) {
                Some(field) => Ok((name.to_owned(), Some(field))),
                None => Err(format!("{key} names {name:?}, which {} does not have", message.full_name())),
            },
        }
    };
    let body = match named("body", &rpc.input)? {
        (_, Some(field)) => RequestBody::Field(field),
        (name, None) if name == "*" => RequestBody::Message,
        _ => RequestBody::None,
    };
    if rpc.shape == Shape::ClientStream && matches!(body, RequestBody::None) {
        return Err("a client stream needs a body".to_owned());
    }
    if rpc.shape == Shape::ClientStream && !variables.is_empty() {
        return Err("a client stream cannot have path variables".to_owned());
    }
    let (_, response_body) = named("response_body", &rpc.output)?;
    let file = file::place(&rpc.output, response_body.as_ref());
    if file.is_some() && rpc.shape != Shape::ServerStream {
        return Err("a google.api.HttpBody is served only as a stream".to_owned());
    }
    Ok(Binding { rpc: rpc.clone(), method, template, variables, body, response_body, file })
}

fn pattern(rule: &DynamicMessage) -> Result<(Method, String), String> {
    for (key, method) in [
        ("get", Method::GET),
        ("put", Method::PUT),
        ("post", Method::POST),
        ("delete", Method::DELETE),
        ("patch", Method::PATCH),
    ] {
        if rule.has_field_by_name(key) {
            return Ok((method, text(rule, key)));
        }
    }
    if !rule.has_field_by_name("custom") {
        return Err("it has no pattern".to_owned());
    }
    let custom = rule.get_field_by_name("custom");
    let custom = custom.as_ref().and_then(|custom| custom.as_message()).ok_or("custom is no message")?;
    let method = text(custom, "kind");
    let method = method.parse().map_err(|_| format!("{method:?} is no HTTP method"))?;
    Ok((method, text(custom, "path")))
}

fn text(message: &DynamicMessage, field: &str) -> String {
    message.get_field_by_name(field).and_then(|value| value.as_str().map(str::to_owned)).unwrap_or_default()
}

/// Whether several values may be given.
pub(crate) fn is_repeated(field: &FieldDescriptor) -> bool {
    field.cardinality() == Cardinality::Repeated && !field.is_map()
}
