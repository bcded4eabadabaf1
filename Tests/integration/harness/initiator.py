"""A small iSCSI initiator (RFC 7143) that can also say what it must not: for protocol tests, not for speed."""

import base64
import collections
import hashlib
import os
import select
import socket
import struct
import time

from . import scsi
from .crc32c import digest

RESERVED = 0xFFFFFFFF
IMMEDIATE = 0x40
FINAL = 0x80

NOP_OUT, COMMAND, TASK_MANAGEMENT, LOGIN, TEXT, DATA_OUT, LOGOUT, SNACK = 0, 1, 2, 3, 4, 5, 6, 0x10
NOP_IN, RESPONSE, TASK_RESPONSE, LOGIN_RESPONSE, TEXT_RESPONSE = 0x20, 0x21, 0x22, 0x23, 0x24
DATA_IN, LOGOUT_RESPONSE, R2T, ASYNC, REJECT = 0x25, 0x26, 0x31, 0x32, 0x3F

# Task management functions (§11.5.1).
ABORT_TASK, ABORT_TASK_SET, CLEAR_ACA, CLEAR_TASK_SET, LUN_RESET, WARM_RESET, COLD_RESET = range(1, 8)


class Closed(Exception):
    """The target closed the connection."""


class LoginRefused(Exception):
    """A Login Response with a status other than 0; `status` is class and detail, as 0x0201."""

    def __init__(self, status):
        super().__init__(f"login refused with status {status:04x}")
        self.status = status


class PDU:
    """48 header bytes and a data segment."""

    def __init__(self, opcode=0, flags=0, data=b"", header=None):
        self.header = bytearray(header if header is not None else 48)
        if header is None:
            self.header[0], self.header[1] = opcode, flags
        self.data = data

    opcode = property(lambda self: self.header[0] & 0x3F)
    flags = property(lambda self: self.header[1])
    status = property(lambda self: self.header[3])
    response = property(lambda self: self.header[2])

    def word(self, offset):
        return struct.unpack_from(">I", self.header, offset)[0]

    def put(self, offset, value):
        struct.pack_into(">I", self.header, offset, value & 0xFFFFFFFF)
        return self

    tag = property(lambda self: self.word(16), lambda self, v: self.put(16, v))
    transfer_tag = property(lambda self: self.word(20), lambda self, v: self.put(20, v))
    stat_sn = property(lambda self: self.word(24))
    exp_cmd_sn = property(lambda self: self.word(28))
    max_cmd_sn = property(lambda self: self.word(32))

    # Of an Async Message (§11.9).
    event = property(lambda self: self.header[36])
    parameters = property(lambda self: struct.unpack_from(">HHH", self.header, 38))

    def set_lun(self, lun):
        struct.pack_into(">Q", self.header, 8, lun << 48)
        return self

    def encode(self, header_digest=False, data_digest=False):
        """The bytes on the wire; DataSegmentLength is filled in here."""
        self.header[5:8] = len(self.data).to_bytes(3, "big")
        head, body = bytes(self.header), self.data + b"\0" * (-len(self.data) % 4)
        return (head + (digest(head) if header_digest else b"")
                + body + (digest(body) if data_digest and body else b""))


