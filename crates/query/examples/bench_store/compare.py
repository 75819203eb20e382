"""Asks Weir, DuckDB and ClickHouse (chdb) the same questions about the same events, and prints how long they took.

    compare.py compare PROGRAM FOLDER    the questions, by everybody, with one thread and with two
    compare.py growth PROGRAM FOLDER…    the questions, by Weir, about several stores

PROGRAM is the example `bench_store`, FOLDER a store that it has made. Every engine is a process of its own that reads names of
questions from its input and writes lines of JSON. All are asked in turn, so that what else the machine does meets all of them;
what is shown is the median of the rounds after a first one that warms caches up. The answers must agree.
"""

import argparse
import glob
import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time

START = 1_780_272_000
DAY = 86_400
END = START + 30 * DAY
USER = "user_0000006"
STEPS = ["product_view", "add_to_cart", "checkout", "purchase"]
QUESTIONS = {
    "day_name": "count by day and name",
    "users_exact": "unique users by day, exact",
    "users_approximate": "unique users by day, approximate",
    "filtered_hours": "two filters, count by hour",
    "funnel": "funnel of four steps within a day",
    "retention": "weekly retention",
    "timeline": "one user's last 100 events",
    "top": "top 10 values of a property",
}
ENGINES = {
    "weir": "Weir",
    "duckdb-parquet": "DuckDB, same files",
    "duckdb-native": "DuckDB, own table",
    "chdb-parquet": "ClickHouse, same files",
    "chdb-native": "ClickHouse, own table",
}
# What approximate counts of users may differ by between engines: each is within about 3 % of the truth.
APPROXIMATE = 0.08


def weeks(masks):
    """Rows of cohort, weeks after it and users, from pairs of a mask of the weeks in which users came, and their number."""
    found = {}
    for mask, users in masks:
        first = (mask & -mask).bit_length() - 1
        for week in range(first, 5):
            key = ((START + first * 7 * DAY) * 1_000_000, week - first)
            found[key] = found.get(key, 0) + (users if mask >> week & 1 else 0)
    return [[*key, users] for key, users in found.items()]


def files(folder):
    """The segments of a store."""
    return sorted(glob.glob(f"{folder}/**/*.parquet", recursive=True))


class DuckDB:
    """In the forms of its SQL that were found fastest."""

    def __init__(self, folder, native, threads, scratch):
        import duckdb

        self.connection = duckdb.connect(f"{scratch}/events.duckdb")
        self.connection.execute(f"set threads = {threads}; set TimeZone = 'UTC'")
        source = f"read_parquet({files(folder)}, hive_partitioning = false)"
        (self.hash,) = self.connection.execute(
            f"select user_hash from {source} where user_id = '{USER}' limit 1"
        ).fetchone()
        if native:
            # In the order of segments, so that row groups can be told apart by users.
            self.connection.execute(
                f"create table events as select * from {source} order by user_hash, time; checkpoint"
            )
        else:
            self.connection.execute(f"create view events as select * from {source}")

    def rows(self, sql):
        return self.connection.execute(sql).fetchall()

    def ask(self, question):
        during = f"time >= to_timestamp({START}) and time < to_timestamp({END})"
        bucket = lambda width: f"epoch_us(time) // {width * 1_000_000} * {width * 1_000_000}"
        match question:
            case "day_name":
                return self.rows(f"select {bucket(DAY)}, event_name, count(*) from events where {during} group by 1, 2")
            case "users_exact":
                return self.rows(f"select {bucket(DAY)}, count(distinct user_hash) from events where {during} group by 1")
            case "users_approximate":
                return self.rows(
                    f"select {bucket(DAY)}, approx_count_distinct(user_hash) from events where {during} group by 1"
                )
            case "filtered_hours":
                return self.rows(
                    f"select {bucket(3600)}, count(*) from events where {during}"
                    " and event_name = 'product_view' and p_platform = 'android' group by 1"
                )
            case "top":
                return self.rows(
                    f"select p_product, count(*) from events where {during} and event_name = 'product_view'"
                    " group by 1 order by 2 desc, 1 limit 10"
                )
            case "retention":
                return weeks(
                    self.rows(
                        "select mask, count(*) from (select bit_or(1 << ((epoch_us(time) - "
                        f"{START * 1_000_000}) // {7 * DAY * 1_000_000})) as mask from events where {during}"
                        " group by user_hash) group by 1"
                    )
                )
            case "timeline":
                rows = self.rows(
                    f"select epoch_us(time), * from events where {during} and user_hash = {self.hash}"
                    f" and user_id = '{USER}' order by time desc, log_offset desc limit 100"
                )
                return [row[0] for row in rows]
            case "funnel":
                # Of the chains that stand at a step, the one that began last has most time left.
                steps = " ".join(f"when '{name}' then {step}" for step, name in enumerate(STEPS))
                sql = (
                    f"select user_hash, epoch_us(time) as t, log_offset, case event_name {steps} end as step"
                    f" from events where {during} and event_name in {tuple(STEPS)}"
                )
                window = "over (partition by user_hash order by t, log_offset)"
                sql = f"select *, max(case when step = 0 then t end) {window} as s0 from ({sql})"
                for step in (1, 2, 3):
                    reached = f"case when step = {step} and t - s{step - 1} <= {DAY * 1_000_000} then s{step - 1} end"
                    sql = f"select *, max({reached}) {window} as s{step} from ({sql})"
                depths = ", ".join(f"max(s{step}) as s{step}" for step in range(4))
                counts = ", ".join(f"count(s{step})" for step in range(4))
                return list(self.rows(f"select {counts} from (select {depths} from ({sql}) group by user_hash)")[0])


