"""kill -9: what was acknowledged is there, what was reserved stays reserved."""

import time
import unittest

from harness import initiator, scsi
from harness.case import GatewayCase
from harness.initiator import FINAL, IMMEDIATE, PDU, TASK_MANAGEMENT
from harness.load import Writer
from test_roundtrip import _File as File


class Durability(GatewayCase):
    def test_acknowledged_writes_survive(self):
        """After kill -9 under load every acknowledged write is there"""
        path = self.enterContext(File(64 << 20))
        gateway = self.start(path)
        for _ in range(3):
            writer = Writer(gateway, blocks=512)
            writer.start()
            time.sleep(0.7)
            gateway.kill()
            writer.join(5)
            self.assertGreater(len(writer.acknowledged), 50, "the load was no load")
            self.assertIsNotNone(writer.error, "the writer did not notice")
            gateway.start()
            self.assertEqual(writer.missing(gateway), [])

    def register(self, session, key, aptpl):
        parameters = scsi.reserve_parameters(0, key, aptpl)
        session.command(0, scsi.persistent_reserve_out(0), write=parameters).good()

    def keys(self, session):
        data = session.command(0, scsi.persistent_reserve_in(0), read=256).good().data
        length = int.from_bytes(data[4:8], "big")
        return [int.from_bytes(data[8 + at:16 + at], "big") for at in range(0, length, 8)]

    def test_reservations_survive(self):
        """A registration and reservation with APTPL survive kill -9 and keep other initiators out (SPC-5 §5.14.5)"""
        path = self.enterContext(File(64 << 20))
        gateway = self.start(path)
        isid = b"\x80\0\0\0\0\x01"
        with initiator.Session(gateway, isid=isid) as session:
            session.ready()
            self.register(session, 0xABCD, True)
            session.command(0, scsi.persistent_reserve_out(1, 1), write=scsi.reserve_parameters(0xABCD)).good()
        gateway.kill()
        gateway.start()
        with initiator.Session(gateway, initiator="iqn.2026-01.example:other") as other:
            other.ready()
            self.assertEqual(self.keys(other), [0xABCD])
            self.assertEqual(other.write(0, 8, bytes(512)).status, scsi.RESERVATION_CONFLICT)
        with initiator.Session(gateway, isid=isid) as session:
            session.ready()
            session.write(0, 8, bytes(512)).good()

    def test_aborted_registration(self):
        """A registration that is aborted while its record is written is there or not, and so after a restart"""
        path = self.enterContext(File(64 << 20))
        gateway = self.start(path)
        isid = b"\x80\0\0\0\0\x01"
        for key in range(1, 6):
            with initiator.Session(gateway, isid=isid) as session:
                session.ready()
                before = self.keys(session)
                former = before[0] if before else 0
                # Both in one segment: the abort finds the record in the disk's hands.
                request = session.command_pdu(0, scsi.persistent_reserve_out(0), 24, True,
                                              scsi.reserve_parameters(former, key, True))
                request.put(24, session.cmd_sn).put(28, session.exp_stat_sn)
                session.cmd_sn += 1
                abort = PDU(TASK_MANAGEMENT | IMMEDIATE, FINAL | initiator.ABORT_TASK).set_lun(gateway.first_lun)
                abort.tag = session.new_tag()
                abort.put(20, request.tag).put(32, session.cmd_sn - 1).put(24, session.cmd_sn)
                session.connection.send_bytes(request.encode() + abort.encode())
                session.receive_for(abort.tag)
                session.pending.clear()
                session.ready()
                now = self.keys(session)
            gateway.kill()
            gateway.start()
            with initiator.Session(gateway, isid=isid) as session:
                session.ready()
                self.assertEqual(self.keys(session), now, f"{before}, then {key}")

    def test_registrations_without_aptpl_end(self):
        """A registration without APTPL does not survive a restart (SPC-5 §5.14.5)"""
        path = self.enterContext(File(64 << 20))
        gateway = self.start(path)
        with initiator.Session(gateway) as session:
            session.ready()
            self.register(session, 0xABCD, False)
            self.assertEqual(self.keys(session), [0xABCD])
        gateway.kill()
        gateway.start()
        with initiator.Session(gateway) as session:
            session.ready()
            self.assertEqual(self.keys(session), [])


if __name__ == "__main__":
    unittest.main()
