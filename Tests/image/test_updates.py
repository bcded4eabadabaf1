"""Updates: to another version and back, versions that do not serve or do not even start, and what is no update."""

import http.server
import re
import threading

from appliance import PANIC, WORK, ApplianceCase, another_version, latest

# As this machine is seen from inside.
HOST = "10.0.2.2"


class Server:
    """Serves the directory of the tests by HTTP on loopback."""

    def __init__(self):
        class Handler(http.server.SimpleHTTPRequestHandler):
            def __init__(self, *arguments):
                super().__init__(*arguments, directory=str(WORK))

            def log_message(self, *_):
                pass

        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    def url(self, path):
        return f"http://{HOST}:{self.server.server_port}/{path.name}"

    def close(self):
        self.server.shutdown()
        self.server.server_close()


class Updates(ApplianceCase):
    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        cls.first = latest().name.removeprefix("gatewayd-")
        cls.server = Server()
        cls.addClassCleanup(cls.server.close)
        cls.machine.blank("data")
        cls.machine.power_on("data")
        cls.machine.until(r"^Version .*\(proven\)")
        cls.machine.can_log_in()

    def slots(self):
        return self.machine.run("ls /efi/EFI/Linux").split()

    def update(self, path, tries=None):
        """Brings a version, and starts it; `tries`: so many instead of three."""
        output = self.machine.run(f"gatewayd update {self.server.url(path)}", 600)
        self.assertIn("is tried at the next start", output)
        if tries is not None:
            self.machine.run("mount -o remount,rw /efi && cd /efi/EFI/Linux && "
                             f"mv *+3.efi $(echo *+3.efi | sed s/+3/+{tries}/) && sync && mount -o remount,ro /efi")
        self.machine.restart()

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
        self.machine.until(rf"(?s)^Version +{re.escape(self.first)} \(proven\).*^Other +91 \(failed\)")
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
