//! What a statement may be: an allowlist of its clauses, operators and functions, and accounts of how large it becomes.
//!
//! Everything that is not matched here is refused, with its position. The accounts are kept over the whole statement before anything is
//! planned, see [`bounds`].

pub(super) mod bounds;
mod expr;

pub(super) use expr::is_float;

use std::collections::HashMap;

use bounds::Bound;
use datafusion::sql::sqlparser::{
    ast::{
        Distinct, Expr, GroupByExpr, Join, JoinConstraint, JoinOperator, LimitClause, OrderBy, OrderByExpr,
        OrderByKind, Query, Select, SelectFlavor, SelectItem, SelectItemQualifiedWildcardKind, SetExpr,
        Spanned, TableFactor, TableWithJoins, WildcardAdditionalOptions, With,
    },
    tokenizer::{Location, Span},
};

use crate::Error;

/// Why a statement is refused, and where.
#[derive(Debug)]
pub(super) struct Refusal {
    at: Location,
    problem: String,
}

pub(super) type Result<T = ()> = std::result::Result<T, Refusal>;

impl Refusal {
    pub(super) fn new(span: Span, problem: impl Into<String>) -> Self {
        Self { at: span.start, problem: problem.into() }
    }
}

impl From<Refusal> for Error {
    fn from(refusal: Refusal) -> Self {
        Self::Sql(positioned(refusal.at, &refusal.problem))
    }
}

/// A problem with its position, where that is known. What could not be seen or turns the line around is written out.
pub(super) fn positioned(at: Location, problem: &str) -> String {
    let problem = problem.chars().fold(String::new(), |mut shown, letter| {
        match is_hidden(letter) {
            true => shown.extend(letter.escape_unicode()),
            false => shown.push(letter),
        }
        shown
    });
    match at {
        Location { line: 0, .. } => problem,
        Location { line, column } => format!("line {line}, column {column}: {problem}"),
    }
}

/// Whether a letter can't be seen, or turns around the line that it is shown in.
fn is_hidden(letter: char) -> bool {
    letter.is_control()
        || matches!(letter, '\u{200b}'..='\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2060}'..='\u{2069}' | '\u{feff}')
}

/// What an expression or query comes to, with everything that it reads written out.
#[derive(Debug, Default, Clone, Copy)]
struct Size {
    /// Tables that it reads.
    tables: u64,
    /// Columns of `events`.
    columns: u64,
    /// Bytes of constants.
    constants: u64,
}

impl Size {
    const fn tables(tables: u64) -> Self {
        Self { tables, columns: 1, constants: 0 }
    }

    fn add(&mut self, other: Self) {
        self.tables = self.tables.saturating_add(other.tables);
        self.columns = self.columns.saturating_add(other.columns);
        self.constants = self.constants.saturating_add(other.constants);
    }

    fn widest(self, other: Self) -> Self {
        Self {
            tables: self.tables.max(other.tables),
            columns: self.columns.max(other.columns),
            constants: self.constants.max(other.constants),
        }
    }
}

/// Checks one statement.
#[derive(Debug, Default)]
pub(super) struct Checker {
    /// Common table expressions that can be used here, by name; a stack for each name.
    named: HashMap<String, Vec<Size>>,
    /// The widest column that the queries around this place read, innermost last.
    sources: Vec<Size>,
    written_out: u64,
    constants: u64,
    windows: u64,
    patterns: u64,
    subqueries: u64,
    arithmetic: u64,
}

/// Refuses more than a bound.
fn within(amount: u64, bound: Bound, at: Span) -> Result {
    let Bound { most, what } = bound;
    let problem = || {
        format!(
            "a statement has at most {most} {what}, not {amount}: what subqueries and common table expressions have counts as often \
             as it is used"
        )
    };
    if amount > most { Err(Refusal::new(at, problem())) } else { Ok(()) }
}

fn unsupported<T>(at: Span, clause: &str) -> Result<T> {
    Err(Refusal::new(at, format!("{clause} can't be used here")))
}

impl Checker {
    /// Checks a query, with its common table expressions.
    pub(super) fn statement(mut self, query: &Query) -> Result {
        self.query(query).map(drop)
    }

