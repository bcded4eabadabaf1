"""Disks that come, go, grow and belong to somebody, as udev and QEMU have them, and what the initiator sees of it."""

import re

from machines.scene import SceneCase

LUNS_CHANGED = re.compile("LUN assignments on this target have changed", re.IGNORECASE)
CAPACITY_CHANGED = re.compile("capacity data has changed", re.IGNORECASE)


class Comings(SceneCase):
    def test_hot_plug(self):
        """A disk plugged in becomes a LUN, and a message (RFC 7143 §11.9) makes it the initiator's disk by itself"""
        self.target.start()
        (first,) = self.export("first")
        self.connect()
        self.verify(self.initiator.disk(first), count=20)
        (second,) = self.export("second")
        self.verify(self.initiator.disk(second), count=100)
        self.verify(self.initiator.disk(first), count=20)

    def test_first_disk(self):
        """An initiator that logs in before there is any disk gets the first one, LUN 0, by itself"""
        self.target.start()
        self.connect()
        (first,) = self.export("first")
        self.assertEqual(first, 0)
        self.verify(self.initiator.disk(first), count=20)

    def test_hot_plug_by_attention(self):
        """An initiator that is deaf to messages hears REPORTED LUNS DATA HAS CHANGED (3F/0E) with its next command"""
        self.target.start()
        (first,) = self.export("first")
        self.connect()
        device, machine = self.initiator.disk(first), self.initiator.machine
        machine.run("killall -STOP iscsid")
        self.addCleanup(machine.attempt, "killall -CONT iscsid")
        (second,) = self.export("second")
        self.verify(device, count=20)
        self.assertRegex(self.initiator.kernel_log(), LUNS_CHANGED)
        self.assertFalse(self.initiator.has_disk(second))
        machine.run(f"echo '- - {second}' >$(ls -d /sys/class/scsi_host/host*/scan | tail -n 1)")
        self.verify(self.initiator.disk(second), count=100)

    def test_unplug_under_load(self):
        """A disk pulled out under load fails its own I/O at once, and that of the other LUN not at all"""
        self.target.start()
        stays, goes = self.export("stays", "goes")
        self.connect()
        machine = self.initiator.machine
        machine.background("stays", f"verify {self.initiator.disk(stays)} seconds=20 depth=4")
        machine.background("goes", f"verify {self.initiator.disk(goes)} seconds=60 depth=4 final=0")
        machine.run("sleep 3")
        self.target.machine.unplug("goes")
        status, output = machine.finish("goes", 40)
        self.assertEqual(status, 1, output)
        self.assertIn(" 0 differences", output)
        load = self.assert_verified("stays", 90)
        self.assertLess(load["longest"], 5000)
        self.assertGreater(load["writes"], 0)
        self.assertTrue(self.target.is_running())

    def test_unplugged_and_back(self):
        """A disk that comes back is the same LUN with the same name and data, also under another device name"""
        self.target.start()
        zero, one = self.export("zero", "one", kind="scsi")
        self.connect()
        naa = self.target.unit(one)["naa"]
        self.verify(self.initiator.disk(one), count=200, state="/tmp/state", size=8 << 20)
        self.target.machine.unplug("zero")
        self.target.machine.unplug("one")
        self.assertEqual(self.export("one"), [one])
        self.assertEqual(self.export("zero"), [zero])
        self.assertEqual(self.target.unit(one)["naa"], naa)
        self.initiator.logout()
        self.initiator.login()
        self.verify(self.initiator.disk(one), count=200, seed=1, state="/tmp/state", size=8 << 20)

    def test_resize(self):
        """A disk that grows is a LUN that grows: CAPACITY DATA HAS CHANGED (2A/09), and a rescan sees the new size"""
        self.target.start()
        (lun,) = self.export("disk")
        self.connect()
        device, machine = self.initiator.disk(lun), self.initiator.machine
        before = int(machine.run(f"blockdev --getsize64 {device}"))
        self.target.machine.resize("disk", 128)
        self.target.until_unit(lun, lambda unit: unit["sizeBytes"] >= before + (64 << 20))
        machine.run(f"sg_turs {device}; dd if={device} of=/dev/null bs=4096 count=1 iflag=direct")
        machine.run(f"echo 1 >/sys/block/{device.removeprefix('/dev/')}/device/rescan")
        machine.until(f"[ $(blockdev --getsize64 {device}) = {before + (64 << 20)} ]", 10, "the disk has grown")
        self.assertRegex(self.initiator.kernel_log(), CAPACITY_CHANGED)
        self.verify(device, count=100, offset=before)

    def test_names(self):
        """SCSI disks are known by their labels: without kept state, in another order, each LUN stays what it was"""
        self.target.start()
        (first,) = self.export("first", kind="scsi", wwn=0x5000C50000000001)
        (second,) = self.export("second", kind="scsi", wwn=0x5000C50000000002)
        names = {lun: self.target.unit(lun)["naa"] for lun in (first, second)}
        self.target.stop()
        for name in ("first", "second"):
            self.target.machine.unplug(name)
        self.target.machine.run("rm -rf /var/lib/gatewayd")
        self.target.machine.plug("second", kind="scsi", wwn=0x5000C50000000002)
        self.target.machine.plug("first", kind="scsi", wwn=0x5000C50000000001)
        self.target.start()
        self.assertEqual(self.export("first", "second"), [first, second])
        self.assertEqual({lun: self.target.unit(lun)["naa"] for lun in names}, names)


