"""Fused attention for a CPU: less memory, and less time for long texts.

If nothing is masked, ONNX Runtime's MultiHeadAttention works block by block on a CPU (flash
attention, https://arxiv.org/abs/2205.14135): the attention weights, 12.6 MB per copy at 12 heads
and 512 tokens, are never in memory as a whole (benchmarks/README.md). A pair that is a batch of its
own takes that path. Shorter pairs are masked, with padding or without, so that a score does not
depend on the other pairs of the batch.

An attention is replaced if its mask adds the same number everywhere in a text without padding (so
not if it is causal, local or by segments), and if its results stay the same.
"""

import logging
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from qdrant_rerank.errors import ModelFileError
from qdrant_rerank.hub.onnx_files import (
    DYNAMIC_QUANTIZATION,
    external_data,
    is_quantized,
    names_any,
)
from qdrant_rerank.inference.conversion.artifact_cache import artifact
from qdrant_rerank.inference.conversion.attention_pattern import Site, find_sites
from qdrant_rerank.inference.conversion.graph import Graph, keep_needed, load_whole
from qdrant_rerank.inference.cpu import LONG_PAIR
from qdrant_rerank.inference.inputs import STATES, Inputs
from qdrant_rerank.inference.sessions import import_onnxruntime, open_plain_session

__all__ = ["with_fused_attention"]

logger = logging.getLogger(__name__)

FORMAT = 4  # of the files made here; another number makes another artifact
NAME, NOTHING = "model.onnx", "nothing"  # an artifact has one of the two files
LARGEST = 1 << 30  # bytes of a model; the copy of a larger one would fill the cache
MASK = "attention_mask"
DOMAIN = "com.microsoft"
FLOAT, INT32, INT64 = 1, 6, 7  # onnx.TensorProto's; onnx is imported on use
# A mask is checked at the first of these widths that the model has positions for.
WIDTHS = (2048, 1024, 512, 256, 128, 64)
# Share by which an attention's result may differ. In int8 the last digit of an activation before
# it may be rounded differently, which adds up over the layers.
TOLERANCE, TOLERANCE_INT8 = 1e-4, 0.3

# A path or the content of an ONNX file -> an onnxruntime.InferenceSession on the CPU.
OpenModel = Callable[[Path | bytes], Any]


@contextmanager
def with_fused_attention(model: Path, cache: Path) -> Iterator[Path]:
    """Give the same model with fused attention, from the cache or made now.

    It is the model itself if there is nothing to fuse, the model is larger than 1 GB, or onnx is
    not installed.

    Args:
        model: an ONNX file.
        cache: directory to keep the other file in.

    Yields:
        The ONNX file to load, inside the ``with`` block.
    """
    files: list[Path] = []
    with suppress(ModelFileError):  # loading the model raises it
        if names_any(model, [b"Softmax"]):
            files = [model, *(model.parent / name for name in external_data(model))]
    if not files or sum(path.stat().st_size for path in files) > LARGEST or not find_spec("onnx"):
        yield model
        return
    ort = import_onnxruntime()

    def build(folder: Path) -> None:
        found = _fused(model, partial(open_plain_session, ort))
        (folder / (NOTHING if found is None else NAME)).write_bytes(found or b"")

    options = {"format": FORMAT, "onnxruntime": str(ort.__version__)}
    with ExitStack() as stack:
        made = model
        with suppress(ModelFileError):  # no room: it has been logged
            made = stack.enter_context(artifact(cache, "attention", files, options, build)) / NAME
        yield made if made.is_file() else model


