"""What the tests of updates share: a machine that runs the image, and a server with other versions."""

import http.server
import threading

from appliance import WORK, ApplianceCase, latest

# As this machine is seen from inside.
HOST = "10.0.2.2"


class Server:
    """Serves the directory of the tests by HTTP on loopback."""

    def __init__(self):
        class Handler(http.server.SimpleHTTPRequestHandler):
            def __init__(self, *arguments):
                super().__init__(*arguments, directory=str(WORK))

            def log_message(self, *_):
                pass

        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        # Who loses its power takes nothing more.
        self.server.handle_error = lambda *_: None
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    def url(self, path):
        return f"http://{HOST}:{self.server.server_port}/{path.name}"

    def close(self):
        self.server.shutdown()
        self.server.server_close()


class UpdateCase(ApplianceCase):
    """The image runs and has proven itself."""

    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        cls.first = latest().name.removeprefix("gatewayd-")
        cls.server = Server()
        cls.addClassCleanup(cls.server.close)
        cls.machine.blank("data")
        cls.machine.power_on("data")
        cls.machine.until(r"^Version .*\(proven\)")
        cls.machine.can_log_in()

    def slots(self):
        return self.machine.run("ls /efi/EFI/Linux").split()

    def update(self, path, tries=None):
        """Brings a version, and starts it; `tries`: so many instead of three."""
        output = self.machine.run(f"gatewayd update {self.server.url(path)}", 600)
        self.assertIn("is tried at the next start", output)
        if tries is not None:
            self.machine.run("mount -o remount,rw /efi && cd /efi/EFI/Linux && "
                             f"mv *+3.efi $(echo *+3.efi | sed s/+3/+{tries}/) && sync && mount -o remount,ro /efi")
        self.machine.restart()
