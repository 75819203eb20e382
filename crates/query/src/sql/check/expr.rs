//! Expressions: operators, functions, and what they come to.

use datafusion::sql::sqlparser::{
    ast::{
        AccessExpr, BinaryOperator, CastKind, CeilFloorKind, DataType, Expr, Function, FunctionArg,
        FunctionArgExpr, FunctionArgumentClause, FunctionArguments, NamedWindowDefinition, NamedWindowExpr,
        Spanned, Subscript, UnaryOperator, Value, WindowFrameBound, WindowSpec, WindowType,
    },
    tokenizer::Span,
};
use regex::RegexBuilder;

use super::{
    Checker, Refusal, Result, Size,
    bounds::{self, MAX_PATTERN_BYTES},
    unsupported, within,
};
use crate::{
    fields::nearest,
    sql::allowed::{self, AGGREGATES, Cost, Kind, SCALARS, WINDOWS},
};

impl Checker {
    /// Checks an expression on its own and counts it.
    pub(super) fn counted(&mut self, expr: &Expr) -> Result<Size> {
        let size = self.expr(expr)?;
        self.written_out = self.written_out.saturating_add(size.columns);
        self.constants = self.constants.saturating_add(size.constants);
        within(self.written_out, bounds::WRITTEN_OUT, expr.span())?;
        within(self.constants, bounds::CONSTANTS, expr.span())?;
        Ok(size)
    }

    /// The same where its size is no part of a column.
    pub(super) fn part(&mut self, expr: &Expr) -> Result {
        self.counted(expr).map(drop)
    }

