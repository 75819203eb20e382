//! Steps and other events that questions name: `NAME`, `NAME|NAME`, `*`, each with ` where ` and tests.
//!
//! ```text
//! purchase        purchase|refund        purchase where price > 100 and platform = ios        * where page ~ ^/shop
//! ```

use weir_proto::analytics::v1::{EventSelector, Filter, FunnelExclusion, FunnelStep};

use super::filter;

/// Before the tests.
const WHERE: &str = " where ";
/// Stands for events of any name.
const ANY: &str = "*";

/// Parses which events are meant.
pub(crate) fn parse(text: &str) -> Result<EventSelector, String> {
    let (names, tests) = match text.split_once(WHERE) {
        Some((names, tests)) => (names, Some(tests)),
        None => (text, None),
    };
    let event_names = match names.trim() {
        ANY => Vec::new(),
        names => names.split('|').map(|name| name.trim().to_owned()).collect(),
    };
    if event_names.iter().any(String::is_empty) {
        return Err(format!(
            "`{text}`: expected EVENT, EVENT|EVENT or * for any, and optionally tests: 'purchase where price > 100'"
        ));
    }
    Ok(EventSelector { event_names, filter: tests.map(filter::parse_all).transpose()? })
}

/// Parses a step of a funnel: `[LABEL:] EVENTS`.
pub(crate) fn step(text: &str) -> Result<FunnelStep, String> {
    let before_tests = text.find(WHERE).unwrap_or(text.len());
    let (label, events) = match text[..before_tests].find(": ") {
        Some(end) => (text[..end].trim(), &text[end + 2..]),
        None => ("", text),
    };
    let EventSelector { event_names, filter } = parse(events)?;
    Ok(FunnelStep { event_names, filter, label: label.to_owned() })
}

/// Parses an exclusion: `[FROM-TO: ] EVENTS`, steps by number.
pub(crate) fn exclusion(text: &str) -> Result<FunnelExclusion, String> {
    let between = text.split_once(": ").and_then(|(steps, events)| {
        let (from, to) = steps.trim().split_once('-')?;
        Some((from.parse().ok()?, to.parse().ok()?, events))
    });
    let (after_step, before_step, events) = between.unwrap_or((0, 0, text));
    if before_step != 0 && before_step <= after_step {
        return Err(format!("`{text}`: step {before_step} does not come after step {after_step}"));
    }
    let EventSelector { event_names, filter } = parse(events)?;
    Ok(FunnelExclusion { event_names, filter, after_step, before_step })
}

/// Those of the events that also pass all of the filters.
pub(crate) fn narrowed(selector: Option<EventSelector>, filters: &[Filter]) -> Option<EventSelector> {
    if filters.is_empty() {
        return selector;
    }
    let selector = selector.unwrap_or_default();
    let filters = selector.filter.into_iter().chain(filters.iter().cloned()).collect();
    Some(EventSelector { filter: filter::all_of(filters), ..selector })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn show(names: &[String], filter: &Option<Filter>) -> String {
        format!("{} {}", names.join("|"), filter.as_ref().map(filter::text).unwrap_or_default())
    }

    #[test]
    fn events_have_names_and_tests() {
        for (text, expected) in [
            ("purchase", "purchase "),
            ("purchase|refund", "purchase|refund "),
            ("* where page ~ ^/shop", " page~^/shop"),
            ("purchase where price > 100 and platform=ios", "purchase price>100 and platform=ios"),
        ] {
            let selector = parse(text).unwrap();
            assert_eq!(show(&selector.event_names, &selector.filter), expected);
        }
        for text in ["", "a||b", "purchase where price"] {
            assert!(parse(text).is_err(), "{text}");
        }
    }

    #[test]
    fn steps_may_have_labels() {
        let labelled = step("Paid a lot: purchase where title = a: b").unwrap();
        assert_eq!(
            (labelled.label.as_str(), labelled.event_names.as_slice()),
            ("Paid a lot", &["purchase".to_owned()][..])
        );
        assert_eq!(labelled.filter.as_ref().map(filter::text).as_deref(), Some("title=a: b"));
        assert_eq!(step("cart").unwrap().label, "");
        assert_eq!(step("ns:cart").unwrap().event_names, ["ns:cart"]);
    }

    #[test]
    fn exclusions_may_say_between_which_steps() {
        let within = exclusion("2-3: error_page").unwrap();
        assert_eq!((within.after_step, within.before_step, within.event_names.len()), (2, 3, 1));
        let anywhere = exclusion("error_page where code = 500").unwrap();
        assert_eq!((anywhere.after_step, anywhere.before_step), (0, 0));
        assert!(exclusion("3-2: error_page").unwrap_err().contains("after"));
    }

    #[test]
    fn filters_narrow_what_is_meant() {
        let filters = [filter::parse("plan=pro").unwrap()];
        assert_eq!(narrowed(None, &[]), None);
        let any = narrowed(None, &filters).unwrap();
        assert_eq!(show(&any.event_names, &any.filter), " plan=pro");
        let both = narrowed(Some(parse("a where b=c").unwrap()), &filters).unwrap();
        assert_eq!(show(&both.event_names, &both.filter), "a b=c and plan=pro");
    }
}
