import pickle
import shutil
from pathlib import Path

import numpy as np
import pytest
import ray.train
import torch

from raydistill.config.teachers import TeacherConfig
from raydistill.errors import UserError
from raydistill.files.model_files import load_model
from raydistill.runs.run_folder import Run
from raydistill.stages import finetune
from raydistill.stages.fits.lexicon import write_lexicon
from raydistill.teachers.cross_encoder import check_model
from tests.helpers.models import make_mpnet
from tests.helpers.runs import run_config


@pytest.fixture
def run(raw_files: Path, encoder: Path, prepared_dir: Path) -> Run:
    return Run(
        run_config(
            prepared_dir, raw_files, encoder,
            teachers={"tiny": TeacherConfig(base=str(encoder))},
            finetune={"epochs": 2, "learning_rate": 1e-2, "dtype": "float32"},
        )
    )  # fmt: skip


def make(
    run: Run, folder: Path
) -> tuple[finetune.Trainer, finetune.BestCheckpointCallback, list[str]]:
    lines: list[str] = []
    keeper = finetune.BestCheckpointCallback(folder / "best", is_first=True, log=lines.append)
    keeper.on_save = lambda *args, **kwargs: None  # type: ignore[method-assign] - no Ray here
    trainer = finetune.make_trainer(
        run, "tiny", output=folder / "out", num_workers=1, device="cpu", callbacks=[keeper]
    )
    keeper.model, keeper.tokenizer = trainer.model, trainer.processing_class
    return trainer, keeper, lines


def test_the_best_epoch_is_kept_as_a_hugging_face_folder(run: Run, tmp_path: Path) -> None:
    trainer, keeper, lines = make(run, tmp_path)
    first = trainer.evaluate()["eval_loss"]
    keeper.history.clear()
    keeper.best_auc = float("nan")
    trainer.train()
    assert trainer.evaluate()["eval_loss"] < first
    assert [round(e["epoch"]) for e in keeper.history[:2]] == [1, 2]
    assert keeper.best_auc == max(e["dev_auc"] for e in keeper.history)
    check_model(keeper.best, max_length=32)
    assert (keeper.best / "model.safetensors").exists()
    assert any("dev AUC" in line for line in lines)
    folder = run.teacher("tiny")
    folder.upload(keeper.best)
    folder.write_json(finetune.RESULT, keeper.result())
    folder.write_json("_SUCCESS.json", keeper.result())
    assert load_model(run.teacher_model("tiny")) == Path(folder.uri)


def test_an_encoder_changed_since_the_driver_saw_it_is_refused(
    raw_files: Path, encoder: Path, prepared_dir: Path, tmp_path: Path
) -> None:
    base = Path(shutil.copytree(encoder, tmp_path / "base"))
    teachers = {"tiny": TeacherConfig(base=str(base))}
    run = Run(run_config(prepared_dir, raw_files, base, teachers=teachers))
    run.teacher("tiny")
    travelled = pickle.loads(pickle.dumps(run))
    (base / "tokenizer_config.json").write_text("{}")
    with pytest.raises(UserError, match=rf"the model {base} is another one on"):
        make(travelled, tmp_path)
    with pytest.raises(UserError, match=rf"the model {base} is another one on"):
        write_lexicon(travelled)


def test_a_fit_cut_off_after_an_epoch_ends_with_the_same_weights(run: Run, tmp_path: Path) -> None:
    trainer, keeper, _ = make(run, tmp_path / "whole")
    saved = tmp_path / "saved"

    def save(args: object, state: object, control: object, **kwargs: object) -> None:
        if not saved.exists():  # the first epoch's
            saved.mkdir()
            keeper.pack(saved, trained=tmp_path / "whole" / "out")

    keeper.on_save = save  # type: ignore[method-assign]
    trainer.train()
    again, resumed, _ = make(run, tmp_path / "resumed")
    checkpoint = ray.train.Checkpoint.from_directory(str(saved))
    again.train(resume_from_checkpoint=resumed.restore(checkpoint, str(tmp_path / "scratch")))
    assert resumed.history == keeper.history and resumed.best_auc == keeper.best_auc
    weights = again.model.state_dict()
    for name, value in trainer.model.state_dict().items():
        assert torch.equal(value, weights[name]), name


