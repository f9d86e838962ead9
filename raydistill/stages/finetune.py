"""finetune: train an encoder as a one-logit cross-encoder on judged pairs or a teacher's logits.

Uses the transformers Trainer inside Ray Train. The result is the epoch with the best dev AUC.
"""

from __future__ import annotations

import logging
import shutil
import tempfile
import time
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import ray.train
import torch
from numpy.typing import NDArray
from torch.nn import functional
from transformers import (
    DataCollatorWithPadding,
    Trainer,
    TrainerCallback,
    TrainerControl,
    TrainerState,
    TrainingArguments,
)
from transformers.trainer_callback import PrinterCallback
from transformers.trainer_utils import EvalPrediction, get_last_checkpoint

from raydistill.cluster.connection import Cluster
from raydistill.cluster.placement import device_of_worker, workers_use
from raydistill.cluster.teacher_trial import check_base
from raydistill.cluster.train_job import run_workers
from raydistill.cluster.workers.worker_log import Log
from raydistill.config.teachers import FinetuneConfig
from raydistill.evaluation.metrics.pair_metrics import auc
from raydistill.files.folder import SUCCESS
from raydistill.files.model_files import load_model, model_fingerprint
from raydistill.progress import rate_line
from raydistill.runs.run_folder import Run
from raydistill.runs.shards import awaited, split_shards
from raydistill.stages.fits.finetune_pairs import finetune_pairs, write_learned
from raydistill.teachers.transformer.device import set_up_attention, teacher_dtype, use_text
from raydistill.teachers.transformer.model_loading import load_classifier, quiet_transformers
from raydistill.teachers.transformer.padded_model import set_padding
from raydistill.teachers.transformer.pair_tokenizer import load_tokenizer
from raydistill.teachers.transformer.prompt_tokenizer import FINE_TUNED, is_decoder

logger = logging.getLogger("raydistill")
RESULT = "result.json"
_LINE_EVERY_S = 5.0


def finetune_stage(run: Run, cluster: Cluster) -> bool:
    """Fine-tune each teacher that has a `base` and is not complete; False if none was.

    A teacher that learns from another one waits until that has scored all shards.
    """
    did = False
    teachers = run.config.teachers
    left = [name for name, given in teachers.items() if given.base and not _is_there(run, name)]
    for name in left:  # all bases are tried before the first fit
        check_base(run, name, connect=lambda: cluster)
    for name in left:
        source = awaited(run, name)
        if source is not None:
            logger.info("finetune  %s waits until %s has scored the pairs", name, source)
            continue
        with run.begin(f"finetune-{name}"):
            if not _is_there(run, name):  # false if another job has completed it
                _finetune(run, name, cluster)
                did = True
    return did


def _is_there(run: Run, name: str) -> bool:
    return run.teacher(name).success() is not None


def _finetune(run: Run, name: str, cluster: Cluster) -> None:
    folder, settings = run.teacher(name), run.config.finetune
    if run.config.teachers[name].learns_from is None:
        num_train = sum(split_shards(run, "train").values())
    else:
        num_train = write_learned(run, name)
    start_s = time.monotonic()
    run_workers(
        finetune_loop,
        {"run": run, "teacher": name},
        name=f"finetune-{name}-{run.finetune_fingerprint(name)}",
        storage=run.root / "_fits",
        cluster=cluster,
        num_workers=settings.num_workers,
        gpus_each=settings.num_gpus,
    )
    result = folder.require_json(RESULT, stage="finetune")
    seconds = time.monotonic() - start_s
    summary = {
        "fingerprint": run.finetune_fingerprint(name),
        "rows_in": num_train,
        "rows_out": num_train,
        "quarantined": 0,
        "seconds": round(seconds, 1),
        "rows_per_s": round(num_train * settings.epochs / seconds),
        **result,
    }
    folder.write_json(SUCCESS, summary)
    logger.info(
        "finetune  %s: best dev AUC %.4f, %.0f s, on %s",
        name,
        result["dev_auc"],
        seconds,
        use_text(result),
    )


