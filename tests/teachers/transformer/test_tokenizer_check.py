"""Rejected tokenizers: absent, of another model, or without the language of the texts."""

import json
import shutil
from pathlib import Path

import pytest
import transformers
from tokenizers import Tokenizer, models, pre_tokenizers

from raydistill.errors import UserError
from raydistill.files.model_files import pin_model
from raydistill.teachers.cross_encoder import Teacher, check_model
from raydistill.teachers.transformer.pair_tokenizer import load_tokenizer
from raydistill.teachers.transformer.tokenizer_check import lost_share
from raydistill.teachers.transformer.trial_pairs import Trial
from tests.helpers.decoders import make_tokenizer
from tests.helpers.words import VOCABULARY

GOOD = Trial(pairs=(("sofa", "grey sofa"), ("drill", "saw drill")))


def copied(source: Path, folder: Path, *, without: tuple[str, ...] = ()) -> Path:
    shutil.copytree(source, folder)
    for name in without:
        (folder / name).unlink()
    return folder


@pytest.mark.parametrize(
    "without",
    [
        ("tokenizer.json", "vocab.txt", "tokenizer_config.json"),
        ("tokenizer.json", "vocab.txt"),
    ],
)
@pytest.mark.parametrize("is_base", [False, True])
def test_a_folder_without_a_vocabulary(
    tiny_bert: Path, tmp_path: Path, without: tuple[str, ...], is_base: bool
) -> None:
    folder = copied(tiny_bert, tmp_path / "bare", without=without)
    with pytest.raises(UserError, match=r"no tokenizer in .*vocab\.txt, tokenizer\.json"):
        check_model(folder, max_length=32, trial=Trial(is_base=is_base))


def test_byte_pairs_without_their_merges(tmp_path: Path) -> None:
    make_tokenizer(tmp_path)
    rust = json.loads((tmp_path / "tokenizer.json").read_text())
    (tmp_path / "vocab.json").write_text(json.dumps(rust["model"]["vocab"]))
    (tmp_path / "tokenizer.json").unlink()
    (tmp_path / "tokenizer_config.json").write_text('{"tokenizer_class": "GPT2Tokenizer"}')
    with pytest.raises(UserError, match=r"no tokenizer in .*merges"):
        load_tokenizer(tmp_path)


def test_one_of_the_two_files_of_a_vocabulary_is_enough(tiny_bert: Path, tmp_path: Path) -> None:
    for name in ("tokenizer.json", "vocab.txt"):
        folder = copied(tiny_bert, tmp_path / name, without=(name,))
        check_model(folder, max_length=32, trial=GOOD)


@pytest.mark.parametrize("pairs", [[("沙发", "灰色沙发")], [("диван", "серый диван")]])
def test_texts_of_another_language(tiny_bert: Path, pairs: list[tuple[str, str]]) -> None:
    check_model(tiny_bert, max_length=32, trial=GOOD)
    with pytest.raises(UserError, match=r"100% of the characters of 2 texts become \[UNK\]"):
        check_model(tiny_bert, max_length=32, trial=Trial(pairs=tuple(pairs)))


def test_the_vocabulary_of_another_model(tiny_bert: Path, tmp_path: Path) -> None:
    folder = copied(tiny_bert, tmp_path / "other", without=("tokenizer.json",))
    special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    (folder / "vocab.txt").write_text("\n".join([*special, *(f"x{n}" for n in VOCABULARY)]))
    with pytest.raises(UserError, match="does not know the words of these pairs"):
        check_model(folder, max_length=32, trial=GOOD)


def test_lost_characters_by_hand() -> None:
    """Byte pairs without an unknown token drop what they do not know."""
    rust = Tokenizer(models.BPE(vocab={"a": 0, "b": 1}, merges=[]))
    rust.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer = transformers.PreTrainedTokenizerFast(tokenizer_object=rust)
    assert lost_share(tokenizer, ["ab", "a cc"]) == pytest.approx(2 / 5)
    rust = Tokenizer(models.WordLevel(vocab={"?": 0, "ab": 1}, unk_token="?"))
    rust.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer = transformers.PreTrainedTokenizerFast(tokenizer_object=rust, unk_token="?")
    assert lost_share(tokenizer, ["ab abc"]) == pytest.approx(3 / 5)


def test_tokens_without_an_embedding(tiny_bert: Path, tmp_path: Path) -> None:
    folder = copied(tiny_bert, tmp_path / "more")
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    tokenizer.add_tokens(["<brand>"])
    tokenizer.save_pretrained(folder)
    num = 5 + len(VOCABULARY)
    with pytest.raises(UserError, match=rf"'<brand>' with id {num}.*embedding of {num} rows"):
        Teacher(folder, device="cpu", dtype="float32", max_length=32)


def test_token_types_that_the_model_does_not_know(tiny_bert: Path, tmp_path: Path) -> None:
    config = transformers.BertConfig.from_pretrained(tiny_bert, type_vocab_size=1)
    transformers.BertForSequenceClassification(config).save_pretrained(tmp_path)
    transformers.AutoTokenizer.from_pretrained(tiny_bert).save_pretrained(tmp_path)
    with pytest.raises(UserError, match="token type 1 but the model has 1"):
        check_model(tmp_path, max_length=32)
    check_model(tmp_path, max_length=32, trial=Trial(has_query=False))


@pytest.mark.parametrize("limit", [-1, 8, 1e30])
def test_the_limit_of_a_tokenizer_is_not_asked(
    tiny_bert: Path, tmp_path: Path, limit: float
) -> None:
    folder = copied(tiny_bert, tmp_path / "limit")
    settings = json.loads((folder / "tokenizer_config.json").read_text())
    (folder / "tokenizer_config.json").write_text(
        json.dumps(settings | {"model_max_length": limit})
    )
    check_model(folder, max_length=32, trial=GOOD)


@pytest.mark.parametrize("content", ["{", '{"version": "1.0"}'])
def test_a_tokenizer_that_cannot_be_read(tiny_bert: Path, tmp_path: Path, content: str) -> None:
    folder = copied(tiny_bert, tmp_path / "broken")
    (folder / "tokenizer.json").write_text(content)
    with pytest.raises(UserError, match="no tokenizer in"):
        check_model(folder, max_length=32)


@pytest.mark.parametrize("name", ["model.safetensors", "tokenizer.json", "vocab.txt"])
def test_what_git_lfs_leaves_is_named(tiny_bert: Path, tmp_path: Path, name: str) -> None:
    folder = copied(tiny_bert, tmp_path / "lfs")
    text = "version https://git-lfs.github.com/spec/v1\noid sha256:ab\nsize 12\n"
    (folder / name).write_text(text)
    with pytest.raises(UserError, match=rf"{name} is a Git LFS pointer.*git lfs pull"):
        pin_model(str(folder))


@pytest.mark.parametrize("content", ["{", "[]", '[{"path": "nowhere"}]'])
def test_a_list_of_modules_that_is_broken(tmp_path: Path, content: str) -> None:
    (tmp_path / "modules.json").write_text(content)
    with pytest.raises(UserError, match=r"modules\.json (cannot be read|names)"):
        check_model(tmp_path, max_length=32)
