"""What doctor says about the reranker: where it runs, and how much of the texts it reads."""

import pytest

from qdrant_rerank.cli.doctor_model import check_model

CPU, CUDA = "CPUExecutionProvider", "CUDAExecutionProvider"


def test_a_gpu_that_is_idle_and_texts_that_are_cut_are_wrong():
    """And a model on the CPU without a GPU is not."""
    assert _wrong(check_model(CPU, [CPU], 100, 4)) == []
    assert len(_wrong(check_model(CPU, [CUDA, CPU], 0, 0))) == 1
    assert _wrong(check_model(CUDA, [CUDA, CPU], 0, 0)) == []
    [(seen, fix)] = _wrong(check_model(CPU, [CPU], 100, 20))
    assert "20 of 100 sampled texts (20%)" in seen
    assert "windows" in fix


@pytest.mark.parametrize(("quantised", "wrong"), [(False, True), (True, False)])
def test_an_int8_model_belongs_on_the_cpu(quantised, wrong):
    """Another one that is not on the GPU is wrong; how to run it there is said all the same."""
    [found] = check_model(CPU, [CUDA, CPU], 0, 0, quantised=quantised)
    assert found.wrong == wrong
    assert ("precision='fp16'" in found.fix) == quantised
    [alone] = check_model(CPU, [CPU], 0, 0, quantised=quantised)
    assert (alone.wrong, alone.fix) == (False, "")


def _wrong(findings):
    return [(finding.seen, finding.fix) for finding in findings if finding.wrong]
