"""Tables: for the terminal, and in Markdown for docs/PERFORMANCE.md."""

import statistics

# Title, key, format.
COLUMNS = [("IOPS", "iops", "{:.0f}"), ("GB/s", "gb_per_s", "{:.2f}"), ("p50 us", "p50_us", "{:.1f}"),
           ("p99 us", "p99_us", "{:.1f}"), ("p99.9 us", "p999_us", "{:.1f}"),
           ("CPU us", "target_cpu_us_per_io", "{:.2f}"), ("syscalls", "syscalls", "{:.3f}"),
           ("switches", "switches", "{:.3f}"), ("allocs", "allocations", "{:.3f}"),
           ("instr.", "instructions", "{:.0f}"), ("target %", "target_cpu_percent", "{:.0f}"),
           ("load %", "load_cpu_percent", "{:.0f}")]


def median(results, key):
    """The median over the rounds, or None."""
    found = [r[key] for r in results if r.get(key) is not None]
    return statistics.median(found) if found else None


def row(data, name, point):
    """{key: median or count} of a target at a point; None when it has no result there."""
    results = data["results"].get(name, {}).get(point)
    if not results:
        return None
    values = {key: median(results, key) for _, key, _ in COLUMNS if key != "gb_per_s"}
    values["gb_per_s"] = median(results, "mb_per_s") / 1e3
    if not any(r.get("target_cpu_percent") for r in results):
        values["target_cpu_us_per_io"] = values["target_cpu_percent"] = None
    values.update({k: v for k, v in data.get("counts", {}).get(name, {}).get(point, {}).items() if v is not None})
    return values


def cell(value, form):
    return "n/a" if value is None else form.format(value)


def ratio(ours, theirs):
    """How many times theirs ours is."""
    return f"{ours / theirs:.2f}x" if ours and theirs else "n/a"


def points_of(data):
    """Every point that any target has results for, in the order of the matrix."""
    return [p for p in data["points"] if any(data["results"][name].get(p) for name in data["results"])]


def text_rows(data):
    """The table of the terminal: lists of cells."""
    yield ["point", "target", *(title for title, _, _ in COLUMNS), "IOPS of first", "CPU of first"]
    names = list(data["results"])
    for point in points_of(data):
        first = row(data, names[0], point)
        for name in names:
            values = row(data, name, point)
            if values is None:
                if name != "polling":
                    yield [point, name, "failed"]
                continue
            ratios = [ratio(first[key], values[key]) if first and name != names[0] else ""
                      for key in ("iops", "target_cpu_us_per_io")]
            yield [point, name, *(cell(values[key], form) for _, key, form in COLUMNS), *ratios]


def aligned(rows):
    """Rows as text: the first two columns to the left, numbers to the right."""
    rows = [list(r) for r in rows]
    widths = [max(len(r[i]) for r in rows if len(r) > i) for i in range(max(map(len, rows)))]
    return "\n".join("  ".join(c.ljust(w) if i < 2 else c.rjust(w) for i, (c, w) in enumerate(zip(r, widths))).rstrip()
                     for r in rows)


def markdown(rows):
    """Rows as a Markdown table; the first is its head."""
    head, *rest = rows
    lines = ["| " + " | ".join(head) + " |", "|---|" + "---:|" * (len(head) - 1)]
    return "\n".join(lines + ["| " + " | ".join(r) + " |" for r in rest])


def number(value):
    """A number that is easy to read in a table."""
    if value is None:
        return "n/a"
    if value >= 10000:
        return f"{value / 1000:.0f}k"
    return f"{value:.0f}" if value >= 100 else f"{value:.3g}"


def disk_rows(disk):
    """fio on the device, gatewayd over it, and the difference."""
    yield ["on the disk", "fio IOPS", "gatewayd IOPS", "gatewayd / fio", "fio p50 us", "gatewayd p50 us", "added us"]
    for point in disk["fio"]:
        fio, ours = disk["fio"][point], disk["gatewayd"][point]
        if not fio or not ours:
            continue
        a, b = median(fio, "iops"), median(ours, "iops")
        p, q = median(fio, "p50_us"), median(ours, "p50_us")
        yield [point, number(a), number(b), ratio(b, a), f"{p:.1f}", f"{q:.1f}", f"{q - p:.1f}"]


def _of(scale, name, *path):
    value = scale.get(name)
    for key in path:
        value = value.get(str(key), value.get(key)) if isinstance(value, dict) else None
    return value


def session_rows(scale, kind):
    """IOPS by the number of sessions, and the ratio to 16."""
    counts = sorted({int(n) for name in scale for n in _of(scale, name, "sessions", kind) or ()})
    yield ["sessions", *(f"{name}{what}" for name in scale for what in (" IOPS", " / 16 sessions", " p99 us"))]
    for count in counts:
        cells = [str(count)]
        for name in scale:
            iops = _of(scale, name, "sessions", kind, count, "iops")
            cells += [number(iops), ratio(iops, _of(scale, name, "sessions", kind, 16, "iops")),
                      number(_of(scale, name, "sessions", kind, count, "p99_us"))]
        yield cells


def lun_rows(scale):
    """IOPS, latency and memory by the number of LUNs."""
    names = [name for name in scale if _of(scale, name, "luns")]
    counts = sorted({int(n) for name in names for n in _of(scale, name, "luns")})
    yield ["LUNs", *(f"{name}{what}" for name in names for what in (" IOPS", " p99 us", " RSS MiB", " KiB a LUN"))]
    for count in counts:
        cells = [str(count)]
        for name in names:
            rss = _of(scale, name, "luns", count, "rss_kib")
            base = _of(scale, name, "luns", counts[0], "rss_kib")
            each = (rss - base) / (count - counts[0]) if rss and base and count > counts[0] else None
            cells += [number(_of(scale, name, "luns", count, what)) for what in ("iops", "p99_us")]
            cells += [number(rss / 1024 if rss else None), number(each)]
        yield cells


def single_rows(scale):
    """What is one number for each target."""
    yield ["", *scale]
    for title, *path in (
            ("RSS of an idle session, KiB", "idle", "rss_kib"), ("PSS of an idle session, KiB", "idle", "pss_kib"),
            ("logins a second, one after the other", "idle", "logins_per_s"),
            ("a login, p50 us", "idle", "login_p50_us"), ("a login, p99 us", "idle", "login_p99_us"),
            ("logins a second, 16 at once", "storm", "logins_per_s"),
            ("modest session alone, p50 us", "fairness", "alone", "p50_us"),
            ("modest session alone, p99 us", "fairness", "alone", "p99_us"),
            ("beside the greedy one, p50 us", "fairness", "beside", "p50_us"),
            ("beside the greedy one, p99 us", "fairness", "beside", "p99_us"),
            ("the greedy one, MB/s", "fairness", "greedy", "mb_per_s")):
        yield [title, *(number(_of(scale, name, *path)) for name in scale)]


def scale_tables(scale):
    """(title, rows) of everything that `scale` measures."""
    yield f"4 KiB reads, {256} in flight over all sessions", list(session_rows(scale, "constant"))
    yield "4 KiB reads, one in flight a session", list(session_rows(scale, "one"))
    yield "4 KiB reads over many LUNs, 16 sessions of depth 16", list(lun_rows(scale))
    yield "Sessions, logins, fairness", list(single_rows(scale))