class Connection:
    """A TCP connection that carries PDUs. Every receive has a bound. Digests are checked where they were agreed."""

    header_digest = data_digest = False

    def __init__(self, address, port, seconds=5, source=None):
        self.socket = socket.create_connection((address, port), timeout=seconds, source_address=source and (source, 0))
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.seconds = seconds
        self._in = bytearray()

    def send(self, pdu):
        self.send_bytes(pdu.encode(self.header_digest, self.data_digest))

    def send_bytes(self, data):
        self.socket.sendall(data)

    def _fill(self, count, deadline):
        """Waits until so many bytes are there. They stay: a PDU whose rest is late is not lost."""
        while len(self._in) < count:
            left = deadline - time.monotonic()
            if left <= 0 or not select.select([self.socket], [], [], left)[0]:
                raise TimeoutError("no PDU in time")
            try:
                part = self.socket.recv(1 << 18)
            except ConnectionError:
                raise Closed() from None
            if not part:
                raise Closed()
            self._in += part

    def receive(self, seconds=None):
        """The next PDU; Closed at the end of the stream, TimeoutError after `seconds`."""
        deadline = time.monotonic() + (self.seconds if seconds is None else seconds)
        self._fill(48, deadline)
        length = int.from_bytes(self._in[5:8], "big")
        head = 48 + self._in[4] * 4
        begin = head + (4 if self.header_digest else 0)
        end = begin + length + -length % 4
        total = end + (4 if self.data_digest and length else 0)
        self._fill(total, deadline)
        if self.header_digest and self._in[head:begin] != digest(self._in[:head]):
            raise AssertionError("a header digest of the target is wrong")
        if total > end and self._in[end:total] != digest(self._in[begin:end]):
            raise AssertionError("a data digest of the target is wrong")
        pdu = PDU(header=self._in[:48], data=bytes(self._in[begin:begin + length]))
        del self._in[:total]
        return pdu

    def is_closed_within(self, seconds):
        """Whether the target ends the connection in that time, whatever it sends before."""
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            try:
                self.receive(deadline - time.monotonic())
            except Closed:
                return True
            except TimeoutError:
                return False
        return False

    def close(self):
        self.socket.close()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()


def encode_keys(keys):
    return b"".join(f"{key}={value}".encode() + b"\0" for key, value in keys.items())


def decode_keys(data):
    return dict(part.decode(errors="replace").partition("=")[::2] for part in data.split(b"\0") if part)


def _decode_binary(text):
    if text[:2].lower() == "0x":
        return bytes.fromhex(text[2:].rjust(len(text[2:]) + len(text[2:]) % 2, "0"))
    if text[:2].lower() == "0b":
        return base64.b64decode(text[2:])
    raise ValueError(f"not a binary value: {text}")


