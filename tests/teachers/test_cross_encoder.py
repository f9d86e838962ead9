import inspect
import json
import shutil
import weakref
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers
from transformers import AutoModelForSequenceClassification, AutoTokenizer

from raydistill.errors import UserError
from raydistill.teachers.cross_encoder import Teacher, packed_rows, padded_rows
from raydistill.teachers.transformer.packed_encoder import equal_lengths, has_onednn
from raydistill.teachers.transformer.pair_tokenizer import Tokens
from tests.helpers.models import make_bert
from tests.helpers.words import VOCABULARY, WORDS


@pytest.fixture(autouse=True, scope="module")
def _one_thread() -> Iterator[None]:
    """As in an actor; two threads for so little work wait for each other."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def make(
    folder: Path, *, tokens_per_batch: int = 256, max_length: int = 32, dtype: str = "float32"
) -> Teacher:
    return Teacher(
        folder,
        device="cpu",
        dtype=dtype,
        max_length=max_length,
        tokens_per_batch=tokens_per_batch,
    )


def some_pairs(num: int, *, seed: int = 0) -> tuple[list[str], list[str]]:
    rng = np.random.default_rng(seed)
    text = lambda most: " ".join(rng.choice(WORDS, rng.integers(1, most)))  # noqa: E731
    return [text(5) for _ in range(num)], [text(20) for _ in range(num)]


@cache
def stock(folder: Path) -> tuple[Any, Any]:
    model = AutoModelForSequenceClassification.from_pretrained(folder).eval()
    return model, AutoTokenizer.from_pretrained(folder)


def alone(folder: Path, *texts: str) -> list[float]:
    """The outputs that transformers gives for one pair, or one text, by itself."""
    model, tokenizer = stock(folder)
    tokens = tokenizer(*texts, truncation=True, max_length=32, return_tensors="pt")
    with torch.inference_mode():
        found: list[float] = model(**tokens).logits[0].tolist()
    return found


def test_a_logit_is_what_transformers_gives_for_the_pair_alone(tiny_bert: Path) -> None:
    queries, titles = some_pairs(40)
    teacher = make(tiny_bert)
    assert teacher.is_packed
    expected = [alone(tiny_bert, q, t)[0] for q, t in zip(queries, titles, strict=True)]
    assert np.std(expected) > 0.1  # else the comparison says nothing
    assert teacher.logits(queries, titles) == pytest.approx(expected, abs=1e-4)
    assert teacher.counters.num_padded_tokens == teacher.counters.num_tokens > 0


@pytest.mark.parametrize("tokens_per_batch", [1, 64, 100_000])
def test_neither_batches_nor_order_matter(tiny_bert: Path, tokens_per_batch: int) -> None:
    queries, titles = some_pairs(30)
    expected = make(tiny_bert).logits(queries, titles)
    order = np.random.default_rng(1).permutation(30)
    found = make(tiny_bert, tokens_per_batch=tokens_per_batch).logits(
        [queries[i] for i in order], [titles[i] for i in order]
    )
    assert found == pytest.approx(expected[order], abs=1e-5)


def test_two_outputs_give_the_margin(tmp_path: Path) -> None:
    folder = make_bert(tmp_path / "two", num_labels=2)
    teacher = make(folder)
    no, yes = alone(folder, "sofa", "grey sofa")
    assert teacher.logits(["sofa"], ["grey sofa"])[0] == pytest.approx(yes - no, abs=1e-5)


def test_a_model_without_token_types(tmp_path: Path) -> None:
    """DistilBERT takes no token_type_ids; a BERT tokenizer beside it makes them."""
    from transformers import DistilBertConfig, DistilBertForSequenceClassification

    source = make_bert(tmp_path / "bert", num_labels=1)
    tokenizer = AutoTokenizer.from_pretrained(source)
    assert "token_type_ids" in tokenizer("a", "b")
    folder = tmp_path / "distil"
    config = DistilBertConfig(
        vocab_size=len(tokenizer), dim=32, n_layers=1, n_heads=2, hidden_dim=64,
        max_position_embeddings=64, num_labels=1, initializer_range=0.5,
    )  # fmt: skip
    DistilBertForSequenceClassification(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    queries, titles = some_pairs(10)
    found = make(folder).logits(queries, titles)
    assert np.isfinite(found).all() and np.std(found) > 0


@pytest.mark.parametrize("path", ["", "0_Transformer"])
def test_a_cross_encoder_of_sentence_transformers(
    tmp_path: Path, tiny_bert: Path, path: str
) -> None:
    """Both ways in which it writes its folder; what its files say beside the model is not read."""
    shutil.copytree(tiny_bert, tmp_path / "model" / path)
    modules = [{"idx": 0, "name": "0", "path": path, "type": "...modules.transformer.Transformer"}]
    (tmp_path / "model" / "modules.json").write_text(json.dumps(modules))
    queries, titles = some_pairs(5)
    expected = make(tiny_bert).logits(queries, titles)
    assert np.array_equal(make(tmp_path / "model").logits(queries, titles), expected)


def test_single_texts_are_not_pairs(tiny_bert: Path) -> None:
    teacher = make(tiny_bert)
    expected = alone(tiny_bert, "grey sofa")
    assert teacher.logits([""], ["grey sofa"]) == pytest.approx(expected, abs=1e-5)


def test_nothing_in_nothing_out(tiny_bert: Path) -> None:
    assert make(tiny_bert).logits([], []).shape == (0,)


def test_long_pairs_are_cut(tiny_bert: Path) -> None:
    teacher = make(tiny_bert, max_length=8)
    short, long = "sofa", "sofa " * 100
    assert np.isfinite(teacher.logits([short, long], [long, long])).all()
    assert teacher.counters.num_tokens == 16


def test_batches_by_token_budget() -> None:
    lengths = np.array([20, 9, 4, 4, 3, 1])
    assert [packed_rows(lengths[at:], tokens_per_batch=9) for at in (0, 1, 2, 5)] == [1, 1, 2, 1]
    assert [padded_rows(lengths[at:], tokens_per_batch=9) for at in (0, 1, 2, 5)] == [1, 1, 2, 1]


def test_padding_stays_under_three_percent() -> None:
    lengths = np.sort(np.random.default_rng(0).integers(5, 90, 4_000))[::-1]
    at = padded = 0
    while at < len(lengths):
        num = padded_rows(lengths[at:], tokens_per_batch=8_192)
        padded += num * lengths[at]
        at += num
    assert at == len(lengths)
    assert 0 < 1 - lengths.sum() / padded < 0.03


def test_on_a_gpu_few_batches_are_worth_more_padding() -> None:
    lengths = np.arange(40, 0, -1)
    assert padded_rows(lengths, tokens_per_batch=65_536) == 12  # 12 x 40 are less than 512 tokens
    assert padded_rows(lengths, tokens_per_batch=65_536, device="cuda") == 40
    many = np.repeat(lengths, 10)
    num = padded_rows(many, tokens_per_batch=65_536, device="cuda")
    assert num == 102  # 40 x 102 are less than 4,096 tokens


def test_runs_of_equal_lengths() -> None:
    assert equal_lengths(np.array([7, 7, 5, 3, 3, 3])) == [(7, 2), (5, 1), (3, 3)]


CUBLAS = "CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"


class SmallDevice:
    """A teacher's model on a device where batches of more than `most` tokens do not fit."""

    def __init__(self, teacher: Teacher, *, most: int, error: RuntimeError | None = None) -> None:
        self.run, self.most, self.num_failures = teacher._run, most, 0
        self.error = error or torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB")
        self.held: list[weakref.ref[torch.Tensor]] = []
        teacher._run = self

    def __call__(self, tokens: Tokens) -> torch.Tensor:
        activations = torch.zeros(len(tokens.ids_T))
        if len(tokens.ids_T) > self.most:
            self.held.append(weakref.ref(activations))
            self.num_failures += 1
            raise type(self.error)(*self.error.args)
        return self.run(tokens)


