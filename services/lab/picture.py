"""A finding's panels as one SVG: alike on the page, in a report and in a document; lines, bands, heat, arrows."""

import math
from collections.abc import Callable, Iterator, Sequence
from html import escape

from xsam.services.lab.finding import Heat, Panel, Series

WIDTH, HEIGHT = 460, 330
_LEFT, _RIGHT, _TOP, _BOTTOM = 58, 20, 30, 44
_LEGEND_ROW, _LEGEND_WIDTH = 17, 402
_LEGEND_MARK, _LETTER = 32, 6.6
"""Room for a name's line and the gap behind it, and about what a letter is wide."""
_COLOURS = ("#1f6feb", "#d1442f", "#2f8f4e", "#8250df", "#b7791f", "#0e7c86", "#c2408f")
"""Told apart on light and on dark."""
_INK = "#6e7781"
"""Read on light and on dark: a picture in an <img> does not know the page's colours."""
_COOL, _WARM = (33, 84, 160), (253, 231, 150)
_ARROW_HEAD = 8.0
_MAX_TICKS = 6
_Scale = Callable[[float], float]


def draw(panels: Sequence[Panel]) -> str:
    """Return the panels as an SVG document, two in a row."""
    columns = min(2, max(1, len(panels)))
    heights = [HEIGHT + _LEGEND_ROW * math.ceil(len(_names(panel)) / _legend_columns(panel)) for panel in panels]
    rows = [max(heights[i : i + columns]) for i in range(0, len(panels), columns)]
    width, height = WIDTH * columns, sum(rows)
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="{width}" height="{height}" '
        f'role="img" aria-label="{escape(", ".join(panel.title for panel in panels))}" '
        'font-family="system-ui, sans-serif" font-size="12" fill="currentColor" '
        f'color="{_INK}">'
    ]
    for number, panel in enumerate(panels):
        x, y = WIDTH * (number % columns), sum(rows[: number // columns])
        parts += [f'<g transform="translate({x} {y})">', *_panel(panel), "</g>"]
    return "\n".join([*parts, "</svg>\n"])


def _panel(panel: Panel) -> Iterator[str]:
    (left, right), (low, high) = _limits(panel)
    x, y = _scales(panel, (left, right), (low, high))
    yield f'<text x="{_LEFT}" y="18" font-weight="600">{escape(panel.title)}</text>'
    if panel.heat is not None:
        yield from _heat(panel.heat, x, y)
    yield from _axes(panel, x, y, (left, right), (low, high))
    for number, series in enumerate(panel.series):
        yield from _line(series, _COLOURS[number % len(_COLOURS)], x, y, is_on_heat=panel.heat is not None)
    for radius in panel.circles:
        across = abs(x(radius) - x(0))
        yield (
            f'<circle cx="{x(0):.1f}" cy="{y(0):.1f}" r="{across:.1f}" fill="none" stroke="currentColor" '
            'stroke-dasharray="4 3"/>'
        )
    for number, arrow in enumerate(panel.arrows):
        colour = _COLOURS[(len(panel.series) + number) % len(_COLOURS)]
        yield from _arrow((x(arrow.start[0]), y(arrow.start[1])), (x(arrow.end[0]), y(arrow.end[1])), colour)
    yield from _legend(panel)


def _limits(panel: Panel) -> tuple[tuple[float, float], tuple[float, float]]:
    xs = [x for one in panel.series for x, _ in one.points] + [end[0] for a in panel.arrows for end in (a.start, a.end)]
    ys = [y for one in panel.series for _, y in one.points] + [end[1] for a in panel.arrows for end in (a.start, a.end)]
    ys += [y for one in panel.series for pair in one.band or () for y in pair]
    if panel.heat is not None:
        return (panel.heat.xs[0], panel.heat.xs[-1]), (panel.heat.ys[0], panel.heat.ys[-1])
    xs, ys = [x for x in xs if math.isfinite(x)] or [0.0, 1.0], [y for y in ys if math.isfinite(y)] or [0.0, 1.0]
    margin = 0.05 * (max(ys) - min(ys)) or 0.5
    wide = (min(xs), max(xs)) if max(xs) > min(xs) else (min(xs) / 2, max(xs) * 2 or 1.0)
    return wide, (min(ys) - margin, max(ys) + margin)


def _scales(panel: Panel, xs: tuple[float, float], ys: tuple[float, float]) -> tuple[_Scale, _Scale]:
    inner_width, inner_height = WIDTH - _LEFT - _RIGHT, HEIGHT - _TOP - _BOTTOM
    is_log = panel.has_log_x and xs[0] > 0

    def along(value: float) -> float:
        return math.log(value) if is_log else value

    x_unit = inner_width / (along(xs[1]) - along(xs[0]))
    y_unit = inner_height / (ys[1] - ys[0])
    if panel.is_square:
        x_unit = y_unit = min(x_unit, y_unit)
    return (
        lambda value: _LEFT + (along(value) - along(xs[0])) * x_unit,
        lambda value: HEIGHT - _BOTTOM - (value - ys[0]) * y_unit,
    )


def _axes(panel: Panel, x: _Scale, y: _Scale, xs: tuple[float, float], ys: tuple[float, float]) -> Iterator[str]:
    right, top, bottom = x(xs[1]), y(ys[1]), y(ys[0])
    is_log = panel.has_log_x and xs[0] > 0
    free_from = -math.inf
    for value in _log_ticks(*xs, panel) if is_log else _ticks(*xs):
        at, half = x(value), _LETTER * len(f"{value:g}") / 2
        yield f'<path d="M{at:.1f} {bottom:.1f}v4" stroke="currentColor"/>'
        if at - half >= free_from:  # points that were tried may lie close together
            yield f'<text x="{at:.1f}" y="{bottom + 17:.1f}" text-anchor="middle">{value:g}</text>'
            free_from = at + half + _LETTER
    for value in _ticks(*ys):
        at = y(value)
        if panel.heat is None:
            yield f'<path d="M{_LEFT} {at:.1f}H{right:.1f}" stroke="currentColor" stroke-opacity="0.15"/>'
        yield f'<text x="{_LEFT - 6}" y="{at + 4:.1f}" text-anchor="end">{value:g}</text>'
    yield f'<path d="M{_LEFT} {top:.1f}V{bottom:.1f}H{right:.1f}" fill="none" stroke="currentColor"/>'
    middle = (_LEFT + right) / 2
    yield f'<text x="{middle:.1f}" y="{bottom + 34:.1f}" text-anchor="middle">{escape(panel.x_label)}</text>'
    turned = f'transform="translate(14 {(top + bottom) / 2:.1f}) rotate(-90)"'
    yield f'<text {turned} text-anchor="middle">{escape(panel.y_label)}</text>'


def _line(series: Series, colour: str, x: _Scale, y: _Scale, *, is_on_heat: bool) -> Iterator[str]:
    points = [(x(a), y(b)) for a, b in series.points if math.isfinite(a) and math.isfinite(b)]
    if series.band is not None:
        upper = [(x(a), y(high)) for (a, _), (_, high) in zip(series.points, series.band, strict=True)]
        lower = [(x(a), y(low)) for (a, _), (low, _) in zip(series.points, series.band, strict=True)]
        yield f'<path d="{_path([*upper, *reversed(lower)])}Z" fill="{colour}" fill-opacity="0.13"/>'
    dashes = ' stroke-dasharray="6 4"' if series.is_dashed else ""
    yield f'<path d="{_path(points)}" fill="none" stroke="{colour}" stroke-width="1.8"{dashes}/>'
    if series.has_marks:
        rim = ' stroke="#fff"' if is_on_heat else ""
        yield from (f'<circle cx="{a:.1f}" cy="{b:.1f}" r="3" fill="{colour}"{rim}/>' for a, b in points)


def _path(points: Sequence[tuple[float, float]]) -> str:
    return "M" + "L".join(f"{a:.1f} {b:.1f}" for a, b in points) if points else ""


def _heat(heat: Heat, x: _Scale, y: _Scale) -> Iterator[str]:
    known = [value for row in heat.values for value in row if math.isfinite(value)]
    low, high = min(known, default=0.0), max(known, default=1.0)
    width = abs(x(heat.xs[-1]) - x(heat.xs[0])) / max(len(heat.xs) - 1, 1)
    height = abs(y(heat.ys[-1]) - y(heat.ys[0])) / max(len(heat.ys) - 1, 1)
    for at_y, row in zip(heat.ys, heat.values, strict=True):
        for at_x, value in zip(heat.xs, row, strict=True):
            share = (value - low) / (high - low) if math.isfinite(value) and high > low else 1.0
            colour = "#" + "".join(f"{round(a + (b - a) * share):02x}" for a, b in zip(_COOL, _WARM, strict=True))
            yield (
                f'<rect x="{x(at_x) - width / 2:.1f}" y="{y(at_y) - height / 2:.1f}" width="{width + 0.5:.1f}" '
                f'height="{height + 0.5:.1f}" fill="{colour}"/>'
            )


def _arrow(start: tuple[float, float], end: tuple[float, float], colour: str) -> Iterator[str]:
    angle = math.atan2(end[1] - start[1], end[0] - start[0])
    head = [
        (end[0] - _ARROW_HEAD * math.cos(angle + turn), end[1] - _ARROW_HEAD * math.sin(angle + turn))
        for turn in (0.4, -0.4)
    ]
    for ink, width in (("#fff", 4), (colour, 2)):  # a rim, to be seen on any colour of the heat
        line = f'stroke="{ink}" stroke-width="{width}" fill="none"'
        yield f'<path d="{_path([start, end])}{_path([head[0], end, head[1]])}" {line}/>'


def _legend(panel: Panel) -> Iterator[str]:
    columns = _legend_columns(panel)
    for number, name in enumerate(_names(panel)):
        at_x = _LEFT + _LEGEND_WIDTH // columns * (number % columns)
        at_y = HEIGHT + _LEGEND_ROW * (number // columns)
        colour = _COLOURS[number % len(_COLOURS)]
        yield f'<path d="M{at_x} {at_y}h16" stroke="{colour}" stroke-width="3"/>'
        yield f'<text x="{at_x + 21}" y="{at_y + 4}">{escape(name)}</text>'


def _names(panel: Panel) -> list[str]:
    return [*(one.name for one in panel.series), *(one.name for one in panel.arrows)]


def _legend_columns(panel: Panel) -> int:
    """Return how many names stand side by side, of at most three, so that none runs into the next."""
    longest = max(map(len, _names(panel)), default=0)
    return max(1, min(3, int(_LEGEND_WIDTH / (_LEGEND_MARK + _LETTER * longest))))


def _ticks(low: float, high: float) -> list[float]:
    """Return round numbers between two ends, at most six."""
    step = 10.0 ** math.floor(math.log10(high - low))
    while (high - low) / step > _MAX_TICKS:
        step *= 2 if (high - low) / step <= 2 * _MAX_TICKS else 5
    while (high - low) / step < _MAX_TICKS / 2:
        step /= 2
    first = math.ceil(low / step - 1e-9)
    return [round(i * step, 12) for i in range(first, math.floor(high / step + 1e-9) + 1)]


def _log_ticks(low: float, high: float, panel: Panel) -> list[float]:
    """Return where there are points; on a logarithmic axis these are what was tried."""
    tried = sorted({x for one in panel.series for x, _ in one.points})
    return tried if len(tried) <= 2 * _MAX_TICKS else [low, math.sqrt(low * high), high]
