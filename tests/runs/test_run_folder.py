"""A run folder has only its run's outputs, one job at a time, and no files of a user."""

import json
from dataclasses import asdict, replace
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from raydistill.cli.main import main
from raydistill.config.loading import load_config
from raydistill.config.run_config import RunConfig
from raydistill.config.student import ExportConfig
from raydistill.errors import UserError
from raydistill.files.folder import MARKER, SUCCESS, Folder
from raydistill.files.inputs.input_files import InputFile
from raydistill.runs.fingerprints import LABELED_BY
from raydistill.runs.run_folder import LEASES, Run
from raydistill.serving.bundle import BUNDLE, CURRENT, MODEL
from raydistill.stages import prepare
from raydistill.stages.standalone import synthesize
from tests.helpers.holders import elsewhere
from tests.helpers.runs import run_config


def files_of(folder: Path) -> dict[str, bytes]:
    return {str(p): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


def write_run_file(config: RunConfig, path: Path) -> str:
    path.write_text(config.to_toml())
    return str(path)


@pytest.mark.slow
@pytest.mark.parametrize("stage", ["prepare", "label", "train", "export", "evaluate", "distill"])
def test_a_folder_of_a_user_is_refused_before_anything_is_written(
    stage: str,
    raw_files: Path,
    tiny_bert: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """As `run_dir = "."`, with a `report/` and a `bundle/` that are somebody's work."""
    mine = tmp_path / "mine"
    for name in ("report/report.md", "bundle/notes.txt", "pairs/part-00000.parquet"):
        (mine / name).parent.mkdir(parents=True, exist_ok=True)
        (mine / name).write_text("a month of work")
    before = files_of(mine)
    file = write_run_file(run_config(mine, raw_files, tiny_bert), tmp_path / "run.toml")
    assert main([stage, "--config", file]) == 2
    told = capsys.readouterr().err
    assert f"{mine} is no run folder" in told and "bundle, pairs, report; give a new" in told
    assert main([stage, "--config", file, "--dry-run"]) == 2
    assert files_of(mine) == before


@pytest.mark.slow
def test_inputs_and_run_folder_lie_apart(raw_files: Path, tiny_bert: Path, tmp_path: Path) -> None:
    def refused(run_dir: Path, *, pairs: str = "", judged: str = "") -> str:
        sections = {"pairs": {"input": pairs}} if pairs else {"judged": {"input": judged}}
        run = Run(run_config(run_dir, raw_files, tiny_bert, **sections))
        with pytest.raises(UserError) as told:
            run.check_owner()
        return str(told.value)

    data = tmp_path / "data"
    (data / "pairs").mkdir(parents=True)
    link = tmp_path / "link"
    link.symlink_to(data)
    assert "lies in the run folder" in refused(data, pairs=f"{data}/pairs")
    assert "lies in the run folder" in refused(data, pairs=f"{data}/pairs/*.parquet")
    assert "lies in the run folder" in refused(link, judged=f"{data}/judged.parquet")
    assert "lies in the run folder" in refused(data, judged=f"{link}/judged.parquet")
    assert "also matches files of the run folder" in refused(data / "run", pairs=str(data))
    assert "also matches files of the run folder" in refused(data / "run", pairs=f"{link}/**/*.csv")
    assert "judged.input" in refused(data / "run", judged=f"{data}/*/*.csv")
    apart = {"pairs": {"input": f"{data}/*.parquet"}, "judged": {"input": f"{data}/judged.csv"}}
    Run(run_config(data / "run", raw_files, tiny_bert, **apart)).check_owner()


def test_units_of_another_key_are_refused(raw_files: Path, tiny_bert: Path, tmp_path: Path) -> None:
    def made(**units: str) -> Run:
        given = {"ngrams": {"extra_units": units}}
        return Run(run_config(tmp_path / "run", raw_files, tiny_bert, **given))

    run = made(carat="ct")
    run.write_manifest(run.manifest)
    made(carat="ct").check_owner()
    for other in (made(), made(carat="ct cts")):
        with pytest.raises(UserError, match=r"ngrams\.extra_units: \{'carat': 'ct'\} there"):
            other.check_owner()
        assert other.prepare_fingerprint("judged") != run.prepare_fingerprint("judged")


def test_an_input_does_not_lead_into_the_run_folder_by_a_link(
    raw_files: Path, tiny_bert: Path, tmp_path: Path
) -> None:
    data, run_dir = tmp_path / "data", tmp_path / "elsewhere" / "run"
    (run_dir / "pairs").mkdir(parents=True)
    (run_dir / "pairs" / "part-00000.csv").write_text("query,title\na,b\n")
    data.mkdir()
    (data / "a.csv").write_text("query,title\na,b\n")
    (data / "link").symlink_to(run_dir)
    for pattern in ("data", "data/*/pairs/*.csv", "data/**"):
        given = {"pairs": {"input": str(tmp_path / pattern)}}
        with pytest.raises(UserError, match=r"part-00000.csv lies in the run folder"):
            _ = Run(run_config(run_dir, raw_files, tiny_bert, **given)).manifest
    one = {"pairs": {"input": f"{data}/link/../run/pairs/part-00000.csv"}}
    with pytest.raises(UserError, match="lies in the run folder"):
        Run(run_config(run_dir, raw_files, tiny_bert, **one)).check_owner()
    as_uri = {"pairs": {"input": f"file://{tmp_path}/elsewhere"}}
    with pytest.raises(UserError, match="also matches files of the run folder"):
        Run(run_config(run_dir, raw_files, tiny_bert, **as_uri)).check_owner()


@pytest.mark.ray
def test_a_second_job_ends_with_2_and_changes_nothing(
    local_ray: None,
    raw_files: Path,
    tiny_bert: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    run = Run(run_config(tmp_path / "run", raw_files, tiny_bert))
    file = write_run_file(run.config, tmp_path / "run.toml")
    run.root.claim("run")
    (run.root / LEASES).write_json("prepare.json", asdict(elsewhere(age_s=5)))
    before = files_of(tmp_path)
    assert main(["prepare", "--config", file]) == 2
    told = capsys.readouterr().err
    assert "prepare in " in told and "on spot-7, job raysubmit_1, since" in told
    assert "--take-over" in told
    assert {n: d for n, d in files_of(tmp_path).items() if ".lock" not in n} == before
    assert main(["prepare", "--config", file, "--take-over"]) == 0
    assert run.pairs.success() is not None and (run.root / LEASES).files() == []


@pytest.mark.ray
def test_another_jobs_unfinished_work_is_left_alone(
    local_ray: None, raw_files: Path, tiny_bert: Path, prepared_dir: Path, tmp_path: Path
) -> None:
    """A job that looks at the inputs of a run while another one prepares it."""
    run = Run(run_config(prepared_dir, raw_files, tiny_bert))
    manifest = run.manifest
    gone = manifest.judged[0][0]
    run.write_manifest(manifest.with_increments("pairs", [*manifest.pairs, [gone]]))
    chunk = run.pairs / "_chunks" / "1"
    chunk.write_json("part-a001-00000.json", {"counts": {}, "shards": {}})
    (run.root / LEASES).write_json("prepare.json", asdict(elsewhere(age_s=5)))
    with pytest.raises(UserError, match="on spot-7"):
        prepare.check_inputs(Run(run.config))
    assert chunk.exists("part-a001-00000.json")


def test_a_job_takes_up_what_another_one_has_prepared(
    raw_files: Path, tiny_bert: Path, prepared_dir: Path
) -> None:
    mine, other = (Run(run_config(prepared_dir, raw_files, tiny_bert)) for _ in range(2))
    assert mine.manifest == other.manifest and not mine.reread_manifest()
    more = other.manifest.with_increments(
        "pairs", [*other.manifest.pairs, other.manifest.pairs[0][:1]]
    )
    other.write_manifest(more)
    assert mine.reread_manifest() and mine.manifest == more


def test_two_teachers_of_one_run_may_be_scored_at_once(
    raw_files: Path, tiny_bert: Path, tmp_path: Path
) -> None:
    run = Run(run_config(tmp_path / "run", raw_files, tiny_bert))
    with run.begin("label-minilm"), Run(run.config).begin("label-l3"):
        assert (run.root / LEASES).files() == ["label-l3.json", "label-minilm.json"]
        with pytest.raises(UserError, match="label-l3"), Run(run.config).begin("label-l3"):
            raise AssertionError


def test_the_stored_settings_hold_what_the_preset_decided(
    raw_files: Path, tiny_bert: Path, tmp_path: Path
) -> None:
    """A later default of a preset must not change what an old run file means."""
    content = run_config(tmp_path / "run", raw_files, tiny_bert).model_dump(exclude_none=True)
    for section, names in {"student": ["hidden"], "train": ["loss", "table_learning_rate"]}.items():
        for name in names:
            content[section].pop(name, None)
    run = Run(RunConfig.model_validate(content))
    with run.begin("train"):
        stored = load_config(str(tmp_path / "run" / "run.toml"))
    assert stored.student.hidden == (256, 64)
    assert (stored.train.target, stored.train.table_learning_rate) == ("logit", 0.1)
    assert stored == run.config.resolved == stored.resolved
    assert run.root.read_json(MARKER) == {"kind": "run", "layout": 1}


def test_a_teacher_that_was_fitted_again_makes_another_student(
    raw_files: Path, tiny_bert: Path, prepared_dir: Path
) -> None:
    def student() -> str:
        return Run(run_config(prepared_dir, raw_files, tiny_bert)).student("student").uri

    logits = Run(run_config(prepared_dir, raw_files, tiny_bert)).logits("tiny")
    found = [student()]
    for model in ("one", "two", "one"):
        logits.write_json(LABELED_BY, {"model": model})
        found.append(student())
    assert len(set(found)) == 3 and found[1] == found[3]


def test_a_report_is_of_one_way_to_export(
    raw_files: Path, tiny_bert: Path, prepared_dir: Path
) -> None:
    config = run_config(prepared_dir, raw_files, tiny_bert)
    exact = config.model_copy(update={"export": ExportConfig(table="float32")})
    assert Run(config).report_fingerprint() != Run(exact).report_fingerprint()
    assert Run(config).train_fingerprint("student") == Run(exact).train_fingerprint("student")


def test_a_report_on_judged_pairs_alone_is_of_one_threshold(
    raw_files: Path, tiny_bert: Path, tmp_path: Path
) -> None:
    """Nothing is fitted on the judged pairs, so the student does not depend on it."""
    runs = [
        Run(run_config(tmp_path, raw_files, tiny_bert, judged={"dev_share": 0, "relevant_at": at}))
        for at in (0.5, 0.75)
    ]
    one, other = (run.train_fingerprint("student") for run in runs)
    assert one == other
    assert len({run.report_fingerprint() for run in runs}) == 2
    assert len({run.tune_fingerprint() for run in runs}) == 2


def test_a_teacher_of_scores_is_its_files_and_the_columns_read(
    raw_files: Path, tiny_bert: Path, tmp_path: Path
) -> None:
    file = str(tmp_path / "s.parquet")
    texts = {name: ["a"] for name in ("query", "title", "name")}
    pq.write_table(pa.table({**texts, "score": [0.5], "p": [0.1]}), file)

    def fingerprint(**teacher: object) -> str:
        config = run_config(tmp_path / "run", raw_files, tiny_bert, teachers={"llm": teacher})
        return Run(config).label_fingerprint("llm")

    inputs = [file, {"path": file, "title": "name"}, {"path": file, "title": "title"}]
    first, own, same = (fingerprint(scores=[given]) for given in inputs)
    assert first != own and first == same
    assert fingerprint(scores=[file], score="p") != first


def test_a_bundle_is_current_when_it_is_whole_and_of_the_student(
    raw_files: Path, tiny_bert: Path, prepared_dir: Path
) -> None:
    """A job killed between the pointer and the end; a bundle that was lost; another student."""
    run = Run(run_config(prepared_dir, raw_files, tiny_bert))
    done = {"fingerprint": run.train_fingerprint("student"), "bundle": "a" * 16, "weights": "1"}
    done["settings"] = run.config.export.fingerprint_fields()
    run.student("student").write_json(SUCCESS, {"weights": "1"})
    assert not run.has_bundle()
    run.bundle.write_json(CURRENT, {"bundle": "a" * 16, "previous": []})
    run.bundle.write_json(SUCCESS, done)
    assert not run.has_bundle()
    (run.bundle / ("a" * 16)).write_bytes(BUNDLE, b"{}")
    assert not run.has_bundle()  # as before there were model files
    (run.bundle / ("a" * 16)).write_bytes(MODEL, b"")
    assert run.has_bundle()
    run.bundle.write_json(SUCCESS, {**done, "settings": {"table": "int8"}})
    assert not run.has_bundle()
    run.bundle.write_json(SUCCESS, done)
    run.bundle.write_json(CURRENT, {"bundle": "b" * 16, "previous": ["a" * 16]})
    assert not run.has_bundle()
    run.bundle.write_json(CURRENT, {"bundle": "a" * 16, "previous": []})
    run.student("student").write_json(SUCCESS, {"weights": "2"})  # trained again
    assert not run.has_bundle()


def test_another_shop_is_not_written_into_a_begun_one(tmp_path: Path) -> None:
    shop = Folder(str(tmp_path / "shop"))
    shop.claim("shop")
    small = synthesize.ShopSize(num_pairs=10, num_judged=5, shard_rows=5, seed=0)
    shop.write_json("_shop.json", asdict(small))  # and killed
    assert not synthesize.is_there(shop.uri, small)
    with pytest.raises(UserError, match="holds another shop"):
        synthesize.is_there(shop.uri, replace(small, seed=1))


def test_a_report_keeps_what_a_user_wrote_beside_it(tmp_path: Path) -> None:
    from raydistill.stages.evaluate import METRICS, _forget_plots

    run = Folder(str(tmp_path / "run"))
    run.claim("run")
    report = run / "report"
    for name in ("notes.md", "trials.svg", "old.svg", SUCCESS):
        report.write_bytes(name, b"x")
    report.write_json(METRICS, {"tune": {"plots": ["trials.svg", "old.svg"]}})
    _forget_plots(report, but=["trials.svg"])
    assert report.files() == [SUCCESS, METRICS, "notes.md", "trials.svg"]
    report.write_json(METRICS, {"tune": None})
    _forget_plots(report, but=[])
    assert json.loads(report.read_bytes(METRICS)) == {"tune": None}


def test_names_that_are_none_are_refused(tmp_path: Path) -> None:
    run = Run(run_config(tmp_path, tmp_path, tmp_path))
    with pytest.raises(ValueError, match=r"no split 'train2' .* 'test'"):
        run.judged("train2")
    with pytest.raises(ValueError, match=r"no student 'teacher'; .* 'judged_only'"):
        run.train_fingerprint("teacher")
    with pytest.raises(ValueError, match="teacher tiny has no base"):
        run.finetune_fingerprint("tiny")
    with pytest.raises(UserError, match=r"a\.xlsx is of no known format; give \.parquet, "):
        _ = InputFile("a.xlsx", 1).format
