"""Score texts with falsified models at the edge of readable memory: a fault kills the process.

Usage: python -m tests.serving.native.fuzz LIBRARY SEED ROUNDS. Prints how many models were accepted
and the codes that scoring gave.
"""

import ctypes
import mmap
import random
import sys
from pathlib import Path

import numpy as np

from raydistill.serving.native.layout import ALIGN, OK
from raydistill.serving.native.library import Library
from tests.serving.native.cases import default_model, odd_text, random_bundle, small_model
from tests.serving.native.falsify import falsify

_LIBC = ctypes.CDLL(None, use_errno=True)


def guarded(size: int) -> np.ndarray:
    """`size` bytes, directly before and after pages that cannot be read (64 bytes at most)."""
    page = mmap.PAGESIZE
    inner = -(-size // page) * page
    memory = mmap.mmap(-1, inner + 2 * page)
    start = ctypes.addressof(ctypes.c_char.from_buffer(memory))
    for edge in (start, start + page + inner):
        assert _LIBC.mprotect(ctypes.c_void_p(edge), ctypes.c_size_t(page), 0) == 0
    first = page + (inner - size) // ALIGN * ALIGN
    return np.frombuffer(memory, np.uint8, size, first)


def texts_of(rng: random.Random) -> list[bytes]:
    texts = [odd_text(rng, 30).encode() for _ in range(4)]
    noise = bytes(rng.choice(b" &;#x12/.'\"-amp\xcc\x81\xef\xb7\xba") for _ in range(600))
    return [*texts, rng.randbytes(300), noise, b"1 in x 2 ft " * 40, b""]


def score(library: Library, data: np.ndarray, rng: random.Random) -> int:
    """The code of scoring and cleaning some texts with an accepted model."""
    size = library["rd_scratch_bytes"](data.ctypes.data)
    if size > 2**28:  # larger limits of characters need as much address space
        return OK
    scratch, texts = guarded(size), texts_of(rng)
    address, place = data.ctypes.data, scratch.ctypes.data
    whole, offsets = guarded(sum(map(len, texts))), np.cumsum([0, *map(len, texts)])
    whole[:] = np.frombuffer(b"".join(texts), np.uint8)
    scores, out = guarded(4 * len(texts)), guarded(64)
    text = ctypes.cast(whole.ctypes.data, ctypes.c_char_p)
    titles = (text, offsets.ctypes.data, len(texts), scores.ctypes.data)
    codes = [library["rd_score_pairs"](address, place, text, offsets.ctypes.data, *titles)]
    for raw in texts[:3]:
        codes.append(library["rd_score"](address, place, raw, len(raw), *titles))
        codes.append(library["rd_clean"](address, place, raw, len(raw), 0, out.ctypes.data, 64))
    return min(codes)


def main(file: str, seed: int, rounds: int) -> None:
    from raydistill.serving.native.emit.model_file import model_bytes

    rng, library = random.Random(seed), Library(Path(file))
    models = [
        default_model(),
        small_model(),
        model_bytes(*random_bundle(vocabulary_rows=200, char_ngrams=3, units=True), table="int8"),
        model_bytes(*random_bundle(preset="bert2dnn", char_ngrams=4), table="float16"),
    ]
    buffers = [guarded(len(model)) for model in models]
    codes, accepted = set(), 0
    for _ in range(rounds):
        which = rng.randrange(len(models))
        data = buffers[which]
        data[:] = np.frombuffer(models[which], np.uint8)
        falsify(data, rng)
        if library.check(data) == OK:
            accepted += 1
            codes.add(min(score(library, data, rng), 0))
    print(accepted, *sorted(codes))


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]))
