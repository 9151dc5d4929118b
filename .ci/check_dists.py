"""check_dists.py SDIST WHEEL WHEEL: the sdist is complete and clean, both wheels are equal and small."""

import subprocess
import sys
import tarfile
import zipfile

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

contents = []
for wheel in wheels:
    with zipfile.ZipFile(wheel) as archive:
        contents.append({name: archive.read(name) for name in archive.namelist() if not name.endswith("/RECORD")})
first, second = contents
assert set(first) == set(second), f"the wheels differ in {set(first) ^ set(second)}"
changed = sorted(name for name in first if first[name] != second[name])
assert not changed, f"the wheels differ in the content of {changed}"
with open(wheels[0], "rb") as file:
    size = len(file.read())
assert size <= 2_400_000, f"the wheel has {size} bytes"
print(f"sdist: {len(packed)} entries, complete; two equal wheels of {size / 1e6:.2f} MB, {len(first)} files")