def _fused(path: Path, open_model: OpenModel) -> bytes | None:
    """Return the content of the fused file; None if nothing is fused."""
    try:
        model = load_whole(path)
        graph = Graph(model.graph)
        kinds = {node.name: node.type.tensor_type.elem_type for node in model.graph.input}
        sites = find_sites(graph)
        if not sites or MASK not in kinds:
            return None
        sites = _evenly_masked(model, sites, path, open_model)
        if not sites:
            return None
        names = [name for site in sites for name in (site.query, site.result)]
        before = open_model(_with_outputs(model, names).SerializeToString())
        queries = [site.query for site in sites]
        short = before.run(queries, _texts(before, path, [8]))
        shapes = {name: array.shape for name, array in zip(queries, short, strict=True)}
        sites = [site for site in sites if len(shapes[site.query]) == 4]
        if not sites:
            return None
        # A batch of a model that quantises its activations holds one pair anyway.
        always_alone = names_any(path, DYNAMIC_QUANTIZATION)
        _replace(model, graph, sites, shapes, kinds[MASK], 0 if always_alone else LONG_PAIR)
        made: bytes = model.SerializeToString()
        results = [site.result for site in sites]
        after = open_model(_with_outputs(model, results).SerializeToString())
        difference = _largest_difference(before, after, results, path)
    except OSError:
        raise
    except Exception as error:  # onnx's and onnxruntime's errors share no base
        logger.info("The attention of %s is not fused: %s", path, error)
        return None
    if not difference <= (TOLERANCE_INT8 if is_quantized(path) else TOLERANCE):
        logger.info("The attention of %s is not fused: it differs by %g", path, difference)
        return None
    return made


def _evenly_masked(
    model: Any, sites: Sequence[Site], path: Path, open_model: OpenModel
) -> list[Site]:
    """Return the sites whose mask adds the same number everywhere in a text without padding."""
    from onnx.utils import Extractor

    masks = sorted({site.mask for site in sites if site.mask is not None})
    if not masks:
        return list(sites)
    inputs = [node.name for node in model.graph.input]
    # Without the layers, which the mask does not need: at the greatest width they take long.
    part = _with_outputs(model, masks)
    part = Extractor(part).extract_model(inputs, masks)
    session = open_model(part.SerializeToString())
    found = None
    for width in WIDTHS:
        try:
            found = session.run(masks, _texts(session, path, [width]))
            break
        except Exception:  # more than it has positions for
            continue
    if found is None:
        return []
    even = {None} | {
        name
        for name, mask in zip(masks, found, strict=True)
        if mask.dtype == np.float32 and mask.min() == mask.max()
    }
    return [site for site in sites if site.mask in even]


def _with_outputs(model: Any, names: Sequence[str]) -> Any:
    """Return a copy of a model whose only outputs are these tensors."""
    import onnx

    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    del copy.graph.output[:]
    copy.graph.output.extend(
        onnx.helper.make_tensor_value_info(name, FLOAT, None) for name in names
    )
    return copy


def _replace(
    model: Any,
    graph: Graph,
    sites: Sequence[Site],
    shapes: Mapping[str, tuple[int, ...]],
    mask_type: int,
    shorter: int,
) -> None:
    """Put the fused operator in the place of each site, and remove nodes that are not needed."""
    from onnx import helper

    nodes = [
        helper.make_node("ReduceMin", [MASK], ["fused_least"], keepdims=0),
        helper.make_node("Equal", ["fused_least", "fused_one"], ["fused_unpadded"]),
        helper.make_node("Shape", [MASK], ["fused_sizes"]),
        helper.make_node("Gather", ["fused_sizes", "fused_axis"], ["fused_width"]),
        helper.make_node("Greater", ["fused_width", "fused_shorter"], ["fused_long"]),
        helper.make_node("And", ["fused_unpadded", "fused_long"], ["fused_alone"]),
        helper.make_node("Cast", [MASK], ["fused_mask"], to=INT32),
    ]
    constants = {
        "fused_one": helper.make_tensor("fused_one", mask_type, [], [1]),
        "fused_axis": helper.make_tensor("fused_axis", INT64, [], [1]),
        "fused_shorter": helper.make_tensor("fused_shorter", INT64, [], [shorter]),
    }
    made = {}
    for number, site in enumerate(sites):
        _, heads, _, size = shapes[site.query]
        made[site.result] = _fused_nodes(graph, site, f"fused_{number}", heads, size, constants)
    for node in graph.nodes:
        nodes += made.get(next(iter(node.output), ""), [node])
    model.graph.initializer.extend(constants.values())
    keep_needed(model.graph, nodes)
    if all(opset.domain != DOMAIN for opset in model.opset_import):
        model.opset_import.append(helper.make_opsetid(DOMAIN, 1))


