"""DuckDB, which the tests read files with: each line of standard input is SQL as a JSON text, each line of standard output the
rows that its last statement gives, as lists, or `{"failed": …}`.
"""

import json
import sys

import duckdb

db = duckdb.connect()
# As on a laptop whose clock shows another zone than UTC.
db.execute("set timezone = 'America/St_Johns'")
for line in sys.stdin:
    try:
        said = [list(row) for row in db.execute(json.loads(line)).fetchall()]
    except duckdb.Error as error:
        said = {"failed": str(error)}
    print(json.dumps(said, ensure_ascii=False, default=str), flush=True)
