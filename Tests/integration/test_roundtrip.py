"""What goes in comes out, with other people's initiators."""

import os
import unittest
from pathlib import Path

from harness import initiator, process, scsi
from harness.case import GatewayCase


class RoundTrip(GatewayCase):
    def test_image(self):
        """An image that qemu-img wrote compares equal, also with a 4 KiB boundary crossed"""
        gateway = self.start("memory:64M")
        image = gateway.directory / "image"
        image.write_bytes(os.urandom(1 << 20) + bytes(30 << 20) + os.urandom((33 << 20)))
        process.run(["qemu-img", "convert", "-n", "-f", "raw", "-O", "raw", image, gateway.url()], seconds=60)
        process.run(["qemu-img", "compare", "-f", "raw", "-F", "raw", image, gateway.url()], seconds=60)

    def test_qemu_io(self):
        """qemu-io writes, flushes, discards and reads back with a pattern"""
        gateway = self.start("memory:64M")
        script = ["write -P 0xa5 1M 3M", "flush", "read -P 0xa5 1M 3M", "write -z 2M 64k", "read -P 0 2M 64k",
                  "discard 8M 1M", "aio_write -P 7 16M 2M", "aio_flush", "read -P 7 16M 2M"]
        output = process.run(["qemu-io", "-f", "raw", gateway.url(), *[w for c in script for w in ("-c", c)]]).stdout
        self.assertNotIn("failed", output)

    def test_lists(self):
        """iscsi-ls finds the target and its LUNs through SendTargets"""
        gateway = self.start("memory:64M", "memory:32M")
        output = process.run(["iscsi-ls", "--show-luns", f"iscsi://127.0.0.1:{gateway.port}"]).stdout
        self.assertIn(gateway.name, output)
        self.assertRegex(output, r"Lun:0 .*6[34]M")  # it rounds its own way
        self.assertRegex(output, r"Lun:1 .*3[12]M")

    def test_file(self):
        """A file as a disk keeps its data over a restart, and the LUN its identity"""
        path = self.enterContext(_File(64 << 20))
        gateway = self.start(path)
        data = os.urandom(256 << 10)
        with initiator.Session(gateway) as session:
            session.ready()
            session.write(0, 8, data).good()
            before = session.command(0, scsi.inquiry(0x83), read=255).good().data
        self.assertEqual(gateway.terminate(), 0)
        gateway.start()
        with initiator.Session(gateway) as session:
            session.ready()
            self.assertEqual(session.read(0, 8, 512).good().data, data)
            self.assertEqual(session.command(0, scsi.inquiry(0x83), read=255).good().data, before)

    def test_sizes(self):
        """Reads and writes of every size from a block to a megabyte, by immediate data and by R2T"""
        gateway = self.start("memory:64M")
        for keys in ({}, {"ImmediateData": "No"}, {"MaxBurstLength": "8192", "FirstBurstLength": "4096"}):
            with self.subTest(keys=keys), initiator.Session(gateway, keys=keys) as session:
                session.ready()
                for blocks in (1, 7, 8, 9, 16, 17, 127, 128, 512, 2048):
                    data = os.urandom(blocks * 512)
                    session.write(0, blocks, data).good()
                    self.assertEqual(session.read(0, blocks, blocks).good().data, data)

    def test_ipv6(self):
        """The gateway serves IPv6"""
        gateway = self.start("memory:64M", address="::1")
        with initiator.Session(gateway) as session:
            session.ready()
            self.assertEqual(session.capacity()[0], (64 << 20) // 512)


class _File:
    """A sparse file in the temporary directory."""

    def __init__(self, size):
        self.size = size

    def __enter__(self):
        import tempfile
        descriptor, name = tempfile.mkstemp(prefix="gatewayd-file-")
        os.ftruncate(descriptor, self.size)
        os.close(descriptor)
        self.path = Path(name)
        return self.path

    def __exit__(self, *_):
        self.path.unlink(missing_ok=True)


if __name__ == "__main__":
    unittest.main()
