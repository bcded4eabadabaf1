"""The parts of the benchmark that measure nothing: points, what other tools say, tables, charts, the document."""

import sys
import unittest
import xml.etree.ElementTree
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT / "Benchmarks"), str(ROOT / "Tests/integration")]

from measures import charts, counts, disk, docs, points, report, scale  # noqa: E402


def result(iops, **more):
    return {"iops": iops, "mb_per_s": iops * 4096 / 1e6, "p50_us": 20.0, "p99_us": 200.0, "p999_us": 900.0,
            "target_cpu_us_per_io": 2.5, "target_cpu_percent": 90.0, "load_cpu_percent": 40.0} | more


def measurement():
    """Two targets at two points; tgt failed at one of them."""
    names = ("4k-read-s1-d1", "4k-read-s1-d32")
    return {"points": {name: points.POINTS[name] for name in names}, "commands": ["./dev bench"], "seconds": 1.5,
            "notes": {"gatewayd": "memory disk", "tgt": "files"}, "machine": {"processor": "one", "fio": ""},
            "taken": "2026-01-02T03:04:05Z",
            "results": {"gatewayd": {names[0]: [result(100), result(300), result(200)], names[1]: [result(90000)]},
                        "tgt": {names[0]: [result(50)], names[1]: []}},
            "counts": {"gatewayd": {names[0]: {"syscalls": 2.0, "instructions": None, "allocations": 0.0}}}}


class Bench(unittest.TestCase):
    def test_points(self):
        """Every point that 'quick' has is one of the matrix; --only takes parts of names and globs"""
        self.assertLessEqual(set(points.QUICK), set(points.POINTS))
        self.assertEqual(list(points.chosen(True)), [p for p in points.POINTS if p in points.QUICK])
        self.assertEqual(list(points.chosen(False, ["4k-read-s16-d32", "1m-*"])),
                         ["4k-read-s16-d32", "1m-read-seq-d4", "1m-write-seq-d4"])
        self.assertRaises(SystemExit, points.chosen, False, (), ["5k-read"])

    def test_perf(self):
        """What perf cannot count here is nothing, not zero"""
        text = ("1234,,raw_syscalls:sys_enter,1000,100.00,,\n77,,context-switches,1,100.00,1,/sec\n"
                "<not supported>,,instructions,0,100.00,,\n")
        self.assertEqual(counts.parse(text), {"syscalls": 1234, "switches": 77, "instructions": None})

    def test_fio(self):
        """fio's JSON is found behind its messages, and the side that did something counts"""
        side = '{"total_ios": %d, "iops": 50000, "bw_bytes": 2e8, "lat_ns": {"mean": 20000, "percentile": ' \
               '{"50.000000": 19000, "99.000000": 40000}}}'
        text = f'fio: a note\n{{"jobs": [{{"read": {side % 5}, "write": {side % 0}, "usr_cpu": 10, "sys_cpu": 40}}]}}'
        said = disk.parse_fio(text)
        self.assertEqual((said["iops"], said["p50_us"], said["cpu_us_per_io"]), (50000, 19.0, 10.0))

    def test_table(self):
        """The table has medians, the ratio to the first target, and a word where a target failed"""
        lines = report.aligned(report.text_rows(measurement())).splitlines()
        self.assertEqual(lines[1].split()[:3], ["4k-read-s1-d1", "gatewayd", "200"])
        self.assertIn("4.00x", lines[2])
        self.assertIn("failed", lines[4])
        self.assertEqual(report.number(None), "n/a")

    def test_charts(self):
        """Charts are well-formed, and every value has its bar"""
        made = charts.all_charts(measurement())
        self.assertIn("latency-4k-read.svg", made)
        for name, svg in made.items():
            with self.subTest(chart=name):
                root = xml.etree.ElementTree.fromstring(svg)
                tips = [e.text for e in root.iter("{http://www.w3.org/2000/svg}title")]
                self.assertEqual(len(tips), 3)
        self.assertIsNone(charts.bars("none", ["a"], {"gatewayd": [None]}))

    def test_axes(self):
        """An axis reaches its highest value with a few lines, on either scale"""
        for value in (0.07, 1, 9.9, 10, 123456, 5e6):
            for is_log in (False, True):
                axis = charts.Scale([value / 20, value], is_log)
                self.assertLessEqual(value, axis.ticks[-1] * 1.0001)
                self.assertLessEqual(len(axis.ticks), 8)
                self.assertGreaterEqual(axis.y(value), charts.TOP - 0.1)

    def test_document(self):
        """Only what is between the two comments is replaced; a document without them is refused"""
        text = f"before\n{docs.BEGIN}\nold\n{docs.END}\nafter\n"
        made = docs.replace(text, docs.measured(measurement(), None))
        self.assertTrue(made.startswith("before\n") and made.endswith("after\n"))
        self.assertNotIn("old", made)
        self.assertIn("| 4k-read-s1-d1 | 200 | 50 |", made)
        self.assertIn("gatewayd syscalls", made)
        self.assertNotIn("gatewayd instructions", made)
        self.assertRaises(SystemExit, docs.replace, "nothing", "new")

    def test_what_was_not_measured_stays(self):
        """Of points and many sessions the document keeps what was not measured anew"""
        text = f"x\n{docs.BEGIN}\npoints\n\n{docs.SCALE}\n\nmany\n{docs.END}\nx\n"
        self.assertEqual(docs.kept(text, {}, None), ("points", f"{docs.SCALE}\n\nmany"))
        self.assertEqual(docs.kept(text, {}, {"results": {}}), ("points", ""))
        self.assertEqual(docs.kept(text, {"results": {}}, None), ("", f"{docs.SCALE}\n\nmany"))

    def test_document_is_there(self):
        """docs/PERFORMANCE.md has the two comments"""
        self.assertIn("x", docs.replace(docs.DOCUMENT.read_text(), "x"))

    def test_medians(self):
        """Rounds of one shape become one, number by number; what a round has not is left out"""
        rounds = [{"a": {"16": {"x": 1, "y": 2.0}}, "b": 9}, None, {"a": {"16": {"x": 3}}, "b": 7}, {"a": {}, "b": 8}]
        self.assertEqual(scale.medians(rounds), {"a": {"16": {"x": 2, "y": 2.0}}, "b": 8})
        self.assertIsNone(scale.medians([None, None]))

    def test_scale(self):
        """Tables of many sessions leave a gap where a target has no result"""
        found = {"gatewayd": {"sessions": {"constant": {"16": result(1000), "1000": result(900)}}}, "bare": {}}
        rows = list(report.session_rows(found, "constant"))
        self.assertEqual(rows[2][:3], ["1000", "900", "0.90x"])
        self.assertEqual(rows[2][4], "n/a")
        self.assertEqual(len(list(report.scale_tables(found))), 4)
        self.assertGreaterEqual(max(scale.SESSIONS), 1000)


if __name__ == "__main__":
    unittest.main()
