"""What people see of a training; what is logged is in test_trainer."""

import json
import os
import re
import shutil
import sys

import pytest
from transformers import TrainerControl, TrainerState, TrainingArguments

from st_l0.training import log
from st_l0.training.log import TrainingLog
from st_l0.training.recipe import load_recipe
from st_l0.training.train_model import train

LOGS = {
    "loss": 12.3,
    "grad_norm": 1.0,
    "kl_loss": 12.0,
    "infonce_loss": 0.000012,
    "document_regularizer_loss": 0.3,
    "document_regularizer_weight": 0.004,
    "flops": 3.214,
    "query_active_dims": 7.0,
    "document_active_dims": 120.44,
    "document_active_dims_p95": 150.0,
    "queries_per_second": 1055.3,
    "epoch": 0.5,
}


def lines_of(capsys, *logs, steps=1000):
    shown, state = TrainingLog(), TrainerState(max_steps=steps)
    arguments = TrainingArguments(use_cpu=True, report_to="none")
    with shown.showing():
        shown.on_train_begin(arguments, state, TrainerControl())
        for one in logs:
            state.global_step += 10
            shown.on_step_end(arguments, state, TrainerControl())
            shown.on_log(arguments, state, TrainerControl(), logs=one)
    return capsys.readouterr().out.splitlines()


def test_a_line_has_every_number_under_its_head(capsys):
    head, row, other = lines_of(capsys, LOGS, {**LOGS, "loss": 9.87654, "empty_documents": 0.25})
    assert re.split("  +", head.strip()) == [
        *("step", "loss", "kl", "infonce", "doc penalty", "λ_d", "FLOPS", "q dims", "doc dims"),
        *("queries/s", "left"),
    ]
    cells = row.split()
    assert cells[:-1] == [
        *("10", "12.30", "12.00", "1.2e-05", "0.3000", "0.004000", "3.21", "7.0", "120.4", "1,055.3")
    ]
    assert re.fullmatch(r"\d:\d\d", cells[-1])
    assert [match.end() for match in re.finditer(r"\S+( \S+)*", head)] == [
        match.end() for match in re.finditer(r"\S+", row)
    ]
    assert other.split()[1] == "9.877" and other.endswith("  25% of the documents are empty")


def test_the_heads_come_again(capsys):
    lines = lines_of(capsys, *[LOGS] * 26, {"loss": 1.0})
    assert [number for number, line in enumerate(lines) if "step" in line] == [0, 26, 28]


def test_a_narrow_terminal_keeps_what_matters_most(capsys, monkeypatch):
    monkeypatch.setattr(log, "is_terminal", lambda stream: stream is sys.stdout)
    monkeypatch.setattr(shutil, "get_terminal_size", lambda *_: os.terminal_size((64, 24)))
    head, row = lines_of(capsys, LOGS)
    assert head.split() == ["step", "loss", "FLOPS", "doc", "dims", "queries/s", "left"] and len(row) <= 64


def test_a_training_prints_lines_and_logs_dictionaries(tmp_path, mlm_folder, capfd):
    words = ("cat", "dog", "fish", "sun")
    rows = [{"query": word, "documents": [f"the {word}", "a rain in"]} for word in words]
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (tmp_path / "recipe.yaml").write_text(
        f"model: {{base_model: {mlm_folder}, idf: binary, max_seq_length: 16}}\n"
        f"data: {{train: {tmp_path}/rows.jsonl}}\n"
        "loss: {document_regularizer_weight: 0.01}\n"
        "training: {max_steps: 4, per_device_train_batch_size: 2, logging_steps: 2, report_to: none}\n"
        f"output: {tmp_path}/run\n"
    )
    train(load_recipe(tmp_path / "recipe.yaml"))
    found = capfd.readouterr()
    assert "{" not in found.out + found.err
    head, first, second, end = found.out.splitlines()
    assert head.split()[:4] == ["step", "loss", "infonce", "doc"]
    assert (first.split()[0], second.split()[0]) == ("2", "4")
    assert re.fullmatch(r"4 of 4 steps in \d:\d\d", end)
    logged = json.loads((tmp_path / "run" / "trainer_state.json").read_text())["log_history"]
    assert f"{logged[0]['loss']:#.4g}" == first.split()[1] and "grad_norm" in logged[0]

    # One that fails leaves no bar behind that goes on.
    recipe = load_recipe(
        tmp_path / "recipe.yaml", ["training.learning_rate=1e30", f"output={tmp_path}/other"]
    )
    with pytest.raises(ValueError, match="not finite"):
        train(recipe)
    from st_l0.utils.progress import _board

    assert not _board._works and _board._ended is None
