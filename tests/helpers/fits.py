"""Fits of a student in this process, without Ray Train."""

from pathlib import Path

from raydistill.runs.lexicon_file import load_lexicon
from raydistill.runs.run_folder import Run
from raydistill.stages.fits.lexicon import write_lexicon
from raydistill.student import fit_files
from raydistill.student.batches import Loader
from raydistill.student.fit import FitCallbacks, FitState, StudentFit, fit_student, new_state
from raydistill.student.gradient_sync import GradientSync


def start(run: Run, role: str = "student") -> tuple[StudentFit, FitState]:
    """A fit of the run's student, with all that `train` writes before it, and its first state."""
    fit = fit_files.student_fit(run, role)
    write_lexicon(fit.run)
    fit_files.measure_features(fit)
    return fit, again(fit)


def again(fit: StudentFit, gradient_sync: GradientSync | None = None) -> FitState:
    """Another first state."""
    features = fit_files.load_features(fit.output)
    return new_state(fit, features, device="cpu", gradient_sync=gradient_sync)


def run_fit(
    fit: StudentFit,
    state: FitState,
    *,
    saves: list[Path] | None = None,
) -> list[str]:
    """The lines of a fit; `saves` names a file, and gets those of the checkpoints."""
    lines: list[str] = []

    def save(current: FitState) -> None:
        if saves is not None:
            path = saves[0].with_name(f"{len(saves)}.pt")
            current.save(path)
            saves.append(path)

    callbacks = FitCallbacks(save=save, log=lines.append)
    loader = loader_of(fit)
    fit_student(fit, state, loader, callbacks=callbacks)
    return lines


def loader_of(fit: StudentFit) -> Loader:
    """As the workers of `train` make it."""
    lexicon = load_lexicon(fit.run)
    return Loader(fit.folder, fit.targets, spec=fit.spec, lexicon=lexicon)
