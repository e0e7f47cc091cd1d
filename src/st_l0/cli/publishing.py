"""The command that puts a model on the Hub."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from st_l0.cli.app import TrustRemoteCode, app, say, writing

Evaluation = Annotated[
    list[Path] | None,
    typer.Option(
        "--evaluation", help="For the card: what evaluate --output wrote, or results of mteb; repeatable."
    ),
]
Card = Annotated[
    Path | None,
    typer.Option(
        "--card", help="Licence, languages, data, limits for the card (.yaml), or a finished card (.md)."
    ),
]


@app.command()
def publish(
    run: Annotated[
        Path, typer.Argument(metavar="RUN", help="Output of a training, or the folder of a checkpoint.")
    ],
    repo: Annotated[str, typer.Option("--repo", metavar="ORG/NAME", help="The repository.")],
    private: Annotated[
        bool, typer.Option("--private", help="Only you and your organisation see it.")
    ] = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Put it together and check it, but send nothing.")
    ] = False,
    evaluation: Evaluation = None,
    card: Card = None,
    trust_remote_code: TrustRemoteCode = False,
) -> None:
    """Upload a trained model to the Hub, with its card, after plain sentence-transformers has checked it.

    RUN/evaluation.json and RUN/card.yaml go into the card where --evaluation and --card are left out.
    """
    from st_l0.hub.publishing import publish as run_publish

    with writing(run):
        done = run_publish(
            run,
            repo,
            private=private,
            dry_run=dry_run,
            evaluation=evaluation or (),
            card=card,
            trust_remote_code=trust_remote_code,
        )
    for name, size in done.files.items():
        say(f"{size:>13,}  {name}")
    say(f"plain sentence-transformers finds the same scores (to {done.difference:.0e} of the largest)")
    if done.commit is None:
        say(f"upload: {done.folder} (nothing was sent)")
    else:
        say(f"{repo}: commit {done.commit}")
