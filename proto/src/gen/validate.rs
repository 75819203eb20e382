// This file is @generated from the buf.validate options of the schemas.
use super::{Path, Validate, Violations, rules};

impl Validate for crate::weir::analytics::v1::Condition {
    fn check(&self, at: &Path<'_>, found: &mut Violations) {
        {
            let at = at.field("field");
            rules::min_len(&self.field, 1, &at, found);
            rules::max_bytes(&self.field, 400, &at, found);
        }
        {
            let at = at.field("operator");
            rules::defined_only(self.operator, crate::weir::analytics::v1::condition::Operator::is_valid(self.operator), &at, found);
        }
        {
            let at = at.field("values");
            rules::max_items(self.values.len(), 1000, &at, found);
            for (index, value) in self.values.iter().enumerate() { let at = at.index(index); value.check(&at, found); }
        }
    }
}

impl Validate for crate::weir::analytics::v1::EventSelector {
    fn check(&self, at: &Path<'_>, found: &mut Violations) {
        {
            let at = at.field("event_names");
            rules::max_items(self.event_names.len(), 100, &at, found);
        }
        {
            let at = at.field("filter");
            if let Some(value) = &self.filter { value.check(&at, found); }
        }
    }
}

impl Validate for crate::weir::analytics::v1::ExportEventsRequest {
    fn check(&self, at: &Path<'_>, found: &mut Violations) {
        {
            let at = at.field("format");
            rules::defined_only(self.format, crate::weir::analytics::v1::export_events_request::Format::is_valid(self.format), &at, found);
        }
        {
            let at = at.field("time_range");
            if let Some(value) = &self.time_range { value.check(&at, found); }
        }
        {
            let at = at.field("event_names");
            rules::max_items(self.event_names.len(), 100, &at, found);
        }
        {
            let at = at.field("filter");
            if let Some(value) = &self.filter { value.check(&at, found); }
        }
        {
            let at = at.field("fields");
            rules::max_items(self.fields.len(), 500, &at, found);
        }
        {
            let at = at.field("min_consistency_token");
            rules::max_bytes(&self.min_consistency_token, 4096, &at, found);
        }
    }
}

impl Validate for crate::weir::analytics::v1::Filter {
    fn check(&self, at: &Path<'_>, found: &mut Violations) {
        match &self.expression {
            Some(crate::weir::analytics::v1::filter::Expression::Condition(value)) => value.check(&at.field("condition"), found),
            Some(crate::weir::analytics::v1::filter::Expression::AllOf(value)) => value.check(&at.field("all_of"), found),
            Some(crate::weir::analytics::v1::filter::Expression::AnyOf(value)) => value.check(&at.field("any_of"), found),
            Some(crate::weir::analytics::v1::filter::Expression::Not(value)) => value.check(&at.field("not"), found),
            None => {}
        }
    }
}

impl Validate for crate::weir::analytics::v1::FilterList {
    fn check(&self, at: &Path<'_>, found: &mut Violations) {
        {
            let at = at.field("filters");
            rules::min_items(self.filters.len(), 1, &at, found);
            rules::max_items(self.filters.len(), 100, &at, found);
            for (index, value) in self.filters.iter().enumerate() { let at = at.index(index); value.check(&at, found); }
        }
    }
}

impl Validate for crate::weir::analytics::v1::Formula {
    fn check(&self, at: &Path<'_>, found: &mut Violations) {
        {
            let at = at.field("name");
            rules::min_len(&self.name, 1, &at, found);
            rules::max_bytes(&self.name, 200, &at, found);
        }
        {
            let at = at.field("expression");
            rules::min_len(&self.expression, 1, &at, found);
            rules::max_bytes(&self.expression, 200, &at, found);
        }
    }
}

impl Validate for crate::weir::analytics::v1::FunnelExclusion {
    fn check(&self, at: &Path<'_>, found: &mut Violations) {
        {
            let at = at.field("event_names");
            rules::max_items(self.event_names.len(), 100, &at, found);
        }
        {
            let at = at.field("filter");
            if let Some(value) = &self.filter { value.check(&at, found); }
        }
        {
            let at = at.field("after_step");
            rules::lte(self.after_step, 20, &at, found);
        }
        {
            let at = at.field("before_step");
            rules::lte(self.before_step, 20, &at, found);
        }
    }
}

