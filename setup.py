"""Builds the C kernels, which are optional: without a C compiler everything still works, more slowly."""

import glob

from setuptools import Extension, setup
from setuptools.command.build_ext import build_ext
from setuptools.errors import CompileError

SAFE = ["-O3", "-std=c11", "-fno-math-errno", "-fno-trapping-math", "-ffp-contract=fast"]


class BuildKernels(build_ext):
    """A shared library that ctypes opens: it holds no Python module, so nothing need be exported."""

    def get_export_symbols(self, ext: Extension) -> list[str]:
        return []

    def build_extension(self, ext: Extension) -> None:
        try:
            super().build_extension(ext)
        except CompileError:  # Apple's clang knows no OpenMP: one core, the same numbers
            ext.extra_compile_args = [flag for flag in ext.extra_compile_args if flag != "-fopenmp"]
            ext.extra_link_args = []
            super().build_extension(ext)


setup(
    ext_modules=[
        Extension(
            "trainers._kernels",
            sources=sorted(glob.glob("trainers/kernels/*.c")),
            depends=sorted(glob.glob("trainers/kernels/*.h")),
            extra_compile_args=[*SAFE, "-fopenmp"],
            extra_link_args=["-fopenmp"],
            optional=True,
        )
    ],
    cmdclass={"build_ext": BuildKernels},
)
