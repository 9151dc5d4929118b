"""golden.py TESTS SET [NAME...]: the golden hashes of the tests, with one instruction set, as a line of JSON.

Runs on the target, in one process: under emulation a short program's start is what takes longest. NAMEs that are given
are left out.
"""

import contextlib
import hashlib
import importlib
import io
import json
import os
import sys
import time
import traceback

tests, simd, *left_out = sys.argv[1:]
os.environ["CYDROP_SIMD"] = simd
sys.path.insert(0, tests)

import cydrop as cd  # noqa: E402

# module of the tests, its script and its hashes, how often they come; what a script leaves open, if it does: then each
# hash comes as often in a row
GOLDEN = {
    "STEPS": ("test_same_bits", "SCRIPT", "GOLDEN", 1),
    "BEGIN": ("test_same_bits", "BEGIN_SCRIPT", "BEGIN_GOLDEN", 1),
    "FROM_DATA": ("test_same_bits", "FROM_DATA_SCRIPT", "FROM_DATA_GOLDEN", 3),
    "KINDS": ("test_same_bits", "KINDS_SCRIPT", "KINDS_GOLDEN", 2),
    "BLOCKS": ("test_same_bits", "BLOCKS_SCRIPT", "BLOCKS_GOLDEN", 3),
    "EMBEDDINGS": ("test_same_bits", "EMBEDDINGS_SCRIPT", "EMBEDDINGS_GOLDEN", 2),
    "ENSEMBLE": ("test_same_bits", "ENSEMBLE_SCRIPT", "ENSEMBLE_GOLDEN", 2),
    "MEMBERS": ("test_same_bits", "MEMBERS_SCRIPT", "MEMBERS_GOLDEN", 2, "cd.Dropout(0.1)"),
    "MEMBERS_SHARED": (
        "test_same_bits",
        "MEMBERS_SCRIPT",
        "MEMBERS_SHARED_GOLDEN",
        2,
        'cd.Dropout(0.5, shared="batch")',
    ),
    "SHARDS": ("test_shards", "SCRIPT", "GOLDEN", 3),
    "BFLOAT16": ("test_bfloat16", "SCRIPT", "GOLDEN", 4),
    "INT8": ("test_quantization", "SCRIPT", "GOLDEN", 4),
    "LARGE": ("test_same_bits", "LARGE_SCRIPT", "LARGE_GOLDEN", 5),
}
SLOW = ["FROM_DATA", "MEMBERS", "MEMBERS_SHARED", "SHARDS", "LARGE"]


def run(script):
    printed = io.StringIO()
    try:
        with contextlib.redirect_stdout(printed):
            exec(compile(script.format(tests=tests), "script", "exec"), {"__name__": "__main__"})
    except Exception:
        return traceback.format_exc().splitlines()[-1:]
    return printed.getvalue().split()


config = cd.show_config()
fused = config["fused_multiply_add"]
found, different, seconds = hashlib.sha256(), [], {}
for name, (module, script, golden, times, *drop) in GOLDEN.items():
    if name in left_out:
        continue
    module = importlib.import_module(module)
    wanted = getattr(module, golden)
    wanted = wanted[fused] if isinstance(wanted, dict) else wanted
    start = time.monotonic()
    got = run(getattr(module, script).replace("{drop}", *drop) if drop else getattr(module, script))
    seconds[name] = round(time.monotonic() - start, 1)
    wanted = [wanted] if isinstance(wanted, str) else wanted
    if got != ([one for one in wanted for _ in range(times)] if drop else times * wanted):
        different.append(f"{name}: {' '.join(got)[:300]}")
    if name not in SLOW:  # so that targets that leave some out show the same digest
        found.update(" ".join(got).encode())
config |= {"bits": found.hexdigest()[:12], "different": different, "names": list(seconds), "seconds": seconds}
print(json.dumps(config))
