//! A statement as it is read: checked, its columns titled, and what stands for functions of Weir rewritten.

use std::ops::ControlFlow;

use datafusion::{
    error::DataFusionError,
    sql::{
        parser::{DFParser, Statement},
        sqlparser::{
            ast::{
                Expr, Function, FunctionArg, FunctionArgExpr, FunctionArgumentList, FunctionArguments, Ident,
                ObjectName, Query, Statement as SqlStatement, UnaryOperator, Value, visit_expressions_mut,
            },
            dialect::GenericDialect,
            keywords::Keyword,
            tokenizer::{Token, Tokenizer},
        },
    },
};
use weir_store::view::Column;

use super::{
    check::{
        Checker,
        bounds::{MAX_BYTES, MAX_LINKS, MAX_PROPERTIES},
        is_float,
    },
    titles::title,
    words::words,
};
use crate::Error;

/// A statement that may be planned.
#[derive(Debug)]
pub(super) struct Read {
    pub(super) statement: Statement,
    /// The properties that it uses as columns.
    pub(super) properties: Vec<Column>,
}

/// Reads a statement.
pub(super) fn read(text: &str) -> Result<Read, Error> {
    if text.len() > MAX_BYTES {
        return Err(Error::Sql(format!("a statement has at most {MAX_BYTES} bytes")));
    }
    let tokens = Tokenizer::new(&GenericDialect, text).tokenize_with_location().unwrap_or_default();
    let links = tokens.iter().filter(|token| is_link(&token.token)).count();
    if links > MAX_LINKS {
        return Err(Error::Sql(format!("a statement has at most {MAX_LINKS} keywords and operators")));
    }
    let mut statements =
        DFParser::parse_sql(text).map_err(|error: DataFusionError| Error::Sql(words(&error, text)))?;
    let first = statements.pop_front().filter(|_| statements.is_empty());
    let not_a_query = || {
        let problem = "one query can be run: `select …`, `with … select …` or `explain` of such over the table `events`, or \
                       `describe events`";
        Error::Sql(problem.to_owned())
    };
    let mut statement = first.ok_or_else(not_a_query)?;
    let inner = match &mut statement {
        Statement::Explain(explain) => {
            let options = &explain.options;
            if options.analyze
                || options.verbose
                || options.format.is_some()
                || options.show_statistics.is_some()
            {
                let problem =
                    "`explain` shows the logical plan of a query, without options such as `analyze`";
                return Err(Error::Sql(problem.to_owned()));
            }
            &mut *explain.statement
        }
        other => other,
    };
    let Statement::Statement(inner) = inner else { return Err(not_a_query()) };
    let query = match &mut **inner {
        SqlStatement::Query(query) => query,
        SqlStatement::ExplainTable { table_name, .. }
            if table_name.to_string().to_lowercase() == "events" =>
        {
            return Ok(Read { statement, properties: Vec::new() });
        }
        SqlStatement::ExplainTable { table_name, .. } => {
            let problem = format!("there is no table `{table_name}`: the events are in `events`");
            return Err(Error::Sql(problem));
        }
        _ => return Err(not_a_query()),
    };
    Checker::default().statement(query)?;
    title(query, text, &tokens);
    let properties = rewrite(query)?;
    Ok(Read { statement, properties })
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

/// Puts columns in the place of properties, and functions in the place of operators that DataFusion plans otherwise than SQL has them.
fn rewrite(query: &mut Query) -> Result<Vec<Column>, Error> {
    let mut columns = Vec::new();
    let found = visit_expressions_mut(query, |expr| {
        if let Some((table, column)) = property(expr) {
            let name = Ident::with_quote('"', column.name());
            let read = match table {
                Some(table) => Expr::CompoundIdentifier(vec![table, name]),
                None => Expr::Identifier(name),
            };
            *expr = match column {
                Column::Number(_) => call("one_zero", vec![read]),
                _ => read,
            };
            if !columns.contains(&column) {
                columns.push(column);
            }
            if columns.len() > MAX_PROPERTIES {
                return ControlFlow::Break(());
            }
            return ControlFlow::Continue(());
        }
        match expr {
            Expr::AtTimeZone { timestamp, time_zone } => {
                *expr = call("at_time_zone", vec![take(timestamp), take(time_zone)]);
            }
            Expr::UnaryOp { op: UnaryOperator::Minus, expr: of } => match &**of {
                Expr::Value(value) => {
                    let is_zero =
                        matches!(&value.value, Value::Number(text, _) if text.parse() == Ok(0.0_f64));
                    if is_zero {
                        *expr = take(of);
                    }
                }
                _ => *expr = call("negative", vec![take(of)]),
            },
            Expr::Cast { data_type, .. } if is_float(data_type) => *expr = call("one_zero", vec![take(expr)]),
            Expr::TypedString(typed) if is_float(&typed.data_type) => {
                *expr = call("one_zero", vec![take(expr)])
            }
            _ => {}
        }
        ControlFlow::Continue(())
    });
    if found.is_break() {
        return Err(Error::Sql(format!("a statement can use at most {MAX_PROPERTIES} properties")));
    }
    Ok(columns)
}

fn take(expr: &mut Expr) -> Expr {
    std::mem::replace(expr, Expr::Value(Value::Null.into()))
}

fn call(name: &str, arguments: Vec<Expr>) -> Expr {
    let args = arguments.into_iter().map(|expr| FunctionArg::Unnamed(FunctionArgExpr::Expr(expr))).collect();
    Expr::Function(Function {
        name: ObjectName::from(Ident::new(name)),
        uses_odbc_syntax: false,
        parameters: FunctionArguments::None,
        args: FunctionArguments::List(FunctionArgumentList {
            duplicate_treatment: None,
            args,
            clauses: Vec::new(),
        }),
        filter: None,
        null_treatment: None,
        over: None,
        within_group: Vec::new(),
    })
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
