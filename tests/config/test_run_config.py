from pathlib import Path

import pytest

from raydistill.config.loading import load_config, to_config
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
        ("teachers.a.scores=x", ["teachers.a: give exactly one of", "not `model` and `scores`"]),
        ("teachers.a.score=x", ["teachers.a: `score` is for a teacher of `scores`"]),
        ("teachers.c={scores='x', kind='grade'}", ["teachers.c", "needs a `scale`"]),
        ("teachers.c={scores='x', scale=[0, 3]}", ["teachers.c", "needs a `scale`"]),
        ("teachers.c={scores='x', score='p', gains={p=1}}", ["teachers.c", "not both"]),
        ("teachers.c={scores=[{path='x', label='l'}]}", ["x: an input of scores has path"]),
        ("teachers.c={}", ["teachers.c: give exactly one of", "not none of them"]),
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
        ("teachers.b={bi_encoder='m', prompt='{query} {title}'}", ["the prompts of its folder"]),
        (
            "teachers.b={bi_encoder='m', gains={a=1.0, b=0.0}}",
            ["`gains` are of the classes of a `model`, or of columns"],
        ),
        (
            "teachers.b={model='m', gains={good=3.0, fair=1.0, bad=0.0}}",
            ["gains has good = 3:", "divide all of them by the largest, 3"],
        ),
        (
            "teachers.b={model='m', gains={good=0.5, bad=0.5}}",
            ["gains = { good = 0.5, bad = 0.5 } has fewer than two different values"],
        ),
        ("teachers.b={model='m', gains='grades'}", ["teachers.b.gains", "esci"]),
        (
            "teachers.a={causal='m', prompt='{instruction} {query} {title}'}",
            ["`prompt` has {instruction}, and `instruction` is not given"],
        ),
        (
            "teachers.a={causal='m', prompt='{query} {title}', instruction='i'}",
            ["`instruction` is given, and `prompt` has no {instruction} for it"],
        ),
        ("teachers.a={model='m', yes='1'}", ["`yes` is for a `causal` teacher"]),
        ("teachers.a={causal='m', yes=''}", ["teachers.a.yes"]),
        ("teachers.a={causal='m', yes='Yes'}", ["`yes` is given without `no`: give both"]),
        ("teachers.a={causal='m', no='No'}", ["`no` is given without `yes`: give both"]),
        ("teachers.a={causal='m', model='n'}", ["not `model` and `causal`"]),
        ("train.epochs=0", ["train.epochs", "greater than or equal to 1", "given: 0"]),
        ("teachers.a.base=y", ["teachers.a: give exactly one of `base`", "not `base` and `model`"]),
        ("soft_labels.weights={a=1.0}", ["soft_labels.weights", "'a', 'b'"]),
        ("epochs", ["section.field=value"]),
        ("run_dir.x=1", ["run_dir is a value"]),
        ("judged.query=q", []),
        ("judged.query=", ["judged.query", "single texts"]),
        ("pairs.title=[]", ["pairs.title", "give the name of a column"]),
        ("pairs.title=['a', 'b', 'a']", ["pairs.title", "names a column twice"]),
        ("judged.dev_share=0.95", ["nothing to train on"]),
        ("finetune.num_workers=3", ["batch_rows = 32", "num_workers = 3"]),
        ("train.num_workers=[4,1]", ["train.num_workers", "[4, 1]", "[least, most]"]),
        ("train.num_workers=[0,1]", ["train.num_workers", "[0, 1]", "at least 1"]),
        ("train.num_workers=many", ["train.num_workers", "'many'", "at least 1"]),
    ],
)
def test_a_mistake_is_named(file: str, override: str, words: list[str]) -> None:
    if not words:
        assert load_config(file, overrides=[override]).judged.query == "q"
        return
    with pytest.raises(UserError) as caught:
        load_config(file, overrides=[override])
    assert all(word in str(caught.value) for word in words), str(caught.value)


@pytest.mark.parametrize("answers", ["yes='Yes', no='No'", "yes='Yes', no=''", "no=''"])
def test_answers_that_leave_no_doubt(file: str, answers: str) -> None:
    config = load_config(file, overrides=[f"teachers.a={{causal='m', {answers}}}"])
    given = config.teachers["a"].model_dump(include={"yes", "no"}, exclude_none=True)
    assert ", ".join(f"{name}={value!r}" for name, value in given.items()) == answers


