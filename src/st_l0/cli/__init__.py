"""The command line ``st-l0``."""

# Importing them registers their commands, in the order of the help.
from st_l0.cli import (  # noqa: I001
    evaluating,
    searching,
    demo,
    encoding,
    models,
    opensearch,
    publishing,
    reports,
    idf,
    training,
)
from st_l0.cli.app import app, main

__all__ = [
    "app",
    "demo",
    "encoding",
    "evaluating",
    "idf",
    "main",
    "models",
    "opensearch",
    "publishing",
    "reports",
    "searching",
    "training",
]
