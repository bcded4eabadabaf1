"""The host's time stamp counter, in kHz. Emulation passes it on; a guest that measures it on a busy host is wrong."""

import functools

from .image import tool
from .places import run


@functools.cache
def tsc_khz():
    return int(run([tool("tsc")], seconds=10))
