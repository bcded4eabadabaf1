"""The Debian package in a clean Debian: installed, upgraded, removed, purged. No systemd runs there, nothing is booted.

./dev deb --test makes the package and the clean root, and says where they are: GATEWAYD_DEB, GATEWAYD_DEB_ROOT (a tar
file).
"""

import gzip
import hashlib
import json
import os
import shutil
import signal
import stat
import subprocess
import tempfile
import time
import unittest
from pathlib import Path

from harness import process
from harness.loops import LoopDisk, are_available

REPOSITORY = process.REPOSITORY
PACKAGE = Path(os.environ.get("GATEWAYD_DEB", "none"))
CLEAN = Path(os.environ.get("GATEWAYD_DEB_ROOT", "none"))
SETTINGS = "etc/gatewayd/gatewayd.toml"
STATE = "var/lib/gatewayd"
# The group disk, whose number is the same on every Debian.
DISK = 6
UNITS = ["gatewayd.service", "gatewayd-addresses.socket", "gatewayd-fence.socket"]
# What dpkg, the system's own logs and the user (who stays) leave.
KEPT = ("var/lib/dpkg", "var/log", "etc/passwd", "etc/group", "etc/shadow", "etc/gshadow", "etc/.pwd.lock",
        "var/cache/ldconfig", "usr/local/bin/systemctl", "run", "tmp", "var/lib/systemd/deb-systemd-helper-enabled",
        "var/lib/systemd/deb-systemd-helper-masked")
# Stands in for a systemd that runs: writes down what it is asked to do.
SYSTEMCTL = """#!/bin/sh
case "$*" in
  *is-enabled*) echo enabled ;;
  *is-active* | *daemon-reload* | *preset*) ;;
  *) echo "$*" >>/run/asked ;;
esac
"""


class Root:
    """A clean Debian in a directory, and commands in it. They see nothing of this machine's mounts, and leave none."""

    def __init__(self):
        self.path = Path(tempfile.mkdtemp(prefix="gatewayd-root-"))
        process.run(["tar", "--extract", "--file", CLEAN, "--directory", self.path, "--numeric-owner"], seconds=300)

    def close(self):
        shutil.rmtree(self.path)

    def command(self, *arguments, mounts=(), network=True):
        """The command line of a command in the root; with `mounts`, of lines of a script that runs before it."""
        line = ["unshare", "--mount", "--pid", "--fork", "--kill-child", "--ipc"]
        line += [] if network else ["--net"]
        script = "\n".join(["set -e", 'mount -t proc proc "$1/proc"', *mounts,
                            'root=$1; shift; exec chroot "$root" "$@"'])
        return [*line, "sh", "-c", script, "sh", str(self.path), *[str(a) for a in arguments]]

    def run(self, *arguments, check=True, **options):
        environment = {"PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "LC_ALL": "C.UTF-8",
                       "DEBIAN_FRONTEND": "noninteractive"}
        return process.run(self.command(*arguments, **options), check=check, seconds=300, env=environment)

    def dpkg(self, *arguments, check=True):
        for argument in arguments:
            if isinstance(argument, Path):
                shutil.copy(argument, self.path / "tmp/package.deb")
        return self.run("dpkg", *["/tmp/package.deb" if isinstance(a, Path) else a for a in arguments], check=check)

    def files(self):
        """Every file, directory and link with its kind, owner, mode; of what stays when a package goes, nothing."""
        found = {}
        for directory, names, files in os.walk(self.path):
            for name in names + files:
                path = Path(directory) / name
                place = str(path.relative_to(self.path))
                if not place.startswith(KEPT):
                    facts = path.lstat()
                    found[place] = (oct(facts.st_mode), facts.st_uid, facts.st_gid)
        return found

    def __truediv__(self, place):
        return self.path / place


