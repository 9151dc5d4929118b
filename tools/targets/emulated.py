"""Other processors: QEMU runs their programs, in a Debian userland of theirs that is unpacked into the cache folder.

The build is cross-compiled. For other programs than setup.py the userland is entered by chroot, with FOLDER at /mnt.
"""

import os
import shutil
import threading
from pathlib import Path

from targets.target import Failed, Interpreter, family, target

INCLUDED = (
    "python3 python3-dev python3-numpy python3-pytest python3-hypothesis libgomp1 dash bash coreutils libc-bin sed grep"
)


one_root_at_a_time = threading.Lock()


def make_root(job, architecture, suite="trixie", packages=()):
    """A Debian userland in FOLDER/roots: unpacked, not configured, so that nothing of it runs while it is made."""
    root = job.work.folder / "roots" / (architecture if suite == "trixie" else f"{architecture}-{suite}")
    if os.geteuid() != 0:
        raise Failed("userlands of other processors are made and entered by root only")
    with one_root_at_a_time:
        if (root / "done").exists():
            return root
        shutil.rmtree(root, ignore_errors=True)
        root.parent.mkdir(exist_ok=True)
        include = ",".join([*INCLUDED.split(), *packages])
        old = '--aptopt=Acquire::Check-Valid-Until "false"'  # a mirror may be a snapshot of some day
        what = [f"--architectures={architecture}", f"--include={include}", suite, root, job.work.mirror()]
        job.run("mmdebstrap", "--quiet", "--variant=extract", old, *what)
        if not (root / "bin/sh").exists():
            (root / "bin/sh").symlink_to("dash")
        (root / "done").touch()
    return root


def inside(job, root, program="python3"):
    """The Python of a userland."""

    def path(here):
        return f"/mnt/{Path(here).relative_to(job.work.folder)}"

    enter = Path(__file__).with_name("enter.sh")
    return Interpreter((program,), (enter, root, job.work.folder), path)


def emulate(qemu):
    """Lets the kernel run a processor's programs by QEMU."""
    handlers = Path("/proc/sys/fs/binfmt_misc")
    if not (handlers / "register").exists():
        os.system(f"mount -t binfmt_misc none {handlers}")
    if not (handlers / f"qemu-{qemu}").exists():
        try:
            (handlers / "register").write_bytes(Path(f"/usr/lib/binfmt.d/qemu-{qemu}.conf").read_bytes().strip())
        except OSError as error:
            raise Failed(f"the kernel does not let programs of {qemu} be run by QEMU: {error}") from None


def headers(job, root):
    """Folders with the Python headers of a userland, without its C library's: the cross compiler has its own."""
    folder = job.work.folder / "headers" / root.name
    shutil.rmtree(folder, ignore_errors=True)
    (main,) = (root / "usr/include").glob("python3.*")
    folder.mkdir(parents=True)
    for of_processor in (root / "usr/include").glob(f"*-linux-gnu*/{main.name}"):
        (folder / of_processor.parent.name).mkdir()
        (folder / of_processor.parent.name / main.name).symlink_to(of_processor)
    return [main, folder]


def cross(job, architecture, compiler, qemu, suite, exchanged, tests):
    """{compiler}, in a Debian userland of {architecture}: golden hashes; tests: {tests}"""
    if qemu:
        emulate(qemu)
    root = make_root(job, architecture, suite)
    job.build(compiler, include=headers(job, root))
    python = inside(job, root)
    result = job.proved(python, "emulated by QEMU" if qemu else "natively, as a 32-bit program", tests)
    if exchanged and not job.work.quick and not result.get("failed"):
        fused = any(one["fused"] for one in result["sets"].values())
        exchange(job, python, simd="" if fused else "baseline")
        result["files"] = "both ways"
    return result


def exchange(job, python, simd):
    """Files that the target writes are read here, with an instruction set of the same kind of bits, and the other way
    round."""
    there = job.build_folder
    variables = {"PYTHONPATH": there.with_name(f"{job.name}.here"), "CYDROP_SIMD": simd}
    here = Interpreter((job.work.venv / "bin/python",), variables=variables)
    job.build_folder = here.variables["PYTHONPATH"]
    job.build("gcc")
    job.build_folder = there
    script = job.work.source / "tools/targets/exchange.py"
    for writer, reader in ((python, here), (here, python)):
        files = job.work.folder / "files" / job.name
        shutil.rmtree(files, ignore_errors=True)
        files.mkdir(parents=True)
        for one, what in ((writer, "write"), (reader, "read")):
            job.run(*one.command(one.path(script), what, one.path(files)), cwd=job.work.source)


def cross_target(architecture, triplet, qemu, options="", suite="trixie", exchanged=False, tests="tenth of core"):
    compiler = f"{triplet}-gcc {options}".strip()
    how = {
        "architecture": architecture, "compiler": compiler, "qemu": qemu, "suite": suite, "exchanged": exchanged,
        "tests": tests,
    }  # fmt: skip
    function = family(cross, **how)
    packages = ["mmdebstrap", f"gcc-{triplet}", f"libc6-dev-{architecture}-cross"]
    return target(*packages, *(["qemu-user-static"] if qemu else []))(function)


TARGETS = {
    "arm64": cross_target("arm64", "aarch64-linux-gnu", "aarch64"),  # all core tests: tools/test_wheel
    "armhf": cross_target("armhf", "arm-linux-gnueabihf", "arm", "-mfpu=neon-vfpv4"),
    "riscv64": cross_target("riscv64", "riscv64-linux-gnu", "riscv64"),
    "s390x": cross_target("s390x", "s390x-linux-gnu", "s390x", suite="sid", exchanged=True, tests="third of core"),
    "ppc64el": cross_target("ppc64el", "powerpc64le-linux-gnu", "ppc64le", suite="sid"),
    "i386": cross_target("i386", "i686-linux-gnu", None, exchanged=True, tests="core"),
}
