"""The metrics over HTTP: what a scraper gets, and what a bad one does."""

import contextlib
import http.client
import socket
import threading
import time
import unittest

from harness import initiator, process
from harness.case import GatewayCase
from harness.load import Writer

GET = b"GET /metrics HTTP/1.1\r\nHost: gateway\r\n\r\n"


class MetricsCase(GatewayCase):
    def setUp(self):
        self.http_port = process.free_port("127.0.0.1")
        self.gateway = self.start(settings=self.settings(self.http_port))

    def settings(self, *ports):
        return f"[metrics]\nlisten = {list(ports)}\n"

    def get(self, path="/metrics", port=None, method="GET", address="127.0.0.1"):
        connection = http.client.HTTPConnection(address, port or self.http_port, timeout=10)
        with contextlib.closing(connection):
            connection.request(method, path)
            answer = connection.getresponse()
            return answer.status, dict(answer.getheaders()), answer.read().decode()

    def connect(self, port=None):
        return self.keep(socket.create_connection(("127.0.0.1", port or self.http_port), timeout=20))

    def rest(self, connection):
        """What comes until the other side ends."""
        data = b""
        with contextlib.suppress(ConnectionResetError):
            while more := connection.recv(65536):
                data += more
        return data


class Scraping(MetricsCase):
    def test_scrape(self):
        """A scrape has what 'gatewayd metrics' prints, and 'status' says where"""
        status, fields, text = self.get()
        self.assertEqual((status, fields["Content-Type"]), (200, "text/plain; version=0.0.4; charset=utf-8"))
        self.assertIn("\ngatewayd_up 1\n", text)
        self.assertIn('\ngatewayd_lun_size_bytes{lun="0"} 67108864\n', text)
        families = [line.split()[2] for line in text.splitlines() if line.startswith("# TYPE ")]
        printed = self.gateway.ask("metrics").stdout
        self.assertEqual(families, [line.split()[2] for line in printed.splitlines() if line.startswith("# TYPE ")])
        self.assertEqual(self.get(method="HEAD")[::2], (200, ""))
        self.assertIn("/metrics", self.get("/")[2])
        self.assertEqual(self.get("/healthz")[2], "ok\n")
        self.assertEqual([self.get("/nothing")[0], self.get(method="PUT")[0]], [404, 405])
        self.assertIn(f"http://127.0.0.1:{self.http_port}/metrics", self.gateway.ask("status").stdout)

    def test_nothing_unless_set(self):
        """Without the setting nothing listens but the portal"""
        gateway = self.start()
        listening = process.run(["ss", "-Htlnp"]).stdout
        own = [line for line in listening.splitlines() if f"pid={gateway.pid}," in line]
        self.assertEqual(len(own), 1, listening)

    def test_reload(self):
        """SIGHUP brings, moves and takes away the listener; a port that is taken is a problem, and no more than that"""
        other = process.free_port("127.0.0.1")
        kept = self.connect()
        kept.sendall(GET)
        self.assertIn(b"200 OK", kept.recv(100))
        self.gateway.settings_path.write_text(self.settings(self.http_port, other))
        self.gateway.reload()
        process.wait_until(lambda: self.is_served(other), 5, "the second address is served")
        self.gateway.settings_path.write_text(self.settings(other))
        self.gateway.reload()
        process.wait_until(lambda: not self.is_served(self.http_port), 5, "the first address is not served")
        self.assertTrue(self.is_served(other))
        self.rest(kept)
        with contextlib.closing(socket.socket()) as taken:
            taken.bind(("127.0.0.1", 0))
            taken.listen()
            port = taken.getsockname()[1]
            self.gateway.settings_path.write_text(self.settings(other, port))
            self.gateway.reload()
            process.wait_until(lambda: self.problems(port), 5, "the problem is told")
            self.assertTrue(self.is_served(other))
            with initiator.Session(self.gateway) as session:
                session.ready()
        # Tried again by itself.
        process.wait_until(lambda: self.is_served(port), 10, "the port is taken once it is free")
        self.assertEqual(self.problems(port), [])
        self.gateway.settings_path.write_text("")
        self.gateway.reload()
        process.wait_until(lambda: not self.is_served(other), 5, "nothing is served")
        self.assert_alive(self.gateway)

    def problems(self, port):
        return [text for text in self.gateway.ask_json("status")["problems"] if str(port) in text]

    def is_served(self, port):
        try:
            return self.get("/healthz", port=port)[0] == 200
        except OSError:
            return False

    def test_start_with_a_taken_port(self):
        """A port that is taken at the start keeps no disk from being served"""
        gateway = self.start(settings=self.settings(self.http_port))
        problems = [text for text in gateway.ask_json("status")["problems"] if "no metrics at" in text]
        self.assertEqual(len(problems), 1)
        with initiator.Session(gateway) as session:
            session.ready()

    def test_ipv6(self):
        """IPv6 loopback is an address like another"""
        if not self.has_ipv6():
            self.skipTest("no IPv6 here")
        port = process.free_port("::1")
        self.start(settings=f'[metrics]\nlisten = "[::1]:{port}"\n')
        self.assertEqual(self.get("/healthz", port=port, address="::1")[0], 200)

    def has_ipv6(self):
        try:
            with contextlib.closing(socket.socket(socket.AF_INET6)) as probe:
                probe.bind(("::1", 0))
            return True
        except OSError:
            return False