    fn query(&mut self, query: &Query) -> Result<Size> {
        let Query {
            with,
            body,
            order_by,
            limit_clause,
            fetch,
            locks,
            for_clause,
            settings,
            format_clause,
            pipe_operators,
        } = query;
        let at = query.span();
        if !pipe_operators.is_empty() {
            return Err(Refusal::new(at, "instead of `|>`, use a subquery or `with … as (…)`"));
        }
        if fetch.is_some() {
            return Err(Refusal::new(at, "instead of `fetch first`, use `limit`"));
        }
        if !locks.is_empty() || for_clause.is_some() || settings.is_some() || format_clause.is_some() {
            return unsupported(at, "`for`, `settings` and `format`");
        }
        let names = with.as_ref().map(|with| self.with(with)).transpose()?.unwrap_or_default();
        let size = self.set(body)?;
        // What a query orders by is its own columns, or what these read.
        self.sources.push(size);
        if let Some(order_by) = order_by {
            self.order_by(order_by, at)?;
        }
        self.sources.pop();
        match limit_clause {
            Some(LimitClause::LimitOffset { limit, offset, limit_by }) => {
                if !limit_by.is_empty() {
                    return unsupported(at, "`limit … by`");
                }
                let both = limit.iter().chain(offset.iter().map(|offset| &offset.value));
                both.into_iter().try_for_each(|expr| self.part(expr))?;
            }
            Some(LimitClause::OffsetCommaLimit { offset, limit }) => {
                self.part(offset)?;
                self.part(limit)?;
            }
            None => {}
        }
        for name in names {
            self.named.get_mut(&name).and_then(Vec::pop);
        }
        within(size.tables, bounds::TABLES, at)?;
        Ok(size)
    }

    /// Makes common table expressions known; their names.
    fn with(&mut self, with: &With) -> Result<Vec<String>> {
        if with.recursive {
            return Err(Refusal::new(
                with.span(),
                "`with recursive` can't be used: a recursion has no bound",
            ));
        }
        let mut names = Vec::new();
        for expression in &with.cte_tables {
            if expression.from.is_some() {
                return unsupported(expression.span(), "`from` behind a common table expression");
            }
            let size = self.query(&expression.query)?;
            let name = name_of(&expression.alias.name.value);
            self.named.entry(name.clone()).or_default().push(size);
            names.push(name);
        }
        Ok(names)
    }

    fn set(&mut self, set: &SetExpr) -> Result<Size> {
        match set {
            SetExpr::Select(select) => self.select(select),
            SetExpr::Query(query) => self.query(query),
            SetExpr::SetOperation { left, right, .. } => {
                let (left, right) = (self.set(left)?, self.set(right)?);
                Ok(Size { tables: left.tables.saturating_add(right.tables), ..left.widest(right) })
            }
            SetExpr::Values(values) => {
                let mut size = Size::default();
                for row in &values.rows {
                    for value in &row.content {
                        size = size.widest(self.expr(value)?);
                    }
                }
                Ok(Size { tables: 1, ..size })
            }
            SetExpr::Insert(_)
            | SetExpr::Update(_)
            | SetExpr::Delete(_)
            | SetExpr::Merge(_)
            | SetExpr::Table(_) => unsupported(set.span(), "this kind of statement"),
        }
    }

