"""Places rooms and arrows, and writes them as SVG: the drawing that `picture` makes.

A room is a box, the rooms of a layer are a row. An arrow to the next row goes through the gap
between; any other leaves at a side, goes down a lane, and comes back above its target. All arrows
to one room have its colour, and those on one side share a lane.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

Point = tuple[float, float]
# In pixels: a row of boxes, and between two of them; a monospace letter of 11 px, and around text
WIDTH, GUTTER, CHAR, LINE, PAD, TITLE = 820, 28, 6.8, 16, 12, 28
# from lane to lane, line to line in a gap, exit to exit; from a corner to an arrow; the margin
LANE, STEP, EXIT, PORT, MARGIN = 11, 12, 9, 24, 20
ROUND, HEAD = 5, 8
INK = ("#4b5563", "#b0245c", "#8a6d00", "#c2410c", "#1f5fa8", "#7a3fa0", "#2c7a3f", "#0d7377",
       "#a0522d", "#3f3fa0", "#b91c1c", "#555500", "#0369a1")  # fmt: skip


class Refused(Exception):
    """Why there is no picture, as one sentence."""


@dataclass(eq=False)
class Room:
    """A package of `driver/`, or modules that stand alone, with its box."""

    name: str
    parts: dict[str, list[str]] = field(default_factory=dict)  # modules by package, "" for none
    row: int = 0
    ink: str = ""
    x: float = 0
    y: float = 0
    width: float = 0
    height: float = 0

    @property
    def weight(self) -> int:
        """How much of a row's width it takes."""
        return 6 + sum(map(len, self.parts.values()))


@dataclass(eq=False)
class Arrow:
    """One room's import of another.

    `side`: -1 and 1 lead down a lane left or right of all boxes, 0 through one gap.
    """

    source: Room
    target: Room
    side: int
    points: list[Point] = field(default_factory=list)


def svg(rows: list[list[Room]], found: Iterable[tuple[str, str]], others: Room) -> str:
    """Return the drawing. `found`: who imports whom, by name; `others`: who has no room.

    Errors: Refused.
    """
    if any(len(row) > 2 for row in rows):  # noqa: PLR2004
        raise Refused("a layer of more than two rooms cannot be drawn")
    widths(rows)
    arrows = ways(rows, found, others)
    lay(rows, arrows)
    out = max(MARGIN + LANE * len(lanes(arrows, side)) for side in (-1, 1))
    bottom = rows[-1][0].y + rows[-1][0].height + MARGIN
    size = f"{WIDTH + 2 * out:g} {bottom + LINE:g}"
    lines = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="{-out:g} 0 {size}" '
        'font-family="sans-serif" font-size="11">',
        "<title>The rooms of driver/, and who imports whom</title>",
        f'<rect x="{-out:g}" width="100%" height="100%" fill="#fff"/>',
        *(line for arrow in arrows for line in _arrow(arrow, arrows)),
        *(line for row in rows for room in row for line in _box(room)),
        f'<text y="{bottom:g}" fill="#444">An arrow leads from a room to one that it imports, and '
        "has the colour of that.</text>",
        "</svg>",
    ]
    return "\n".join(lines) + "\n"


def ways(rows: list[list[Room]], found: Iterable[tuple[str, str]], others: Room) -> list[Arrow]:
    """Return the arrows, each with its side: the source's own, else the target's, else left.

    `others`: the room of names that are no room's.
    """
    known, made = {room.name: room for row in rows for room in row}, {}
    for upper, lower in sorted(found):
        source, target = known.get(upper, others), known.get(lower, others)
        halves = [(rows[room.row], room) for room in (source, target) if len(rows[room.row]) > 1]
        side = next((-1 if room is row[0] else 1 for row, room in halves), -1)
        near = target.row - source.row <= 1
        made[source, target] = Arrow(source, target, 0 if near else side)
    return [arrow for arrow in made.values() if arrow.source is not arrow.target]


def widths(rows: list[list[Room]]) -> None:
    """Give each room its row, its colour, and its place from left to right."""
    ink = iter(INK * len(rows))
    for number, row in enumerate(rows):
        x, free, total = 0.0, WIDTH - GUTTER * (len(row) - 1), sum(room.weight for room in row)
        for room in row:
            room.row, room.ink = number, next(ink)
            room.x, room.width = x, free * room.weight / total
            x += room.width + GUTTER


def lanes(arrows: list[Arrow], side: int) -> list[list[Arrow]]:
    """Return the arrows of a side by target, from the boxes outwards: first what ends first."""
    targets = {arrow.target: [a for a in arrows if a.target is arrow.target and a.side == side]
               for arrow in arrows if arrow.side == side}  # fmt: skip
    return sorted(targets.values(), key=lambda some: (some[0].target.row, side * some[0].target.x))


def lay(rows: list[list[Room]], arrows: list[Arrow]) -> None:
    """Place all rooms from above, and lead the arrows."""
    y = float(MARGIN)
    for number, row in enumerate(rows):
        y = _by_lanes(arrows, number, y)
        y = _through_gap([a for a in arrows if a.target.row == number and not a.side], y)
        y += 2 * STEP + HEAD if number else 0
        tallest = max(_height(room, arrows) for room in row)
        for room in row:
            room.y, room.height = y, tallest
        y += tallest
    for arrow in arrows:
        arrow.points.append((arrow.points[-1][0], arrow.target.y))
    for arrow in (a for a in arrows if a.side):
        _leave(arrow, [a for a in arrows if a.source is arrow.source and a.side == arrow.side])


