"""What filters, breakdowns and distinct counts see of a value: its text."""

from decimal import Decimal


def number_text(number):
    """As many digits as tell the number from its neighbours; an exponent from 1e16 on and below 1e-4; -0 is 0."""
    number = float(number)
    if number == 0:
        return "0"
    digits = Decimal(repr(number))
    if 1e-4 <= abs(number) < 1e16:
        plain = format(digits, "f")
        return plain.rstrip("0").rstrip(".") if "." in plain else plain
    sign, figures, exponent = digits.as_tuple()
    shown = "".join(map(str, figures)).rstrip("0")
    exponent += len(figures) - 1
    return f"{'-' if sign else ''}{shown[0]}{'.' + shown[1:] if shown[1:] else ''}e{exponent}"


def text(value):
    """The text of a property's value; None where it counts as missing: null, lists and structs."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, (int, float)):
        return number_text(value)
    return value if isinstance(value, str) else None


def number(value):
    """The number of a numeric property; None for any other value."""
    return None if isinstance(value, bool) or not isinstance(value, (int, float)) else float(value)
