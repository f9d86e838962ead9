from pathlib import Path

import pytest

from raydistill.candidates.title_index import TitleIndex, build_index

TITLES = ["grey sofa", "sofa", "oak table", "sofa grey", "grey grey rug oak big wool", "lamp"]


@pytest.fixture
def index(tmp_path: Path) -> TitleIndex:
    build_index(tmp_path, TITLES)
    return TitleIndex(tmp_path)


def test_titles_with_more_of_the_words_come_first_and_of_equals_the_first(
    index: TitleIndex,
) -> None:
    found = index.search("grey sofa", limit=10).tolist()
    assert found[:2] == [0, 3]  # both words; equal scores
    assert sorted(found[2:]) == [1, 4]  # one word
    assert index.search("grey sofa", limit=1).tolist() == [0]
    assert index.search("grey grey sofa", limit=10).tolist() == found


@pytest.mark.parametrize("terms", ["", "unknown"])
def test_nothing_is_found_for_words_that_no_title_has(index: TitleIndex, terms: str) -> None:
    assert index.search(terms, limit=10).tolist() == []
