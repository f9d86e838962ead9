import pyarrow as pa

from raydistill.serving.text.hashing import hash_texts


def plain_hash(text: str) -> int:
    """The definition in the module's docstring, written again without numba."""
    mask = (1 << 64) - 1
    state = 14695981039346656037
    for byte in text.encode():
        state = ((state ^ byte) * 1099511628211) & mask
    for multiplier in (0xFF51AFD7ED558CCD, 0xC4CEB9FE1A85EC53):
        state = ((state ^ (state >> 33)) * multiplier) & mask
    return state ^ (state >> 33)


def test_is_what_the_docstring_says() -> None:
    texts = ["", "a", "grey sofa", "1/2 in.", "größe 沙发"]
    assert hash_texts(pa.array(texts)).tolist() == [plain_hash(text) for text in texts]


def test_does_not_change_from_release_to_release() -> None:
    # Pair ids are stored for years: these numbers may never change.
    found = hash_texts(pa.array(["", "grey sofa"])).tolist()
    assert found == [17280346270528514342, 3795092322465621245]


def test_slices_are_hashed_by_their_own_rows() -> None:
    texts = pa.array(["a", "b", "c", "d"])
    assert hash_texts(texts.slice(1, 2)).tolist() == [plain_hash("b"), plain_hash("c")]
    assert hash_texts(texts.slice(4)).tolist() == []
