"""Who gets in and what they see."""

import os
import socket
import subprocess
import unittest

from harness import initiator, process, scsi
from harness.case import GatewayCase
from harness.daemon import Gateway
from harness.parts import activated

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

    def test_reset_of_masked_units(self):
        """A target reset ends what others do at the units that its sender sees, and nothing else (RFC 7143 §11.5.1)"""
        gateway = self.start("faulty:64M:hang=0+8", "faulty:64M:hang=0+8", settings=MASKS)
        names = ["iqn.2026-01.example:admin", "iqn.2026-01.example:one-a"]
        admin, masked = [self.keep(initiator.Session(gateway, initiator=name)) for name in names]
        for lun in (0, 1):
            admin.ready(lun)
        masked.ready(1)
        hidden, shared = [admin.begin(lun, scsi.read16(0, 1), read=512) for lun in (0, 1)]
        # The disks have them when this is answered: the other's connection may be quicker.
        admin.ping()
        self.assertEqual(masked.task_management(initiator.WARM_RESET, seconds=5), 0)
        # A unit attention for the unit that both see; the other's command is where it was.
        self.assertEqual(admin.command(1, scsi.test_unit_ready()).sense_key, scsi.UNIT_ATTENTION)
        admin.command(0, scsi.test_unit_ready()).good()
        self.assertEqual(admin.task_management(initiator.ABORT_TASK, 1, shared, admin.cmd_sn, seconds=5), 1)
        self.assertEqual(admin.task_management(initiator.ABORT_TASK, 0, hidden, admin.cmd_sn, seconds=5), 0)
        self.assertEqual(masked.task_management(initiator.COLD_RESET, seconds=5), 6)
        admin.ready(1)

    def test_login_across_a_reload(self):
        """A login that began under rules that are gone does not end under them"""
        gateway = self.start(settings=MASKS)
        parked = self.keep(initiator.Session(gateway, initiator="iqn.2026-01.example:one-b", login=False))
        parked._exchange(0, 1, {"InitiatorName": parked.initiator, "SessionType": "Normal", "TargetName": gateway.name,
                                "AuthMethod": "None"})
        gateway.settings_path.write_text('[access]\ninitiators = ["iqn.2026-01.example:admin"]\n')
        gateway.reload()
        self.assertTrue(parked.connection.is_closed_within(5))

    def test_discovery_takes_no_place(self):
        """Discovery sessions, for which nothing has to be proved, keep nobody from the target, nor from discovery"""
        gateway = self.start(settings="[limits]\nsessions = 4\nconnections-per-address = 200\n")
        found = [self.keep(initiator.Session(gateway, initiator=f"iqn.2026-01.example:seeker-{number}", discovery=True))
                 for number in range(70)]
        with initiator.Session(gateway) as session:
            session.ready()
            with initiator.Session(gateway, discovery=True) as another:
                self.assertTrue(another.send_targets())
            session.ready()
        self.assertTrue(found[0].connection.is_closed_within(3), "the oldest is still there")
        self.assertTrue(found[-1].send_targets())

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


class Networks(GatewayCase):
    """Addresses of 127.0.0.0/8, each of which is this machine's."""

    SETTINGS = '[access]\nnetworks = ["127.0.9.0/24", "127.128.0.0/9"]\n'
    INSIDE = ("127.0.9.0", "127.0.9.1", "127.0.9.255", "127.128.0.0", "127.200.1.1")
    OUTSIDE = ("127.0.0.1", "127.0.8.255", "127.0.10.0", "127.127.255.255", "127.1.9.1")

    def refusals(self, gateway):
        return {reason: self.metric(gateway, "connections_refused_total", reason=reason)
                for reason in ("network", "address_limit", "connection_limit")}

    def assert_let_in(self, gateway, *sources):
        before = self.refusals(gateway)
        for source in sources:
            with initiator.Session(gateway, source=source) as session:
                session.ready()
        self.assertEqual(self.refusals(gateway), before)

    def assert_turned_away(self, gateway, *sources):
        """Closed without a byte, whether the peer says something or not; counted and said each time."""
        before = self.refusals(gateway)
        for source in sources:
            with self.assertRaises((initiator.Closed, ConnectionError), msg=source):
                initiator.Session(gateway, source=source)
            with initiator.Connection(gateway.address, gateway.port, source=source) as connection:
                with self.assertRaises(initiator.Closed, msg=source):
                    connection.receive(2 * process.SLOWNESS)
                self.assertEqual(connection._in, b"")
            lines = [line for line in gateway.log.splitlines() if f"connection from {source}:" in line]
            self.assertEqual([line.partition(" refused: ")[2] for line in lines[-2:]],
                             ["its network is not one that [access] networks admits"] * 2)
        self.assertEqual(self.refusals(gateway), {**before, "network": before["network"] + 2 * len(sources)})

    def test_networks(self):
        """A peer of a network that is not admitted is turned away unread, counted and said; one that is gets in"""
        gateway = self.start(settings=self.SETTINGS)
        self.assert_turned_away(gateway, *self.OUTSIDE)
        self.assert_let_in(gateway, *self.INSIDE)
        # Discovery is no way around it.
        with self.assertRaises((initiator.Closed, ConnectionError)):
            initiator.Session(gateway, source="127.0.8.1", discovery=True)

    def test_reload(self):
        """The networks of a reload hold for the next connection"""
        gateway = self.start(settings=self.SETTINGS)
        self.assert_turned_away(gateway, "127.0.8.1")
        gateway.settings_path.write_text('[access]\nnetworks = ["127.0.8.1/32"]\n')
        gateway.reload()

        def is_let_in():
            try:
                initiator.Session(gateway, source="127.0.8.1").close()
                return True
            except (initiator.Closed, ConnectionError):
                return False
        process.wait_until(is_let_in, 5, "the new networks rule")
        self.assert_turned_away(gateway, "127.0.8.2", "127.0.9.1")
        self.assert_let_in(gateway, "127.0.8.1")

    def test_loopback(self):
        """Loopback is on-link, which is admitted unless the settings say otherwise"""
        self.assert_let_in(self.start(), "127.0.0.1", "127.77.1.2")
        self.assert_let_in(self.start(settings='[access]\nnetworks = ["any"]\n'), "127.0.0.1", "127.77.1.2")
        self.assert_turned_away(self.start(settings='[access]\nnetworks = []\n'), "127.0.0.1", "127.77.1.2")

    def test_mapped(self):
        """An IPv4 address that arrives on an IPv6 socket counts as IPv4"""
        with socket.socket(socket.AF_INET6) as listener:
            listener.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
            listener.bind(("::ffff:127.0.0.1", 0))
            listener.listen()
            # Such a socket it opens none of by itself; the service manager may pass one.
            gateway = Gateway(settings=self.SETTINGS, start=False)
            self.addCleanup(self._end, gateway)
            with open(gateway.log_path, "ab") as log:
                gateway.process = subprocess.Popen(activated(listener, gateway.command()), stdin=subprocess.DEVNULL,
                                                   stdout=log, stderr=log, pass_fds=[listener.fileno()])
            process.wait_until(gateway._is_asked, 10, f"gatewayd answers\n{gateway.log}")
            gateway.port = listener.getsockname()[1]
            self.assert_turned_away(gateway, *self.OUTSIDE)
            self.assert_let_in(gateway, *self.INSIDE)


if __name__ == "__main__":
    unittest.main()
