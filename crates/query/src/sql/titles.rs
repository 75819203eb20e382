//! Titles of columns: an expression without a name is titled by its text as it was written, and no two columns have one title.

use std::collections::HashSet;

use datafusion::sql::sqlparser::{
    ast::{Distinct, Expr, Ident, OrderByKind, Query, Select, SelectItem, SetExpr, TableFactor, Value},
    dialect::GenericDialect,
    parser::Parser,
    tokenizer::{Location, Token, TokenWithSpan},
};

/// Longest title that is written as it stands, bytes: longer ones are cut.
const MAX_TITLE: usize = 200;

/// Gives every column of a query a title.
pub(super) fn title(query: &mut Query, text: &str, tokens: &[TokenWithSpan]) {
    if let Some(with) = &mut query.with {
        with.cte_tables.iter_mut().for_each(|expression| title(&mut expression.query, text, tokens));
    }
    if let (SetExpr::Select(select), Some(order_by)) = (&*query.body, &mut query.order_by)
        && let Some(Distinct::Distinct) = select.distinct
        && let OrderByKind::Expressions(orders) = &mut order_by.kind
    {
        orders.iter_mut().for_each(|order| by_position(&mut order.expr, &select.projection));
    }
    of_set(&mut query.body, text, tokens);
}

/// Puts its position in the place of an expression that a distinct query orders by: the engine knows no columns but those selected.
fn by_position(order: &mut Expr, items: &[SelectItem]) {
    let position = items.iter().position(|item| match item {
        SelectItem::UnnamedExpr(expr) | SelectItem::ExprWithAlias { expr, .. } => expr == order,
        // How many columns these are is not known yet.
        _ => false,
    });
    let is_simple =
        |item: &SelectItem| matches!(item, SelectItem::UnnamedExpr(_) | SelectItem::ExprWithAlias { .. });
    if let Some(at) = position
        && items[..at].iter().all(is_simple)
    {
        *order = Expr::Value(Value::Number((at + 1).to_string(), false).into());
    }
}

fn of_set(set: &mut SetExpr, text: &str, tokens: &[TokenWithSpan]) {
    match set {
        SetExpr::Select(select) => of_select(select, text, tokens),
        SetExpr::Query(query) => title(query, text, tokens),
        SetExpr::SetOperation { left, right, .. } => {
            of_set(left, text, tokens);
            of_set(right, text, tokens);
        }
        _ => {}
    }
}

fn of_select(select: &mut Select, text: &str, tokens: &[TokenWithSpan]) {
    for table in &mut select.from {
        let joined = table.joins.iter_mut().map(|join| &mut join.relation);
        for factor in std::iter::once(&mut table.relation).chain(joined) {
            if let TableFactor::Derived { subquery, .. } = factor {
                title(subquery, text, tokens);
            }
        }
    }
    // Here orders are matched with columns by their expressions.
    if let Some(Distinct::On(_)) = select.distinct {
        return;
    }
    let written = written(select, text, tokens);
    let mut titles: HashSet<String> = select.projection.iter().filter_map(own).collect();
    for (at, item) in select.projection.iter_mut().enumerate() {
        let SelectItem::UnnamedExpr(expr) = item else { continue };
        let mut wanted = match expr {
            Expr::Identifier(_) => continue,
            Expr::CompoundIdentifier(parts) => {
                parts.last().map_or_else(String::new, |part| part.value.clone())
            }
            _ => match written.as_ref().and_then(|written| written.get(at)) {
                Some(written) if is_of(written, expr) => written.clone(),
                _ => expr.to_string(),
            },
        };
        if wanted.len() > MAX_TITLE {
            let end = wanted.floor_char_boundary(MAX_TITLE);
            wanted.truncate(end);
            wanted.push('…');
        }
        let is_column = matches!(expr, Expr::CompoundIdentifier(_));
        if is_column && !titles.contains(&wanted) {
            titles.insert(wanted);
            continue;
        }
        let mut unique = wanted.clone();
        let mut number = 2;
        while !titles.insert(unique.clone()) {
            unique = format!("{wanted}_{number}");
            number += 1;
        }
        let alias = Ident::with_quote('"', unique);
        *item = SelectItem::ExprWithAlias { expr: expr.clone(), alias };
    }
}

/// The title that a column has already.
fn own(item: &SelectItem) -> Option<String> {
    match item {
        SelectItem::UnnamedExpr(Expr::Identifier(name)) | SelectItem::ExprWithAlias { alias: name, .. } => {
            Some(name.value.clone())
        }
        _ => None,
    }
}

/// Whether a text is what an expression was read from.
fn is_of(text: &str, expr: &Expr) -> bool {
    let parser = Parser::new(&GenericDialect).try_with_sql(text);
    parser.and_then(|mut parser| parser.parse_expr()).is_ok_and(|read| read == *expr)
}

/// The texts between the commas of a `select`, if they can be told.
fn written(select: &Select, text: &str, tokens: &[TokenWithSpan]) -> Option<Vec<String>> {
    let start = select.select_token.0.span.start;
    let lines = line_starts(text);
    let mut items = Vec::new();
    let (mut depth, mut first, mut last) = (0u32, None, None);
    let after = tokens.iter().skip_while(|token| token.span.start <= start);
    let mut is_distinct = false;
    for token in after {
        let word = match &token.token {
            Token::Word(word) if word.quote_style.is_none() => word.value.to_ascii_lowercase(),
            _ => String::new(),
        };
        match &token.token {
            Token::LParen | Token::LBracket => depth += 1,
            Token::RParen | Token::RBracket if depth == 0 => break,
            Token::RParen | Token::RBracket => depth -= 1,
            Token::Comma if depth == 0 => {
                items.push(slice(text, &lines, first?, last?)?);
                first = None;
                continue;
            }
            Token::EOF | Token::SemiColon => break,
            Token::Whitespace(_) => continue,
            // `is distinct from`, and not what is read.
            Token::Word(_) if depth == 0 && word == "from" && !is_distinct => break,
            Token::Word(_)
                if depth == 0
                    && matches!(
                        word.as_str(),
                        "where" | "group" | "having" | "order" | "limit" | "union" | "except" | "intersect"
                    ) =>
            {
                break;
            }
            _ => {}
        }
        is_distinct = word == "distinct";
        // Not part of the first column.
        if depth == 0 && items.is_empty() && first.is_none() && matches!(word.as_str(), "distinct" | "all") {
            continue;
        }
        first.get_or_insert(token.span.start);
        last = Some(token.span.end);
    }
    items.push(slice(text, &lines, first?, last?)?);
    (items.len() == select.projection.len()).then_some(items)
}

/// Byte offsets at which the lines of a text begin.
fn line_starts(text: &str) -> Vec<usize> {
    std::iter::once(0).chain(text.match_indices('\n').map(|(at, _)| at + 1)).collect()
}

fn slice(text: &str, lines: &[usize], from: Location, to: Location) -> Option<String> {
    let offset = |at: Location| {
        let line = *lines.get(usize::try_from(at.line).ok()?.checked_sub(1)?)?;
        let column = usize::try_from(at.column).ok()?.checked_sub(1)?;
        let rest = text.get(line..)?;
        Some(line + rest.char_indices().nth(column).map_or(rest.len(), |(at, _)| at))
    };
    Some(text.get(offset(from)?..offset(to)?)?.split_whitespace().collect::<Vec<_>>().join(" "))
}
