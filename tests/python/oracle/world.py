"""The events that questions are about, in DuckDB and as lists."""

import json
import tempfile

import duckdb

from texts import number, text
from zones import Zone, when

IDLE = 30 * 60 * 1_000_000


class World:
    def __init__(self, events):
        self.events = events
        self.keys = sorted({key for event in events for key in event["properties"]})
        self.checked = set()
        self.db = duckdb.connect()
        self.db.execute("set timezone = 'UTC'; set threads = 1")
        visits = self.visits()
        columns = {
            "id": "BIGINT", "time": "BIGINT", "log_offset": "BIGINT", "actor": "VARCHAR", "visit": "BIGINT",
            "late": "BOOLEAN", "currency": "VARCHAR", "nanos": "HUGEINT",
            "event_name": "VARCHAR", "event_type": "VARCHAR", "user_id": "VARCHAR", "anonymous_id": "VARCHAR",
            "session_id": "VARCHAR", "context.os.name": "VARCHAR",
        }
        for at in range(len(self.keys)):
            columns[f"t{at}"] = "VARCHAR"
            columns[f"n{at}"] = "DOUBLE"
        with tempfile.NamedTemporaryFile("w", suffix=".ndjson") as file:
            for at, event in enumerate(events):
                row = {name: event.get(name) or None for name in columns}
                currency, units, nanos = event.get("revenue") or (None, None, None)
                row.update(
                    id=at, time=event["time"], log_offset=event["offset"], actor=actor(event), visit=visits[at],
                    late=event["late"], currency=currency,
                    nanos=None if units is None else units * 10**9 + nanos,
                )
                for place, key in enumerate(self.keys):
                    value = event["properties"].get(key)
                    row[f"t{place}"], row[f"n{place}"] = text(value), number(value)
                print(json.dumps(row, ensure_ascii=False), file=file)
            file.flush()
            self.db.execute(
                "create table e as select * from read_json($file, format = 'newline_delimited', columns = $columns)",
                {"file": file.name, "columns": columns},
            )

    def ordered(self, events):
        """In order of time; at the same time in that of acceptance."""
        return sorted(events, key=lambda at: (self.events[at]["time"], self.events[at]["offset"]))

    def visits(self):
        """By event: the visit that it belongs to."""
        visits = [None] * len(self.events)
        known, last = {}, {}
        for at in self.ordered(range(len(self.events))):
            event = self.events[at]
            user = actor(event)
            if event["session_id"]:
                visits[at] = known.setdefault((user, event["session_id"]), len(known))
                continue
            time, count = last.get(user, (None, 0))
            if time is not None and event["time"] - time > IDLE:
                count += 1
            last[user] = event["time"], count
            visits[at] = known.setdefault((user, None, count), len(known))
        return visits

    def zone(self, question):
        name = question["zone"] or "UTC"
        zone = Zone(name, when(question["range"][0]).year)
        if zone not in self.checked:
            # DuckDB has a database of its own: where the two differ, nothing can be said.
            local = "epoch_us(timezone(?, make_timestamptz(time)))"
            for time, found in self.rows(f"select distinct time, {local} from e", [name]):
                assert found == zone.local(time), f"{name} at {time}: DuckDB shows {found}, pytz {zone.local(time)}"
            self.checked.add(zone)
        return zone

    def rows(self, sql, parameters=()):
        return self.db.execute(sql, list(parameters)).fetchall()

    def column(self, field):
        """The column with the text of a field."""
        if field in ("event_name", "event_type", "user_id", "anonymous_id", "session_id", "context.os.name"):
            return f'"{field}"'
        key = field.removeprefix("properties.")
        return f"t{self.keys.index(key)}" if key in self.keys else "null::varchar"

    def numbers(self, field):
        """The column with the numbers of a property."""
        key = field.removeprefix("properties.")
        return f"n{self.keys.index(key)}" if key in self.keys else "null::double"

    def actors(self, question):
        """By user or visit, the ids of all events in the range, in order."""
        by = {}
        begin, end = question["range"]
        for at, visit in self.rows(
            "select id, visit from e where time >= ? and time < ? order by time, log_offset", [begin, end]
        ):
            key = visit if question["count_by"] == "sessions" else actor(self.events[at])
            by.setdefault(key, []).append(at)
        return by.values()

    def ids(self, condition):
        """The ids of the events for which an SQL condition holds."""
        return {at for (at,) in self.rows(f"select id from e where {condition}")}

    def values(self, fields):
        """By id of an event: the texts of some fields."""
        columns = "".join(f", {self.column(field)}" for field in fields)
        return {at: list(values) for at, *values in self.rows(f"select id{columns} from e")}


def actor(event):
    return event["user_id"] or event["anonymous_id"]
