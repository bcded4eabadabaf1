"""Thin volumes of device-mapper: a pool that is full is told as such, loses nothing, and serves again when it can."""

from machines.places import wait_until
from machines.scene import SceneCase

MIB = 1 << 20
# The last 8 MiB of a disk are the label area.
VOLUME_MIB, LUN_MIB = 64, 56


class Thin(SceneCase):
    """A volume of 64 MiB in a pool of 24, which can grow to 40."""

    def setUp(self):
        super().setUp()
        machine = self.target.machine
        machine.plug("meta", megabytes=8)
        machine.plug("data", megabytes=40)
        # Before the scene takes the disks below them away.
        self.addCleanup(self._remove)
        machine.run("modprobe dm-thin-pool && "
                    f"dmsetup create pool --noudevsync --table '{self._pool(24)}' && dmsetup mknodes && "
                    "dmsetup message pool 0 'create_thin 0' && dmsetup create volume --noudevsync "
                    f"--table '0 {VOLUME_MIB * MIB // 512} thin /dev/mapper/pool 0'", 30)
        self.volume = machine.until("for at in /sys/block/dm-*; do [ $(cat $at/dm/name) = volume ] && "
                                    "[ -b /dev/${at##*/} ] && echo /dev/${at##*/} && exit 0; done; exit 1", 20,
                                    "there is a volume")
        self.target.start()
        for name in ("meta", "data"):
            self.assertIn("active volume", self.target.verdict(name, "refused")["reason"])
        self._until("held")
        status, output = self.target.command(f"disks adopt {self.volume} --wipe --yes")
        self.assertEqual(status, 0, output)
        lun = self._until("exported")["lun"]
        self.connect()
        self.disk = self.initiator.disk(lun)

    def _pool(self, megabytes):
        # Blocks of 64 KiB; an error and no wait when there are none left. Where discards are passed on, the kernel sees
        # what they gave back only with the next change.
        meta, data = self.target.machine.device("meta"), self.target.machine.device("data")
        return f"0 {megabytes * MIB // 512} thin-pool {meta} {data} 128 0 2 error_if_no_space no_discard_passdown"

    def _remove(self):
        if self.target.is_running():
            self.target.stop()
        # udev looks at what was just closed.
        self.target.machine.run("for name in volume pool; do dmsetup remove --noudevsync --retry $name; done", 30)

    def _until(self, verdict):
        def judged():
            report = self.target.report(self.volume)
            return report if report is not None and report["verdict"] == verdict else None
        return wait_until(judged, 60, f"{self.volume} is {verdict}", step=0.2)

    def _write(self, at, count, source="/dev/zero"):
        """Writes MiB of the initiator's disk: (status, output)."""
        return self.initiator.machine.attempt(
            f"dd if={source} of={self.disk} bs=1M seek={at} count={count} oflag=direct conv=fsync,notrunc", 60)

    def _fill(self):
        """Something to remember in the first 8 MiB, and then the pool to its end."""
        machine = self.initiator.machine
        machine.run("dd if=/dev/urandom of=/tmp/kept bs=1M count=8")
        status, output = self._write(0, 8, "/tmp/kept")
        self.assertEqual(status, 0, output)
        status, output = self._write(8, LUN_MIB - 8, "/dev/urandom")
        self.assertNotEqual(status, 0, "a pool of 24 MiB has taken more than that")
        self.assertIn("No space left on device", output)
        # What could not be written has moved nothing, and the unit lives on: reads, and writes to what it has.
        self._assert_kept()
        status, output = self._write(4, 4, "/tmp/kept")
        self.assertEqual(status, 0, output)
        status, output = self._write(0, 8, "/tmp/kept")
        self.assertEqual(status, 0, output)
        self.assertRegex(self.initiator.kernel_log(), "critical space allocation error|Space allocation failed")
        self.assertTrue(self.target.is_running())

    def _assert_kept(self):
        self.initiator.machine.run("echo 3 >/proc/sys/vm/drop_caches; "
                                   f"dd if={self.disk} of=/tmp/read bs=1M count=8 iflag=direct && "
                                   "cmp /tmp/kept /tmp/read", 60)

    def test_discard(self):
        """A full pool says SPACE ALLOCATION FAILED (27/07); what the initiator unmaps gives room, and writes go on"""
        self._fill()
        # The pool gives the blocks out again when it has committed, as a flush has it do.
        place = f"-o {8 * MIB} -l {(LUN_MIB - 8) * MIB}"
        self.initiator.machine.run(f"blkdiscard {place} {self.disk} && sg_sync {self.disk}", 60)
        wait_until(lambda: self._write(40, 8, "/tmp/kept")[0] == 0, 20, "there is room again", step=0.5)
        self._assert_kept()
        self.verify(self.disk, count=100, offset=40 * MIB, size=8 * MIB)

    def test_growth(self):
        """A full pool that is given more room takes writes again, and nobody need log in anew"""
        self._fill()
        self.target.machine.run(f"dmsetup reload pool --table '{self._pool(40)}' && "
                                "dmsetup suspend --noudevsync pool && dmsetup resume --noudevsync pool", 30)
        status, output = self._write(40, 8, "/tmp/kept")
        self.assertEqual(status, 0, output)
        self._assert_kept()
        self.verify(self.disk, count=100, offset=40 * MIB, size=8 * MIB)
