"""What the clean inputs give, for each command once."""

import pytest


@pytest.fixture(scope="module")
def clean_results(clean, tmp_path_factory):
    """Key of a command to what it gives for clean inputs."""
    import shutil
    from pathlib import Path

    import world
    from running import complaints, run

    commands = {
        **{name: (world.corpus_commands, name) for name in ("corpus.jsonl", "corpus.txt", "corpus.parquet")},
        "beir": (world.collection_commands, "beir"),
        "rows.jsonl": (world.rows_commands, "rows.jsonl"),
        "recipe.yaml": (world.recipe_commands, "recipe.yaml"),
        "sweep.yaml": (world.sweep_commands, "sweep.yaml"),
        "model": (world.checkpoint_commands, "model"),
        "index": (world.index_commands, "index"),
        "encoded": (world.encoded_commands, "encoded"),
        "vectors": (lambda clean, path: world.teacher_commands(clean, f"vectors:{path}"), "vectors"),
    }
    found = {}
    with pytest.MonkeyPatch.context() as patch:
        for key, (make, name) in commands.items():
            patch.chdir(tmp_path_factory.mktemp("results"))
            Path("in").mkdir()
            target = Path("in") / name
            for number, (args, read) in enumerate(make(clean, target)):
                shutil.rmtree("out", ignore_errors=True)
                shutil.rmtree("in")
                Path("in").mkdir()
                (shutil.copytree if (clean / name).is_dir() else shutil.copy)(clean / name, target)
                ran = run(*args)
                assert (ran.code, complaints(ran)) == (0, []), (args, ran)
                found[f"{key} {number}"] = read(ran)
    return found
