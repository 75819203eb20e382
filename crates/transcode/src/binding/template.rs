//! Path templates of `google.api.http`: parsed once, matched against raw request paths.
//!
//! The grammar is the one in the comments of
//! <https://github.com/googleapis/googleapis/blob/master/google/api/http.proto>:
//! ```text
//! Template = "/" Segments [ ":" LITERAL ] ;     Segment  = "*" | "**" | LITERAL | Variable ;
//! Segments = Segment { "/" Segment } ;          Variable = "{" FieldPath [ "=" Segments ] "}" ;
//! ```

use std::sync::Arc;

use percent_encoding::percent_decode_str;

/// A parsed template.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Template {
    text: Arc<str>,
    segments: Vec<Segment>,
    verb: Option<String>,
    variables: Vec<Variable>,
}

/// One part of the path between slashes. Ordered by how specific it is, the most specific first.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum Segment {
    /// This text.
    Literal(String),
    /// Any one part.
    One,
    /// Any number of parts, none included. Always the last.
    Rest,
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Variable {
    field: String,
    /// The segments it covers.
    segments: std::ops::Range<usize>,
}

impl Template {
    /// # Errors
    /// What is wrong, in words.
    pub(crate) fn parse(text: &str) -> Result<Self, String> {
        let mut template =
            Self { text: text.into(), segments: Vec::new(), verb: None, variables: Vec::new() };
        let wrong = |what: &str| format!("path template {text:?} {what}");
        let mut rest = text.strip_prefix('/').ok_or_else(|| wrong("does not begin with /"))?;
        loop {
            let tail = if let Some(inner) = rest.strip_prefix('{') {
                let (variable, tail) = inner.split_once('}').ok_or_else(|| wrong("has a { without }"))?;
                let (field, pattern) = variable.split_once('=').unwrap_or((variable, "*"));
                if field.is_empty() || !field.bytes().all(|b| b.is_ascii_alphanumeric() || b"._".contains(&b))
                {
                    return Err(wrong(&format!("has a variable {field:?} that is no field path")));
                }
                if template.variables.iter().any(|known| known.field == field) {
                    return Err(wrong(&format!("has the variable {field:?} twice")));
                }
                let start = template.segments.len();
                for part in pattern.split('/') {
                    template.push(part).map_err(|what| wrong(&what))?;
                }
                let segments = start..template.segments.len();
                template.variables.push(Variable { field: field.to_owned(), segments });
                tail
            } else {
                let end = rest.find(['/', ':']).unwrap_or(rest.len());
                template.push(&rest[..end]).map_err(|what| wrong(&what))?;
                &rest[end..]
            };
            match tail.split_at_checked(1) {
                None => return Ok(template),
                Some(("/", next)) => rest = next,
                Some((":", verb)) if !verb.is_empty() && !verb.contains(['/', ':', '{', '}', '*']) => {
                    template.verb = Some(verb.to_owned());
                    return Ok(template);
                }
                Some(_) => return Err(wrong(&format!("cannot be read from {tail:?} on"))),
            }
        }
    }

    fn push(&mut self, part: &str) -> Result<(), String> {
        if self.segments.last() == Some(&Segment::Rest) {
            return Err("has something after **".to_owned());
        }
        self.segments.push(match part {
            "*" => Segment::One,
            "**" => Segment::Rest,
            "" => return Err("has an empty segment".to_owned()),
            _ if part.contains(['*', '{', '}']) => return Err(format!("has the segment {part:?}")),
            literal => Segment::Literal(literal.to_owned()),
        });
        Ok(())
    }

    /// The fields that the path gives, in order.
    pub(crate) fn fields(&self) -> impl Iterator<Item = &str> {
        self.variables.iter().map(|variable| variable.field.as_str())
    }

    /// What decides which of two templates that both match is meant: the smaller. Equal shapes match the same paths.
    pub(crate) fn shape(&self) -> (std::cmp::Reverse<Option<&str>>, &[Segment]) {
        (std::cmp::Reverse(self.verb.as_deref()), &self.segments)
    }

    /// As written.
    pub(crate) fn text(&self) -> &Arc<str> {
        &self.text
    }

    /// The literal that every matching path begins with, if there is one.
    pub(crate) fn root(&self) -> Option<&str> {
        match (self.segments.as_slice(), &self.verb) {
            // A lone literal with a verb is one segment to whoever looks at whole segments.
            ([_], Some(_)) => None,
            ([Segment::Literal(text), ..], _) => Some(text),
            _ => None,
        }
    }

