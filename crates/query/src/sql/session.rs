//! What a statement is planned with: a catalog with one table, and the functions that are listed.

use std::sync::Arc;

use datafusion::{
    catalog::TableProvider,
    common::resources_err,
    common::tree_node::{Transformed, TreeNode as _, TreeNodeRecursion},
    error::Result,
    execution::{SessionStateBuilder, SessionStateDefaults, session_state::SessionState},
    logical_expr::Expr,
    logical_expr::{LogicalPlan, ScalarUDF},
    optimizer::{Optimizer, OptimizerConfig, OptimizerRule},
    prelude::SessionContext,
};

use super::{
    allowed::{self, AGGREGATES, Cost, WINDOWS},
    arithmetic::{Does, Planner},
    distinct, functions,
    literals::TimeLiterals,
    meter::Meter,
    metered::Metered,
    sum, zones,
};
use crate::{Engine, Error};

/// Bytes of constants that a plan may hold; the optimizer puts them into every place where they are used.
const PLANNED_CONSTANTS: usize = 4 << 20;
/// Parts of the expressions of a plan.
const PLANNED_PARTS: usize = 200_000;

/// A session that knows nothing but the table and functions.
pub(super) fn state(
    engine: &Engine,
    table: Arc<dyn TableProvider>,
    meter: &Arc<Meter>,
) -> Result<SessionState, Error> {
    let mut aggregates = SessionStateDefaults::default_aggregate_functions();
    aggregates.retain(|function| !["count", "sum"].contains(&function.name()));
    aggregates.extend([distinct::udaf(), sum::udaf()]);
    aggregates.extend(functions::all());
    aggregates.retain(|function| AGGREGATES.iter().any(|(name, _)| *name == function.name()));
    let mut windows = SessionStateDefaults::default_window_functions();
    windows.retain(|function| WINDOWS.contains(&function.name()));
    let config = engine
        .context()
        .copied_config()
        .set_bool("datafusion.execution.enable_recursive_ctes", false)
        .set_bool("datafusion.sql_parser.collect_spans", true)
        .set_bool("datafusion.explain.logical_plan_only", true);
    let mut planners = vec![Planner::of(meter)];
    planners.extend(SessionStateDefaults::default_expr_planners());
    let check: Arc<dyn OptimizerRule + Send + Sync> = Arc::new(Check { meter: Arc::clone(meter) });
    let rules = Optimizer::new().rules.into_iter().flat_map(|rule| [rule, Arc::clone(&check)]).collect();
    let state = SessionStateBuilder::new()
        .with_config(config)
        .with_runtime_env(Arc::clone(engine.environment()))
        .with_expr_planners(planners)
        .with_type_planner(Arc::new(zones::Types))
        .with_analyzer_rule(Arc::new(TimeLiterals))
        .with_scalar_functions(scalars(meter))
        .with_aggregate_functions(aggregates)
        .with_window_functions(windows)
        .with_optimizer_rules(rules)
        .build();
    let context = SessionContext::new_with_state(state);
    context.register_table("events", table).map_err(|error| engine.failure(error))?;
    Ok(context.state())
}

/// The scalar functions, held to their costs.
fn scalars(meter: &Arc<Meter>) -> Vec<Arc<ScalarUDF>> {
    let own = [zones::udf(), Does::Negative.udf(), Does::OneZero.udf()];
    let all = SessionStateDefaults::default_scalar_functions().into_iter().chain(own);
    let listed = all.filter_map(|function| {
        Some(match allowed::scalar(function.name())? {
            Cost::Replaced => function,
            cost => Metered::udf(function, cost, meter),
        })
    });
    listed.collect()
}

/// Fails between two rules of the optimizer once the deadline has passed or the plan has grown too large.
#[derive(Debug)]
struct Check {
    meter: Arc<Meter>,
}

impl OptimizerRule for Check {
    fn name(&self) -> &'static str {
        "check"
    }

    fn rewrite(&self, plan: LogicalPlan, _config: &dyn OptimizerConfig) -> Result<Transformed<LogicalPlan>> {
        self.meter.check()?;
        self.meter.check_folded()?;
        let (mut constants, mut parts) = (0usize, 0usize);
        plan.apply_with_subqueries(|node| {
            node.apply_expressions(|expr| {
                expr.apply(|part| {
                    parts += 1;
                    if let Expr::Literal(value, _) = part {
                        constants += value.size();
                    }
                    Ok(TreeNodeRecursion::Continue)
                })
            })
        })?;
        if constants > PLANNED_CONSTANTS || parts > PLANNED_PARTS {
            return resources_err!(
                "the plan of a statement has {parts} expressions and {constants} bytes of constants"
            );
        }
        Ok(Transformed::no(plan))
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test that fails says where")]

    use std::collections::BTreeSet;

    use super::*;
    use crate::sql::allowed::{ALIASES, REFUSED, SCALARS};

    /// Functions that are not DataFusion's.
    const OWN: [&str; 5] = ["at_time_zone", "funnel_depth", "negative", "one_zero", "retention"];

    #[test]
    fn every_function_of_the_engine_is_allowed_or_refused() {
        let scalars = SessionStateDefaults::default_scalar_functions();
        let aggregates = SessionStateDefaults::default_aggregate_functions();
        let windows = SessionStateDefaults::default_window_functions();
        let registered: BTreeSet<&str> = scalars
            .iter()
            .map(|function| function.name())
            .chain(aggregates.iter().map(|function| function.name()))
            .chain(windows.iter().map(|function| function.name()))
            .collect();
        let refused = REFUSED.iter().flat_map(|(_, names)| names.iter().copied());
        let allowed: BTreeSet<&str> = SCALARS
            .iter()
            .map(|(name, _)| *name)
            .chain(AGGREGATES.iter().map(|(name, _)| *name))
            .chain(WINDOWS.iter().copied())
            .filter(|name| !OWN.contains(name))
            .collect();
        let refused: BTreeSet<&str> = refused.collect();
        let listed: BTreeSet<&str> = allowed.union(&refused).copied().collect();
        assert_eq!(registered.difference(&listed).collect::<Vec<_>>(), Vec::<&&str>::new(), "in no list");
        assert_eq!(
            listed.difference(&registered).collect::<Vec<_>>(),
            Vec::<&&str>::new(),
            "listed, but unknown"
        );
        assert_eq!(allowed.intersection(&refused).collect::<Vec<_>>(), Vec::<&&str>::new(), "in both lists");
    }

    #[test]
    fn an_alias_is_one_of_the_engine() {
        let scalars = SessionStateDefaults::default_scalar_functions();
        let aggregates = SessionStateDefaults::default_aggregate_functions();
        for (alias, name) in ALIASES {
            let of = |known: &str, aliases: &[String]| {
                known == *name && aliases.iter().any(|known| known == alias)
            };
            let is_known = scalars.iter().any(|function| of(function.name(), function.aliases()))
                || aggregates.iter().any(|function| of(function.name(), function.aliases()));
            assert!(is_known, "{alias} of {name}");
        }
    }

    #[test]
    fn only_what_is_allowed_is_registered() {
        let meter = Meter::new(std::time::Duration::from_secs(1));
        for function in scalars(&meter) {
            assert!(allowed::scalar(function.name()).is_some(), "{}", function.name());
            assert!(allowed::refused(function.name()).is_none(), "{}", function.name());
        }
    }
}
