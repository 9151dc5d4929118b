"""musl instead of the GNU C library, as in Alpine: a Python built with Debian's musl-gcc, and wheels for musl."""

import os
import shutil
import tarfile
import zipfile

from targets.target import Interpreter, target

WHEELS = ["numpy", "pytest", "hypothesis", "sortedcontainers", "iniconfig", "pluggy", "packaging", "pygments"]

COMPILER = """#!/bin/sh
# musl-gcc does not say that it is for another system than gcc, and Python's configure takes this for a contradiction
case "$*" in --print-multiarch | -print-multiarch) echo x86_64-linux-musl ;; *) exec musl-gcc "$@" ;; esac
"""


@target("gcc", "make", "musl-tools", "linux-libc-dev")
def musl(job):
    """musl-gcc and a Python built with it, golden hashes and core tests"""
    folder = job.work.folder / "musl"
    prefix = folder / "python"
    if not (folder / "done").exists():
        shutil.rmtree(folder, ignore_errors=True)
        build_python(job, folder, prefix)
        fetch(job, folder)
        (folder / "done").touch()
    job.build("musl-gcc", include=[prefix / "include/python3.13"], openmp=False)  # Debian has no OpenMP for musl
    return job.proved(Interpreter((prefix / "bin/python3.13",)), "natively, serial build", paths=[folder / "site"])


def build_python(job, folder, prefix):
    sources = {}
    for package in ("zlib", "python3.13"):
        with tarfile.open(job.work.download(package, "trixie", folder / "archives" / package, source=True)) as file:
            file.extractall(folder, filter="tar")
            sources[package] = folder / file.getnames()[0].partition("/")[0]
    # PyPI's wheels have packed relocations, which musl knows from 1.2.4 on: the compiler's may be older
    job.run("dpkg-deb", "--extract", job.work.download("musl", "sid", folder / "archives/musl"), folder / "run")
    (loader,) = folder.glob("run/**/ld-musl-x86_64.so.1")
    compiler = folder / "musl-gcc"
    compiler.write_text(COMPILER)
    compiler.chmod(0o755)
    environment = {**os.environ, "CC": str(compiler), "CFLAGS": "-O2 -fPIC"}
    job.run("./configure", "--static", f"--prefix={prefix}", cwd=sources["zlib"], env=environment)
    job.run("make", "install", cwd=sources["zlib"])
    kernel = folder / "kernel"  # the kernel's headers alone, not the GNU C library's beside them
    kernel.mkdir()
    for name, place in (("linux", ""), ("asm-generic", ""), ("asm", "x86_64-linux-gnu/")):
        (kernel / name).symlink_to(f"/usr/include/{place}{name}")
    environment["PKG_CONFIG_LIBDIR"] = f"{prefix}/lib/pkgconfig"  # not the libraries of this machine's C library
    environment |= {
        "CPPFLAGS": f"-I{prefix}/include -isystem {kernel}",
        "LDFLAGS": f"-L{prefix}/lib -Wl,--dynamic-linker={loader}",
    }
    options = ["--without-ensurepip", "--disable-test-modules", "--without-static-libpython", f"--prefix={prefix}"]
    job.run("./configure", "-q", *options, cwd=sources["python3.13"], env=environment)
    job.run("make", "-s", f"-j{os.cpu_count()}", "install", cwd=sources["python3.13"])


def fetch(job, folder):
    wheels = folder / "wheels"
    pip = [job.work.venv / "bin/python", "-m", "pip", "download", "-q", "--no-deps", "--only-binary=:all:"]
    job.run(*pip, "--python-version=3.13", "--platform=musllinux_1_2_x86_64", "--dest", wheels, *WHEELS)
    for wheel in wheels.iterdir():
        with zipfile.ZipFile(wheel) as file:
            file.extractall(folder / "site")
