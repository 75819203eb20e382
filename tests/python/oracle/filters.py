"""Filters in SQL. A filter is true or false of every event, never null."""

from texts import text

# What counts as a number where it is compared: also a text that is one.
NUMBER = r"[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][+-]?[0-9]+)?"
COMPARE = {"less": "<", "less_or_equal": "<=", "greater": ">", "greater_or_equal": ">="}


def quoted(plain):
    return "'" + plain.replace("'", "''") + "'"


def sql(world, filter):
    """The SQL of a filter; none lets everything pass."""
    if filter is None:
        return "true"
    if "all_of" in filter:
        return "(" + " and ".join(sql(world, part) for part in filter["all_of"]) + ")"
    if "any_of" in filter:
        return "(" + " or ".join(sql(world, part) for part in filter["any_of"]) + ")"
    if "not" in filter:
        return f"(not {sql(world, filter['not'])})"
    return condition(world.column(filter["field"]), filter["operator"], filter["values"])


def condition(column, operator, values):
    if operator == "exists":
        return f"({column} is not null)"
    if operator == "in":
        texts = [quoted(text(value)) for value in values if value is not None]
        equal = f"coalesce({column} in ({', '.join(texts)}), false)" if texts else "false"
        return f"({equal} or {column} is null)" if None in values else equal
    (value,) = values
    if operator == "contains":
        return f"coalesce(contains({column}, {quoted(text(value))}), false)"
    if operator == "matches":
        return f"coalesce(regexp_matches({column}, {quoted(value)}), false)"
    number = f"case when regexp_full_match({column}, {quoted(NUMBER)}) then try_cast({column} as double) end"
    return f"coalesce({number} {COMPARE[operator]} {float(value)!r}::double and isfinite({number}), false)"