def later(directory, version="99.0-1", settings=None):
    """A package like ours of a later version, perhaps with other settings in it."""
    tree, package = directory / "tree", directory / f"gatewayd-{version}.deb"
    process.run(["dpkg-deb", "--raw-extract", PACKAGE, tree], seconds=120)
    control = tree / "DEBIAN/control"
    control.write_text("".join(f"Version: {version}\n" if line.startswith("Version:") else line
                               for line in control.read_text().splitlines(keepends=True)))
    if settings is not None:
        (tree / SETTINGS).write_text(settings)
    process.run(["dpkg-deb", "--root-owner-group", "-Zgzip", "-z1", "--build", tree, package], seconds=120)
    shutil.rmtree(tree)
    return package


class Package(unittest.TestCase):
    """What is in it, without installing it."""

    @classmethod
    def setUpClass(cls):
        cls.directory = Path(tempfile.mkdtemp(prefix="gatewayd-deb-"))
        cls.addClassCleanup(shutil.rmtree, cls.directory)
        process.run(["dpkg-deb", "--raw-extract", PACKAGE, cls.directory / "tree"], seconds=120)
        cls.tree = cls.directory / "tree"

    def test_same_bytes(self):
        """Built once more, it has the same bytes"""
        process.run([REPOSITORY / "image/deb/build", REPOSITORY / ".build/release/gatewayd", self.directory / "again"],
                    seconds=500)
        again = self.directory / "again" / PACKAGE.name
        self.assertEqual(*[hashlib.sha256(path.read_bytes()).hexdigest() for path in (PACKAGE, again)])

    def test_places(self):
        """Files are where Debian has them, root's, and nobody else may write them"""
        names = {str(p.relative_to(self.tree)) for p in self.tree.rglob("*") if p.is_file()}
        wanted = {"usr/sbin/gatewayd", SETTINGS, "usr/share/man/man8/gatewayd.8.gz",
                  "usr/share/man/man5/gatewayd.toml.5.gz", "usr/share/bash-completion/completions/gatewayd",
                  "usr/share/zsh/vendor-completions/_gatewayd",
                  "usr/share/fish/vendor_completions.d/gatewayd.fish", "usr/share/doc/gatewayd/copyright",
                  "usr/share/doc/gatewayd/changelog.Debian.gz", "usr/share/doc/gatewayd/changelog.gz",
                  "usr/share/doc/gatewayd/examples/gatewayd.toml", "usr/lib/udev/rules.d/60-gatewayd.rules",
                  *[f"usr/lib/{kind}.d/{name}.conf" for kind, name in (
                      ("sysusers", "gatewayd"), ("tmpfiles", "gatewayd"), ("modules-load", "gatewayd"),
                      ("sysctl", "60-gatewayd"))],
                  *[f"usr/lib/systemd/system/{unit}" for unit in UNITS]}
        self.assertEqual(wanted - names, set())
        elsewhere = [n for n in names if not n.startswith(("usr/", "DEBIAN/")) and n != SETTINGS]
        self.assertEqual(elsewhere, [])
        listed = process.run(["dpkg-deb", "--contents", PACKAGE]).stdout.splitlines()
        wrong = [line for line in listed if line.split()[1] != "root/root" or line[5] == "w" or line[8] == "w"]
        self.assertEqual(wrong, [])

    def test_lintian(self):
        """lintian has no objection but those that are overridden with a reason"""
        run = process.run(["lintian", "--allow-root", "--fail-on", "error,warning", PACKAGE], check=False, seconds=300)
        self.assertEqual((run.returncode, run.stdout), (0, ""))

    def test_manual(self):
        """The pages have no fault that groff or mandoc knows, a name that whatis finds, and the sections they should"""
        pages = sorted(self.tree.glob("usr/share/man/man*/*.gz"))
        self.assertGreater(len(pages), 10)
        for page in pages:
            with self.subTest(page=page.name):
                text = gzip.decompress(page.read_bytes())
                for command in (["groff", "-ww", "-man", "-Tutf8"], ["mandoc", "-T", "lint"]):
                    run = subprocess.run(command, input=text, capture_output=True, timeout=60, check=False)
                    said = run.stderr + (run.stdout if command[0] == "mandoc" else b"")
                    self.assertEqual((run.returncode, said), (0, b""))
                self.assertIn(b".SH NAME\n", text)
                self.assertIn(b".SH SEE ALSO\n", text)
        text = gzip.decompress((self.tree / "usr/share/man/man8/gatewayd.8.gz").read_bytes()).decode()
        for section in ("SYNOPSIS", "DESCRIPTION", "COMMANDS", "EXIT STATUS", "SIGNALS", "ENVIRONMENT", "FILES",
                        "EXAMPLES"):
            self.assertIn(f".SH {section}\n", text)

    def test_completions(self):
        """Each shell takes its completions"""
        for shell, place in ((["bash", "-n"], "bash-completion/completions/gatewayd"),
                             (["zsh", "-n"], "zsh/vendor-completions/_gatewayd"),
                             (["fish", "--no-execute"], "fish/vendor_completions.d/gatewayd.fish")):
            with self.subTest(shell=shell[0]):
                run = process.run([*shell, self.tree / "usr/share" / place], check=False)
                self.assertEqual((run.returncode, run.stderr), (0, ""))