@pytest.mark.parametrize(
    "error",
    [
        torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB. GPU 0 has a total"),
        RuntimeError(CUBLAS),
        RuntimeError("CUDA error: CUBLAS_STATUS_NOT_INITIALIZED when calling `cublasCreate(h)`"),
        RuntimeError("cuDNN error: CUDNN_STATUS_ALLOC_FAILED"),
        RuntimeError("cuDNN error: CUDNN_STATUS_INTERNAL_ERROR_DEVICE_ALLOCATION_FAILED"),
        RuntimeError("CUDA error: out of memory\nCUDA kernel errors might be asynchronously"),
        RuntimeError("HIP out of memory. Tried to allocate 2.00 GiB"),
        RuntimeError("CUDA driver error: CUDA_ERROR_OUT_OF_MEMORY"),
        RuntimeError("cusolver error: CUSOLVER_STATUS_ALLOC_FAILED, when calling `cusolverDn`"),
        RuntimeError("[enforce fail at alloc_cpu.cpp:127] DefaultCPUAllocator: can't allocate "
                     "memory: you tried to allocate 8589934592 bytes"),
    ],
)  # fmt: skip
def test_a_batch_that_does_not_fit_is_halved(tiny_bert: Path, error: RuntimeError) -> None:
    """A device of little memory: batches of more than 40 wordpieces do not fit."""
    queries, titles = some_pairs(20)
    whole = make(tiny_bert)
    expected = whole.logits(queries, titles)
    teacher = make(tiny_bert)
    SmallDevice(teacher, most=40, error=error)
    assert teacher.logits(queries, titles) == pytest.approx(expected, abs=1e-5)
    assert teacher.tokens_per_batch == 32  # 256, 128, 64, 32
    found = teacher.counters
    assert found.num_out_of_memory == 3
    assert (found.num_pairs, found.num_tokens) == (20, whole.counters.num_tokens)