    fn select(&mut self, select: &Select) -> Result<Size> {
        let Select {
            select_token: _,
            optimizer_hints,
            distinct,
            select_modifiers,
            top,
            top_before_distinct: _,
            projection,
            exclude,
            into,
            from,
            lateral_views,
            prewhere,
            selection,
            connect_by,
            group_by,
            cluster_by,
            distribute_by,
            sort_by,
            having,
            named_window,
            qualify,
            window_before_qualify: _,
            value_table_mode,
            flavor,
        } = select;
        let at = select.span();
        for (is_there, clause) in [
            (!optimizer_hints.is_empty(), "a hint"),
            (select_modifiers.is_some(), "a modifier of `select`"),
            (top.is_some(), "`top` (use `limit`)"),
            (exclude.is_some(), "`exclude`"),
            (into.is_some(), "`into`"),
            (!lateral_views.is_empty(), "`lateral view`"),
            (prewhere.is_some(), "`prewhere`"),
            (!connect_by.is_empty(), "`connect by`"),
            (!cluster_by.is_empty() || !distribute_by.is_empty() || !sort_by.is_empty(), "`cluster by`"),
            (value_table_mode.is_some(), "`as struct`"),
            (!matches!(flavor, SelectFlavor::Standard), "`from` before `select`"),
        ] {
            if is_there {
                return unsupported(at, clause);
            }
        }
        let mut source = Size::default();
        for table in from {
            let size = self.table_with_joins(table)?;
            source = Size { tables: source.tables.saturating_add(size.tables), ..source.widest(size) };
        }
        within(source.tables, bounds::TABLES, at)?;
        self.sources.push(source);
        let mut size = Size { columns: source.columns, ..Size::default() };
        within(projection.len() as u64, bounds::COLUMNS, at)?;
        for item in projection {
            size = size.widest(self.item(item)?);
        }
        if let Some(Distinct::On(exprs)) = distinct {
            exprs.iter().try_for_each(|expr| self.part(expr))?;
        }
        for expr in [selection, having, qualify].into_iter().flatten() {
            size.tables = size.tables.saturating_add(self.counted(expr)?.tables);
        }
        match group_by {
            GroupByExpr::All(modifiers) | GroupByExpr::Expressions(_, modifiers) if !modifiers.is_empty() => {
                return unsupported(at, "`with` behind `group by`");
            }
            GroupByExpr::All(_) => {}
            GroupByExpr::Expressions(exprs, _) => self.group_by(exprs)?,
        }
        for window in named_window {
            self.named_window(window)?;
        }
        self.sources.pop();
        within(size.columns, bounds::WIDTH, at)?;
        Ok(Size { tables: source.tables.saturating_add(size.tables).max(1), ..size })
    }

    fn item(&mut self, item: &SelectItem) -> Result<Size> {
        match item {
            SelectItem::UnnamedExpr(expr) | SelectItem::ExprWithAlias { expr, .. } => self.counted(expr),
            SelectItem::Wildcard(options)
            | SelectItem::QualifiedWildcard(SelectItemQualifiedWildcardKind::ObjectName(_), options) => {
                let WildcardAdditionalOptions {
                    wildcard_token: _,
                    opt_ilike: None,
                    opt_exclude: _,
                    opt_except: _,
                    opt_replace: None,
                    opt_rename: None,
                    opt_alias: None,
                } = options
                else {
                    return unsupported(item.span(), "what follows `*`");
                };
                Ok(self.source())
            }
            SelectItem::ExprWithAliases { .. }
            | SelectItem::QualifiedWildcard(SelectItemQualifiedWildcardKind::Expr(_), _) => {
                unsupported(item.span(), "this kind of column")
            }
        }
    }

    /// Grouping sets multiply: of `cube(a, b), rollup(c)` there are 4 × 2.
    fn group_by(&mut self, exprs: &[Expr]) -> Result {
        let (mut sets, mut keys) = (1u64, 0);
        for expr in exprs {
            let (of_expr, lists) = match expr {
                Expr::Cube(lists) => {
                    (1u64.checked_shl(lists.len() as u32).unwrap_or(u64::MAX), lists.as_slice())
                }
                Expr::Rollup(lists) => (lists.len() as u64 + 1, lists.as_slice()),
                Expr::GroupingSets(lists) => (lists.len() as u64, lists.as_slice()),
                other => {
                    self.part(other)?;
                    keys += 1;
                    continue;
                }
            };
            sets = sets.saturating_mul(of_expr.max(1));
            // Before what is in them: the sets may be too many to look at.
            within(sets, bounds::GROUPING_SETS, expr.span())?;
            for key in lists.iter().flatten() {
                self.part(key)?;
                keys += 1;
            }
        }
        let at = exprs.first().map_or_else(Span::empty, Spanned::span);
        within(keys, bounds::KEYS, at)
    }

    fn order_by(&mut self, order_by: &OrderBy, at: Span) -> Result {
        if order_by.interpolate.is_some() {
            return unsupported(at, "`interpolate`");
        }
        match &order_by.kind {
            OrderByKind::All(_) => unsupported(at, "`order by all`"),
            OrderByKind::Expressions(exprs) => self.orders(exprs),
        }
    }

    fn orders(&mut self, orders: &[OrderByExpr]) -> Result {
        let at = orders.first().map_or_else(Span::empty, Spanned::span);
        within(orders.len() as u64, bounds::KEYS, at)?;
        for order in orders {
            if order.with_fill.is_some() {
                return unsupported(at, "`with fill`");
            }
            self.part(&order.expr)?;
        }
        Ok(())
    }

