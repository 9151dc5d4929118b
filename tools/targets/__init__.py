"""The targets of tools/platforms: a name, and the function that proves it."""

from targets import emulated, native, windows

TARGETS = {**native.TARGETS, **emulated.TARGETS, "windows": windows.windows}
