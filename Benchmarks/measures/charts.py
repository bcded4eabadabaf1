"""SVG charts of bars in groups, without a library. Text and lines are legible on light and on dark ground."""

import math
from xml.sax.saxutils import escape

from . import points, report

COLOURS = ["#2f81f7", "#d9822b", "#8b949e", "#3fb950", "#a371f7", "#db61a2"]
STYLE = ("text{font:11px system-ui,sans-serif;fill:#57606a}.t{font-size:14px;font-weight:600}.g{stroke:#8b949e;"
         "stroke-opacity:.35}.w{stroke:#57606a}@media(prefers-color-scheme:dark){text{fill:#adb5bf}.w{stroke:#adb5bf}}")
WIDTH, HEIGHT = 860, 300
LEFT, RIGHT, TOP, BOTTOM = 56, 10, 52, 44


def short(value):
    """An axis' number: 1200000 is 1.2M."""
    for unit, size in (("M", 1e6), ("k", 1e3)):
        if value >= size:
            return f"{value / size:.3g}{unit}"
    return f"{value:.3g}"


class Scale:
    """Values to heights, linear from zero or logarithmic over whole decades."""

    def __init__(self, values, is_log):
        self.is_log = is_log
        highest = max(values)
        if is_log:
            self.low, self.high = math.floor(math.log10(min(values))), math.ceil(math.log10(highest))
            if self.high == self.low:
                self.high += 1
            self.ticks = [10.0 ** n for n in range(self.low, self.high + 1)]
        else:
            step = 10.0 ** math.floor(math.log10(highest))
            step = next(step * f for f in (0.1, 0.2, 0.25, 0.5, 1, 2) if highest <= step * f * 6)
            count = math.ceil(highest / step - 1e-9)
            self.low, self.high = 0, step * count
            self.ticks = [step * n for n in range(count + 1)]

    def y(self, value):
        position = math.log10(value) if self.is_log else value
        part = min(max((position - self.low) / (self.high - self.low), 0), 1)
        return HEIGHT - BOTTOM - part * (HEIGHT - TOP - BOTTOM)


def _text(x, y, text, anchor="middle", kind=""):
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}"{kind}>{escape(text)}</text>'


def _frame(title, names, scale):
    yield _text(LEFT, 18, title, "start", ' class="t"')
    x = LEFT
    for name, colour in zip(names, COLOURS):
        yield f'<rect x="{x}" y="28" width="10" height="10" fill="{colour}"/>'
        yield _text(x + 15, 37, name, "start")
        x += 30 + 7 * len(name)
    for tick in scale.ticks:
        y = scale.y(tick)
        yield f'<line class="g" x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{y:.1f}" y2="{y:.1f}"/>'
        yield _text(LEFT - 6, y + 4, short(tick), "end")


def bars(title, groups, series, whiskers=None, is_log=False):
    """`series`: {name: [a value or None for each group]}; `whiskers`: the same, a second value above the first.
    A line break in a group's name is a line break under it."""
    whiskers = whiskers or {}
    values = [v for many in (*series.values(), *whiskers.values()) for v in many if v]
    if not values:
        return None
    scale = Scale(values, is_log)
    parts = list(_frame(title, series, scale))
    room = (WIDTH - LEFT - RIGHT) / len(groups)
    width = min(room * 0.8 / len(series), 40)
    for number, group in enumerate(groups):
        middle = LEFT + room * (number + 0.5)
        for line, words in enumerate(group.split("\n")):
            parts.append(_text(middle, HEIGHT - BOTTOM + 16 + 14 * line, words))
        for place, (name, colour) in enumerate(zip(series, COLOURS)):
            value = series[name][number]
            if not value:
                continue
            x, y = middle + width * (place - len(series) / 2), scale.y(value)
            above = whiskers.get(name, [None] * len(groups))[number]
            tip = f"{name}, {group}: {short(value)}" + (f" to {short(above)}" if above else "")
            parts.append(f'<rect x="{x + 0.5:.1f}" y="{y:.1f}" width="{width - 1:.1f}" '
                         f'height="{HEIGHT - BOTTOM - y:.1f}" fill="{colour}"><title>{escape(tip)}</title></rect>')
            if above:
                end, centre = scale.y(above), x + width / 2
                parts.append(f'<path class="w" fill="none" d="M{centre:.1f} {y:.1f}V{end:.1f}'
                             f'M{centre - 3:.1f} {end:.1f}h6"/>')
    return (f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" role="img" '
            f'aria-label="{escape(title)}"><style>{STYLE}</style>\n' + "\n".join(parts) + "\n</svg>\n")


def _matrix(data, access):
    """The points of one access at 4 KiB, and their names under a chart."""
    found = {}
    for sessions in points.SESSIONS:
        for depth in points.DEPTHS:
            found[f"4k-{access}-s{sessions}-d{depth}"] = f"depth {depth}\n" + (
                f"{sessions} session{'s' if sessions > 1 else ''}" if depth == points.DEPTHS[1] else "")
    return {p: title for p, title in found.items() if p in report.points_of(data)}


def _others(data, *words):
    """The other points that have one of these words."""
    return {p: p.replace("-", " ", 1).replace("-", "\n", 1) for p in report.points_of(data)
            if any(w in p.split("-") for w in words)}


def _series(data, chosen, key):
    return {name: [(report.row(data, name, p) or {}).get(key) for p in chosen] for name in data["results"]}


def all_charts(data):
    """{file name: SVG} of a measurement."""
    found = {}

    cpu = "target_cpu_us_per_io"

    def add(name, title, chosen, key, whisker=None, is_log=False):
        chart = bars(title, list(chosen.values()), _series(data, chosen, key),
                     _series(data, chosen, whisker) if whisker else None, is_log) if chosen else None
        if chart:
            found[name + ".svg"] = chart

    for access in ("read", "write"):
        chosen, what = _matrix(data, access), f"4 KiB random {access}s"
        add(f"iops-4k-{access}", f"{what}: IOPS", chosen, "iops")
        add(f"cpu-4k-{access}", f"{what}: CPU time of the target per I/O, µs", chosen, cpu, None, True)
        add(f"latency-4k-{access}", f"{what}: latency, µs (bar: p50, line: p99)", chosen, "p50_us", "p99_us", True)
    sequential = {p: t for p, t in _others(data, "seq").items() if "digests" not in p}
    add("sequential", "Sequential: GB/s", sequential, "gb_per_s")
    add("cpu-sequential", "Sequential: CPU time of the target per I/O, µs", sequential, cpu)
    add("mixed-digests", "Mixed 70/30, and CRC32C digests: IOPS", _others(data, "mix", "digests"), "iops")
    return found
