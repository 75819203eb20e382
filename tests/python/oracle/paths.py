"""Paths: each is walked, and the tree grows from them."""

from filters import sql
from order import by_values


def answer(world, question):
    anchors = world.ids(sql(world, question["event"]))
    shown = world.ids(sql(world, question["filter"]))
    values = world.values([question["field"]])
    walked = []
    for events in world.actors(question):
        if question["direction"] == "before":
            events = events[::-1]
        begin = next((place for place, at in enumerate(events) if at in anchors), None)
        if begin is None:
            continue
        path, last, before = [], events[begin], values[events[begin]][0]
        for at in events[begin + 1 :]:
            if at not in shown:
                continue
            if abs(world.events[at]["time"] - world.events[last]["time"]) > question["max_gap"]:
                break
            last = at
            if question["fold_repeats"] and values[at][0] == before:
                continue
            before = values[at][0]
            path.append(before)
        walked.append(path[: question["depth"]])
    return node(None, walked, question["depth"], question["max_branches"])


def node(value, walked, deeper, branches):
    """The node that some paths have come to; what follows it is left of them."""
    nexts = {}
    for path in walked:
        if path:
            nexts.setdefault(path[0], []).append(path[1:])
    order = sorted(nexts, key=lambda value: (-len(nexts[value]), by_values([value])))
    return {
        "value": value,
        "count": len(walked),
        "next": [node(value, nexts[value], deeper - 1, branches) for value in order[:branches]],
        "omitted": sum(len(nexts[value]) for value in order[branches:]),
        "ended": sum(not path for path in walked) if deeper else 0,
    }
