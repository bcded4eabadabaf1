#!/usr/bin/env python3
"""Writes the inputs that fuzzing begins with: corpus/TARGET/seed-*. Run it when a target reads another form."""

import re
import struct
import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent / "integration"))

from harness import initiator, scsi  # noqa: E402

OFFER = {
    "HeaderDigest": "CRC32C,None", "DataDigest": "None", "InitialR2T": "No", "ImmediateData": "Yes",
    "MaxRecvDataSegmentLength": "262144", "MaxBurstLength": "16776192", "FirstBurstLength": "262144",
    "MaxConnections": "1", "MaxOutstandingR2T": "1", "DefaultTime2Wait": "2", "DefaultTime2Retain": "0",
    "ErrorRecoveryLevel": "2", "DataPDUInOrder": "Yes", "DataSequenceInOrder": "Yes", "RDMAExtensions": "Yes",
    "X-com.example": "1", "InitiatorRecvDataSegmentLength": "0x10000", "TargetRecvDataSegmentLength": "8192",
}
NAMES = {"InitiatorName": "iqn.2026-01.example:fuzz", "TargetName": "iqn.2026-01.example:gateway",
         "SessionType": "Normal"}


def seed(target, name, data):
    directory = HERE / "corpus" / target
    directory.mkdir(parents=True, exist_ok=True)
    (directory / f"seed-{name}").write_bytes(data)


def login_pdu(flags, keys, raw=None):
    data = initiator.encode_keys(keys) if raw is None else raw
    pdu = initiator.PDU(initiator.LOGIN | initiator.IMMEDIATE, flags, data)
    pdu.header[8:14] = b"\x80\0\0\0\0\1"
    pdu.encode()
    return bytes(pdu.header) + struct.pack(">H", len(data) << 1 | 1) + data


def logins():
    for choice, name in ((0, "open"), (1, "chap"), (2, "mutual"), (0x80, "iser")):
        first = {**NAMES, "AuthMethod": "CHAP,None"}
        answer = {"CHAP_N": "user", "CHAP_R": "0x" + "5a" * 16, "CHAP_I": "7", "CHAP_C": "0x" + "a5" * 16}
        if choice & 3:
            pdus = [login_pdu(0x01, first), login_pdu(0x01, {"CHAP_A": "8,7,6,5"}), login_pdu(0x81, answer),
                    login_pdu(0x87, OFFER)]
        else:
            pdus = [login_pdu(0x81, first), login_pdu(0x87, OFFER)]
        seed("login", name, bytes([choice]) + b"".join(pdus))
    seed("login", "operational-only", b"\0" + login_pdu(0x87, {**NAMES, **OFFER}))
    seed("login", "discovery", b"\0" + login_pdu(0x87, {"InitiatorName": NAMES["InitiatorName"],
                                                        "SessionType": "Discovery"}))
    text = initiator.encode_keys({**NAMES, **OFFER})
    seed("login", "continued", b"\0" + login_pdu(0x44, None, text[:37]) + login_pdu(0x87, None, text[37:]))


def texts():
    seed("text", "names", initiator.encode_keys(NAMES))
    seed("text", "offer", initiator.encode_keys(OFFER))
    seed("text", "send-targets", b"SendTargets=All\0")
    seed("text", "binary", b"CHAP_C=0bAAECAwQFBgcICQ==\0CHAP_R=0x00112233445566778899aabbccddeeff\0")
    seed("text", "odd", b"Novalue\0=x\0A=\0\0\0B=1,2~3\0")


