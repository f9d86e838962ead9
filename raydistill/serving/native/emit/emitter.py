"""The compiled functions as LLVM IR, and objects and libraries for several CPUs.

numba compiles them without optimisation and without Python. Here each gets its C name, everything
else becomes internal, and LLVM optimises the whole for the CPU that is asked for.
"""

from __future__ import annotations

import logging
import re
import shutil
import subprocess
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import llvmlite.binding as llvm

from raydistill.serving.native.layout import DOT, LIBRARY, OBJECT
from raydistill.serving.native.python_calls import NAME as PYTHON

logger = logging.getLogger("raydistill")


class Dot(NamedTuple):
    """A CPU's code of `dot`, and how many bytes it takes: `%t` of sums `%s` and bytes `%x`, `%w`.

    It adds to sum o the products of the bytes 4 o .. 4 o + 3 of x and w; those of x are 0..127,
    those of w -127..127, so sums of two products fit in int16.
    """

    num_bytes: int
    declared: str
    body: str


_VNNI = Dot(
    64,
    "declare %S @llvm.x86.avx512.vpdpbusd.512(%S, %B, %B)",
    "  %t = call %S @llvm.x86.avx512.vpdpbusd.512(%S %s, %B %x, %B %w)",
)
_AVX2 = Dot(
    32,
    """
declare <16 x i16> @llvm.x86.avx2.pmadd.ub.sw(<32 x i8>, <32 x i8>)
declare <8 x i32> @llvm.x86.avx2.pmadd.wd(<16 x i16>, <16 x i16>)""",
    """
  %p = call <16 x i16> @llvm.x86.avx2.pmadd.ub.sw(<32 x i8> %x, <32 x i8> %w)
  %q = call <8 x i32> @llvm.x86.avx2.pmadd.wd(<16 x i16> %p, <16 x i16> <"""
    + ", ".join(["i16 1"] * 16)
    + """>)
  %t = add <8 x i32> %s, %q""",
)
_SDOT = Dot(
    16,
    "declare %S @llvm.aarch64.neon.sdot.v4i32.v16i8(%S, %B, %B)",
    "  %t = call %S @llvm.aarch64.neon.sdot.v4i32.v16i8(%S %s, %B %x, %B %w)",
)
_NEON = Dot(
    16,
    """
declare <8 x i16> @llvm.aarch64.neon.smull.v8i16(<8 x i8>, <8 x i8>)
declare <8 x i16> @llvm.aarch64.neon.addp.v8i16(<8 x i16>, <8 x i16>)
declare <4 x i32> @llvm.aarch64.neon.saddlp.v4i32.v8i16(<8 x i16>)
declare <8 x i8> @llvm.vector.extract.v8i8.v16i8(<16 x i8>, i64)""",
    """
  %x0 = call <8 x i8> @llvm.vector.extract.v8i8.v16i8(<16 x i8> %x, i64 0)
  %x1 = call <8 x i8> @llvm.vector.extract.v8i8.v16i8(<16 x i8> %x, i64 8)
  %w0 = call <8 x i8> @llvm.vector.extract.v8i8.v16i8(<16 x i8> %w, i64 0)
  %w1 = call <8 x i8> @llvm.vector.extract.v8i8.v16i8(<16 x i8> %w, i64 8)
  %a = call <8 x i16> @llvm.aarch64.neon.smull.v8i16(<8 x i8> %x0, <8 x i8> %w0)
  %b = call <8 x i16> @llvm.aarch64.neon.smull.v8i16(<8 x i8> %x1, <8 x i8> %w1)
  %p = call <8 x i16> @llvm.aarch64.neon.addp.v8i16(<8 x i16> %a, <8 x i16> %b)
  %q = call <4 x i32> @llvm.aarch64.neon.saddlp.v4i32.v8i16(<8 x i16> %p)
  %t = add <4 x i32> %s, %q""",
)


class Target(NamedTuple):
    """A platform: what LLVM needs, the linker's emulation, and the CPU's dot products."""

    triple: str
    cpu: str
    features: str
    emulation: str  # of ld and ld.lld; "": only the object is made
    dot: Dot


