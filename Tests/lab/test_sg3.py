"""sg3-utils against a unit that a kernel has attached: what each tool asks is answered, and means what it says."""

import re

from machines.scene import SceneCase

# Tool and arguments (before the device), and what its answer has in it.
QUESTIONS = (
    ("sg_turs", ""),
    ("sg_inq", "Vendor identification: GATEWAYD"),
    ("sg_inq --export", "SCSI_VENDOR=GATEWAYD"),
    ("sg_luns", "report luns"),
    ("sg_readcap", "Logical block length=512 bytes"),
    ("sg_readcap --long", "lbpme=[01], lbprz="),
    ("sg_vpd", "Supported VPD pages"),
    *((f"sg_vpd --page={page}", text) for page, text in (
        ("sn", "Unit serial number"), ("di", "0x6[0-9a-f]{31}"), ("bl", "Maximum compare and write length: [1-9]"),
        ("bdc", "Block device characteristics"), ("lbpv", "Logical block provisioning"), ("ei", "Extended INQUIRY"),
        ("tpc", "Third Party Copy"))),
    ("sg_modes --all", "Caching"),
    ("sg_modes --page=0xa", "Control"),
    ("sg_logs --list", "Supported log pages"),
    ("sg_logs --all", "Supported log pages"),
    ("sg_opcodes", "Compare and write"),
    ("sg_opcodes --opcode=0x8a --rctd", "Command is supported"),
    ("sg_rtpg --decode", "target port group asymmetric access state"),
    ("sg_requests", ""),
    ("sg_timestamp", r"^\d{12,}$"),
    ("sg_get_lba_status --lba=0", "blocks:"),
    ("sg_read_buffer --mode=desc", ""),
    ("sg_persist --in --report-capabilities", "Persist Through Power Loss"),
    ("sg_persist --in --read-keys", "PR generation="),
    ("sg_sync", ""),
    ("sg_start --start", ""),
    ("sg_verify --lba=0 --count=64", ""),
    ("sg_copy_results --params", "Maximum"),
)


class Tools(SceneCase):
    def setUp(self):
        super().setUp()
        self.target.start()
        (lun,) = self.export("disk")
        self.connect()
        self.device, self.machine = self.initiator.disk(lun), self.initiator.machine
        self.machine.run(f"sg_turs --num=4 {self.device}; dd if=/dev/zero of=/tmp/zero bs=512 count=1; "
                         "dd if=/dev/urandom of=/tmp/new bs=512 count=1; cat /tmp/zero /tmp/new >/tmp/pair")

    def same(self, lba, count, file):
        self.machine.run(f"dd if={self.device} bs=512 skip={lba} count={count} iflag=direct | cmp - {file}")

    def test_questions(self):
        """Every question has an answer that the tool understands"""
        for command, text in QUESTIONS:
            with self.subTest(command):
                output = self.machine.run(f"{command} {self.device}")
                self.assertTrue(re.search(text, output, re.IGNORECASE), output)

    def test_atomic(self):
        """COMPARE AND WRITE swaps once, and tells a miscompare; WRITE ATOMIC writes"""
        self.machine.run(f"sg_write_same --lba=0 --num=8 --in=/tmp/zero {self.device}")
        self.machine.run(f"sg_compare_and_write --lba=0 --in=/tmp/pair {self.device}")
        self.same(0, 1, "/tmp/new")
        # The block is no longer what the first comparison found: MISCOMPARE (SBC-4 §5.3).
        status, output = self.machine.attempt(f"sg_compare_and_write --lba=0 --in=/tmp/pair {self.device}")
        self.assertEqual(status, 14, output)
        self.machine.run(f"sg_write_x --atomic=0 --lba=16 --num=1 --in=/tmp/new {self.device}")
        self.same(16, 1, "/tmp/new")

    def test_writes(self):
        """WRITE SAME, WRITE AND VERIFY, VERIFY with data, UNMAP do what they say"""
        self.machine.run(f"sg_write_same --lba=32 --num=4 --in=/tmp/new {self.device}")
        self.machine.run("cat /tmp/new /tmp/new /tmp/new /tmp/new >/tmp/four")
        self.same(32, 4, "/tmp/four")
        self.machine.run(f"sg_write_verify --lba=40 --num=1 --ilen=512 --in=/tmp/new {self.device}")
        self.same(40, 1, "/tmp/new")
        verify = f"sg_verify --lba=40 --count=1 --ndo=512 --in=/tmp/%s {self.device}"
        self.machine.run(verify % "new")
        self.assertEqual(self.machine.attempt(verify % "zero")[0], 14)
        self.machine.run(f"sg_unmap --lba=32 --num=8 {self.device}; dd if=/dev/zero of=/tmp/none bs=512 count=8")
        self.same(32, 8, "/tmp/none")

    def test_copy(self):
        """EXTENDED COPY copies within the unit, by the target"""
        self.machine.run("dd if=/dev/urandom of=/tmp/source bs=512 count=128")
        self.machine.run(f"dd if=/tmp/source of={self.device} bs=512 seek=256 oflag=direct")
        # It asks by the generic device.
        self.machine.run("modprobe sg && udevadm settle")
        self.machine.run(f"sg_xcopy if={self.device} skip=256 of={self.device} seek=1024 count=128 bs=512", 60)
        self.same(1024, 128, "/tmp/source")

    def test_reservation(self):
        """A registration and a reservation are made, told, and given back"""
        out = f"sg_persist --out %s {self.device}"
        self.machine.run(out % "--register --param-sark=0xa")
        self.machine.run(out % "--reserve --param-rk=0xa --prout-type=5")
        self.assertIn("Write Exclusive, registrants only", self.machine.run(f"sg_persist -r {self.device}"))
        self.assertIn("Key=0xa", self.machine.run(f"sg_persist -s {self.device}"))
        self.machine.run(out % "--release --param-rk=0xa --prout-type=5")
        self.machine.run(out % "--clear --param-rk=0xa")
        self.assertIn("there are NO registered", self.machine.run(f"sg_persist -k {self.device}"))

    def test_sanitize(self):
        """SANITIZE by overwrite and by block erase leaves nothing; the unit serves afterwards"""
        self.machine.run("dd if=/dev/zero of=/tmp/none bs=512 count=128")
        for how in ("--block", "--overwrite --zero"):
            with self.subTest(how):
                self.machine.run(f"sg_write_same --lba=0 --num=128 --in=/tmp/new {self.device}")
                self.machine.run(f"sg_sanitize {how} --quick --wait {self.device}", 120)
                self.machine.run(f"sg_turs --num=2 {self.device}; sg_turs {self.device}")
                self.same(0, 128, "/tmp/none")
