"""Generative rerankers: the logits are those of transformers' own recipe, in any batch."""

import json
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from raydistill.config.prompt import Question
from raydistill.errors import UserError
from raydistill.teachers.causal import CausalTeacher, check_causal
from raydistill.teachers.cross_encoder import check_model
from raydistill.teachers.transformer.trial_pairs import Trial
from tests.helpers.checkpoints import damaged, reconfigured, without
from tests.helpers.decoders import (
    CAUSAL_KINDS,
    CAUSAL_PROMPT,
    RERANKER_CHAT,
    make_causal,
    make_decoder,
)
from tests.helpers.words import WORDS

pytestmark = pytest.mark.slow
QUESTION = Question(CAUSAL_PROMPT, "Match")
PROMPT = CAUSAL_PROMPT.replace("{instruction}", "Match")
QUERIES = ["sofa", "sofa", "sofa", "grey sofa bed", "drill 18 v", "椅子", "tap", "drill 18 v"]
TITLES = [
    *("grey sofa 3 seats.", "lamp", "oak sofa", "lamp; 1/2 in.", "cordless drill, 18 v", "oak 🪑"),
    *("a " * 20 + "tap", "sink"),
]


@pytest.fixture(autouse=True, scope="module")
def _one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


Models = Callable[[str], Path]


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Models:
    """The folder of the tiny model of a kind."""
    folder = tmp_path_factory.mktemp("causal")
    return cache(lambda kind: make_causal(folder / kind, kind=kind))


def make(folder: Path, **settings: Any) -> CausalTeacher:  # noqa: ANN401
    given = {"question": QUESTION, "max_length": 128, "dtype": "float32", **settings}
    return CausalTeacher(folder, device="cpu", **given)


@cache
def stock(folder: Path) -> tuple[Any, Any]:
    tokenizer = AutoTokenizer.from_pretrained(folder, padding_side="left")
    return AutoModelForCausalLM.from_pretrained(folder).eval(), tokenizer


def recipe(folder: Path, texts: list[str]) -> np.ndarray:
    """As the model card of Qwen3-Reranker: left padding, all logits, a softmax over no and yes."""
    model, tokenizer = stock(folder)
    tokenizer.pad_token = "<|endoftext|>"
    batch = tokenizer(texts, add_special_tokens=False, padding=True, return_tensors="pt")
    inputs = {name: batch[name] for name in ("input_ids", "attention_mask")}
    with torch.inference_mode():
        logits = model(**inputs).logits[:, -1, :]
    no, yes = (logits[:, tokenizer.convert_tokens_to_ids(word)] for word in ("no", "yes"))
    probabilities = torch.nn.functional.log_softmax(torch.stack([no, yes], dim=1), dim=1)
    score = probabilities[:, 1].double().exp()
    return (score.log() - (1 - score).log()).numpy()


def alone(folder: Path, pairs: tuple[list[str], list[str]]) -> np.ndarray:
    texts = [laid(*pair) for pair in zip(*pairs, strict=True)]
    return np.concatenate([recipe(folder, [text]) for text in texts])


def laid(query: str, title: str) -> str:
    return PROMPT.replace("{query}", query).replace("{title}", title)