def test_a_cosine_needs_a_query(file: str) -> None:
    single = ["pairs.query=", "judged.query=", "teachers.a={bi_encoder='m'}"]
    with pytest.raises(UserError, match=r"teachers\.a\.bi_encoder compares a query with a title"):
        load_config(file, overrides=single)


def test_a_window_in_shards_is_named_with_what_it_became(file: str) -> None:
    with pytest.raises(UserError, match=r"train.window_shards; did you mean window_rows"):
        load_config(file, overrides=["train.window_shards=8"])
    assert load_config(file, overrides=["train.window_rows=65536"]).train.window_rows == 65_536


NO_JUDGED = {"run_dir": "x", "pairs": {"input": "p"}, "teachers": {"a": {"model": "m"}}}


def test_without_judged_pairs_the_splits_are_of_the_transfer_set() -> None:
    several = {"a": {"model": "m"}, "b": {"model": "n"}}
    config = to_config({**NO_JUDGED, "teachers": several}, name="x")
    assert config.datasets == ("held_out", "pairs")
    assert config.teacher_names == ["a", "b"]  # no trees
    assert config.stacking_weights() == {"a": 0.5, "b": 0.5}
    assert config.relevant_at("dev") is config.relevant_at("test") is None


def test_judged_pairs_may_be_the_test_split_alone() -> None:
    config = to_config({**NO_JUDGED, "judged": {"input": "j", "dev_share": 0}}, name="x")
    assert config.datasets == ("judged", "held_out", "pairs")
    assert [config.source_of(s) for s in ("dev", "test")] == ["held_out", "judged"]
    assert config.judged_rules.share("test") == 1
    assert config.teacher_names == ["a"]
    assert config.relevant_at("test") == 0.5
    own = {"input": ["j", {"path": "d", "split": "dev"}], "dev_share": 0}
    assert to_config({**NO_JUDGED, "judged": own}, name="x").learns_from_judged


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        ({"teachers": {"a": {"base": "m"}}}, r"teachers.a.base = 'm' .* there is no \[judged\]"),
        ({"soft_labels": {"weights": "fitted"}}, "needs judged dev pairs"),
        ({"pairs": {"input": "p", "hold_out": False}}, "must be left out of training"),
        (
            {"judged": {"input": [{"path": "j", "split": "train"}], "dev_share": 0}},
            "dev_share = 0 makes all judged pairs the test split",
        ),
    ],
)
def test_what_needs_judged_pairs_is_named(changed: dict[str, object], words: str) -> None:
    with pytest.raises(UserError, match=words) as caught:
        to_config({**NO_JUDGED, **changed}, name="x")
    assert "'run_dir'" not in str(caught.value)  # not the whole file


@pytest.mark.parametrize("name", ["train.metric", "tune.metric"])
def test_metrics_of_queries_need_queries(name: str) -> None:
    section, field = name.split(".")
    single = {"input": ["p"], "query": "", "title": "text"}
    with pytest.raises(UserError, match=f"{name} = 'ndcg_10' compares .* texts are single"):
        to_config({**NO_JUDGED, "pairs": single, section: {field: "ndcg_10"}}, name="x")
    to_config({**NO_JUDGED, "pairs": single, section: {field: "pr_auc"}}, name="x")


def test_the_metrics_that_choose() -> None:
    def of(**tables: object) -> RunConfig:
        return to_config({**NO_JUDGED, **tables}, name="x")

    judged = {"judged": {"input": ["j"]}}
    assert (of().dev_metric, of(**judged).dev_metric) == ("agreement", "auc")
    assert (of().tune_metric, of(**judged).tune_metric) == ("spearman", "auc")
    named = of(train={"metric": "spearman"}, tune={"metric": "agreement"})
    assert (named.dev_metric, named.tune_metric) == ("agreement", "agreement")
    assert named.resolved.train == of().resolved.train  # and the same student
    assert of(**judged, train={"metric": "auc"}).resolved == of(**judged).resolved
    assert of(train={"metric": "auc"}).resolved.train.metric == "auc"  # against soft labels


