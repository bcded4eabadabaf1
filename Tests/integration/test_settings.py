"""Settings files: a mistake is told with its place, and harms nothing that runs."""

import time
import unittest

from harness import initiator, process
from harness.case import GatewayCase
from harness.daemon import Gateway

GOOD = """
[access]
initiators = ["iqn.2026-01.example:test"]
"""
# text, words of the line that tells about it: the file and the line first
MISTAKES = [
    ("[access]\ninitiatros = []\n", ["gatewayd.toml:2", "initiatros"]),
    ("[target]\nlisten = \"nowhere\"\n", ["gatewayd.toml:2", "listen"]),
    ("[limits]\nsessions = -1\n", ["gatewayd.toml:2", "sessions"]),
    ("[limits]\n\n\nsessions = \"many\"\n", ["gatewayd.toml:4", "sessions"]),
    ("[log]\nlevel = \"loud\"\n", ["gatewayd.toml:2", "level"]),
    ("[nonsense]\na = 1\n", ["gatewayd.toml:1", "nonsense"]),
    ("[target\n", ["gatewayd.toml:1"]),
]


class Settings(GatewayCase):
    def test_mistakes(self):
        """Each mistake ends the start with the file, the line and the key"""
        for text, words in MISTAKES:
            with self.subTest(text=text):
                gateway = Gateway(settings=text, start=False)
                self.addCleanup(gateway.stop)
                gateway.spawn()
                self.assert_ends_with_a_line(gateway, *words)

    def test_missing_file(self):
        """A settings file that was named and is not there ends the start"""
        gateway = Gateway(settings="", start=False)
        self.addCleanup(gateway.stop)
        gateway.settings_path.unlink()
        gateway.spawn()
        self.assert_ends_with_a_line(gateway, "gatewayd.toml")

    def test_reload(self):
        """SIGHUP takes new settings over; running sessions stay"""
        gateway = self.start(settings=GOOD)
        with initiator.Session(gateway) as session:
            session.ready()
            with self.assertRaises(initiator.LoginRefused):
                initiator.Session(gateway, initiator="iqn.2026-01.example:second")
            gateway.settings_path.write_text('[access]\ninitiators = ["*"]\n')
            gateway.reload()
            second = "iqn.2026-01.example:second"
            process.wait_until(lambda: self.can_login(gateway, second), 3, "the new settings rule")
            session.read(0, 0, 8).good()

    def can_login(self, gateway, name):
        try:
            initiator.Session(gateway, initiator=name).close()
            return True
        except initiator.LoginRefused:
            return False

    def test_bad_reload(self):
        """SIGHUP with a mistake in the file keeps the old settings, all of them, and tells the line"""
        gateway = self.start(settings=GOOD)
        gateway.settings_path.write_text('[access]\ninitiators = ["*"]\n[limits]\nsessions = -1\n')
        gateway.reload()
        process.wait_until(lambda: "gatewayd.toml:4" in gateway.log, 3, "the mistake is told")
        time.sleep(0.2)
        self.assertFalse(self.can_login(gateway, "iqn.2026-01.example:second"))
        self.assertTrue(self.can_login(gateway, "iqn.2026-01.example:test"))
        self.assert_alive(gateway)


if __name__ == "__main__":
    unittest.main()
