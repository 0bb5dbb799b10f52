"""Numbers as people say them."""


def span(seconds: int) -> str:
    """`"15 min"`, `"2 h 5 min"`, `"3 days"`, `"40 s"`."""
    if seconds < 60:
        return f"{seconds} s"
    minutes = seconds // 60
    if minutes < 120:
        return f"{minutes} min"
    hours, minutes = divmod(minutes, 60)
    if hours < 48:
        return f"{hours} h {minutes} min" if minutes else f"{hours} h"
    days, hours = divmod(hours, 24)
    return f"{days} days {hours} h" if hours else f"{days} days"


def amount_of(mean: float) -> str:
    """A mean count with as many digits as mean something: `"0.3"`, `"12"`, `"<0.1"`."""
    if mean < 0.05:
        return "<0.1" if mean > 0 else "0"
    return f"{mean:.1f}" if mean < 10 else f"{mean:.0f}"
