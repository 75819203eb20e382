//! The functions that a statement may use, and what each costs.
//!
//! A function that is not listed here does not exist for a statement. Every function of DataFusion is in one of the lists, [`REFUSED`]
//! included, and a test compares them with what DataFusion registers: a new version that adds one fails the test and widens
//! nothing.

/// What a call costs, as a function of the bytes of its arguments.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Cost {
    /// The same for each row, whatever is in it.
    Constant,
    /// Time and result are linear in the arguments.
    Linear,
    /// The result is as long as all arguments together, each counted as often as it is given.
    Joining,
    /// The result can be as long as the product of the arguments: each byte of the first can become another argument.
    Replacing,
    /// Time can be the product of the lengths of the two arguments, which is bounded for each slice of a batch.
    Quadratic,
    /// Linear, by a pattern (the second argument) that is compiled and held to [`MAX_PATTERN_BYTES`](super::check::bounds::MAX_PATTERN_BYTES):
    /// literal, so that there is one.
    Pattern,
    /// A pattern, and the result can be a product.
    PatternReplacing,
    /// The planner puts a condition or a constant in its place, so that it is never called itself.
    Replaced,
    /// Never by name: what the planner puts in the place of syntax or of other functions.
    Internal,
}

/// Where a function may stand.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    /// Of the values of a row.
    Scalar(Cost),
    /// Of the values of a group; with `over`, too, if evaluating it again for each row is cheap.
    Aggregate {
        /// Whether it may have `over`.
        over: bool,
    },
    /// Only with `over`.
    Window,
}

use Cost::{Constant, Internal, Joining, Linear, Pattern, PatternReplacing, Quadratic, Replaced, Replacing};

/// Scalar functions by their first name at DataFusion.
pub(super) const SCALARS: &[(&str, Cost)] = &[
    // Numbers
    ("abs", Constant),
    ("acos", Constant),
    ("acosh", Constant),
    ("asin", Constant),
    ("asinh", Constant),
    ("atan", Constant),
    ("atan2", Constant),
    ("atanh", Constant),
    ("cbrt", Constant),
    ("ceil", Constant),
    ("cos", Constant),
    ("cosh", Constant),
    ("cot", Constant),
    ("degrees", Constant),
    ("exp", Constant),
    ("floor", Constant),
    ("gcd", Constant),
    ("isnan", Constant),
    ("iszero", Constant),
    ("lcm", Constant),
    ("ln", Constant),
    ("log", Constant),
    ("log10", Constant),
    ("log2", Constant),
    ("nanvl", Constant),
    ("pi", Constant),
    ("power", Constant),
    ("radians", Constant),
    ("random", Constant),
    ("round", Constant),
    ("signum", Constant),
    ("sin", Constant),
    ("sinh", Constant),
    ("sqrt", Constant),
    ("tan", Constant),
    ("tanh", Constant),
    ("trunc", Constant),
    // Texts
    ("ascii", Constant),
    ("bit_length", Constant),
    ("btrim", Linear),
    ("character_length", Linear),
    ("chr", Constant),
    ("concat", Joining),
    ("concat_ws", Joining),
    ("contains", Linear),
    ("ends_with", Linear),
    ("initcap", Linear),
    ("left", Linear),
    ("levenshtein", Quadratic),
    ("lower", Linear),
    ("ltrim", Linear),
    ("octet_length", Constant),
    ("replace", Replacing),
    ("reverse", Linear),
    ("right", Linear),
    ("rtrim", Linear),
    ("split_part", Linear),
    ("starts_with", Linear),
    ("strpos", Quadratic),
    ("substr", Linear),
    ("to_hex", Constant),
    ("translate", Quadratic),
    ("upper", Linear),
    // Patterns
    ("regexp_count", Pattern),
    ("regexp_like", Pattern),
    ("regexp_match", Pattern),
    ("regexp_replace", PatternReplacing),
    // Dates and times
    ("current_date", Replaced),
    ("current_time", Replaced),
    ("date_bin", Constant),
    ("date_part", Constant),
    ("date_trunc", Constant),
    ("from_unixtime", Constant),
    ("make_date", Constant),
    ("now", Replaced),
    ("to_char", Linear),
    ("to_date", Linear),
    ("to_timestamp", Linear),
    ("to_timestamp_micros", Linear),
    ("to_timestamp_millis", Linear),
    ("to_timestamp_seconds", Linear),
    ("to_unixtime", Linear),
    // Whichever
    ("coalesce", Replaced),
    ("greatest", Linear),
    ("least", Linear),
    ("nullif", Linear),
    ("nvl", Replaced),
    ("nvl2", Replaced),
    // Lists, and the map of properties
    ("array_append", Joining),
    ("array_concat", Joining),
    ("array_distinct", Linear),
    ("array_element", Linear),
    ("array_has", Linear),
    ("array_length", Constant),
    ("array_max", Linear),
    ("array_min", Linear),
    ("array_position", Linear),
    ("array_prepend", Joining),
    ("array_reverse", Linear),
    ("array_slice", Linear),
    ("array_sort", Linear),
    ("array_to_string", Replacing),
    ("cardinality", Constant),
    ("empty", Constant),
    ("get_field", Linear),
    ("make_array", Joining),
    ("map_extract", Linear),
    ("map_keys", Linear),
    ("map_values", Linear),
    ("string_to_array", Linear),
    // Weir's own, for syntax: `at time zone`, `-x`, and numbers as they are stored
    ("at_time_zone", Internal),
    ("negative", Internal),
    ("one_zero", Internal),
];