    /// What an expression comes to.
    pub(super) fn expr(&mut self, expr: &Expr) -> Result<Size> {
        let mut size = Size::default();
        match expr {
            Expr::Identifier(_) | Expr::CompoundIdentifier(_) => {
                // Of the widest that is read: which one it is, the planner knows.
                let source = self.source();
                return Ok(Size { tables: 0, columns: source.columns.max(1), constants: source.constants });
            }
            Expr::Value(value) => size.constants = bytes(&value.value),
            Expr::TypedString(typed) => {
                castable(&typed.data_type, expr.span())?;
                size.constants = bytes(&typed.value.value);
            }
            Expr::Interval(interval) => {
                if !matches!(&*interval.value, Expr::Value(_)) {
                    let problem = "an interval is of a literal, as in interval '1 day'";
                    return Err(Refusal::new(interval.value.span(), problem));
                }
                return self.expr(&interval.value);
            }
            Expr::IsFalse(of)
            | Expr::IsNotFalse(of)
            | Expr::IsTrue(of)
            | Expr::IsNotTrue(of)
            | Expr::IsNull(of)
            | Expr::IsNotNull(of)
            | Expr::IsUnknown(of)
            | Expr::IsNotUnknown(of)
            | Expr::Nested(of)
            | Expr::Extract { expr: of, .. } => return self.expr(of),
            Expr::IsDistinctFrom(left, right) | Expr::IsNotDistinctFrom(left, right) => {
                return self.all([&**left, right]);
            }
            Expr::InList { expr: of, list, .. } => {
                within(list.len() as u64, bounds::LISTED, of.span())?;
                size = self.expr(of)?;
                size.add(self.all(list)?);
            }
            Expr::InSubquery { expr: of, subquery, .. } => {
                size = self.expr(of)?;
                size.add(self.subquery(subquery, expr.span())?);
            }
            Expr::Exists { subquery, .. } | Expr::Subquery(subquery) => {
                size = self.subquery(subquery, expr.span())?;
            }
            Expr::Between { expr: of, low, high, .. } => return self.all([&**of, low, high]),
            Expr::BinaryOp { left, op, right } => {
                self.operator(op, right)?;
                if is_arithmetic(op) {
                    self.arithmetic(right.span())?;
                }
                return self.all([&**left, right]);
            }
            Expr::UnaryOp { op, expr: of } => {
                if !matches!(op, UnaryOperator::Plus | UnaryOperator::Minus | UnaryOperator::Not) {
                    return unsupported(expr.span(), &format!("the operator `{op}`"));
                }
                if *op == UnaryOperator::Minus && !matches!(**of, Expr::Value(_)) {
                    self.arithmetic(of.span())?;
                }
                return self.expr(of);
            }
            Expr::Like { any: false, expr: of, pattern, .. }
            | Expr::ILike { any: false, expr: of, pattern, .. } => {
                self.literal_pattern(pattern, "`like`")?;
                return self.all([&**of, pattern]);
            }
            Expr::Cast { kind, expr: of, data_type, array: false, format: None } => {
                if !matches!(kind, CastKind::Cast | CastKind::TryCast | CastKind::DoubleColon) {
                    return unsupported(expr.span(), "this kind of cast");
                }
                castable(data_type, of.span())?;
                if is_float(data_type) {
                    self.arithmetic(of.span())?;
                }
                return self.expr(of);
            }
            Expr::AtTimeZone { timestamp, time_zone } => {
                let Some(zone) = literal(time_zone) else {
                    return Err(Refusal::new(
                        time_zone.span(),
                        "`at time zone` takes the name of a zone as a literal, as in 'Europe/Berlin'",
                    ));
                };
                crate::sql::zones::zone(&zone).map_err(|problem| Refusal::new(time_zone.span(), problem))?;
                self.arithmetic(time_zone.span())?;
                return self.expr(timestamp);
            }
            Expr::Ceil { expr: of, field } | Expr::Floor { expr: of, field } => {
                if !matches!(field, CeilFloorKind::DateTimeField(_)) {
                    return unsupported(expr.span(), "a scale of `ceil` or `floor`");
                }
                return self.expr(of);
            }
            Expr::Position { expr: of, r#in } => return self.all([&**of, r#in]),
            Expr::Substring { expr: of, substring_from, substring_for, special: _, shorthand: _ } => {
                let rest = substring_from.iter().chain(substring_for).map(|part| &**part);
                return self.all(std::iter::once(&**of).chain(rest));
            }
            Expr::Trim { trim_where: _, trim_what, expr: of, trim_characters } => {
                let rest = trim_what.iter().map(|what| &**what).chain(trim_characters.iter().flatten());
                return self.all(std::iter::once(&**of).chain(rest));
            }
            Expr::Case { case_token: _, end_token: _, operand, conditions, else_result } => {
                let operand = operand.iter().chain(else_result).map(|part| &**part);
                let conditions = conditions.iter().flat_map(|when| [&when.condition, &when.result]);
                return self.all(operand.chain(conditions));
            }
            Expr::Tuple(parts) => return self.all(parts),
            Expr::Array(array) => return self.all(&array.elem),
            Expr::CompoundFieldAccess { root, access_chain } => {
                size = self.expr(root)?;
                for access in access_chain {
                    let AccessExpr::Subscript(Subscript::Index { index }) = access else {
                        return unsupported(expr.span(), "slices and fields (use array_slice)");
                    };
                    size.add(self.expr(index)?);
                }
            }
            Expr::Function(function) => return self.function(function, expr.span()),
            Expr::GroupingSets(_) | Expr::Cube(_) | Expr::Rollup(_) => {
                return unsupported(
                    expr.span(),
                    "`cube`, `rollup` and `grouping sets` outside of `group by`",
                );
            }
            other => return unsupported(other.span(), &format!("`{}`", shortened(&other.to_string()))),
        }
        Ok(size)
    }

    fn all<'e>(&mut self, exprs: impl IntoIterator<Item = &'e Expr>) -> Result<Size> {
        let mut sum = Size::default();
        for expr in exprs {
            sum.add(self.expr(expr)?);
        }
        Ok(sum)
    }

    fn subquery(&mut self, query: &datafusion::sql::sqlparser::ast::Query, at: Span) -> Result<Size> {
        self.subqueries += 1;
        within(self.subqueries, bounds::SUBQUERIES, at)?;
        self.query(query)
    }

    fn arithmetic(&mut self, at: Span) -> Result {
        self.arithmetic += 1;
        within(self.arithmetic, bounds::ARITHMETIC, at)
    }

    fn operator(&mut self, operator: &BinaryOperator, right: &Expr) -> Result {
        use BinaryOperator as Op;
        match operator {
            Op::Plus
            | Op::Minus
            | Op::Multiply
            | Op::Divide
            | Op::Modulo
            | Op::StringConcat
            | Op::Gt
            | Op::Lt
            | Op::GtEq
            | Op::LtEq
            | Op::Eq
            | Op::NotEq
            | Op::And
            | Op::Or
            | Op::BitwiseAnd
            | Op::BitwiseOr
            | Op::BitwiseXor => Ok(()),
            Op::PGRegexMatch | Op::PGRegexIMatch | Op::PGRegexNotMatch | Op::PGRegexNotIMatch => {
                self.regular_expression(right)
            }
            other => unsupported(right.span(), &format!("the operator `{other}`")),
        }
    }

