"""The targets of tools/platforms: a name, and the function that proves it."""

from targets import emulated, musl, native, windows

TARGETS = {**native.TARGETS, **emulated.TARGETS, "musl": musl.musl, "windows": windows.windows}