def _fused_nodes(
    graph: Graph, site: Site, own: str, heads: int, size: int, constants: dict[str, Any]
) -> list[Any]:
    """Return the nodes that replace a site; the operator takes (batch, tokens, heads x size)."""
    from onnx import helper

    def shape(*sizes: int) -> str:  # 0: unchanged
        name = f"fused_shape_{'_'.join(map(str, sizes))}"
        constants[name] = helper.make_tensor(name, INT64, [len(sizes)], sizes)
        return name

    nodes = []
    flat: list[str] = []
    for name, order in (
        (site.query, (0, 2, 1, 3)),
        (site.key, (0, 3, 1, 2)),
        (site.value, (0, 2, 1, 3)),
    ):
        label = f"{own}_{len(flat)}"
        tokens_first = f"{label}_tokens_first"
        before = graph.order(name)
        if before is not None and [before[1][axis] for axis in order] == [0, 1, 2, 3]:
            tokens_first = before[0]
        else:
            nodes.append(helper.make_node("Transpose", [name], [tokens_first], perm=order))
        nodes.append(
            helper.make_node("Reshape", [tokens_first, shape(0, 0, heads * size)], [label])
        )
        flat.append(label)

    def branch(name: str, *mask: str) -> Any:
        node = helper.make_node(
            "MultiHeadAttention",
            [*flat, *mask],
            [f"{own}_{name}"],
            f"{own}_{name}",
            domain=DOMAIN,
            num_heads=heads,
            scale=site.scale,
        )
        output = helper.make_tensor_value_info(f"{own}_{name}", FLOAT, None)
        return helper.make_graph([node], f"{own}_{name}", [], [output])

    return [
        *nodes,
        helper.make_node(
            "If",
            ["fused_alone"],
            [own],
            own,
            then_branch=branch("alone"),
            else_branch=branch("masked", "", "fused_mask"),
        ),
        helper.make_node("Reshape", [own, shape(0, 0, heads, size)], [f"{own}_apart"]),
        helper.make_node("Transpose", [f"{own}_apart"], [site.result], perm=(0, 2, 1, 3)),
    ]


def _largest_difference(before: Any, after: Any, results: Sequence[str], path: Path) -> float:
    """Return the largest relative difference of outputs, for one text and several, padded."""
    differences = []
    for lengths in ([9], [33], [24, 7], [-7, 24], [LONG_PAIR + 30]):
        texts = _texts(before, path, lengths)
        try:
            expected = before.run(list(results), texts)
        except Exception:  # more than it has positions for
            continue
        pairs = zip(expected, after.run(list(results), texts), strict=True)
        differences += [
            float(np.linalg.norm(one - other) / np.linalg.norm(one)) for one, other in pairs
        ]
    return max(differences, default=math.nan)


def _texts(session: Any, path: Path, lengths: Sequence[int]) -> Mapping[str, NDArray[Any]]:
    """Make inputs of texts of so many tokens; a negative number is padded on the left."""
    shape = (len(lengths), max(map(abs, lengths)))
    random = np.random.default_rng(0)
    ids = random.integers(5, 50, shape, dtype=np.int64)
    mask = np.zeros(shape, dtype=np.int64)
    for row, length in enumerate(lengths):
        mask[row, slice(length) if length > 0 else slice(length, None)] = 1
    types = (np.arange(shape[1]) >= min(map(abs, lengths)) // 2).astype(np.int64)
    inputs = session.get_inputs()
    states = {
        node.name: random.normal(size=(*shape, node.shape[-1])).astype(np.float32)
        for node in inputs
        if node.name == STATES
    }
    return {**Inputs(inputs, path)(ids, mask, np.broadcast_to(types, shape)), **states}