def _by_lanes(arrows: list[Arrow], row: int, y: float) -> float:
    """Lead arrows from their lanes to above the targets in a row; return how far down that is."""
    for side in (-1, 1):
        for lane, some in enumerate(lanes(arrows, side)):
            target = some[0].target
            if target.row == row:
                y += STEP
                x = -MARGIN - lane * LANE if side < 0 else WIDTH + MARGIN + lane * LANE
                port = target.x + PORT if side < 0 else target.x + target.width - PORT
                for arrow in some:
                    arrow.points = [(x, y), (port, y)]
    return y


def _through_gap(arrows: list[Arrow], y: float) -> float:
    """Lead arrows to the next row, straight down where they can; return how far down that is."""
    for arrow in arrows:
        a, b = arrow.source, arrow.target
        left, right = max(a.x, b.x), min(a.x + a.width, b.x + b.width)
        if right - left > 4 * PORT:
            arrow.points = [((left + right) / 2, a.y + a.height)]
        else:
            y += STEP
            begin = a.x + (a.width - PORT if a.x < b.x else PORT)
            end = b.x + (2 * PORT if a.x < b.x else b.width - 2 * PORT)
            arrow.points = [(begin, a.y + a.height), (begin, y), (end, y)]
    return y


def _leave(arrow: Arrow, beside: list[Arrow]) -> None:
    """Lead an arrow from its room to its lane; what goes furthest out leaves uppermost."""
    room = arrow.source
    beside.sort(key=lambda a: -abs(a.points[-3][0] - WIDTH / 2))
    y = room.y + (room.height - EXIT * (len(beside) - 1)) / 2 + EXIT * beside.index(arrow)
    edge = room.x if arrow.side < 0 else room.x + room.width
    arrow.points = [(edge, y), (arrow.points[-3][0], y), *arrow.points[-3:]]


def _height(room: Room, arrows: list[Arrow]) -> float:
    sides = [a.side for a in arrows if a.source is room]
    text = sum(block(part, names, room.width) for part, names in room.parts.items())
    return max(TITLE + text + PAD / 2, max(sides.count(-1), sides.count(1)) * EXIT + PAD)


def block(part: str, names: list[str], width: float) -> float:
    """Return how high the names of one package are, with its frame if it is in a room."""
    return LINE * len(grid(names, width - 2 * PAD if part else width)[0]) + (
        TITLE + PAD if part else PAD / 2
    )


def grid(names: list[str], width: float) -> list[list[str]]:
    """Put names into as many columns as fit into a box; return the columns."""
    columns = max(1, int((width - 2 * PAD + 2 * CHAR) / cell(names)))
    rows = -(-len(names) // columns)
    return [names[start : start + rows] for start in range(0, len(names), rows)]


def cell(names: list[str]) -> float:
    """Return how wide a column of names is."""
    return (max(map(len, names)) + 2) * CHAR


def _arrow(arrow: Arrow, arrows: list[Arrow]) -> Iterator[str]:
    (x, y), ink, points = arrow.points[-1], arrow.target.ink, arrow.points
    path = f"M{points[0][0]:g} {points[0][1]:g}"
    for before, corner, after in zip(points, points[1:], points[2:], strict=False):
        begin, end = _toward(corner, before), _toward(corner, after)
        path += f"L{begin[0]:g} {begin[1]:g}Q{corner[0]:g} {corner[1]:g} {end[0]:g} {end[1]:g}"
    yield f"<g><title>{arrow.source.name} imports {arrow.target.name}</title>"
    yield f'<path d="{path}V{y - HEAD:g}" fill="none" stroke="{ink}" stroke-width="1.4"/>'
    yield f'<path d="M{x:g} {y:g}l-4 {-HEAD}h8z" fill="{ink}"/></g>'
    same = [a for a in arrows if (a.target, a.side) == (arrow.target, arrow.side) and a.side]
    if any(a.points[1][1] < points[1][1] for a in same):  # it joins a lane that another has begun
        yield f'<circle cx="{points[1][0]:g}" cy="{points[1][1]:g}" r="2.6" fill="{ink}"/>'


def _toward(corner: Point, other: Point) -> Point:
    """Return the point a little way from a corner to another, up, down or aside."""
    (x, y), (to_x, to_y) = corner, other
    length = abs(to_x - x) + abs(to_y - y)
    part = min(ROUND, length / 2) / length
    return x + (to_x - x) * part, y + (to_y - y) * part


def _box(room: Room) -> Iterator[str]:
    yield _frame(
        room.x,
        room.y,
        room.width,
        room.height,
        f'fill="#fafafa" stroke="{room.ink}" stroke-width="1.6"',
    )
    yield _text(room.x + PAD, room.y + 19, room.name, f'font-size="14" fill="{room.ink}" {BOLD}')
    y = room.y + TITLE
    for part, names in room.parts.items():
        inset = PAD if part else 0
        x, width, high = room.x + inset, room.width - 2 * inset, block(part, names, room.width)
        if part:
            yield _frame(x, y, width, high - PAD, 'fill="#fff" stroke="#bbb"')
            yield _text(x + PAD, y + LINE, f"{room.name}.{part}", f'fill="#555" {BOLD}')
        for number, column in enumerate(grid(names, width)):
            for line, name in enumerate(column):
                down = y + PAD + LINE * line + (LINE + 4 if part else 0)
                yield _text(x + PAD + number * cell(names), down, name, 'font-family="monospace"')
        y += high


def _frame(x: float, y: float, width: float, height: float, style: str) -> str:
    return f'<rect x="{x:g}" y="{y:g}" width="{width:g}" height="{height:g}" rx="5" {style}/>'


def _text(x: float, y: float, words: str, style: str) -> str:
    return f'<text x="{x:g}" y="{y:g}" {style}>{words}</text>'


BOLD = 'font-weight="bold"'
