//! Literals of times as people write them: `'2024-10-27 00:00'` needs no seconds, as in PostgreSQL.
//!
//! Which texts are times is known once types are: after coercion, each text that becomes a time is the operand of a cast.

use std::{borrow::Cow, sync::LazyLock};

use datafusion::{
    common::{
        ScalarValue,
        config::ConfigOptions,
        tree_node::{Transformed, TreeNode as _},
    },
    error::Result,
    logical_expr::{Cast, Expr, LogicalPlan, TryCast, expr_rewriter::NamePreserver},
    optimizer::AnalyzerRule,
};
use regex::Regex;

/// Writes the seconds that literals of times lack.
#[derive(Debug)]
pub(super) struct TimeLiterals;

impl AnalyzerRule for TimeLiterals {
    fn analyze(&self, plan: LogicalPlan, _config: &ConfigOptions) -> Result<LogicalPlan> {
        let completed = plan.transform_up_with_subqueries(|node| {
            let names = NamePreserver::new(&node);
            let node = node.map_expressions(|expr| {
                let name = names.save(&expr);
                Ok(expr.transform_up(|part| Ok(complete(part)))?.update_data(|expr| name.restore(expr)))
            })?;
            node.map_data(LogicalPlan::recompute_schema)
        });
        Ok(completed?.data)
    }

    fn name(&self) -> &'static str {
        "time_literals"
    }
}

/// A cast of a literal to a time, with seconds.
fn complete(mut expr: Expr) -> Transformed<Expr> {
    let (Expr::Cast(Cast { expr: of, field }) | Expr::TryCast(TryCast { expr: of, field })) = &mut expr
    else {
        return Transformed::no(expr);
    };
    let text = match &mut **of {
        Expr::Literal(
            ScalarValue::Utf8(Some(text))
            | ScalarValue::Utf8View(Some(text))
            | ScalarValue::LargeUtf8(Some(text)),
            _,
        ) if field.data_type().is_temporal() => text,
        _ => return Transformed::no(expr),
    };
    match with_seconds(text) {
        Cow::Owned(completed) => {
            *text = completed;
            Transformed::yes(expr)
        }
        Cow::Borrowed(_) => Transformed::no(expr),
    }
}

fn with_seconds(text: &str) -> Cow<'_, str> {
    static WITHOUT_SECONDS: LazyLock<Regex> = LazyLock::new(|| {
        Regex::new(r"^(\d{4}-\d\d-\d\d[ Tt]\d\d:\d\d)( ?[+-]\d\d(?::?\d\d)?| ?[Zz])?$")
            .expect("a pattern of ours")
    });
    WITHOUT_SECONDS.replace(text, "$1:00$2")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_times_without_seconds_get_some() {
        for (text, right) in [
            ("2024-10-27 00:00", "2024-10-27 00:00:00"),
            ("2024-10-27T23:59", "2024-10-27T23:59:00"),
            ("2024-10-27T23:59Z", "2024-10-27T23:59:00Z"),
            ("2024-10-27 23:59+02", "2024-10-27 23:59:00+02"),
            ("2024-10-27 23:59 -03:30", "2024-10-27 23:59:00 -03:30"),
            ("2024-10-27 00:00:00", "2024-10-27 00:00:00"),
            ("2024-10-27", "2024-10-27"),
            ("2024-10-27 00", "2024-10-27 00"),
            ("2024-10-27 0:00", "2024-10-27 0:00"),
            ("2024-10-27 00:00 noon", "2024-10-27 00:00 noon"),
            ("00:00", "00:00"),
            ("", ""),
        ] {
            assert_eq!(with_seconds(text), right, "{text}");
        }
    }
}
