"""Make a cross-encoder and the student of it that is bundled: data in, ONNX files out.

    python training/pipeline.py DATA_DIR WORK_DIR OUT_DIR [--config FILE] [--device cuda]

Every step keeps what it made in WORK_DIR and is skipped when that is there; training goes on from
its last checkpoint. See README.md for the steps and how long they take.
"""

import argparse
import copy
import ctypes
import tomllib
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from alone import fit_alone
from arguments import existing_path
from data import Pool, load_pool
from encoders import teachers
from export import export, move_weights, smooth, write_companions
from groups import Tokens, tokenize
from lexical import inverse_frequency, stem_classes
from mine import Mined, mine
from minilm import load_teacher, model_folder
from model import Branches, CrossEncoder, ExactMatch, ScalarHead, Trunk
from tokenizers import Tokenizer
from train import Course, Trainer, compiled

CONFIG = Path(__file__).parent / "config.toml"


@dataclass(frozen=True, slots=True)
class Inputs:
    """What all training starts from."""

    config: dict[str, Any]
    work: Path
    device: torch.device
    pool: Pool
    mined: Mined
    tokens: Tokens
    exact: ExactMatch

    def trunk(self, part: str, dtype: torch.dtype = torch.bfloat16) -> Trunk:
        """The frozen part: bfloat16 to train on, float32 as published to export."""
        settings = self.config[part]
        teacher = load_teacher(model_folder()).to(dtype)
        return Trunk(teacher, copy.deepcopy(self.exact), settings["layers"], settings["lower"])

    def trainer(self, part: str) -> Trainer:
        """A trainer of branches on the trunk of "model" or "student"."""
        return Trainer(
            self.pool,
            self.mined,
            self.tokens,
            self.trunk(part),
            self.work,
            self.config,
            self.device,
        )


def main() -> None:
    """Run the steps."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("data", type=existing_path)
    for name in ("work", "out"):
        parser.add_argument(name, type=Path)
    parser.add_argument("--config", type=existing_path, default=CONFIG)
    parser.add_argument("--device", default="cpu", help="cpu, or cuda where there is one")
    given = parser.parse_args()
    inputs = read_inputs(given.data, given.work, given.config, given.device)
    trainer = inputs.trainer("model")
    branches = teach(trainer, inputs.config)
    student = teach_student(inputs, CrossEncoder(trainer.trunk, branches))
    publish(inputs, {"model": branches, "student": student}, given.out)


def read_inputs(data: Path, work: Path, config: Path = CONFIG, device: str = "cpu") -> Inputs:
    """Read the data and mine negatives, or read what an earlier run mined."""
    settings = tomllib.loads(config.read_text())
    work.mkdir(parents=True, exist_ok=True)
    keep_memory()
    torch.manual_seed(settings["seed"])
    pool = load_pool(data, settings["data"])
    mined = mine(pool, work, settings["mining"])
    tokenizer = Tokenizer.from_file(str(model_folder() / "tokenizer.json"))
    lengths = settings["train"]
    tokens = tokenize(pool, tokenizer, lengths["query_tokens"], lengths["passage_tokens"])
    classes = stem_classes(tokenizer)
    exact = ExactMatch(classes, inverse_frequency(tokenizer, classes, tokens.passages))
    return Inputs(settings, work, torch.device(device), pool, mined, tokens, exact)


def keep_memory() -> None:
    """Have the C library keep freed memory: it is asked for again at every step.

    Handing it back and getting it anew costs as much as the arithmetic on some machines.
    """
    if hasattr(library := ctypes.CDLL(None), "mallopt"):  # glibc's
        mmap_max, trim_threshold = -4, -1
        library.mallopt(mmap_max, 0)
        library.mallopt(trim_threshold, 2**31 - 1)


def new_branches(trainer: Trainer, settings: dict[str, Any]) -> Branches:
    """Untrained branches; with a whole trunk they score as the bi-encoder does."""
    branches = Branches(load_teacher(model_folder()), settings)
    branches.cross.to(torch.bfloat16)
    return branches.to(trainer.device)


def teach(trainer: Trainer, config: dict[str, Any]) -> Branches:
    """The branches of the whole model, by the labels."""
    settings = config["train"]
    course = Course(
        "model",
        settings["steps"],
        settings["tokens"],
        settings["learning_rate"],
        settings["dense_negatives"],
    )
    return trainer.train(new_branches(trainer, config["model"]), course)


def teach_student(inputs: Inputs, whole: CrossEncoder) -> Branches:
    """Branches on a short trunk that learn from the whole model more than from the labels."""
    settings = inputs.config["student"]
    run = compiled(whole.requires_grad_(False))
    course = Course(
        "student",
        settings["steps"],
        settings["tokens"],
        settings["learning_rate"],
        settings["dense_negatives"],
        settings["own_share"],
        first_step=inputs.config["train"]["steps"],
    )
    trainer = inputs.trainer("student")
    return trainer.train(
        new_branches(trainer, settings),
        course,
        lambda batch: run(batch.ids, batch.mask, batch.types).squeeze(1),
    )


def fit_head(inputs: Inputs, branches: Branches) -> ScalarHead:
    """The whole model's head that sees scalars alone."""
    settings = inputs.config["alone"]
    tokenizer = Tokenizer.from_file(str(model_folder() / "tokenizer.json"))
    query_tokens = inputs.config["train"]["query_tokens"]
    tokens = tokenize(inputs.pool, tokenizer, query_tokens, settings["tokens"])
    return fit_alone(inputs.trainer("model"), branches, tokens, settings)


def publish(inputs: Inputs, trained: dict[str, Branches], out: Path) -> None:
    """Write both models, each in int8 and in float32."""
    alone = fit_head(inputs, trained["model"])
    on_cpu = replace(inputs, device=torch.device("cpu"))
    seen = on_cpu.trainer("model").batches_of(range(inputs.config["export"]["steps_seen"]))
    across = inputs.config["alone"]["across"]
    for name, branches in trained.items():
        trunk = inputs.trunk(name, torch.float32)
        head = alone.cpu() if name == "model" else None  # the student learned the whole's scores
        model = CrossEncoder(trunk, branches.cpu(), head, across).float()
        export(copy.deepcopy(model), out / name / "fp32" / "model.onnx", int8=False)
        smooth(model, seen, inputs.config["export"]["smoothing"])
        graph = out / name / "int8" / "onnx" / "model.onnx"
        export(model, graph, int8=True)
        move_weights(graph, graph.with_name("weights.bin"))
        layers = inputs.config[name]["layers"] + inputs.config[name]["cross"]
        for folder in (out / name / "fp32", out / name / "int8"):
            write_companions(folder, teachers(folder)["minilm"], layers)
    print(f"wrote {out}")


if __name__ == "__main__":
    main()