impl Validate for crate::weir::analytics::v1::FunnelStep {
    fn check(&self, at: &Path<'_>, found: &mut Violations) {
        {
            let at = at.field("event_names");
            rules::max_items(self.event_names.len(), 100, &at, found);
        }
        {
            let at = at.field("filter");
            if let Some(value) = &self.filter { value.check(&at, found); }
        }
        {
            let at = at.field("label");
            rules::max_bytes(&self.label, 200, &at, found);
        }
    }
}

impl Validate for crate::weir::analytics::v1::GetImportRequest {
    fn check(&self, at: &Path<'_>, found: &mut Violations) {
        {
            let at = at.field("import_id");
            rules::uuid(&self.import_id, &at, found);
        }
        {
            let at = at.field("min_consistency_token");
            rules::max_bytes(&self.min_consistency_token, 4096, &at, found);
        }
    }
}

impl Validate for crate::weir::analytics::v1::GetSummaryRequest {
    fn check(&self, at: &Path<'_>, found: &mut Violations) {
        {
            let at = at.field("time_range");
            if let Some(value) = &self.time_range { value.check(&at, found); }
        }
        {
            let at = at.field("top_events");
            rules::lte(self.top_events, 100, &at, found);
        }
        {
            let at = at.field("min_consistency_token");
            rules::max_bytes(&self.min_consistency_token, 4096, &at, found);
        }
    }
}

impl Validate for crate::weir::analytics::v1::GetUserRequest {
    fn check(&self, at: &Path<'_>, found: &mut Violations) {
        {
            let at = at.field("user_id");
            rules::min_len(&self.user_id, 1, &at, found);
            rules::max_bytes(&self.user_id, 200, &at, found);
        }
        {
            let at = at.field("min_consistency_token");
            rules::max_bytes(&self.min_consistency_token, 4096, &at, found);
        }
    }
}

impl Validate for crate::weir::analytics::v1::ListEventNamesRequest {
    fn check(&self, at: &Path<'_>, found: &mut Violations) {
        {
            let at = at.field("search");
            rules::max_bytes(&self.search, 200, &at, found);
        }
        {
            let at = at.field("time_range");
            if let Some(value) = &self.time_range { value.check(&at, found); }
        }
        {
            let at = at.field("page_size");
            rules::lte(self.page_size, 1000, &at, found);
        }
        {
            let at = at.field("page_token");
            rules::max_bytes(&self.page_token, 4096, &at, found);
        }
    }
}

impl Validate for crate::weir::analytics::v1::ListPropertiesRequest {
    fn check(&self, at: &Path<'_>, found: &mut Violations) {
        {
            let at = at.field("event_names");
            rules::max_items(self.event_names.len(), 100, &at, found);
        }
        {
            let at = at.field("search");
            rules::max_bytes(&self.search, 200, &at, found);
        }
        {
            let at = at.field("time_range");
            if let Some(value) = &self.time_range { value.check(&at, found); }
        }
        {
            let at = at.field("top_values");
            rules::lte(self.top_values, 100, &at, found);
        }
        {
            let at = at.field("page_size");
            rules::lte(self.page_size, 1000, &at, found);
        }
        {
            let at = at.field("page_token");
            rules::max_bytes(&self.page_token, 4096, &at, found);
        }
    }
}

impl Validate for crate::weir::analytics::v1::ListUserEventsRequest {
    fn check(&self, at: &Path<'_>, found: &mut Violations) {
        {
            let at = at.field("user_id");
            rules::min_len(&self.user_id, 1, &at, found);
            rules::max_bytes(&self.user_id, 200, &at, found);
        }
        {
            let at = at.field("page_size");
            rules::lte(self.page_size, 1000, &at, found);
        }
        {
            let at = at.field("page_token");
            rules::max_bytes(&self.page_token, 4096, &at, found);
        }
        {
            let at = at.field("time_range");
            if let Some(value) = &self.time_range { value.check(&at, found); }
        }
        {
            let at = at.field("event_names");
            rules::max_items(self.event_names.len(), 100, &at, found);
        }
        {
            let at = at.field("filter");
            if let Some(value) = &self.filter { value.check(&at, found); }
        }
        {
            let at = at.field("min_consistency_token");
            rules::max_bytes(&self.min_consistency_token, 4096, &at, found);
        }
    }
}

