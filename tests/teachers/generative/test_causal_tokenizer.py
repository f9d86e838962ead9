"""Prompts of generative rerankers: the run file's, the folder's; cuts; what pairs share."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from transformers import AutoTokenizer

from raydistill.config.prompt import Question
from raydistill.errors import UserError
from raydistill.teachers.generative.causal_tokenizer import CausalTokenizer, load_causal_tokenizer
from raydistill.teachers.transformer.pair_tokenizer import Tokens
from tests.helpers.decoders import CAUSAL_PROMPT, RERANKER_CHAT, make_tokenizer

pytestmark = pytest.mark.slow
QUESTION = Question(CAUSAL_PROMPT, "Match")
PROMPT = CAUSAL_PROMPT.replace("{instruction}", "Match")
CHATML = (
    "{% for message in messages %}<|im_start|>{{ message.role }}\n{{ message.content }}<|im_end|>\n"
    "{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
# As zerank-2's: query and document under the roles of a chat.
RENAMED = CHATML.replace(
    "{{ message.role }}", '{{ {"query": "system", "document": "user"}[message.role] }}'
)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    make_tokenizer(tmp_path, more="yes no")
    return tmp_path


def load(folder: Path, question: Question = QUESTION, *, max_length: int = 128) -> CausalTokenizer:
    return load_causal_tokenizer(folder, max_length=max_length, question=question)


def texts(tokenise: CausalTokenizer, tokens: Tokens) -> list[str]:
    ends = np.cumsum(tokens.lengths_B)
    starts = ends - tokens.lengths_B
    ids = [tokens.ids_T[start:end] for start, end in zip(starts, ends, strict=True)]
    return [tokenise.tokenizer.decode(of_one) for of_one in ids]


def laid(prompt: str, query: str, title: str) -> str:
    return prompt.replace("{query}", query).replace("{title}", title)


def test_the_ids_are_those_of_the_whole_text(folder: Path) -> None:
    pairs = [("sofa", "grey sofa"), ("tap", "1/2 in. tap 椅子"), ("", "lamp")]
    tokens = load(folder)(*map(list, zip(*pairs, strict=True)))
    stock = AutoTokenizer.from_pretrained(folder)
    expected = [stock(laid(PROMPT, *pair), add_special_tokens=False).input_ids for pair in pairs]
    assert tokens.ids_T.tolist() == [id_ for ids in expected for id_ in ids]
    assert tokens.lengths_B.tolist() == list(map(len, expected))


def test_the_types_show_the_tokens_before_the_title(folder: Path) -> None:
    tokenise = load(folder)
    tokens = tokenise(["sofa", "sofa", "tap"], ["grey sofa", "lamp", "lamp"])
    start = PROMPT.partition("{title}")[0]
    before = [
        len(tokenise.tokenizer(start.replace("{query}", query)).input_ids)
        for query in ("sofa", "sofa", "tap")
    ]
    ends = np.cumsum(tokens.lengths_B)
    types = [
        tokens.types_T[end - num : end] for num, end in zip(tokens.lengths_B, ends, strict=True)
    ]
    for of_one, num in zip(types, before, strict=True):
        # " grey" is one token, and the space before it is none
        assert num - 1 <= int((of_one == 0).sum()) <= num
        assert (np.diff(of_one) >= 0).all() and of_one[-1] == 1


def test_a_long_title_is_cut_before_the_query(folder: Path) -> None:
    tokenise = load(folder, max_length=80)
    long = "cordless drill 椅子 " * 50
    pairs = [("grey sofa bed", long), (long, "tap"), (long, long), ("tap", "tap")]
    tokens = tokenise(*map(list, zip(*pairs, strict=True)))
    found = texts(tokenise, tokens)
    assert tokens.lengths_B[:3].max() <= 80 and tokens.lengths_B[:3].min() > 74
    head, end = PROMPT.split("{query}")[0], PROMPT.split("{title}")[1]
    assert all(text.startswith(head) and text.endswith(end) for text in found)
    assert "<Query>: grey sofa bed\n<Document>: cordless" in found[0]
    assert found[1].endswith("<Document>: tap" + end)
    assert "<Document>: c" in found[2]  # 4 tokens of the title are left
    assert found[3] == laid(PROMPT, "tap", "tap")


def test_special_tokens_begin_a_prompt_and_never_end_it(folder: Path) -> None:
    """A tokenizer that puts an end token behind a text would answer in the model's place."""
    from tokenizers import processors

    tokenizer = AutoTokenizer.from_pretrained(folder)
    tokenizer.backend_tokenizer.post_processor = processors.TemplateProcessing(
        single="<|im_start|> $A <|endoftext|>",
        special_tokens=[("<|im_start|>", 1), ("<|endoftext|>", 0)],
    )
    tokenizer.save_pretrained(folder)
    plain = load(folder, Question("{query}: {title}?"))(["sofa"], ["lamp"])
    assert plain.ids_T[0] == 1 and 0 not in plain.ids_T
    written = load(folder, Question("<|im_start|>{query}: {title}?"))(["sofa"], ["lamp"])
    assert written.ids_T.tolist() == plain.ids_T.tolist()


