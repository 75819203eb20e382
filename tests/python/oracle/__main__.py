"""Answers questions about events with DuckDB and plain loops: an oracle that shares no code with the product.

One JSON object a line on standard input, one on standard output. `{"events": […]}` names the events that all further
questions are about, `{"question": {…}}` is answered with `{"answer": …}`; `{"failed": …}` means that the oracle itself has a
defect. The shapes of events, questions and answers are those of `crates/query/tests/answers/oracle`, which asks the product
the same; what they mean is written in `proto/weir/analytics/v1`, and nothing else is followed here.
"""

import json
import sys
import traceback

import funnel
import paths
import retention
import series
from world import World

ANSWERS = {
    "series": series.answer,
    "funnel": funnel.answer,
    "retention": retention.answer,
    "paths": paths.answer,
}


def main():
    world = None
    for line in sys.stdin:
        asked = json.loads(line)
        try:
            if "events" in asked:
                world = World(asked["events"])
                said = {"answer": len(asked["events"])}
            else:
                question = asked["question"]
                said = {"answer": ANSWERS[question["kind"]](world, question)}
        except Exception:
            said = {"failed": traceback.format_exc()}
        print(json.dumps(said, ensure_ascii=False), flush=True)


main()
