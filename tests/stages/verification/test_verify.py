"""verify names each damaged file, and repair removes that alone; stages make the same bytes again.

The run is a real one: prepared with Ray, scored by the steps of `label`, with a student and a
bundle; its report has no content.
"""

import logging
import shutil
from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch

from raydistill.cli.main import main
from raydistill.errors import UserError
from raydistill.files.folder import SUCCESS, Folder
from raydistill.runs.run_folder import METRICS, PAGE, REPORT, Run
from raydistill.runs.shards import is_labeled
from raydistill.stages import export, prepare
from raydistill.stages.distill import is_complete
from raydistill.stages.verification.finding import Finding
from raydistill.stages.verification.repair import repair
from raydistill.stages.verification.verify import verify_run
from raydistill.student import fit_files
from raydistill.teachers.transformer.device import device_use
from tests.helpers import damage
from tests.helpers.damage_cases import CASES, PART, TINY, one
from tests.helpers.fits import run_fit, start
from tests.helpers.logits import score
from tests.helpers.models import make_bert
from tests.helpers.runs import run_config

pytestmark = pytest.mark.ray


def fit(run: Run) -> None:
    """`train` without Ray Train."""
    for role in run.roles:
        if run.student(role).success() is None:
            job, state = start(run, role)
            run_fit(job, state)
            fit_files.write_student(job, state, use=device_use("cpu", dtype=torch.float32))
            fit_files.write_success(job, seconds=1.0)


def finish(run: Run) -> None:
    """All stages after prepare, skipping what is complete."""
    for name in run.config.teacher_names:
        score(run, name)
    fit(run)
    export.export_stage(run)
    for name in (METRICS, REPORT, PAGE):  # in place of `evaluate`, which measures for a minute
        run.report.write_bytes(name, b"{}")
    run.report.write_json(SUCCESS, {"fingerprint": run.report_fingerprint()})


@pytest.fixture(scope="module")
def finished(
    _prepared: Path, raw_files: Path, tiny_bert: Path, tmp_path_factory: pytest.TempPathFactory
) -> Run:
    folder = tmp_path_factory.mktemp("verified")
    other = make_bert(folder / "other", num_labels=1, seed=1)
    teachers = {"tiny": {"model": str(tiny_bert)}, "other": {"model": str(other)}}
    shutil.copytree(_prepared, folder / "run")
    config = run_config(
        folder / "run", raw_files, tiny_bert, teachers=teachers,
        train={"epochs": 1, "judged_epochs": 1},
    )  # fmt: skip
    run = Run(config)
    finish(run)
    return run


@pytest.fixture
def run(finished: Run, tmp_path: Path) -> Run:
    """The test's own copy of the finished run."""
    shutil.copytree(finished.root.uri, tmp_path / "run")
    return Run(finished.config.model_copy(update={"run_dir": str(tmp_path / "run")}))


def wrong(run: Run, *, on_cluster: bool = False) -> dict[str, str]:
    """What is wrong, by file without the fingerprints of folders."""
    found = verify_run(run, on_cluster=on_cluster).damaged
    return {short(finding): finding.what for finding in found}


def short(finding: Finding) -> str:
    parts = [part.partition("-")[0] if "-" in part and "." not in part else part
             for part in finding.file.split("/")]  # fmt: skip
    return "/".join(parts)


def test_a_whole_run_has_nothing_wrong(run: Run) -> None:
    before = damage.files_of(Path(run.root.uri))
    found = verify_run(run, on_cluster=False)
    assert found.findings == []
    assert set(found.parts) == {
        "prepare judged", "prepare pairs", "label tiny", "label other", "train student",
        "train judged_only", "export", "evaluate",
    }  # fmt: skip
    assert all(state.startswith("complete") for state in found.parts.values())
    assert damage.files_of(Path(run.root.uri)) == before


def test_tasks_of_ray_find_the_same_as_threads(run: Run, local_ray: None) -> None:
    damage.flip(one(run, "logits/tiny-*/part-*", 1))
    damage.truncate(one(run, "judged/test/part-*"))
    assert wrong(run, on_cluster=True) == wrong(run) != {}