def finetune_loop(config: dict[str, Any]) -> None:
    """The training loop of each Ray Train worker."""
    quiet_transformers()
    run, name, log = config["run"], config["teacher"], config["log"]
    context, device = ray.train.get_context(), device_of_worker()
    dtype = teacher_dtype(run.config.finetune.dtype, device=device)
    set_up_attention(device)
    use = workers_use(device, dtype=dtype)
    with tempfile.TemporaryDirectory() as scratch:
        best_checkpoint = BestCheckpointCallback(
            Path(scratch) / "best", is_first=context.get_world_rank() == 0, log=log
        )
        trainer = make_trainer(
            run,
            name,
            output=Path(scratch) / "checkpoints",
            num_workers=context.get_world_size(),
            device=device,
            callbacks=[best_checkpoint],
        )
        best_checkpoint.model, best_checkpoint.tokenizer = trainer.model, trainer.processing_class
        best_checkpoint.has_code = run.config.teachers[name].trust_remote_code
        trainer.train(
            resume_from_checkpoint=best_checkpoint.restore(ray.train.get_checkpoint(), scratch)
        )
        if context.get_world_rank() == 0:
            best_checkpoint.finish()
            folder = run.teacher(name)
            folder.upload(best_checkpoint.best)
            cores = {"cores": torch.get_num_threads()}
            folder.write_json(RESULT, {**best_checkpoint.result(), **use, **cores})
        ray.train.report({"dev_auc": best_checkpoint.best_auc})


