"""Make the bundled cross-encoder: data in, ONNX files out.

    python training/e5_pipeline.py DATA_DIR E5_DIR WORK_DIR OUT_DIR [--config FILE] [--name NAME]

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
from arguments import existing_path
from e5_groups import micro_batches
from e5_train import Runner, Trainer
from encoders import load_encoder, teachers
from export import export, move_weights, smooth, template_agrees, write_companions
from prepare import Prepared, prepare
from reader import Branches, CrossEncoder, Trunk

CONFIG = Path(__file__).parent / "e5.toml"
SEEN_STEPS, GROUPS_SEEN = 2, 8  # whose pairs show the outliers of activations
OUTPUTS = ("logits", "vector")  # the second is the trunk's own, for an embedder


def main() -> None:
    """Run the steps."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    for name in ("data", "e5"):
        parser.add_argument(name, type=existing_path)
    for name in ("work", "out"):
        parser.add_argument(name, type=Path)
    parser.add_argument("--config", type=existing_path, nargs="+", default=[CONFIG])
    parser.add_argument("--name", default="model", help="of the run's checkpoints")
    parser.add_argument("--set", nargs="*", default=[], help="train.scalars.steps=100, for trials")
    given = parser.parse_args()
    config = read_config(given.config, given.set)
    keep_memory()
    prepared = prepare(given.data, given.e5, given.work, config)
    trainer = new_trainer(prepared, given.work, config)
    trainer.train(given.name, "scalars")
    trainer.validate(given.name, False)
    publish(prepared, trainer, given.e5, given.out, config, False)


def read_config(paths: list[Path], changes: list[str]) -> dict[str, Any]:
    """The configuration, later files changing earlier ones, then ``train.scalars.steps=100``."""
    config: dict[str, Any] = {}
    for path in paths:
        _merge(config, tomllib.loads(path.read_text()))
    for change in changes:
        key, _, value = change.partition("=")
        *parts, name = key.split(".")
        place = config
        for part in parts:
            place = place[part]
        place |= tomllib.loads(f"{name} = {value}")
    return config


def _merge(config: dict[str, Any], changes: dict[str, Any]) -> None:
    for key, value in changes.items():
        if isinstance(value, dict) and key in config:
            _merge(config[key], value)
        else:
            config[key] = value


def keep_memory() -> None:
    """Have the C library keep freed memory: it is asked for again at every step.

    Handing it back and getting it anew costs as much as the arithmetic on some machines.
    """
    if hasattr(library := ctypes.CDLL(None), "mallopt"):  # glibc's
        mmap_max, trim_threshold = -4, -1
        library.mallopt(mmap_max, 0)
        library.mallopt(trim_threshold, 2**31 - 1)


def new_trainer(
    prepared: Prepared, work: Path, config: dict[str, Any], kind: type[Trainer] = Trainer
) -> Trainer:
    """A trainer of untrained branches."""
    torch.manual_seed(config["seed"])
    branches = Branches(prepared.encoder.float(), config["model"])
    prepared.encoder.to(torch.bfloat16)
    branches.joint.to(torch.bfloat16)
    branches.reading.to(torch.bfloat16)
    runner = Runner(branches, prepared.lexical, prepared.texts.read[0].scales)
    known = prepared.plan, prepared.texts, prepared.second
    return kind(*known, runner, work, config["train"], config["seed"])


def publish(
    prepared: Prepared,
    trainer: Trainer,
    e5: Path,
    out: Path,
    config: dict[str, Any],
    reads: bool,
) -> None:
    """Write the model in int8 and in float32."""
    kind = teachers(e5)["e5"]
    branches = copy.deepcopy(trainer.runner.branches).float()
    trunk = Trunk(load_encoder(e5), copy.deepcopy(prepared.lexical), config["model"]["lower"])
    model = CrossEncoder(trunk, branches, reads).float().eval()
    export(copy.deepcopy(model), out / "fp32" / "model.onnx", int8=False, outputs=OUTPUTS)
    seen = []
    for step in range(SEEN_STEPS):
        groups = trainer.sampler.step(step, GROUPS_SEEN)
        seen += micro_batches(trainer.texts, trainer.pairs_of(groups))
    smooth(model, seen, config["export"]["smoothing"])
    folder = out / "int8" / "onnx"
    export(model, folder / "model.onnx", int8=True, outputs=OUTPUTS)
    move_weights(folder / "model.onnx", folder / "weights.bin")
    layers = len(trunk.encoder.layers) + config["model"]["joint"] + config["model"]["reading"]
    for folder in (out / "fp32", out / "int8"):
        write_companions(folder, kind, layers)
        assert template_agrees(folder, kind)
    print(f"wrote {out}")


if __name__ == "__main__":
    main()
