"""check_dists.py SDIST WHEEL...: the sdist is complete, wheels are complete and small, those of one name equal."""

import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

# bytes, by a part of the file's name, the first that is there; an abi3 wheel brings its OpenMP library along
LARGEST = {"abi3-manylinux": {"x86_64": 2_950_000, "aarch64": 1_500_000}, "": {"": 2_750_000}}

sdist, *wheels = sys.argv[1:]

with tarfile.open(sdist) as archive:
    packed = {name.partition("/")[2] for name in archive.getnames()}
tracked = set(subprocess.run(["git", "ls-files"], capture_output=True, text=True, check=True).stdout.split())
wanted = {name for name in tracked if not name.startswith(".")}
missing = sorted(wanted - packed)
assert not missing, f"not in the sdist: {missing}"
unwanted = sorted(name for name in packed - tracked if name.endswith((".c", ".so", ".o", ".pyc", ".html")))
assert not unwanted, f"in the sdist, but generated: {unwanted}"
for needed in (".pyx", ".pxd", ".pyi", ".h", "py.typed"):
    assert any(name.endswith(needed) for name in packed), f"no {needed} in the sdist"
print(f"sdist: {len(packed)} entries, complete")

compiled = (".pyx", ".pxd", ".h")  # stay out of wheels
installed = {name.removeprefix("src/") for name in wanted if name.startswith("src/") and not name.endswith(compiled)}
contents = {}
for wheel in map(Path, wheels):
    with zipfile.ZipFile(wheel) as archive:
        content = {name: archive.read(name) for name in archive.namelist() if not name.endswith("/RECORD")}
    missing = sorted(installed - set(content))
    assert not missing, f"not in {wheel}: {missing}"
    first = contents.setdefault(wheel.name, content)
    assert set(first) == set(content), f"the wheels differ in {set(first) ^ set(content)}"
    changed = sorted(name for name in first if first[name] != content[name])
    assert not changed, f"the wheels differ in the content of {changed}"
    size = wheel.stat().st_size
    limits = next(limits for part, limits in LARGEST.items() if part in wheel.name)
    limit = next(limit for part, limit in limits.items() if part in wheel.name)
    assert size <= limit, f"{wheel} has {size} bytes, more than {limit}"
    same = "" if content is first else ", equal to the other one"
    print(f"{wheel.name}: {size / 1e6:.2f} MB, {len(content)} files{same}")
