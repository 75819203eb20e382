//! What a statement grows to when it is planned.

use std::{collections::HashMap, convert::Infallible, ops::ControlFlow};

use datafusion::sql::sqlparser::ast::{
    Expr, ObjectName, ObjectNamePart, Query, Select, Visit, Visitor, visit_expressions,
};

/// What a statement or query comes to when every common table expression stands where it is used, and every column is spelled
/// out: planning makes it so, without limits of its own. An expression of forty that each use the one before twice is a trillion.
#[derive(Debug, Default, Clone, Copy)]
pub(super) struct Size {
    /// Tables that are read.
    pub(super) tables: u64,
    /// Columns of `events` in the longest column, at most.
    pub(super) width: u64,
}

impl Size {
    fn max(self, other: Self) -> Self {
        Self { tables: self.tables.max(other.tables), width: self.width.max(other.width) }
    }
}

/// Measures a statement.
#[derive(Debug, Default)]
pub(super) struct Growth {
    /// Around the queries that are open.
    outermost: Open,
    /// The queries around the place that is looked at, the innermost last.
    open: Vec<Open>,
    /// Those of common table expressions among them, and those to come, with their names.
    named: HashMap<*const Query, String>,
    /// By the name of a common table expression: its size; where several have one name, the largest of each.
    expressions: HashMap<String, Size>,
    /// Columns of `events` in the longest condition or order, at most.
    pub(super) condition: u64,
    /// Whether a query goes on with `|>`. What comes then is not looked at.
    pub(super) has_pipe: bool,
}

/// A query that is looked at.
#[derive(Debug, Default)]
struct Open {
    tables: u64,
    /// The widest column that it reads.
    source: u64,
    /// Columns that the longest of its own columns mentions.
    mentioned: u64,
    /// Columns that its conditions, groups and orders mention.
    in_conditions: u64,
}

impl Open {
    fn read(&mut self, size: Size) {
        self.tables = self.tables.saturating_add(size.tables);
        self.source = self.source.max(size.width);
    }

    fn size(&self) -> Size {
        Size { tables: self.tables.max(1), width: self.mentioned.max(1).saturating_mul(self.source.max(1)) }
    }
}

/// Columns that a part of a statement mentions.
fn mentions(part: &impl Visit) -> u64 {
    let mut mentions = 0;
    let _ = visit_expressions(part, |expr| {
        mentions += u64::from(matches!(expr, Expr::Identifier(_) | Expr::CompoundIdentifier(_)));
        ControlFlow::<Infallible>::Continue(())
    });
    mentions
}

impl Growth {
    /// The size of what was visited.
    pub(super) fn size(&self) -> Size {
        self.outermost.size()
    }

    fn innermost(&mut self) -> &mut Open {
        self.open.last_mut().unwrap_or(&mut self.outermost)
    }
}

impl Visitor for Growth {
    type Break = Infallible;

    fn pre_visit_query(&mut self, query: &Query) -> ControlFlow<Infallible> {
        let expressions = query.with.iter().flat_map(|with| &with.cte_tables);
        self.named
            .extend(expressions.map(|one| (&raw const *one.query, one.alias.name.value.to_lowercase())));
        self.has_pipe |= !query.pipe_operators.is_empty();
        self.open.push(Open { in_conditions: mentions(&query.order_by), ..Open::default() });
        ControlFlow::Continue(())
    }

    fn post_visit_query(&mut self, query: &Query) -> ControlFlow<Infallible> {
        let done = self.open.pop().unwrap_or_default();
        let size = done.size();
        self.condition = self.condition.max(done.in_conditions.saturating_mul(size.width));
        match self.named.remove(&(&raw const *query)) {
            Some(name) => {
                let largest = self.expressions.entry(name).or_default();
                *largest = largest.max(size);
            }
            None => self.innermost().read(size),
        }
        ControlFlow::Continue(())
    }

    fn pre_visit_select(&mut self, select: &Select) -> ControlFlow<Infallible> {
        let longest = select.projection.iter().map(mentions).max().unwrap_or_default();
        let joins = select.from.iter().flat_map(|table| &table.joins);
        let on: u64 = joins.map(|join| mentions(&join.join_operator)).sum();
        let query = self.innermost();
        query.mentioned = query.mentioned.max(longest);
        query.in_conditions += on
            + mentions(&select.selection)
            + mentions(&select.group_by)
            + mentions(&select.having)
            + mentions(&select.qualify)
            + mentions(&select.distinct)
            + mentions(&select.named_window);
        ControlFlow::Continue(())
    }

    fn pre_visit_relation(&mut self, relation: &ObjectName) -> ControlFlow<Infallible> {
        // Without quotes, of which there are several kinds.
        let parts = relation.0.iter().filter_map(ObjectNamePart::as_ident).map(|part| part.value.as_str());
        let name = parts.collect::<Vec<_>>().join(".").to_lowercase();
        let size = self.expressions.get(&name).copied().unwrap_or(Size { tables: 1, width: 1 });
        self.innermost().read(size);
        ControlFlow::Continue(())
    }
}
