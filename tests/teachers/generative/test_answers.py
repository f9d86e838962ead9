"""The tokens of yes and no: from the run file, from the folder, or refused."""

import json
from pathlib import Path
from typing import Any

import pytest
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from raydistill.config.prompt import Question
from raydistill.errors import UserError
from raydistill.teachers.generative.answers import (
    Answers,
    find_answers,
    read_logit_score,
    template_settings,
)
from raydistill.teachers.transformer.pair_tokenizer import load_tokenizer
from tests.helpers.decoders import make_tokenizer

pytestmark = pytest.mark.slow
_TYPES = "sentence_transformers.base.modules.transformer.Transformer"
_SCORE = "sentence_transformers.cross_encoder.modules.logit_score.LogitScore"


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> Any:  # noqa: ANN401
    folder = tmp_path_factory.mktemp("tokenizer")
    make_tokenizer(folder, more="yes no Yes No")
    return load_tokenizer(folder)


def with_modules(folder: Path, *later: tuple[str, dict[str, object]]) -> Path:
    """A folder as sentence-transformers writes it: a Transformer and later modules."""
    modules = [{"idx": 0, "name": "0", "path": "", "type": _TYPES}]
    for at, (kind, settings) in enumerate(later, start=1):
        path = f"{at}_{kind.rpartition('.')[2]}"
        modules.append({"idx": at, "name": str(at), "path": path, "type": kind})  # type: ignore[dict-item]
        (folder / path).mkdir(parents=True)
        (folder / path / "config.json").write_text(json.dumps(settings))
    (folder / "modules.json").write_text(json.dumps(modules))
    return folder


def test_yes_and_no_by_default(tmp_path: Path, tokenizer: Any) -> None:  # noqa: ANN401
    vocabulary = tokenizer.get_vocab()
    found = find_answers(tmp_path, tokenizer, Question())
    assert found == Answers(vocabulary["yes"], vocabulary["no"])


def test_the_run_file_before_the_folder(tmp_path: Path, tokenizer: Any) -> None:  # noqa: ANN401
    vocabulary = tokenizer.get_vocab()
    folder = with_modules(tmp_path, (_SCORE, {"true_token_id": 7, "false_token_id": 5}))
    assert find_answers(folder, tokenizer, Question()) == Answers(7, 5)
    assert find_answers(folder, tokenizer, Question(yes="Yes")) == Answers(vocabulary["Yes"], 5)
    assert find_answers(folder, tokenizer, Question(no="No")) == Answers(7, vocabulary["No"])
    assert find_answers(folder, tokenizer, Question(no="")) == Answers(7, None)


def test_a_folder_that_scores_one_token(tmp_path: Path, tokenizer: Any) -> None:  # noqa: ANN401
    folder = with_modules(tmp_path, (_SCORE, {"true_token_id": 7, "false_token_id": None}))
    assert find_answers(folder, tokenizer, Question()) == Answers(7, None)


def test_an_answer_after_a_space(tmp_path: Path, tokenizer: Any) -> None:  # noqa: ANN401
    """Byte-level tokenizers write a space as `Ġ`; the user writes the text or the token."""
    known = tokenizer.get_vocab()["Ġno"]
    for no in (" no", "Ġno"):
        assert find_answers(tmp_path, tokenizer, Question(no=no)).no == known


def test_a_token_that_the_tokenizer_would_not_make(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """SentencePiece's dummy prefix: the text `yes` is the piece `▁yes`, and `yes` is another."""
    vocabulary = {"<unk>": 0, "▁yes": 1, "yes": 2, "▁no": 3, "no": 4, "▁yes2": 5}
    rust = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    rust.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="always")
    made = PreTrainedTokenizerFast(tokenizer_object=rust, unk_token="<unk>")
    assert find_answers(tmp_path, made, Question()) == Answers(2, 4)
    assert find_answers(tmp_path, made, Question()) == Answers(2, 4)
    first, second = caplog.messages
    assert "yes = 'yes' is taken as the token 'yes', but the tokenizer reads" in first
    assert "that text as '▁yes'" in first and "'▁no'" in second
    caplog.clear()
    assert find_answers(tmp_path, made, Question(yes="▁yes", no="▁no")) == Answers(1, 3)
    assert caplog.messages == []


def test_an_answer_of_several_tokens(tmp_path: Path, tokenizer: Any) -> None:  # noqa: ANN401
    with pytest.raises(UserError, match="yes = 'xyz' is not one token") as caught:
        find_answers(tmp_path, tokenizer, Question(yes="xyz"))
    assert "'x', 'y', 'z'" in str(caught.value)


def test_the_same_answer_twice(tmp_path: Path, tokenizer: Any) -> None:  # noqa: ANN401
    with pytest.raises(UserError, match="`yes` and `no` are the same token 'no'"):
        find_answers(tmp_path, tokenizer, Question(yes="no"))


def test_a_model_with_a_dense_layer(tmp_path: Path) -> None:
    folder = with_modules(tmp_path, ("sentence_transformers.base.modules.Dense", {"out": 1}))
    with pytest.raises(UserError, match="is scored by Dense"):
        read_logit_score(folder)


def test_a_broken_file(tmp_path: Path) -> None:
    (tmp_path / "modules.json").write_text("{")
    with pytest.raises(UserError, match=r"modules.json cannot be read as JSON"):
        read_logit_score(tmp_path)


def test_what_a_chat_template_is_called_with(tmp_path: Path) -> None:
    assert template_settings(tmp_path) == {"add_generation_prompt": True}
    folder = with_modules(tmp_path, (_SCORE, {"true_token_id": 7}))
    (folder / "config.json").write_text("{}")
    assert template_settings(folder) == {}
    given = {"chat_template": {"add_generation_prompt": True, "restore_suffix": False}}
    settings = {"transformer_task": "text-generation", "processing_kwargs": given}
    (folder / "sentence_bert_config.json").write_text(json.dumps(settings))
    assert template_settings(folder) == {"add_generation_prompt": True}


def test_an_old_layout_has_the_settings_in_the_encoders_folder(tmp_path: Path) -> None:
    (tmp_path / "modules.json").write_text(json.dumps([{"path": "0_Transformer", "type": _TYPES}]))
    root = tmp_path / "0_Transformer"
    root.mkdir()
    (root / "config.json").write_text("{}")
    given = {"chat_template": {"add_generation_prompt": True}}
    (root / "sentence_bert_config.json").write_text(json.dumps({"processing_kwargs": given}))
    assert template_settings(tmp_path) == {"add_generation_prompt": True}
