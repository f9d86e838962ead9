"""Copy the library and its header: `python -m raydistill.serving.native FOLDER`.

For programs in other languages: `libraydistill.so` and `raydistill.h`, from the package, from the
user's cache, or emitted. The programs need neither Python nor raydistill.
"""

from __future__ import annotations

import argparse
import logging
from pathlib import Path

from raydistill.errors import UserError, WorkError
from raydistill.serving.native.build import HEADER, TARGETS, copy_library, own_targets


def main() -> None:
    """Copy both files, and log their paths."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path, help="where the files go; made if it is missing")
    own = ", ".join(own_targets()) or "none"
    parser.add_argument(
        "--target",
        choices=TARGETS,
        help="for other machines; programs that run on several CPUs take the slowest of theirs "
        f"(default: the first of those that this machine runs: {own})",
    )
    args = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    try:
        args.folder.mkdir(parents=True, exist_ok=True)
        library = copy_library(args.folder, target=args.target)
    except (OSError, UserError, WorkError) as error:
        parser.exit(1, f"{error}\n")
    logging.info("%s\n%s", library, args.folder / HEADER)


if __name__ == "__main__":
    main()
