//! SQL over one table, `events`: the events of one project.
//!
//! | module | what it does |
//! |---|---|
//! | [`statement`] | reads a statement |
//! | [`check`] | an allowlist of clauses and operators, and accounts of how large a statement becomes |
//! | [`allowed`] | the functions, with what each costs |
//! | [`titles`] | titles of columns |
//! | [`session`] | what a statement is planned with |
//! | [`meter`], [`metered`] | the account of a statement, to which functions charge time and memory |
//! | [`yielding`] | operators that can be stopped and are accounted |
//! | [`arithmetic`], [`sum`], [`zones`], [`literals`] | numbers and times as SQL has them |
//! | [`distinct`] | `count(distinct …)` of texts |
//! | [`functions`] | `funnel_depth` and `retention` |
//! | [`mod@words`], [`mismatch`] | errors |
//!
//! The table has the columns of [`weir_store::schema`], and `partition`: with `log_offset`, an event's identity. `property('plan')` is the
//! text of a property and `property_number('price')`
//! its number; in a join, `property(a, 'plan')` says of which table.
//!
//! A statement can't take the process down, and its threads are free again shortly after its deadline. That follows from four rules: what
//! is not listed is refused; a statement is small when everything that it names is written out; between any two operators the deadline is
//! checked and batches are cut to a megabyte; and what a function makes of a batch is bounded, sliced and charged.

use std::{sync::Arc, time::Duration};

use arrow::error::ArrowError;
use datafusion::{error::DataFusionError, execution::context::SQLOptions, physical_plan::ExecutionPlan};
use weir_store::view::Column;

use crate::{Engine, Error, Events, Rows, export::all_columns};

mod allowed;
mod arithmetic;
mod bytes;
mod check;
mod distinct;
pub mod functions;
mod literals;
mod meter;
mod metered;
mod mismatch;
mod session;
mod statement;
mod sum;
mod titles;
mod words;
mod yielding;
mod zones;

use meter::{DeadlinePassed, Meter};
use statement::Read;
use words::{words, words_of_values};

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
        let meter = Meter::new(limits.time);
        let plan =
            self.run(limits.time, move |engine| async move { plan(&engine, &*events, &text, &meter).await });
        let plan = plan.await?;
        Ok(self.rows(plan, limits.time, limits.rows, failure))
    }
}

async fn plan(
    engine: &Engine,
    events: &dyn Events,
    text: &str,
    meter: &Arc<Meter>,
) -> Result<Arc<dyn ExecutionPlan>, Error> {
    let Read { statement, properties } = statement::read(text)?;
    let mut columns = all_columns();
    columns.extend(properties);
    columns.push(Column::Partition);
    let state = session::state(engine, events.table(&columns)?, meter)?;
    let planned = async {
        let plan = state.statement_to_plan(statement).await?;
        let nothing =
            SQLOptions::new().with_allow_ddl(false).with_allow_dml(false).with_allow_statements(false);
        nothing.verify_plan(&plan)?;
        let plan = state.create_physical_plan(&plan).await?;
        meter.check()?;
        meter.check_folded()?;
        meter.planned();
        yielding::yielding(plan, meter)
    };
    planned.await.map_err(|error| match error.find_root() {
        DataFusionError::ResourcesExhausted(_)
        | DataFusionError::ObjectStore(_)
        | DataFusionError::External(_) => failure(engine, error),
        _ => Error::Sql(words(&error, text)),
    })
}

/// What an error of a query that runs means. A text that is no number, a division by zero: these are the statement's.
fn failure(engine: &Engine, error: DataFusionError) -> Error {
    match error.find_root() {
        DataFusionError::External(cause) if cause.is::<DeadlinePassed>() => cause
            .downcast_ref()
            .map_or(Error::TooSlow(Duration::ZERO), |DeadlinePassed(time)| Error::TooSlow(*time)),
        DataFusionError::Execution(_) => Error::Sql(words_of_values(&error)),
        DataFusionError::ArrowError(inner, _) => match &**inner {
            ArrowError::CastError(_)
            | ArrowError::ParseError(_)
            | ArrowError::ComputeError(_)
            | ArrowError::DivideByZero
            | ArrowError::ArithmeticOverflow(_)
            | ArrowError::InvalidArgumentError(_) => Error::Sql(words_of_values(&error)),
            _ => engine.failure(error),
        },
        _ => engine.failure(error),
    }
}