    /// The values of [`Template::fields`], percent-decoded, if the path is of this shape. In a value of several segments
    /// `%2F` stays encoded, as the rule's definition asks, so that it differs from a separator.
    ///
    /// A path with a colon matches a template without a verb, too: identifiers may contain colons.
    pub(crate) fn matches(&self, path: &str) -> Option<Vec<String>> {
        let path = path.strip_prefix('/')?;
        let path = match &self.verb {
            Some(verb) => path.strip_suffix(verb.as_str())?.strip_suffix(':')?,
            None => path,
        };
        let parts: Vec<&str> = if path.is_empty() { Vec::new() } else { path.split('/').collect() };
        let fixed = self.segments.iter().take_while(|segment| **segment != Segment::Rest).count();
        let open = fixed < self.segments.len();
        if parts.len() < fixed || (!open && parts.len() > fixed) {
            return None;
        }
        let fits = self.segments[..fixed].iter().zip(&parts).all(|(segment, part)| match segment {
            Segment::Literal(text) => text == part,
            Segment::One => !part.is_empty(),
            Segment::Rest => false,
        });
        if !fits {
            return None;
        }
        let values = self.variables.iter().map(|variable| {
            let end = if open && variable.segments.end == self.segments.len() {
                parts.len()
            } else {
                variable.segments.end
            };
            let covered = &parts[variable.segments.start..end];
            let single = self.segments[variable.segments.clone()] == [Segment::One];
            if single { decode(covered[0]) } else { decode_path(&covered.join("/")) }
        });
        values.collect()
    }
}

fn decode(text: &str) -> Option<String> {
    percent_decode_str(text).decode_utf8().ok().map(Into::into)
}

fn decode_path(text: &str) -> Option<String> {
    let pieces = text.split("%2F").flat_map(|piece| piece.split("%2f")).map(decode);
    Some(pieces.collect::<Option<Vec<_>>>()?.join("%2F"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn values(template: &str, path: &str) -> Option<Vec<String>> {
        Template::parse(template).unwrap().matches(path)
    }

    fn some(values: &[&str]) -> Option<Vec<String>> {
        Some(values.iter().map(|v| (*v).to_owned()).collect())
    }

    #[test]
    fn literals_variables_and_verbs_match() {
        assert_eq!(values("/v1/events", "/v1/events"), some(&[]));
        assert_eq!(values("/v1/events", "/v1/events/"), None);
        assert_eq!(values("/v1/events:batch", "/v1/events:batch"), some(&[]));
        assert_eq!(values("/v1/events:batch", "/v1/events"), None);
        assert_eq!(values("/v1/users/{user_id}", "/v1/users/u-1"), some(&["u-1"]));
        assert_eq!(values("/v1/users/{user_id}", "/v1/users/"), None);
        assert_eq!(values("/v1/users/{user_id}/events", "/v1/users/a/events"), some(&["a"]));
        assert_eq!(values("/v1/users/{user_id}:erase", "/v1/users/a:erase"), some(&["a"]));
        assert_eq!(values("/v1/users/{user_id}:erase", "/v1/users/a"), None);
        assert_eq!(values("/v1/users/{user_id}", "/v1/users/a:b"), some(&["a:b"]));
    }

    #[test]
    fn variables_of_several_segments_match() {
        assert_eq!(values("/v1/{name=projects/*}/keys", "/v1/projects/p/keys"), some(&["projects/p"]));
        assert_eq!(values("/v1/{name=projects/*}", "/v1/users/p"), None);
        assert_eq!(values("/v1/{name=a/*/b/**}:go", "/v1/a/x/b/c/d:go"), some(&["a/x/b/c/d"]));
        assert_eq!(values("/v1/{name=a/**}", "/v1/a"), some(&["a"]));
        assert_eq!(values("/v1/{a.b}/{c}", "/v1/x/y"), some(&["x", "y"]));
    }

    #[test]
    fn values_are_percent_decoded() {
        assert_eq!(values("/v1/users/{id}", "/v1/users/a%2Fb%20%C3%A9"), some(&["a/b é"]));
        assert_eq!(values("/v1/{name=**}", "/v1/a%2fb/c%20d"), some(&["a%2Fb/c d"]));
        assert_eq!(values("/v1/users/{id}", "/v1/users/%FF"), None);
    }

    #[test]
    fn specific_shapes_come_first() {
        let mut templates: Vec<_> =
            ["/v1/{a=**}", "/v1/{a}", "/v1/x", "/v1/{a}:go"].map(|t| Template::parse(t).unwrap()).into();
        templates.sort_by(|a, b| a.shape().cmp(&b.shape()));
        let order: Vec<_> = templates.iter().map(|t| &**t.text()).collect();
        assert_eq!(order, ["/v1/{a}:go", "/v1/x", "/v1/{a}", "/v1/{a=**}"]);
    }

    #[test]
    fn nonsense_is_refused() {
        for text in [
            "",
            "v1",
            "/",
            "/v1//x",
            "/v1/{",
            "/v1/{a",
            "/v1/{}",
            "/v1/{a b}",
            "/v1/**/x",
            "/v1/a*",
            "/v1/x:",
            "/{a}/{a}",
            "/v1/{a}b",
        ] {
            assert!(Template::parse(text).is_err(), "{text:?} was accepted");
        }
    }
}