impl Validate for crate::weir::analytics::v1::Measure {
    fn check(&self, at: &Path<'_>, found: &mut Violations) {
        {
            let at = at.field("kind");
            rules::defined_only(self.kind, crate::weir::analytics::v1::measure::Kind::is_valid(self.kind), &at, found);
        }
        {
            let at = at.field("property");
            rules::max_bytes(&self.property, 400, &at, found);
        }
        {
            let at = at.field("quantile");
            rules::lte(self.quantile, 1.0, &at, found);
            rules::gte(self.quantile, 0.0, &at, found);
        }
        {
            let at = at.field("currency");
            rules::max_bytes(&self.currency, 3, &at, found);
        }
        {
            let at = at.field("filter");
            if let Some(value) = &self.filter { value.check(&at, found); }
        }
    }
}

impl Validate for crate::weir::analytics::v1::QueryBreakdownRequest {
    fn check(&self, at: &Path<'_>, found: &mut Violations) {
        {
            let at = at.field("time_range");
            if let Some(value) = &self.time_range { value.check(&at, found); }
        }
        {
            let at = at.field("group_by");
            rules::min_items(self.group_by.len(), 1, &at, found);
            rules::max_items(self.group_by.len(), 5, &at, found);
        }
        {
            let at = at.field("measures");
            rules::max_items(self.measures.len(), 10, &at, found);
            for (index, value) in self.measures.iter().enumerate() { let at = at.index(index); value.check(&at, found); }
        }
        {
            let at = at.field("event_names");
            rules::max_items(self.event_names.len(), 100, &at, found);
        }
        {
            let at = at.field("filter");
            if let Some(value) = &self.filter { value.check(&at, found); }
        }
        {
            let at = at.field("max_rows");
            rules::lte(self.max_rows, 10000, &at, found);
        }
        {
            let at = at.field("min_consistency_token");
            rules::max_bytes(&self.min_consistency_token, 4096, &at, found);
        }
        {
            let at = at.field("formulas");
            rules::max_items(self.formulas.len(), 10, &at, found);
            for (index, value) in self.formulas.iter().enumerate() { let at = at.index(index); value.check(&at, found); }
        }
    }
}

impl Validate for crate::weir::analytics::v1::QueryFunnelRequest {
    fn check(&self, at: &Path<'_>, found: &mut Violations) {
        {
            let at = at.field("time_range");
            if let Some(value) = &self.time_range { value.check(&at, found); }
        }
        {
            let at = at.field("steps");
            rules::min_items(self.steps.len(), 1, &at, found);
            rules::max_items(self.steps.len(), 20, &at, found);
            for (index, value) in self.steps.iter().enumerate() { let at = at.index(index); value.check(&at, found); }
        }
        {
            let at = at.field("window");
            if let Some(value) = &self.window { value.check(&at, found); rules::lte(rules::span(value), rules::span(&::prost_types::Duration { seconds: 31622400, nanos: 0 }), &at, found); rules::gt(rules::span(value), rules::span(&::prost_types::Duration { seconds: 0, nanos: 0 }), &at, found); }
        }
        {
            let at = at.field("order");
            rules::defined_only(self.order, crate::weir::analytics::v1::query_funnel_request::Order::is_valid(self.order), &at, found);
        }
        {
            let at = at.field("exclusions");
            rules::max_items(self.exclusions.len(), 10, &at, found);
            for (index, value) in self.exclusions.iter().enumerate() { let at = at.index(index); value.check(&at, found); }
        }
        {
            let at = at.field("count_by");
            rules::defined_only(self.count_by, crate::weir::analytics::v1::CountBy::is_valid(self.count_by), &at, found);
        }
        {
            let at = at.field("filter");
            if let Some(value) = &self.filter { value.check(&at, found); }
        }
        {
            let at = at.field("group_by");
            rules::max_items(self.group_by.len(), 5, &at, found);
        }
        {
            let at = at.field("max_groups");
            rules::lte(self.max_groups, 1000, &at, found);
        }
        {
            let at = at.field("min_consistency_token");
            rules::max_bytes(&self.min_consistency_token, 4096, &at, found);
        }
    }
}