_LINUX_X86, _LINUX_ARM = "x86_64-unknown-linux-gnu", "aarch64-unknown-linux-gnu"
TARGETS = {
    "linux-x86_64-v3": Target(_LINUX_X86, "x86-64-v3", "", "elf_x86_64", _AVX2),
    "linux-x86_64-v4": Target(_LINUX_X86, "x86-64-v4", "+avx512vnni", "elf_x86_64", _VNNI),
    "linux-aarch64": Target(_LINUX_ARM, "generic", "+neon", "aarch64linux", _NEON),
    "linux-aarch64-dot": Target(_LINUX_ARM, "generic", "+neon,+dotprod", "aarch64linux", _SDOT),
    "macos-arm64": Target("arm64-apple-macosx11.0.0", "apple-m1", "", "", _SDOT),
    "windows-x86_64-v3": Target("x86_64-pc-windows-msvc", "x86-64-v3", "", "", _AVX2),
}
_LINKERS = ("ld.lld", "ld", "aarch64-linux-gnu-ld")
_NEEDED = "libm.so.6"  # expf and log1p
_OPTIMISATION = 3
# A loop that sets or copies a few numbers stays one: the call of a C function takes longer.
_NO_CALLS = " ".join(
    f'"no-builtin-{name}"' for name in ("memset", "memset_pattern16", "memcpy", "memmove")
)
# The function that a tile calls: `dot` for 64 bytes. %S and %B: what an instruction takes.
_DOT_TEXT = """
target triple = "{triple}"
%S = type <{sums} x i32>
%B = type <{size} x i8>
declare %S @llvm.vector.extract.v{sums}i32.v16i32(<16 x i32>, i64)
declare %B @llvm.vector.extract.v{size}i8.v64i8(<64 x i8>, i64)
declare <16 x i32> @llvm.vector.insert.v16i32.v{sums}i32(<16 x i32>, %S, i64)
{declared}
define internal %S @dot(%S %s, %B %x, %B %w) alwaysinline {{
{body}
  ret %S %t
}}
define <16 x i32> @{name}(<16 x i32> %a0, <64 x i8> %x, <64 x i8> %w) alwaysinline {{
{parts}
  ret <16 x i32> %a{last}
}}
"""
_DOT_PART = """
  %s{at} = call %S @llvm.vector.extract.v{sums}i32.v16i32(<16 x i32> %a{at}, i64 {sum})
  %x{at} = call %B @llvm.vector.extract.v{size}i8.v64i8(<64 x i8> %x, i64 {byte})
  %w{at} = call %B @llvm.vector.extract.v{size}i8.v64i8(<64 x i8> %w, i64 {byte})
  %t{at} = call %S @dot(%S %s{at}, %B %x{at}, %B %w{at})
  %a{next} = call <16 x i32> @llvm.vector.insert.v16i32.v{sums}i32(
    <16 x i32> %a{at}, %S %t{at}, i64 {sum})
"""
# A body of the C functions: numba's function writes its result to memory and returns a status.
_WRAPPER = """
declare i32 @"{inner}"(ptr, ptr{types})
define i64 @{name}({args}) {{
  %result = alloca i64
  %raised = alloca ptr
  store i64 0, ptr %result
  %status = call i32 @"{inner}"(ptr %result, ptr %raised{passed})
  %value = load i64, ptr %result
  %failed = icmp ne i32 %status, 0
  %code = select i1 %failed, i64 -1, i64 %value
  ret i64 %code
}}
"""


def module_text(functions: dict[str, tuple[Callable[..., Any], int]]) -> str:
    """LLVM IR of functions by their C names, each with its number of int64 arguments."""
    from numba.core.types import (
        int64,  # imported here: numba reads its settings when it is imported
    )

    llvm.add_symbol(DOT, 1)  # numba loads what it compiles: its code of here never runs
    whole: Any = None
    wrappers = []
    for name, (function, num) in functions.items():
        function.compile((int64,) * num)  # type: ignore[attr-defined]
        (compiled,) = function.overloads.values()  # type: ignore[attr-defined]
        module = llvm.parse_assembly(compiled.library.get_llvm_str())
        whole = module if whole is None else whole
        if module is not whole:
            whole.link_in(module)
        wrappers.append(_wrapper(name, compiled.fndesc.llvm_func_name, num))
    for text in wrappers:
        whole.link_in(llvm.parse_assembly(text))
    for found in whole.functions:
        if not found.is_declaration and found.name not in functions:
            found.linkage = "internal"
    return str(whole)


def _wrapper(name: str, inner: str, num: int) -> str:
    args = ", ".join(f"i64 %a{at}" for at in range(num))
    passed = f", {args}" if num else ""
    return _WRAPPER.format(name=name, inner=inner, args=args, passed=passed, types=", i64" * num)


def object_of(text: str, target: Target) -> bytes:
    """The object file of a module, optimised for a target."""
    llvm.initialize_all_targets()
    llvm.initialize_all_asmprinters()
    machine = llvm.Target.from_triple(target.triple).create_target_machine(
        cpu=target.cpu, features=target.features, opt=3, reloc="pic", codemodel="small"
    )
    module = llvm.parse_assembly(_retargeted(text, target, str(machine.target_data)))
    _define_dot(module, target, str(machine.target_data))
    module.verify()
    tuning = llvm.create_pipeline_tuning_options(speed_level=_OPTIMISATION)
    tuning.loop_vectorization = tuning.slp_vectorization = True
    # Loops of a dozen words are over before an unrolled copy begins, and with all these copies the
    # code of a pair exceeds a CPU's cache of instructions (docs/results.md).
    tuning.loop_unrolling = tuning.loop_interleaving = False
    builder = llvm.create_pass_builder(machine, tuning)
    _drop_unused(module, builder)
    builder.getModulePassManager().run(module, builder)
    _drop_unused(module, builder)
    return bytes(machine.emit_object(module))


