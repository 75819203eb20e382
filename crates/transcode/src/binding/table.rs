//! Which binding a request means.

use std::collections::BTreeSet;

use http::Method;

use super::rule::Binding;
use crate::Error;

/// The bindings, the most specific template first.
#[derive(Debug)]
pub(crate) struct Table {
    bindings: Vec<Binding>,
}

/// What a method and a path mean.
#[derive(Debug)]
pub(crate) enum Found<'a> {
    /// This binding, with the values of its path variables.
    Binding(&'a Binding, Vec<String>),
    /// The path exists, with these other methods.
    OtherMethods(Vec<&'a Method>),
    /// No such path.
    Nothing,
}

impl Table {
    /// # Errors
    /// [`Error::Collision`] if one request could mean two bindings and neither is more specific.
    pub(crate) fn new(mut bindings: Vec<Binding>) -> Result<Self, Error> {
        bindings.sort_by(|a, b| a.template.shape().cmp(&b.template.shape()));
        // Equal shapes are neighbours now, but those of different methods may lie between two that collide.
        for (index, second) in bindings.iter().enumerate() {
            let same_shape =
                bindings[..index].iter().rev().take_while(|b| b.template.shape() == second.template.shape());
            if let Some(first) = { same_shape }.find(|first| first.method == second.method) {
                return Err(Error::Collision {
                    first: first.rpc.name.clone(),
                    second: second.rpc.name.clone(),
                    method: second.method.clone(),
                    template: second.template.text().to_string(),
                });
            }
        }
        Ok(Self { bindings })
    }

    /// The first segments of all paths.
    pub(crate) fn roots(&self) -> BTreeSet<&str> {
        self.bindings.iter().filter_map(|binding| binding.template.root()).collect()
    }

    /// All bindings, the most specific first.
    pub(crate) fn bindings(&self) -> &[Binding] {
        &self.bindings
    }

    /// Finds the binding. `HEAD` means what `GET` does: the server leaves the body out.
    pub(crate) fn find(&self, method: &Method, path: &str) -> Found<'_> {
        let method = if method == Method::HEAD { &Method::GET } else { method };
        let mut others = Vec::new();
        for binding in &self.bindings {
            if let Some(values) = binding.template.matches(path) {
                if binding.method == *method {
                    return Found::Binding(binding, values);
                }
                others.push(&binding.method);
            }
        }
        if others.is_empty() { Found::Nothing } else { Found::OtherMethods(others) }
    }
}
