//! What a statement grows to when it is planned.

use std::{collections::HashMap, convert::Infallible, ops::ControlFlow};

use datafusion::sql::sqlparser::ast::{Expr, ObjectName, Query, Select, Visitor, visit_expressions};

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
}

/// A query that is looked at.
#[derive(Debug, Default)]
struct Open {
    tables: u64,
    /// The widest column that it reads.
    source: u64,
    /// Columns that the longest of its own columns mentions.
    mentioned: u64,
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
        self.open.push(Open::default());
        ControlFlow::Continue(())
    }

    fn post_visit_query(&mut self, query: &Query) -> ControlFlow<Infallible> {
        let size = self.open.pop().unwrap_or_default().size();
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
        for column in &select.projection {
            let mut mentioned = 0;
            let _ = visit_expressions(column, |part| {
                mentioned += u64::from(matches!(part, Expr::Identifier(_) | Expr::CompoundIdentifier(_)));
                ControlFlow::<Infallible>::Continue(())
            });
            let query = self.innermost();
            query.mentioned = query.mentioned.max(mentioned);
        }
        ControlFlow::Continue(())
    }

    fn pre_visit_relation(&mut self, relation: &ObjectName) -> ControlFlow<Infallible> {
        let name = relation.to_string().to_lowercase().replace('"', "");
        let size = self.expressions.get(&name).copied().unwrap_or(Size { tables: 1, width: 1 });
        self.innermost().read(size);
        ControlFlow::Continue(())
    }
}
