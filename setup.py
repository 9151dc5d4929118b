"""Builds the compiled core: every kernel once for each instruction set, chosen when cydrop is imported.

    src/cydrop/_core/dropout.pyx --cython--> dropout.c --cc--> cydrop/_core/baseline/dropout.so
                                                      --cc--> cydrop/_core/avx2/dropout.so
                                                      --cc--> cydrop/_core/avx512/dropout.so

Environment variables read by the build:

CYDROP_OPENMP=auto|1|0   auto (default): warn and build the serial version where OpenMP is missing; 1: fail; 0: serial
CYDROP_DEBUG=1           bounds checks, assertions and debug symbols
CYDROP_ANNOTATE=1        also write Cython's annotated HTML into build/cython
CYDROP_LIMITED_API=1     only functions that every Python from 3.11 on has: one wheel (cp311-abi3) for all of them
"""

import copy
import os
import shlex
import sys
import sysconfig
import tempfile
import warnings
from pathlib import Path

import Cython
from Cython.Build import cythonize
from setuptools import Extension, setup
from setuptools.command.build_ext import build_ext

CORE = "src/cydrop/_core"
SHARED = "cydrop._core._shared"  # Cython's own support code, once instead of once a module
ONCE = ["cpu"]  # needed before an instruction set is chosen
PLUMBING = ["_shared", *ONCE]  # no loops over numbers: -O3 only makes them larger
KERNELS = ["xorshift", "dropout", "noise", "activations", "dense", "norms", "losses", "optimizers", "engine", "many"]

X86_TARGETS = {
    "avx2": ["-mavx2", "-mfma", "-mbmi", "-mbmi2", "-mpopcnt"],
    "avx512": ["-mavx2", "-mfma", "-mbmi", "-mbmi2", "-mpopcnt", "-mavx512f", "-mavx512bw", "-mavx512dq",
               "-mavx512vl", "-mprefer-vector-width=512"],
}  # fmt: skip
# Same bits everywhere: products and sums are contracted only where the source says fma, and no flag
# lets the compiler reorder. The two -fno- flags only say that nobody reads errno or the exception flags.
EXACT = ["-ffp-contract=off", "-fno-math-errno", "-fno-trapping-math"]
# of 32-bit x86, whose own registers keep more digits than a float has; fma.h refuses them
SSE = ["-msse2", "-mfpmath=sse"]
SMALL = ["-fno-plt"]  # the interpreter's functions are called straight from the table of their addresses

DEBUG = os.environ.get("CYDROP_DEBUG", "0") == "1"
ANNOTATE = os.environ.get("CYDROP_ANNOTATE", "0") == "1"
LIMITED_API = os.environ.get("CYDROP_LIMITED_API", "0") == "1"


