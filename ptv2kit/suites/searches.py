"""The searches of a suite: each trial is a cell, and what is known of it is in the study that processes share."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any, final

from ptv2kit.errors import ConfigError
from ptv2kit.report.records import CellRecord
from ptv2kit.spec.cells import ResolvedSuite, Study, cell_name
from ptv2kit.spec.suite import Parameter, Search
from ptv2kit.suites.folder import best_of, missed
from ptv2kit.suites.runner import SuiteRunner
from ptv2kit.suites.study import SharedSearch, TrialOutcome, TrialRecord
from ptv2kit.training.folder import run_key
from ptv2kit.training.state import Log


@final
class Searches:
    """Runs the searches of a suite one after the other.

    Args:
        suite: with at least one search.
        runner: trains the trials and reports them.
        keys: of the suite's cells, which are at the ends of what may be chosen.
    """

    def __init__(self, suite: ResolvedSuite, runner: SuiteRunner, keys: Sequence[str]) -> None:
        self._suite = suite
        self._runner = runner
        self._keys: dict[str, str] = {}
        for cell, key in zip(suite.cells, keys, strict=True):
            self._keys.setdefault(cell.case, key)
        self._shared: dict[str, SharedSearch] = {}
        self._finals: dict[str, SharedSearch] = {}

    def run(self) -> None:
        """Search, and train the best trials once more where the suite asks for it.

        Raises:
            ConfigError: the study cannot be kept where the suite says.
            DataError: its journal or database cannot be used.
        """
        self.show()
        for study in self._suite.studies:
            shared = self._shared[study.case]
            if not self._run(partial(shared.run, partial(self._try, study))):
                break
            if study.search.final is not None and not self._train_final(study, shared):
                break
        self._judge()

    def show(self) -> None:
        """Collect what the studies know so far; nothing is tried.

        Raises:
            ConfigError: the study cannot be kept where the suite says.
            DataError: its journal or database cannot be used.
        """
        for study in self._suite.studies:
            self._shared[study.case] = SharedSearch(study.search, self._name(study), self._runner.folder.journal)
        self._collect()

    def _run(self, search: Callable[[], bool]) -> bool:
        """Whether it came to its end."""
        try:
            ended = search()
        except KeyboardInterrupt:
            ended = False
        self._runner.interrupted = not ended
        self._collect()
        return ended

    def _train_final(self, study: Study, shared: SharedSearch) -> bool:
        """Train the best trial once more, in one of the processes; that it was done is kept like a trial.

        Returns:
            False if it was interrupted.
        """
        records = [_record(study, trial) for trial in shared.trials()]
        best = best_of(records)
        if best is None or any(record.status in ("running", "waiting") for record in records):
            return True  # the process that ends last does it
        one = Search(
            sampler="grid",
            space={key: Parameter(values=(value,)) for key, value in best.settings.items()},
            pruner="none",
            storage=study.search.storage,
        )
        key = run_key({"settings": dict(best.settings), "final": study.search.final})
        final = SharedSearch(one, f"{self._name(study)}/final-{key}", self._runner.folder.journal)
        self._finals[study.case] = final
        return self._run(partial(final.run, partial(self._try_final, study)))

    def _try(self, study: Study, number: int, settings: Mapping[str, Any], watcher: Log) -> TrialOutcome:
        self._collect()
        self._say(f"[{_within(study, f'trial {number + 1}/{study.search.budget}')}] {cell_name('', settings)}")
        try:
            cell = study.cell(_trial_name(study, number), settings)
        except ConfigError as error:
            return _not_allowed(error)
        return _outcome(self._runner.train(cell, [watcher]))

    def _try_final(self, study: Study, _: int, settings: Mapping[str, Any], watcher: Log) -> TrialOutcome:
        self._say(f"[{_within(study, 'final')}] {cell_name('', settings)}")
        try:
            cell = study.cell(_final_name(study), settings, final=True)
        except ConfigError as error:
            return _not_allowed(error)
        return _outcome(self._runner.train(cell, [watcher]))

    def _name(self, study: Study) -> str:
        """The name of the study: commands that search the same space of the same recipe and data share it."""
        search = study.search.model_dump(mode="json", include={"space", "sampler", "seed"})
        key = run_key({"cell": self._keys[study.case], "search": search})
        return "/".join([self._suite.suite.suite, *([study.case] if study.case else []), key])

    def _collect(self) -> None:
        """Show the trials of all processes."""
        records: list[CellRecord] = []
        for study in self._suite.studies:
            records += [_record(study, trial) for trial in self._shared[study.case].trials()]
            if study.case in self._finals:
                for trial in self._finals[study.case].trials():
                    records.append(_record(study, trial, final=True))
        self._runner.records = records
        self._runner.elsewhere = sum(record.status == "running" for record in records)
        self._runner.write_tables()

    def _judge(self) -> None:
        """A trial may fail, as values that are too high do; a search without a finished trial, or its final, may not.

        What the recipe should reach is asked of the final training, or of the best trial.
        """
        for study in self._suite.studies:
            own = [record for record in self._runner.records if record.case == study.case]
            finals = [record for record in own if record.final]
            judged = finals[0] if finals else best_of(own)
            failed = [record for record in own if record.status == "failed"]
            if judged is None and failed:
                self._runner.failed += failed
            elif judged is not None and judged.status == "failed":
                self._runner.failed.append(judged)
            elif judged is not None and judged.status == "finished":
                resolved = study.cell(judged.name, judged.settings, final=judged.final).resolved
                self._runner.missed += [f"{judged.name}: {text}" for text in missed(judged, resolved)]

    def _say(self, text: str) -> None:
        self._runner.messages.print(text, style="bold", soft_wrap=True)


def _not_allowed(error: ConfigError) -> TrialOutcome:
    """What the study keeps of a trial whose values together are a mistake."""
    return TrialOutcome("failed", None, {"error": error.problems[0].message, "exit_code": error.exit_code})


def _outcome(record: CellRecord) -> TrialOutcome:
    """What the study keeps of a trained trial."""
    assert record.status not in ("running", "waiting")
    own = {"name", "case", "settings", "status", "final", "session"}
    return TrialOutcome(record.status, record.score, record.model_dump(mode="json", exclude=own))


def _record(study: Study, trial: TrialRecord, *, final: bool = False) -> CellRecord:
    """A trial of any process as a cell."""
    return CellRecord(
        name=_final_name(study) if final else _trial_name(study, trial.number),
        case=study.case,
        settings=dict(trial.settings),
        status=trial.status,
        final=final,
        **trial.facts,
    )


def _trial_name(study: Study, number: int) -> str:
    return f"{study.case + ',' if study.case else ''}trial-{number + 1:03}"


def _final_name(study: Study) -> str:
    return f"{study.case + ',' if study.case else ''}final"


def _within(study: Study, what: str) -> str:
    return f"{study.case}: {what}" if study.case else what
