"""Reservations that are preempted while others read and write, on several threads: after each handful of commands that
were sent at once, what they were answered and what READ KEYS and READ RESERVATION tell must come of one order of them,
by a model of SPC-5 §5.14; and so must each read and write.

`GATEWAYD_ATOMIC_OPERATIONS` says how many commands there are.
"""

import os
import random
import struct
import time
import unittest
from collections import Counter, namedtuple

from harness import initiator, scsi
from harness.case import GatewayCase
from harness.load import BLOCK, pattern

# All commands together that are not there to look.
OPERATIONS = int(os.environ.get("GATEWAYD_ATOMIC_OPERATIONS", "8000"))
SEED = int(os.environ.get("GATEWAYD_ATOMIC_SEED", str(int(time.time()) & 0xFFFFFF)))
SESSIONS = 8
# Blocks that a session writes at once.
SLOTS = 2

REGISTER, RESERVE, RELEASE, CLEAR, PREEMPT, PREEMPT_AND_ABORT, REGISTER_AND_IGNORE = range(7)
WRITE_EXCLUSIVE, EXCLUSIVE, WRITE_EXCLUSIVE_ALL, EXCLUSIVE_ALL = 1, 3, 7, 8
TYPES = (1, 3, 5, 6, 7, 8)
SHARED_KEY, NOBODYS_KEY = 0x77, 0x99
EVERYBODY = -1

GOOD, CONFLICT, REFUSED = "good", "conflict", "refused"
# Not carried out: it was the bearer of a unit attention, or met another change under way.
NOT_DONE = "not done"
# Without an answer: carried out or not.
ABORTED = "aborted"

# PREEMPTED RESERVATIONS and REGISTRATIONS, RELEASED RESERVATIONS, COMMANDS CLEARED BY ANOTHER INITIATOR.
ATTENTIONS = {0x2A03, 0x2A04, 0x2A05, 0x2F00}

Order = namedtuple("Order", "who action key service_key kind")
# `kind` of a transfer: whether it writes.
Transfer = namedtuple("Transfer", "who writes lba version")


class State(namedtuple("State", "keys holder kind generation")):
    """Keys by session, 0: none; who holds the reservation, by number, None or EVERYBODY; its type; PRGENERATION."""

    __slots__ = ()

    def registered(self, key, but=None):
        return [who for who, each in enumerate(self.keys) if each == key and who != but]

    def without(self, gone):
        """Those are not registered any more; a reservation goes with its last holder."""
        keys = tuple(0 if who in gone else key for who, key in enumerate(self.keys))
        is_kept = any(keys) if self.holder == EVERYBODY else self.holder not in gone
        return State(keys, self.holder if is_kept else None, self.kind if is_kept else 0, self.generation + 1)

    def reserved(self, who, kind):
        return self._replace(holder=EVERYBODY if kind >= WRITE_EXCLUSIVE_ALL else who, kind=kind)

    def holds(self, who):
        return self.holder == who or self.holder == EVERYBODY and self.keys[who] != 0

    def admits(self, who, writes):
        """Whether a read or a write passes (SPC-5 table 63)."""
        if self.holder is None or self.holds(who) or self.kind >= 5 and self.keys[who] != 0:
            return True
        return not writes and self.kind in (1, 5, 7)

    def after(self, order):
        """The state after this PERSISTENT RESERVE OUT, and its outcome."""
        who, own = order.who, self.keys[order.who]
        if order.action == REGISTER_AND_IGNORE or order.action == REGISTER and order.key == own:
            if order.service_key == 0:
                return (self.without({who}) if own else self), GOOD
            keys = self.keys[:who] + (order.service_key,) + self.keys[who + 1:]
            return self._replace(keys=keys, generation=self.generation + 1), GOOD
        if own == 0 or own != order.key or order.action == REGISTER:
            return self, CONFLICT
        if order.action == RESERVE:
            if self.holder is None:
                return self.reserved(who, order.kind), GOOD
            return self, GOOD if self.holds(who) and self.kind == order.kind else CONFLICT
        if order.action == RELEASE:
            if self.holder is None or not self.holds(who):
                return self, GOOD
            return (self._replace(holder=None, kind=0), GOOD) if self.kind == order.kind else (self, REFUSED)
        if order.action == CLEAR:
            return State((0,) * len(self.keys), None, 0, self.generation + 1), GOOD
        return self.preempted(order)

    def preempted(self, order):
        others = self.registered(order.service_key, but=order.who)
        if self.holder == EVERYBODY and order.service_key == 0:
            gone = {who for who, key in enumerate(self.keys) if key and who != order.who}
            return self.without(gone).reserved(order.who, order.kind), GOOD
        if self.holder not in (None, EVERYBODY) and self.keys[self.holder] == order.service_key:
            return self.without(set(others)).reserved(order.who, order.kind), GOOD
        if order.service_key == 0:
            return self, REFUSED
        return (self.without(set(others)), GOOD) if others else (self, CONFLICT)


