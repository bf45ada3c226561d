"""The checks of the reranker."""

from collections.abc import Iterator, Sequence

from qdrant_rerank.cli.doctor_finding import MANY, Finding

__all__ = [
    "check_model",
]


def check_model(
    provider: str,
    available: Sequence[str],
    read: int,
    truncated: int,
    *,
    quantised: bool = False,
) -> Iterator[Finding]:
    """Check where the reranker runs, and how much of the texts it reads.

    Args:
        provider: onnxruntime's execution provider that runs the model.
        available: the execution providers that this onnxruntime has.
        read: number of sampled texts.
        truncated: number of those that are longer than the model's max length.
        quantised: whether the model is int8, which is for a CPU.
    """
    gpu = [name for name in available if name.startswith(("CUDA", "Tensorrt"))]
    unused = bool(gpu) and provider not in gpu
    fix = ""
    if unused and quantised:
        fix = "It is int8, for a CPU. To use the GPU: device='cuda', precision='fp16'."
    elif unused:
        fix = "Pass cuda=True to see why the GPU is not used."
    seen = f"It runs on {provider}; this onnxruntime has {', '.join(available)}."
    yield Finding("model", unused and not quantised, seen, fix)
    if read:
        share = truncated / read
        yield Finding(
            "model",
            share >= MANY,
            f"{truncated:,} of {read:,} sampled texts ({share:.0%}) are longer than its max length "
            "and are cut.",
            "TextCrossEncoder(name, long_documents='windows') reads whole texts. Or add shorter "
            "passages."
            if truncated
            else "",
        )
