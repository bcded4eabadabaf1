"""The kernel's initiator against the gateway: what its users do with it."""

import re

from machines.scene import SceneCase
from machines.target import NAME

CHAP = """
[access.chap]
user = "lab"
secret = "a secret of the lab 1"
"""
MUTUAL = CHAP + """mutual-user = "gateway"
mutual-secret = "a secret of the lab 2"
"""
PROVE = {"node.session.auth.authmethod": "CHAP", "node.session.auth.username": "lab",
         "node.session.auth.password": "a secret of the lab 1"}
ASK_PROOF = {"node.session.auth.username_in": "gateway", "node.session.auth.password_in": "a secret of the lab 2"}
DIGESTS = {"node.conn[0].iscsi.HeaderDigest": "CRC32C", "node.conn[0].iscsi.DataDigest": "CRC32C"}


class Identity(SceneCase):
    def test_discovery_login_identity(self):
        """Discovery tells the target, login makes each LUN a disk, and its names are those of the gateway's report"""
        self.target.start()
        luns = self.export("first", "second")
        self.assertEqual(sorted(luns), [0, 1])
        self.assertIn(NAME, self.initiator.discover())
        self.initiator.login()
        for lun in luns:
            device = self.initiator.disk(lun)
            unit = self.target.unit(lun)
            pages = self.initiator.machine.run(f"sg_vpd --page=di {device}; sg_inq {device}").lower()
            self.assertIn("0x" + unit["naa"].lower(), pages)
            size = self.initiator.machine.run(f"blockdev --getsize64 {device}")
            self.assertEqual(int(size), unit["sizeBytes"])

    def test_logout_and_login(self):
        """A session that is logged out is gone from the gateway, and the next one finds the same disk: five times"""
        self.target.start()
        (lun,) = self.export("disk")
        self.initiator.discover()
        for seed in range(5):
            self.initiator.login()
            device = self.initiator.disk(lun)
            self.assertEqual(len(self.target.ask("sessions")), 1)
            self.verify(device, count=20, seed=seed)
            self.initiator.logout()
            self.assertEqual(self.target.ask("sessions"), [])


class FileSystem(SceneCase):
    def test_ext4(self):
        """A file system made, filled and unmounted is whole after the next login"""
        self.target.start()
        (lun,) = self.export("disk")
        self.connect()
        device, machine = self.initiator.disk(lun), self.initiator.machine
        machine.run(f"mkfs.ext4 -q {device} && mount {device} /mnt && "
                    "dd if=/dev/urandom of=/mnt/file bs=64k count=128 && "
                    "sha256sum /mnt/file >/tmp/sum && cp -a /etc /mnt/ && umount /mnt", 120)
        self.initiator.logout()
        self.initiator.login()
        device = self.initiator.disk(lun)
        machine.run(f"e2fsck -fn {device} && mount {device} /mnt && sha256sum -c /tmp/sum && umount /mnt", 90)

    def test_discard(self):
        """What a file system discards (fstrim) leaves the disk behind the LUN: it takes less room"""
        self.target.start()
        (lun,) = self.export("disk")
        self.connect()
        device, machine = self.initiator.disk(lun), self.initiator.machine
        limit = machine.run(f"cat /sys/block/{device.removeprefix('/dev/')}/queue/discard_max_bytes")
        self.assertGreater(int(limit), 0, "the LUN takes no discards")
        machine.run(f"mkfs.ext4 -q {device} && mount {device} /mnt && "
                    "dd if=/dev/urandom of=/mnt/file bs=64k count=256 && sync", 90)
        before = self.target.machine.allocated("disk")
        machine.run("rm /mnt/file && sync && fstrim -v /mnt && umount /mnt", 60)
        after = self.target.machine.allocated("disk")
        self.assertLess(after, before - (12 << 20))
        machine.run(f"e2fsck -fn {device}", 60)


