"""The bundle that a server scores with, and its replacement by a newer one.

A bundle is read into memory, not mapped: a file that is cut or written over would end a process
that has mapped it. It is taken only if its golden pairs score as golden.json says.
"""

from __future__ import annotations

import json
import logging
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np

from raydistill.errors import UserError
from raydistill.serving.bundle import (
    BUNDLE,
    CARD,
    CURRENT,
    GOLDEN,
    MODEL,
    bundle_name,
    current_bundle,
    read_bundle,
    read_settings,
)
from raydistill.serving.native.layout import aligned, verify
from raydistill.serving.scorer import Scorer, local_folder

logger = logging.getLogger("raydistill")
_MOST_APART = 1e-4  # of golden scores: sums in another order on another CPU differ by 1e-6


@dataclass(frozen=True)
class Loaded:
    """A bundle in memory; `num_golden`: pairs that were scored and compared."""

    name: str
    scorer: Scorer
    folder: Path
    card: str
    num_golden: int
    loaded_at: datetime = field(default_factory=lambda: datetime.now(UTC))

    @property
    def is_single(self) -> bool:
        """Whether it reads titles alone."""
        return bool(self.scorer.settings.get("single_texts"))


class Bundles:
    """The newest whole bundle of a source; `current` is replaced, never changed."""

    def __init__(self, source: str | Path) -> None:
        """Load the bundle.

        Raises:
            UserError: there is none, it is damaged, or its golden scores differ.
        """
        self.source = str(source)
        self._place = located(self.source)
        self.current = load(self._place)
        self.num_failures, self.failure = 0, ""
        _log_loaded(self.current)

    def refresh(self) -> bool:
        """Take a newer bundle if there is one; whether it did. Not for the thread that answers.

        What cannot be read is logged and counted once, and the bundle of before goes on.
        """
        try:
            name = newest_name(self._place)
            if name == self.current.name:
                self._say("")
                return False
            newer = load(self._place)
        except UserError as error:
            self._say(str(error))
            return False
        except Exception as error:  # of damaged files any: it must not end the looks
            self._say(f"{type(error).__name__}: {error}")
            return False
        self._say("")
        self.current = newer
        _log_loaded(newer)
        return True

    def _say(self, failure: str) -> None:
        if failure and failure != self.failure:
            self.num_failures += 1
            logger.error("serve     %s goes on: %s", self.current.name, failure)
        self.failure = failure


def _log_loaded(bundle: Loaded) -> None:
    golden = f"{bundle.num_golden} golden pairs agree" if bundle.num_golden else "no golden pairs"
    logger.info("serve     bundle %s of %s: %s", bundle.name, bundle.folder, golden)


def located(source: str) -> str:
    """Where the bundles of a source are looked for: a URI, or a local folder.

    The folder of a hub's name is that of its copy, and a local folder that is deleted later never
    becomes a hub's name.

    Raises:
        UserError: there is no such folder, and no hub gives it.
    """
    return source if "://" in source else str(local_folder(source))


def newest_name(place: str) -> str:
    """The fingerprint of the newest bundle of what `located` gives, without its files.

    Raises:
        UserError: it cannot be read.
    """
    if "://" in place:
        return _remote_name(place)
    return local_name(current_bundle(Path(place)))


def local_name(folder: Path) -> str:
    """The fingerprint in the bundle.json of a folder."""
    return bundle_name(
        {"bundle": read_settings(folder / BUNDLE).get("fingerprint")}, where=str(folder / BUNDLE)
    )


def _remote_name(source: str) -> str:
    from raydistill.files.folder import Folder

    folder = Folder(source)
    if (pointer := folder.read_json(CURRENT)) is not None:
        return bundle_name(pointer, where=f"{source}/{CURRENT}")
    if (settings := folder.read_json(BUNDLE)) is None:
        raise UserError(f"no bundle in {source}: it has no {CURRENT} and no {BUNDLE}")
    return bundle_name({"bundle": settings.get("fingerprint")}, where=f"{source}/{BUNDLE}")


def load(place: str) -> Loaded:
    """The newest bundle of what `located` gives, read and checked.

    Raises:
        UserError: there is none, it is damaged, or its golden scores differ.
    """
    folder = current_bundle(local_folder(place) if "://" in place else Path(place))
    settings, _ = read_bundle(folder)
    model = aligned((folder / MODEL).read_bytes())
    verify(model)
    scorer = Scorer(settings, model)
    num_golden = check_golden(scorer, folder)
    card = folder / CARD
    text = card.read_text(errors="replace") if card.is_file() else ""
    return Loaded(str(settings["fingerprint"]), scorer, folder, text, num_golden)


def check_golden(scorer: Scorer, folder: Path) -> int:
    """Score the golden pairs of a bundle; the number of pairs, 0 without a golden.json.

    Raises:
        UserError: a score differs, or golden.json has another form.
    """
    file = folder / GOLDEN
    if not file.is_file():
        return 0
    try:
        pairs: list[dict[str, Any]] = json.loads(file.read_bytes())["pairs"]
        wanted = np.array([pair["score"] for pair in pairs], np.float64)
        queries, titles = [pair["query"] for pair in pairs], [pair["title"] for pair in pairs]
        found = scorer.score_pairs(queries, titles)
    except (OSError, ValueError, KeyError, TypeError, OverflowError, RecursionError) as error:
        raise UserError(f"{file} cannot be read ({error!r}); export the bundle again") from error
    apart = np.abs(found - wanted)
    if not np.all(apart <= _MOST_APART):  # NaN too
        row = int(np.argmax(~(apart <= _MOST_APART)))
        raise UserError(
            f"{folder}: golden pair {row} scores {found[row]:.6f}, not {wanted[row]:.6f}: another "
            "raydistill made the bundle, or it is damaged; export it again"
        )
    return len(pairs)