def states_after(beliefs, orders, outcomes, transfers, transfer_outcomes):
    """The states that some order of all these leads to, with these outcomes.

    Transfers change nothing here: each must only have a moment at which it would have been answered so.
    """
    wanted = [(number, each, outcome == GOOD) for number, (each, outcome) in
              enumerate(zip(transfers, transfer_outcomes)) if outcome in (GOOD, CONFLICT)]
    every = sum(1 << number for number, _, _ in wanted)

    def seen(state, done):
        for number, each, passes in wanted:
            if not done >> number & 1 and state.admits(each.who, each.writes) == passes:
                done |= 1 << number
        return state, done

    pending = [(each, outcome) for each, outcome in zip(orders, outcomes) if outcome != NOT_DONE]
    reached = {0: {seen(state, 0) for state in beliefs}}
    for mask in range(1 << len(pending)):
        for state, done in reached.get(mask, ()):
            for number, (order, outcome) in enumerate(pending):
                if mask >> number & 1:
                    continue
                following = reached.setdefault(mask | 1 << number, set())
                after, is_so = state.after(order)
                if outcome in (is_so, ABORTED):
                    following.add(seen(after, done))
                if outcome == ABORTED:
                    following.add((state, done))
    return {state for state, done in reached.get((1 << len(pending)) - 1, ()) if done == every}


