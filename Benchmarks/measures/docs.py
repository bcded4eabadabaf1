"""Writes the measured part of docs/PERFORMANCE.md from the newest results, and its charts."""

import json
import shutil

from . import charts, report
from .machine import ROOT

BEGIN, END = "<!-- measured: begin (./dev bench docs) -->", "<!-- measured: end -->"
DOCUMENT = ROOT / "docs/PERFORMANCE.md"
CHARTS = ROOT / "docs/performance"
SCALE = "### Many sessions and LUNs"


def replace(text, measured):
    """The document with everything between the two comments replaced."""
    before, found, rest = text.partition(BEGIN)
    _, ended, after = rest.partition(END)
    if not found or not ended:
        raise SystemExit(f"{DOCUMENT.name} has lost its comments '{BEGIN}' and '{END}'")
    return f"{before}{BEGIN}\n{measured.strip()}\n{END}{after}"


def kept(text, data, scale):
    """What the document has of the two parts that was not measured anew: (points, many sessions)."""
    points, found, many = text.partition(BEGIN)[2].partition(END)[0].partition(SCALE)
    return "" if data else points.strip(), "" if scale else (found + many).strip()


def _machine(data):
    said = ", ".join(f"{name} {value}" for name, value in data["machine"].items() if value)
    return f"{data['taken'][:10]}: {said}."


def point_rows(data, keys, has_ratios=False):
    """For each point and each of `keys` the targets side by side, then ours against each of the others."""
    names = list(data["results"])
    others = names[1:] if has_ratios else []
    yield ["point", *(f"{name} {title}" for title, _ in keys for name in names),
           *(f"IOPS: {names[0]} / {name}" for name in others)]
    for point in report.points_of(data):
        rows = {name: report.row(data, name, point) or {} for name in names}
        yield [point, *(report.number(rows[name].get(key)) for _, key in keys for name in names),
               *(report.ratio(rows[names[0]].get("iops"), rows[name].get("iops")) for name in others)]


def measured(data, scale):
    """The Markdown between the comments."""
    parts = []
    if data:
        rounds = max((len(r) for by in data["results"].values() for r in by.values()), default=0)
        parts += [_machine(data), "", "\n".join(f"- {name}: {note}" for name, note in data["notes"].items()), "",
                  f"Commands: {', '.join(f'`{c}`' for c in data['commands'])}. Medians of {rounds} rounds, "
                  f"{data['seconds']:g} s a point.", ""]
        for name, svg in charts.all_charts(data).items():
            title = svg.partition('aria-label="')[2].partition('"')[0]
            parts.append(f"![{title}](performance/{name})")
        rates = [("IOPS", "iops"), ("CPU µs/IO", "target_cpu_us_per_io")]
        counted = [("syscalls", "syscalls"), ("switches", "switches"), ("allocations", "allocations"),
                   ("instructions", "instructions")]
        # What this machine cannot count has no column.
        counted = [pair for pair in counted if any(by.get(pair[1]) is not None for points in data["counts"].values()
                                                   for by in points.values())]
        parts += ["", "### IOPS and CPU time", "", report.markdown(list(point_rows(data, rates, True))),
                  "", "### Latency, µs", "",
                  report.markdown(list(point_rows(data, [("p50", "p50_us"), ("p99", "p99_us"), ("p99.9", "p999_us")]))),
                  "", "### Counted per I/O", "", report.markdown(list(point_rows(data, counted)))]
        if data.get("disk"):
            parts += ["", "### A disk: fio on the device, gatewayd over it", "",
                      report.markdown(list(report.disk_rows(data["disk"])))]
    if scale:
        parts += ["", SCALE, "", _machine(scale), ""]
        for title, rows in report.scale_tables(scale["results"]):
            parts += [f"{title}:", "", report.markdown(rows), ""]
    return "\n".join(parts)


def write(directory):
    """Puts the results of `directory` into the document."""
    def read(name):
        return json.loads((directory / name).read_text()) if (directory / name).exists() else None
    data, scale = read("results.json"), read("scale.json")
    if not data and not scale:
        raise SystemExit(f"there is nothing in {directory}: ./dev bench, ./dev bench scale")
    text = DOCUMENT.read_text()
    points, many = kept(text, data, scale)
    parts = [part.strip() for part in (points, measured(data, scale), many) if part]
    DOCUMENT.write_text(replace(text, "\n\n".join(parts)))
    if data:
        shutil.rmtree(CHARTS, ignore_errors=True)
        CHARTS.mkdir(parents=True)
        for name, svg in charts.all_charts(data).items():
            (CHARTS / name).write_text(svg)
