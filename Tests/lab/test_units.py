"""A pair whose daemons have no capability: what needs one is done by the two parts that have it (systemd/README.md)."""

import shlex
from pathlib import Path

from machines.places import REPOSITORY, wait_until
from test_takeover import TakeoverCase

# The daemon's user and group, and that of the parts, as `gatewayd.sysusers` and DynamicUser= would have them.
USER, OTHER = 900, 901
PARTS = "/run/parts"
CAPABILITIES = {"fence": "sys_rawio,sys_admin", "addresses": "net_admin,net_raw"}
RULES = REPOSITORY / "systemd" / "60-gatewayd.rules"


def without_privileges(user, capabilities=""):
    """A shell's words before a command: this user, these capabilities, no way to more."""
    more = "".join(f",+{name}" for name in capabilities.split(",") if name)
    # By its path: busybox has another setpriv.
    return (f"/usr/bin/setpriv --reuid {user} --regid {user} --clear-groups --inh-caps=-all{more} "
            f"--ambient-caps=-all{more} --bounding-set=-all{more} --no-new-privs")


class Units(TakeoverCase):
    def setUp(self):
        super().setUp()
        self.address = f"10.77.{self.pair.front.number}.100"
        for node in self.pair.nodes:
            self.addCleanup(self._end, node)
            # The lab's control socket is in /run; its settings are root's.
            node.machine.run(f"mkdir -p {PARTS} /etc/gatewayd /var/lib/gatewayd && chmod 1777 /run && "
                             f"touch /etc/gatewayd/gatewayd.toml && chown {USER}:{USER} /etc/gatewayd/gatewayd.toml "
                             "/var/lib/gatewayd")
            node.listen("[::]:3260")

    def _end(self, node):
        """The daemon before its parts, which take its address away."""
        if node.machine.process.poll() is None:
            if node.target.is_running():
                node.target.stop()
            node.machine.attempt(f"killall gatewayd; rm -rf {PARTS}; chmod 755 /run; "
                                 f"ip address delete {self.address}/24 dev eth1")

    def start_part(self, node, name):
        command = (f"activate {PARTS}/{name}.sock {USER} {without_privileges(OTHER, CAPABILITIES[name])} "
                   f"gatewayd privileged {name} --user {USER}")
        node.machine.run(f"setsid sh -c {shlex.quote(f'exec {command} >/dev/console 2>&1')} & "
                         f"echo $! >{PARTS}/{name}.pid; "
                         f"for i in $(seq 50); do [ -S {PARTS}/{name}.sock ] && exit 0; usleep 100000; done; exit 1")

    def start_units(self, node, parts=("fence", "addresses")):
        """Attaches the disks, gives them to the daemon's user, and starts it with its parts."""
        for name in parts:
            self.start_part(node, name)
        node.attach_disks()
        # udevd gives no groups here (--resolve-names=never).
        node.machine.run(f"chown 0:{USER} {node.nexus.disk(self.lun)} && chmod 660 {node.nexus.disk(self.lun)}")
        node.target.start(f'[pair]\naddresses = ["{self.address}/24"]\n', node.listening,
                          f"GATEWAYD_PARTS={PARTS} {without_privileges(USER)}")
        status = node.machine.run("cat /proc/$(cat /run/gatewayd.pid)/status")
        self.assertIn("CapEff:\t0000000000000000", status)
        self.assertIn("CapBnd:\t0000000000000000", status)
        self.assertIn(f"Uid:\t{USER}\t{USER}", status)

    def until_exported(self, node):
        wait_until(lambda: (node.disk(self.lun) or {}).get("verdict") == "exported", 120,
                   f"{node.machine.name} exports the disk: {node.disk(self.lun)}", step=0.5)

    def has_address(self, node):
        return f" {self.address}/24" in node.machine.run("ip -o address show")

    def registered(self):
        """The keys at the disk, and its reservation, by the target's own word."""
        keys, kind = self.pair.shelf.registrations("disk1")
        return keys, "Write Exclusive Access, Registrants Only" in kind

    def test_takeover(self):
        """Without a capability a node reserves the disk and takes the address; when it dies, the other does the same"""
        self.start_units(self.a)
        self.until_exported(self.a)
        keys, is_reserved = self.registered()
        self.assertEqual((len(keys), is_reserved), (1, True))
        self.start_units(self.b)
        self.until_paired()
        active, passive = self.order()
        wait_until(lambda: self.has_address(active), 30, "the active node has the address", step=0.5)
        self.assertFalse(self.has_address(passive))
        former = self.registered()[0]
        active.crash()
        self.until_role(passive, "active")
        wait_until(lambda: self.has_address(passive), 30, "the other node has the address", step=0.5)
        keys, is_reserved = self.registered()
        self.assertTrue(is_reserved)
        self.assertTrue(set(former) - set(keys), "the dead node's key was preempted")
        # What is left behind is taken away by the next start, before the node does anything else.
        self.assertTrue(self.has_address(active))
        active.target.resume()
        self.until_paired()
        self.assertFalse(self.has_address(active))

    def test_died_part(self):
        """The part for reservations dies and is started again: the next order finds it"""
        self.start_units(self.a)
        self.until_exported(self.a)
        self.a.machine.run(f"kill -9 $(cat {PARTS}/fence.pid) && rm {PARTS}/fence.sock")
        self.start_part(self.a, "fence")
        self.start_units(self.b)
        self.until_paired()
        self.assertEqual(self.a.target.command("switchover")[0], 0)
        self.until_role(self.b, "active")
        self.assertTrue(self.registered()[1])

    def test_without_parts(self):
        """Without its parts a node has a lease on the disk instead, and says which units are missing"""
        self.start_units(self.a, parts=())
        self.until_exported(self.a)
        self.assertEqual(self.registered()[0], [])

        def problems():
            return [each["problem"] for each in self.report(self.a)["serviceAddresses"] if each.get("problem")]

        report = wait_until(problems, 30, "a problem is told", step=0.5)
        self.assertIn("gatewayd-addresses.socket", report[0])
        self.assertIn("gatewayd-fence.socket", Path(self.a.machine.console).read_text(errors="replace"))

    def test_rules(self):
        """udev gives a disk with the gateway's own system to root alone, and no other"""
        machine = self.a.machine
        daemon = "/usr/lib/systemd/systemd-udevd --daemon"
        # The lab's udevd knows no names of groups; this one does, and this test is about them.
        machine.run(f"cat >/etc/udev/rules.d/{RULES.name} <<'END'\n{RULES.read_text()}\nEND\n"
                    f"cp /etc/group /run/group && echo gatewayd:x:{USER}: >>/etc/group && "
                    f"udevadm control --exit && {daemon}", 60)
        self.addCleanup(machine.run, f"rm /etc/udev/rules.d/{RULES.name}; cp /run/group /etc/group; "
                                     f"udevadm control --exit; {daemon} --resolve-names=never", 60)
        modes = {}
        for name, label in (("system", "gatewayd-esp"), ("other", "gateway-esp")):
            machine.plug(name, megabytes=64)
            self.addCleanup(machine.remove, name)
            device = machine.device(name)
            machine.run(f"printf 'label: gpt\\nsize=8M, name={label}\\nsize=8M, name=data\\n' | sfdisk -q {device} && "
                        f"udevadm settle && udevadm trigger -w --action=change {device} {device}1 {device}2", 60)
            modes[name] = machine.run(f"stat -c %a:%G {device} {device}1 {device}2").split()
        self.assertEqual(modes["system"][:2], ["600:root", "600:root"], modes)
        self.assertEqual(modes["other"], ["660:disk"] * 3, modes)
        machine.run("modprobe softdog && udevadm settle", 30)
        self.addCleanup(machine.run, "rmmod softdog")
        self.assertEqual(machine.run("stat -c %a:%G /dev/watchdog /dev/watchdog0").split(), ["660:gatewayd"] * 2)
