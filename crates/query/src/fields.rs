//! Names of fields in questions, and the texts by which rollups and filters know values.

use weir_proto::validate::{Path, Violations};
use weir_rollup::field::Field;

/// Reads a field's name.
///
/// # Errors
/// What is wrong with it, in words that follow the path of the request's field.
pub fn parse(name: &str) -> Result<Field, String> {
    Field::parse(name).map_err(|error| match error {
        weir_rollup::Error::Field { problem, .. } => format!("must be a field of an event: {problem}"),
        other => other.to_string(),
    })
}

/// How much alike (Jaro-Winkler, 0 to 1) names must be to be suggested: enough for a slip of the finger.
const ALIKE: f64 = 0.8;

/// The known names that are most like `name`, best first, at most three.
pub fn nearest(name: &str, known: impl Iterator<Item = impl ToString>) -> Vec<String> {
    let mut scored: Vec<(f64, String)> = known
        .map(|known| {
            let known = known.to_string();
            (strsim::jaro_winkler(short(name), short(&known)), known)
        })
        .filter(|(score, _)| *score >= ALIKE)
        .collect();
    scored.sort_by(|a, b| b.0.total_cmp(&a.0).then_with(|| a.1.cmp(&b.1)));
    scored.into_iter().take(3).map(|(_, known)| known).collect()
}

fn short(name: &str) -> &str {
    name.strip_prefix("properties.").unwrap_or(name)
}

/// Reads a list of fields without repetitions.
pub fn parse_all(names: &[String], at: &Path<'_>, found: &mut Violations) -> Vec<Field> {
    let mut fields = Vec::with_capacity(names.len());
    for (index, name) in names.iter().enumerate() {
        match parse(name) {
            Ok(field) if fields.contains(&field) => found.add(&at.index(index), "must not be listed twice"),
            Ok(field) => fields.push(field),
            Err(problem) => found.add(&at.index(index), problem),
        }
    }
    fields
}