def test_files_that_a_machine_would_not_see_are_not_taken_for_missing(
    run: Run, local_ray: None
) -> None:
    """`--repair` would remove what is whole: a local folder on a cluster that grows is refused."""
    grows = run.config.cluster.model_copy(update={"address": "auto", "cpus": 9_999})
    there = Run(run.config.model_copy(update={"cluster": grows}))
    with pytest.raises(UserError, match=r"run_dir = .* is on one machine, but cluster\.cpus"):
        verify_run(there, on_cluster=True)


def test_a_report_of_other_settings_is_to_do(run: Run) -> None:
    evaluate = run.config.evaluate.model_copy(update={"resamples": 7})
    export_as = run.config.export.model_copy(update={"table": "float32"})
    changed = run.config.model_copy(update={"evaluate": evaluate, "export": export_as})
    found = verify_run(Run(changed), on_cluster=False)
    assert found.damaged == []
    assert {name for name, state in found.parts.items() if state.startswith("to do")} == {
        "export", "evaluate",
    }  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize("case", CASES)
def test_damage_is_named_and_removed_alone(run: Run, case: str) -> None:
    """And nothing else is removed, least of all the files of others."""
    folder = Path(run.root.uri)
    strangers = [folder / name for name in ("pairs/mine.parquet", "bundle/mine.txt", "mine")]
    for file in (*strangers, one(run, TINY) / "notes.parquet"):
        file.write_text("mine")
    harm, place, words = CASES[case]
    harm(run)
    found = verify_run(Run(run.config), on_cluster=False)
    assert [short(one).startswith(place) for one in found.damaged] == [True], found.damaged
    assert words in found.damaged[0].what
    before = damage.files_of(folder)
    done = repair(Run(run.config), found.damaged)
    after = damage.files_of(folder)
    assert set(before) - set(after) == set(done.removed) <= set(found.damaged[0].removes)
    kept = {name: data for name, data in after.items() if not name.startswith("_leases/")}
    assert {name: before[name] for name in kept} == kept
    assert all(file.read_text() == "mine" for file in strangers)
    is_beyond_repair = not found.damaged[0].work
    assert bool(done.remain) == is_beyond_repair == (case == "prepare.json" or "folder" in case)


def test_swapped_files_are_named_both(run: Run) -> None:
    damage.swap(one(run, f"{TINY}/part-*"), one(run, f"{TINY}/part-*", 1))
    assert set(wrong(run)) == {f"logits/tiny/part-0000{at}.parquet" for at in (0, 1)}


def test_swapped_shards_of_equal_size_are_known_by_their_queries(run: Run) -> None:
    """Their pair_ids are those of their texts, but their queries belong to the other shard."""
    names = [one(run, "pairs/part-*", at) for at in (0, 1)]
    tables = [pq.read_table(name) for name in names]
    num = min(table.num_rows for table in tables)
    for name, table in zip(names, tables, strict=True):
        run.pairs.write_table(name.name, table.slice(0, num))
    done = run.pairs.success() or {}
    damage.edit(one(run, f"pairs/{SUCCESS}"), shards={**done["shards"], **dict.fromkeys(
        (name.name for name in names), num)})  # fmt: skip
    damage.swap(*names)
    found = wrong(Run(run.config))
    assert [found[f"pairs/{name.name}"] for name in names] == ["has queries of another shard"] * 2


def test_a_wrong_number_of_rows_costs_no_logits(run: Run) -> None:
    """The pairs are made again, with the rows that their logits have."""
    done = run.pairs.success() or {}
    shards = {**done["shards"], PART: done["shards"][PART] + 1}
    damage.edit(one(run, f"pairs/{SUCCESS}"), shards=shards)
    assert not [file for file in wrong(Run(run.config)) if file.endswith(".parquet")
                and file.startswith("logits/")]  # fmt: skip


def test_a_test_query_among_the_training_queries_is_named(run: Run) -> None:
    """A copy of a test shard in the train split, with counts that agree."""
    train, test = (one(run, f"judged/{split}/part-*") for split in ("train", "test"))
    damage.copy(test, train)
    done = run.root / "judged"
    shards = (done.success() or {})["shards"]
    num = shards[f"test/{test.name}"]
    damage.edit(Path(done.uri) / SUCCESS, shards={**shards, f"train/{train.name}": num})
    found = wrong(Run(run.config))
    assert found[f"judged/train/{train.name}"] == "has queries of another split"


