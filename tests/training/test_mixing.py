"""Trainings on sources with weights: the same batches on any number of processes, and after a resume."""

import json
from collections import Counter
from itertools import chain

import pytest

from launching import run
from st_l0.data.mixture import Mixture
from st_l0.errors import InputError
from st_l0.training.mixing import in_words
from st_l0.training.recipe import load_recipe
from st_l0.training.train_model import train
from tiny_models import WORDS

# Rows of 12 and 4 words, half and half: 8 and 8 of an epoch of 16.
_SCRIPT = """
import json, os, pathlib, sys
from datasets import Dataset
from sentence_transformers import SparseEncoderTrainingArguments
from st_l0 import SparseEncoder
from st_l0.data.mixture import Mixture
from st_l0.losses import FlopsLoss, InfoNCELoss, SparseRetrievalLoss
from st_l0.training.trainer import SparseRetrievalTrainer

folder, base = pathlib.Path(sys.argv[1]), sys.argv[2]
words = "cat dog bird fish tree river mountain sun moon star rain snow wind red green blue".split()
data = Dataset.from_list([{"query": word, "positive": f"a {word} and the"} for word in words])
found = {}

def train(name, mixture, sampler, *, size, steps, resume=None, saved=1000):
    model = SparseEncoder.from_mlm(base, idf="binary", device="cpu")
    arguments = SparseEncoderTrainingArguments(
        str(folder / name), use_cpu=True, per_device_train_batch_size=size, save_steps=saved, seed=3,
        router_mapping={"query": "query", "positive": "document"}, ddp_find_unused_parameters=False,
        learning_rate=0.0, disable_tqdm=True, report_to="none", batch_sampler=sampler, max_steps=steps,
    )
    seen = []
    class Trainer(SparseRetrievalTrainer):
        def compute_loss(self, model, inputs, *args, **kwargs):
            texts = self.model.tokenizer.batch_decode(inputs["query_input_ids"], skip_special_tokens=True)
            seen.append([words.index(text) for text in texts])
            return super().compute_loss(model, inputs, *args, **kwargs)
    loss = SparseRetrievalLoss(model, InfoNCELoss(), FlopsLoss(), 0.0)
    trainer = Trainer(model=model, args=arguments, train_dataset=data, loss=loss, mixture=mixture)
    trainer.train(resume_from_checkpoint=resume)
    found[f"{name}{'' if resume is None else ' resumed'}"] = seen

mixed, size = Mixture((12, 4), (1.0, 1.0)), 4 // int(os.environ.get("WORLD_SIZE", 1))
for name, mixture, sampler in (
    ("mixed", mixed, "batch_sampler"), ("distinct", mixed, "no_duplicates"), ("plain", None, "batch_sampler")
):
    train(name, mixture, sampler, size=size, steps=12, saved=6)  # 3 epochs; saved in the middle of the second
    train(name, mixture, sampler, size=size, steps=12, resume=str(folder / name / "checkpoint-6"))
(folder / f"{os.environ.get('RANK', '0')}.json").write_text(json.dumps(found))
"""


@pytest.mark.parametrize("processes", [1, 2])
def test_batches_of_a_training(tmp_path, mlm_folder, processes):
    script = tmp_path / "script.py"
    script.write_text(_SCRIPT)
    done = run(processes, script, tmp_path, mlm_folder)
    assert done.returncode == 0, done.stderr[-3000:]
    found = [json.loads((tmp_path / f"{process}.json").read_text()) for process in range(processes)]

    def rounds(name):
        """What each step trained, on all processes."""
        return [[*chain(*batches)] for batches in zip(*(one[name] for one in found), strict=True)]

    mixture = Mixture((12, 4), (1.0, 1.0))
    for name in ("mixed", "distinct"):
        steps = rounds(name)
        assert [len(step) for step in steps] == [4] * 12
        for epoch in range(3):
            rows = sorted(chain(*steps[4 * epoch : 4 * epoch + 4]))
            assert rows == sorted(mixture.rows(3, epoch).tolist())
        assert steps[:4] != [sorted(step) for step in steps[:4]]  # in random order
    assert all(len(set(batch)) == len(batch) for one in found for batch in one["distinct"])
    seen = Counter(chain(*rounds("mixed")))
    assert {seen[row] for row in range(12)} == {2} and {seen[row] for row in range(12, 16)} == {6}
    for name in ("mixed", "distinct", "plain"):
        for one in found:
            assert one[f"{name} resumed"] == one[name][6:], name


def test_what_is_said_of_a_source_by_hand():
    # Of 3 epochs of 60 rows the first source gives 144, so that each of its 50 is seen 2.88 times.
    assert in_words(Mixture((50, 10), (8.0, 2.0)), ["a", "b"], 180) == [
        "a: 50 examples, 80 % of the training, each seen about 2.9 times",
        "b: 10 examples, 20 % of the training, each seen about 3.6 times",
    ]
    assert in_words(Mixture((5000, 1000), (1.0, 2.0)), ["a", "b"], None)[1] == (
        "b: 1,000 examples, 66.7 % of an epoch, each seen about 4 times"
    )


def test_a_recipe_with_weights(tmp_path, mlm_folder, capsys):
    sources = []
    for name, weight, words in (("many", 1, WORDS[:12]), ("few", 3, WORDS[12:16])):
        rows = [json.dumps({"query": word, "positive": f"a {word} and the"}) + "\n" for word in words]
        (tmp_path / f"{name}.jsonl").write_text("".join(rows))
        sources.append({"path": str(tmp_path / f"{name}.jsonl"), "weight": weight})
    training = {"num_train_epochs": 2, "per_device_train_batch_size": 4, "report_to": "none", "save_steps": 8}
    values = {
        "model": {"base_model": mlm_folder, "idf": "binary", "max_seq_length": 16},
        "data": {"train": sources},
        "loss": {"document_regularizer_weight": 0.01},
        "training": training,
        "output": str(tmp_path / "run"),
    }
    (tmp_path / "recipe.yaml").write_text(json.dumps(values))
    folder = train(load_recipe(tmp_path / "recipe.yaml"))
    said = capsys.readouterr().out
    assert f"{sources[0]['path']}: 12 examples, 25 % of the training, each seen about 0.67 times" in said
    assert f"{sources[1]['path']}: 4 examples, 75 % of the training, each seen about 6 times" in said
    assert "many.jsonl (25 %), few.jsonl (75 %)" in (folder / "README.md").read_text()
    with pytest.raises(InputError, match="of a training with other data: put that back"):
        train(load_recipe(tmp_path / "recipe.yaml", [f"data.train={json.dumps(sources[:1])}"]), resume=True)
    sources[1]["weight"] = 2
    with pytest.raises(InputError, match="of a training with other data: put that back"):
        train(load_recipe(tmp_path / "recipe.yaml", [f"data.train={json.dumps(sources)}"]), resume=True)