impl Validate for crate::weir::analytics::v1::QueryPathsRequest {
    fn check(&self, at: &Path<'_>, found: &mut Violations) {
        {
            let at = at.field("time_range");
            if let Some(value) = &self.time_range { value.check(&at, found); }
        }
        {
            let at = at.field("event");
            rules::required(self.event.is_some(), &at, found);
            if let Some(value) = &self.event { value.check(&at, found); }
        }
        {
            let at = at.field("direction");
            rules::defined_only(self.direction, crate::weir::analytics::v1::query_paths_request::Direction::is_valid(self.direction), &at, found);
        }
        {
            let at = at.field("depth");
            rules::lte(self.depth, 10, &at, found);
        }
        {
            let at = at.field("max_branches");
            rules::lte(self.max_branches, 50, &at, found);
        }
        {
            let at = at.field("max_gap");
            if let Some(value) = &self.max_gap { value.check(&at, found); rules::lte(rules::span(value), rules::span(&::prost_types::Duration { seconds: 31622400, nanos: 0 }), &at, found); rules::gt(rules::span(value), rules::span(&::prost_types::Duration { seconds: 0, nanos: 0 }), &at, found); }
        }
        {
            let at = at.field("count_by");
            rules::defined_only(self.count_by, crate::weir::analytics::v1::CountBy::is_valid(self.count_by), &at, found);
        }
        {
            let at = at.field("filter");
            if let Some(value) = &self.filter { value.check(&at, found); }
        }
        {
            let at = at.field("min_consistency_token");
            rules::max_bytes(&self.min_consistency_token, 4096, &at, found);
        }
        {
            let at = at.field("field");
            rules::max_bytes(&self.field, 400, &at, found);
        }
    }
}

impl Validate for crate::weir::analytics::v1::QueryRetentionRequest {
    fn check(&self, at: &Path<'_>, found: &mut Violations) {
        {
            let at = at.field("time_range");
            if let Some(value) = &self.time_range { value.check(&at, found); }
        }
        {
            let at = at.field("period");
            rules::defined_only(self.period, crate::weir::analytics::v1::RetentionPeriod::is_valid(self.period), &at, found);
        }
        {
            let at = at.field("time_zone");
            rules::max_bytes(&self.time_zone, 64, &at, found);
        }
        {
            let at = at.field("cohort_kind");
            rules::defined_only(self.cohort_kind, crate::weir::analytics::v1::query_retention_request::CohortKind::is_valid(self.cohort_kind), &at, found);
        }
        {
            let at = at.field("start_event");
            if let Some(value) = &self.start_event { value.check(&at, found); }
        }
        {
            let at = at.field("return_event");
            if let Some(value) = &self.return_event { value.check(&at, found); }
        }
        {
            let at = at.field("group_by");
            rules::max_items(self.group_by.len(), 5, &at, found);
        }
        {
            let at = at.field("periods");
            rules::lte(self.periods, 400, &at, found);
        }
        {
            let at = at.field("max_groups");
            rules::lte(self.max_groups, 1000, &at, found);
        }
        {
            let at = at.field("min_consistency_token");
            rules::max_bytes(&self.min_consistency_token, 4096, &at, found);
        }
    }
}

impl Validate for crate::weir::analytics::v1::QuerySqlRequest {
    fn check(&self, at: &Path<'_>, found: &mut Violations) {
        {
            let at = at.field("statement");
            rules::min_len(&self.statement, 1, &at, found);
            rules::max_bytes(&self.statement, 65536, &at, found);
        }
        {
            let at = at.field("max_rows");
            rules::lte(self.max_rows, 1000000, &at, found);
        }
        {
            let at = at.field("min_consistency_token");
            rules::max_bytes(&self.min_consistency_token, 4096, &at, found);
        }
    }
}

impl Validate for crate::weir::analytics::v1::QueryTimeSeriesRequest {
    fn check(&self, at: &Path<'_>, found: &mut Violations) {
        {
            let at = at.field("time_range");
            if let Some(value) = &self.time_range { value.check(&at, found); }
        }
        {
            let at = at.field("interval");
            rules::defined_only(self.interval, crate::weir::analytics::v1::Interval::is_valid(self.interval), &at, found);
        }
        {
            let at = at.field("time_zone");
            rules::max_bytes(&self.time_zone, 64, &at, found);
        }
        {
            let at = at.field("measures");
            rules::max_items(self.measures.len(), 10, &at, found);
            for (index, value) in self.measures.iter().enumerate() { let at = at.index(index); value.check(&at, found); }
        }
        {
            let at = at.field("event_names");
            rules::max_items(self.event_names.len(), 100, &at, found);
        }
        {
            let at = at.field("filter");
            if let Some(value) = &self.filter { value.check(&at, found); }
        }
        {
            let at = at.field("group_by");
            rules::max_items(self.group_by.len(), 5, &at, found);
        }
        {
            let at = at.field("max_series");
            rules::lte(self.max_series, 1000, &at, found);
        }
        {
            let at = at.field("min_consistency_token");
            rules::max_bytes(&self.min_consistency_token, 4096, &at, found);
        }
        {
            let at = at.field("formulas");
            rules::max_items(self.formulas.len(), 10, &at, found);
            for (index, value) in self.formulas.iter().enumerate() { let at = at.index(index); value.check(&at, found); }
        }
        {
            let at = at.field("rolling_buckets");
            rules::lte(self.rolling_buckets, 1000, &at, found);
        }
    }
}

