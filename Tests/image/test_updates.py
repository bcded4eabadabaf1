"""Updates: to another version and back, versions that do not serve or do not even start, and what is no update."""

import re

from appliance import PANIC, WORK, another_version
from updates import UpdateCase


class Updates(UpdateCase):
    def test_1_tampered(self):
        """What is not signed by our key, or is damaged, is refused before the ESP is touched"""
        before = self.machine.run("ls -l /efi/EFI/Linux; stat -c %y /efi/EFI/Linux")
        good = another_version("90")
        bad = WORK / "bad.efi"
        content = bytearray(good.read_bytes())
        content[len(content) // 2] ^= 1
        bad.write_bytes(content)
        for signature in (good.with_name(good.name + ".sig").read_bytes(), b"", bytes(64), bytes(65)):
            bad.with_name("bad.efi.sig").write_bytes(signature)
            status, output = self.machine.attempt(f"gatewayd update {self.server.url(bad)}", 600)
            self.assertEqual(status, 1, output)
            self.assertIn("not updated: the signature is not that of this file", output)
        self.assertEqual(self.machine.run("ls -l /efi/EFI/Linux; stat -c %y /efi/EFI/Linux"), before)
        self.assertEqual(self.machine.run("ls /state | grep update || true"), "")
        bad.unlink()

    def test_2_update(self):
        """An update is tried, proves itself, and keeps the version before; the data disk is the same LUN"""
        name = self.machine.target()
        self.update(another_version("91"))
        self.machine.until(r"^Version +91 \(proven\)")
        self.machine.until(rf"(?s)Other +{re.escape(self.first)} \(proven\).*LUN 0 ")
        self.assertEqual(self.machine.target(), name)
        self.machine.can_log_in()
        self.assertEqual(self.slots(), [f"gatewayd-{self.first}.efi", "gatewayd-91.efi"])

    def test_3_back(self):
        """The way back: the version before is started"""
        self.machine.restart("gatewayd rollback --reboot")
        self.machine.until(rf"(?s)^Version +{re.escape(self.first)} \(proven\).*^Other +91 \(put aside\)")
        self.machine.can_log_in()

    def test_4_not_healthy(self):
        """A version whose daemon does not run is left for the one before, by itself"""
        self.update(another_version("92", "systemd.mask=gatewayd.service"), tries=1)
        self.machine.until(r"^Version +92 \(failed\)|^Version +92 \(on trial, 0")
        self.machine.until(rf"(?s)^Version +{re.escape(self.first)} \(proven\).*^Other +92 \(failed\)", 600)
        self.machine.can_log_in()
        self.assertEqual(self.slots(), [f"gatewayd-{self.first}.efi", "gatewayd-92+0-1.efi"])

    def test_5_panic(self):
        """A version whose kernel panics is left for the one before, by itself"""
        self.update(another_version("93", "rdinit=/none"), tries=1)
        self.machine.until_shown(PANIC)
        self.machine.until(rf"(?s)^Version +{re.escape(self.first)} \(proven\).*^Other +93 \(failed\)")

    def test_6_no_program(self):
        """A version whose gatewayd cannot even be run is left for the one before, by itself"""
        self.update(another_version("94", "systemd.mask=gatewayd.service"), tries=1)
        self.machine.until(r"^Version +94 \(failed\)|^Version +94 \(on trial, 0")
        self.machine.can_log_in()
        self.machine.run("chmod a-x /usr/sbin/gatewayd")
        self.machine.forget()
        self.machine.until(rf"(?s)^Version +{re.escape(self.first)} \(proven\).*^Other +94 \(failed\)", 600)

    def test_7_older(self):
        """An older version that does not serve is left for the newer one that was put aside for it"""
        self.update(another_version("0.0.1", "systemd.mask=gatewayd.service"), tries=1)
        self.machine.until(rf"(?s)^Version +0.0.1 \(failed\).*^Other +{re.escape(self.first)} \(put aside\)")
        self.machine.forget()
        self.machine.until(rf"(?s)^Version +{re.escape(self.first)} \(proven\).*^Other +0.0.1 \(failed\)", 900)

    def test_8_three_tries(self):
        """With the tries that an update comes with, a version that does not serve is started three times"""
        self.update(another_version("96", "systemd.mask=gatewayd.service"))
        for left in (r"on trial, 2 tries left", r"on trial, 1 try left", "failed"):
            self.machine.until(rf"^Version +96 \({left}\)", 400)
        self.machine.until(rf"(?s)^Version +{re.escape(self.first)} \(proven\).*^Other +96 \(failed\)", 400)