def test_students_of_before_there_was_a_metric_stay_valid() -> None:
    """The default is not in the fingerprint: only another metric makes another student."""
    judged = {**NO_JUDGED, "judged": {"input": ["j"]}}
    for train in ({}, {"metric": "auc"}):
        fields = to_config({**judged, "train": train}, name="x").resolved.train.fingerprint_fields()
        assert "metric" not in fields
    chosen = to_config({**judged, "train": {"metric": "ndcg_10"}}, name="x").resolved.train
    assert chosen.fingerprint_fields()["metric"] == "ndcg_10"


def test_a_title_may_have_several_columns(file: str, tmp_path: Path) -> None:
    several = ["pairs.title=['title', 'brand']", "judged.title=['name']"]
    config = load_config(file, overrides=several)
    assert config.pairs.title == ("title", "brand")
    assert config.judged.title == "name"
    assert config.pairs.columns(config.pairs.input[0])["title"] == ["title", "brand"]
    (tmp_path / "stored.toml").write_text(config.to_toml())
    assert load_config(str(tmp_path / "stored.toml")) == config
    assert load_config(file).pairs.fingerprint_fields()["title"] == "title"  # as before


@pytest.mark.parametrize(
    "pairs",
    ["pairs.title=['title', 'brand']", "pairs.input=[{path='p', title=['title', 'brand']}]"],
)
def test_judged_titles_of_one_column_are_said(file: str, pairs: str) -> None:
    with pytest.raises(UserError, match=r"\['title', 'brand'\] has several.* judged.title is not"):
        load_config(file, overrides=[pairs])
    own = "judged.input=[{path='a', title=['title', 'brand']}]"
    for said in ("judged.title=title", "judged.title=['title', 'brand']", own):
        load_config(file, overrides=[pairs, said])
    with pytest.raises(UserError, match=r"judged.title is not given"):
        load_config(file, overrides=[pairs, "judged.input=['b', {path='a', title='t'}]"])


@pytest.mark.parametrize("scores", ["{scores='s', query='q'}", "{scores=[{path='s', query='q'}]}"])
def test_scores_of_single_texts_have_no_query(file: str, scores: str) -> None:
    single = ["pairs.query=", "judged.query="]
    with pytest.raises(UserError, match=r"teachers\.llm names a query column, but texts are singl"):
        load_config(file, overrides=[*single, f"teachers.llm={scores}"])
    assert load_config(file, overrides=[*single, "teachers.llm={scores='s'}"]).score_inputs("llm")


def test_scores_need_texts_of_one_case(file: str) -> None:
    with pytest.raises(UserError, match=r"pairs.lowercase = false, judged.lowercase = true; sco"):
        load_config(file, overrides=["judged.lowercase=true", "teachers.c.scores=s.csv"])
    load_config(file, overrides=["judged.lowercase=true"])


def test_single_texts_have_no_query(file: str, tmp_path: Path) -> None:
    config = load_config(file, overrides=["pairs.query=", "judged.query="])
    (tmp_path / "stored.toml").write_text(config.to_toml())
    assert load_config(str(tmp_path / "stored.toml")).pairs.query == ""


def test_the_number_of_workers_may_be_a_range(file: str, tmp_path: Path) -> None:
    config = load_config(file, overrides=["train.num_workers=[1, 4]"])
    (tmp_path / "stored.toml").write_text(config.to_toml())
    stored = load_config(str(tmp_path / "stored.toml"))
    assert stored.train.num_workers == (1, 4) and stored.train.most_workers == 4
    assert load_config(file, overrides=["train.num_workers=3"]).train.most_workers == 3


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


def test_the_files_of_scores_are_read_like_those_of_the_pairs(file: str, tmp_path: Path) -> None:
    scores = "teachers.c={scores=['s.csv', {path='t.csv', csv={delimiter='|'}}], title='name'}"
    limits = ["pairs.max_title_chars=7", "judged.max_title_chars=9", "judged.max_query_chars=5"]
    config = load_config(file, overrides=["pairs.query=q", *limits, scores])
    inputs = config.score_inputs("c")
    columns = {"query": "q", "title": "name", "score score": "score"}
    assert [inputs.columns(one) for one in inputs.input] == [columns, columns]
    assert (inputs.max_title_chars, inputs.max_query_chars) == (9, 200)  # judged pairs have scores
    assert inputs.csv_options(inputs.input[1])["delimiter"] == "|"
    assert config.is_partial("c") and not config.is_partial("a")
    assert config.teachers["c"].encoder is None and config.teachers["c"].source is None
    (tmp_path / "stored.toml").write_text(config.to_toml())
    assert load_config(str(tmp_path / "stored.toml")) == config


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
    for name in ("ensemble", "mean"):  # a row of the report
        with pytest.raises(UserError, match=rf"teachers.{name}: the name is that of their"):
            load_config(file, overrides=[f"teachers.{name}.model=x"])
    with pytest.raises(UserError, match=r"'trees'.* but the teachers are \['a', 'b'\]"):
        load_config(
            file, overrides=["soft_labels.weights={a=1, b=1, trees=1}", "trees.enabled=false"]
        )


