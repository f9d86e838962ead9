"""Holders of a lease."""

import time
from dataclasses import replace

from raydistill.runs.lease import Holder


def elsewhere(*, age_s: float) -> Holder:
    """A holder on another machine with its last heartbeat `age_s` ago; it began 60 s earlier."""
    now_s = time.time()
    return replace(
        Holder.here(), host="spot-7", machine="other", job="raysubmit_1",
        since_s=now_s - age_s - 60, beat_s=now_s - age_s,
    )  # fmt: skip
