"""The points that are measured: a name, and what it means to the load generator."""

import fnmatch

DEPTHS = (1, 4, 32, 128)
SESSIONS = (1, 16, 64)
SEQUENTIAL = (("64k", 8), ("128k", 8), ("1m", 4))  # block and depth


def _point(block, access, sessions, depth, *more):
    return ["--block", block.upper(), "--rw", access, "--sessions", str(sessions), "--depth", str(depth), *more]


def _all():
    for access in ("read", "write"):
        for sessions in SESSIONS:
            for depth in DEPTHS:
                yield f"4k-{access}-s{sessions}-d{depth}", _point("4k", access, sessions, depth)
    for block, depth in SEQUENTIAL:
        for access in ("read", "write"):
            yield f"{block}-{access}-seq-d{depth}", _point(block, access, 1, depth, "--sequential")
    for sessions, depth in ((1, 32), (16, 32)):
        yield f"4k-mix-s{sessions}-d{depth}", _point("4k", "mix", sessions, depth, "--read-percent", "70")
    for access in ("read", "write"):
        yield f"4k-{access}-s1-d1-spin", _point("4k", access, 1, 1, "--spin")
    digests = ("--digests", "both")
    for access in ("read", "write"):
        yield f"4k-{access}-s1-d32-digests", _point("4k", access, 1, 32, *digests)
    for access in ("read", "write"):
        yield f"128k-{access}-seq-d8-digests", _point("128k", access, 1, 8, "--sequential", *digests)


POINTS = dict(_all())
# Those at which a target that polls is worth a look.
POLLING = ("4k-read-s1-d1", "4k-write-s1-d1", "4k-read-s1-d1-spin", "4k-write-s1-d1-spin", "4k-read-s1-d32")
QUICK = ("4k-read-s1-d1", "4k-read-s1-d32", "4k-write-s1-d32", "4k-read-s16-d32", "128k-read-seq-d8", "1m-write-seq-d4",
         "4k-read-s1-d32-digests")


def chosen(is_quick, only=(), names=()):
    """{name: options}: those of the mode whose name one of `only` is a part of or a glob for; or exactly `names`."""
    unknown = set(names) - set(POINTS)
    if unknown:
        raise SystemExit(f"no such point: {', '.join(sorted(unknown))} (--list)")
    if names:
        return {name: POINTS[name] for name in names}
    found = {name: options for name, options in POINTS.items() if not is_quick or name in QUICK}
    if not only:
        return found
    return {name: options for name, options in found.items()
            if any(text in name or fnmatch.fnmatch(name, text) for text in only)}
