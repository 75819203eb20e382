"""Measures over time and by the values of fields, added up by DuckDB."""

import math

from filters import sql
from order import by_values


def answer(world, question):
    begin, end = question["range"]
    buckets = [begin]
    shape, width = question["shape"], 1
    if question["interval"]:
        zone, interval = world.zone(question), question["interval"]
        buckets = zone.buckets(interval, begin, end)
    ends = [*buckets[1:], end]
    windows = [(max(start, begin), min(stop, end)) for start, stop in zip(buckets, ends)]
    if shape == "cumulative":
        windows = [(begin, stop) for _, stop in windows]
    elif shape != "plain":
        earlier = list(buckets)
        for _ in range(shape["rolling"] - 1):
            earlier.insert(0, zone.before(interval, earlier[0]))
        if shape["rolling"] > 1:
            windows = [(earlier[at], stop) for at, (_, stop) in enumerate(windows)]

    fields = [world.column(field) for field in question["by"]]
    passes = sql(world, question["filter"])
    currencies = settle_currencies(world, question, windows, passes)
    if currencies is None:
        return {"error": "currency"}
    measures = [Measure(world, measure, code) for measure, code in zip(question["measures"], currencies)]

    points = figures(world, measures, fields, passes, windows)
    totals = figures(world, measures, fields, passes, [(begin, end)])
    groups = {group for group, _ in points} | {group for group, _ in totals}
    if not fields:
        groups = {()}
    nothing = [measure.nothing() for measure in measures]
    first = lambda group: totals.get((group, 0), nothing)[0]
    # Groups without a figure come last.
    greatest = lambda group: (math.inf if value(first(group)) is None else -value(first(group)), by_values(group))
    order = sorted(groups, key=greatest)
    kept = order[: question["max_series"]]

    def with_formulas(found):
        return found + [formula(text, found) for text in question["formulas"]]

    def one(group):
        shown = (at for at in range(len(windows)) if shape != "plain" or (group, at) in points)
        return {
            "values": list(group),
            "points": [[at, with_formulas(points.get((group, at), nothing))] for at in shown],
            "totals": with_formulas(totals.get((group, 0), nothing)),
        }

    overall = figures(world, measures, [], passes, [(begin, end)]).get(((), 0), nothing)
    # The first windows of a rolling series reach back before the range.
    first = min(begin, windows[0][0]) if shape not in ("plain", "cumulative") else begin
    ((late,),) = world.rows(f"select count(*) from e where time >= {first} and time < {end} and late and {passes}")
    return {
        "buckets": buckets,
        "series": [one(group) for group in kept],
        "omitted": len(order) - len(kept),
        "totals": with_formulas(overall),
        "late": late,
    }


class Measure:
    """A measure as an SQL aggregate, and what its result says."""

    def __init__(self, world, measure, currency):
        self.kind, self.currency = measure["kind"], currency
        condition = sql(world, measure["filter"])
        number = world.numbers(measure["property"]) if measure.get("property") else None
        distinct = {
            "unique_users": "actor",
            "sessions": "session_id",
            "visits": "visit",
            "unique_values": world.column(measure.get("property") or ""),
        }
        if self.kind in distinct:
            aggregate = f"count(distinct {distinct[self.kind]})"
        elif self.kind == "events":
            aggregate = "count(*)"
        elif self.kind == "revenue":
            aggregate = "sum(nanos)"
            condition += f" and currency = '{currency}'"
        elif self.kind in ("sum", "average"):
            aggregate = f"list({number})"
            condition += f" and {number} is not null"
        elif self.kind == "quantile":
            aggregate = f"quantile_disc({number}, {measure['quantile']!r})"
        else:
            aggregate = f"{self.kind}({number})"
        self.sql = f"{aggregate} filter (where {condition})"

    def figure(self, found):
        if self.kind == "revenue":
            return revenue(int(found or 0), self.currency)
        if self.kind == "sum":
            return math.fsum(found or [])
        if self.kind == "average":
            return math.fsum(found) / len(found) if found else None
        return None if found is None else float(found)

    def nothing(self):
        return self.figure(None if self.kind in ("min", "max", "quantile", "average", "revenue", "sum") else 0)


def revenue(nanos, currency):
    return {"value": nanos / 10**9, "nanos": str(nanos) if currency else None}


def value(figure):
    return figure["value"] if isinstance(figure, dict) else figure


def figures(world, measures, fields, passes, windows):
    """By group and number of the window: the figures of all measures, where there are events."""
    groups = "".join(f", {field}" for field in fields)
    aggregates = "".join(f", {measure.sql}" for measure in measures)
    listed = ", ".join(f"({at}, {begin}, {end})" for at, (begin, end) in enumerate(windows))
    found = world.rows(
        f"select number{groups}{aggregates} from (values {listed}) w(number, opens, closes) "
        f"join e on time >= opens and time < closes where {passes} group by all"
    )
    by = {}
    for at, *row in found:
        group, results = tuple(row[: len(fields)]), row[len(fields) :]
        by[group, at] = [measure.figure(result) for measure, result in zip(measures, results)]
    return by


def settle_currencies(world, question, windows, passes):
    """The currency of each measure of revenue; None where one leaves it open and there are several."""
    begin = min([opens for opens, _ in windows], default=0)
    end = question["range"][1]
    settled = []
    for measure in question["measures"]:
        code = measure.get("currency")
        if measure["kind"] == "revenue" and not code:
            condition = f"{passes} and {sql(world, measure['filter'])} and time >= {begin} and time < {end}"
            found = world.rows(f"select distinct currency from e where currency is not null and {condition}")
            if len(found) > 1:
                return None
            code = found[0][0] if found else None
        settled.append(code)
    return settled


def formula(text, figures):
    """The value of a formula, None where it has none."""
    names = {chr(ord("A") + at): value(figure) for at, figure in enumerate(figures)}
    used = {name: names[name] for name in names if name in text}
    if None in used.values():
        return None
    try:
        # The formulas are those of the test; Python reads them as they are defined.
        result = float(eval(text, {"__builtins__": {}}, used))
    except ZeroDivisionError:
        return None
    return result if math.isfinite(result) else None