class VerifiedIO(SceneCase):
    def setUp(self):
        super().setUp()
        self.target.start()
        (self.lun,) = self.export("disk")

    def test_sizes_and_depths(self):
        """Data of 4 KiB to 1 MiB comes back as it was written, one request at a time and 32"""
        self.connect()
        self.each_mix(self.initiator.disk(self.lun))

    def test_digests(self):
        """So it does with header and data digests (RFC 7143 §13.1), and the kernel complains of none"""
        self.initiator.discover()
        self.initiator.set(DIGESTS)
        self.initiator.login()
        session = self.initiator.machine.run("iscsiadm -m session -P 2")
        self.assertRegex(session, r"HeaderDigest: CRC32C\s+DataDigest: CRC32C")
        self.each_mix(self.initiator.disk(self.lun))
        self.assertNotRegex(self.initiator.kernel_log().lower(), "digest|conn error")

    def test_two_disks(self):
        """Two LUNs on two kinds of disks carry load side by side"""
        (other,) = self.export("other", kind="scsi", wwn=0x5000C50000000001)
        self.connect()
        for lun in (self.lun, other):
            self.initiator.machine.background(f"load{lun}", "verify " + self.initiator.disk(lun) + " seconds=8 depth=8")
        for lun in (self.lun, other):
            self.assertGreater(self.assert_verified(f"load{lun}", 90)["reads"], 0)


class Authentication(SceneCase):
    def test_chap(self):
        """With CHAP the right secret gets in; a wrong one and none at all do not (RFC 7143 §12.1)"""
        self.target.start(settings=CHAP)
        (lun,) = self.export("disk")
        self.initiator.discover()
        self.assertNotEqual(self.initiator.try_login()[0], 0)
        self.initiator.set(PROVE | {"node.session.auth.password": "another secret of it"})
        self.assertNotEqual(self.initiator.try_login()[0], 0)
        self.initiator.set(PROVE)
        self.initiator.login()
        self.verify(self.initiator.disk(lun), count=50)

    def test_mutual_chap(self):
        """With mutual CHAP the initiator gets its proof, and turns away when it expects another"""
        self.target.start(settings=MUTUAL)
        (lun,) = self.export("disk")
        self.initiator.discover()
        self.initiator.set(PROVE | ASK_PROOF | {"node.session.auth.password_in": "another secret of it"})
        self.assertNotEqual(self.initiator.try_login()[0], 0)
        self.initiator.set(ASK_PROOF)
        self.initiator.login()
        self.verify(self.initiator.disk(lun), count=50)


class Reservations(SceneCase):
    def test_preempt_and_abort(self):
        """A write against a reservation conflicts; PREEMPT AND ABORT takes it over, and the old holder's write fails"""
        self.target.start()
        (lun,) = self.export("disk")
        self.connect()
        machine = self.initiator.machine
        first_session = re.search(r"\[(\d+)\]", machine.run("iscsiadm -m session")).group(1)
        machine.run(f"iscsiadm -m session -r {first_session} -o new", 60)
        mine, other = self.initiator.disks(lun, 2)
        write = "dd if=/dev/zero bs=4096 count=1 oflag=direct of="
        # The first command of a nexus may hear a unit attention.
        machine.run(f"sg_turs {mine}; sg_turs {other}; sg_persist --out --register --param-sark=0xa {mine} && "
                    f"sg_persist --out --reserve --param-rk=0xa --prout-type=5 {mine} && {write}{mine}")
        self.assertNotEqual(machine.attempt(write + other)[0], 0)
        machine.run(f"sg_persist --out --register --param-sark=0xb {other} && {write}{other} && "
                    f"sg_persist --out --preempt-abort --param-rk=0xb --param-sark=0xa --prout-type=5 {other}")
        self.assertNotEqual(machine.attempt(write + mine)[0], 0)
        keys = machine.run(f"sg_persist -k {other}")
        self.assertIn("0xb", keys)
        self.assertNotIn("0xa\n", keys + "\n")
        machine.run(f"{write}{other} && sg_persist --out --clear --param-rk=0xb {other}; sg_turs {mine}; {write}{mine}")


class Kernel(SceneCase):
    def test_oldest_kernel(self):
        """On the oldest kernel that is supported (6.1) the doctor finds io_uring and nothing that is wrong with it"""
        self.target.start()
        self.export("disk")
        self.assertTrue(self.target.machine.run("uname -r").startswith("6.1."))
        status, output = self.target.command("doctor")
        self.assertIn("io_uring", output)
        self.assertEqual(status, 0, output)
