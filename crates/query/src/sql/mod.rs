//! SQL over one table, `events`: the events of one project.
//!
//! What a statement can do follows from what there is, not from its text: a catalog with that table and nothing else, functions that
//! compute, no table functions, no file formats, no information schema; and of statements only queries are planned, `EXPLAIN` of them, and
//! `DESCRIBE events`.
//!
//! The table has the columns of [`weir_store::schema`]. `property('plan')` is the text of a property and `property_number('price')`
//! its number; in a join, `property(a, 'plan')` says of which table. Beside DataFusion's functions there are `funnel_depth` and
//! `retention`, see [`functions`].

use std::{ops::ControlFlow, sync::Arc, time::Duration};

use arrow::error::ArrowError;
use datafusion::{
    catalog::TableProvider,
    error::DataFusionError,
    execution::{
        SessionStateBuilder, SessionStateDefaults, context::SQLOptions, session_state::SessionState,
    },
    physical_plan::ExecutionPlan,
    prelude::SessionContext,
    sql::{
        parser::{DFParser, Statement},
        sqlparser::{
            ast::{
                Expr, Function, FunctionArg, FunctionArgExpr, FunctionArguments, Ident,
                Statement as SqlStatement, Visit as _, visit_expressions_mut,
            },
            dialect::GenericDialect,
            keywords::Keyword,
            tokenizer::{Token, Tokenizer},
        },
    },
};
use weir_store::view::Column;

use crate::{Engine, Error, Events, Rows, export::all_columns};

mod bounded;
pub mod functions;
mod growth;
mod patience;

use bounded::bounded;
use growth::{Growth, Size};

/// Longest statement, bytes.
const MAX_BYTES: usize = 64 << 10;
/// Keywords and operators of a statement: what bounds how deep planning and evaluation recurse on the stack of a thread.
const MAX_LINKS: usize = 1000;
/// Tables that a statement reads, see [`Size`].
const MAX_TABLES: u64 = 1000;
/// Columns of `events` that one of a statement comes to, see [`Size`].
const MAX_WIDTH: u64 = 1000;
/// Columns of `events` that the conditions of a query come to. They are in no column, so that nothing multiplies them further.
const MAX_CONDITION: u64 = 100_000;
/// Properties that one statement can use.
const MAX_PROPERTIES: usize = 200;

/// Functions that make large values out of small ones, without accounting for the memory.
const LEFT_OUT: [&str; 9] = [
    "repeat",
    "lpad",
    "rpad",
    "encode",
    "array_repeat",
    "array_resize",
    "range",
    "generate_series",
    "gen_series",
];

/// What a statement may use.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// Time until the last row is read.
    pub time: Duration,
    /// Rows of the answer at most; the rest is cut off.
    pub rows: usize,
}

impl Engine {
    /// Runs a query.
    ///
    /// # Errors
    /// [`Error::Sql`] for a statement that can't be planned. Errors of its execution end the stream of rows.
    pub async fn sql(&self, events: Arc<dyn Events>, text: String, limits: Limits) -> Result<Rows, Error> {
        let plan =
            self.run(limits.time, move |engine| async move { plan(&engine, &*events, &text).await }).await?;
        Ok(self.rows(plan, limits.time, limits.rows, failure))
    }
}

async fn plan(engine: &Engine, events: &dyn Events, text: &str) -> Result<Arc<dyn ExecutionPlan>, Error> {
    let (statement, properties) = parse(text)?;
    let mut columns = all_columns();
    columns.extend(properties);
    let state = state(engine, events.table(&columns)?)?;
    let planned = async {
        let plan = state.statement_to_plan(statement).await?;
        let nothing =
            SQLOptions::new().with_allow_ddl(false).with_allow_dml(false).with_allow_statements(false);
        nothing.verify_plan(&plan)?;
        patience::patient(state.create_physical_plan(&plan).await?)
    };
    planned.await.map_err(|error| match error.find_root() {
        DataFusionError::ResourcesExhausted(_)
        | DataFusionError::ObjectStore(_)
        | DataFusionError::External(_) => engine.failure(error),
        _ => Error::Sql(error.strip_backtrace()),
    })
}

/// What an error of a query that runs means. A text that is no number, a division by zero: these are the statement's.
fn failure(engine: &Engine, error: DataFusionError) -> Error {
    let root = match error.find_root() {
        DataFusionError::ArrowError(error, _) => Err(&**error),
        other => Ok(other),
    };
    match root {
        Ok(DataFusionError::Execution(_))
        | Err(
            ArrowError::CastError(_)
            | ArrowError::ParseError(_)
            | ArrowError::ComputeError(_)
            | ArrowError::DivideByZero
            | ArrowError::ArithmeticOverflow(_)
            | ArrowError::InvalidArgumentError(_),
        ) => Error::Sql(error.strip_backtrace()),
        _ => engine.failure(error),
    }
}

/// A session that knows nothing but the table and functions.
fn state(engine: &Engine, table: Arc<dyn TableProvider>) -> Result<SessionState, Error> {
    let left_out = |name: &str, aliases: &[String]| {
        LEFT_OUT.contains(&name) || aliases.iter().any(|alias| LEFT_OUT.contains(&alias.as_str()))
    };
    let mut scalars = SessionStateDefaults::default_scalar_functions();
    scalars.retain(|function| !left_out(function.name(), function.aliases()));
    let scalars = scalars.into_iter().map(bounded).collect();
    let mut aggregates = SessionStateDefaults::default_aggregate_functions();
    aggregates.extend(functions::all());
    let config =
        engine.context().copied_config().set_bool("datafusion.execution.enable_recursive_ctes", false);
    let state = SessionStateBuilder::new()
        .with_config(config)
        .with_runtime_env(Arc::clone(engine.environment()))
        .with_expr_planners(SessionStateDefaults::default_expr_planners())
        .with_scalar_functions(scalars)
        .with_aggregate_functions(aggregates)
        .with_window_functions(SessionStateDefaults::default_window_functions())
        .build();
    let context = SessionContext::new_with_state(state);
    context.register_table("events", table).map_err(|error| engine.failure(error))?;
    Ok(context.state())
}

