"""The command line ``st-l0``."""

# Importing them registers their commands.
from st_l0.cli import encoding, models, opensearch, publishing, reports, training
from st_l0.cli.app import app, main

__all__ = ["app", "encoding", "main", "models", "opensearch", "publishing", "reports", "training"]