def _define_dot(module: Any, target: Target, data_layout: str) -> None:  # noqa: ANN401
    """Give the module the CPU's own code of the dot products, if it calls them."""
    if DOT not in (function.name for function in module.functions):
        return
    dot = target.dot
    size, sums = dot.num_bytes, dot.num_bytes // 4
    parts = [
        _DOT_PART.format(size=size, sums=sums, at=at, next=at + 1, sum=at * sums, byte=at * size)
        for at in range(64 // size)
    ]
    given = {"triple": target.triple, "name": DOT, "size": size, "sums": sums, "last": len(parts)}
    given |= {"declared": dot.declared, "body": dot.body, "parts": "".join(parts)}
    defined = llvm.parse_assembly(_DOT_TEXT.format(**given))
    defined.data_layout = data_layout
    module.link_in(defined)
    module.get_function(DOT).linkage = "internal"


def _retargeted(text: str, target: Target, data_layout: str) -> str:
    text = re.sub(r"^target triple = .*$", f'target triple = "{target.triple}"', text, flags=re.M)
    text = re.sub(
        r"^target datalayout = .*$", f'target datalayout = "{data_layout}"', text, flags=re.M
    )
    # Addresses of Python objects that nothing reads here.
    text = re.sub(r"= common ((?:local_unnamed_addr )?global ptr null)", r"= internal \1", text)
    return re.sub(r"^(define .*) \{$", rf"\1 {_NO_CALLS} {{", text, flags=re.M)


def _drop_unused(module: Any, builder: Any) -> None:  # noqa: ANN401 - llvmlite's
    passes = llvm.create_new_module_pass_manager()
    passes.add_global_dead_code_eliminate_pass()
    passes.run(module, builder)


def link(object_file: Path, library: Path, target: Target) -> str:
    """Make a shared library with the first linker that succeeds; its name, "" for none."""
    if not target.emulation:
        return ""
    for linker in filter(shutil.which, _LINKERS):
        try:
            with tempfile.TemporaryDirectory() as folder:
                inputs = [object_file, _named_library(_NEEDED, linker, Path(folder), target)]
                _run_linker(linker, target, library, name="libraydistill.so", inputs=inputs)
        except subprocess.CalledProcessError as error:
            logger.info("%s: %s", linker, error.stderr.strip())
            library.unlink(missing_ok=True)
            continue
        return linker
    return ""


def _named_library(name: str, linker: str, folder: Path, target: Target) -> Path:
    """A library without content that makes the linker note a need for `name`.

    So the target's own libraries are not wanted here; those of the machine that loads it are used.
    """
    empty, library = folder / "empty.o", folder / name
    empty.write_bytes(object_of(f'target triple = "{target.triple}"\n', target))
    _run_linker(linker, target, library, name=name, inputs=[empty])
    return library


def _run_linker(
    linker: str, target: Target, library: Path, *, name: str, inputs: list[Path]
) -> None:
    flags = ["-m", target.emulation, "-shared", "-z", "noexecstack", "-soname", name]
    command = [linker, *flags, "-o", str(library), *map(str, inputs)]
    subprocess.run(command, capture_output=True, text=True, check=True)


def build(folder: Path, *, targets: list[str], checked: bool = False) -> dict[str, Path]:
    """Emit objects and, where a linker is found, libraries to a folder; the files by target.

    `checked`: with a check of every index, which makes a function return RD_FAILED.
    """
    started = time.perf_counter()
    text = module_text(_functions(checked))
    logger.info("compiled in %.1f s", time.perf_counter() - started)
    made = {}
    for name in targets:
        started = time.perf_counter()
        object_file = folder / OBJECT.format(name)
        object_file.write_bytes(object_of(text, TARGETS[name]))
        library = folder / LIBRARY.format(name)
        linker = link(object_file, library, TARGETS[name])
        made[name] = library if linker else object_file
        used_s = time.perf_counter() - started
        logger.info("%s in %.1f s, linked by %s", made[name], used_s, linker or "nothing")
    return made


def _functions(checked: bool) -> dict[str, tuple[Callable[..., Any], int]]:
    from raydistill.serving.machine_code.emitted import start_emitting

    start_emitting(checked=checked)
    from raydistill.serving.native.emit import check, entry, strings  # after it: decorators read it

    functions: dict[str, tuple[Callable[..., Any], int]] = {
        "rd_format": (entry.model_format, 0),
        "rd_check": (check.check, 2),
        "rd_verify": (check.verify, 2),
        "rd_scratch_bytes": (entry.scratch_bytes, 1),
        "rd_score": (entry.score, 8),
        "rd_score_pairs": (entry.score_pairs, 8),
        "rd_clean": (entry.clean_text, 7),
    }
    if checked:  # a failed check would leave Python's function at once, without the GIL
        return functions
    return {**functions, PYTHON: (strings.score_strings, 3)}
