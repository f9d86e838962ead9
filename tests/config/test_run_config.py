from pathlib import Path

import pytest

from raydistill.config.loading import load_config
from raydistill.config.run_config import RunConfig
from raydistill.errors import UserError
from raydistill.runs.fingerprints import fingerprint


def test_an_input_may_name_its_own_columns(file: str) -> None:
    tables = "pairs.input=['a.csv', {path='b.csv', title='name', source='shop'}]"
    pairs = load_config(file, overrides=[tables, "pairs.query=q"]).pairs
    first, second = (pairs.columns(one) for one in pairs.input)
    assert first == {"query": "q", "title": "title"}
    assert second == {"query": "q", "title": "name", "source": "shop"}


@pytest.mark.parametrize(
    ("override", "words"),
    [
        ("train.epoch=3", ["unknown field train.epoch", "epochs"]),
        ("trian.epochs=3", ["unknown field trian", "train"]),
        ("pairs.input=[{path='a', titel='t'}]", ["unknown field pairs.input.0.titel", "title"]),
        ("pairs.input=[{path='a', label='l'}]", ["names a label; only judged pairs"]),
        ("pairs.input=[{path='a', split='test'}]", ["names a split; only judged pairs"]),
        ("pairs={input=[{path='a', query='q'}], query=''}", ["names a query column, but query is"]),
        ("pairs.input=[]", ["pairs.input", "at least 1"]),
        ("pairs.input=3", ["pairs.input", "given: 3"]),
        ("teachers.a.modle=x", ["unknown field teachers.a.modle", "model"]),
        (
            "teachers.a={model='m', prompt='{query}'}",
            ["teachers.a", "0 and 1 times"],
        ),
        (
            "teachers.b={base='m', prompt='{query} {title}'}",
            ["`prompt` is for a ready-made"],
        ),
        ("teachers.a={model='m', prompt='{title}'}", ["teachers.a.prompt has no {query}"]),
        ("train.epochs=0", ["train.epochs", "greater than or equal to 1", "given: 0"]),
        ("teachers.a.base=y", ["teachers.a", "not both"]),
        ("soft_labels.weights={a=1.0}", ["soft_labels.weights", "'a', 'b'"]),
        ("epochs", ["section.field=value"]),
        ("run_dir.x=1", ["run_dir is a value"]),
        ("judged.query=q", []),
        ("judged.query=", ["judged.query", "single texts"]),
        ("judged.dev_share=0.95", ["nothing to train on"]),
        ("finetune.num_workers=3", ["batch_rows = 32", "num_workers = 3"]),
    ],
)
def test_a_mistake_is_named(file: str, override: str, words: list[str]) -> None:
    if not words:
        assert load_config(file, overrides=[override]).judged.query == "q"
        return
    with pytest.raises(UserError) as caught:
        load_config(file, overrides=[override])
    assert all(word in str(caught.value) for word in words), str(caught.value)


def test_a_window_in_shards_is_named_with_what_it_became(file: str) -> None:
    with pytest.raises(UserError, match=r"train.window_shards; did you mean window_rows"):
        load_config(file, overrides=["train.window_shards=8"])
    assert load_config(file, overrides=["train.window_rows=65536"]).train.window_rows == 65_536


def test_single_texts_have_no_query(file: str, tmp_path: Path) -> None:
    config = load_config(file, overrides=["pairs.query=", "judged.query="])
    (tmp_path / "stored.toml").write_text(config.to_toml())
    assert load_config(str(tmp_path / "stored.toml")).pairs.query == ""


def test_settings_that_change_only_speed_are_not_in_the_fingerprint(file: str) -> None:
    base = load_config(file)
    fast = load_config(file, overrides=["label.tokens_per_batch=99", "train.num_workers=4"])
    other = load_config(file, overrides=["label.max_length=99"])
    assert fingerprint(base.label.fingerprint_fields()) == fingerprint(
        fast.label.fingerprint_fields()
    )
    assert fingerprint(base.train.fingerprint_fields()) == fingerprint(
        fast.train.fingerprint_fields()
    )
    assert fingerprint(base.label.fingerprint_fields()) != fingerprint(
        other.label.fingerprint_fields()
    )


def test_every_speed_setting_is_a_field() -> None:
    for field in RunConfig.model_fields.values():
        speed = getattr(field.annotation, "RUNTIME_ONLY", frozenset())
        assert speed <= set(getattr(field.annotation, "model_fields", {}))


def test_weights_are_normalised_and_in_the_order_of_the_file(file: str) -> None:
    config = load_config(file, overrides=["soft_labels.weights={b=3.0, a=1.0}"])
    assert config.stacking_weights() == {"a": 0.25, "b": 0.75}
    assert load_config(file).stacking_weights() is None  # fitted


def test_the_trees_are_a_teacher_unless_they_are_left_out(file: str) -> None:
    assert load_config(file).teacher_names == ["a", "b", "trees"]
    for left_out in ("trees.enabled=false", "soft_labels.weights={a=1, b=1}"):
        assert load_config(file, overrides=[left_out]).teacher_names == ["a", "b"]
    given = load_config(file, overrides=["soft_labels.weights={trees=1, a=2, b=1}"])
    assert given.stacking_weights() == {"a": 0.5, "b": 0.25, "trees": 0.25}
    single = load_config(file, overrides=['pairs.query=""', 'judged.query=""'])
    assert single.teacher_names == ["a", "b"]
    for also in ([], ["trees.enabled=false"]):
        with pytest.raises(UserError, match=r"teachers.trees: the name is that of the trees"):
            load_config(file, overrides=["teachers.trees.model=x", *also])
    with pytest.raises(UserError, match=r"'trees'.* but the teachers are \['a', 'b'\]"):
        load_config(
            file, overrides=["soft_labels.weights={a=1, b=1, trees=1}", "trees.enabled=false"]
        )


def test_the_loss_goes_by_the_preset_unless_it_is_given(file: str) -> None:
    assert load_config(file).target == "logit"
    assert load_config(file, overrides=["ngrams.preset=bert2dnn"]).target == "probability"
    overrides = ["train.target=probability"]
    assert load_config(file, overrides=overrides).target == "probability"
