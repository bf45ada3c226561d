"""Make the bundled cross-encoder and its student: data in, ONNX files out.

    python training/pipeline.py DATA_DIR WORK_DIR OUT_DIR [--config training/config.toml]

Every step keeps what it made in WORK_DIR and is skipped when that is there; training goes on from
its last checkpoint. See README.md for the steps and how long they take.
"""

import argparse
import copy
import ctypes
import tomllib
from pathlib import Path
from typing import Any

import torch
from data import load_pool
from export import export, share_weights, write_companions
from groups import Tokens, tokenize
from lexical import inverse_frequency, stem_classes
from mine import mine
from minilm import load_teacher, model_folder
from model import Branches, CrossEncoder, ExactMatch, Trunk
from tokenizers import Tokenizer
from train import Round, Trainer, compiled, guided_by


def main() -> None:
    """Run the steps."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("data", type=Path)
    parser.add_argument("work", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--config", type=Path, default=Path(__file__).parent / "config.toml")
    given = parser.parse_args()
    config = tomllib.loads(given.config.read_text())
    given.work.mkdir(parents=True, exist_ok=True)
    keep_memory()
    torch.manual_seed(config["seed"])
    pool = load_pool(given.data, config["data"])
    mined = mine(pool, given.work, config["mining"])
    tokenizer = Tokenizer.from_file(str(model_folder() / "tokenizer.json"))
    settings = config["train"]
    tokens = tokenize(pool, tokenizer, settings["query_tokens"], settings["second_tokens"])
    trunk = new_trunk(tokenizer, tokens, config["model"])
    small_trunk = new_trunk(tokenizer, tokens, config["student"])
    branches = teach(Trainer(pool, mined, tokens, trunk, given.work, config), config)
    student = teach_student(
        Trainer(pool, mined, tokens, small_trunk, given.work, config), trunk, branches, config
    )
    exact_trunk, exact_small_trunk = (
        new_trunk(tokenizer, tokens, config[part], torch.float32) for part in ("model", "student")
    )
    publish(
        CrossEncoder(exact_trunk, branches),
        CrossEncoder(exact_small_trunk, student),
        given.out,
        config,
    )


def publish(whole: CrossEncoder, student: CrossEncoder, out: Path, config: dict[str, Any]) -> None:
    """Write both models in int8 with the weights that they share, and the whole in float32."""
    for model, name in ((whole, "model"), (student, "student")):
        export(copy.deepcopy(model), out / "fp32" / f"{name}.onnx", int8=False)
        export(model, out / "int8" / "onnx" / f"{name}.onnx", int8=True)
    share_weights(
        [out / "int8" / "onnx" / f"{name}.onnx" for name in ("model", "student")],
        out / "int8" / "onnx" / "weights.bin",
    )
    layers = config["model"]["layers"] + config["model"]["cross"]
    for folder in (out / "fp32", out / "int8"):
        write_companions(folder, layers)
    print(f"wrote {out}")


def keep_memory() -> None:
    """Have the C library keep freed memory: it is asked for again at every step.

    Handing it back and getting it anew costs as much as the arithmetic on some machines.
    """
    if hasattr(library := ctypes.CDLL(None), "mallopt"):  # glibc's
        mmap_max, trim_threshold = -4, -1
        library.mallopt(mmap_max, 0)
        library.mallopt(trim_threshold, 2**31 - 1)


def new_trunk(
    tokenizer: Tokenizer,
    tokens: Tokens,
    settings: dict[str, Any],
    dtype: torch.dtype = torch.bfloat16,
) -> Trunk:
    """The frozen part: bfloat16 to train on, float32 as published to export."""
    classes = stem_classes(tokenizer)
    exact = ExactMatch(classes, inverse_frequency(tokenizer, classes, tokens.passages))
    teacher = load_teacher(model_folder()).to(dtype)
    return Trunk(teacher, exact, settings["layers"], settings["lower"])


def teach(trainer: Trainer, config: dict[str, Any]) -> Branches:
    """Both rounds."""
    settings = config["train"]
    branches = new_branches(trainer, config["model"])
    first = Round("first", settings["steps"], settings["tokens"], settings["learning_rate"])
    branches = trainer.train(branches, first)
    second = Round(
        "second",
        settings["second_steps"],
        settings["second_tokens"],
        settings["second_learning_rate"],
        settings["own_share"],
        first_step=settings["steps"],
    )
    return trainer.train(branches, second, guided_by(branches))


def new_branches(trainer: Trainer, settings: dict[str, Any]) -> Branches:
    """Untrained branches; with a whole trunk they score as the bi-encoder does."""
    branches = Branches(load_teacher(model_folder()), settings)
    branches.cross.to(torch.bfloat16)
    trainer.standardise(branches)
    trainer.validate(branches, "before training")
    return branches


def teach_student(
    trainer: Trainer, trunk: Trunk, branches: Branches, config: dict[str, Any]
) -> Branches:
    """Branches on a short trunk that learn from the whole model as from the labels."""
    settings = config["student"]
    whole = CrossEncoder(trunk, branches).requires_grad_(False)
    run = compiled(whole)
    stage = Round(
        "student",
        settings["steps"],
        settings["tokens"],
        settings["learning_rate"],
        settings["own_share"],
        first_step=config["train"]["steps"] + config["train"]["second_steps"],
    )
    return trainer.train(
        new_branches(trainer, settings),
        stage,
        lambda batch, _: run(batch.ids, batch.mask, batch.types).squeeze(1),
    )


if __name__ == "__main__":
    main()
