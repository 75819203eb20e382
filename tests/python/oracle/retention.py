"""Retention: DuckDB joins who began with who came back."""

from filters import sql
from order import by_values


def answer(world, question):
    begin, end = question["range"]
    starts = world.zone(question).buckets(question["period"], begin, end)
    stops = [*starts[1:], end]
    periods = ", ".join(f"({at}, {start}, {stop})" for at, (start, stop) in enumerate(zip(starts, stops)))
    groups = "".join(f", {world.column(field)} g{at}" for at, field in enumerate(question["by"]))
    named = "".join(f", g{at}" for at in range(len(question["by"])))
    once = "actor, period" if question["cohorts"] == "recurring" else "actor"
    tables = f"""
        with within as (
            select e.*, period from e join (values {periods}) p(period, opens, closes)
            on time >= greatest(opens, {begin}) and time < closes
        ), started as (
            select actor, period, time, log_offset{groups} from within where {sql(world, question["start"])}
            qualify row_number() over (partition by {once} order by time, log_offset) = 1
        ), returned as (
            select actor, period, time, log_offset from within where {sql(world, question["return"])}
        )
    """
    cohorts = {}
    for period, *values, size in world.rows(f"{tables} select period{named}, count(*) from started group by all"):
        watched = min(question["periods"], len(starts) - period)
        cohort = {"values": values, "start": starts[period], "size": size, "returned": [0] * watched}
        cohorts[tuple(values), period] = cohort
    for period, *values, later, count in world.rows(f"""
        {tables} select s.period{named}, r.period - s.period, count(distinct actor)
        from started s join returned r using (actor)
        where r.period > s.period
           or r.period = s.period and (r.time, r.log_offset) >= (s.time, s.log_offset)
        group by all
    """):
        returned = cohorts[tuple(values), period]["returned"]
        if later < len(returned):
            returned[later] = count
    return [cohorts[key] for key in sorted(cohorts, key=lambda key: (by_values(key[0]), key[1]))]
