"""Buckets by a zone's clock and calendar, found from the offset of the zone at each moment. Moments are microseconds."""

from bisect import bisect_right
from datetime import date, datetime, timedelta, timezone
from functools import lru_cache
from zoneinfo import ZoneInfo

import pytz

EPOCH = datetime(1970, 1, 1)
SECOND = 1_000_000
DAY = 86_400 * SECOND
CLOCK = {"second": SECOND, "minute": 60 * SECOND, "quarter_hour": 900 * SECOND, "hour": 3600 * SECOND}
# Clocks are changed at most once in so long.
APART = 6 * 3600 * SECOND


def when(micros):
    return EPOCH + timedelta(microseconds=micros)


@lru_cache(None)
class Zone:
    """A zone from the year before one to the year after it: when its clock was changed otherwise, it does not know."""

    def __init__(self, name, year):
        # The copy of the database that comes with pytz: the machine may have none.
        with pytz.open_resource(name) as file:
            info = ZoneInfo.from_file(file)

        def offset(micros):
            found = when(micros).replace(tzinfo=timezone.utc).astimezone(info).utcoffset()
            return found // timedelta(microseconds=1)

        begin, end = ((datetime(at, 1, 1) - EPOCH) // timedelta(microseconds=1) for at in (year - 1, year + 5))
        steps = range(begin, end + APART, APART)
        # The moments at which the clock is changed, and the offsets before, between and after them.
        self.changes, self.offsets = [], [offset(begin)]
        for low, high in zip(steps, steps[1:]):
            before, after = offset(low), offset(high)
            if before == after:
                continue
            while high - low > 1:
                middle = (low + high) // 2
                low, high = (middle, high) if offset(middle) == before else (low, middle)
            self.changes.append(high)
            self.offsets.append(after)
        self.start_of_date = lru_cache(None)(self.start_of_date)

    def offset(self, micros):
        return self.offsets[bisect_right(self.changes, micros)]

    def local(self, micros):
        return micros + self.offset(micros)

    def last_change(self, micros):
        """The last change of the clock up to a moment, and the offset before it."""
        at = bisect_right(self.changes, micros) - 1
        return (self.changes[at], self.offsets[at]) if at >= 0 else (None, None)

    def date(self, micros):
        """The latest date that the calendar has shown so far: a clock set back over midnight shows an old one again."""
        shown = when(self.local(micros)).date()
        change, before = self.last_change(micros)
        if change is not None and micros - change < DAY:
            shown = max(shown, when(change - 1 + before).date())
        return shown

    def start_of_date(self, wanted):
        """The first moment at which the calendar shows a date, or a later one."""
        midnight = (wanted - EPOCH.date()).days * DAY
        low, high = midnight - 2 * DAY, midnight + 2 * DAY
        while high - low > 1:
            middle = (low + high) // 2
            low, high = (low, middle) if self.date(middle) >= wanted else (middle, high)
        return high

    def bucket(self, interval, micros):
        """The first moment of the bucket that a moment is in."""
        if interval in CLOCK:
            offset = self.offset(micros)
            start = (micros + offset) // CLOCK[interval] * CLOCK[interval] - offset
            change, _ = self.last_change(micros)
            return start if change is None else max(start, change)
        shown = self.date(micros)
        if interval == "week":
            shown -= timedelta(days=shown.weekday())
        elif interval == "month":
            shown = date(shown.year, shown.month, 1)
        elif interval == "quarter":
            shown = date(shown.year, (shown.month - 1) // 3 * 3 + 1, 1)
        elif interval == "year":
            shown = date(shown.year, 1, 1)
        return self.start_of_date(shown)

    def buckets(self, interval, begin, end):
        """The first moments of all buckets that a range touches."""
        # Offsets are multiples of a quarter of an hour, and no date is shown for less than a quarter of a day.
        step = min(CLOCK[interval], 900 * SECOND) if interval in CLOCK else DAY // 4
        moments = {begin, end - 1, *range(-(-begin // step) * step, end, step)}
        moments.update(change for change in self.changes if begin <= change < end)
        return sorted({self.bucket(interval, moment) for moment in moments})

    def before(self, interval, start):
        """The bucket before the one that begins at a moment."""
        return self.bucket(interval, start - 1)
