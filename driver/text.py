"""Text that others choose, such as names and addresses of hosts, made safe to show."""


def visible(text: str) -> str:
    """Return a text with escapes for what a terminal would obey, and for ends of lines."""
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else ascii(c)[1:-1] for c in text)
