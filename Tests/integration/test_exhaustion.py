"""What there is only so much of, used up: the right answer meanwhile, and full service afterwards."""

import contextlib
import os
import socket
import time
import unittest
from collections import Counter

from harness import initiator, process, scsi
from harness.case import GatewayCase
from harness.load import BLOCK, Threads, Writer, pattern


# With two threads it needs some 20 itself.
DESCRIPTORS = 48
STRANGERS = 80


class Exhaustion(GatewayCase):
    def test_descriptors(self):
        """Without a file descriptor for another connection, those that are there are served; afterwards others too"""
        # It is the descriptors that there are too few of, not the places of an address.
        gateway = self.start("memory:16M", start=False, arguments=["--threads", "2"],
                             settings="[limits]\nconnections-per-address = 500\n")
        gateway.spawn(["prlimit", f"--nofile={DESCRIPTORS}"])
        process.wait_until(lambda: process.is_listening(gateway.address, gateway.port), 10, "gatewayd listens")
        self.exhaust(gateway)

    def descriptors(self, gateway):
        return len(os.listdir(f"/proc/{gateway.pid}/fd"))

    def processor_seconds(self, gateway):
        with open(f"/proc/{gateway.pid}/stat") as file:
            fields = file.read().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def exhaust(self, gateway):
        session = self.keep(initiator.Session(gateway, seconds=10))
        session.ready()
        for _ in range(3):
            with contextlib.ExitStack() as stack:
                strangers = []
                for _ in range(STRANGERS):
                    stranger = stack.enter_context(socket.socket())
                    stranger.settimeout(0.2)
                    with contextlib.suppress(OSError):
                        stranger.connect((gateway.address, gateway.port))
                        strangers.append(stranger)
                process.wait_until(lambda: self.descriptors(gateway) == DESCRIPTORS, 5, "it has all that it may")
                # The others wait where they are, and nothing is done about them without end.
                begin = self.processor_seconds(gateway), time.monotonic()
                waiting = process.run(["ss", "-Htln", f"sport = :{gateway.port}"]).stdout.split()[1]
                self.assertGreater(int(waiting), len(strangers) - DESCRIPTORS)
                block = pattern(0, len(strangers))
                session.write(0, 0, block).good()
                self.assertEqual(session.read(0, 0, 1).good().data, block)
                time.sleep(0.5)
                self.assert_alive(gateway)
                self.assertEqual(self.descriptors(gateway), DESCRIPTORS)
                self.assertLess(self.processor_seconds(gateway) - begin[0], (time.monotonic() - begin[1]) / 2)
            # As soon as they are gone there is room.
            def is_let_in():
                try:
                    with initiator.Session(gateway, initiator="iqn.2026-01.example:next", seconds=2) as following:
                        following.ready()
                    return True
                except (OSError, TimeoutError, initiator.Closed, initiator.LoginRefused):
                    return False
            process.wait_until(is_let_in, 20, "another initiator is let in", step=0.1)

    def test_commands(self):
        """More commands than the window has room for are none of the target's: those within it are all answered"""
        gateway = self.start("slow:16M:100", settings="[limits]\nqueue-depth = 8\n")
        session = self.keep(initiator.Session(gateway, seconds=10))
        session.ready()
        tags = [session.begin(0, scsi.read16(8 * i, 8), read=4096) for i in range(24)]
        answered = []
        for tag in tags:
            with contextlib.suppress(TimeoutError):
                session.finish(tag, read=4096, seconds=1.5).good()
                answered.append(tag)
            if tag not in answered:
                break
        self.assertGreaterEqual(len(answered), 8)
        with initiator.Session(gateway, initiator="iqn.2026-01.example:next") as following:
            following.ready()
            following.read(0, 0, 8).good()

    def test_address_space(self):
        """Where the system gives too little memory the gateway ends with a line that says so, or serves what it can"""
        if process.SANITIZER:
            self.skipTest("a sanitizer takes address space of its own")
        for mebibytes in (256, 512, 1024, 2048):
            with self.subTest(mebibytes):
                self.start_with(mebibytes)

    def start_with(self, mebibytes):
        gateway = self.start("memory:16M", start=False)
        gateway.spawn(["prlimit", f"--as={mebibytes << 20}"])
        process.wait_until(
            lambda: gateway.process.poll() is not None or gateway.ask("status", check=False).returncode == 0, 10,
            "gatewayd answers or ends", step=0.1)
        if gateway.process.poll() is not None:
            self.assertEqual(gateway.process.returncode, 71, gateway.log)
            self.assertIn("address space", gateway.log)
            return
        sessions = []
        with contextlib.suppress(OSError, TimeoutError, initiator.Closed, initiator.LoginRefused):
            for number in range(200):
                name = f"iqn.2026-01.example:memory-{number}"
                sessions.append(self.keep(initiator.Session(gateway, initiator=name, seconds=5)))
        self.assertTrue(sessions)
        for session in sessions[:8]:
            session.ready()
            session.read(0, 0, 256).good()
        self.assert_alive(gateway)