class BuildCore(build_ext):
    """Adds the flags that the compiler at hand understands; objects of each instruction set stay apart."""

    def finalize_options(self):
        super().finalize_options()
        if self.parallel is None:
            self.parallel = os.cpu_count() or 1

    def get_libraries(self, ext):
        libraries = super().get_libraries(ext)
        if LIMITED_API and sys.platform == "win32":  # the library of every version instead of this one's
            own = "python{}{}".format(*sys.version_info[:2])
            libraries = ["python3" if library == own else library for library in libraries]
        return libraries

    def build_extensions(self):
        compile_flags, link_flags = self._common_flags()
        targets = {"baseline": []} | self._x86_targets()
        generated, self.extensions = self.extensions, []
        for ext in generated:
            module = ext.name.rpartition(".")[2]
            if module in KERNELS:
                self.extensions += [self._variant(ext, target, flags) for target, flags in targets.items()]
            else:
                ext.cydrop_target = "baseline"
                self.extensions.append(ext)
        for ext in self.extensions:
            own_flags = self._own_flags(ext.name.rpartition(".")[2])
            ext.extra_compile_args = compile_flags + own_flags + ext.extra_compile_args
            ext.extra_link_args = link_flags + ext.extra_link_args
        super().build_extensions()

    def build_extension(self, ext):
        if not hasattr(ext, "cydrop_target"):
            return super().build_extension(ext)
        apart = copy.copy(self)  # modules are built in parallel: a changed attribute of self would race
        apart.build_temp = os.path.join(self.build_temp, ext.cydrop_target)
        return super(BuildCore, apart).build_extension(ext)

    def copy_extensions_to_source(self):
        for ext in self.extensions:  # an editable install needs the folders of the instruction sets in the tree
            folder = os.path.join("src", *ext.name.split(".")[:-1])
            os.makedirs(folder, exist_ok=True)
            if LIMITED_API:  # Python would rather import a module that was built for it alone
                module = ext.name.rpartition(".")[2]
                Path(folder, module + sysconfig.get_config_var("EXT_SUFFIX")).unlink(missing_ok=True)
        super().copy_extensions_to_source()

    @staticmethod
    def _variant(ext, target, flags):
        variant = copy.copy(ext)
        package, _, module = ext.name.rpartition(".")
        variant.name = variant._full_name = f"{package}.{target}.{module}"
        variant.extra_compile_args = [*ext.extra_compile_args, *flags, f'-DCYDROP_TARGET="{target}"']
        variant.cydrop_target = target
        return variant

    def _own_flags(self, module):
        if DEBUG or self.compiler.compiler_type == "msvc":
            return []
        if module in PLUMBING:
            return ["-O2"]
        if module in ("engine", "many"):  # they call kernels: the compiler decides what is worth a copy at every call
            return ["-DCYTHON_INLINE="]
        return []

    def _common_flags(self):
        if self.compiler.compiler_type == "msvc":
            warnings.warn(
                "MSVC builds cydrop without vectors and without the fused multiply-add: slower by several times, with "
                "the bits of such machines; build with MinGW's GCC or clang-cl",
                stacklevel=2,
            )
            compile_flags, link_flags = (["/Od", "/Zi"] if DEBUG else ["/O2"]) + ["/fp:precise"], []
            openmp = [(["/openmp"], [])]
        else:
            compile_flags = ["-O1", "-g"] if DEBUG else ["-O3", "-g0"]
            compile_flags += [flag for flag in EXACT if self._accepts([flag])]
            not_power = "#ifdef __powerpc__\n#error\n#endif\nint main(void) { return 0; }\n"  # there such calls crash
            if self._builds(not_power, [*SMALL, "-Werror"], None):
                compile_flags += SMALL
            header = f'#include "{Path(CORE, "fma.h").resolve().as_posix()}"\nint main(void) {{ return 0; }}\n'
            if not self._builds(header, [], None) and self._builds(header, SSE, None):
                compile_flags += SSE
            compile_flags += ["-Wno-unused-function", "-Wno-unused-variable"]
            link_flags = [] if DEBUG or sys.platform == "darwin" else ["-Wl,-s"]
            openmp = [(["-fopenmp"], ["-fopenmp"])]
            if sys.platform == "darwin":
                apple = [(["-Xpreprocessor", "-fopenmp"], ["-lomp"])]  # its Clang has OpenMP, but no library for it
                for folder in ("/opt/homebrew/opt/libomp", "/usr/local/opt/libomp"):  # Homebrew's, outside all paths
                    flags = [*apple[0][0], f"-I{folder}/include"], [f"-L{folder}/lib", *apple[0][1]]
                    apple += [flags] if Path(folder).is_dir() else []
                openmp = [*apple, *openmp]
        wish = os.environ.get("CYDROP_OPENMP", "auto")
        if wish not in ("auto", "0", "1"):
            raise SystemExit(f"CYDROP_OPENMP must be auto, 0 or 1, not {wish!r}")
        if wish != "0":
            found = next((pair for pair in openmp if self._links_openmp(*pair)), None)
            if found is not None:
                return compile_flags + found[0], link_flags + found[1]
            if wish == "1":
                raise SystemExit("CYDROP_OPENMP=1, but a program with OpenMP does not compile and link here")
            warnings.warn("OpenMP not found: cydrop is built to run on one thread", stacklevel=2)
        return compile_flags, link_flags

    def _x86_targets(self):
        """What the compiler compiles for counts, not the machine: a 32-bit Python runs on a 64-bit system, too. There
        GCC 12 gets the masks of AVX-512 wrong."""
        if self.compiler.compiler_type == "msvc":
            return {}
        program = "#ifndef __x86_64__\n#error\n#endif\nint main(void) { return 0; }\n"
        return {name: flags for name, flags in X86_TARGETS.items() if self._builds(program, [*flags, "-Werror"], None)}

    def _accepts(self, flags):
        return self._builds("int main(void) { return 0; }\n", [*flags, "-Werror"], None)

    def _links_openmp(self, compile_flags, link_flags):
        source = "#include <omp.h>\nint main(void) { return omp_get_max_threads() < 1; }\n"
        return self._builds(source, compile_flags, link_flags)

    def _builds(self, source, compile_flags, link_flags):
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder, "probe.c")
            path.write_text(source)
            try:
                objects = self.compiler.compile([str(path)], output_dir=folder, extra_postargs=compile_flags)
                if link_flags is not None:
                    wanted = [*shlex.split(os.environ.get("LDFLAGS", "")), *link_flags]  # setuptools forgets them here
                    self.compiler.link_executable(objects, str(Path(folder, "probe")), extra_postargs=wanted)
            except Exception:
                return False
        return True