class BestCheckpointCallback(TrainerCallback):
    """Saves the best epoch, reports checkpoints to Ray Train and sends lines to the driver."""

    def __init__(self, best: Path, *, is_first: bool, log: Log) -> None:
        """`best` is the folder of the best epoch; only the worker with `is_first` writes it."""
        self.best, self.is_first, self.log = best, is_first, log
        self.best_auc = float("nan")
        self.history: list[dict[str, float]] = []
        self.model: Any = None
        self.tokenizer: Any = None
        self.has_code = False  # whether the model's folder has Python code of the model
        self._last_line_s = self._start_s = time.monotonic()
        self._start_step = 0

    def restore(self, checkpoint: ray.train.Checkpoint | None, scratch: str) -> str | None:
        """Restore an earlier attempt's state; returns the folder from which the Trainer resumes."""
        if checkpoint is None:
            return None
        restored = Path(checkpoint.to_directory(str(Path(scratch) / "restored")))
        if (restored / "best").exists():
            shutil.copytree(restored / "best", self.best)
        state = TrainerState.load_from_json(str(restored / "trainer" / "trainer_state.json"))
        for entry in state.log_history:
            if "eval_auc" in entry:
                self._note_epoch(entry)
        self.log("finetune  resumed from the last checkpoint")
        return str(restored / "trainer")

    def _note_epoch(self, entry: dict[str, float]) -> bool:
        """Record an evaluation; returns whether it is the best so far."""
        auc_now = entry["eval_auc"]
        self.history.append({"epoch": entry["epoch"], "dev_auc": auc_now})
        is_best = not auc_now <= self.best_auc  # true for the first epoch: best_auc is NaN
        if is_best:
            self.best_auc = auc_now
        return is_best

    def _save_best(self) -> None:
        if self.is_first:
            self.model.save_pretrained(self.best, safe_serialization=True)
            self.tokenizer.save_pretrained(self.best)

    def pack(self, folder: Path, *, trained: Path) -> None:
        """Copy the Trainer's last checkpoint and the best epoch, the input of `restore`."""
        last = get_last_checkpoint(str(trained))  # type: ignore[no-untyped-call]
        if last is None:
            raise RuntimeError(f"the Trainer wrote no checkpoint to {trained}")
        shutil.copytree(last, folder / "trainer")
        if self.best.exists():
            shutil.copytree(self.best, folder / "best")

    def finish(self) -> None:
        """Save the last weights if there is no best epoch, as without a dev split."""
        if not self.best.exists():
            self._save_best()

    def result(self) -> dict[str, Any]:
        """The fit's results, and the fingerprint of the saved model."""
        return {
            "dev_auc": self.best_auc,
            "epochs": self.history,
            "model": model_fingerprint(self.best, with_code=self.has_code),
        }

    def on_evaluate(  # noqa: D102 - the Trainer's hook
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        **kwargs: Any,  # noqa: ANN401
    ) -> None:
        metrics: dict[str, float] = kwargs["metrics"]
        if self._note_epoch({**metrics, "epoch": state.epoch or 0.0}):
            self._save_best()
        if self.is_first:
            self.log(f"finetune  epoch {state.epoch:.0f}: dev AUC {metrics['eval_auc']:.4f}")

    def on_save(  # noqa: D102
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        **kwargs: Any,  # noqa: ANN401
    ) -> None:
        metrics = {"epoch": state.epoch}
        if not self.is_first:
            ray.train.report(metrics)
            return
        with tempfile.TemporaryDirectory() as folder:
            self.pack(Path(folder), trained=Path(str(args.output_dir)))
            ray.train.report(metrics, checkpoint=ray.train.Checkpoint.from_directory(folder))

    def on_step_end(  # noqa: D102
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        **kwargs: Any,  # noqa: ANN401
    ) -> None:
        now_s = time.monotonic()
        if not self._start_step:
            self._start_step, self._start_s = state.global_step, now_s
        is_due = now_s - self._last_line_s >= _LINE_EVERY_S
        if not (is_due and self.is_first and state.global_step > self._start_step):
            return  # the first step, which starts everything, says nothing of the rate
        self._last_line_s = now_s
        steps_per_s = (state.global_step - self._start_step) / max(now_s - self._start_s, 1e-9)
        rows = args.per_device_train_batch_size * args.world_size
        done = rate_line(
            state.global_step * rows,
            num_total=state.max_steps * rows,
            seconds=now_s - self._start_s,
            rate=steps_per_s * rows,
        )
        workers = f"{args.world_size} worker{'s' if args.world_size > 1 else ''}"
        self.log(f"finetune  step {state.global_step:,}/{state.max_steps:,}  {done}  {workers}")


def make_trainer(
    run: Run,
    name: str,
    *,
    output: Path,
    num_workers: int,
    device: str,
    callbacks: list[TrainerCallback],
) -> Trainer:
    """The configured Trainer of one teacher; needs no Ray."""
    settings = run.config.finetune
    model, tokenizer = _load_base(run, name)
    train, dev = (read_examples(run, name, split, tokenizer) for split in ("train", "dev"))
    is_judged = run.config.teachers[name].learns_from is None  # of humans, else soft labels
    labels = [example["labels"] for example in train]
    weight = positive_weight(settings, labels) if is_judged else 1.0
    trainer = Trainer(
        model=model,
        args=_arguments(
            settings, str(output), num_workers=num_workers, device=device, has_dev=bool(dev)
        ),
        train_dataset=train,
        eval_dataset=dev or None,
        processing_class=tokenizer,
        data_collator=DataCollatorWithPadding(tokenizer),
        compute_loss_func=partial(_cross_entropy, positive_weight=weight),
        compute_metrics=partial(_dev_metrics, relevant_at=run.config.judged_rules.relevant_at),
        callbacks=callbacks,
    )
    trainer.remove_callback(PrinterCallback)
    return trainer


