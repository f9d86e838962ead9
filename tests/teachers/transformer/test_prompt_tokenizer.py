"""Decoders with a classification head: rejected without a prompt, correct with one."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
import transformers
from transformers import AutoConfig, AutoModelForSequenceClassification, AutoTokenizer

from raydistill.config.prompt import Prompt
from raydistill.errors import UserError
from raydistill.teachers.cross_encoder import Teacher, check_model
from raydistill.teachers.transformer.prompt_tokenizer import FINE_TUNED, is_decoder
from tests.helpers.decoders import PROMPT, make_decoder

# As sentence-transformers' converted rerankers have it.
CHAT = (
    "<|im_start|>system\nJudge the Document.<|im_end|>\n<|im_start|>user\n"
    '<Instruct>: {{ messages | selectattr("role", "eq", "system") | map(attribute="content") '
    '| first | default("Match") }}\n'
    '<Query>: {{ messages | selectattr("role", "eq", "query") | map(attribute="content") '
    "| first }}\n"
    '<Document>: {{ messages | selectattr("role", "eq", "document") | map(attribute="content") '
    "| first }}<|im_end|>\n<|im_start|>assistant\n"
)


@pytest.fixture(scope="module")
def qwen(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_decoder(tmp_path_factory.mktemp("models") / "qwen")


@pytest.fixture(scope="module")
def gpt2(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_decoder(tmp_path_factory.mktemp("models") / "gpt2", kind="GPT2")


def make(folder: Path, *, prompt: str | None = PROMPT, max_length: int = 128) -> Teacher:
    return Teacher(folder, device="cpu", dtype="float32", max_length=max_length, prompt=prompt)


def alone(folder: Path, text: str) -> float:
    """What transformers gives for one string by itself."""
    model = AutoModelForSequenceClassification.from_pretrained(folder).eval()
    with torch.inference_mode():
        return float(
            model(**AutoTokenizer.from_pretrained(folder)(text, return_tensors="pt")).logits
        )


QUERIES = ["sofa", "grey sofa bed", "drill 18 v", "椅子", "tap"]
TITLES = [
    "grey sofa 3 seats.",
    "lamp; 1/2 in.",
    "cordless drill, 18 v",
    "oak 🪑",
    "a " * 20 + "tap",
]


@pytest.mark.parametrize("kind", ["qwen", "gpt2"])
def test_a_decoder_without_a_prompt_is_refused(kind: str, request: pytest.FixtureRequest) -> None:
    folder: Path = request.getfixturevalue(kind)
    for attempt in (lambda: make(folder, prompt=None), lambda: check_model(folder, max_length=64)):
        with pytest.raises(UserError) as caught:
            attempt()
        text = str(caught.value)
        assert str(folder) in text and "is a decoder" in text and "nearly random" in text
        assert 'prompt = "' in text and "{query}" in text and "chat_template" in text
    check_model(folder, max_length=128, prompt=PROMPT)


@pytest.mark.parametrize("kind", ["qwen", "gpt2"])
def test_logits_are_those_of_the_formatted_strings(
    kind: str, request: pytest.FixtureRequest
) -> None:
    folder: Path = request.getfixturevalue(kind)
    teacher = make(folder)
    strings = [
        PROMPT.replace("{query}", q).replace("{title}", t)
        for q, t in zip(QUERIES, TITLES, strict=True)
    ]
    expected = [alone(folder, string) for string in strings]
    assert np.std(expected) > 0.01
    assert teacher.logits(QUERIES, TITLES) == pytest.approx(expected, abs=1e-4)
    for query, title, logit in zip(QUERIES, TITLES, expected, strict=True):
        assert teacher.logits([query], [title]) == pytest.approx([logit], abs=1e-4)
    assert teacher.logits([], []).shape == (0,)


def test_a_prompt_that_ends_in_the_end_token(gpt2: Path) -> None:
    """A head that takes the last token that is no padding is not led astray by it."""
    prompt = "{query}: {title}<|endoftext|>"
    expected = [alone(gpt2, f"{q}: {t}<|endoftext|>") for q, t in zip(QUERIES, TITLES, strict=True)]
    found = make(gpt2, prompt=prompt).logits(QUERIES, TITLES)
    assert found == pytest.approx(expected, abs=1e-4)


def test_long_texts_are_cut_and_the_prompt_is_not(qwen: Path) -> None:
    teacher = make(qwen, max_length=96)
    long = "cordless drill 椅子 " * 50
    pairs = [("tap", long), (long, "tap"), (long, long), ("tap", "tap")]
    tokens = teacher.tokenise(*map(list, zip(*pairs, strict=True)))
    assert tokens.lengths_B[:3].max() <= 96 and tokens.lengths_B[:3].min() > 88
    head, end = PROMPT.split("{query}")[0], PROMPT.split("{title}")[1]
    starts = np.cumsum(tokens.lengths_B) - tokens.lengths_B
    decoded = [
        teacher.tokenizer.decode(tokens.ids_T[start : start + length])
        for start, length in zip(starts, tokens.lengths_B, strict=True)
    ]
    assert all(text.startswith(head) and text.endswith(end) for text in decoded)
    assert "<Query>: tap\n<Document>: cordless drill" in decoded[0]
    assert decoded[1].endswith("<Document>: tap" + end)
    assert teacher.logits(*map(list, zip(*pairs, strict=True)))[0] == pytest.approx(
        alone(qwen, decoded[0]), abs=1e-4
    )


@pytest.mark.slow
def test_single_texts(qwen: Path) -> None:
    prompt = "<Document>: {title}<|im_end|>\n"
    expected = [alone(qwen, prompt.replace("{title}", title)) for title in TITLES]
    found = make(qwen, prompt=prompt).logits([""] * len(TITLES), TITLES)
    assert found == pytest.approx(expected, abs=1e-4)
    with pytest.raises(UserError, match="takes no single texts"):
        make(qwen).logits(["", ""], ["sofa", "tap"])


def test_a_prompt_without_room(qwen: Path) -> None:
    with pytest.raises(UserError, match=r"prompt has \d+ tokens and label.max_length is 32"):
        make(qwen, max_length=32)


@pytest.mark.slow
def test_the_chat_template_of_a_folder_is_its_prompt(tmp_path: Path) -> None:
    folder = make_decoder(tmp_path / "st")
    (folder / "chat_template.jinja").write_text(CHAT)
    formatted = [  # jinja leaves out the newline at the end
        CHAT.split("{{")[0] + "INSTRUCT\n<Query>: " + q + "\n<Document>: " + t
        + "<|im_end|>\n<|im_start|>assistant"
        for q, t in zip(QUERIES, TITLES, strict=True)
    ]  # fmt: skip
    expected = [alone(folder, text.replace("INSTRUCT", "Match")) for text in formatted]
    assert make(folder, prompt=None).logits(QUERIES, TITLES) == pytest.approx(expected, abs=1e-4)
    settings = {"prompts": {"shop": "Sells it?"}, "default_prompt_name": "shop"}
    (folder / "config_sentence_transformers.json").write_text(json.dumps(settings))
    expected = [alone(folder, text.replace("INSTRUCT", "Sells it?")) for text in formatted]
    assert make(folder, prompt=None).logits(QUERIES, TITLES) == pytest.approx(expected, abs=1e-4)


def test_a_chat_template_for_chats_is_no_prompt(tmp_path: Path) -> None:
    """As Qwen3 has it: it does not know the roles of a pair."""
    folder = make_decoder(tmp_path / "chat")
    (folder / "chat_template.jinja").write_text(
        "{% for m in messages %}{% if m.role == 'user' %}{{ m.content }}{% endif %}{% endfor %}"
    )
    with pytest.raises(UserError, match="is a decoder"):
        make(folder, prompt=None)
    (folder / "chat_template.jinja").write_text("{{ raise_exception('no such role') }}")
    with pytest.raises(UserError, match="is a decoder"):
        make(folder, prompt=None)


@pytest.mark.parametrize(
    "template",
    [
        "{% for m in messages %}<|im_start|>{{ m['role'] }}\n{{ m['content'] }}<|im_end|>\n"
        "{% endfor %}",
        "{% for m in messages %}{{ '[' + m.role + ']' + m.content | string | trim }}{% endfor %}",
        "{{ 1 / 0 }}",
        "{{ messages[7].content }}",
    ],
)
def test_a_template_that_prints_any_role_is_no_prompt(tmp_path: Path, template: str) -> None:
    """As ChatML and Llama 3 have it: the model never saw the roles `query` and `document`."""
    folder = make_decoder(tmp_path / "chat")
    (folder / "chat_template.jinja").write_text(template)
    with pytest.raises(UserError, match="is a decoder"):
        make(folder, prompt=None)


@pytest.mark.parametrize("content", ["{", "[]", '{"prompts": 3, "default_prompt_name": "a"}'])
def test_a_broken_default_prompt_is_a_users_error(tmp_path: Path, content: str) -> None:
    folder = make_decoder(tmp_path / "st")
    (folder / "chat_template.jinja").write_text(CHAT)
    (folder / "config_sentence_transformers.json").write_text(content)
    with pytest.raises(UserError, match="default_prompt_name`: correct it"):
        make(folder, prompt=None)


def test_a_decoder_fine_tuned_here_reads_plain_pairs(tmp_path: Path) -> None:
    folder = make_decoder(tmp_path / "own")
    config = AutoConfig.from_pretrained(folder)
    setattr(config, FINE_TUNED, "pairs")
    config.save_pretrained(folder)
    assert np.isfinite(make(folder, prompt=None).logits(QUERIES, TITLES)).all()


@pytest.mark.parametrize(
    ("kind", "expected"),
    [
        ("Qwen3", True), ("Qwen2", True), ("Llama", True), ("Gemma2", True), ("Mistral", True),
        ("GPT2", True), ("Bert", False), ("XLNet", False), ("Bart", False), ("ModernBert", False),
        ("DebertaV2", False), ("T5", False), ("Electra", False),
    ],
)  # fmt: skip
def test_what_is_a_decoder(kind: str, expected: bool) -> None:
    assert is_decoder(getattr(transformers, f"{kind}Config")()) == expected


@pytest.mark.parametrize("text", ["{query}", "no slot", "{title} {title}", "{query}{query}{title}"])
def test_what_is_no_prompt(text: str) -> None:
    with pytest.raises(ValueError, match="once"):
        Prompt.parse(text)


def test_where_texts_are_laid() -> None:
    prompt = Prompt.parse('{"a": {title}} of {query}')
    assert prompt.laid("{title}", "x") == '{"a": x} of {title}'
    assert Prompt.parse("{title}").laid("", "x") == "x"