class Preempts(GatewayCase):
    DISK = "memory:16M"

    def setUp(self):
        self.rng = random.Random(SEED)
        self.gateway = self.start(self.DISK, arguments=["--threads", "4"])
        self.sessions = [self.open(f"preempts-{number}") for number in range(SESSIONS)]
        self.prober = self.open("prober")
        self.count = Counter()
        self.beliefs = {State((0,) * SESSIONS, None, 0, self.read_generation())}
        # What may be in each block, by version.
        self.possible = {lba: {0} for lba in range(SESSIONS * SLOTS)}
        self.version = 0

    def open(self, name):
        session = self.keep(initiator.Session(self.gateway, initiator=f"iqn.2026-01.example:{name}", seconds=20))
        session.ready()
        return session

    def read_generation(self):
        return int.from_bytes(self.prober.command(0, scsi.persistent_reserve_in(0), read=256).good().data[:4], "big")

    # What is sent.

    def order(self, who, state):
        """What this session asks for, by what is believed to be."""
        rng, own = self.rng, state.keys[who]
        if own == 0 and rng.random() < 0.9:
            key = SHARED_KEY if rng.random() < 0.2 else 0x100 + who
            return Order(who, rng.choice((REGISTER, REGISTER_AND_IGNORE)), 0, key, 0)
        key = own if own and rng.random() < 0.97 else NOBODYS_KEY
        action = rng.choices((PREEMPT, PREEMPT_AND_ABORT, RESERVE, RELEASE, REGISTER, CLEAR), (40, 20, 15, 5, 4, 1))[0]
        if action == REGISTER:
            return Order(who, action, key, rng.choice((0, 0x100 + who)), 0)
        if action == RELEASE:
            return Order(who, action, key, 0, state.kind if state.kind and rng.random() < 0.8 else rng.choice(TYPES))
        victims = [each for each in state.keys if each not in (0, own)] + [NOBODYS_KEY]
        if state.holder not in (None, EVERYBODY) and state.holder != who and state.keys[state.holder] != own:
            # Whose fall changes most.
            victims += [state.keys[state.holder]] * len(victims)
        if state.holder == EVERYBODY:
            victims.append(0)
        return Order(who, action, key, rng.choice(victims), rng.choice(TYPES))

    def send_order(self, order):
        return self.sessions[order.who].begin(
            0, scsi.persistent_reserve_out(order.action, order.kind),
            write=scsi.reserve_parameters(order.key, order.service_key))

    def send_transfer(self, transfer):
        session = self.sessions[transfer.who]
        if transfer.writes:
            return session.begin(0, scsi.write16(transfer.lba, 1), write=pattern(transfer.lba, transfer.version))
        return session.begin(0, scsi.read16(transfer.lba, 1), read=BLOCK)

    # What comes back.

    def may_be_aborted(self, orders):
        """The sessions that a PREEMPT AND ABORT of these may be about, in some order."""
        keys = {order.service_key for order in orders if order.action == PREEMPT_AND_ABORT}
        if 0 in keys:
            return set(range(SESSIONS))
        found = {order.who for order in orders if order.service_key in keys and order.action in (0, 6)}
        return found | {who for state in self.beliefs for who, key in enumerate(state.keys) if key in keys}

    def outcome(self, who, tag, read, may_be_aborted):
        """What became of a command, and the data of a read."""
        session = self.sessions[who]
        result = None
        if not may_be_aborted:
            result = session.finish(tag, read=read)
        else:
            try:
                result = session.finish(tag, read=read, seconds=0.005)
            except TimeoutError:
                # 1: there is none any more. If it was answered, it was so before this.
                response = session.task_management(initiator.ABORT_TASK, 0, tag, session.cmd_sn, seconds=20)
                self.assertIn(response, (0, 1))
                try:
                    result = session.finish(tag, read=read, seconds=0)
                except TimeoutError:
                    self.count["aborted" if response else "aborted by its own initiator"] += 1
                    return ABORTED, None
        if result.sense_key == scsi.UNIT_ATTENTION:
            self.assertIn(result.asc, ATTENTIONS)
            self.attentions[who].add(result.asc)
            return NOT_DONE, None
        if result.status in (scsi.GOOD, scsi.RESERVATION_CONFLICT):
            return GOOD if result.status == scsi.GOOD else CONFLICT, result.data
        if result.status == scsi.BUSY:
            self.count["busy"] += 1
            return NOT_DONE, None
        self.assertEqual(result.sense_key, scsi.ILLEGAL_REQUEST)
        return REFUSED, None

    def take_attentions(self):
        """TEST UNIT READY passes every reservation; whoever was told of something gets it with this."""
        waiting = list(range(SESSIONS))
        while waiting:
            tags = [self.sessions[who].begin(0, scsi.test_unit_ready()) for who in waiting]
            told = []
            for who, tag in zip(waiting, tags):
                result = self.sessions[who].finish(tag)
                if result.status != scsi.GOOD:
                    self.assertEqual(result.sense_key, scsi.UNIT_ATTENTION)
                    self.assertIn(result.asc, ATTENTIONS)
                    self.attentions[who].add(result.asc)
                    told.append(who)
            waiting = told

    def look(self, states):
        """Those of the states that READ KEYS and READ RESERVATION tell."""
        tags = [self.prober.begin(0, scsi.persistent_reserve_in(action), read=256) for action in (0, 1)]
        keys, reservation = [self.prober.finish(tag, read=256).good().data for tag in tags]
        length = int.from_bytes(keys[4:8], "big")
        told = sorted(struct.unpack(f">{length // 8}Q", keys[8:8 + length]))
        generation = int.from_bytes(keys[:4], "big")
        self.assertEqual(reservation[:4], keys[:4])
        has_reservation = int.from_bytes(reservation[4:8], "big") != 0
        holder_key = int.from_bytes(reservation[8:16], "big") if has_reservation else None
        kind = reservation[21] if has_reservation else 0

        def is_so(state):
            key = {None: None, EVERYBODY: 0}.get(state.holder, state.keys[state.holder or 0])
            return (sorted(filter(None, state.keys)), state.generation, key, state.kind) == (
                told, generation, holder_key, kind)
        return {state for state in states if is_so(state)}, (told, generation, holder_key, kind)

    def settle(self, transfers, results):
        """What may be in the blocks now; what was read must have been."""
        for transfer, (outcome, data) in zip(transfers, results):
            possible = self.possible[transfer.lba]
            if transfer.writes and outcome == GOOD:
                self.possible[transfer.lba] = {transfer.version}
            elif transfer.writes and outcome == ABORTED:
                possible.add(transfer.version)
            elif not transfer.writes and outcome == GOOD:
                found = {each for each in possible if data == self.content(transfer.lba, each)}
                self.assertTrue(found, f"block {transfer.lba} holds {data[:16].hex()}, not one of {possible}")
                self.possible[transfer.lba] = found

    def content(self, lba, version):
        return pattern(lba, version) if version else bytes(BLOCK)

    def turn(self):
        """Some sessions change reservations while the others read and write; all of it is sent at once."""
        rng = self.rng
        self.attentions = [set() for _ in self.sessions]
        state = rng.choice(sorted(self.beliefs, key=repr))
        actors = rng.sample(range(SESSIONS), rng.randint(1, 4))
        orders = [self.order(who, state) for who in actors]
        transfers = []
        for who in set(range(SESSIONS)) - set(actors):
            for slot in range(SLOTS):
                self.version += 1
                transfers.append(Transfer(who, rng.random() < 0.6, who * SLOTS + slot, self.version))
        everything = [*orders, *transfers]
        rng.shuffle(everything)
        tags = {each: self.send_order(each) if isinstance(each, Order) else self.send_transfer(each)
                for each in everything}
        # Those that must have an answer first: with it, what they abort is over.
        victims = self.may_be_aborted(orders)
        found = {}
        for each in sorted(everything, key=lambda each: each.who in victims):
            read = BLOCK if isinstance(each, Transfer) and not each.writes else 0
            found[each] = self.outcome(each.who, tags[each], read, each.who in victims)
        outcomes, results = [found[order][0] for order in orders], [found[transfer] for transfer in transfers]
        self.take_attentions()
        states = states_after(self.beliefs, orders, outcomes, transfers, [outcome for outcome, _ in results])
        story = "\n".join([f"seed {SEED}", f"before: {self.beliefs}",
                           *(f"{each}: {found[each][0]}" for each in everything)])
        self.assertTrue(states, f"no order of these has these outcomes\n{story}")
        former, (self.beliefs, told) = self.beliefs, self.look(states)
        self.assertTrue(self.beliefs, f"of {states}\nnone is what is told: {told}\n{story}")
        for who in range(SESSIONS):
            # Whom others took their registration from is told, whatever else there is.
            was = all(each.keys[who] for each in former) and not any(each.keys[who] for each in self.beliefs)
            if was and who not in actors and not any(order.action == CLEAR for order in orders):
                self.assertIn(0x2A05, self.attentions[who], f"session {who} was not told\n{story}")
        self.settle(transfers, results)
        self.account(orders, outcomes, results)

    def account(self, orders, outcomes, results):
        self.count["turns"] += 1
        for order, outcome in zip(orders, outcomes):
            if order.action in (PREEMPT, PREEMPT_AND_ABORT):
                self.count[f"preempts {outcome}"] += 1
            else:
                self.count["others"] += 1
        for outcome, _ in results:
            self.count[f"transfers {outcome}"] += 1
        self.count["operations"] += len(orders) + len(results)

    def test_preempts(self):
        """After any commands that preempt each other, beside reads and writes, all is as one order of them has it"""
        print(f"preempts: seed {SEED} (GATEWAYD_ATOMIC_SEED)", flush=True)
        begin = time.monotonic()
        while self.count["operations"] < OPERATIONS:
            self.turn()
        took = time.monotonic() - begin
        # Nobody holds anything any more, and what was acknowledged is there.
        first = self.sessions[0]
        first.command(0, scsi.persistent_reserve_out(REGISTER_AND_IGNORE),
                      write=scsi.reserve_parameters(0, 0xC1EA2)).good()
        first.command(0, scsi.persistent_reserve_out(CLEAR), write=scsi.reserve_parameters(0xC1EA2)).good()
        self.prober.ready()
        for lba, possible in self.possible.items():
            data = self.prober.read(0, lba, 1).good().data
            self.assertIn(data, [self.content(lba, version) for version in possible], f"block {lba}")
        print(f"preempts: seed {SEED}, {self.DISK}, {took:.0f} s: "
              + ", ".join(f"{count} {what}" for what, count in sorted(self.count.items())))
        for what in ("preempts good", "preempts conflict", "transfers good", "transfers conflict"):
            self.assertGreater(self.count[what], OPERATIONS // 100, what)


class PreemptsUnderWay(Preempts):
    """With transfers that are at the disk when somebody ends them."""

    DISK = "slow:16M:2"

    def test_preempts(self):
        """The same where transfers are at the disk meanwhile, which PREEMPT AND ABORT ends"""
        super().test_preempts()
        self.assertGreater(self.count["aborted"], 0)


if __name__ == "__main__":
    unittest.main()
