//! Where events come from.

use std::sync::Arc;

use datafusion::{catalog::TableProvider, common::Column as Name, logical_expr::Expr};
use weir_store::view::Column;

use crate::Error;

/// Events of one project that don't change while a question is answered.
pub trait Events: Send + Sync {
    /// A table with these columns, each once.
    ///
    /// # Errors
    /// When the events can't be read.
    fn table(&self, columns: &[Column]) -> Result<Arc<dyn TableProvider>, Error>;
}

/// A column of such a table in an expression.
pub(crate) fn column(column: &Column) -> Expr {
    Expr::Column(Name::new_unqualified(column.name()))
}
