//! How large a statement may be, and why. Planning takes time and memory by these sizes and stops only between its steps, so that what
//! they allow together must be planned in a fraction of a second.

/// Longest statement, bytes.
pub(in super::super) const MAX_BYTES: usize = 64 << 10;
/// Keywords and operators: what bounds how deep planning and evaluation recurse on the stack of a thread.
pub(in super::super) const MAX_LINKS: usize = 1000;
/// Properties that one statement uses: each is a column of the scan.
pub(in super::super) const MAX_PROPERTIES: usize = 200;

/// A bound on a sum over the whole statement.
#[derive(Debug, Clone, Copy)]
pub(super) struct Bound {
    /// The most there may be.
    pub(super) most: u64,
    /// Of what, as it stands in the message.
    pub(super) what: &'static str,
}

/// Tables that are read, with those of subqueries and common table expressions as often as they are used: the optimizer takes time by
/// the square of the tables that are joined.
pub(super) const TABLES: Bound = Bound { most: 32, what: "tables" };
/// Grouping sets of one `group by`: `cube` of n columns has 2^n, and each is a row of the hash table for each event.
pub(super) const GROUPING_SETS: Bound = Bound { most: 64, what: "grouping sets in one `group by`" };
/// Columns in `group by`, `partition by` and `order by`: rows of keys are as wide.
pub(super) const KEYS: Bound =
    Bound { most: 64, what: "columns in one `group by`, `order by` or `partition by`" };
/// Columns of one `select`: each is an array in every batch.
pub(super) const COLUMNS: Bound = Bound { most: 500, what: "columns in one `select`" };
/// Columns of `events` that the longest column of a query mentions when what it reads from subqueries is written out, which the
/// optimizer does.
pub(super) const WIDTH: Bound = Bound { most: 1000, what: "columns of `events` in one column" };
/// The same summed over all expressions.
pub(super) const WRITTEN_OUT: Bound = Bound { most: 20_000, what: "columns of `events` in all expressions" };
/// Bytes of constants, written out the same way: the optimizer copies them.
pub(super) const CONSTANTS: Bound = Bound { most: 1 << 20, what: "bytes of constants" };
/// Functions with `over`: each holds a value of every row.
pub(super) const WINDOWS: Bound = Bound { most: 16, what: "functions with `over`" };
/// Patterns of regular expressions and `like`: each is compiled for each batch.
pub(super) const PATTERNS: Bound = Bound { most: 20, what: "patterns" };
/// Operators that are planned as functions, and casts to floating-point numbers: each asks for the type of all that is in it, which takes
/// half a second for a chain of 100 and a minute for one of 1,000.
pub(super) const ARITHMETIC: Bound = Bound { most: 100, what: "operators of arithmetic and `||`" };
/// Values of an `in (…)` list: a hash set of them is built.
pub(super) const LISTED: Bound = Bound { most: 10_000, what: "values in one `in (…)`" };
/// Subqueries in expressions: each becomes a join.
pub(super) const SUBQUERIES: Bound = Bound { most: 16, what: "subqueries in expressions" };

/// A compiled pattern, bytes: the default of the `regex` crate is 10 MiB, which takes a second to compile.
pub(in super::super) const MAX_PATTERN_BYTES: usize = 256 << 10;
