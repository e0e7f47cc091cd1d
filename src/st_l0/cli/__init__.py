"""The command line ``st-l0``."""

from st_l0.cli import (
    encoding,
    models,
    opensearch,
    reports,
    training,
)  # importing them registers their commands
from st_l0.cli.app import app, main

__all__ = ["app", "encoding", "main", "models", "opensearch", "reports", "training"]
