"""The command line ``st-l0``."""

from st_l0.cli import encoding, models, publishing, training  # importing them registers their commands
from st_l0.cli.app import app, main

__all__ = ["app", "encoding", "main", "models", "publishing", "training"]
