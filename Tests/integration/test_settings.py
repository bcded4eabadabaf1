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
    ("[limits]\n[.target]\n", ["gatewayd.toml:2", "name"]),
    ("[limits]\nsessions = [1, }\n", ["gatewayd.toml:2", "not TOML"]),
    # A secret without its quotes, which nobody is to read in a log.
    ('[access.chap]\nuser = "u"\nsecret = 0x00112233445566778899aabb\n', ["gatewayd.toml:3", "quotes"]),
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
                self.assertNotIn("00112233", gateway.log)

    def test_missing_file(self):
        """A settings file that was named and is not there ends the start"""
        gateway = Gateway(settings="", start=False)
        self.addCleanup(gateway.stop)
        gateway.settings_path.unlink()
        gateway.spawn()
        self.assert_ends_with_a_line(gateway, "gatewayd.toml")

    def test_absent_address(self):
        """An address that no interface has keeps nobody from the others, and is told"""
        gateway = self.start(arguments=["--listen", "192.0.2.77:3260", "--listen", "[2001:db8::77]:3260"])
        with initiator.Session(gateway) as session:
            session.ready()
        problems = " ".join(gateway.ask_json("status")["problems"])
        self.assertIn("192.0.2.77:3260", problems)
        self.assertIn("[2001:db8::77]:3260", problems)
        self.assertNotIn(gateway.address, problems)

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

    def test_revoked(self):
        """A reload ends the sessions of those whom it does not let in any more, or gives other LUNs, and no others"""
        gateway = self.start("memory:16M", "memory:16M", settings='[access]\ninitiators = ["*"]\n')
        names = [f"iqn.2026-01.example:{name}" for name in ("stays", "goes", "shrinks")]
        stays, goes, shrinks = [self.keep(initiator.Session(gateway, initiator=name)) for name in names]
        for session in (stays, goes, shrinks):
            session.ready()
        gateway.settings_path.write_text(f'[access]\ninitiators = ["{names[0]}"]\n[[access.initiator]]\n'
                                         f'name = "{names[2]}"\nluns = [1]\n')
        gateway.reload()
        self.assertTrue(goes.connection.is_closed_within(5))
        self.assertTrue(shrinks.connection.is_closed_within(5))
        self.assertFalse(self.can_login(gateway, names[1]))
        again = self.keep(initiator.Session(gateway, initiator=names[2]))
        self.assertEqual(again.luns(), [1])
        stays.read(0, 0, 8).good()
        # Of no network, though the name is good.
        gateway.settings_path.write_text('[access]\nnetworks = ["192.0.2.0/24"]\n')
        gateway.reload()
        self.assertTrue(stays.connection.is_closed_within(5))

    def test_end(self):
        """An operator ends a session, and its initiator may come back; one that is not there is told"""
        gateway = self.start()
        session = self.keep(initiator.Session(gateway))
        session.ready()
        tsih, = (each["id"] for each in gateway.ask_json("sessions"))
        gateway.ask("sessions", "--end", tsih)
        self.assertTrue(session.connection.is_closed_within(5))
        self.assertIn("revoked", gateway.ask("sessions", "--trace", tsih).stdout)
        for wrong in (tsih, 0):
            answer = gateway.ask("sessions", "--end", wrong, check=False)
            self.assertEqual((answer.returncode, "there is no session" in answer.stderr), (1, True))
        self.assertTrue(self.can_login(gateway, "iqn.2026-01.example:test"))

    def test_told(self):
        """Whose session an operator or a reload ends is told when to come back, if it has said anything"""
        gateway = self.start(settings=GOOD)

        def revoke():
            gateway.settings_path.write_text('[access]\ninitiators = ["iqn.2026-01.example:another"]\n')
            gateway.reload()

        def end():
            for each in gateway.ask_json("sessions"):
                gateway.ask("sessions", "--end", each["id"])
        for count, ends in ((2, end), (4, revoke)):
            spoken, silent = [self.keep(initiator.Session(gateway)) for _ in range(2)]
            spoken.ready()
            ends()
            # Event 3, all connections of the session: after Time2Wait, and nothing is retained.
            self.assertEqual(self.assert_message(spoken, 3, (0, 2, 0)), b"")
            for session in (spoken, silent):
                with self.assertRaises(initiator.Closed):
                    session.connection.receive(5 * process.SLOWNESS)
            self.assertEqual(self.metric(gateway, "connections_ended_total", reason="revoked"), count)

    def can_login(self, gateway, name):
        try:
            initiator.Session(gateway, initiator=name).close()
            return True
        except (initiator.LoginRefused, initiator.Closed):
            # A login across a reload is ended.
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
        self.assertIn("gatewayd.toml:4", " ".join(gateway.ask_json("status")["problems"]))
        gateway.settings_path.write_text(GOOD + "[ # nothing yet")
        gateway.reload()
        process.wait_until(lambda: "gatewayd.toml:4: not TOML" in gateway.log, 3, "the head without a name is told")
        gateway.settings_path.write_text(GOOD + '[target]\nalias = "here"\nthreads = 7\n')
        gateway.reload()
        process.wait_until(lambda: "threads" in " ".join(gateway.ask_json("status")["problems"]), 3, "what is late")
        gateway.settings_path.write_text(GOOD)
        gateway.reload()
        process.wait_until(lambda: not gateway.ask_json("status")["problems"], 3, "all is well again")


if __name__ == "__main__":
    unittest.main()
