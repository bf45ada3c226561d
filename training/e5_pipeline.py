"""Make the bundled cross-encoder: data in, ONNX files out.

    python training/e5_pipeline.py DATA_DIR E5_DIR WORK_DIR OUT_DIR [--config FILE] [--name NAME]

Every step keeps what it made in WORK_DIR and is skipped when that is there; training goes on from
its last checkpoint. See README.md for the steps and how long they take.
"""

import argparse
import copy
import ctypes
import os
import tomllib
from datetime import timedelta
from pathlib import Path
from typing import Any

import torch
from e5_export import template_agrees, write_companions
from e5_groups import micro_batches
from e5_train import Runner, Trainer
from encoders import load_encoder, teachers
from export import export, share_weights, smooth
from prepare import Prepared, prepare
from reader import Branches, CrossEncoder, Trunk

CONFIG = Path(__file__).parent / "e5.toml"
SEEN_STEPS = 2  # whose pairs show the outliers of activations


def main() -> None:
    """Run the steps."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    for name in ("data", "e5", "work", "out"):
        parser.add_argument(name, type=Path)
    parser.add_argument("--config", type=Path, default=CONFIG)
    parser.add_argument("--name", default="model", help="of the run's checkpoints")
    parser.add_argument(
        "--untrained",
        action="store_true",
        help="write the bi-encoder inside alone, to compare with",
    )
    parser.add_argument("--workers", type=int, default=2, help="processes that train")
    parser.add_argument("--set", nargs="*", default=[], help="train.KEY=VALUE, for ablations")
    given = parser.parse_args()
    config = read_config(given.config, given.set)
    keep_memory()
    prepared = prepare(given.data, given.e5, given.work, config)
    if given.untrained:
        publish(prepared, new_trainer(prepared, given.work, config), given.e5, given.out, config)
        return
    if not (given.work / f"{given.name}.pt").is_file():
        arguments = given, config
        torch.multiprocessing.spawn(work_along, arguments, nprocs=given.workers)
    trainer = new_trainer(prepared, given.work, config)
    trainer.train(given.name)
    publish(prepared, trainer, given.e5, given.out, config)


def work_along(rank: int, given: argparse.Namespace, config: dict[str, Any]) -> None:
    """Train as one of several processes of one thread, which wait for each other once a step.

    On a machine that is shared with other work, threads that meet after every operation would wait
    for each other most of the time.
    """
    torch.set_num_threads(1)
    meeting = f"file://{given.work.absolute()}/meeting-{os.getppid()}"
    torch.distributed.init_process_group(
        "gloo", init_method=meeting, rank=rank, world_size=given.workers, timeout=timedelta(hours=3)
    )
    keep_memory()
    prepared = prepare(given.data, given.e5, given.work, config)
    new_trainer(prepared, given.work, config).train(given.name)
    torch.distributed.destroy_process_group()


def read_config(path: Path, changes: list[str]) -> dict[str, Any]:
    """The configuration, with some values changed: ``train.steps=100``."""
    config = tomllib.loads(path.read_text())
    for change in changes:
        key, _, value = change.partition("=")
        part, _, name = key.partition(".")
        config[part] |= tomllib.loads(f"{name} = {value}")
    return config


def keep_memory() -> None:
    """Have the C library keep freed memory: it is asked for again at every step.

    Handing it back and getting it anew costs as much as the arithmetic on some machines.
    """
    if hasattr(library := ctypes.CDLL(None), "mallopt"):  # glibc's
        mmap_max, trim_threshold = -4, -1
        library.mallopt(mmap_max, 0)
        library.mallopt(trim_threshold, 2**31 - 1)


def new_trainer(prepared: Prepared, work: Path, config: dict[str, Any]) -> Trainer:
    """A trainer of untrained branches."""
    torch.manual_seed(config["seed"])
    branches = Branches(prepared.encoder.float(), config["model"])
    prepared.encoder.to(torch.bfloat16)
    branches.joint.to(torch.bfloat16)
    branches.reading.to(torch.bfloat16)
    runner = Runner(branches, prepared.lexical, prepared.texts.read[0].scales)
    taught = prepared.taught
    settings = config["train"]
    return Trainer(prepared.plan, prepared.texts, taught, runner, work, settings, config["seed"])


def publish(
    prepared: Prepared, trainer: Trainer, e5: Path, out: Path, config: dict[str, Any]
) -> None:
    """Write the model in int8 and in float32."""
    kind = teachers(e5)["e5"]
    branches = copy.deepcopy(trainer.runner.branches).float()
    trunk = Trunk(load_encoder(e5), copy.deepcopy(prepared.lexical), config["model"]["lower"])
    model = CrossEncoder(trunk, branches).float().eval()
    export(copy.deepcopy(model), out / "fp32" / "model.onnx", int8=False)
    seen = []
    for step in range(SEEN_STEPS):
        groups = trainer.sampler.step(step, config["train"]["groups"])
        seen += micro_batches(trainer.texts, trainer.pairs_of(groups))
    smooth(model, seen, config["export"]["smoothing"])
    folder = out / "int8" / "onnx"
    export(model, folder / "model.onnx", int8=True, reduce_range=True)
    share_weights([folder / "model.onnx"], folder / "weights.bin")
    layers = len(trunk.encoder.layers) + config["model"]["joint"] + config["model"]["reading"]
    for folder in (out / "fp32", out / "int8"):
        write_companions(folder, kind, layers)
        assert template_agrees(folder, kind)
    print(f"wrote {out}")


if __name__ == "__main__":
    main()