class BadScrapers(MetricsCase):
    """Whatever they do, another scraper is answered, and a session goes on."""

    def setUp(self):
        super().setUp()
        self.writer = self.keep(Writer(self.gateway, pause=0.005))
        self.writer.start()

    def tearDown(self):
        begin = time.monotonic()
        self.assertEqual(self.get()[0], 200)
        self.assertLess(time.monotonic() - begin, 3 * process.SLOWNESS)
        self.writer.finish()
        self.assertLess(self.writer.longest, process.SLOWNESS)
        self.assert_alive(self.gateway)

    def test_slow_loris(self):
        """Who sends a request a byte at a time is told 408 within seconds"""
        slow = [self.connect() for _ in range(16)]
        begin = time.monotonic()
        for byte in GET[:12]:
            for connection in slow:
                with contextlib.suppress(OSError):
                    connection.sendall(bytes([byte]))
            time.sleep(0.5)
        for connection in slow:
            self.assertIn(b"HTTP/1.1 408 ", self.rest(connection))
        self.assertLess(time.monotonic() - begin, 10 * process.SLOWNESS)

    def test_silence(self):
        """Who says nothing is let go"""
        silent = [self.connect() for _ in range(8)]
        begin = time.monotonic()
        for connection in silent:
            self.assertEqual(self.rest(connection), b"")
        self.assertLess(time.monotonic() - begin, 10 * process.SLOWNESS)

    def test_oversize(self):
        """A head that is too long is refused before its end, and noise at once"""
        for data, status in ((b"GET /" + b"a" * 100_000, b"431"), (GET[:-2] + b"A: b\r\n" * 5000, b"431"),
                             (b"\x16\x03\x01" + bytes(500), b"400"), (b"GET / HTTP/1.1\r\n\r\n", b"400")):
            connection = self.connect()
            with contextlib.suppress(OSError):
                connection.sendall(data)
            self.assertIn(b"HTTP/1.1 " + status, self.rest(connection), data[:20])

    def test_pipelining(self):
        """Requests that are sent at once are each answered, in order"""
        connection = self.connect()
        connection.sendall(b"GET /healthz HTTP/1.1\r\nHost: h\r\n\r\n" * 50 + GET +
                           b"GET / HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n")
        data = self.rest(connection)
        self.assertEqual(data.count(b"HTTP/1.1 200 OK"), 52)
        self.assertEqual(data.count(b"\r\n\r\nok\n"), 50)
        self.assertLess(data.index(b"gatewayd_up 1"), data.index(b"<!DOCTYPE"))

    def test_many_connections(self):
        """Five hundred connections at once are bounded, and scrapers get through"""
        held = [self.connect() for _ in range(500)]
        for number, connection in enumerate(held):
            with contextlib.suppress(OSError):
                connection.sendall(GET[:number % 20])
        for _ in range(5):
            self.assertEqual(self.get()[0], 200)
        sockets = process.run(["ss", "-Htnp", f"sport = :{self.http_port}"]).stdout.count(f"pid={self.gateway.pid},")
        self.assertLess(sockets, 100)

    def test_many_scrapers(self):
        """Scrapers that ask without end cost the session nothing that it notices"""
        until = time.monotonic() + 3
        failures, counts = [], []

        def scrape():
            count = 0
            while time.monotonic() < until:
                try:
                    if self.get()[0] != 200:
                        failures.append("status")
                    count += 1
                except OSError as error:
                    failures.append(str(error))
            counts.append(count)
        threads = [threading.Thread(target=scrape) for _ in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(60)
        self.assertEqual(failures, [])
        self.assertGreater(sum(counts), 20)

    def test_no_reader(self):
        """Who asks and takes nothing is let go, and holds a bounded amount"""
        connection = socket.socket()
        self.addCleanup(connection.close)
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 2048)
        connection.connect(("127.0.0.1", self.http_port))
        with contextlib.suppress(OSError):
            connection.settimeout(1)
            connection.sendall(GET * 10_000)
        for _ in range(5):
            self.assertEqual(self.get()[0], 200)


if __name__ == "__main__":
    unittest.main()
