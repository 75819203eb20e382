"""Right values of the five public files in this folder, by Python alone: writes answers.json beside it."""

import collections
import csv
import gzip
import json
import pathlib
from fractions import Fraction

HERE = pathlib.Path(__file__).parent


def rows(name, delimiter=","):
    path = HERE / name
    opened = gzip.open(path, "rt", newline="") if name.endswith(".gz") else open(path, newline="")
    with opened as file:
        return list(csv.DictReader(file, delimiter=delimiter))


def by(rows, key, column, null=""):
    """Rows of each key, and the exact sum of a column's values."""
    counts, sums = collections.Counter(), collections.defaultdict(Fraction)
    for row in rows:
        counts[row[key]] += 1
        if row[column] not in ("", null):
            sums[row[key]] += Fraction(row[column])
    return {of: [counts[of], float(sums[of])] for of in sorted(counts)}


def per_month(rows, column):
    return dict(sorted(collections.Counter(row[column][:7].replace("/", "-") for row in rows).items()))


github, weather, riots = rows("github.csv"), rows("nyc-weather.csv.gz"), rows("la-riots.csv")
answers = {
    "stocks": by(rows("stocks.csv"), "symbol", "price"),
    "github": [len(github), sum(int(row["count"]) for row in github), per_month(github, "time")],
    "weather_temp": by(weather, "origin", "temp", "NA"),
    "weather_gust": by(weather, "origin", "wind_gust", "NA"),
    "unemployment": by(
        [dict(row, all="all") for row in rows("unemployment.tsv", "\t")], "all", "rate"
    ),
    "riots": by(riots, "gender", "age"),
    "riots_per_month": per_month(riots, "death_date"),
}
(HERE / "answers.json").write_text(json.dumps(answers, indent=1, sort_keys=True) + "\n")
