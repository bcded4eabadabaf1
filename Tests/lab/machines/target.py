"""The machine that runs the gateway."""

import json
import shlex

from .places import TimedOut, wait_until

CONTROL = "/run/gatewayd.sock"
NAME = "iqn.2026-01.example.lab:target"
SETTINGS = "/etc/gatewayd/gatewayd.toml"


class Target:
    def __init__(self, machine):
        self.machine = machine
        self.portal = f"{machine.address}:3260"
        self.arguments = ()
        self.environment = ""

    def start(self, settings="", arguments=(), environment=""):
        """Starts the daemon, finding disks by itself unless told otherwise, and waits until it listens.

        `environment`: the variables it gets beside ours, as a shell has them.
        """
        self.machine.run(f"mkdir -p /etc/gatewayd /var/lib/gatewayd; umask 077; printf %s {shlex.quote(settings)} "
                         f">{SETTINGS}")
        self.arguments, self.environment = arguments, environment
        self.resume()

    def resume(self):
        """Starts it as it was, and waits until it listens: the same settings, the same state."""
        self.launch()
        self.machine.until(f"ask {CONTROL} status | grep -qF '\"portals\":[{{'", 30, "the gateway listens")

    def launch(self):
        """Starts it as it was, and does not wait."""
        words = ["gatewayd", "run", "--state", "/var/lib/gatewayd", "--control", CONTROL, "--target", NAME,
                 "--listen", self.portal, *self.arguments]
        self.machine.run(f"{self.environment} setsid {shlex.join(words)} >/dev/console 2>&1 & "
                         "echo $! >/run/gatewayd.pid")

    def kill(self):
        """As a crash has it."""
        self.machine.run("kill -9 $(cat /run/gatewayd.pid)")

    def stop(self):
        """SIGTERM; the seconds that it took are bounded."""
        pid = "$(cat /run/gatewayd.pid)"
        self.machine.run(f"kill -TERM {pid} 2>/dev/null; for i in $(seq 100); do kill -0 {pid} 2>/dev/null || exit 0; "
                         "usleep 100000; done; kill -9 " + pid + "; echo 'it did not end'; exit 1")

    def is_running(self):
        return self.machine.attempt("kill -0 $(cat /run/gatewayd.pid)")[0] == 0

    def ask(self, command):
        """What `gatewayd COMMAND --json` tells, sooner."""
        reply = json.loads(self.machine.run(f"ask {CONTROL} {command}"))
        if "result" not in reply:
            raise AssertionError(f"{command}: {reply}")
        return reply["result"]

    def command(self, words):
        """A client command: (status, output)."""
        return self.machine.attempt(f"gatewayd {words} --control {CONTROL}")

    def report(self, path):
        """What the gateway says of a device; None: nothing."""
        return next((disk for disk in self.ask("disks") if disk["path"] == path), None)

    def verdict(self, name, wanted, seconds=120):
        """Waits until the disk of this name is judged so; its report."""
        path = self.machine.device(name)
        seen = []

        def judged():
            seen[:] = [self.report(path)]
            return seen[0] if seen[0] is not None and seen[0]["verdict"] == wanted else None

        try:
            return wait_until(judged, seconds, f"{name} ({path}) is {wanted}", step=0.2)
        except TimedOut as late:
            raise TimedOut(f"{late}: {seen}") from None

    def holdings(self):
        """What initiators make the gateway hold: all of it goes when they do."""
        status = self.ask("status")
        memory = status["memory"]
        return {"sessions": status["sessions"], "arena": memory["arenaUsedBytes"], "descriptors": memory["descriptors"],
                **status["iser"]}

    def until_holdings(self, wanted, seconds):
        """Waits until it holds no more than that."""
        seen = []

        def reached():
            seen[:] = [self.holdings()]
            return seen[0] == wanted

        try:
            wait_until(reached, seconds, f"the gateway holds {wanted}", step=0.5)
        except TimedOut as late:
            raise TimedOut(f"{late}, but: {seen}") from None

    def unit(self, number):
        """The LUN's line of the status report."""
        return next((unit for unit in self.ask("status")["logicalUnits"] if unit["number"] == number), None)

    def until_unit(self, number, condition, seconds=20):
        """Waits until the LUN's line of the status report satisfies the condition."""
        wait_until(lambda: condition(self.unit(number)), seconds, f"LUN {number} is so: {self.unit(number)}", step=0.2)