class ClickHouse:
    """In the forms of its SQL that were found fastest."""

    def __init__(self, folder, native, threads, scratch):
        from chdb import session

        self.session = session.Session(f"{scratch}/chdb")
        self.settings = f" settings max_threads = {threads}"
        self.table = f"file('{folder}/**/*.parquet', Parquet)"
        self.hash = self.rows(f"select user_hash from {self.table} where user_id = '{USER}' limit 1")[0][0]
        if native:
            self.session.query("create database bench engine = Atomic")
            few = ["event_name", "event_type", "currency"] + [
                row[0] for row in self.rows(f"describe {self.table}") if row[0].startswith(("p_", "context_"))
            ]
            cast = ", ".join(f"toLowCardinality({name}) as {name}" for name in few)
            self.session.query(
                "create table bench.events engine = MergeTree order by (user_hash, time) as"
                f" select * replace ({cast}, assumeNotNull(user_hash) as user_hash, assumeNotNull(time) as time)"
                f" from {self.table}"
            )
            self.session.query("optimize table bench.events final")
            self.table = "bench.events"

    def rows(self, sql):
        return json.loads(self.session.query(sql + self.settings, "JSONCompact").bytes())["data"]

    def ask(self, question):
        during = f"time >= toDateTime64({START}, 6, 'UTC') and time < toDateTime64({END}, 6, 'UTC')"
        source = f"from {self.table} where {during}"
        day = "toUInt32(toDate(time, 'UTC'))"
        numbers = lambda rows, unit: [[int(row[0]) * unit * 1_000_000, *row[1:-1], int(row[-1])] for row in rows]
        match question:
            case "day_name":
                return numbers(self.rows(f"select {day}, event_name, count() {source} group by 1, 2"), DAY)
            case "users_exact":
                return numbers(self.rows(f"select {day}, uniqExact(user_hash) {source} group by 1"), DAY)
            case "users_approximate":
                return numbers(self.rows(f"select {day}, uniq(user_hash) {source} group by 1"), DAY)
            case "filtered_hours":
                return numbers(
                    self.rows(
                        f"select intDiv(toUnixTimestamp(time), 3600), count() {source}"
                        " and event_name = 'product_view' and p_platform = 'android' group by 1"
                    ),
                    3600,
                )
            case "top":
                rows = self.rows(
                    f"select p_product, count() {source} and event_name = 'product_view'"
                    " group by 1 order by 2 desc, 1 limit 10"
                )
                return [[text, int(count)] for text, count in rows]
            case "retention":
                rows = self.rows(
                    "select mask, count() from (select groupBitOr(bitShiftLeft(toUInt64(1), intDiv(toUnixTimestamp(time)"
                    f" - {START}, {7 * DAY}))) as mask {source} group by user_hash) group by 1"
                )
                return weeks([[int(mask), int(users)] for mask, users in rows])
            case "timeline":
                rows = self.rows(
                    f"select toUnixTimestamp64Micro(time), * {source} and user_hash = {self.hash} and user_id = '{USER}'"
                    " order by time desc, log_offset desc limit 100"
                )
                return [int(row[0]) for row in rows]
            case "funnel":
                conditions = ", ".join(f"event_name = '{name}'" for name in STEPS)
                depth = f"windowFunnel({DAY * 1_000_000})(toUInt64(toUnixTimestamp64Micro(time)), {conditions})"
                counts = ", ".join(f"countIf(depth > {step})" for step in range(4))
                rows = self.rows(
                    f"select {counts} from (select {depth} as depth {source} and event_name in {tuple(STEPS)}"
                    " group by user_hash)"
                )
                return [int(count) for count in rows[0]]


def answer(engine, folder, threads):
    """Is one of the engines."""
    kind, place = engine.split("-")
    with tempfile.TemporaryDirectory(prefix="weir-bench-") as scratch:
        asked = {"duckdb": DuckDB, "chdb": ClickHouse}[kind](folder, place == "native", threads, scratch)
        for question in sys.stdin:
            before, started = resource.getrusage(resource.RUSAGE_SELF), time.perf_counter()
            found = asked.ask(question.strip())
            seconds, after = time.perf_counter() - started, resource.getrusage(resource.RUSAGE_SELF)
            cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
            print(json.dumps({"seconds": seconds, "cpu": cpu, "answer": found}), flush=True)


