"""What each part of the cross-encoder gives: writes a model a step, for the benchmark to measure.

    python training/ablation.py DATA_DIR WORK_DIR OUT_DIR
    python benchmarks/second_stage.py DATA_DIR dl19 --reranker OUT_DIR/0-bi-encoder --reranker ...

Needs what ``pipeline.py`` left in WORK_DIR. All are float32. The models without a branch are the
whole one with that branch's weights set to zero, not trained again.
"""

import argparse
import copy
from pathlib import Path

import torch
from arguments import existing_path
from encoders import teachers
from export import export, write_companions
from model import SCALARS, Branches, CrossEncoder, ScalarHead
from pipeline import Inputs, fit_head, new_branches, read_inputs, teach

SOFT = [1]  # places among the scalars
EXACT = list(range(2, SCALARS))


def main() -> None:
    """Write every step's model."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    for name in ("data", "work"):
        parser.add_argument(name, type=existing_path)
    parser.add_argument("out", type=Path)
    given = parser.parse_args()
    inputs = read_inputs(given.data, given.work)
    trainer = inputs.trainer("model")
    untrained = new_branches(trainer, inputs.config["model"])
    write(inputs, untrained, given.out / "0-bi-encoder")
    last = new_branches(trainer, inputs.config["model"])
    last.load_state_dict(torch.load(given.work / "model.part.pt")["branches"])
    write(inputs, last, given.out / "1-trained")
    whole = teach(trainer, inputs.config)
    write(inputs, whole, given.out / "2-averaged")
    head = fit_head(inputs, whole)
    write(inputs, whole, given.out / "3-scalars-alone", head, across=0.0)
    across = inputs.config["alone"]["across"]
    write(inputs, whole, given.out / "4-both-heads", head, across)
    for name, scalars in (("exact", EXACT), ("soft", SOFT)):
        parts = without(whole, head, scalars)
        write(inputs, parts[0], given.out / f"without-{name}-match", parts[1], across)


@torch.no_grad()
def without(
    branches: Branches, head: ScalarHead, scalars: list[int]
) -> tuple[Branches, ScalarHead]:
    """Copies that do not read some of the scalars."""
    branches, head = copy.deepcopy(branches), copy.deepcopy(head)
    for linear, inner in (
        (branches.linear, branches.from_scalars),
        (head.linear, head.inner),
    ):
        linear[scalars] = 0
        inner.weight[:, scalars] = 0
    return branches, head


def write(
    inputs: Inputs,
    branches: Branches,
    folder: Path,
    head: ScalarHead | None = None,
    across: float = 1.0,
) -> None:
    """One step's model in float32."""
    trunk = inputs.trunk("model", torch.float32)
    model = CrossEncoder(trunk, copy.deepcopy(branches), head, across)
    export(model, folder / "model.onnx", int8=False)
    write_companions(
        folder,
        teachers(folder)["minilm"],
        inputs.config["model"]["layers"] + inputs.config["model"]["cross"],
    )


if __name__ == "__main__":
    main()
