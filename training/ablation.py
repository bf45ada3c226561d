"""What each part of the cross-encoder gives: writes a model a step, for the benchmark to measure.

    python training/ablation.py DATA_DIR WORK_DIR OUT_DIR
    python benchmarks/second_stage.py DATA_DIR dl19 --reranker OUT_DIR/0-bi-encoder --reranker ...

Needs what ``pipeline.py`` left in WORK_DIR. The steps without attention across the pair get a head
of their own, trained on the same groups, so that each is as good as its inputs allow.
"""

import argparse
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from export import export, write_companions
from minilm import load_teacher, model_folder
from model import Branches, CrossEncoder
from pipeline import Inputs, course_of, new_branches, read_inputs, teach
from torch import Tensor

SCALAR_STEPS = 100  # a head of a few hundred weights has converged by then
SOFT = 1  # place of the soft match among the scalars


class ScalarsOnly(Branches):
    """Branches that do not attend across the pair, with or without the soft match."""

    def __init__(self, settings: dict[str, Any], *, soft: bool) -> None:
        super().__init__(load_teacher(model_folder()), settings | {"cross": 0})
        self.soft = soft

    def across(self, lower: Tensor, mask: Tensor, types: Tensor) -> Tensor:
        """Nothing."""
        return lower.new_zeros(len(lower), self.from_states.in_features, dtype=torch.float32)

    def scalars(self, top: Tensor, exact: Tensor, mask: Tensor, types: Tensor) -> Tensor:
        """Cosine, soft match if it is wanted, exact match."""
        scalars = super().scalars(top, exact, mask, types)
        if not self.soft:
            kept = torch.ones_like(scalars)
            kept[:, SOFT] = 0
            scalars = scalars * kept
        return scalars


def main() -> None:
    """Train the small heads and write every step's model."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    for name in ("data", "work", "out"):
        parser.add_argument(name, type=Path)
    given = parser.parse_args()
    inputs = read_inputs(given.data, given.work, device="cpu")
    settings = inputs.config["model"]
    trainer = inputs.trainer("model")
    write(inputs, new_branches(trainer, settings), given.out / "0-bi-encoder")
    for name, soft in (("1-exact-match", False), ("2-soft-match", True)):
        branches = ScalarsOnly(settings, soft=soft)
        course = replace(course_of(inputs.config, "train", name, 0), steps=SCALAR_STEPS)
        write(inputs, trainer.train(branches, course), given.out / name)
    for name, file in (
        ("3-across-the-pair", "first.part.pt"),
        ("4-averaged", "first.pt"),
        ("5-second-course", "second.pt"),
    ):
        state = torch.load(given.work / file)
        branches = new_branches(trainer, settings)
        branches.load_state_dict(state.get("branches", state))
        write(inputs, branches, given.out / name)
    write(inputs, teach(trainer, inputs.config), given.out / "6-both")


def write(inputs: Inputs, branches: Branches, folder: Path) -> None:
    """One step's model in float32."""
    model = CrossEncoder(inputs.trunk("model", torch.float32), branches)
    export(model, folder / "model.onnx", int8=False)
    write_companions(folder, inputs.config["model"]["layers"] + inputs.config["model"]["cross"])


if __name__ == "__main__":
    main()