def command(cdb, parameters=b"", choice=0, lun=0):
    parameters += bytes(-len(parameters) % 4)
    return bytes([choice]) + struct.pack(">H", lun) + bytes(cdb).ljust(16, b"\0") + \
        bytes([len(parameters) // 4]) + parameters


def naa(number):
    """The designator of a unit of FuzzCommands.swift, as Designator.naa makes it."""
    mask = (1 << 64) - 1
    mixed = int.from_bytes(bytes(range(8)), "big")
    mixed = (mixed ^ mixed >> 30) * 0xBF58476D1CE4E5B9 & mask
    mixed = (mixed ^ mixed >> 27) * 0x94D049BB133111EB & mask
    mixed ^= mixed >> 31
    high = 0x6 << 60 | 0x024757 << 36 | mixed >> 28
    return (high.to_bytes(8, "big") + bytes(range(8, 15)) + bytes([number])).hex()


def commands():
    register = scsi.persistent_reserve_out(0), scsi.reserve_parameters(0, 0x1234, True)
    seed("commands", "reservations", command(*register) + command(*register, choice=1)
         + command(scsi.persistent_reserve_out(1, 5), scsi.reserve_parameters(0x1234))
         + command(scsi.persistent_reserve_in(0)) + command(scsi.persistent_reserve_in(3))
         + command(scsi.persistent_reserve_out(5, 5), scsi.reserve_parameters(0x1234, 0x1234), choice=1)
         + command(scsi.persistent_reserve_out(3), scsi.reserve_parameters(0x1234)))
    seed("commands", "inquiry", b"".join(command(scsi.inquiry(page)) for page in
                                         (None, 0, 0x80, 0x83, 0x86, 0x8F, 0xB0, 0xB1, 0xB2)))
    seed("commands", "capacity", command(scsi.read_capacity16()) + command(b"\x25") + command(scsi.report_luns())
         + command(struct.pack(">BBQIBB", 0x9E, 0x12, 8, 64, 0, 0), lun=1))
    seed("commands", "blocks", b"".join(command(struct.pack(">BBQIBB", code, 0, 100, 8, 0, 0), lun=lun)
                                        for code in (0x88, 0x8A, 0x8E, 0x8F, 0x89, 0x8B, 0x90, 0x91, 0x93, 0x9C)
                                        for lun in (0, 1, 2)))
    seed("commands", "blocks10", b"".join(command(struct.pack(">BBIBHB", code, 0, 100, 0, 8, 0), lun=1)
                                          for code in (0x28, 0x2A, 0x2E, 0x2F, 0x34, 0x35, 0x41)))
    unmap = struct.pack(">HHI", 22, 16, 0) + struct.pack(">QII", 64, 8, 0)
    seed("commands", "unmap", command(struct.pack(">BBIBHB", 0x42, 0, 0, 0, 24, 0), unmap, lun=1))
    control = bytes([0, 0, 0, 0, 0x0A, 0x0A, 4, 0, 0, 0, 0, 0, 0, 0, 0, 0])
    seed("commands", "mode", command([0x15, 0x10, 0, 0, 16]) + command([0x15, 0x10, 0, 0, 16], control)
         + command([0x1A, 0, 0x3F, 0, 255]) + command([0x5A, 0, 0x3F, 0, 0, 0, 0, 1, 0]))
    targets = [(naa(0), 512), (naa(1), 4096), (naa(2), 512)]
    copies = [scsi.copy_parameters(targets[:count], segments, number)
              for number, (count, segments) in enumerate([
                  (1, [(0, 0, 8, 0, 64)]), (2, [(0, 1, 64, 0, 8), (1, 0, 2, 0, 0)]), (3, [(0, 2, 8, 0, 0)]),
                  (1, [(0, 0, 8, 1 << 16, 0)])])]
    seed("commands", "copies", b"".join(command(scsi.extended_copy(len(copy)), copy) for copy in copies)
         + b"".join(command(scsi.receive_copy_results(action, 1)) for action in (0, 1, 3, 4)))
    overwrite = scsi.overwrite_parameters(b"\xA5\x5A", 3, True)
    seed("commands", "sanitize", command(scsi.sanitize(1, len(overwrite), True, True), overwrite)
         + command(scsi.sanitize(2), lun=1) + command(scsi.sanitize(0x1F)) + command(scsi.test_unit_ready()))
    seed("commands", "buffers", command([0x3B, 0x0A, 0, 0, 0, 0, 0, 0, 8], bytes(range(8)))
         + command([0x3C, 0x0A, 0, 0, 0, 0, 0, 0, 64]) + command([0x3C, 0x0B, 0, 0, 0, 0, 0, 0, 4])
         + command([0x3B, 0x02, 0, 0, 0, 8, 0, 0, 8], bytes(8)) + command([0x3C, 0x02, 0, 0, 0, 4, 0, 0, 64])
         + command(struct.pack(">BBQHHBB", 0x9C, 8, 8, 0, 8, 0, 0), lun=1)
         + b"".join(command(scsi.log_sense(page), lun=1) for page in (0, 0x0C, 0x19, 0x2F)))
    reports = ([0xA3, 0x0A, 0, 0, 0, 0, 0, 0, 1, 0], [0xA3, 0x0C, 0x80, 0, 0, 0, 0, 0, 64],
               [0xA3, 0x0D, 0, 0, 0, 0, 0, 0, 0, 64], [0x03, 0, 0, 0, 252], [0x4D, 0, 0, 0, 0, 0, 0, 1])
    seed("commands", "reports", b"".join(command(cdb) for cdb in reports))


def records():
    def record(kind, holder, *registrants):
        head = struct.pack(">BBBBHHII", 1, 1, kind, 0, holder, len(registrants), 7, 0)
        return head + b"".join(struct.pack(">QHIHB", key, 0x8000, number, 1, len(name)) + name
                               for number, (key, name) in enumerate(registrants))
    names = (0x1234, b"iqn.2026-01.example:a"), (0x5678, b"iqn.2026-01.example:b")
    seed("record", "empty", record(0, 0xFFFF))
    seed("record", "held", record(1, 1, *names))
    seed("record", "all-registrants", record(7, 0xFFFF, *names))


def labels():
    def label(*nodes):
        head = bytes(range(32)) + struct.pack(">HHQI", 3, 4, 64 << 20, 512) + bytes(32) + struct.pack(">H", len(nodes))
        return head + b"".join(bytes(range(16)) + struct.pack(">H", len(name)) + name.ljust(64, b"\0")
                               for name in nodes)
    seed("label", "one-node", label(b"first"))
    seed("label", "two-nodes", label(b"first", b"second"))
    seed("label", "record", struct.pack(">QHHIQ", 0x4741544557415944, 1, 1, 100, 9) + bytes(124))


def heartbeats():
    def beat(name, *disks):
        return struct.pack(">IBBBBIHH", 0x67774842, 1, 5, 2, len(name), 7, len(disks), 0) + bytes(range(72)) + name + \
            b"".join(disks)
    seed("heartbeat", "plain", beat(b"node"))
    seed("heartbeat", "disks", beat(b"node", bytes(16), bytes(range(16))))
    seed("heartbeat", "owner", struct.pack(">II", 3, 1) + bytes(40))
    seed("heartbeat", "disk-beat", struct.pack(">II", 3, 1) + bytes(32))


def streams():
    def pdu(opcode, data=b"", additional=b""):
        head = bytes([opcode, 0x80, 0, 0, len(additional) // 4]) + len(data).to_bytes(3, "big") + bytes(40)
        return head + additional, data + bytes(-len(data) % 4)
    pdus = pdu(0x40), pdu(0x01, b"x" * 7), pdu(0x05, b"y" * 512), pdu(0x01, b"z" * 30, b"12345678"), pdu(0x06)
    for choice in range(16):
        # The digests are left for the target to put in, where the choice says so.
        parts = [head + bytes(4 * (choice & 1)) + (data + bytes(2 * (choice & 2)) if data else b"")
                 for head, data in pdus]
        seed("stream", f"choice-{choice}", bytes([choice, 0, 47, 3, 51, 100, 255, 7, 12]) + b"".join(parts))


def iser(opcode, flags, expected=0, data=b"", kind=0x10, read=None, write=None):
    """A control-type message: iSER header, basic header segment, data"""
    head = struct.pack(">BxxxIQIQ", kind | (8 if write else 0) | (4 if read else 0), *(write or (0, 0)),
                       *(read or (0, 0)))
    return head + struct.pack(">BBHII8sII", opcode, flags, 0, len(data), 0, b"", 7, expected) + bytes(20) + data


def messages():
    hello = bytes([0x20, 0x11, 0, 4]).ljust(28, b"\0")
    found = {
        "read": iser(0x01, 0xC0, 4096, read=(5, 0x1000)),
        "write": iser(0x01, 0xA0, 4096, b"x" * 512, write=(6, 0x2000)),
        "both": iser(0x01, 0xE0, 512, read=(5, 0x1000), write=(6, 0x2000)), "no-buffer": iser(0x01, 0xC0, 512),
        "wraps": iser(0x01, 0xC0, 4096, read=(5, 2 ** 64 - 1)), "data-out": iser(0x05, 0x80, data=b"y" * 64),
        "ping": iser(0x00, 0x80, data=b"z" * 128), "hello": hello, "hello-reply": b"\x30" + hello[1:],
    }
    for name, message in found.items():
        seed("iser", name, bytes([0]) + struct.pack(">H", len(message)) + message)
        if len(message) > 255:
            continue
        seed("mover", name, bytes([7, 3, len(message)]) + message + bytes([3, 0, 1, 4, 5, 6, 6, 4, 2, 1, 5, 6, 6]))
    # Window and queues, then steps: what is sent, fetched, completed.
    seed("mover", "sends", bytes([0x15] + [0, 3, 1, 50, 2, 9, 5, 6, 6, 6, 5, 6] * 6))
    seed("mover", "fails", bytes([0x2A] + [0, 3, 2, 1, 2, 2, 5, 6, 7]))
    seed("mover", "refused", bytes([0x3F] + [0, 1, 2, 1, 5, 0, 1, 8, 12, 5]))


def http():
    scrape = b"GET /metrics?a=b HTTP/1.1\r\nHost: gateway:9862\r\nAccept: text/plain\r\nConnection: keep-alive\r\n\r\n"
    found = {
        "scrape": scrape, "pipelined": scrape * 2 + b"HEAD http://h/ HTTP/1.0\n\n", "close": b"\r\nGET / HTTP/1.1\n"
        b"Host: h\nConnection: x, close\n\n", "body": b"POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 3\r\n\r\nabc",
        "chunked": b"GET / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        "many": b"GET / HTTP/1.1\r\nHost: h\r\n" + b"A: b\r\n" * 63 + b"\r\n", "tls": b"\x16\x03\x01\x02\0\x01",
        "long": b"GET /" + b"a" * 8187, "folded": b"GET / HTTP/1.1\r\nHost: h\r\n b\r\n\r\n",
    }
    for name, data in found.items():
        seed("http", name, bytes([len(name)]) + data)


def tomls():
    settings = (HERE.parents[1] / "docs" / "gatewayd.toml").read_text()
    seed("toml", "commented", settings.encode())
    # The same with every key set.
    seed("toml", "set", re.sub(r"^# ?(?=[\[a-z])", "", settings, flags=re.M).encode())
    seed("toml", "forms", b"""a = [1, 0x7f, 0o7, 0b1, 1_000, +1.5e3, nan, -inf, true,
 1979-05-27T07:32:00.5-07:00, 07:32:00]
b = {c = 'd', "e f" = \"\"\"g\\u00e9\\
 h\"\"\"}
[access.chap]
user = "\\U0001F600"
[[access.initiator]]
name = '\''i'\''
luns = [0, 16383, 16384, -1]
""")
    seed("toml", "deep", b"a = " + b"[" * 300 + b"]" * 300)
    seed("toml", "dotted", b"a" + b".b" * 300 + b" = 1\n")


def controls():
    for name, line in (
            ("status", '{"version":1,"command":"status"}'), ("end", '{"version":1,"command":"end","session":65535}'),
            ("adopt", '{"version":1,"command":"adopt","path":"/dev/sd\\u0062","mode":"wipe"}'),
            ("operate", '{"version":1,"command":"operate","operation":"forget 00-11"}'),
            ("version", '{"version":2,"command":"x"}'),
            ("deep", '{"version":1,"command":' + "[" * 600 + "]" * 600 + "}"),
            ("number", '{"version":1e0,"command":"trace","session":-1}')):
        seed("control", name, line.encode())


def parts():
    def attribute(kind, value):
        return struct.pack("<HH", 4 + len(value), kind) + value + bytes(-len(value) % 4)
    address = bytes([10, 0, 0, 1])
    seed("messages", "add", bytes([0, 1, 4, 24, 0, 0, 0, 0, 2]) + address + bytes(12))
    seed("messages", "announce", bytes([0, 3, 16, 0, 0, 0, 0, 0, 2, 0xFD]) + bytes(14) + b"\1")
    seed("messages", "result", bytes([0, 0, 0, 0, 17]))
    body = bytes([2, 24, 0, 0]) + struct.pack("<I", 2) + attribute(2, address) + attribute(11, b"\x67")
    for name, kind, data in (("address", 20, body), ("error", 2, struct.pack("<i", -17) + bytes(16)), ("done", 3, b"")):
        seed("messages", f"netlink-{name}",
             b"\1" + struct.pack("<IHHII", 16 + len(data), kind, 2, 0x01010101, 0) + data)
    nexus = struct.pack(">QHB", 0x800000000001, 1, 8) + b"iqn.a:bc"
    cdb = bytes(scsi.persistent_reserve_out(0)).ljust(16, b"\0")
    seed("messages", "command", b"\2\1" + bytes(16) + cdb + nexus + bytes(24))
    seed("messages", "attentions", b"\2\2" + bytes(16) + struct.pack(">H", 2) + (nexus + b"\1") * 2)
    seed("messages", "good", b"\3\0\0\0\0\0\0\0\xff" + bytes(8))
    seed("messages", "sense", b"\3\2\5\x24\0\1\0\2\7")
    for operation in range(1, 12):
        seed("messages", f"fence-{operation}", b"\4" + bytes([operation, 0, 0, 0]) + struct.pack(">IQQ", 5000, 0, 0))
    seed("messages", "fence-state", b"\5\0\1" + bytes(6) + struct.pack(">IBBHQQQ", 7, 1, 5, 0, 9, 9, 8))
    seed("messages", "fence-can", b"\5\0\2" + bytes(6) + bytes([1, 1, 1, 0, 0x20, 0]))
    seed("messages", "fence-flag", b"\5\0\3" + bytes(6) + b"\1")


def reservations():
    keys = struct.pack(">QQ", 0x6711000000000001, 0x6791000000000002)
    seed("reservations", "keys", struct.pack(">II", 7, len(keys)) + keys)
    seed("reservations", "holder", struct.pack(">IIQIBBH", 7, 16, 0x6711000000000001, 0, 0, 5, 0))
    seed("reservations", "capabilities", bytes([0, 8, 0x15, 0x81, 0xEA, 1, 0, 0]))
    for name, header, entry in (("nvme", 24, "<HB5xQQ"), ("nvme-extended", 64, "<HB5xQQ40x")):
        entries = b"".join(struct.pack(entry, number, number, 0x67, 0x67) for number in (0, 1))
        seed("reservations", name, struct.pack("<IBHBBB", 7, 3, 2, 0, 0, 1).ljust(header, b"\0") + entries)
    seed("reservations", "sense-fixed", bytes([0x70, 0, 6, 0, 0, 0, 0, 10, 0, 0, 0, 0, 0x2A, 5, 0, 0, 0, 0]))
    seed("reservations", "sense-descriptor", bytes([0x72, 6, 0x29, 0, 0, 0, 0, 0]))


if __name__ == "__main__":
    messages()
    streams()
    labels()
    heartbeats()
    reservations()
    tomls()
    controls()
    parts()
    http()
    records()
    logins()
    texts()
    commands()