@pytest.mark.parametrize(
    "text",
    [
        "CUDA error: device-side assert triggered",
        "CUDA error: CUBLAS_STATUS_EXECUTION_FAILED when calling `cublasSgemm(...)`",
        "cuDNN error: CUDNN_STATUS_NOT_SUPPORTED",
        "CUDA_ERROR_INVALID_VALUE",
        "mat1 and mat2 shapes cannot be multiplied",
    ],
)
def test_other_errors_are_not_taken_for_a_lack_of_memory(tiny_bert: Path, text: str) -> None:
    teacher = make(tiny_bert)
    device = SmallDevice(teacher, most=40, error=RuntimeError(text))
    with pytest.raises(RuntimeError) as caught:
        teacher.logits(*some_pairs(20))
    assert (str(caught.value), device.num_failures) == (text, 1)


def test_the_failed_batch_is_gone_when_memory_is_given_back(
    tiny_bert: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    teacher = make(tiny_bert)
    teacher.device = "cuda"
    device = SmallDevice(teacher, most=40)
    alive: list[int] = []
    monkeypatch.setattr(
        torch.cuda, "empty_cache", lambda: alive.append(sum(r() is not None for r in device.held))
    )
    monkeypatch.setattr("gc.collect", lambda: 0)  # no cycle is needed to hold them, nor helps
    teacher.logits(*some_pairs(20))
    assert alive == [0, 0, 0]


def test_a_device_error_spoils_the_batches_before_it(tiny_bert: Path) -> None:
    """A GPU works behind: its own error may be that of a batch whose logits are there already."""
    queries, titles = some_pairs(20)
    expected = make(tiny_bert).logits(queries, titles)
    teacher = make(tiny_bert, tokens_per_batch=100)
    run, calls = teacher._run, 0

    def late(tokens: Tokens) -> torch.Tensor:
        nonlocal calls
        calls += 1
        if calls == 1:
            return torch.zeros(len(tokens.lengths_B), 1)  # no kernel ran
        if calls == 2:
            raise RuntimeError("CUDA error: out of memory")
        return run(tokens)

    teacher._run = late
    assert teacher.logits(queries, titles) == pytest.approx(expected, abs=1e-5)


def test_memory_that_ends_while_logits_are_fetched(
    tiny_bert: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    queries, titles = some_pairs(20)
    expected = make(tiny_bert).logits(queries, titles)
    teacher, fetch, calls = make(tiny_bert), torch.Tensor.cpu, 0

    def fails_once(values: torch.Tensor) -> torch.Tensor:
        nonlocal calls
        calls += 1
        if calls == 1:
            raise RuntimeError("CUDA error: out of memory")
        return fetch(values)

    monkeypatch.setattr(torch.Tensor, "cpu", fails_once)
    assert teacher.logits(queries, titles) == pytest.approx(expected, abs=1e-5)
    assert (teacher.tokens_per_batch, teacher.counters.num_pairs) == (128, 20)
    assert teacher.counters.num_out_of_memory == 1


def test_the_budget_grows_back_when_memory_is_there_again(tiny_bert: Path) -> None:
    teacher = make(tiny_bert)
    device = SmallDevice(teacher, most=40)
    queries, titles = some_pairs(20)
    teacher.logits(queries, titles)
    device.most = 10_000
    for _ in range(40):
        teacher.logits(queries, titles)
    assert teacher.tokens_per_batch == 256
    assert device.num_failures == 3


def test_a_pair_that_does_not_fit_alone(tiny_bert: Path) -> None:
    teacher = make(tiny_bert)
    SmallDevice(teacher, most=5, error=RuntimeError(CUBLAS))
    with pytest.raises(
        torch.OutOfMemoryError,
        match=r"a pair of \d+ tokens does not fit.*float32.*label.max_length \(now 32\).*CUBLAS",
    ):
        teacher.logits(*some_pairs(20))


def test_roberta_is_packed_too(tmp_path: Path, tiny_bert: Path) -> None:
    """Other positions and another head than BERT's, on the same layers."""
    config = transformers.RobertaConfig(
        vocab_size=5 + len(VOCABULARY), hidden_size=32, num_hidden_layers=2, num_attention_heads=2,
        intermediate_size=64, max_position_embeddings=64, type_vocab_size=2, num_labels=1,
        initializer_range=0.5, pad_token_id=1,
    )  # fmt: skip
    model = transformers.RobertaForSequenceClassification(config)
    check_families(tmp_path, tiny_bert, model, is_packed=True)


@pytest.mark.parametrize("kind", ["MPNet", "ModernBert"])
def test_any_other_model_is_padded(tmp_path: Path, tiny_bert: Path, kind: str) -> None:
    config = getattr(transformers, f"{kind}Config")(
        vocab_size=5 + len(VOCABULARY), hidden_size=32, num_hidden_layers=1, num_labels=1,
        num_attention_heads=2, intermediate_size=64, max_position_embeddings=64,
        initializer_range=0.5, pad_token_id=0,
    )  # fmt: skip
    model = getattr(transformers, f"{kind}ForSequenceClassification")(config)
    check_families(tmp_path, tiny_bert, model, is_packed=False)


def check_families(folder: Path, tiny_bert: Path, model: Any, *, is_packed: bool) -> None:  # noqa: ANN401
    model.save_pretrained(folder / "model")
    tokenizer = AutoTokenizer.from_pretrained(tiny_bert)
    if "token_type_ids" not in inspect.signature(model.forward).parameters:
        tokenizer.model_input_names = ["input_ids", "attention_mask"]
    tokenizer.save_pretrained(folder / "model")
    queries, titles = some_pairs(20)
    expected = [alone(folder / "model", q, t)[0] for q, t in zip(queries, titles, strict=True)]
    teacher = make(folder / "model")
    assert teacher.is_packed == is_packed
    assert teacher.logits(queries, titles) == pytest.approx(expected, abs=1e-4)
    assert np.std(expected) > 1e-3


def test_bfloat16_is_close_to_float32(tiny_bert: Path) -> None:
    queries, titles = some_pairs(60)
    exact = make(tiny_bert).logits(queries, titles)
    teacher = make(tiny_bert, dtype="bfloat16", tokens_per_batch=4_096)
    rough = teacher.logits(queries, titles)
    assert np.corrcoef(exact, rough)[0, 1] > 0.999
    assert np.array_equal(rough, teacher.logits(queries, titles))


def test_onednn_is_used_where_it_is_right() -> None:
    assert has_onednn(torch.float32) in (True, False)
    assert not has_onednn(torch.complex64)  # an operator that fails is not used


def test_what_is_no_teacher(tmp_path: Path, tiny_bert: Path) -> None:
    with pytest.raises(UserError, match="no model in"):
        make(tmp_path)
    three = make_bert(tmp_path / "three", num_labels=3)
    with pytest.raises(UserError, match="has 3 outputs; a teacher has 1 or 2"):
        make(three)
    config = json.loads((tiny_bert / "config.json").read_text())
    (tmp_path / "encoder").mkdir()
    (tmp_path / "encoder" / "config.json").write_text(
        json.dumps({**config, "architectures": ["BertModel"]})
    )
    with pytest.raises(UserError, match=r"is a BertModel, not a cross-encoder.*`base`"):
        make(tmp_path / "encoder")


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_a_gpu_gives_the_logits_of_a_cpu(tiny_bert: Path) -> None:
    pairs = some_pairs(300)
    on_cpu = make(tiny_bert).logits(*pairs)
    for dtype, most in (("float32", 1e-4), ("bfloat16", 0.5)):
        teacher = Teacher(tiny_bert, device="cuda", dtype=dtype, max_length=32)
        logits = teacher.logits(*pairs)
        assert np.abs(logits - on_cpu).max() < most
        assert np.array_equal(teacher.logits(*pairs), logits)