class Life(unittest.TestCase):
    """From installation to purge."""

    @classmethod
    def setUpClass(cls):
        if not process.is_root():
            raise unittest.SkipTest("a chroot needs root")
        cls.directory = Path(tempfile.mkdtemp(prefix="gatewayd-deb-"))
        cls.addClassCleanup(shutil.rmtree, cls.directory)
        cls.root = Root()
        cls.addClassCleanup(cls.root.close)
        cls.before = cls.root.files()

    def setUp(self):
        root = self.root
        # A test that failed has perhaps left it.
        self.addCleanup(lambda: (root / "usr/local/bin/systemctl").unlink(missing_ok=True))
        self.addCleanup(lambda: shutil.rmtree(root / "run/systemd", ignore_errors=True))
        self.addCleanup(lambda: root.dpkg("--purge", "gatewayd", check=False))

    def install(self, package=PACKAGE, *options):
        said = self.root.dpkg(*options, "--install", package)
        self.assertNotRegex(said.stderr.lower(), r"error|cannot|not found|unbound")
        return said

    def owner(self, place):
        return self.root.run("stat", "--format", "%a %U:%G", f"/{place}").stdout.strip()

    def test_installed(self):
        """Installed, it runs, its settings are good and kept from others, its user may open disks and RDMA"""
        root = self.root
        self.install()
        version = root.run("gatewayd", "--version").stdout.split()[1]
        self.assertEqual(f"{version}-1", root.run("dpkg-query", "-W", "-f", "${Version}", "gatewayd").stdout)
        self.assertIn("good", root.run("gatewayd", "settings").stdout)
        self.assertEqual(self.owner(SETTINGS), "640 root:gatewayd")
        self.assertEqual(self.owner("etc/gatewayd"), "750 root:gatewayd")
        self.assertEqual(self.owner(STATE), "700 gatewayd:gatewayd")
        groups = root.run("id", "-nG", "gatewayd").stdout.split()
        self.assertEqual(sorted(groups), ["disk", "gatewayd", "rdma"])
        self.assertIn("nologin", root.run("getent", "passwd", "gatewayd").stdout)
        self.assertEqual(root.run("dpkg", "--verify", "gatewayd").stdout, "")
        for unit in UNITS:
            target = "multi-user" if unit.endswith(".service") else "sockets"
            link = root / f"etc/systemd/system/{target}.target.wants/{unit}"
            self.assertTrue(link.is_symlink(), link)
        # Once more changes nothing.
        before = root.files()
        self.install()
        self.assertEqual(root.files(), before)

    def test_nothing_is_exported(self):
        """As installed it listens to this machine only, and neither exports nor touches a disk, labelled or blank"""
        if not are_available():
            self.skipTest("loop devices need root")
        self.install()
        disks = [LoopDisk(), LoopDisk()]
        for disk in disks:
            self.addCleanup(disk.close)
            node = self.root / disk.device.lstrip("/")
            os.mknod(node, stat.S_IFBLK, os.stat(disk.device).st_rdev)
            self.addCleanup(node.unlink)
            os.chown(node, 0, DISK)
            node.chmod(0o660)
        (self.root / "tmp/empty.toml").touch()
        # As the service has it: its user and group, and the group of disks.
        user = ["setpriv", "--reuid", "gatewayd", "--regid", "gatewayd", "--groups", "disk", "gatewayd", "run"]
        others = ["--only", disks[0].device, "--settings", "/tmp/empty.toml", "--state", "/tmp/state"]
        with self.daemon([*user, *others]) as ask:
            self.wait_for(ask, disks[0], "exported")
        contents = [disk.file.read_bytes() for disk in disks]
        self.assertTrue(any(contents[0]) and not any(contents[1]))
        with self.daemon(user) as ask:
            for disk in disks:
                self.assertEqual(self.wait_for(ask, disk, "held")["code"], "not-chosen")
            self.assertEqual([d for d in json.loads(ask("disks", "--json").stdout) if d["verdict"] == "exported"], [])
            portals = [p["address"] for p in json.loads(ask("status", "--json").stdout)["portals"]]
            self.assertEqual(sorted(portals), ["127.0.0.1:3260", "[::1]:3260"])
            said = ask("doctor", check=False).stdout
            self.assertIn("name no disk", said)
            self.assertIn("only this machine can log in", said)
        self.assertEqual([disk.file.read_bytes() for disk in disks], contents)

    def wait_for(self, ask, disk, verdict):
        def judged():
            disks = json.loads(ask("disks", "--json").stdout)
            return next((d for d in disks if d["path"] == disk.device and d["verdict"] == verdict
                         and "being examined" not in d["reason"]), None)
        return process.wait_until(judged, 60, f"{disk.device} is {verdict}", step=0.3)

    def daemon(self, command):
        """A daemon in the root with the kernel's view of disks and a network of its own; gives a way to ask it."""
        # Only loopback, and only the nodes that the test made: this machine's disks cannot be opened.
        mounts = ['ip link set lo up', 'mount -t sysfs sysfs "$1/sys"']
        return Daemon(self.root, self.root.command(*command, mounts=mounts, network=False))

    def test_upgrade(self):
        """An upgrade takes new settings where nobody changed the old ones, and keeps what somebody changed"""
        root = self.root
        self.install()
        shipped = (root / SETTINGS).read_text()
        self.install(later(self.directory, "98.0-1", settings=shipped + "# of the new version\n"), "--force-confdef")
        self.assertIn("of the new version", (root / SETTINGS).read_text())
        self.assertEqual(self.owner(SETTINGS), "640 root:gatewayd")
        (root / SETTINGS).write_text("[log]\nlevel = \"debug\"\n")
        (root / STATE / "state").write_text("kept")
        self.install(later(self.directory, "99.0-1", settings=shipped + "# later still\n"), "--force-confold")
        self.assertEqual((root / SETTINGS).read_text(), "[log]\nlevel = \"debug\"\n")
        self.assertEqual((root / STATE / "state").read_text(), "kept")
        self.assertIn("99.0-1", root.run("dpkg-query", "-W", "-f", "${Version}", "gatewayd").stdout)

    def test_remove_and_purge(self):
        """Removed, settings and state stay, and serve the next installation; purged, only the user is left"""
        root = self.root
        self.install()
        (root / SETTINGS).write_text("[log]\nlevel = \"debug\"\n")
        (root / STATE / "state").write_text("kept")
        root.dpkg("--remove", "gatewayd")
        self.assertFalse((root / "usr/sbin/gatewayd").exists())
        self.assertTrue((root / SETTINGS).exists() and (root / STATE / "state").exists())
        self.install()
        self.assertIn("debug", (root / SETTINGS).read_text())
        root.dpkg("--purge", "gatewayd")
        after = root.files()
        self.assertEqual({p for p in after if p not in self.before}, set())
        self.assertEqual({p for p in self.before if p not in after}, set())
        self.assertIn("gatewayd", root.run("getent", "passwd", "gatewayd").stdout)
        # Twice, and after it an installation as if it was the first.
        root.dpkg("--purge", "gatewayd", check=False)
        self.install()
        self.assertEqual(self.owner(SETTINGS), "640 root:gatewayd")

    def test_service(self):
        """Where systemd runs: started when installed, restarted once by an upgrade, stopped when removed"""
        root = self.root
        (root / "run/systemd/system").mkdir(parents=True)
        stand_in = root / "usr/local/bin/systemctl"
        stand_in.write_text(SYSTEMCTL)
        stand_in.chmod(0o755)

        def asked():
            path = root / "run/asked"
            lines = path.read_text().splitlines() if path.exists() else []
            path.unlink(missing_ok=True)
            return lines

        self.install()
        self.assertRegex(" ; ".join(asked()), r"^\S+ --system start [^;]*gatewayd.service[^;]*$")
        self.install(later(self.directory, "98.0-1"))
        lines = asked()
        self.assertEqual(len(lines), 1, lines)
        self.assertIn(" restart ", lines[0])
        for unit in UNITS:
            self.assertIn(unit, lines[0])
        # The running one is better than none.
        (root / SETTINGS).write_text("[nonsense]\n")
        said = self.install(later(self.directory, "99.0-1"), "--force-confold")
        self.assertEqual(asked(), [])
        self.assertIn("nonsense", said.stderr)
        root.dpkg("--remove", "gatewayd")
        self.assertRegex(" ; ".join(asked()), r"stop [^;]*gatewayd.service")


