"""Holders of a lease."""

import time
from dataclasses import replace

from raydistill.runs.lease import Holder


def elsewhere(*, age_s: float) -> Holder:
    """A holder on another machine that gave its last sign of life so long ago."""
    now_s = time.time()
    return replace(
        Holder.here(), host="spot-7", machine="other", job="raysubmit_1",
        since_s=now_s - age_s - 60, beat_s=now_s - age_s,
    )  # fmt: skip
