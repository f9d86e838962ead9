"""Times to figures, with given times; and turns with a budget."""

from pathlib import Path

import pytest

from raydistill.evaluation import c_program
from raydistill.evaluation.latency import (
    Contestant,
    Skipped,
    best_runtimes,
    figures,
    in_process,
    make_calls,
    measure,
    table,
    to_rows,
)
from raydistill.evaluation.word_models import WORD_MODELS, fasttext_scorer

PAIRS = [("grey sofa", "sofa, grey"), ("drill", "drill 18 V"), ("lamp", "desk lamp")]


def never(kind: str, seconds: float) -> list[float]:
    raise AssertionError


NAMES = [
    ("student", "Python"), ("student", "C"), ("BERT-Base", "a"), ("BERT-Base", "b"),
    ("fastText", "Python"),
]  # fmt: skip
TIMES = [
    {"alone": [10.0] * 99 + [30.0], "batch": [400.0, 500.0, 900.0]},  # 5 µs a pair
    {"alone": [5.0], "batch": [200.0]},
    {"alone": [40_000.0], "batch": [1_000_000.0]},
    {"alone": [20_000.0], "batch": [4_000_000.0]},
    {"alone": [20.0], "batch": [250.0]},
]


def test_ratios_are_those_of_the_best_runtime() -> None:
    rows = to_rows([Contestant(*name, never) for name in NAMES], TIMES, batch=100)
    assert figures(rows) == {
        "single_us": 10, "single_p99_us": pytest.approx(10.2), "batch_us_per_pair": 5,
        "single_us_c": 5, "single_p99_us_c": None, "batch_us_c": 2,
        "single_vs_bert_base_best": 2_000, "batch_vs_bert_base_best": 2_000,
        "single_vs_fasttext": 2, "batch_vs_fasttext": 0.5,
    }  # fmt: skip
    assert best_runtimes(rows)["BERT-Base"] == {"alone": "b", "batch": "a"}
    assert rows[0].pairs_per_s == 200_000 and rows[0].num_alone == 100


def test_the_table_says_what_is_missing() -> None:
    rows = to_rows([Contestant(*name, never) for name in NAMES], TIMES, batch=100)
    told = table(rows, [Skipped("model2vec", "Python", "model2vec is not installed")])
    lines = told.splitlines()
    assert lines[1].split() == [*"student, Python 10 10.2 5 200,000 1 1".split()]
    assert lines[3].split() == [*"BERT-Base, a 40,000 - 10,000 100 4,000 2,000".split()]
    assert lines[-1] == "not measured: model2vec, Python: model2vec is not installed"


def test_each_call_has_another_pair() -> None:
    calls = make_calls(PAIRS, batch=4)
    assert calls["alone"] == [(query, [title]) for query, title in PAIRS]
    lamp = calls["batch"][2]
    assert lamp == ("lamp", ["desk lamp", "sofa, grey", "drill 18 V", "desk lamp"])
    in_pairs = [titles for _, titles in make_calls(PAIRS, batch=2)["batch"]]
    assert in_pairs == [
        *(["sofa, grey", "drill 18 V"], ["desk lamp", "sofa, grey"], ["drill 18 V", "desk lamp"])
    ]
    seen = []
    timed = in_process(lambda query, titles: seen.append((query, titles)), calls)
    assert len(timed("alone", 0)) == 1
    timed("alone", 0)
    assert seen == calls["alone"][:2]


def test_a_slow_contestant_sits_out_and_is_called_once() -> None:
    asked: dict[str, list[float]] = {"fast": [], "slow": []}

    def contestant(name: str, us: float) -> Contestant:
        def timed(kind: str, seconds: float) -> list[float]:
            asked[name].append(seconds)
            clock[0] += max(seconds, us / 1e6)
            return [us] * max(1, int(1e6 * seconds / us))

        return Contestant(name, "", timed)

    clock = [0.0]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("raydistill.evaluation.latency.time.perf_counter", lambda: clock[0])
        times = measure([contestant("fast", 1_000), contestant("slow", 9e6)], seconds=4, rounds=4)
    assert [len(times[1][kind]) for kind in ("alone", "batch")] == [1, 1]
    assert len(asked["slow"]) == 2  # one of each kind
    assert [len(times[0][kind]) for kind in ("alone", "batch")] == [1_000, 1_000]  # 1 s of 4


def test_without_a_compiler_the_reason_is_said(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(c_program.UserError, match="no C compiler"):
        c_program.from_c(tmp_path, PAIRS, batch=10, folder=tmp_path)


@pytest.mark.parametrize("name", list(WORD_MODELS))
def test_a_word_model_scores_every_title(name: str) -> None:
    pytest.importorskip(name.lower())
    many = PAIRS * 20  # fastText leaves out words that are rare
    score = fasttext_scorer(many, buckets=1_000) if name == "fastText" else WORD_MODELS[name](many)
    found = score("grey sofa", ["sofa", "drill"])
    assert len(found[0] if name == "fastText" else found) == 2