class Daemon:
    """A running gatewayd in a root, until the end of the `with`."""

    def __init__(self, root, command):
        self.root, self.command = root, command

    def __enter__(self):
        self.log = tempfile.TemporaryFile()
        # The directory of the control socket is systemd's to make.
        runtime = self.root / "run/gatewayd"
        runtime.mkdir(exist_ok=True)
        facts = (self.root / STATE).stat()
        os.chown(runtime, facts.st_uid, facts.st_gid)
        environment = {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "STATE_DIRECTORY": f"/{STATE}",
                       "RUNTIME_DIRECTORY": "/run/gatewayd"}
        self.process = subprocess.Popen(self.command, stdin=subprocess.DEVNULL, stdout=self.log, stderr=self.log,
                                        env=environment)
        socket = runtime / "control.sock"
        try:
            process.wait_until(lambda: socket.exists() or self.process.poll() is not None, 60, "it starts", step=0.1)
            if self.process.poll() is not None:
                raise AssertionError(f"gatewayd ended with {self.process.returncode}")
        except AssertionError as error:
            self.end()
            raise AssertionError(f"{error}\n{self.said}") from None
        return self.ask

    def inner(self):
        """The process in the namespaces; unshare only waits for it."""
        return Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children").read_text().split()

    def ask(self, *arguments, check=True):
        # In its network, where doctor tries the portals, and with its /proc, where a Swift program finds its arguments.
        spaces = ["nsenter", "--target", self.inner()[0], "--net", "--mount", "--pid"]
        return process.run([*spaces, "chroot", self.root.path, "gatewayd", *arguments], check=check, seconds=60)

    def end(self):
        if self.process.poll() is None:
            for pid in self.inner():
                os.kill(int(pid), signal.SIGTERM)
        try:
            self.process.wait(10)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait(10)
        self.log.seek(0)
        self.said = self.log.read().decode(errors="replace")
        self.log.close()

    def __exit__(self, kind, *_):
        self.end()
        time.sleep(0.1)
        if kind is not None:
            print(f"--- gatewayd's log ---\n{self.said}---")


if __name__ == "__main__":
    unittest.main()
