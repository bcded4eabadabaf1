"""What cluster software does with persistent reservations, with takeovers in the middle: as on one node."""

from machines.scene import verify_command
from test_reservations import CONFLICT, ReservationCase

WRITE_EXCLUSIVE_REGISTRANTS_ONLY = 5
# What Windows asks for (SPC-5 table 63), and pacemaker's agents.
TYPE = f"--prout-type={WRITE_EXCLUSIVE_REGISTRANTS_ONLY}"


class Windows(ReservationCase):
    """A failover cluster's arbitration: the owner of a disk defends it, another challenges; each has its key."""

    KEYS = {"first": 0x11, "second": 0x22}

    def register(self, name):
        self.out(name, f"--register-ignore --param-sark={self.KEYS[name]:#x} --param-aptpl")

    def reserve(self, name, status=0):
        self.out(name, f"--reserve --param-rk={self.KEYS[name]:#x} {TYPE}", status)

    def preempt(self, name, victim, status=0):
        self.out(name, f"--preempt --param-rk={self.KEYS[name]:#x} --param-sark={self.KEYS[victim]:#x} {TYPE}", status)

    def test_arbitration(self):
        """Register, reserve, defend, challenge, clear: the same on one node and with takeovers between"""
        self.start_hosts("first", "second", "third")
        found = []
        for takeovers in ((), (self.switch, self.switch), (self.crash, self.crash)):
            begin = self.empty()
            found.append([])
            for step in (self.own, self.challenge, self.lose, self.leave):
                step()
                for fault in takeovers:
                    self.take_over(fault)
                table = self.table()
                # The first line has the generation, as it is.
                found[-1].append((table.since(begin), table.full.partition("\n")[2]))
        self.assertEqual(found[1], found[0])
        self.assertEqual(found[2], found[0])

    def own(self):
        """The owner reserves and defends; who has no key is kept out, who has one is not."""
        self.register("first")
        self.register("second")
        for _ in range(2):
            self.reserve("first")
        self.reserve("second", CONFLICT)
        self.assertEqual(self.allowed("write", "first", "second", "third"), ["first", "second"])

    def challenge(self):
        """A challenger finds that the owner still defends, and gives up; the owner goes on."""
        self.reserve("second", CONFLICT)
        self.reserve("first")
        self.assertEqual(self.allowed("read", "third"), ["third"])

    def lose(self):
        """The owner does not defend any more: the challenger takes the disk, and the owner finds that out."""
        self.preempt("second", "first")
        self.reserve("first", CONFLICT)
        self.assertEqual(self.allowed("write", "first", "second", "third"), ["second"])
        self.reserve("second")

    def leave(self):
        """The former owner joins again, and the disk is given up."""
        self.register("first")
        self.reserve("first", CONFLICT)
        self.out("second", f"--clear --param-rk={self.KEYS['second']:#x}")
        self.reserve("first", CONFLICT)
        self.assertEqual(self.allowed("write", "third"), ["third"])

    def test_other_path(self):
        """An owner whose path leads to another node now registers there, takes over from itself, and defends"""
        self.start_hosts("first", "second")
        self.own_by_two()
        for fault in (self.crash, self.switch):
            self.take_over(fault)
            for name in self.KEYS:
                self.register(name)
            self.preempt("first", "first")
            for _ in range(2):
                self.reserve("first")
            self.reserve("second", CONFLICT)
            self.assertEqual(set(self.table().keys), {0x11, 0x22})
        self.preempt("second", "first")
        self.assertEqual(set(self.table().keys), {0x22}, "of every path")
        self.assertEqual(self.allowed("write", "first"), [])

    def own_by_two(self):
        for name in self.KEYS:
            self.register(name)
        self.reserve("first")


class Pacemaker(ReservationCase):
    """Its agent fence_scsi: a key for each host, on every path; to fence a host is to preempt its key."""

    KEYS = {"first": 0xABC0001, "second": 0xABC0002}

    def register(self, name):
        """On every path: the node in standby has the active one do it."""
        for node in self.pair.nodes:
            disk = self.devices[name, node]
            self.initiator.machine.run(f"sg_turs {disk}; sg_turs {disk}; sg_persist -n --out --register-ignore "
                                       f"--param-sark={self.KEYS[name]:#x} {disk}")
        self.assertEqual(self.table(name).keys.count(self.KEYS[name]), len(self.pair.nodes))

    def unfence(self, name):
        self.register(name)
        if self.table(name).kind == 0:
            self.out(name, f"--reserve --param-rk={self.KEYS[name]:#x} {TYPE}")

    def fence(self, name, victim):
        self.register(name)
        self.out(name, f"--preempt-abort --param-rk={self.KEYS[name]:#x} --param-sark={self.KEYS[victim]:#x} {TYPE}")
        self.assertNotIn(self.KEYS[victim], self.table(name).keys)

    def may_write(self):
        return self.allowed("write", "first", "second", "third")

    def test_fencing(self):
        """Hosts write through a takeover; one that was fenced does not, by either node, until it is let in again"""
        self.start_hosts("first", "second", "third")
        for name in self.KEYS:
            self.unfence(name)
        for fault in (self.crash, self.switch):
            self.assertEqual(self.may_write(), ["first", "second"])
            self.take_over(fault)
            self.assertEqual(self.may_write(), ["first", "second"])
            self.fence("first", "second")
            self.assertEqual(self.may_write(), ["first"])
            self.take_over(fault)
            self.assertEqual(self.may_write(), ["first"])
            self.assertEqual(set(self.table().keys), {self.KEYS["first"]})
            self.unfence("second")


class Multipath(ReservationCase):
    """One host has dm-multipath and mpathpersist, as pacemaker's agent fence_mpath does it; the others have not."""

    def test_takeovers(self):
        """A host that has registered by all its paths goes on under load through takeovers, and is fenced afterwards"""
        self.start_hosts("second", "third")
        user = self.initiator.machine
        # They are hosts of their own: the first one's multipathd has neither their paths nor their keys.
        theirs = "|".join(device.removeprefix("/dev/") for device in self.devices.values())
        user.run("mkdir -p /etc/multipath/conf.d; "
                 f"printf 'blacklist {{\\n devnode \"^({theirs})$\"\\n}}\\n' >/etc/multipath/conf.d/theirs.conf")
        device = self.attach()
        user.run("echo 'defaults {\n reservation_key 0x11\n}' >/etc/multipath/conf.d/key.conf; multipathd reconfigure")
        user.run(f"mpathpersist --out --register --param-sark=0x11 {device}", 60)
        user.run(f"mpathpersist --out --reserve --param-rk=0x11 {TYPE} {device}", 60)
        self.out("second", "--register --param-sark=0x22")
        self.assertEqual(set(self.table("second").keys), {0x11, 0x22})
        for number, fault in enumerate((self.crash, self.switch)):
            user.background("load", verify_command(device, seconds=20, depth=4, max=65536, seed=number + 1))
            user.run("sleep 3")
            self.take_over(fault)
            load = self.assert_verified("load", 240)
            print(f"      longest request: {load['longest']} ms", flush=True)
            self.assertEqual(set(self.table("second").keys), {0x11, 0x22})
            self.assertEqual(self.allowed("write", "third"), [])
        self.out("second", "--register-ignore --param-sark=0x22")
        self.out("second", f"--preempt-abort --param-rk=0x22 --param-sark=0x11 {TYPE}")
        status, output = user.attempt(verify_command(device, count=1, read=0, final=0), 60)
        self.assertEqual((status, "Invalid exchange" in output), (1, True), output)
