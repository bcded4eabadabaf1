"""Who may import whom. The table is docs/ARCHITECTURE.md's; to change it is a decision, so it is written here too."""

import json
import re
import subprocess
import unittest
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]

# Module: what it may depend on. A module that is not in the table fails the test.
TABLE = {
    "CChecksum": set(),
    "CSystem": set(),
    "CURing": set(),
    "CUdev": set(),
    "CNettle": set(),
    "CHogweed": set(),
    "CBlkid": set(),
    "CSystemd": set(),
    "CVerbs": set(),
    "Wire": {"CChecksum"},
    "SCSI": {"Wire"},
    "ISCSI": {"Wire", "CNettle"},
    "HA": {"Wire", "CNettle"},
    "Reactor": {"CURing", "CSystem"},
    "Privileged": {"Reactor", "CSystem"},
    "Storage": {"Wire", "SCSI", "Reactor", "Privileged", "CSystem"},
    "Datamover": {"Wire", "ISCSI", "Reactor", "CSystem", "CVerbs"},
    "Discovery": {"CUdev", "CBlkid", "CSystem", "CVerbs"},
    "Gateway": {"Wire", "SCSI", "ISCSI", "HA", "Reactor", "Privileged", "Storage", "Datamover", "Discovery", "CSystem",
                "CSystemd"},
    "Appliance": {"Gateway", "Discovery", "CHogweed"},
    "gatewayd": {"Gateway", "Appliance", "Discovery", "CSystem", "CSystemd", "ArgumentParser"},
    # What the test targets share. In no other line of this table: the product has nothing of it.
    "TestSupport": set(),
    "PairWorld": {"HA", "Storage", "SCSI", "Wire", "TestSupport"},
    "PairSimulation": {"PairWorld"},
}
PURE = {"Wire", "SCSI", "ISCSI", "HA"}
STANDARD = {"Swift", "Synchronization"}
# Beyond its dependencies: parts that touch the machine may see the C library, the control side half of Foundation.
SYSTEM = {module: set() if module in PURE else {"Glibc"} for module in TABLE}
SYSTEM["Gateway"] |= {"FoundationEssentials"}
SYSTEM["gatewayd"] |= {"FoundationEssentials"}

IMPORT = re.compile(
    r"^\s*(?:@\w+(?:\([^)]*\))?\s+)*(?:public |package |internal |fileprivate |private )?import\s+"
    r"(?:(?:struct|class|enum|protocol|typealias|func|let|var|actor)\s+)?([A-Za-z_][A-Za-z0-9_]*)", re.MULTILINE)


def imports(path):
    """The modules that a source file imports, each once."""
    return set(IMPORT.findall(path.read_text(errors="replace")))


class Modules(unittest.TestCase):
    def setUp(self):
        self.maxDiff = None

    @classmethod
    def setUpClass(cls):
        text = subprocess.run(["swift", "package", "dump-package"], cwd=ROOT, capture_output=True, text=True,
                              timeout=120, stdin=subprocess.DEVNULL, check=True).stdout
        cls.targets = {t["name"]: t for t in json.loads(text)["targets"]}

    def dependencies(self, target):
        found = set()
        for dependency in target["dependencies"]:
            value = next(iter(dependency.values()))
            found.add(value[0])
        return found

    def test_manifest_keeps_to_the_table(self):
        """Every module of the manifest is in the table and depends on nothing that the table does not allow"""
        for name, target in self.targets.items():
            if target["type"] == "test":
                continue
            with self.subTest(module=name):
                self.assertIn(name, TABLE, "a module that the table does not know")
                self.assertLessEqual(self.dependencies(target), TABLE[name])

    def test_every_directory_is_a_module(self):
        """Every directory of Sources is a module of the manifest"""
        directories = {p.name for p in (ROOT / "Sources").iterdir() if p.is_dir()}
        modules = {n for n, t in self.targets.items() if t["type"] != "test"}
        self.assertEqual(directories - modules, set())

    def test_sources_import_what_the_manifest_says(self):
        """Every import of a module names one of its dependencies (a manifest alone does not stop an import)"""
        count = 0
        for path in sorted((ROOT / "Sources").rglob("*.swift")):
            module = path.relative_to(ROOT / "Sources").parts[0]
            allowed = self.dependencies(self.targets[module]) | SYSTEM.get(module, set()) | STANDARD
            count += 1
            with self.subTest(file=str(path.relative_to(ROOT))):
                self.assertLessEqual(imports(path), allowed)
        self.assertGreater(count, 10)

    def test_tests_share_their_support(self):
        """TestSupport lies with the tests, and what it has no test target has again"""
        self.assertEqual(self.targets["TestSupport"]["path"], "Tests/TestSupport")
        declared = re.compile(r"^(?:public )?(?:struct|final class|class|enum) (\w+)", re.MULTILINE)
        support = ROOT / "Tests" / "TestSupport"
        shared = {name for path in support.glob("*.swift") for name in declared.findall(path.read_text())}
        self.assertIn("SplitMix", shared)
        for path in sorted((ROOT / "Tests").glob("*Tests/*.swift")):
            with self.subTest(file=str(path.relative_to(ROOT))):
                self.assertEqual(set(declared.findall(path.read_text())) & shared, set())

    def test_imports_are_seen(self):
        """The scan sees every way to write an import"""
        import tempfile
        with tempfile.NamedTemporaryFile("w", suffix=".swift") as file:
            file.write("import A\n@testable import B\npublic import C\nimport struct D.E\n"
                       "@_implementationOnly import F\n#if X\n  import G\n#endif\n// import H\nlet importI = 1\n")
            file.flush()
            self.assertEqual(imports(Path(file.name)), set("ABCDFG"))


if __name__ == "__main__":
    unittest.main()
