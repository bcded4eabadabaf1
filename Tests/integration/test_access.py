"""Who gets in and what they see."""

import os
import unittest

from harness import initiator, process
from harness.case import GatewayCase

SECRET, OTHER_SECRET = "initiator-secret-1", "target-secret-0002"
ONE_WAY = f"""
[access.chap]
user = "alice"
secret = "{SECRET}"
"""
MUTUAL = f"""{ONE_WAY}mutual-user = "gateway"
mutual-secret = "{OTHER_SECRET}"
"""
MASKS = """
[access]
initiators = ["iqn.2026-01.example:admin"]
[[access.initiator]]
name = "iqn.2026-01.example:one-*"
luns = [1]
"""


class Access(GatewayCase):
    def refused(self, gateway, status, **options):
        with self.assertRaises(initiator.LoginRefused) as caught:
            initiator.Session(gateway, **options).close()
        self.assertEqual(caught.exception.status, status)

    def test_chap(self):
        """One-way CHAP lets the right secret in, by every algorithm (RFC 7143 §12.1.3)"""
        gateway = self.start(settings=ONE_WAY)
        for algorithm in "5678":
            with self.subTest(algorithm=algorithm):
                with initiator.Session(gateway, user="alice", secret=SECRET, algorithms=algorithm) as session:
                    session.ready()
        self.refused(gateway, 0x0201, user="alice", secret="not the secret at all")
        self.refused(gateway, 0x0201, user="bob", secret=SECRET)

    def test_no_authentication(self):
        """Where CHAP is asked for, AuthMethod=None is refused"""
        gateway = self.start(settings=ONE_WAY)
        self.refused(gateway, 0x0201)

    def test_mutual_chap(self):
        """With mutual CHAP the gateway proves itself"""
        gateway = self.start(settings=MUTUAL)
        with initiator.Session(gateway, user="alice", secret=SECRET, mutual_user="gateway",
                               mutual=OTHER_SECRET) as session:
            session.ready()
        with self.assertRaises(AssertionError):
            initiator.Session(gateway, user="alice", secret=SECRET, mutual_user="gateway", mutual="wrong wrong wrong")

    def test_libiscsi(self):
        """libiscsi's tools log in with CHAP, one-way and mutual, and not with the wrong secret"""
        gateway = self.start(settings=MUTUAL)
        environment = {**os.environ, "LIBISCSI_CHAP_TARGET_USERNAME": "gateway",
                       "LIBISCSI_CHAP_TARGET_PASSWORD": OTHER_SECRET}
        process.run(["iscsi-inq", gateway.url(user=f"alice%{SECRET}")])
        process.run(["iscsi-inq", gateway.url(user=f"alice%{SECRET}")], env=environment)
        wrong = process.run(["iscsi-inq", gateway.url(user="alice%wrong-wrong-wrong")], check=False)
        self.assertNotEqual(wrong.returncode, 0)

    def test_reflection(self):
        """A target's challenge cannot be turned back on it (RFC 7143 §12.1.3)"""
        gateway = self.start(settings=MUTUAL)
        session = initiator.Session(gateway, user="alice", secret=SECRET, login=False)
        self.keep(session)
        session._exchange(0, 1, {"InitiatorName": session.initiator, "SessionType": "Normal",
                                 "TargetName": gateway.name, "AuthMethod": "CHAP"}, transit=False)
        session._exchange(0, 1, {"CHAP_A": "5"}, transit=False)
        with self.assertRaises((initiator.LoginRefused, initiator.Closed)):
            session._exchange(0, 1, {"CHAP_N": "gateway", "CHAP_R": "0x" + "00" * 16, "CHAP_I": session.keys["CHAP_I"],
                                     "CHAP_C": session.keys["CHAP_C"]})

    def test_masks(self):
        """An initiator sees its LUNs and no others; an unknown one is refused and finds no target"""
        gateway = self.start("memory:64M", "memory:32M", "memory:16M", settings=MASKS)
        with initiator.Session(gateway, initiator="iqn.2026-01.example:one-a") as session:
            self.assertEqual(session.luns(), [1])
            session.ready(1)
            self.assertEqual(session.capacity(1)[0], (32 << 20) // 512)
            self.assertEqual(session.read(0, 0, 1).asc, 0x2500)
        with initiator.Session(gateway, initiator="iqn.2026-01.example:admin") as session:
            self.assertEqual(session.luns(), [0, 1, 2])
        stranger = "iqn.2026-01.example:stranger"
        with self.assertRaises(initiator.LoginRefused) as caught:
            initiator.Session(gateway, initiator=stranger)
        self.assertIn(caught.exception.status, (0x0202, 0x0203))
        with initiator.Session(gateway, initiator=stranger, discovery=True) as session:
            self.assertEqual(session.send_targets(), [])

    def test_secrets_are_not_told(self):
        """No secret appears in the log or in what the control socket tells"""
        gateway = self.start(settings=MUTUAL)
        with initiator.Session(gateway, user="alice", secret=SECRET) as session:
            session.ready()
            told = gateway.log + "".join(gateway.ask(verb, "--json").stdout for verb in ("status", "sessions", "disks"))
        for secret in (SECRET, OTHER_SECRET):
            self.assertNotIn(secret, told)


if __name__ == "__main__":
    unittest.main()
