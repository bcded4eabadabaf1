"""Commands that must be one step to everybody else, sent by many sessions on several threads, counted exactly."""

import os
import random
import struct
import threading
import unittest

from harness import initiator, scsi
from harness.case import GatewayCase
from harness.load import BLOCK, Threads

# All sessions together, in each test.
OPERATIONS = int(os.environ.get("GATEWAYD_ATOMIC_OPERATIONS", "16000"))
SESSIONS = 16

WRITE_EXCLUSIVE_REGISTRANTS = 5
REGISTER, RESERVE, PREEMPT, REGISTER_AND_IGNORE = 0, 1, 4, 6


def orwrite16(lba, blocks):
    return struct.pack(">BBQIBB", 0x8B, 0, lba, blocks, 0, 0)


class Atomic(GatewayCase):
    def sessions(self, count, *disks):
        gateway = self.start(*disks, arguments=["--threads", "4"])
        sessions = []
        for number in range(count):
            name = f"iqn.2026-01.example:atomic-{number}"
            session = self.keep(initiator.Session(gateway, initiator=name, seconds=30))
            session.ready()
            sessions.append(session)
        return sessions

    def test_compare_and_write(self):
        """COMPARE AND WRITE by 16 sessions on four threads counts without a loss: compared and written in one step"""
        sessions = self.sessions(SESSIONS, "memory:16M")
        counters = 4
        counted = [[0] * counters for _ in sessions]
        limit = OPERATIONS // SESSIONS

        def count(number):
            session, rng = sessions[number], random.Random(number)
            known = [bytes(BLOCK)] * counters
            for _ in range(limit):
                lba = rng.randrange(counters)
                value = struct.unpack_from(">Q", known[lba])[0]
                # The whole block says the same, so that a torn one shows.
                following = struct.pack(">Q", value + 1) * (BLOCK // 8)
                result = session.command(0, scsi.compare_and_write(lba), write=known[lba] + following)
                if result.status == scsi.GOOD:
                    known[lba] = following
                    counted[number][lba] += 1
                else:
                    self.assertEqual((result.sense_key, result.asc), (scsi.MISCOMPARE, 0x1D00))
                    known[lba] = session.read(0, lba, 1).good().data
                    self.assertEqual(known[lba][:8] * (BLOCK // 8), known[lba], "a torn block")

        Threads(count, range(SESSIONS)).join(60 + OPERATIONS / 100)
        total = 0
        for lba in range(counters):
            expected = sum(row[lba] for row in counted)
            self.assertEqual(sessions[0].read(0, lba, 1).good().data, struct.pack(">Q", expected) * (BLOCK // 8))
            total += expected
        self.assertGreater(total, OPERATIONS // SESSIONS)
        print(f"atomic: {limit * SESSIONS} COMPARE AND WRITE, {total} of them counted, each once")

    def test_orwrite(self):
        """ORWRITE by 16 sessions sets every bit that any of them set"""
        sessions = self.sessions(SESSIONS, "memory:16M")
        blocks = 2
        bits = blocks * BLOCK * 8
        limit = min(OPERATIONS // SESSIONS, bits // SESSIONS)

        def mark(number):
            for step in range(limit):
                bit = step * SESSIONS + number
                data = bytearray(blocks * BLOCK)
                data[bit // 8] = 1 << bit % 8
                sessions[number].command(0, orwrite16(0, blocks), write=bytes(data)).good()

        Threads(mark, range(SESSIONS)).join(60 + OPERATIONS / 100)
        found = sessions[0].read(0, 0, blocks).good().data
        self.assertEqual(sum(bin(byte).count("1") for byte in found), limit * SESSIONS)

    def test_preempt(self):
        """Once PREEMPT is answered, nothing that the preempted one writes lands, however many it had under way"""
        rounds = max(20, OPERATIONS // 100)
        first, second = self.sessions(2, "memory:16M")
        keys = {first: 0xA, second: 0xB}
        writes = 0

        def out(session, action, key=0, service_key=0, kind=0):
            while True:
                result = session.command(0, scsi.persistent_reserve_out(action, kind),
                                         write=scsi.reserve_parameters(key, service_key))
                if result.sense_key != scsi.UNIT_ATTENTION:
                    return result

        out(first, REGISTER_AND_IGNORE, 0, keys[first]).good()
        out(first, RESERVE, keys[first], 0, WRITE_EXCLUSIVE_REGISTRANTS).good()
        holder, other, value = first, second, 0
        for _ in range(rounds):
            out(other, REGISTER_AND_IGNORE, 0, keys[other]).good()
            answered, conflicts, begun = [0], [], threading.Event()

            def write(_, holder=holder, start=value, answered=answered, conflicts=conflicts, begun=begun):
                number, tags = start, []
                while not conflicts:
                    number += 1
                    data = struct.pack(">Q", number) * (BLOCK // 8)
                    tags.append((number, data, holder.begin(0, scsi.write16(0, 1), write=data)))
                    if len(tags) < 4:
                        continue
                    # Several writes of one block are under way: each number is sent after the ones before it.
                    for sent, content, tag in tags:
                        result = holder.finish(tag, write=content, seconds=30)
                        if result.status == scsi.GOOD:
                            answered[0] = max(answered[0], sent)
                        elif result.status == scsi.RESERVATION_CONFLICT:
                            conflicts.append(sent)
                        else:
                            self.assertEqual(result.sense_key, scsi.UNIT_ATTENTION)
                    tags = []
                    begun.set()

            writer = Threads(write, [0])
            begun.wait(10)
            out(other, PREEMPT, keys[other], keys[holder], WRITE_EXCLUSIVE_REGISTRANTS).good()
            at_once = other.read(0, 0, 1)
            if at_once.sense_key == scsi.UNIT_ATTENTION:
                at_once = other.read(0, 0, 1)
            writer.join(30)
            later = other.read(0, 0, 1).good().data
            self.assertEqual(at_once.good().data, later, "a write landed after PREEMPT had been answered")
            self.assertTrue(conflicts)
            writes += max(conflicts) - value
            value = max([*conflicts, struct.unpack_from(">Q", later)[0]])
            holder, other = other, holder
        print(f"atomic: {rounds} PREEMPT beside {writes} writes")


if __name__ == "__main__":
    unittest.main()
