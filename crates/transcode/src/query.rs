//! Query parameters into a message: `?page_size=10&filter.name=x&event_names=a&event_names=b`.

use prost_reflect::{DynamicMessage, Value};
use tonic::Status;
use weir_runtime::status::invalid_argument;

use crate::{
    binding::rule::{Binding, FieldPath, RequestBody, is_repeated},
    message::{json::nearest, scalar},
};

/// Names joined in one parameter at most; deeper ones no schema has.
const MAX_DEPTH: usize = 16;

/// Sets the fields that the path's variables give.
///
/// # Errors
/// `INVALID_ARGUMENT` naming the field.
pub(crate) fn apply_variables(
    message: &mut DynamicMessage,
    binding: &Binding,
    values: &[String],
) -> Result<(), Status> {
    for (path, text) in binding.variables.iter().zip(values) {
        let value = scalar::parse(&path.field().kind(), text)
            .map_err(|what| invalid_argument([(path.name(), what)]))?;
        path.holder(message).set_field(path.field(), value);
    }
    Ok(())
}

/// Sets the fields that the query gives. Every wrong parameter is named at once.
///
/// # Errors
/// `INVALID_ARGUMENT` naming the parameters.
pub(crate) fn apply_query(
    message: &mut DynamicMessage,
    binding: &Binding,
    query: &str,
) -> Result<(), Status> {
    let mut violations = Vec::new();
    for (name, text) in form_urlencoded::parse(query.as_bytes()) {
        if let Err(what) = apply(message, binding, &name, &text) {
            violations.push((name.into_owned(), what));
        }
    }
    if violations.is_empty() { Ok(()) } else { Err(invalid_argument(violations)) }
}

fn apply(message: &mut DynamicMessage, binding: &Binding, name: &str, text: &str) -> Result<(), String> {
    if name.split('.').count() > MAX_DEPTH {
        return Err(format!("more than {MAX_DEPTH} names"));
    }
    let path = FieldPath::resolve(&binding.rpc.input, name).map_err(|(within, unknown)| {
        match nearest(&within, unknown) {
            Some(known) => format!("unknown parameter {unknown:?}; did you mean {known:?}?"),
            None => format!("unknown parameter {unknown:?}"),
        }
    })?;
    match &binding.body {
        RequestBody::None => {}
        RequestBody::Message => return Err("belongs into the body of this request".to_owned()),
        RequestBody::Field(field) if field == path.root() => {
            return Err("belongs into the body of this request".to_owned());
        }
        RequestBody::Field(_) => {}
    }
    if binding.variables.contains(&path) {
        return Err("is given by the path already".to_owned());
    }
    let field = path.field();
    if field.is_map() {
        return Err("a map has no form as a query parameter".to_owned());
    }
    let value = scalar::parse(&field.kind(), text)?;
    let holder = path.holder(message);
    if is_repeated(field) {
        match holder.get_field_mut(field) {
            Value::List(values) => values.push(value),
            other => unreachable!("a repeated field holds a list, not {other:?}"),
        }
        return Ok(());
    }
    if holder.has_field(field) {
        return Err("is given twice".to_owned());
    }
    if let Some(oneof) = field.containing_oneof()
        && let Some(other) = oneof.fields().find(|other| holder.has_field(other))
    {
        return Err(format!("excludes {:?}, which is given as well", other.name()));
    }
    holder.set_field(field, value);
    Ok(())
}