impl Validate for crate::weir::analytics::v1::TimeRange {
    fn check(&self, at: &Path<'_>, found: &mut Violations) {
        {
            let at = at.field("start_time");
            if let Some(value) = &self.start_time { value.check(&at, found); }
        }
        {
            let at = at.field("end_time");
            if let Some(value) = &self.end_time { value.check(&at, found); }
        }
        {
            let at = at.field("last");
            if let Some(value) = &self.last { value.check(&at, found); rules::gt(rules::span(value), rules::span(&::prost_types::Duration { seconds: 0, nanos: 0 }), &at, found); }
        }
    }
}

impl Validate for crate::weir::analytics::v1::WatchEventsRequest {
    fn check(&self, at: &Path<'_>, found: &mut Violations) {
        {
            let at = at.field("event_names");
            rules::max_items(self.event_names.len(), 100, &at, found);
        }
        {
            let at = at.field("user_id");
            rules::max_bytes(&self.user_id, 200, &at, found);
        }
        {
            let at = at.field("filter");
            if let Some(value) = &self.filter { value.check(&at, found); }
        }
    }
}

impl Validate for crate::weir::analytics::v1::WatchQueryRequest {
    fn check(&self, at: &Path<'_>, found: &mut Violations) {
        {
            let at = at.field("min_interval");
            if let Some(value) = &self.min_interval { value.check(&at, found); rules::lte(rules::span(value), rules::span(&::prost_types::Duration { seconds: 3600, nanos: 0 }), &at, found); rules::gte(rules::span(value), rules::span(&::prost_types::Duration { seconds: 0, nanos: 10000000 }), &at, found); }
        }
        rules::required(self.query.is_some(), &at.field("query"), found);
        match &self.query {
            Some(crate::weir::analytics::v1::watch_query_request::Query::Summary(value)) => value.check(&at.field("summary"), found),
            Some(crate::weir::analytics::v1::watch_query_request::Query::TimeSeries(value)) => value.check(&at.field("time_series"), found),
            Some(crate::weir::analytics::v1::watch_query_request::Query::Breakdown(value)) => value.check(&at.field("breakdown"), found),
            Some(crate::weir::analytics::v1::watch_query_request::Query::Funnel(value)) => value.check(&at.field("funnel"), found),
            Some(crate::weir::analytics::v1::watch_query_request::Query::Retention(value)) => value.check(&at.field("retention"), found),
            Some(crate::weir::analytics::v1::watch_query_request::Query::Paths(value)) => value.check(&at.field("paths"), found),
            Some(crate::weir::analytics::v1::watch_query_request::Query::UserEvents(value)) => value.check(&at.field("user_events"), found),
            None => {}
        }
    }
}

impl Validate for crate::weir::event::v1::App {
    fn check(&self, at: &Path<'_>, found: &mut Violations) {
        {
            let at = at.field("name");
            rules::max_bytes(&self.name, 200, &at, found);
        }
        {
            let at = at.field("version");
            rules::max_bytes(&self.version, 200, &at, found);
        }
        {
            let at = at.field("build");
            rules::max_bytes(&self.build, 200, &at, found);
        }
    }
}

impl Validate for crate::weir::event::v1::Campaign {
    fn check(&self, at: &Path<'_>, found: &mut Violations) {
        {
            let at = at.field("source");
            rules::max_bytes(&self.source, 200, &at, found);
        }
        {
            let at = at.field("medium");
            rules::max_bytes(&self.medium, 200, &at, found);
        }
        {
            let at = at.field("name");
            rules::max_bytes(&self.name, 200, &at, found);
        }
        {
            let at = at.field("term");
            rules::max_bytes(&self.term, 200, &at, found);
        }
        {
            let at = at.field("content");
            rules::max_bytes(&self.content, 200, &at, found);
        }
    }
}