class Belongings(SceneCase):
    def test_partitioned(self):
        """A disk with a partition table is held, and exported once a person has given it away"""
        self.target.machine.plug("gpt")
        path = self.target.machine.device("gpt")
        self.target.machine.run(f"printf 'label: gpt\\nsize=16M\\n' | sfdisk -q {path}; udevadm settle")
        self.target.start()
        report = self.target.verdict("gpt", "held")
        self.assertRegex(report["reason"].lower(), "partition")
        status, output = self.target.command(f"disks adopt {path} --wipe --yes")
        self.assertEqual(status, 0, output)
        lun = self.target.verdict("gpt", "exported")["lun"]
        self.connect()
        self.verify(self.initiator.disk(lun), count=50)

    def test_mounted(self):
        """A mounted disk is refused, also with --wipe, and stays whole; unmounted it is held for its content"""
        machine = self.target.machine
        machine.plug("used")
        path = machine.device("used")
        machine.run(f"modprobe ext4; mkfs.ext4 -q {path} && mount {path} /mnt && echo precious >/mnt/file; sync", 60)
        self.target.start()
        report = self.target.verdict("used", "refused")
        self.assertIn("/mnt", report["reason"])
        self.assertNotEqual(self.target.command(f"disks adopt {path} --wipe --yes")[0], 0)
        self.assertEqual(machine.run("cat /mnt/file"), "precious")
        machine.run(f"umount /mnt && e2fsck -fn {path} && udevadm trigger --action=change {path}", 60)
        self.assertEqual(self.target.verdict("used", "held")["verdict"], "held")

    def test_file_system(self):
        """A disk with a file system is held; adopted whole it is exported as it is, and its files can be read"""
        machine = self.target.machine
        machine.plug("full")
        path = machine.device("full")
        machine.run(f"modprobe ext4; mkfs.ext4 -q {path} && mount {path} /mnt && echo here >/mnt/file; umount /mnt", 60)
        self.target.start()
        self.target.verdict("full", "held")
        status, output = self.target.command(f"disks adopt {path} --whole --yes")
        self.assertEqual(status, 0, output)
        lun = self.target.verdict("full", "exported")["lun"]
        self.connect()
        device = self.initiator.disk(lun)
        self.assertEqual(self.initiator.machine.run(f"mount {device} /mnt && cat /mnt/file && umount /mnt"), "here")

    def test_swap(self):
        """A disk that the system swaps to is refused"""
        machine = self.target.machine
        machine.plug("swap")
        path = machine.device("swap")
        machine.run(f"mkswap {path} && swapon {path}")
        self.addCleanup(machine.attempt, f"swapoff {path}")
        self.target.start()
        self.assertRegex(self.target.verdict("swap", "refused")["reason"].lower(), "swap")

    def test_claimed(self):
        """A disk below a device-mapper volume is refused while the volume is there"""
        machine = self.target.machine
        machine.plug("member")
        path = machine.device("member")
        machine.run(f"modprobe dm-mod; dmsetup create volume --noudevsync --table '0 65536 linear {path} 2048'")
        self.addCleanup(machine.attempt, "dmsetup remove --noudevsync volume")
        self.target.start()
        self.assertRegex(self.target.verdict("member", "refused")["reason"].lower(), "volume")
