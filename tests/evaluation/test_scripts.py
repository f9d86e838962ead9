import pytest

from raydistill.evaluation.scripts import NO_LETTER, script_of


@pytest.mark.parametrize(
    ("text", "script"),
    [
        ("red sofa 3m", "Latin"),
        ("größe", "Latin"),
        ("диван ikea красный", "Cyrillic"),
        ("ikea диван", "Cyrillic"),  # five letters of nine
        ("диван philips", "Latin"),
        ("沙发", "Han"),
        ("赤いソファ", "Japanese"),
        ("소파", "Hangul"),
        ("أريكة", "Arabic"),
        ("ספה", "Hebrew"),
        ("โซฟา", "Thai"),
        ("καναπές", "Greek"),
        ("सोफ़ा", "Devanagari"),
        ("1.5 + 3", NO_LETTER),
        ("", NO_LETTER),
        ("🛋️", NO_LETTER),
    ],
)
def test_the_script_is_that_of_most_letters(text: str, script: str) -> None:
    assert script_of(text) == script
