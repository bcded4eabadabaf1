"""Power that is lost within an update: one of the two versions starts, whatever the moment was."""

import contextlib
import os
import random
import subprocess
import threading
import time

from appliance import another_version
from updates import UpdateCase

# So many times. Each takes a start and an update: a minute and a half at best.
CUTS = int(os.environ.get("GATEWAYD_IMAGE_CUTS", "2"))


class PowerCuts(UpdateCase):
    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        cls.running = cls.first
        # There already: else most of an update is its way over the network.
        for version in ("94", "95"):
            url = cls.server.url(another_version(version))
            cls.machine.run("cd /state && for end in '' .sig; do "
                            f"curl --fail --silent --output {version}.efi$end {url}$end || exit 1; done; sync", 600)

    def other(self):
        """An update to what does not run: to a newer version and to an older one in turn."""
        return "95" if self.running == "94" else "94"

    def test_random(self):
        """The machine loses its power at a random moment of an update, and starts one of the two versions"""
        seconds = 10.0
        for number in range(1, CUTS + 1):
            before, brought = self.running, self.other()
            moment, begin, ended = random.uniform(0, 1.1) * seconds, time.monotonic(), []

            def update(version=brought, ended=ended, begin=begin):
                with contextlib.suppress(subprocess.TimeoutExpired):
                    if self.machine.attempt(f"gatewayd update /state/{version}.efi")[0] == 0:
                        ended.append(time.monotonic() - begin)

            thread = threading.Thread(target=update)
            thread.start()
            time.sleep(moment)
            self.machine.power_off()
            thread.join()
            self.machine.power_on("data")
            self.running = self.machine.until(r"^Version +(\S+) \(proven\)").group(1)
            seconds = ended[0] if ended else max(seconds, moment)
            print(f"cut {number} of {CUTS}: {moment:.1f} s into the update of {before} to {brought}"
                  f"{', which had ended' if ended else ''}: {self.running} started", flush=True)
            self.assertIn(self.running, (before, brought))
            self.machine.can_log_in()
            self.assertLessEqual(len(self.slots()), 2)
            self.assertEqual(self.machine.run("ls /efi/EFI/Linux/*.new 2>/dev/null || true"), "")
