"""Signs of life of trials in a database, so that other machines can tell when their process is gone."""

from __future__ import annotations

import threading
from collections.abc import Generator, Sequence
from contextlib import contextmanager

from optuna.storages import BaseStorage, RDBStorage


@contextmanager
def signs_of_life(storage: BaseStorage, study: str, trials: Sequence[int]) -> Generator[None]:
    """Say for trials, as long as the context lasts, that they are still being tried; a journal needs no signs.

    Args:
        study: its name.
        trials: their numbers in the study.
    """
    if not isinstance(storage, RDBStorage):
        yield
        return
    interval = storage.get_heartbeat_interval()
    assert interval is not None, "databases are opened with an interval"
    study_id = storage.get_study_id_from_name(study)
    ids = [storage.get_trial_id_from_study_id_trial_number(study_id, number) for number in trials]
    over = threading.Event()

    def say() -> None:
        while True:
            for each in ids:
                storage.record_heartbeat(each)
            if over.wait(interval):
                return

    thread = threading.Thread(target=say, name="signs of life", daemon=True)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()