def test_texts_that_are_not_those_of_the_ids_are_named(run: Run) -> None:
    table = run.pairs.read_table(PART)
    titles = pa.array([f"{title}!" for title in table["title"].to_pylist()])
    run.pairs.write_table(PART, table.set_column(2, "title", titles))
    assert wrong(run)[f"pairs/{PART}"] == "has pair_ids that are not those of its texts"


def test_a_logit_that_is_not_finite_is_named(run: Run) -> None:
    logits = run.logits("tiny")
    table = logits.read_table(PART)
    values = pa.array([float("nan")] * table.num_rows, pa.float32())
    logits.write_table(PART, table.set_column(1, "logit", values))
    assert wrong(run)[f"logits/tiny/{PART}"] == "has logits that are not finite"


def test_missing_logits_of_a_teacher_that_is_not_complete_are_to_do(run: Run) -> None:
    one(run, f"{TINY}/{SUCCESS}").unlink()
    one(run, f"{TINY}/{PART}").unlink()
    found = verify_run(run, on_cluster=False)
    assert found.damaged == []
    assert found.parts["label tiny"] == "to do: 8 of 9 files; run `label`"


def test_pairs_stay_where_prepare_cannot_make_them_again(
    run: Run, tmp_path: Path, raw_files: Path
) -> None:
    """Without their raw files the damaged pairs are all there is, and logits depend on them."""
    shutil.copytree(raw_files, tmp_path / "raw")
    config = run.config.model_copy(
        update={"pairs": run.config.pairs.model_validate(
            {**run.config.pairs.model_dump(), "input": [str(tmp_path / "raw" / "pairs")]})}
    )  # fmt: skip
    (tmp_path / "raw" / "pairs" / "part-0.parquet").unlink()
    damage.flip(one(run, f"pairs/{PART}"))
    before = damage.files_of(Path(run.root.uri))
    here = Run(config)
    ((found, reason),) = repair(here, verify_run(here, on_cluster=False).damaged).remain
    assert found.file == f"pairs/{PART}"
    assert reason.startswith("not removed, as it could not be made again:")
    assert "part-0.parquet is gone" in reason
    assert damage.files_of(Path(run.root.uri)) == before


def test_beside_a_job_nothing_is_repaired(
    run: Run, run_file: str, capsys: pytest.CaptureFixture[str]
) -> None:
    damage.flip(one(run, f"{TINY}/{PART}"))
    with run.begin("label-tiny"):
        assert main(["verify", "--config", run_file, "--repair"]) == 2
    err = capsys.readouterr().err
    assert f"label-tiny in {run.root} is the work of process" in err
    assert one(run, f"{TINY}/{PART}").exists()
    assert [lease.name for lease in (Path(run.root.uri) / "_leases").glob("*.json")] == []


@pytest.mark.parametrize(
    ("removed", "stages"),
    [
        (f"pairs/{SUCCESS}", {"prepare", "label"}),
        (f"judged/{SUCCESS}", {"prepare", "label"}),
        (f"logits/tiny-*/{PART}", {"label"}),
        ("lexicon/*/lexicon.npz", {"train"}),
    ],
)
def test_stages_whose_files_are_removed_are_to_do(run: Run, removed: str, stages: set[str]) -> None:
    """`distill` asks for each stage before the first one runs: none may stop at another's files."""
    names = ("prepare", "label", "train", "export")
    assert all(is_complete(name, run) for name in names)
    one(run, removed).unlink()
    here = Run(run.config)
    assert {name for name in names if not is_complete(name, here)} == stages
    assert is_labeled(here, "tiny") == ("label" not in stages)