    /// Counts a pattern, which must be literal: one of each row would be compiled for each row.
    fn literal_pattern(&mut self, pattern: &Expr, of: &str) -> Result<String> {
        let Some(text) = literal(pattern) else {
            let problem = format!("the pattern of {of} must be a literal, as in 'a.*b'");
            return Err(Refusal::new(pattern.span(), problem));
        };
        self.patterns += 1;
        within(self.patterns, bounds::PATTERNS, pattern.span())?;
        Ok(text)
    }

    fn regular_expression(&mut self, pattern: &Expr) -> Result {
        let text = self.literal_pattern(pattern, "a regular expression")?;
        match RegexBuilder::new(&text).size_limit(MAX_PATTERN_BYTES).build() {
            Ok(_) => Ok(()),
            Err(regex::Error::CompiledTooBig(_)) => Err(Refusal::new(
                pattern.span(),
                "the regular expression is too large: use fewer or shorter repetitions",
            )),
            Err(error) => {
                // The last line of the message says what is wrong, those before it show the pattern.
                let shown = error.to_string();
                let last = shown.lines().last().unwrap_or_default().trim_start_matches("error: ");
                Err(Refusal::new(pattern.span(), format!("the regular expression can't be read: {last}")))
            }
        }
    }

    fn function(&mut self, function: &Function, at: Span) -> Result<Size> {
        let Function { name, uses_odbc_syntax, parameters, args, filter, null_treatment, over, within_group } =
            function;
        if *uses_odbc_syntax || !matches!(parameters, FunctionArguments::None) {
            return unsupported(at, "this form of a call");
        }
        let text = name.to_string().to_lowercase();
        let kind = kind(&text, over.is_some())
            .ok_or_else(|| Refusal::new(name.span(), unknown(&text, over.is_some())))?;
        let mut arguments: Vec<&Expr> = Vec::new();
        let mut orders = within_group.as_slice();
        match args {
            FunctionArguments::None => {}
            FunctionArguments::Subquery(_) => return unsupported(at, "a subquery as an argument"),
            FunctionArguments::List(list) => {
                for argument in &list.args {
                    match argument {
                        FunctionArg::Unnamed(FunctionArgExpr::Expr(expr)) => arguments.push(expr),
                        FunctionArg::Unnamed(FunctionArgExpr::Wildcard) if text == "count" => {}
                        _ => return unsupported(at, "an argument by name"),
                    }
                }
                for clause in &list.clauses {
                    match clause {
                        FunctionArgumentClause::OrderBy(by) => orders = by,
                        FunctionArgumentClause::IgnoreOrRespectNulls(_) if over.is_none() => {}
                        _ => return unsupported(at, "this clause of a call"),
                    }
                }
            }
        }
        if null_treatment.is_some() && over.is_some() {
            return unsupported(at, "`ignore nulls` with `over`");
        }
        if let Kind::Scalar(Cost::Pattern | Cost::PatternReplacing) = kind {
            let pattern = arguments
                .get(1)
                .ok_or_else(|| Refusal::new(at, format!("{text} takes a text and a pattern")))?;
            self.regular_expression(pattern)?;
            // A start or flags of each row would be another pattern.
            let rest = arguments.iter().skip(if text == "regexp_replace" { 3 } else { 2 });
            for flag in rest {
                if !matches!(flag, Expr::Value(_)) {
                    return Err(Refusal::new(
                        flag.span(),
                        format!("flags and start of {text} must be literals"),
                    ));
                }
            }
        }
        let mut size = self.all(arguments)?;
        self.orders(orders)?;
        if let Some(filter) = filter {
            size.add(self.expr(filter)?);
        }
        match over {
            Some(window) => {
                self.windows += 1;
                within(self.windows, bounds::WINDOWS, at)?;
                if let WindowType::WindowSpec(spec) = window {
                    self.window(spec)?;
                }
            }
            None if kind == Kind::Window => {
                return Err(Refusal::new(name.span(), format!("{text} needs `over (…)`")));
            }
            None => {}
        }
        Ok(size)
    }

    pub(super) fn named_window(&mut self, window: &NamedWindowDefinition) -> Result {
        match &window.1 {
            NamedWindowExpr::NamedWindow(_) => Ok(()),
            NamedWindowExpr::WindowSpec(spec) => self.window(spec),
        }
    }

    fn window(&mut self, spec: &WindowSpec) -> Result {
        let at = spec.partition_by.first().map_or_else(Span::empty, Spanned::span);
        within(spec.partition_by.len() as u64, bounds::KEYS, at)?;
        spec.partition_by.iter().try_for_each(|expr| self.part(expr))?;
        self.orders(&spec.order_by)?;
        if let Some(frame) = &spec.window_frame {
            for bound in std::iter::once(&frame.start_bound).chain(&frame.end_bound) {
                if let WindowFrameBound::Preceding(Some(expr)) | WindowFrameBound::Following(Some(expr)) =
                    bound
                {
                    self.part(expr)?;
                }
            }
        }
        Ok(())
    }
}