class Engine:
    """A process that answers."""

    def __init__(self, name, program, folder, threads):
        command = [program, "answer", folder] if name == "weir" else [sys.executable, __file__, "answer", name, folder]
        command += ["--threads", str(threads)]
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        self.took = {}

    def ask(self, question):
        self.process.stdin.write(question + "\n")
        self.process.stdin.flush()
        line = self.process.stdout.readline()
        if not line:
            sys.exit(f"{self.process.args} has stopped")
        found = json.loads(line)
        self.took.setdefault(question, []).append((found["seconds"], found["cpu"]))
        return found["answer"]

    def median(self, question):
        """Seconds and CPU seconds, the first time left out."""
        seconds, cpu = zip(*self.took[question][1:])
        return statistics.median(seconds), statistics.median(cpu)

    def close(self):
        """Ends it; returns the most memory it ever held, megabytes."""
        with open(f"/proc/{self.process.pid}/status") as status:
            peak = next(int(line.split()[1]) for line in status if line.startswith("VmHWM"))
        self.process.stdin.close()
        self.process.wait()
        return peak / 1024


def agree(question, one, other):
    """Whether two answers are the same, or near enough for what is approximate."""
    if question not in ("timeline", "funnel", "top"):
        one, other = (sorted(map(list, answer)) for answer in (one, other))
    if question == "top":
        # Among equals, any may come first.
        one, other = ([count for _, count in answer] for answer in (one, other))
    if question == "users_approximate":
        near = lambda a, b: a[0] == b[0] and abs(a[1] - b[1]) <= APPROXIMATE * max(a[1], b[1])
        return len(one) == len(other) and all(map(near, one, other))
    return [*map(list, one)] == [*map(list, other)] if one and isinstance(one[0], (list, tuple)) else one == other


def in_turn(engines, rounds, questions):
    """Asks all engines all questions, and stops when they don't agree."""
    for _ in range(rounds + 1):
        for question in questions:
            first = None
            for name, engine in engines.items():
                found = engine.ask(question)
                if first is None:
                    first = (name, found)
                elif not agree(question, first[1], found):
                    sys.exit(f"{question}: {first[0]} says {str(first[1])[:400]}, {name} says {str(found)[:400]}")


def size(folder):
    """What a store has, in words."""
    segments = files(folder)
    return f"{sum(map(os.path.getsize, segments)) / 1e6:.0f} MB in {len(segments)} segments"


def compare(options):
    for threads in options.threads:
        engines = {
            name: Engine(name, options.program, options.folders[0], threads)
            for name in ENGINES
            if name == "weir" or name in options.engines
        }
        in_turn(engines, options.rounds, options.questions)
        print(f"\n{options.folders[0]}: {size(options.folders[0])}, {threads} thread{'s' * (threads > 1)};", end=" ")
        print(f"seconds / CPU seconds, median of {options.rounds}\n")
        print("|" + "|".join(["", *(ENGINES[name] for name in engines), "Weir to the best: time, CPU", ""]))
        print("|---" * (len(engines) + 2) + "|")
        for question in options.questions:
            medians = {name: engine.median(question) for name, engine in engines.items()}
            shown = [f"{seconds:.3f} / {cpu:.3f}" for seconds, cpu in medians.values()]
            others = [median for name, median in medians.items() if name != "weir"]
            ratios = [medians["weir"][of] / min(other[of] for other in others) for of in (0, 1)] if others else []
            print("|" + "|".join([QUESTIONS[question], *shown, ", ".join(f"{ratio:.2f}" for ratio in ratios), ""]))
        peaks = [f"{engine.close():.0f} MB" for engine in engines.values()]
        print("|" + "|".join(["most memory", *peaks, "", ""]))


def growth(options):
    threads = options.threads[-1]
    engines = {folder: Engine("weir", options.program, folder, threads) for folder in options.folders}
    for _ in range(options.rounds + 1):
        for question in options.questions:
            for engine in engines.values():
                engine.ask(question)
    print(f"\nWeir, {threads} threads; seconds / CPU seconds, median of {options.rounds}\n")
    print("|" + "|".join(["", *(f"{os.path.basename(folder)}: {size(folder)}" for folder in engines), ""]))
    print("|---" * (len(engines) + 1) + "|")
    for question in options.questions:
        medians = (engine.median(question) for engine in engines.values())
        print("|" + "|".join([QUESTIONS[question], *(f"{seconds:.3f} / {cpu:.3f}" for seconds, cpu in medians), ""]))
    peaks = [f"{engine.close():.0f} MB" for engine in engines.values()]
    print("|" + "|".join(["most memory", *peaks, ""]))


def main():
    if sys.argv[1:2] == ["answer"]:
        return answer(sys.argv[2], sys.argv[3], int(sys.argv[5]))
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=["compare", "growth"])
    parser.add_argument("program")
    parser.add_argument("folders", nargs="+", metavar="FOLDER")
    parser.add_argument("--threads", type=lambda text: [*map(int, text.split(","))], default=[1, 2])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--questions", type=lambda text: text.split(","), default=[*QUESTIONS])
    parser.add_argument("--engines", type=lambda text: text.split(","), default=[*ENGINES])
    options = parser.parse_args()
    {"compare": compare, "growth": growth}[options.what](options)


if __name__ == "__main__":
    main()