/// Reads a statement, and the properties that it uses as columns.
fn parse(text: &str) -> Result<(Statement, Vec<Column>), Error> {
    if text.len() > MAX_BYTES {
        return Err(Error::Sql(format!("a statement has at most {MAX_BYTES} bytes")));
    }
    let tokens = Tokenizer::new(&GenericDialect, text).tokenize();
    let links = tokens.iter().flatten().filter(|token| is_link(token)).count();
    if links > MAX_LINKS {
        return Err(Error::Sql(format!("a statement has at most {MAX_LINKS} keywords and operators")));
    }
    let mut statements = DFParser::parse_sql(text).map_err(|error| match error.find_root() {
        DataFusionError::SQL(error, _) => Error::Sql(error.to_string()),
        _ => Error::Sql(error.strip_backtrace()),
    })?;
    let first = statements.pop_front().filter(|first| statements.is_empty() && is_query(first));
    let Some(mut statement) = first else {
        let problem = "one query can be run: `select …`, `with … select …` or `explain` of such over the table `events`, or \
                       `describe events`";
        return Err(Error::Sql(problem.to_owned()));
    };
    let inner = match &mut statement {
        Statement::Explain(explain) => &mut *explain.statement,
        other => other,
    };
    let Statement::Statement(query) = inner else {
        return Err(Error::Sql("`explain` takes a query".to_owned()));
    };
    let mut growth = Growth::default();
    let _ = query.visit(&mut growth);
    if growth.has_pipe {
        return Err(Error::Sql("instead of `|>`, use a subquery or `with … as (…)`".to_owned()));
    }
    let Size { tables, width } = growth.size();
    if tables > MAX_TABLES || width > MAX_WIDTH {
        let problem = format!(
            "a statement reads at most {MAX_TABLES} tables, and a column comes to at most {MAX_WIDTH} of `events`: what subqueries \
             and common table expressions have counts as often as it is used"
        );
        return Err(Error::Sql(problem));
    }
    if growth.condition > MAX_CONDITION {
        let problem = format!(
            "conditions, groups and orders of a query come to at most {MAX_CONDITION} columns of `events`: what common table \
             expressions and subqueries have counts as often as it is used"
        );
        return Err(Error::Sql(problem));
    }
    let mut columns = Vec::new();
    let found = visit_expressions_mut(query, |expr| {
        if let Some((table, column)) = property(expr) {
            let name = Ident::with_quote('"', column.name());
            *expr = match table {
                Some(table) => Expr::CompoundIdentifier(vec![table, name]),
                None => Expr::Identifier(name),
            };
            if !columns.contains(&column) {
                columns.push(column);
            }
            if columns.len() > MAX_PROPERTIES {
                return ControlFlow::Break(());
            }
        }
        ControlFlow::Continue(())
    });
    if found.is_break() {
        return Err(Error::Sql(format!("a statement can use at most {MAX_PROPERTIES} properties")));
    }
    Ok((statement, columns))
}

/// Whether a token can lengthen a chain such as `1 + 1 + 1`, which is as deep as it is long. (Parentheses nest, and the parser
/// bounds that; a list has commas and may be long.)
fn is_link(token: &Token) -> bool {
    match token {
        Token::Word(word) => word.keyword != Keyword::NoKeyword,
        Token::Number(..)
        | Token::SingleQuotedString(_)
        | Token::DoubleQuotedString(_)
        | Token::Whitespace(_)
        | Token::Comma
        | Token::LParen
        | Token::RParen => false,
        _ => true,
    }
}

/// Whether a statement only reads.
fn is_query(statement: &Statement) -> bool {
    match statement {
        Statement::Statement(statement) => {
            matches!(**statement, SqlStatement::Query(_) | SqlStatement::ExplainTable { .. })
        }
        Statement::Explain(explain) => {
            matches!(&*explain.statement, Statement::Statement(inner) if matches!(**inner, SqlStatement::Query(_)))
        }
        Statement::CreateExternalTable(_) | Statement::CopyTo(_) | Statement::Reset(_) => false,
    }
}

/// The column that a call of `property` or `property_number` stands for, and the table's alias.
fn property(expr: &Expr) -> Option<(Option<Ident>, Column)> {
    let Expr::Function(Function { name, args: FunctionArguments::List(list), .. }) = expr else {
        return None;
    };
    let column: fn(String) -> Column = match name.to_string().to_ascii_lowercase().as_str() {
        "property" => Column::Text,
        "property_number" => Column::Number,
        _ => return None,
    };
    let argument = |argument: &FunctionArg| match argument {
        FunctionArg::Unnamed(FunctionArgExpr::Expr(expr)) => Some(expr.clone()),
        _ => None,
    };
    let (table, key) = match list.args.as_slice() {
        [key] => (None, argument(key)?),
        [table, key] => match argument(table)? {
            Expr::Identifier(table) => (Some(table), argument(key)?),
            _ => return None,
        },
        _ => return None,
    };
    match key {
        Expr::Value(value) => Some((table, column(value.value.into_string()?))),
        _ => None,
    }
}