def some_pairs(num: int) -> tuple[list[str], list[str]]:
    """Five titles a query."""
    rng = np.random.default_rng(0)
    text = lambda most: " ".join(rng.choice(WORDS, rng.integers(1, most)))  # noqa: E731
    queries = [text(5) for _ in range(num // 5)]
    return [query for query in queries for _ in range(5)], [text(20) for _ in range(num // 5 * 5)]


@pytest.mark.parametrize("kind", list(CAUSAL_KINDS))
def test_logits_are_those_of_transformers(models: Models, kind: str) -> None:
    """Tied and untied output matrices, one with a bias, soft-capped logits, a recurrent model."""
    expected = alone(models(kind), (QUERIES, TITLES))
    assert np.std(expected) > 0.1
    teacher = make(models(kind))
    assert teacher.logits(QUERIES, TITLES) == pytest.approx(expected, abs=1e-4)
    for query, title, logit in zip(QUERIES, TITLES, expected, strict=True):
        assert teacher.logits([query], [title]) == pytest.approx([logit], abs=1e-4)
    assert teacher.logits([], []).shape == (0,)


@pytest.mark.parametrize("side", ["left", "right"])
def test_the_padding_side_of_the_tokenizer(tmp_path: Path, side: str) -> None:
    folder = make_causal(tmp_path / "model", pad="<|endoftext|>")
    tokenizer = AutoTokenizer.from_pretrained(folder, padding_side=side)
    tokenizer.save_pretrained(folder)
    together = recipe(folder, [laid(*pair) for pair in zip(QUERIES, TITLES, strict=True)])
    assert make(folder).logits(QUERIES, TITLES) == pytest.approx(together, abs=1e-4)


@pytest.mark.parametrize("shares", [True, False])
@pytest.mark.parametrize("tokens_per_batch", [1, 200, 100_000])
def test_neither_batches_nor_order_matter(
    models: Models, tokens_per_batch: int, shares: bool
) -> None:
    queries, titles = some_pairs(40)
    expected = make(models("Qwen3"), shares=False).logits(queries, titles)
    order = np.random.default_rng(1).permutation(40)
    teacher = make(models("Qwen3"), tokens_per_batch=tokens_per_batch, shares=shares)
    assert teacher.shares == shares
    found = teacher.logits([queries[i] for i in order], [titles[i] for i in order])
    assert found == pytest.approx(expected[order], abs=1e-5)


def test_a_model_that_padding_would_change(models: Models) -> None:
    """Its pairs run in batches of one length, whole."""
    expected = make(models("Llama")).logits(QUERIES, TITLES)
    teacher = make(models("Llama"), pads=False)
    assert not teacher.shares
    assert teacher.logits(QUERIES, TITLES) == pytest.approx(expected, abs=1e-5)
    assert teacher.counters.num_tokens == teacher.counters.num_padded_tokens


def test_which_models_share_the_tokens_before_the_title(models: Models, tmp_path: Path) -> None:
    shares = {kind: make(models(kind)).shares for kind in CAUSAL_KINDS}
    wholes = {"Gemma2", "Mamba"}  # a window of 8 tokens; no keys and values at all
    assert shares == {kind: kind not in wholes for kind in CAUSAL_KINDS}
    wide = make_causal(tmp_path / "wide", kind="Gemma2", sliding_window=129)
    teacher = make(wide)
    assert teacher.shares  # no prompt is as long as the window
    expected = alone(wide, (QUERIES, TITLES))
    assert teacher.logits(QUERIES, TITLES) == pytest.approx(expected, abs=1e-4)


def test_shared_tokens_are_computed_once(models: Models) -> None:
    teacher = make(models("Qwen3"))
    tokens = teacher.tokenise(["sofa"] * 3 + ["tap"] * 2, ["oak", "grey lamp", "tap", "pan", "mug"])
    teacher.score(tokens)
    own = int(tokens.types_T.sum())
    before = len(teacher.tokenizer(laid("sofa", "").partition("<|im_end|>\n<|im_start|>as")[0])[0])
    query = len(teacher.tokenizer("<Document>: ")[0]) + 4
    assert own + before <= teacher.counters.num_tokens <= own + before + 2 * query
    assert teacher.counters.num_tokens < 0.6 * len(tokens.ids_T)


def test_only_two_rows_of_the_output_matrix_are_left(models: Models) -> None:
    for kind in CAUSAL_KINDS:
        teacher = make(models(kind))
        matrix = teacher._whole.model.get_output_embeddings()
        assert matrix.weight.shape[0] == 2
    assert teacher._whole.model.get_input_embeddings().num_embeddings == 400


def test_the_logit_of_yes_alone(models: Models) -> None:
    model, tokenizer = stock(models("Llama"))
    ids = tokenizer(laid("sofa", "lamp"), add_special_tokens=False, return_tensors="pt").input_ids
    with torch.inference_mode():
        logits = model(input_ids=ids).logits[0, -1]
    expected = float(logits[tokenizer.convert_tokens_to_ids("yes")])
    teacher = make(models("Llama"), question=Question(CAUSAL_PROMPT, "Match", no=""))
    assert teacher.logits(["sofa"], ["lamp"]) == pytest.approx([expected], abs=1e-4)


def test_single_texts(models: Models) -> None:
    teacher = make(models("Qwen3"), question=Question("Good?\n{title}\nAnswer: "))
    texts = [f"Good?\n{title}\nAnswer: " for title in TITLES]
    expected = np.concatenate([recipe(models("Qwen3"), [text]) for text in texts])
    assert teacher.logits([""] * len(TITLES), TITLES) == pytest.approx(expected, abs=1e-4)
    trial = Trial(pairs=[("", title) for title in TITLES], has_query=False)
    question = Question("Good?\n{title}\nAnswer: ")
    assert check_causal(models("Qwen3"), max_length=64, question=question, trial=trial)


class SmallMemory:
    """A model on a device where batches of more than `most` tokens do not fit."""

    def __init__(self, teacher: CausalTeacher, *, most: int, text: str) -> None:
        self.most, self.num_failures = most, 0
        error = torch.OutOfMemoryError if text.startswith("CUDA out") else RuntimeError

        def check(_: object, args: object, inputs: dict[str, torch.Tensor]) -> None:
            if inputs["input_ids"].numel() > self.most:
                self.num_failures += 1
                raise error(text)

        teacher._whole.model.register_forward_pre_hook(check, with_kwargs=True)


@pytest.mark.parametrize("shares", [True, False])
@pytest.mark.parametrize("text", ["CUDA out of memory. Tried", "CUDA error: out of memory"])
def test_a_batch_that_does_not_fit_is_halved(models: Models, text: str, shares: bool) -> None:
    queries, titles = some_pairs(40)
    expected = make(models("Qwen3")).logits(queries, titles)
    teacher = make(models("Qwen3"), tokens_per_batch=1_600, shares=shares)
    device = SmallMemory(teacher, most=130, text=text)
    assert teacher.logits(queries, titles) == pytest.approx(expected, abs=1e-5)
    assert device.num_failures == teacher.counters.num_out_of_memory > 0
    assert teacher.tokens_per_batch <= (200 if shares else 130)  # with those before the title
    assert teacher.counters.num_pairs == 40


def test_beginnings_that_do_not_fit_together_are_computed_apart(models: Models) -> None:
    """A device with room for the beginning of a query, and for those of two queries not."""
    queries, titles = some_pairs(40)
    expected = make(models("Qwen3")).logits(queries, titles)
    teacher = make(models("Qwen3"), tokens_per_batch=4_000)
    SmallMemory(teacher, most=50, text="CUDA out of memory. Tried")
    assert teacher.logits(queries, titles) == pytest.approx(expected, abs=1e-5)


class Watched:
    """The rows of each run of a teacher's model: those of beginnings and those of own tokens.

    More than `most` rows of beginnings do not fit in memory.
    """

    def __init__(self, teacher: CausalTeacher, *, most: int) -> None:
        self.most, self.beginnings, self.own = most, list[int](), list[int]()

        def note(_: object, args: object, inputs: dict[str, Any]) -> None:
            num = len(inputs["input_ids"])
            layers = inputs["past_key_values"].layers
            if layers and not layers[0].keeps:
                self.own.append(num)
                return
            self.beginnings.append(num)
            if num > self.most:
                raise torch.OutOfMemoryError("CUDA out of memory. Tried")

        teacher._whole.model.register_forward_pre_hook(note, with_kwargs=True)


def test_beginnings_that_do_not_fit_do_not_shrink_the_batches(models: Models) -> None:
    """Eight beginnings of 50 tokens, five titles each; room for the beginnings of three queries."""
    queries = [word for word in "aefhijkm" for _ in range(5)]
    titles = ["oak"] * 40
    expected = make(models("Qwen3")).logits(queries, titles)
    teacher = make(models("Qwen3"), tokens_per_batch=1_600)
    device = Watched(teacher, most=3)
    assert teacher.logits(queries, titles) == pytest.approx(expected, abs=1e-5)
    assert device.own == [10] * 4  # all pairs of two queries at once
    assert [num for num in device.beginnings if num > 1] == [8, 4, 2, 2, 2, 2]
    assert teacher.counters.num_out_of_memory == 2
    assert teacher.tokens_per_batch == 1_600
    assert teacher.logits(queries, titles) == pytest.approx(expected, abs=1e-5)
    assert teacher.counters.num_out_of_memory == 2  # groups stay small


def test_no_room_beside_the_beginnings_is_not_the_batches_fault(models: Models) -> None:
    """Own tokens run only on top of two beginnings or fewer."""
    queries, titles = [word for word in "aefhijkm" for _ in range(5)], ["oak"] * 40
    expected = make(models("Qwen3")).logits(queries, titles)
    teacher = make(models("Qwen3"), tokens_per_batch=4_000)

    def check(_: object, args: object, inputs: dict[str, Any]) -> None:
        layers = inputs["past_key_values"].layers
        if layers and not layers[0].keeps and len(layers[0].keys) > 2:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried")

    teacher._whole.model.register_forward_pre_hook(check, with_kwargs=True)
    assert teacher.logits(queries, titles) == pytest.approx(expected, abs=1e-5)
    assert teacher.tokens_per_batch == 4_000


def test_the_tokens_before_the_title_count_in_a_batch(models: Models) -> None:
    """Each row attends to them: two whole prompts are in a batch of two prompts' tokens."""
    tokens = make(models("Qwen3")).tokenise(["sofa"] * 6, ["oak"] * 6)
    teacher = make(models("Qwen3"), tokens_per_batch=2 * int(tokens.lengths_B[0]))
    device = Watched(teacher, most=1)
    teacher.score(tokens)
    assert device.own == [2, 2, 2]


def test_a_pair_that_does_not_fit_alone(models: Models) -> None:
    teacher = make(models("Qwen3"))
    SmallMemory(teacher, most=5, text="CUDA out of memory. Tried")
    with pytest.raises(torch.OutOfMemoryError, match=r"a pair of \d+ tokens does not fit"):
        teacher.logits(QUERIES, TITLES)


@pytest.mark.parametrize("kind", list(CAUSAL_KINDS))
def test_a_model_passes_its_trial(models: Models, kind: str) -> None:
    pairs = list(zip(QUERIES, TITLES, strict=True))
    for dtype in ("float32", "bfloat16"):
        trial = Trial(pairs=pairs, has_query=True, label_dtype=dtype)
        assert check_causal(models(kind), max_length=96, question=QUESTION, trial=trial)


def test_bfloat16_is_close_to_float32(models: Models) -> None:
    queries, titles = some_pairs(40)
    exact = make(models("Qwen3")).logits(queries, titles)
    rough = make(models("Qwen3"), dtype="bfloat16").logits(queries, titles)
    assert np.corrcoef(exact, rough)[0, 1] > 0.99


def trial(folder: Path, **settings: Any) -> bool:  # noqa: ANN401
    given = {"max_length": 96, "question": QUESTION, "trial": Trial(), **settings}
    return check_causal(folder, **given)


def test_a_folder_of_sentence_transformers(tmp_path: Path) -> None:
    """Template, instruction and answers as it writes them; logits as it computes them."""
    pytest.importorskip("sentence_transformers")
    from sentence_transformers import CrossEncoder
    from sentence_transformers.cross_encoder.modules import LogitScore, Transformer

    source = make_causal(tmp_path / "source", pad="<|endoftext|>")
    (source / "chat_template.jinja").write_text(RERANKER_CHAT)
    first = Transformer(str(source), transformer_task="text-generation")
    yes, no = (first.tokenizer.convert_tokens_to_ids(word) for word in ("yes", "no"))
    modules = [first, LogitScore(true_token_id=yes, false_token_id=no)]
    stock = CrossEncoder(modules=modules, prompts={"shop": "Sells it?"}, default_prompt_name="shop")
    stock.save_pretrained(str(tmp_path / "saved"))
    pairs = list(zip(QUERIES, TITLES, strict=True))
    expected = stock.predict(pairs, activation_fn=torch.nn.Identity())
    found = make(tmp_path / "saved", question=Question()).logits(QUERIES, TITLES)
    assert found == pytest.approx(expected, abs=1e-4)


def test_a_classifier_is_named_as_model(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"is a Qwen3ForSequenceClassification.*`model`"):
        trial(make_decoder(tmp_path / "head"))


def test_an_encoder_is_no_causal_model(tmp_path: Path, tiny_bert: Path) -> None:
    with pytest.raises(UserError, match=r"BertForSequenceClassification.*`model`"):
        trial(tiny_bert)
    encoder = reconfigured(tiny_bert, tmp_path / "encoder", architectures=["BertModel"])
    with pytest.raises(
        UserError, match=r"is a BertModel, which is no causal.*`base`.*`bi_encoder`"
    ):
        trial(encoder)


def test_a_causal_model_named_as_model(models: Models) -> None:
    for kind in ("Qwen3", "GPT2"):
        with pytest.raises(UserError, match=r"is a .*without a classification head.*`causal`"):
            check_model(models(kind), max_length=96, prompt="{query} {title}")


def test_a_model_without_its_output_matrix(models: Models, tmp_path: Path) -> None:
    folder = reconfigured(models("Llama"), tmp_path / "base", architectures=["LlamaModel"])
    with pytest.raises(UserError, match="is a LlamaModel, without the output matrix"):
        trial(folder)
    cut = damaged(models("Llama"), tmp_path / "cut", without("lm_head"))
    with pytest.raises(UserError, match=r"lacks 1 weights of LlamaForCausalLM: lm_head.weight"):
        trial(cut)


def test_answers_of_another_model(models: Models, tmp_path: Path) -> None:
    folder = reconfigured(models("Qwen3"), tmp_path / "other")
    modules = [{"path": "", "type": "Transformer"}, {"path": "1_LogitScore", "type": "LogitScore"}]
    (folder / "modules.json").write_text(json.dumps(modules))
    (folder / "1_LogitScore").mkdir()
    ids = {"true_token_id": 9693, "false_token_id": 2152}
    (folder / "1_LogitScore" / "config.json").write_text(json.dumps(ids))
    with pytest.raises(UserError, match=r"token 9693 has no row .* which has 400"):
        trial(folder)


def test_too_many_tokens(models: Models) -> None:
    with pytest.raises(UserError, match=r"reads 256 wordpieces, label.max_length is 300"):
        trial(models("Qwen3"), max_length=300)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("kind", ["Qwen3", "Llama"])
def test_a_gpu_gives_the_logits_of_a_cpu(models: Models, kind: str) -> None:
    pairs = some_pairs(200)
    on_cpu = make(models(kind)).logits(*pairs)
    for dtype, most in (("float32", 1e-3), ("bfloat16", 0.5)):
        for shares in (True, False):
            teacher = CausalTeacher(
                models(kind), device="cuda", dtype=dtype, max_length=128, question=QUESTION,
                shares=shares,
            )  # fmt: skip
            assert np.abs(teacher.logits(*pairs) - on_cpu).max() < most