def _arguments(
    settings: FinetuneConfig, output: str, *, num_workers: int, device: str, has_dev: bool
) -> TrainingArguments:
    dtype = teacher_dtype(settings.dtype, device=device)
    return TrainingArguments(
        output_dir=output,
        per_device_train_batch_size=settings.batch_rows // num_workers,
        per_device_eval_batch_size=128,
        learning_rate=settings.learning_rate,
        num_train_epochs=settings.epochs,
        warmup_steps=settings.warmup_share,
        weight_decay=settings.weight_decay,
        bf16=dtype == torch.bfloat16,
        fp16=dtype == torch.float16,
        use_cpu=device == "cpu",
        train_sampling_strategy="group_by_length",
        eval_strategy="epoch" if has_dev else "no",
        save_strategy="epoch",
        save_total_limit=1,
        logging_strategy="no",
        report_to=[],
        disable_tqdm=True,
        dataloader_pin_memory=device == "cuda",
        seed=settings.seed,
    )


def _load_base(run: Run, name: str) -> tuple[Any, Any]:
    """A teacher's encoder with a new head in float32, and the encoder's tokenizer."""
    base = run.config.teachers[name].base
    if base is None:
        raise ValueError(f"teacher {name} has no base: there is nothing to fine-tune")
    folder = load_model(run.model(base))
    torch.manual_seed(run.config.finetune.seed)  # the head gets random weights below
    trusts_code = run.model(base).trusts_code
    model = load_classifier(folder, dtype=torch.float32, trusts_code=trusts_code, new_head=True)
    if is_decoder(model.config):  # trained here on pairs without a prompt
        setattr(model.config, FINE_TUNED, "pairs")
    tokenizer = load_tokenizer(folder, trusts_code=trusts_code)
    set_padding(model.config, tokenizer)
    load_model(run.model(base))  # verify that the files did not change during the load
    return model, tokenizer


def read_examples(
    run: Run,
    name: str,
    split: str,
    tokenizer: Any,  # noqa: ANN401
) -> list[dict[str, Any]]:
    """A teacher's tokenised pairs of a split with targets, in the form of Trainer examples."""
    settings = run.config.finetune
    examples: list[dict[str, Any]] = []
    for rows in finetune_pairs(run, name, split):
        labels = rows["label"].to_numpy()
        titles = rows["title"].to_pylist()
        texts = (titles,) if not run.config.pairs.query else (rows["query"].to_pylist(), titles)
        encoded = tokenizer(*texts, truncation=True, max_length=settings.max_length)
        names = list(encoded)
        for *values, label in zip(*(encoded[n] for n in names), labels, strict=True):
            example = dict(zip(names, values, strict=True))
            examples.append({**example, "labels": float(label)})
    return examples


def positive_weight(settings: FinetuneConfig, labels: Sequence[float]) -> float:
    """Factor on the loss of relevant pairs; for a graded label, on its relevant part."""
    if settings.positive_weight == "balanced":
        return (len(labels) - sum(labels)) / sum(labels)
    return settings.positive_weight or 1.0


def _cross_entropy(
    outputs: Any,  # noqa: ANN401
    labels: torch.Tensor,
    num_items_in_batch: torch.Tensor | int | None = None,
    *,
    positive_weight: float = 1.0,
) -> torch.Tensor:
    """Sigmoid cross-entropy on graded labels, the mean over the batches of all workers.

    `num_items_in_batch`: the Trainer's count of those pairs; the Trainer itself multiplies the
    loss by the number of workers.
    """
    logits = outputs.logits.float().squeeze(-1)
    weight = torch.tensor(positive_weight, device=logits.device)
    loss = functional.binary_cross_entropy_with_logits(
        logits, labels.float(), reduction="sum", pos_weight=weight
    )
    return loss / (len(labels) if num_items_in_batch is None else num_items_in_batch)


def _dev_metrics(found: EvalPrediction, *, relevant_at: float) -> dict[str, float]:
    labels: NDArray[np.float32] = np.asarray(found.label_ids)
    return {"auc": auc(np.asarray(found.predictions).reshape(-1), labels, relevant_at=relevant_at)}
