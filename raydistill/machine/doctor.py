"""doctor: all checks of this machine, and of what a run file needs; none changes anything."""

from __future__ import annotations

import os
from collections.abc import Iterator

from raydistill.machine.check import Check
from raydistill.machine.devices import check_devices, check_memory
from raydistill.machine.ray_checks import check_ray
from raydistill.machine.store import check_run_dir
from raydistill.machine.system import (
    check_clock,
    check_files,
    check_library,
    check_numba,
    check_shared_memory,
    check_temporary,
)
from raydistill.machine.versions import check_python, check_versions, has_distill


def examine(
    *, run_dir: str | None, address: str | None, is_of_run: bool, starts_ray: bool = True
) -> Iterator[Check]:
    """One check after the other; those of Ray take seconds.

    `is_of_run`: a run file was given, so what makes a bundle must be there. `run_dir`: of it, for
    the access to its store. `address`: of a Ray cluster; without one a local Ray is tried.
    """
    makes_bundles = is_of_run or has_distill()
    yield check_python()
    yield from check_versions(needs_distill=is_of_run)
    yield check_memory()
    yield from check_devices(needs_torch=is_of_run)
    yield check_library()
    yield from check_numba()
    yield check_clock()
    yield check_files()
    if makes_bundles:
        yield check_shared_memory()
        yield check_temporary()
    if run_dir is not None:
        yield from check_run_dir(run_dir)
    where = address or os.environ.get("RAY_ADDRESS") or None
    if starts_ray:
        yield from check_ray(where, needs_ray=is_of_run)