def test_another_family_is_fine_tuned_and_scores(
    raw_files: Path, prepared_dir: Path, tmp_path: Path
) -> None:
    """MPNet has other special tokens than BERT, no token types, and positions from 2."""
    base = make_mpnet(tmp_path / "mpnet")
    run = Run(
        run_config(
            prepared_dir, raw_files, base,
            teachers={"tiny": TeacherConfig(base=str(base))},
            finetune={"epochs": 3, "learning_rate": 1e-2, "dtype": "float32"},
        )
    )  # fmt: skip
    trainer, keeper, _ = make(run, tmp_path)
    # Of the pairs that it learns from: what random weights learn says little of others.
    learned_from = trainer.train_dataset
    first = trainer.evaluate(eval_dataset=learned_from)["eval_loss"]
    trainer.train()
    assert trainer.evaluate(eval_dataset=learned_from)["eval_loss"] < first
    check_model(keeper.best, max_length=32)
    found = trainer.predict(finetune.read_examples(run, "tiny", "dev", trainer.processing_class))
    assert np.isfinite(found.predictions).all() and np.std(found.predictions) > 0


def test_examples_are_pairs_with_graded_or_binary_targets(run: Run) -> None:
    tokenizer = finetune.load_tokenizer(Path(run.config.teachers["tiny"].base or ""))
    graded = finetune.read_examples(run, "tiny", "train", tokenizer)
    rows = [
        r
        for n in run.judged("train").shards()
        for r in run.judged("train").read_table(n).to_pylist()
    ]
    assert [e["labels"] for e in graded] == pytest.approx([r["label"] for r in rows])
    expected = tokenizer(rows[0]["query"], rows[0]["title"], truncation=True, max_length=32)
    assert graded[0]["input_ids"] == expected["input_ids"]
    binary = Run(run.config.model_copy(update={
        "finetune": run.config.finetune.model_copy(update={"target": "binary"})}))  # fmt: skip
    labels = [e["labels"] for e in finetune.read_examples(binary, "tiny", "train", tokenizer)]
    assert labels == [float(r["label"] >= 0.75) for r in rows]
    assert binary.teacher("tiny").uri != run.teacher("tiny").uri


def test_the_loss_is_cross_entropy_on_the_grade() -> None:
    class Outputs:
        logits = torch.tensor([[0.0], [100.0]])

    loss = finetune._cross_entropy(Outputs(), torch.tensor([0.25, 1.0]))
    assert loss.item() == pytest.approx(0.6931 / 2, abs=1e-4)


def test_relevant_pairs_weigh_as_they_should(run: Run, tmp_path: Path) -> None:
    class Outputs:
        logits = torch.zeros(2, 1)

    labels = torch.tensor([1.0, 0.25])
    # Each half of a label costs log 2 at logit 0: (3 * 1 + 3 * 0.25 + 0.75) / 2 of it.
    loss = finetune._cross_entropy(Outputs(), labels, positive_weight=3.0)
    assert loss.item() == pytest.approx(0.693147 * 4.5 / 2, abs=1e-4)
    settings = run.config.finetune
    balanced = settings.model_copy(update={"positive_weight": "balanced"})
    assert finetune.positive_weight(balanced, [1.0, 0.0, 0.5, 0.5, 0.0, 0.0]) == 2.0
    assert finetune.positive_weight(settings, [1.0, 0.0, 0.0]) == 1.0
    weighted = Run(run.config.model_copy(update={"finetune": balanced}))
    assert weighted.teacher("tiny").uri != run.teacher("tiny").uri
    trainer, _, _ = make(weighted, tmp_path)
    labels = [example["labels"] for example in trainer.train_dataset]
    assert trainer.compute_loss_func.keywords == {
        "positive_weight": pytest.approx((len(labels) - sum(labels)) / sum(labels))
    }


def test_the_same_seed_gives_the_same_start(run: Run, tmp_path: Path) -> None:
    first, _, _ = make(run, tmp_path / "1")
    second, _, _ = make(run, tmp_path / "2")
    for (name, a), (_, b) in zip(
        first.model.named_parameters(), second.model.named_parameters(), strict=True
    ):
        assert torch.equal(a, b), name


def test_what_cannot_be_fine_tuned_is_named(run: Run, tmp_path: Path) -> None:
    _, keeper, _ = make(run, tmp_path)
    with pytest.raises(RuntimeError, match="the Trainer wrote no checkpoint to"):
        keeper.pack(tmp_path, trained=tmp_path)
    ready = run.config.teachers["tiny"].model_copy(update={"base": None, "model": "x"})
    run.config.teachers["tiny"] = ready
    with pytest.raises(ValueError, match="teacher tiny has no base"):
        make(run, tmp_path)
