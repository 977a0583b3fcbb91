"""The tracking database, looked at before MLflow opens it: that asks ten times, for minutes, and does not say why."""

from __future__ import annotations

from pathlib import Path

from maskhand.disk import check_writable
from maskhand.tracking.errors import TrackingServerError
from maskhand.tracking.store import opening

KINDS = ("sqlite", "postgresql", "mysql", "mssql")
"""What MLflow can keep runs in, each with `+DRIVER` or without."""
_LIMIT = {"sqlite": "timeout", "postgresql": "connect_timeout", "mysql": "connect_timeout"}
"""How the drivers of a kind call the time after which they give up."""
_WAIT_S = 10
_INSTALL = {"psycopg2": "pip install 'maskhand[postgres]'"}
_ELSE = "or unset MLFLOW_TRACKING_URI for a database in the workspace"


def check_database(uri: str) -> None:
    """Raises TrackingServerError for a database that does not answer, or that another version of MLflow has made, and
    StorageError for a file that cannot be made. Nothing is made here; what MLflow has yet to fill is fine."""
    import sqlalchemy
    from alembic.migration import MigrationContext

    try:
        url = sqlalchemy.make_url(uri)
        kind = url.get_backend_name()
        if kind == "sqlite" and _is_new(uri, url.database or ":memory:"):
            return
        limits = {_LIMIT[kind]: _WAIT_S} if kind in _LIMIT else {}
        engine = sqlalchemy.create_engine(url, poolclass=sqlalchemy.NullPool, connect_args=limits)
        with opening(uri), engine.connect() as connection:  # not while another process makes its tables
            found = MigrationContext.configure(connection).get_current_revision()
    except ImportError as error:
        raise TrackingServerError(
            f"MLFLOW_TRACKING_URI={uri}: the package that reaches such a database is not installed ({error.name}); "
            f"{_INSTALL.get(error.name or '', 'install it')}, {_ELSE}"
        ) from error
    except sqlalchemy.exc.SQLAlchemyError as error:
        reason = " ".join(str(getattr(error, "orig", None) or error).split())[:200]
        raise TrackingServerError(
            f"the tracking database {uri} cannot be used ({reason}); end programs that hold it, restore it, or correct "
            f"its address in MLFLOW_TRACKING_URI, {_ELSE}",
            retryable=isinstance(error, sqlalchemy.exc.OperationalError),
        ) from error
    if found is not None:
        _check_version(uri, found)


def _is_new(uri: str, name: str) -> bool:
    """Whether a database file has yet to be made."""
    file = Path(name)
    if name == ":memory:":
        raise TrackingServerError(
            f"MLFLOW_TRACKING_URI={uri}: a database in memory ends with its process; write sqlite:///FILE, {_ELSE}"
        )
    if file.is_dir():
        raise TrackingServerError(f"MLFLOW_TRACKING_URI={uri}: this is a folder; name a file in it, {_ELSE}")
    if file.exists():
        return file.stat().st_size == 0
    check_writable(file.parent)
    return True


def _check_version(uri: str, found: str) -> None:
    """found: what the database records of the changes to its tables."""
    import mlflow
    from alembic.script import ScriptDirectory

    changes = ScriptDirectory(str(Path(mlflow.__file__).parent / "store" / "db_migrations"))
    if found == changes.get_current_head():
        return
    is_older = any(found == change.revision for change in changes.walk_revisions())
    advice = f"copy it, then run `mlflow db upgrade {uri}`" if is_older else "install that version"
    raise TrackingServerError(
        f"the tracking database {uri} is of {'an older' if is_older else 'a newer'} version of MLflow than the "
        f"installed {mlflow.__version__}; {advice}, {_ELSE}"
    )
