"""Funnels: every chain of events is tried."""

from itertools import combinations

from filters import sql
from order import at_rank, by_values


def answer(world, question):
    passes = sql(world, question["filter"])
    matching = lambda filter: world.ids(f"{passes} and {sql(world, filter)}")
    steps = [matching(step) for step in question["steps"]]
    exclusions = [(matching(one["filter"]), gaps(one, len(steps))) for one in question["exclusions"]]
    values = world.values(question["by"])
    everybody, groups = Steps(len(steps)), {}
    for events in world.actors(question):
        moments = [(at, world.events[at]["time"]) for at in events]
        if question["order"] == "strict":
            found = strict(moments, steps, exclusions, question["window"])
        else:
            found = any_order(moments, steps, question["window"])
        if found:
            first, times = found
            everybody.add(times)
            groups.setdefault(tuple(values[first]), Steps(len(steps))).add(times)
    order = sorted(groups, key=lambda group: (-groups[group].entries(), by_values(group)))
    kept = order[: question["max_groups"]] if question["by"] else []
    return {
        "total": everybody.results(),
        "groups": [{"values": list(group), "steps": groups[group].results()} for group in kept],
        "omitted": len(order) - len(kept) if question["by"] else 0,
    }


def gaps(exclusion, steps):
    """The gaps in which an exclusion counts: gap k is that after step k, counted from 0."""
    after = max(exclusion["after_step"], 1)
    before = exclusion["before_step"] or steps
    return set(range(after - 1, before - 1))


def strict(moments, steps, exclusions, window):
    """The first event of the chain that counts, and by step when a chain from it gets there first."""
    best = None
    for begin, (first, start) in enumerate(moments):
        if first not in steps[0]:
            continue
        within = [(at, time) for at, time in moments[begin + 1 :] if time - start <= window]
        # By step: the places (0 is the first event) at which a chain can end.
        ends, times = {0}, [0]
        for step in range(1, len(steps)):
            broken = {at for at, _ in within if any(at in ids and step - 1 in of for ids, of in exclusions)}
            reached = set()
            for end in ends:
                for place in range(end + 1, len(within) + 1):
                    at = within[place - 1][0]
                    if at in broken:
                        break
                    if at in steps[step]:
                        reached.add(place)
            if not reached:
                break
            ends = reached
            times.append(within[min(ends) - 1][1] - start)
        if best is None or len(times) > len(best[1]):
            best = first, times
    return best


def any_order(moments, steps, window):
    """Likewise, of steps in whatever order: by step, when it and all before it are done."""
    best = None
    for begin, (first, start) in enumerate(moments):
        within = [(at, time) for at, time in moments[begin:] if time - start <= window]
        events = [at for at, _ in within]
        depth = max((wanted for wanted in range(1, len(steps) + 1) if begins(first, events, steps[:wanted])), default=0)
        if depth and (best is None or depth > len(best[1])):
            times = []
            for wanted in range(1, depth + 1):
                done = next(count for count in range(1, len(events) + 1) if doable(events[:count], steps[:wanted]))
                times.append(within[done - 1][1] - start)
            best = first, times
    return best


def begins(first, events, steps):
    """Whether every step can have an event of its own, `first` being one of them."""
    others = [at for at in events if at != first]
    return any(first in step and doable(others, steps[:at] + steps[at + 1 :]) for at, step in enumerate(steps))


def doable(events, steps):
    """Whether every step can have an event of its own: by Hall's theorem, if any of them have as many as they are."""
    some = (chosen for size in range(1, len(steps) + 1) for chosen in combinations(steps, size))
    return all(sum(any(at in step for step in chosen) for at in events) >= len(chosen) for chosen in some)


class Steps:
    """By step, the times from the first event and from the step before."""

    def __init__(self, steps):
        self.times = [([], []) for _ in range(steps)]

    def add(self, times):
        before = 0
        for (first, previous), time in zip(self.times, times):
            first.append(time)
            previous.append(time - before)
            before = time

    def entries(self):
        return len(self.times[0][0])

    def results(self):
        return [
            [len(first), *(at_rank(times, *rank) for times in (first, previous) for rank in ((1, 2), (9, 10)))]
            for first, previous in self.times
        ]
