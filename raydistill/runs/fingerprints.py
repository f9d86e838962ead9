"""Fingerprints: hexadecimal digits that name what made a folder."""

from __future__ import annotations

import hashlib
import json


def fingerprint(*parts: object) -> str:
    """Eight hex digits that name what made a folder: a hash of the parts as sorted JSON."""
    text = json.dumps(parts, sort_keys=True, separators=(",", ":"))
    return hashlib.blake2b(text.encode(), digest_size=4).hexdigest()
