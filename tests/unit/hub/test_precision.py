"""Which file has which precision."""

from qdrant_rerank.hub.precision import choose_file, precision_of


def test_the_usual_names_are_chosen_in_order():
    """As exporters publish them, at the top or under onnx/."""
    sentence_transformers = ["onnx/model.onnx", "onnx/model_O4.onnx", "onnx/model_quint8_avx2.onnx"]
    assert choose_file(sentence_transformers, "auto") == "onnx/model.onnx"
    assert choose_file(sentence_transformers, "int8") == "onnx/model_quint8_avx2.onnx"
    assert choose_file(sentence_transformers, "fp16") is None
    only_small = ["onnx/model_q4f16.onnx", "onnx/model_quantized.onnx", "model.onnx.txt"]
    assert choose_file(only_small, "auto") == "onnx/model_quantized.onnx"
    assert choose_file(only_small, "q4f16") == "onnx/model_q4f16.onnx"
    assert choose_file(only_small, "fp32") is None
    assert choose_file(["a/optimized.onnx", "config.json"], "auto") == "a/optimized.onnx"
    assert choose_file(["model_optimized.onnx"], "fp16") is None
    assert choose_file(["one.onnx", "other.onnx"], "auto") is None
    assert precision_of("onnx/model_quantized.onnx") == "int8"
    assert precision_of("onnx/anything.onnx") == "fp32"
