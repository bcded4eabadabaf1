#!/usr/bin/env python3
"""Writes the package's settings file to standard output: docs/gatewayd.toml with two keys set, and what to do on top.

On a host that has other work, installing a package must not give its disks away or open a port to its network. So no
disk is named and only this machine is listened to, until somebody says which disk and to whom.
"""

import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]

HEAD = """\
# gatewayd on this host EXPORTS NOTHING and listens to this machine only, until you change two lines below:
#
#   only   in [discovery]   the disks to export; 'gatewayd disks' lists them with their names, which to copy into it.
#                           Remove the line to have every blank disk exported, now and whenever one is plugged in.
#   listen in [target]      the addresses to listen on. Remove the line for all of them.
#
# A blank disk is labelled and exported, one with a gateway's label is exported. One with anything else on it is held
# until you decide: 'gatewayd disks adopt' (man gatewayd-disks). Disks in use are never touched. Who may log in: see
# [access].
#
# Then:   gatewayd settings                 (is the file right?)
#         systemctl restart gatewayd        (later, when only disks are added: systemctl reload gatewayd)

"""

# A line of docs/gatewayd.toml as it begins, and what is there instead.
CHANGES = {
    "# listen = [": """\
# This machine only, until you say otherwise:
listen = ["127.0.0.1:3260", "[::1]:3260"]
# listen = ["[::]:3260"]
""",
    "# only = ": """\
# No disk, until you say otherwise:
only = []
# only = ["/dev/disk/by-id/wwn-0x5000c500a1b2c3d4"]
""",
}


def main():
    seen = dict.fromkeys(CHANGES, 0)
    made = [HEAD]
    for line in (ROOT / "docs/gatewayd.toml").read_text().splitlines(keepends=True):
        begin = next((begin for begin in CHANGES if line.startswith(begin)), None)
        if begin:
            seen[begin] += 1
        made.append(CHANGES[begin] if begin else line)
    wrong = [begin for begin, count in seen.items() if count != 1]
    if wrong:
        sys.exit(f"docs/gatewayd.toml must have each of these lines once: {wrong}")
    sys.stdout.write("".join(made))


if __name__ == "__main__":
    main()