/// Aggregate functions, and whether they may have `over`: where the frame of a row begins with the first row, they are evaluated for
/// each row, which only those may be whose result does not grow.
pub(super) const AGGREGATES: &[(&str, bool)] = &[
    ("any_value", false),
    ("approx_distinct", false),
    ("approx_median", false),
    ("approx_percentile_cont", false),
    ("array_agg", false),
    ("avg", true),
    ("bit_and", false),
    ("bit_or", false),
    ("bit_xor", false),
    ("bool_and", true),
    ("bool_or", true),
    ("corr", false),
    ("count", true),
    ("covar_pop", false),
    ("covar_samp", false),
    ("first_value", true),
    ("funnel_depth", false),
    ("grouping", false),
    ("last_value", true),
    ("max", true),
    ("median", false),
    ("min", true),
    ("nth_value", true),
    ("percentile_cont", false),
    ("retention", false),
    ("stddev", true),
    ("stddev_pop", true),
    ("string_agg", false),
    ("sum", true),
    ("var", true),
    ("var_pop", true),
];

/// Window functions.
pub(super) const WINDOWS: &[&str] = &[
    "cume_dist",
    "dense_rank",
    "first_value",
    "lag",
    "last_value",
    "lead",
    "nth_value",
    "ntile",
    "percent_rank",
    "rank",
    "row_number",
];

/// Functions of DataFusion that statements can't use, with the reason.
pub(super) const REFUSED: &[(&str, &[&str])] = &[
    (
        "makes large values out of small ones",
        &[
            "array_repeat",
            "array_resize",
            "encode",
            "decode",
            "generate_series",
            "lpad",
            "range",
            "repeat",
            "rpad",
        ],
    ),
    (
        "takes time by the square of a text or list",
        &[
            "array_except",
            "array_has_all",
            "array_has_any",
            "array_intersect",
            "array_union",
            "factorial",
            "find_in_set",
            "substr_index",
        ],
    ),
    (
        "shows types and files of the engine",
        &[
            "arrow_cast",
            "arrow_field",
            "arrow_metadata",
            "arrow_try_cast",
            "arrow_typeof",
            "cast_to_type",
            "file_row_index",
            "input_file_name",
            "try_cast_to_type",
            "union_extract",
            "union_tag",
            "version",
            "with_metadata",
        ],
    ),
    ("gives times a zone that they lose again: use `at time zone`", &["to_local_time"]),
    ("counts nanoseconds, of which 64 bits hold 584 years", &["to_timestamp_nanos"]),
    (
        "has no use for events",
        &[
            "approx_percentile_cont_with_weight",
            "array_add",
            "array_any_value",
            "array_avg",
            "array_compact",
            "array_dims",
            "array_distance",
            "array_ndims",
            "array_normalize",
            "array_pop_back",
            "array_pop_front",
            "array_positions",
            "array_product",
            "array_remove",
            "array_remove_all",
            "array_remove_n",
            "array_replace",
            "array_replace_all",
            "array_replace_n",
            "array_scale",
            "array_subtract",
            "array_sum",
            "arrays_zip",
            "cosine_distance",
            "flatten",
            "inner_product",
            "make_time",
            "map",
            "map_entries",
            "named_struct",
            "overlay",
            "regexp_instr",
            "regr_avgx",
            "regr_avgy",
            "regr_count",
            "regr_intercept",
            "regr_r2",
            "regr_slope",
            "regr_sxx",
            "regr_sxy",
            "regr_syy",
            "struct",
            "to_time",
            "uuid",
        ],
    ),
];

/// What is known under a name; aliases of DataFusion are `names` of the registered function.
pub(super) fn scalar(name: &str) -> Option<Cost> {
    SCALARS.iter().find(|(listed, _)| *listed == name).map(|(_, cost)| *cost)
}

/// Why a function of DataFusion can't be used.
pub(super) fn refused(name: &str) -> Option<&'static str> {
    REFUSED.iter().find(|(_, names)| names.contains(&name)).map(|(why, _)| *why)
}

/// Other names of functions.
pub(super) const ALIASES: &[(&str, &str)] = &[
    ("array_contains", "array_has"),
    ("array_join", "array_to_string"),
    ("array_empty", "empty"),
    ("char_length", "character_length"),
    ("covar", "covar_samp"),
    ("current_timestamp", "now"),
    ("date_format", "to_char"),
    ("datepart", "date_part"),
    ("datetrunc", "date_trunc"),
    ("element_at", "map_extract"),
    ("ifnull", "nvl"),
    ("instr", "strpos"),
    ("length", "character_length"),
    ("mean", "avg"),
    ("position", "strpos"),
    ("pow", "power"),
    ("quantile_cont", "percentile_cont"),
    ("rand", "random"),
    ("stddev_samp", "stddev"),
    ("substring", "substr"),
    ("today", "current_date"),
    ("trim", "btrim"),
    ("var_population", "var_pop"),
    ("var_samp", "var"),
    ("var_sample", "var"),
];