def test_the_prompt_of_a_folder(folder: Path) -> None:
    (folder / "chat_template.jinja").write_text(RERANKER_CHAT)
    pairs = [("sofa", "grey sofa"), ("tap", "lamp")]
    columns = list(map(list, zip(*pairs, strict=True)))
    tokenise = load(folder, Question())
    assert texts(tokenise, tokenise(*columns)) == [laid(PROMPT, *pair) for pair in pairs]
    settings = {"prompts": {"shop": "Sells it?"}, "default_prompt_name": "shop"}
    (folder / "config_sentence_transformers.json").write_text(json.dumps(settings))
    tokenise = load(folder, Question())
    assert "<Instruct>: Sells it?\n" in texts(tokenise, tokenise(*columns))[0]
    tokenise = load(folder, Question(instruction="Fits?"))
    assert "<Instruct>: Fits?\n" in texts(tokenise, tokenise(*columns))[0]


def test_roles_under_other_names(folder: Path) -> None:
    (folder / "chat_template.jinja").write_text(RENAMED)
    tokenise = load(folder, Question())
    assert texts(tokenise, tokenise(["sofa"], ["lamp"])) == [
        "<|im_start|>system\nsofa<|im_end|>\n<|im_start|>user\nlamp<|im_end|>\n"
        "<|im_start|>assistant\n"
    ]


def test_a_template_without_a_place_for_an_instruction(folder: Path) -> None:
    (folder / "chat_template.jinja").write_text(RERANKER_CHAT.replace("{{ instruction }}", "Match"))
    with pytest.raises(UserError, match="has no place for an instruction"):
        load(folder, Question(instruction="Fits?"))


@pytest.mark.parametrize("template", [None, CHATML])
def test_no_prompt(folder: Path, template: str | None) -> None:
    if template:
        (folder / "chat_template.jinja").write_text(template)
    with pytest.raises(UserError, match="no chat template with the roles query and document") as e:
        load(folder, Question())
    assert 'prompt = "<|im_start|>system' in str(e.value)


def test_single_texts(folder: Path) -> None:
    tokenise = load(folder, Question("Good?\n{title}\n"))
    tokens = tokenise(["", ""], ["sofa", "lamp"])
    assert texts(tokenise, tokens) == ["Good?\nsofa\n", "Good?\nlamp\n"]
    with pytest.raises(UserError, match="takes no pairs of query and title"):
        tokenise(["a", "b"], ["sofa", "lamp"])


def test_nothing(folder: Path) -> None:
    assert load(folder)([], []).lengths_B.shape == (0,)


def test_a_prompt_without_room(folder: Path) -> None:
    with pytest.raises(UserError, match=r"prompt has \d+ tokens and label.max_length is 32"):
        load(folder, max_length=32)


def test_the_side_of_a_tokenizer_is_not_used(folder: Path, tmp_path: Path) -> None:
    for side in ("left", "right"):
        other = tmp_path / side
        other.mkdir()
        for file in folder.glob("*.json"):
            shutil.copy(file, other)
        tokenizer = AutoTokenizer.from_pretrained(folder, padding_side=side, truncation_side=side)
        tokenizer.save_pretrained(other)
    pairs = ["sofa", "tap"], ["grey sofa " * 60, "lamp"]
    left, right = (load(tmp_path / side)(*pairs) for side in ("left", "right"))
    assert np.array_equal(left.ids_T, right.ids_T)