    fn table_with_joins(&mut self, table: &TableWithJoins) -> Result<Size> {
        let mut size = self.table(&table.relation)?;
        for join in &table.joins {
            let joined = self.table(&join.relation)?;
            size = Size { tables: size.tables.saturating_add(joined.tables), ..size.widest(joined) };
            within(size.tables, bounds::TABLES, join.span())?;
            self.join(join, size)?;
        }
        Ok(size)
    }

    fn join(&mut self, join: &Join, source: Size) -> Result {
        let constraint = match &join.join_operator {
            JoinOperator::Join(constraint)
            | JoinOperator::Inner(constraint)
            | JoinOperator::Left(constraint)
            | JoinOperator::LeftOuter(constraint)
            | JoinOperator::Right(constraint)
            | JoinOperator::RightOuter(constraint)
            | JoinOperator::FullOuter(constraint)
            | JoinOperator::CrossJoin(constraint)
            | JoinOperator::LeftSemi(constraint)
            | JoinOperator::RightSemi(constraint)
            | JoinOperator::LeftAnti(constraint)
            | JoinOperator::RightAnti(constraint) => constraint,
            JoinOperator::Semi(_)
            | JoinOperator::Anti(_)
            | JoinOperator::CrossApply
            | JoinOperator::OuterApply
            | JoinOperator::AsOf { .. }
            | JoinOperator::StraightJoin(_)
            | JoinOperator::ArrayJoin
            | JoinOperator::LeftArrayJoin
            | JoinOperator::InnerArrayJoin => return unsupported(join.span(), "this kind of join"),
        };
        match constraint {
            JoinConstraint::On(expr) => {
                self.sources.push(source);
                self.part(expr)?;
                self.sources.pop();
                Ok(())
            }
            JoinConstraint::Using(columns) => within(columns.len() as u64, bounds::KEYS, join.span()),
            JoinConstraint::Natural | JoinConstraint::None => Ok(()),
        }
    }

    fn table(&mut self, table: &TableFactor) -> Result<Size> {
        match table {
            TableFactor::Table {
                name,
                alias: _,
                args,
                with_hints,
                version,
                with_ordinality,
                partitions,
                json_path,
                sample,
                index_hints,
            } => {
                if args.is_some() {
                    let problem = format!("`{name}` can't be read: there are no table functions");
                    return Err(Refusal::new(name.span(), problem));
                }
                if !with_hints.is_empty()
                    || version.is_some()
                    || *with_ordinality
                    || !partitions.is_empty()
                    || json_path.is_some()
                    || sample.is_some()
                    || !index_hints.is_empty()
                {
                    return unsupported(name.span(), "what follows the table's name");
                }
                let text = match name.0.as_slice() {
                    [only] => only.as_ident().map(|ident| name_of(&ident.value)),
                    _ => None,
                };
                let known =
                    text.as_ref().and_then(|text| self.named.get(text)?.iter().copied().reduce(Size::widest));
                match known {
                    Some(size) => Ok(size),
                    None if text.as_deref() == Some("events") => Ok(Size::tables(1)),
                    None => Err(Refusal::new(
                        name.span(),
                        format!("there is no table `{name}`: the events are in `events`"),
                    )),
                }
            }
            TableFactor::Derived { lateral: false, subquery, alias: _, sample: None } => self.query(subquery),
            TableFactor::NestedJoin { table_with_joins, alias: _ } => self.table_with_joins(table_with_joins),
            TableFactor::Derived { .. }
            | TableFactor::TableFunction { .. }
            | TableFactor::Function { .. }
            | TableFactor::UNNEST { .. }
            | TableFactor::JsonTable { .. }
            | TableFactor::OpenJsonTable { .. }
            | TableFactor::Pivot { .. }
            | TableFactor::Unpivot { .. }
            | TableFactor::MatchRecognize { .. }
            | TableFactor::XmlTable { .. }
            | TableFactor::SemanticView { .. } => {
                unsupported(table.span(), "`lateral`, `unnest`, `pivot` and table functions")
            }
        }
    }

    /// The widest column that can be read here.
    fn source(&self) -> Size {
        self.sources.iter().fold(Size::default(), |widest, source| widest.widest(*source))
    }
}

/// A name as common table expressions are looked up by; two that differ in case only are held to the larger.
fn name_of(name: &str) -> String {
    name.to_lowercase()
}