impl Validate for crate::weir::event::v1::Context {
    fn check(&self, at: &Path<'_>, found: &mut Violations) {
        {
            let at = at.field("app");
            if let Some(value) = &self.app { value.check(&at, found); }
        }
        {
            let at = at.field("device");
            if let Some(value) = &self.device { value.check(&at, found); }
        }
        {
            let at = at.field("os");
            if let Some(value) = &self.os { value.check(&at, found); }
        }
        {
            let at = at.field("locale");
            rules::max_bytes(&self.locale, 64, &at, found);
        }
        {
            let at = at.field("page");
            if let Some(value) = &self.page { value.check(&at, found); }
        }
        {
            let at = at.field("referrer");
            rules::max_bytes(&self.referrer, 8192, &at, found);
        }
        {
            let at = at.field("campaign");
            if let Some(value) = &self.campaign { value.check(&at, found); }
        }
        if !self.ip.is_empty() {
            let at = at.field("ip");
            rules::ip(&self.ip, &at, found);
        }
        {
            let at = at.field("user_agent");
            rules::max_bytes(&self.user_agent, 2048, &at, found);
        }
    }
}

impl Validate for crate::weir::event::v1::Device {
    fn check(&self, at: &Path<'_>, found: &mut Violations) {
        {
            let at = at.field("type");
            rules::max_bytes(&self.r#type, 200, &at, found);
        }
        {
            let at = at.field("manufacturer");
            rules::max_bytes(&self.manufacturer, 200, &at, found);
        }
        {
            let at = at.field("model");
            rules::max_bytes(&self.model, 200, &at, found);
        }
    }
}

impl Validate for crate::weir::event::v1::Event {
    fn check(&self, at: &Path<'_>, found: &mut Violations) {
        if !self.event_id.is_empty() {
            let at = at.field("event_id");
            rules::uuid(&self.event_id, &at, found);
        }
        {
            let at = at.field("event_name");
            rules::min_len(&self.event_name, 1, &at, found);
            rules::max_bytes(&self.event_name, 200, &at, found);
            rules::visible_ends(&self.event_name, &at, found);
        }
        {
            let at = at.field("event_type");
            rules::defined_only(self.event_type, crate::weir::event::v1::EventType::is_valid(self.event_type), &at, found);
        }
        {
            let at = at.field("user_id");
            rules::max_bytes(&self.user_id, 200, &at, found);
            rules::visible_ends(&self.user_id, &at, found);
            rules::not_in(&self.user_id, &["undefined", "null", "nil", "none", "nan", "(null)", "[object object]", "00000000-0000-0000-0000-000000000000"], &at, found);
        }
        {
            let at = at.field("anonymous_id");
            rules::max_bytes(&self.anonymous_id, 200, &at, found);
            rules::visible_ends(&self.anonymous_id, &at, found);
            rules::not_in(&self.anonymous_id, &["undefined", "null", "nil", "none", "nan", "(null)", "[object object]", "00000000-0000-0000-0000-000000000000"], &at, found);
        }
        {
            let at = at.field("session_id");
            rules::max_bytes(&self.session_id, 200, &at, found);
            rules::visible_ends(&self.session_id, &at, found);
        }
        {
            let at = at.field("install_id");
            rules::max_bytes(&self.install_id, 200, &at, found);
            rules::visible_ends(&self.install_id, &at, found);
        }
        {
            let at = at.field("sequence");
            rules::lte(self.sequence, 9223372036854775807, &at, found);
        }
        {
            let at = at.field("event_time");
            if let Some(value) = &self.event_time { value.check(&at, found); }
        }
        {
            let at = at.field("sent_time");
            if let Some(value) = &self.sent_time { value.check(&at, found); }
        }
        {
            let at = at.field("clock_offset");
            if let Some(value) = &self.clock_offset { value.check(&at, found); }
        }
        {
            let at = at.field("properties");
            if let Some(value) = &self.properties { value.check(&at, found); }
        }
        {
            let at = at.field("revenue");
            if let Some(value) = &self.revenue { value.check(&at, found); }
        }
        {
            let at = at.field("context");
            if let Some(value) = &self.context { value.check(&at, found); }
        }
    }
}

impl Validate for crate::weir::event::v1::OperatingSystem {
    fn check(&self, at: &Path<'_>, found: &mut Violations) {
        {
            let at = at.field("name");
            rules::max_bytes(&self.name, 200, &at, found);
        }
        {
            let at = at.field("version");
            rules::max_bytes(&self.version, 200, &at, found);
        }
    }
}

impl Validate for crate::weir::event::v1::Page {
    fn check(&self, at: &Path<'_>, found: &mut Violations) {
        {
            let at = at.field("url");
            rules::max_bytes(&self.url, 8192, &at, found);
        }
        {
            let at = at.field("path");
            rules::max_bytes(&self.path, 8192, &at, found);
        }
        {
            let at = at.field("title");
            rules::max_bytes(&self.title, 8192, &at, found);
        }
    }
}

impl Validate for crate::weir::ingest::v1::GetLogRequest {
    fn check(&self, _: &Path<'_>, _: &mut Violations) {
    }
}

impl Validate for crate::weir::ingest::v1::IngestEventRequest {
    fn check(&self, at: &Path<'_>, found: &mut Violations) {
        {
            let at = at.field("event");
            rules::required(self.event.is_some(), &at, found);
            if let Some(value) = &self.event { value.check(&at, found); }
        }
    }
}

impl Validate for crate::weir::ingest::v1::IngestEventsRequest {
    fn check(&self, at: &Path<'_>, found: &mut Violations) {
        {
            let at = at.field("events");
            rules::min_items(self.events.len(), 1, &at, found);
            rules::max_items(self.events.len(), 1000, &at, found);
        }
    }
}

impl Validate for crate::weir::ingest::v1::StreamEventsRequest {
    fn check(&self, at: &Path<'_>, found: &mut Violations) {
        {
            let at = at.field("events");
            rules::min_items(self.events.len(), 1, &at, found);
            rules::max_items(self.events.len(), 1000, &at, found);
        }
    }
}

impl Validate for crate::weir::ingest::v1::SyncClockRequest {
    fn check(&self, at: &Path<'_>, found: &mut Violations) {
        {
            let at = at.field("client_time");
            rules::required(self.client_time.is_some(), &at, found);
            if let Some(value) = &self.client_time { value.check(&at, found); }
        }
    }
}

impl Validate for crate::weir::ingest::v1::UploadEventsRequest {
    fn check(&self, at: &Path<'_>, found: &mut Violations) {
        {
            let at = at.field("event");
            if let Some(value) = &self.event { value.check(&at, found); }
        }
    }
}

impl Validate for crate::weir::metrics::v1::ExportMetricsRequest {
    fn check(&self, at: &Path<'_>, found: &mut Violations) {
        {
            let at = at.field("format");
            rules::defined_only(self.format, crate::weir::metrics::v1::export_metrics_request::Format::is_valid(self.format), &at, found);
        }
    }
}

impl Validate for crate::weir::metrics::v1::GetMetricsRequest {
    fn check(&self, _: &Path<'_>, _: &mut Violations) {
    }
}

impl Validate for crate::weir::metrics::v1::WatchMetricsRequest {
    fn check(&self, at: &Path<'_>, found: &mut Violations) {
        {
            let at = at.field("interval");
            if let Some(value) = &self.interval { value.check(&at, found); rules::lte(rules::span(value), rules::span(&::prost_types::Duration { seconds: 60, nanos: 0 }), &at, found); rules::gte(rules::span(value), rules::span(&::prost_types::Duration { seconds: 0, nanos: 100000000 }), &at, found); }
        }
    }
}

impl Validate for crate::weir::processing::v1::GetStatusRequest {
    fn check(&self, _: &Path<'_>, _: &mut Violations) {
    }
}

impl Validate for crate::weir::processing::v1::WatchStatusRequest {
    fn check(&self, at: &Path<'_>, found: &mut Violations) {
        {
            let at = at.field("interval");
            if let Some(value) = &self.interval { value.check(&at, found); rules::lte(rules::span(value), rules::span(&::prost_types::Duration { seconds: 60, nanos: 0 }), &at, found); rules::gte(rules::span(value), rules::span(&::prost_types::Duration { seconds: 0, nanos: 100000000 }), &at, found); }
        }
    }
}

impl Validate for crate::weir::store::v1::ReadHotRequest {
    fn check(&self, _: &Path<'_>, _: &mut Violations) {
    }
}
