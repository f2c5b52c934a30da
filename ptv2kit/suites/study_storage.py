"""Where the trials of a search are kept: a journal that works on network file systems, or an SQL database."""

from __future__ import annotations

import warnings
from pathlib import Path

from optuna.exceptions import ExperimentalWarning
from optuna.storages import BaseStorage, JournalStorage, RDBStorage
from optuna.storages.journal import JournalFileBackend
from sqlalchemy.exc import ArgumentError, NoSuchModuleError, SQLAlchemyError

from ptv2kit.errors import ConfigError, DataError

HEARTBEAT_SECONDS = 60
"""How often a process that shares a database says that it is still there; silence of twice as long is its end."""


def open_storage(storage: str | None, journal: Path) -> tuple[BaseStorage, Path | None]:
    """The journal or the database; both are made if they are not there.

    Args:
        storage: the path of a journal, or the URL of a database; None: `journal`.
        journal: path.

    Returns:
        The storage, and the path of a journal.

    Raises:
        ConfigError: the address is not valid, the database's driver is not installed, or the journal cannot be written.
        DataError: the journal is damaged, or the database cannot be used.
    """
    if storage is not None and "://" in storage:
        hidden = storage.rpartition("@")[2] if "@" in storage else storage
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", ExperimentalWarning)
                return RDBStorage(storage, heartbeat_interval=HEARTBEAT_SECONDS), None
        except (ArgumentError, NoSuchModuleError, ImportError) as error:
            message = f"search.storage is not the address of a usable database: '{hidden}'"
            raise ConfigError(message, hint="write it as SQLAlchemy does, and install the database's driver") from error
        except (SQLAlchemyError, RuntimeError) as error:
            reason = str(error).splitlines()[0]
            raise DataError(f"the database of the search cannot be used: {reason}", location=hidden) from error
    # Absolute: the lock is a symbolic link to the journal, and would point nowhere.
    path = journal if storage is None else Path(storage).expanduser().absolute()
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        return JournalStorage(JournalFileBackend(str(path))), path
    except OSError as error:
        raise ConfigError(f"the journal cannot be written: {error.strerror}", location=str(path)) from error
    except (ValueError, KeyError) as error:
        raise DataError(f"this is not a complete journal of a search: {error}", location=str(path)) from error