class Session:
    """A session of one connection. `secret` and `user` answer CHAP; `mutual` is the secret the target must know."""

    def __init__(self, target, initiator="iqn.2026-01.example:test", user=None, secret=None, mutual_user=None,
                 mutual=None, discovery=False, keys=None, login=True, isid=None, seconds=5, algorithms="5", into=0,
                 source=None):
        self.target, self.initiator, self.discovery = target, initiator, discovery
        self.user, self.secret, self.mutual_user, self.mutual = user, secret, mutual_user, mutual
        # The TSIH of a session that this is to be a connection of; 0: a new one.
        self.algorithms, self.into = algorithms, into
        self.offered = keys or {}
        self.connection = Connection(target.address, target.port, seconds, source)
        self.isid = isid or b"\x80" + os.urandom(5)
        self.cmd_sn, self.exp_stat_sn, self._next_tag = 1, 0, 1
        self.keys = {}
        self.greeted = set()  # LUNs that have said so
        self.pending = collections.deque()  # PDUs that arrived while waiting for another
        if login:
            try:
                self.login()
            except BaseException:
                self.connection.close()
                raise

    # Login.

    def login_pdu(self, current, following, data, transit=True):
        pdu = PDU(LOGIN | IMMEDIATE, (0x80 if transit else 0) | current << 2 | following, data)
        pdu.header[8:14], pdu.header[14:16] = self.isid, self.into.to_bytes(2, "big")
        pdu.put(16, 0).put(24, self.cmd_sn).put(28, self.exp_stat_sn)
        return pdu

    def _exchange(self, current, following, keys, transit=True):
        self.connection.send(self.login_pdu(current, following, encode_keys(keys), transit))
        answer = self.connection.receive()
        if answer.opcode != LOGIN_RESPONSE:
            raise AssertionError(f"not a Login Response: opcode {answer.opcode:#x}")
        status = answer.header[36] << 8 | answer.header[37]
        if status != 0:
            raise LoginRefused(status)
        self.exp_stat_sn = answer.stat_sn + 1
        self.keys.update(decode_keys(answer.data))
        self.tsih = int.from_bytes(answer.header[14:16], "big")
        return answer

    def login(self):
        names = {"InitiatorName": self.initiator, "SessionType": "Discovery" if self.discovery else "Normal"}
        if not self.discovery:
            names["TargetName"] = self.target.name
        if self.user is None:
            self._exchange(0, 1, {**names, "AuthMethod": "None"})
        else:
            self._authenticate(names)
        operational = {
            "HeaderDigest": "None", "DataDigest": "None", "InitialR2T": "Yes", "ImmediateData": "Yes",
            "MaxRecvDataSegmentLength": "262144", "MaxBurstLength": "262144", "FirstBurstLength": "65536",
            "MaxConnections": "1", "MaxOutstandingR2T": "1", "DefaultTime2Wait": "2", "DefaultTime2Retain": "0",
            "ErrorRecoveryLevel": "0", "DataPDUInOrder": "Yes", "DataSequenceInOrder": "Yes", **self.offered}
        if self.discovery or self.into:
            # The others are the leading connection's.
            operational = {k: v for k, v in operational.items() if k in ("HeaderDigest", "DataDigest",
                           "MaxRecvDataSegmentLength", "ErrorRecoveryLevel")[:3 if self.into else 4]}
        answer = self._exchange(1, 3, operational)
        while answer.flags & 0x83 != 0x83:
            answer = self._exchange(1, 3, {})
        self.target_segment = int(self.keys.get("MaxRecvDataSegmentLength", 8192))
        # Ours was the offer; what comes back is the outcome, except for the declared segment length.
        self.first_burst = int(self.keys.get("FirstBurstLength", 65536))
        self.has_immediate = self.keys.get("ImmediateData", "Yes") == "Yes"
        self.connection.header_digest = self.keys.get("HeaderDigest") == "CRC32C"
        self.connection.data_digest = self.keys.get("DataDigest") == "CRC32C"

    def _authenticate(self, names):
        self._exchange(0, 1, {**names, "AuthMethod": "CHAP"}, transit=False)
        self._exchange(0, 1, {"CHAP_A": self.algorithms}, transit=False)
        digest = {"5": "md5", "6": "sha1", "7": "sha256", "8": "sha3_256"}[self.keys["CHAP_A"]]
        challenge = _decode_binary(self.keys["CHAP_C"])
        answer = hashlib.new(digest, bytes([int(self.keys["CHAP_I"])]) + self.secret.encode() + challenge).hexdigest()
        reply = {"CHAP_N": self.user, "CHAP_R": "0x" + answer}
        ours = os.urandom(len(challenge))
        if self.mutual is not None:
            reply.update(CHAP_I="7", CHAP_C="0x" + ours.hex())
        self._exchange(0, 1, reply)
        if self.mutual is not None:
            expected = hashlib.new(digest, b"\x07" + self.mutual.encode() + ours).digest()
            if _decode_binary(self.keys["CHAP_R"]) != expected or self.keys["CHAP_N"] != self.mutual_user:
                raise AssertionError("the target did not prove that it knows the mutual secret")

    # PDUs.

    def new_tag(self):
        self._next_tag += 1
        return self._next_tag

    def send(self, pdu):
        """Numbers a request and sends it. Immediate ones do not advance CmdSN (§4.2.2.1)."""
        pdu.put(24, self.cmd_sn).put(28, self.exp_stat_sn)
        if not pdu.header[0] & IMMEDIATE:
            self.cmd_sn = (self.cmd_sn + 1) & 0xFFFFFFFF
        self.connection.send(pdu)
        return pdu.tag

    def receive(self, seconds=None):
        """The next PDU; NOP-In pings are answered on the way, and do not make the wait longer."""
        deadline = time.monotonic() + (self.connection.seconds if seconds is None else seconds)
        while True:
            pdu = self.connection.receive(max(0.001, deadline - time.monotonic()))
            if pdu.opcode in (RESPONSE, TASK_RESPONSE, TEXT_RESPONSE, LOGOUT_RESPONSE, REJECT, ASYNC) or (
                    pdu.opcode == DATA_IN and pdu.flags & 1) or (pdu.opcode == NOP_IN and pdu.tag != RESERVED):
                self.exp_stat_sn = pdu.stat_sn + 1
            if pdu.opcode == NOP_IN and pdu.tag == RESERVED:
                if pdu.transfer_tag != RESERVED:
                    reply = PDU(NOP_OUT | IMMEDIATE, FINAL)
                    reply.header[8:16] = pdu.header[8:16]
                    reply.tag, reply.transfer_tag = RESERVED, pdu.transfer_tag
                    self.send(reply)
                continue
            return pdu

    def receive_for(self, tag, seconds=None):
        """The next PDU with this Initiator Task Tag; others wait in `pending`."""
        for pdu in self.pending:
            if pdu.tag == tag:
                self.pending.remove(pdu)
                return pdu
        deadline = time.monotonic() + (self.connection.seconds if seconds is None else seconds)
        while True:
            pdu = self.receive(max(0.001, deadline - time.monotonic()))
            if pdu.tag == tag or pdu.opcode == REJECT:
                return pdu
            self.pending.append(pdu)

    # SCSI.

    def command_pdu(self, lun, cdb, expected=0, is_write=False, data=b"", immediate=False):
        flags = FINAL | 1 | (0 if expected == 0 else 0x20 if is_write else 0x40)
        pdu = PDU(COMMAND | (IMMEDIATE if immediate else 0), flags, data).set_lun(self.target.first_lun + lun)
        pdu.tag = self.new_tag()
        pdu.put(20, expected)
        pdu.header[32:48] = bytes(cdb).ljust(16, b"\0")
        return pdu

    def begin(self, lun, cdb, read=0, write=None):
        """Sends a command without waiting; `write` goes out as immediate data as far as allowed. Returns its tag."""
        first = b""
        if write and self.has_immediate:
            first = write[:min(self.first_burst, self.target_segment)]
        return self.send(self.command_pdu(lun, cdb, len(write) if write else read, bool(write), first))

    def finish(self, tag, read=0, write=None, seconds=None):
        """Serves R2Ts and collects Data-In until the status of `tag` arrives."""
        data = bytearray(read)
        deadline = time.monotonic() + (self.connection.seconds if seconds is None else seconds)
        while True:
            pdu = self.receive_for(tag, max(0.001, deadline - time.monotonic()))
            if pdu.opcode == R2T:
                self._send_data(pdu, write)
            elif pdu.opcode == DATA_IN:
                offset = pdu.word(40)
                if offset + len(pdu.data) > read:
                    raise AssertionError("Data-In beyond the expected length")
                data[offset:offset + len(pdu.data)] = pdu.data
                if pdu.flags & 1:
                    return scsi.Result(pdu.status, bytes(data), b"")
            elif pdu.opcode == RESPONSE:
                if pdu.response != 0:
                    raise AssertionError(f"SCSI Response {pdu.response:#x}: target failure")
                length = int.from_bytes(pdu.data[:2], "big") if pdu.data else 0
                return scsi.Result(pdu.status, bytes(data), pdu.data[2:2 + length], pdu.word(44))
            else:
                raise AssertionError(f"unexpected opcode {pdu.opcode:#x} for a command")

    def _send_data(self, r2t, data):
        offset, length, number = r2t.word(40), r2t.word(44), 0
        while length > 0:
            part = min(length, self.target_segment)
            pdu = PDU(DATA_OUT, FINAL if part == length else 0, data[offset:offset + part])
            pdu.header[8:16] = r2t.header[8:16]
            pdu.tag, pdu.transfer_tag = r2t.tag, r2t.transfer_tag
            pdu.put(28, self.exp_stat_sn).put(36, number).put(40, offset)
            self.connection.send(pdu)
            offset, length, number = offset + part, length - part, number + 1

    def command(self, lun, cdb, read=0, write=None, seconds=None):
        """One command from beginning to end; again if all it met was that the session is new (29h)."""
        result = self.finish(self.begin(lun, cdb, read, write), read, write, seconds)
        if result.asc in (scsi.POWER_ON, scsi.NEXUS_LOSS) and lun not in self.greeted:
            self.greeted.add(lun)
            return self.command(lun, cdb, read, write, seconds)
        return result

    def ready(self, lun=0):
        """Takes the unit attentions away."""
        for _ in range(16):
            if self.command(lun, scsi.test_unit_ready()).status == scsi.GOOD:
                return
        raise AssertionError(f"LUN {lun} does not become ready")

    def capacity(self, lun=0):
        """(blocks, bytes per block)"""
        data = self.command(lun, scsi.read_capacity16(), read=32).good().data
        return struct.unpack_from(">QI", data)[0] + 1, struct.unpack_from(">QI", data)[1]

    def read(self, lun, lba, blocks, block_bytes=512, seconds=None):
        return self.command(lun, scsi.read16(lba, blocks), read=blocks * block_bytes, seconds=seconds)

    def write(self, lun, lba, data, block_bytes=512, fua=False, seconds=None):
        return self.command(lun, scsi.write16(lba, len(data) // block_bytes, fua), write=data, seconds=seconds)

    def luns(self):
        """REPORT LUNS as ordinal numbers."""
        data = self.command(0, scsi.report_luns(), read=4096).good().data
        count = int.from_bytes(data[:4], "big") // 8
        return [struct.unpack_from(">H", data, 8 + 8 * i)[0] & 0x3FFF for i in range(count)]

    # Others.

    def ping(self, data=b"ping", seconds=None):
        pdu = PDU(NOP_OUT | IMMEDIATE, FINAL, data)
        pdu.tag, pdu.transfer_tag = self.new_tag(), RESERVED
        self.send(pdu)
        return self.receive_for(pdu.tag, seconds).data

    def task_management(self, function, lun=0, referenced_tag=RESERVED, referenced_cmd_sn=0, seconds=2):
        """The response code (§11.6.1): 0 complete, 1 no such task..."""
        pdu = PDU(TASK_MANAGEMENT | IMMEDIATE, FINAL | function).set_lun(self.target.first_lun + lun)
        pdu.tag = self.new_tag()
        pdu.put(20, referenced_tag).put(32, referenced_cmd_sn)
        self.send(pdu)
        answer = self.receive_for(pdu.tag, seconds)
        if answer.opcode != TASK_RESPONSE:
            raise AssertionError(f"not a task management response: {answer.opcode:#x}")
        return answer.response

    def send_targets(self, which="All"):
        """The text of SendTargets, across continued responses (§4.3.4)."""
        pdu = PDU(TEXT | IMMEDIATE, FINAL, f"SendTargets={which}\0".encode())
        pdu.tag, pdu.transfer_tag = self.new_tag(), RESERVED
        self.send(pdu)
        text = b""
        while True:
            answer = self.receive_for(pdu.tag)
            text += answer.data
            if answer.flags & FINAL:
                return [part.decode() for part in text.split(b"\0") if part]
            following = PDU(TEXT | IMMEDIATE, FINAL)
            following.tag, following.transfer_tag = pdu.tag, answer.transfer_tag
            self.send(following)

    def logout(self):
        pdu = PDU(LOGOUT | IMMEDIATE, FINAL)
        pdu.tag = self.new_tag()
        self.send(pdu)
        answer = self.receive_for(pdu.tag)
        self.close()
        return answer.response

    def close(self):
        self.connection.close()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()
