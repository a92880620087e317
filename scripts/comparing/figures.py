"""What was measured, and what it should be."""

import math
import statistics

# Units of which less is better.
COSTS = ("ms", "us", "MiB", "x data", "x alone")
# Units that compare a system with itself.
RATIOS = ("x one", "x alone")


class Bound:
    """What the figures of layerfs must keep, whatever those of others are. `limit` may depend on other figures."""

    def __init__(self, text, limit):
        self.text, self.limit = text, limit


def at_most(number):
    return Bound(f"<= {number:g}", lambda row, title: number)


def at_least(number):
    return Bound(f">= {number:g}", lambda row, title: number)


class Row:
    """One line of the tables: figures of each system, which ratios to others they must reach, and which bounds."""

    def __init__(self, title, unit, ratios=None, bounds=()):
        self.title, self.unit, self.ratios, self.bounds = title, unit, ratios or {}, bounds
        self.less = unit in COSTS
        self.values = {}
        # Why there is no figure of a system, by its title.
        self.missing = {}

    def add(self, title, value):
        if value is not None:
            self.values.setdefault(title, []).append(value)

    def median(self, title):
        values = self.values.get(title)
        return statistics.median(values) if values and title not in self.missing else None

    def spread(self, title):
        return min(self.values[title]), max(self.values[title])

    def tail(self, title):
        """The 99th percentile: the worst, of less than a hundred."""
        worse = sorted(self.values[title], reverse=not self.less)
        return worse[math.ceil(0.99 * len(worse)) - 1]

    def ratio(self, title, peer):
        """How many times as fast, or as small, the one is as the other."""
        own, other = self.median(title), self.median(peer)
        if not own or not other or self.unit in RATIOS:
            return None
        return other / own if self.less else own / other

    def keeps(self, bound, title):
        limit, own = bound.limit(self, title), self.median(title)
        if limit is None or own is None:
            return None
        return own <= limit if self.less else own >= limit


def shown(number):
    if number >= 100:
        return f"{number:.0f}"
    return f"{number:.1f}" if number >= 10 else f"{number:.2f}"