/// Whether an operator is planned as a function.
fn is_arithmetic(operator: &BinaryOperator) -> bool {
    use BinaryOperator as Op;
    matches!(operator, Op::Plus | Op::Minus | Op::Multiply | Op::Divide | Op::Modulo | Op::StringConcat)
}

/// What a name stands for. `property` and its like are read before anything is planned.
fn kind(name: &str, over: bool) -> Option<Kind> {
    if matches!(name, "property" | "property_number") {
        return Some(Kind::Scalar(Cost::Linear));
    }
    if over {
        let aggregate = AGGREGATES.iter().any(|(listed, over)| *over && *listed == canonical(name));
        return (WINDOWS.contains(&name) || aggregate).then_some(Kind::Window);
    }
    let name = canonical(name);
    if let Some((_, over)) = AGGREGATES.iter().find(|(listed, _)| *listed == name) {
        return Some(Kind::Aggregate { over: *over });
    }
    if let Some(cost) = allowed::scalar(name) {
        return (cost != Cost::Internal).then_some(Kind::Scalar(cost));
    }
    WINDOWS.contains(&name).then_some(Kind::Window)
}

/// The listed name of an alias.
fn canonical(name: &str) -> &str {
    allowed::ALIASES.iter().find(|(alias, _)| *alias == name).map_or(name, |(_, listed)| listed)
}

/// Why there is no function of a name.
fn unknown(name: &str, over: bool) -> String {
    let shown = shortened(name);
    if over && kind(name, false).is_some() {
        return format!("{shown} can't be used with `over`");
    }
    if let Some(why) = allowed::refused(canonical(name)) {
        return format!("the function {shown} can't be used: it {why}");
    }
    let known = SCALARS.iter().filter(|(_, cost)| *cost != Cost::Internal).map(|(name, _)| *name);
    let known = known.chain(AGGREGATES.iter().map(|(name, _)| *name)).chain(WINDOWS.iter().copied());
    let known = known.chain(["property", "property_number"]);
    match nearest(name, known).first() {
        Some(near) => format!("there is no function {shown}: did you mean {near}?"),
        None => format!("there is no function {shown}"),
    }
}

/// The text of a literal.
fn literal(expr: &Expr) -> Option<String> {
    match expr {
        Expr::Value(value) => value.value.clone().into_string(),
        Expr::Nested(inner) => literal(inner),
        _ => None,
    }
}

fn bytes(value: &Value) -> u64 {
    match value {
        Value::Number(..) | Value::Boolean(_) | Value::Null => 8,
        other => other.clone().into_string().map_or(8, |text| text.len() as u64),
    }
}

/// The beginning of what a message shows of a statement.
pub(super) fn shortened(text: &str) -> String {
    const SHOWN: usize = 60;
    match text.char_indices().nth(SHOWN) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text.to_owned(),
    }
}

/// Whether values of a type are floating-point numbers.
pub(in super::super) const fn is_float(of: &DataType) -> bool {
    matches!(
        of,
        DataType::Float(_)
            | DataType::Float4
            | DataType::Float8
            | DataType::Real
            | DataType::Double(_)
            | DataType::DoublePrecision
    )
}

/// Types that a value can be cast to.
fn castable(to: &DataType, at: Span) -> Result {
    match to {
        DataType::Boolean
        | DataType::Bool
        | DataType::TinyInt(_)
        | DataType::SmallInt(_)
        | DataType::Int(_)
        | DataType::Integer(_)
        | DataType::BigInt(_)
        | DataType::Int2(_)
        | DataType::Int4(_)
        | DataType::Int8(_)
        | DataType::Float(_)
        | DataType::Float4
        | DataType::Float8
        | DataType::Real
        | DataType::Double(_)
        | DataType::DoublePrecision
        | DataType::Decimal(_)
        | DataType::Numeric(_)
        | DataType::Text
        | DataType::String(_)
        | DataType::Varchar(_)
        | DataType::Char(_)
        | DataType::CharVarying(_)
        | DataType::CharacterVarying(_)
        | DataType::Date
        | DataType::Time(..)
        | DataType::Timestamp(..)
        | DataType::Interval { .. } => Ok(()),
        other => unsupported(at, &format!("the type {}", shortened(&other.to_string()))),
    }
}
