"""Two machines on one: network namespaces joined by a virtual cable, each with a host name and a /dev/shm of its own,
so that MPI has nothing but the cable to talk over.

       namespace 0                            namespace 1
    10.99.x.1  link0 ====== veth pair ====== link0  10.99.x.2
"""

from __future__ import annotations

import os
import shutil
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

LINK = "link0"  # the interface's name in both
WAIT = 10.0  # seconds for the cable to be up
ENTER = """#!/bin/sh
# enter HOST COMMAND...: what ssh is between machines
while [ "${{1#-}}" != "$1" ]; do shift; done
case $1 in {first}) name={names[0]};; {second}) name={names[1]};; *) echo "no such host: $1" >&2; exit 255;; esac
shift
exec ip netns exec $name unshare -m -u sh -c "hostname $name && mount -t tmpfs tmpfs /dev/shm && $*"
"""


def why_not() -> str | None:
    """What keeps this process from making namespaces; None: nothing."""
    missing = [program for program in ("ip", "unshare") if shutil.which(program) is None]
    if missing:
        return f"no program {' and '.join(missing)}"
    probe = f"cydrop{os.getpid()}probe"
    for command in (["unshare", "-m", "-u", "true"], ["ip", "netns", "add", probe], ["ip", "netns", "del", probe]):
        tried = subprocess.run(command, capture_output=True, text=True)
        if tried.returncode:
            return tried.stderr.strip() or f"{' '.join(command)} failed"
    return None


class Pair:
    """Two namespaces; `folder` is for the launcher."""

    def __init__(self, folder: Path) -> None:
        number = os.getpid() % 250 + 1
        self.names = [f"cydrop{os.getpid()}a", f"cydrop{os.getpid()}b"]
        self.hosts = [f"10.99.{number}.1", f"10.99.{number}.2"]
        self.enter = folder / "enter"
        self.enter.write_text(ENTER.format(first=self.hosts[0], second=self.hosts[1], names=self.names))
        self.enter.chmod(0o700)

    def connect(self) -> None:
        for name in self.names:
            _ip("netns", "add", name)
        a, b = self.names
        _ip("link", "add", LINK, "netns", a, "type", "veth", "peer", "name", LINK, "netns", b)
        for name, host in zip(self.names, self.hosts, strict=True):
            _ip("-n", name, "addr", "add", f"{host}/24", "dev", LINK)
            _ip("-n", name, "link", "set", "lo", "up")
            _ip("-n", name, "link", "set", LINK, "up")
        end = time.monotonic() + WAIT
        while any(self._counter(name, "carrier") != 1 or self._state(name) != "up" for name in self.names):
            if time.monotonic() > end:
                raise RuntimeError(f"the cable was not up after {WAIT:g} seconds")
            time.sleep(0.05)

    def sent(self) -> list[int]:
        """Bytes that each has sent over the cable so far."""
        return [self._counter(name, "statistics/tx_bytes") for name in self.names]

    def mpiexec(
        self, program: str, command: list[str], environment: dict[str, str]
    ) -> subprocess.CompletedProcess[str]:
        """MPICH's mpiexec from the first machine, one rank on each; UCX takes what it finds first unless told."""
        told = environment | {"UCX_TLS": "tcp", "UCX_NET_DEVICES": LINK, "FI_PROVIDER": "tcp"}
        given = [part for name, value in told.items() for part in ("-genv", name, value)]
        launch = [program, "-launcher", "ssh", "-launcher-exec", str(self.enter), "-hosts", ",".join(self.hosts)]
        first = [str(self.enter), self.hosts[0], *launch, *given, "-n", "2", *command]
        return subprocess.run(first, capture_output=True, text=True, timeout=300)

    def cut(self) -> None:
        for name in self.names:
            subprocess.run(["ip", "netns", "del", name], capture_output=True)

    def _counter(self, name: str, what: str) -> int:
        return int(self._read(name, what) or 0)

    def _state(self, name: str) -> str:
        return self._read(name, "operstate")

    def _read(self, name: str, what: str) -> str:
        command = ["ip", "netns", "exec", name, "cat", f"/sys/class/net/{LINK}/{what}"]
        return subprocess.run(command, capture_output=True, text=True).stdout.strip()


def _ip(*arguments: str) -> None:
    done = subprocess.run(["ip", *arguments], capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(f"ip {' '.join(arguments)}: {done.stderr.strip()}")


@contextmanager
def two_machines(folder: Path) -> Iterator[Pair]:
    pair = Pair(folder)
    try:
        pair.connect()
        yield pair
    finally:
        pair.cut()