class Buffers(GatewayCase):
    """16 MiB for the data of many sessions, on one thread."""

    SESSIONS, COMMANDS = 32, 12
    # As initiators differ in what they send without being asked: immediate data, Data-Out PDUs, neither.
    KINDS = ({"InitialR2T": "Yes"}, {"InitialR2T": "No", "ImmediateData": "No"}, {"ImmediateData": "No"})
    # Blocks of a write that needs no R2T, and of one that does after what it brings.
    SHORT, LONG = 128, 256

    def gateway(self, *disks, more=""):
        return self.start(*disks, arguments=["--threads", "1"],
                          settings=f"[limits]\nmemory = \"16M\"\nconnections-per-address = 200\n{more}")

    def open(self, gateway, lun):
        sessions = []
        for number in range(self.SESSIONS):
            session = self.keep(initiator.Session(gateway, initiator=f"iqn.2026-01.example:buffers-{number}",
                                                  keys=self.KINDS[number % len(self.KINDS)], seconds=30))
            session.ready(lun)
            sessions.append(session)
        return sessions

    def begin_write(self, session, lun, lba, data):
        """Sends a write with all that may go without being asked for. Its tag."""
        if session.keys.get("InitialR2T") != "No":
            return session.begin(lun, scsi.write16(lba, len(data) // BLOCK), write=data)
        command = session.command_pdu(lun, scsi.write16(lba, len(data) // BLOCK), len(data), True)
        command.header[1] &= ~initiator.FINAL
        session.send(command)
        for offset in range(0, session.first_burst, 8192):
            is_last = offset + 8192 == session.first_burst
            part = initiator.PDU(initiator.DATA_OUT, initiator.FINAL if is_last else 0, data[offset:offset + 8192])
            part.header[8:16] = command.header[8:16]
            part.tag, part.transfer_tag = command.tag, initiator.RESERVED
            session.connection.send(part.put(28, session.exp_stat_sn).put(36, offset // 8192).put(40, offset))
        return command.tag

    def content(self, lba, blocks):
        return b"".join(pattern(lba + number, 7) for number in range(blocks))

    def write_all(self, sessions, lun):
        """Many times what there is room for, at once: (session, first block, blocks, result) of each."""
        results = []

        def write(number):
            session, begun = sessions[number], {}
            for turn in range(self.COMMANDS):
                lba = (number * self.COMMANDS + turn) * self.LONG
                data = self.content(lba, self.LONG if turn % 3 == 2 else self.SHORT)
                begun[self.begin_write(session, lun, lba, data)] = (lba, data)
            # Whatever is asked for is sent at once, and what is answered is taken in the order of the answers.
            while begun:
                pdu = session.receive(30 * process.SLOWNESS)
                lba, data = begun[pdu.tag]
                session.pending.append(pdu)
                if pdu.opcode == initiator.R2T:
                    session._send_data(session.receive_for(pdu.tag), data)
                    continue
                del begun[pdu.tag]
                results.append((session, lba, len(data) // BLOCK, session.finish(pdu.tag, write=data)))

        Threads(write, range(len(sessions))).join(60 * process.SLOWNESS)
        self.assertEqual(len(results), len(sessions) * self.COMMANDS)
        return results

    def count(self, gateway, results):
        """How many there were of each status; those that are counted are the same."""
        counts = Counter(result.status for *_, result in results)
        for status, name in ((scsi.TASK_SET_FULL, "task_set_full"), (scsi.BUSY, "busy")):
            self.assertEqual(self.metric(gateway, "statuses_total", status=name), counts[status])
        return counts

    def assert_content(self, session, lun, results):
        """What was answered GOOD is there, and nothing of what was refused."""
        for at in range(0, len(results), 16):
            some = results[at:at + 16]
            tags = [session.begin(lun, scsi.read16(lba, blocks), read=blocks * BLOCK) for _, lba, blocks, _ in some]
            for tag, (_, lba, blocks, result) in zip(tags, some):
                wanted = self.content(lba, blocks) if result.status == scsi.GOOD else bytes(blocks * BLOCK)
                found = session.finish(tag, read=blocks * BLOCK).good().data
                self.assertTrue(found == wanted, f"{blocks} blocks at {lba}, status {result.status:#x}")

    def test_slow_disk(self):
        """Without memory for their data, writes wait or are told TASK SET FULL, and nothing of those is written"""
        gateway = self.gateway(f"slow:128M:{100 * process.SLOWNESS:.0f}", more="[timeouts]\nnop-interval = 0\n")
        before = self.holdings(gateway)
        sessions = self.open(gateway, 0)
        results = self.write_all(sessions, 0)
        counts = self.count(gateway, results)
        self.assertEqual(set(counts) - {scsi.GOOD, scsi.TASK_SET_FULL, scsi.BUSY}, set(), counts)
        self.assertGreater(min(counts[scsi.GOOD], counts[scsi.TASK_SET_FULL]), 20, counts)
        for outcome in ("waited", "refused"):
            self.assertGreater(self.metric(gateway, "buffer_shortages_total", outcome=outcome), 0, outcome)
        self.assert_content(sessions[0], 0, results)
        # Full service: who tries again succeeds.
        refused = {session: (lba, blocks) for session, lba, blocks, result in results if result.status != scsi.GOOD}
        for session, (lba, blocks) in refused.items():
            data = self.content(lba, blocks)
            session.finish(self.begin_write(session, 0, lba, data), write=data).good()
            self.assertTrue(session.read(0, lba, blocks).good().data == data)
        for session in sessions:
            session.logout()
        self.assert_given_back(gateway, before)
        print(f"exhaustion: {len(results)} writes, {counts[scsi.GOOD]} done, "
              f"{counts[scsi.TASK_SET_FULL]} TASK SET FULL, {counts[scsi.BUSY]} BUSY")

    def test_hung_disk(self):
        """A disk that keeps all it is given leaves others their memory; each of its commands gets an answer in time"""
        gateway = self.gateway("memory:64M", "faulty:64M:hang=0+131072", more="[timeouts]\nio-deadline = 2\n")
        sessions = self.open(gateway, 1)
        writer = self.keep(Writer(gateway))
        writer.start()
        begin = time.monotonic()
        results = self.write_all(sessions, 1)
        self.assertLess(time.monotonic() - begin, 12 * process.SLOWNESS)
        counts = self.count(gateway, results)
        self.assertEqual(set(counts) - {scsi.CHECK_CONDITION, scsi.TASK_SET_FULL, scsi.BUSY}, set(), counts)
        for *_, result in results:
            self.assertIn(result.sense_key, (None, scsi.HARDWARE_ERROR))
        self.assertGreater(min(counts[scsi.CHECK_CONDITION], counts[scsi.TASK_SET_FULL]), 20, counts)
        self.assertGreater(self.metric(gateway, "deadlines_missed_total", waited_for="disk"), 0)
        for session in sessions:
            session.ready(0)
            data = self.content(4096, self.LONG)
            session.finish(self.begin_write(session, 0, 4096, data), write=data).good()
            self.assertEqual(session.read(0, 4096, self.LONG).good().data, data)
        writer.finish()
        self.assertGreater(writer.count, 100)
        self.assertLess(writer.longest, process.SLOWNESS)
        print(f"exhaustion: {len(results)} writes, {counts[scsi.CHECK_CONDITION]} given up, "
              f"{counts[scsi.TASK_SET_FULL]} TASK SET FULL, {counts[scsi.BUSY]} BUSY")


if __name__ == "__main__":
    unittest.main()
