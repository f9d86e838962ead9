"""The two answers of a generative reranker: a token for yes, one for no.

They are given as strings in the run file, or as ids in the folder of sentence-transformers'
LogitScore. No torch, no Ray.
"""

from __future__ import annotations

import json
import logging
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

from raydistill.config.prompt import Question
from raydistill.errors import UserError
from raydistill.teachers.transformer.pair_tokenizer import model_root

logger = logging.getLogger("raydistill")
_YES, _NO = "yes", "no"  # the default of sentence-transformers, and of Qwen3-Reranker
_TRUE, _FALSE = "true_token_id", "false_token_id"


class Answers(NamedTuple):
    """Token ids; `no` is None where the logit of `yes` alone is the score."""

    yes: int
    no: int | None


def find_answers(folder: Path, tokenizer: Any, question: Question) -> Answers:  # noqa: ANN401
    """The answers of the run file, else of the folder, else the tokens `yes` and `no`.

    Raises:
        UserError: an answer is not one token, or both are the same; or the folder's model is not
            scored by its tokens.
    """
    scored = read_logit_score(folder)
    yes = _one_token(tokenizer, question.yes, setting=_YES) if question.yes else scored.get(_TRUE)
    if yes is None:
        yes = _one_token(tokenizer, _YES, setting=_YES)
    if question.no is not None:
        no = _one_token(tokenizer, question.no, setting=_NO) if question.no else None
    elif _FALSE in scored:
        no = scored[_FALSE]
    else:
        no = _one_token(tokenizer, _NO, setting=_NO)
    if yes == no:
        raise UserError(f"`yes` and `no` are the same token {_named(tokenizer, yes)}: give two")
    return Answers(yes, no)


def _one_token(tokenizer: Any, text: str, *, setting: str) -> int:  # noqa: ANN401
    """The id of a string of the vocabulary, or of a text that the tokenizer makes one token of."""
    known = tokenizer.get_vocab().get(text)
    ids: list[int] = tokenizer(text, add_special_tokens=False)["input_ids"]
    if known is not None:
        if ids != [known] and len(ids) == 1 and ids[0] != tokenizer.unk_token_id:
            _warn_once(
                f"{setting} = {text!r} is taken as the token {_named(tokenizer, known)}, but the "
                f"tokenizer reads that text as {_named(tokenizer, ids[0])}; give the latter if the "
                "model was trained to answer so"
            )
        return int(known)
    if len(ids) != 1 or ids[0] == tokenizer.unk_token_id:
        pieces = ", ".join(_named(tokenizer, id_) for id_ in ids) or "nothing"
        raise UserError(
            f"{setting} = {text!r} is not one token of the teacher's tokenizer, which makes "
            f"{pieces} of it; give `yes` and `no` in the run file's table of this teacher as "
            "strings that are one token each, as the model was trained to answer"
        )
    return ids[0]


@cache
def _warn_once(text: str) -> None:
    logger.warning("label     %s", text)


def _named(tokenizer: Any, id_: int) -> str:  # noqa: ANN401
    return repr(tokenizer.convert_ids_to_tokens(id_))


def read_logit_score(folder: Path) -> dict[str, Any]:
    """The settings of sentence-transformers' LogitScore; {} in a folder without one.

    A model that sentence-transformers scores by other modules than LogitScore (pooling, a dense
    layer) has no yes and no.

    Raises:
        UserError: a file cannot be read, or there are other modules.
    """
    if not (folder / "modules.json").exists():
        return {}
    modules = _read_json(folder / "modules.json")
    later = modules[1:] if isinstance(modules, list) else []
    later = [module for module in later if isinstance(module, dict)]
    found: dict[str, Any] = {}
    for module in later:
        settings = _settings(folder, module)
        if _TRUE not in settings:
            raise UserError(
                f"{folder} is scored by {str(module.get('type')).rpartition('.')[2]} "
                "(modules.json), not by the logits of two tokens: such a model is no `causal` "
                "teacher"
            )
        found = settings
    return found


def _settings(folder: Path, module: dict[str, Any]) -> dict[str, Any]:
    file = folder / str(module.get("path")) / "config.json"
    settings = _read_json(file) if file.is_file() else {}
    return settings if isinstance(settings, dict) else {}


def template_settings(folder: Path) -> dict[str, Any]:
    """What a folder's chat template is called with.

    As sentence-transformers calls it; in a folder that is not of sentence-transformers the template
    adds what begins the answer.

    Raises:
        UserError: a file cannot be read.
    """
    if not (folder / "modules.json").exists():
        return {"add_generation_prompt": True}
    places = (model_root(folder), folder)  # in an old layout the former is 0_Transformer
    files = [place / "sentence_bert_config.json" for place in places]
    file = next((file for file in files if file.is_file()), files[0])
    settings = _read_json(file) if file.is_file() else {}
    given = settings.get("processing_kwargs") or {} if isinstance(settings, dict) else {}
    ours = {"restore_suffix", "padding", "truncation", "max_length", "return_tensors"}
    return {k: v for k, v in (given.get("chat_template") or {}).items() if k not in ours}


def _read_json(file: Path) -> Any:  # noqa: ANN401
    try:
        return json.loads(file.read_text(encoding="utf-8"))
    except ValueError as error:
        raise UserError(f"{file} cannot be read as JSON ({error}); correct it") from error
