"""`gatewayd attach` and `detach` on an initiator: from nothing to a disk, and back to nothing."""

from machines.scene import SceneCase

DROP_IN = "/etc/multipath/conf.d/gatewayd.conf"


class AttachCase(SceneCase):
    def setUp(self):
        super().setUp()
        self.lun = self.start_with_memory()

    def attach(self, words="", wanted=0):
        status, output = self.initiator.attach(words=words)
        self.assertEqual(status, wanted, output)
        return output

    def detach(self):
        status, output = self.initiator.detach()
        self.assertEqual(status, 0, output)
        self.assert_nothing_left()

    def assert_nothing_left(self):
        """No session, no record, no map, no settings."""
        machine = self.initiator.machine
        self.assertEqual(self.target.ask("sessions"), [])
        for script in ("iscsiadm -m session", "iscsiadm -m node", f"ls {DROP_IN}", "grep -q ^/ /etc/multipath/wwids",
                       "dmsetup ls --target multipath | grep -v 'No devices'"):
            status, output = machine.attempt(script)
            self.assertNotEqual(status, 0, f"{script}: {output}")


class Attach(AttachCase):
    def test_attach(self):
        """Without RDMA it says so, and TCP alone is a multipath device; detach leaves nothing"""
        output = self.attach()
        self.assertIn("no iSER: this host has no RDMA device", output)
        self.assertRegex(output, r"(?m)^LUN 0: /dev/mapper/\S+ \(TCP sd\w\)$")
        device = output.split("LUN 0: ")[1].split(" ")[0]
        self.verify(device, count=50)
        self.assertIn("queue_if_no_path", self.initiator.machine.run(f"multipath -ll {device}"))
        self.detach()

    def test_again(self):
        """A second attach finds the disks that were added, and gives the others the names they had"""
        first = self.attach()
        (second,) = self.export("second")
        self.assertEqual(second, 1)
        output = self.attach()
        self.assertIn(first.split("LUN 0: ")[1].strip(), output)
        self.assertRegex(output, r"(?m)^LUN 1: /dev/mapper/")
        self.detach()

    def test_one_path(self):
        """With --no-multipath there is one path and no map"""
        output = self.attach("--no-multipath")
        self.assertRegex(output, r"(?m)^LUN 0: /dev/sd\w \(TCP sd\w\)$")
        self.assertEqual(len(self.target.ask("sessions")), 1)
        self.detach()

    def test_print(self):
        """What --print prints does the same on a host without gatewayd"""
        machine, portal = self.initiator.machine, self.initiator.portal
        machine.run(f"for each in attach detach; do gatewayd $each {portal} --print >/tmp/$each; done")
        self.addCleanup(machine.attempt, "mv /tmp/gatewayd /usr/bin/gatewayd")
        machine.run("mv /usr/bin/gatewayd /tmp/gatewayd")
        self.assertRegex(machine.run("sh /tmp/attach", 90), r"LUN 0: /dev/mapper/")
        machine.run("sh /tmp/detach", 90)
        self.assert_nothing_left()

    def test_in_use(self):
        """A disk that is mounted is not taken away: detach says which, and changes nothing"""
        device = self.initiator.attached(self.lun)
        self.initiator.machine.run(f"mkfs.ext4 -q {device} && mount {device} /mnt", 60)
        status, output = self.initiator.detach()
        self.assertEqual(status, 1, output)
        self.assertIn(f"{device} is in use", output)
        self.initiator.machine.run("echo still >/mnt/here && sync && umount /mnt")
        self.detach()

    def test_open(self):
        """A disk without a map that a program has open, a virtual machine for example, is not taken away either"""
        output = self.attach("--no-multipath")
        device = output.split("LUN 0: ")[1].split(" ")[0]
        self.initiator.machine.run(f"sleep 600 <{device} >/dev/null 2>&1 & echo $! >/run/holder")
        status, output = self.initiator.detach()
        self.assertEqual(status, 1, output)
        self.assertIn(f"{device} is in use", output)
        self.initiator.machine.run("kill $(cat /run/holder)")
        self.detach()

    def test_no_gateway(self):
        """Where no gateway answers nothing is left behind, and a detach of what was never attached says so"""
        self.target.stop()
        self.assertIn("no gateway answers", self.attach(wanted=1))
        self.assertIn("nothing of", self.initiator.detach()[1])
        self.target.resume()
        self.assert_nothing_left()


class AttachOverBoth(AttachCase):
    transport = "iser"

    def test_both(self):
        """With RDMA a disk has two paths, iSER preferred; detach leaves nothing"""
        output = self.attach()
        self.assertRegex(output, r"(?m)^LUN 0: /dev/mapper/\S+ \(TCP sd\w, iSER sd\w\)$")
        self.assertEqual(sorted(each["transport"] for each in self.target.ask("sessions")), ["iser", "tcp"])
        self.verify(output.split("LUN 0: ")[1].split(" ")[0], count=50)
        self.detach()

    def test_choices(self):
        """--no-multipath takes iSER alone, --tcp-only TCP alone"""
        self.assertRegex(self.attach("--no-multipath"), r"(?m)^LUN 0: /dev/sd\w \(iSER sd\w\)$")
        self.detach()
        self.assertRegex(self.attach("--tcp-only"), r"(?m)^LUN 0: /dev/mapper/\S+ \(TCP sd\w\)$")
        self.detach()

    def test_refused(self):
        """Where iSER is refused TCP is taken, and the reason told"""
        self.target.stop()
        self.target.machine.remove_rxe()
        self.target.resume()
        output = self.attach()
        self.assertRegex(output, "no iSER: the login failed .*: TCP alone")
        self.assertRegex(output, r"(?m)^LUN 0: /dev/mapper/\S+ \(TCP sd\w\)$")
        self.detach()
