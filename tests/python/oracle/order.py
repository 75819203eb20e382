"""The order of groups."""


def by_values(values):
    """Null before all texts, texts by their code points."""
    return [(value is not None, value or "") for value in values]


def at_rank(values, numerator, denominator):
    """The least value that at least this fraction of all is not greater than."""
    values = sorted(values)
    return values[max(-(-len(values) * numerator // denominator), 1) - 1] if values else None