def limited_api():
    """(arguments of every Extension, options of commands) for a wheel that all Pythons from 3.11 on can import."""
    if not LIMITED_API:
        return {}, {}
    if sysconfig.get_config_var("Py_GIL_DISABLED"):
        raise SystemExit("CYDROP_LIMITED_API=1: a free-threaded Python has no limited API; build without it")
    if tuple(int(number) for number in Cython.__version__.split(".")[:2]) < (3, 2):
        raise SystemExit(
            "CYDROP_LIMITED_API=1 needs Cython 3.2: modules of Cython 3.1.0 ask for a function that Python 3.13 lacks; "
            f"this is Cython {Cython.__version__}"
        )
    arguments = {"py_limited_api": True, "define_macros": [("Py_LIMITED_API", "0x030B0000")]}
    # folders of its own: what an ordinary build has left in build/lib would get into the wheel
    return arguments, {"bdist_wheel": {"py_limited_api": "cp311"}, "build": {"build_base": "build/abi3"}}


def main():
    arguments, options = limited_api()
    extensions = [Extension(SHARED, [f"{CORE}/_shared.c"], **arguments)]
    headers = sorted(str(path) for path in Path(CORE).glob("*.h"))
    for module in ONCE + KERNELS:
        source = f"{CORE}/{module}.pyx"
        extensions.append(
            Extension(f"cydrop._core.{module}", [source], include_dirs=[CORE], depends=headers, **arguments)
        )

    setup(
        ext_modules=cythonize(
            extensions,
            build_dir="build/cython",
            annotate=ANNOTATE,
            nthreads=0 if sys.platform in ("win32", "darwin") else os.cpu_count() or 1,
            shared_utility_qualified_name=SHARED,
            compiler_directives={
                "language_level": "3str",
                "boundscheck": DEBUG,
                "initializedcheck": DEBUG,
                "wraparound": False,
                "cdivision": True,
                "embedsignature": True,
                "freethreading_compatible": True,
                "auto_pickle": False,
            },
        ),
        cmdclass={"build_ext": BuildCore},
        options=options,
    )


if __name__ == "__main__":  # Cython's workers may import this file anew, as __mp_main__
    main()