def test_the_loss_goes_by_the_preset_unless_it_is_given(file: str) -> None:
    assert load_config(file).target == "logit"
    assert load_config(file, overrides=["ngrams.preset=bert2dnn"]).target == "probability"
    overrides = ["train.target=probability"]
    assert load_config(file, overrides=overrides).target == "probability"


def test_a_stored_run_file_is_valid(file: str, tmp_path: Path) -> None:
    """It has the defaults too, also those of fields that other kinds of teachers have."""
    kinds = ["teachers.c.scores=x.csv", "teachers.d.scores=x.csv", "teachers.d.gains={a=1, b=0}"]
    config = load_config(file, overrides=kinds)
    (tmp_path / "stored.toml").write_text(config.to_toml())
    assert load_config(str(tmp_path / "stored.toml")) == config


def test_a_base_may_learn_from_another_teacher(file: str) -> None:
    assert load_config(file).num_label_rounds == 1
    add = ["teachers.c.base=x", "teachers.c.learns_from=a"]
    config = load_config(file, overrides=add)
    assert config.num_label_rounds == 2 and config.sources_of("c") == ["a"]
    chain = [*add, "teachers.d.base=x", "teachers.d.learns_from=c"]
    assert load_config(file, overrides=chain).sources_of("d") == ["c", "a"]
    assert load_config(file, overrides=chain).num_label_rounds == 3


@pytest.mark.parametrize(
    ("overrides", "problem"),
    [
        (["teachers.c.model=x", "teachers.c.learns_from=a"], "`learns_from` is for a `base`"),
        (["teachers.cc.base=x", "teachers.cc.learns_from=ac"], "'ac'; did you mean a"),
        (["teachers.c.base=x", "teachers.c.learns_from=trees"], "no teacher 'trees'; did you"),
        (["teachers.c.base=x", "teachers.c.learns_from=c"], "a circle, c from c"),
        (
            [*(f"teachers.{n}.base=x" for n in "cd"), "teachers.c.learns_from=d",
             "teachers.d.learns_from=c"],
            "a circle, c from d from c",
        ),
    ],
)  # fmt: skip
def test_who_learns_from_whom_is_checked(file: str, overrides: list[str], problem: str) -> None:
    with pytest.raises(UserError, match=problem):
        load_config(file, overrides=overrides)


def test_other_labels_are_read_as_the_judged_ones_where_nothing_else_is_said(file: str) -> None:
    overrides = ['judged.title = ["name", "brand"]', "judged.scale = [1, 5]", "judged.query=q"]
    config = load_config(file, overrides=[*overrides, "judged.other.label=llm"])
    assert config.judged is not None
    other = config.judged.other_inputs
    (given,) = other.input
    assert other.columns(given) == {"query": "q", "title": ["name", "brand"], "label": "llm"}
    assert other.label_rule(given) == {} and other.other is None  # another rater, another scale
    overrides += ["judged.other.input=llm.csv", "judged.other.title=title"]
    config = load_config(file, overrides=[*overrides, "judged.other.scale=[0, 3]"])
    assert config.judged is not None
    other = config.judged.other_inputs
    assert [one.path for one in other.input] == ["llm.csv"] and other.title == "title"
    assert other.label_rule(other.input[0]) == {"scale": [0.0, 3.0]}


def test_other_labels_change_no_stage_but_the_report(file: str) -> None:
    plain, config = load_config(file), load_config(file, overrides=["judged.other.label=llm"])
    assert plain.judged is not None and config.judged is not None
    assert config.judged.fingerprint_fields() == plain.judged.fingerprint_fields()
    with pytest.raises(UserError, match=r"judged\.other has a scale and grades"):
        load_config(file, overrides=["judged.other.scale=[0, 3]", "judged.other.grades={good=1}"])