@pytest.mark.slow
def test_a_repaired_run_gets_the_bytes_of_an_undamaged_one(
    run: Run, finished: Run, local_ray: None
) -> None:
    for pattern, at in ((TINY, 0), (TINY, 2), ("logits/other-*", 3), ("pairs", 1), ("pairs", 4)):
        damage.flip(one(run, f"{pattern}/part-*", at))
    damage.copy(one(run, "logits/other-*/part-*"), one(run, f"{TINY}/part-*"))
    one(run, "pairs/part-*", 5).unlink()
    damage.truncate(one(run, "judged/test/part-*"))
    damage.flip(one(run, "student/student-*/weights.pt"))
    one(run, "lexicon/*/lexicon.npz").unlink()
    damage.flip(one(run, "bundle/*/model.rdm"))
    mine = one(run, "pairs") / "mine.parquet"
    mine.write_text("mine")
    here = Run(run.config)
    assert not repair(here, verify_run(here, on_cluster=False).damaged).remain
    prepare.prepare_stage(here)
    finish(Run(run.config))
    assert verify_run(Run(run.config), on_cluster=False).damaged == []
    assert mine.read_text() == "mine"
    mine.unlink()
    first, again = (_lasting(Path(each.root.uri)) for each in (finished, run))
    assert first.keys() == again.keys()
    assert [name for name in first if first[name] != again[name]] == []


def _lasting(folder: Path) -> dict[str, bytes]:
    """The files whose bytes say neither when nor how long a stage worked."""
    names = ("_SUCCESS.json", "result.json", "run.toml", "prepare.json")
    found = damage.files_of(folder)
    left_out = ("_leases/", "report/")
    return {
        name: data
        for name, data in found.items()
        if not name.endswith(names) and not name.startswith(left_out)
    }


@pytest.mark.server
def test_on_s3_as_on_disk(run: Run, s3: str, tmp_path: Path) -> None:
    there = Folder(f"{s3}/verified")
    there.upload(Path(run.root.uri))
    remote = Run(run.config.model_copy(update={"run_dir": there.uri}))
    assert verify_run(remote, on_cluster=False).findings == []
    logits = remote.logits("tiny")
    content = bytearray(logits.read_bytes(PART))
    content[len(content) // 2] ^= 4
    logits.write_bytes(PART, bytes(content))
    found = verify_run(remote, on_cluster=False).damaged
    assert [short(each) for each in found] == [f"logits/tiny/{PART}"]
    before = set(logits.files())
    assert repair(remote, found).removed == [f"logits/{logits.uri.rpartition('/')[2]}/{PART}"]
    assert before - set(logits.files()) == {PART}


@pytest.fixture
def run_file(run: Run, tmp_path: Path) -> Iterator[str]:
    (tmp_path / "run.toml").write_text(run.config.to_toml())
    yield str(tmp_path / "run.toml")
    logging.getLogger("raydistill").handlers.clear()


def test_the_command_says_what_to_do(
    run: Run, run_file: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["verify", "--config", run_file]) == 0
    assert f"verify: nothing is wrong in {run.root}" in capsys.readouterr().out
    damage.flip(one(run, f"{TINY}/{PART}"))
    assert main(["verify", "--config", run_file]) == 3
    out = capsys.readouterr().out
    assert "--repair removes it, then `label` makes it again" in out
    assert f"verify: 1 problem in {run.root}" in out
    assert main(["verify", "--config", run_file, "--repair"]) == 0
    out = capsys.readouterr().out
    assert "repair: 1 files removed, 0 problems remain" in out
    assert f"now run `raydistill distill --config {run_file}`, then verify again" in out
    assert not (one(run, TINY) / PART).exists()
    damage.to_folder(one(run, f"pairs/{PART}"))
    assert main(["verify", "--config", run_file, "--repair"]) == 3
    assert "remains  pairs/part-00001.parquet: is a folder" in capsys.readouterr().out


def test_a_folder_without_a_run_is_a_mistake(
    run_file: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    given = ["verify", "--config", run_file, "--set", f"run_dir={tmp_path / 'none'}"]
    for more in ([], ["--repair"]):
        assert main([*given, *more]) == 2
        assert "has no prepare.json: there is no run to verify" in capsys.readouterr().err
    assert not (tmp_path / "none").exists()


def test_a_manifest_that_is_no_json_is_named(
    run: Run, run_file: str, capsys: pytest.CaptureFixture[str]
) -> None:
    damage.truncate(one(run, "prepare.json"))
    assert main(["verify", "--config", run_file, "--repair"]) == 3
    assert "remains  prepare.json: is no JSON" in capsys.readouterr().out
