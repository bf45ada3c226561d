"""``models export``: PyTorch's models become directories with an ONNX file, or a reason.

The packages are those of the dependency group ``adapters``: ``make adapters`` runs these tests.
"""

import json
import os
import shutil
import subprocess
import sys
import time
import warnings

import pytest

from qdrant_rerank import TextCrossEncoder
from tests.conftest import MODELS
from tests.hub_server import hub_of
from tests.hub_worker import ENVIRONMENT

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    pytest.importorskip("torch", reason="torch is not installed: make adapters")
    pytest.importorskip("sentence_transformers", reason="make adapters")
pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")

PAIRS = [
    ("which bread rises?", "bread rises in the oven"),
    ("which bread rises?", "the sea"),
    ("iron", ""),
    ("river", "the river flows to the sea " * 20),
]
TOLERANCE = 1e-4


def command(*arguments, **environment):
    """The command line that exports, with its environment."""
    return {
        "args": [sys.executable, "-m", "qdrant_rerank", "models", "export", *map(str, arguments)],
        "env": os.environ | ENVIRONMENT | environment,
        "stdin": subprocess.DEVNULL,
        "stdout": subprocess.PIPE,
        "stderr": subprocess.PIPE,
        "text": True,
    }


def export(*arguments, **environment):
    """Exit code, stdout and stderr."""
    done = subprocess.run(**command(*arguments, **environment), timeout=600, check=False)
    return done.returncode, done.stdout, done.stderr


def saved(kind, folder, scale=1.0, **settings):
    """A model of random weights, with the tokenizer of the tiny BERT."""
    import torch
    import transformers

    names = {f"{part}_token": f"[{part.upper()}]" for part in ("unk", "pad", "cls", "sep", "mask")}
    tokenizer = transformers.PreTrainedTokenizerFast(
        tokenizer_file=str(MODELS / "tiny-bert" / "tokenizer.json"), model_max_length=64, **names
    )
    torch.manual_seed(0)
    maker = getattr(transformers, kind)
    sizes = {
        "vocab_size": len(tokenizer),
        "hidden_size": 32,
        "num_hidden_layers": 1,
        "num_attention_heads": 2,
        "intermediate_size": 32,
        "max_position_embeddings": 64,
        "initializer_range": 0.5,
        "pad_token_id": 0,
    }
    model = maker(maker.config_class(**sizes | settings))
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if "LayerNorm.weight" in name:
                weight.mul_(scale)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def classifier(tmp_path_factory):
    """A sequence classifier with one label."""
    folder = tmp_path_factory.mktemp("torch") / "classifier"
    return saved("BertForSequenceClassification", folder, num_labels=1)


def by_sentence_transformers(folder):
    """Scores of the pairs, by its own CrossEncoder."""
    from sentence_transformers import CrossEncoder

    encoder = CrossEncoder(str(folder), device="cpu")
    return [float(encoder.predict([pair]).reshape(-1)[0]) for pair in map(list, PAIRS)]


def ours(folder):
    """Scores of the pairs, with the activation that sentence-transformers applies."""
    encoder = TextCrossEncoder(folder, activation="sigmoid", engine="onnxruntime")
    return list(encoder.rerank_pairs(PAIRS))


def test_a_sequence_classifier(classifier, tmp_path):
    """Its scores are those of sentence-transformers; nothing is left beside the new directory."""
    code, out, err = export(classifier, tmp_path / "made")
    assert (code, err) == (0, "")
    assert out.startswith(f"{tmp_path / 'made'}: fp32, 0.3 MB. Scores of 20 pairs differ from")
    assert [path.name for path in tmp_path.iterdir()] == ["made"]
    assert ours(tmp_path / "made") == pytest.approx(
        by_sentence_transformers(classifier), abs=TOLERANCE
    )


@pytest.mark.parametrize(
    ("kind", "settings"),
    [
        ("XLMRobertaForSequenceClassification", {"max_position_embeddings": 70, "num_labels": 2}),
        ("ModernBertForSequenceClassification", {"num_labels": 3}),
    ],
)
def test_other_architectures_and_labels(tmp_path, kind, settings):
    """PyTorch's scores of 20 pairs are compared by the command itself, for each label."""
    folder = saved(kind, tmp_path / "torch", **settings)
    code, out, err = export(folder, tmp_path / "made", "--json")
    assert (code, err) == (0, "")
    assert json.loads(out)["largest_difference"] < TOLERANCE


@pytest.mark.parametrize(("precision", "file"), [("fp16", "model_fp16"), ("int8", "model_int8")])
def test_other_precisions(classifier, tmp_path, precision, file):
    """The directory has that one ONNX file."""
    code, out, _ = export(classifier, tmp_path / "made", "--precision", precision, "--json")
    assert code == 0
    found = json.loads(out)
    (onnx,) = (tmp_path / "made" / "onnx").iterdir()
    assert onnx.stem == file
    assert (found["pairs"], found["bytes"]) == (20, onnx.stat().st_size)
    assert found["largest_difference"] > 0
    assert TextCrossEncoder(tmp_path / "made").precision == precision


def test_a_modular_cross_encoder(tmp_path):
    """The transformer is exported, and its head comes along."""
    from sentence_transformers import CrossEncoder
    from sentence_transformers.base.modules import Dense, Transformer
    from sentence_transformers.sentence_transformer.modules import LayerNorm, Pooling
    from torch import nn

    saved("BertModel", tmp_path / "bert")
    parts = [
        Transformer(str(tmp_path / "bert"), transformer_task="feature-extraction"),
        Pooling(32, pooling_mode="mean"),
        Dense(32, 32, activation_function=nn.GELU()),
        LayerNorm(32),
        Dense(32, 1, activation_function=nn.Identity(), module_output_name="scores"),
    ]
    made = CrossEncoder(modules=parts, device="cpu")
    made.save(str(tmp_path / "torch"), create_model_card=False)
    code, _, err = export(tmp_path / "torch", tmp_path / "made")
    assert (code, err) == (0, "")
    found = TextCrossEncoder(tmp_path / "made", activation="auto", engine="onnxruntime")
    assert list(found.rerank_pairs(PAIRS)) == pytest.approx(
        by_sentence_transformers(tmp_path / "torch"), abs=TOLERANCE
    )


def test_a_hub_name(classifier, tmp_path):
    """Its weights for PyTorch are fetched, as safetensors alone; nothing else that is large."""
    folder = shutil.copytree(classifier, tmp_path / "torch")
    (folder / "openvino").mkdir()
    for name in ("pytorch_model.bin", "openvino/openvino_model.bin"):
        (folder / name).write_bytes(b"not for us")
    with hub_of({"acme/torch": folder}) as hub:
        home = {"HF_ENDPOINT": hub.url, "HF_HOME": str(tmp_path / "home")}
        code, _, err = export("acme/torch", tmp_path / "made", **home)
        assert code == 0, err
        assert [name for name in hub.fetched() if not name.endswith(".json")] == [
            "model.safetensors"
        ]
    assert ours(tmp_path / "made") == pytest.approx(
        by_sentence_transformers(classifier), abs=TOLERANCE
    )


@pytest.mark.parametrize("kind", ["decoder", "own code", "overflow"])
def test_what_cannot_be_exported_is_not_kept(tmp_path, kind):
    """With the reason: another task, code of a repository, or scores that are not PyTorch's."""
    source, precision = tmp_path / "torch", "fp32"
    if kind == "decoder":
        saved("BertLMHeadModel", source, is_decoder=True)
        said = "it is BertLMHeadModel; expected a sequence classifier"
    elif kind == "own code":
        saved("BertForSequenceClassification", source)
        config = json.loads((source / "config.json").read_text())
        names = {f"Auto{part}": "code.Own" for part in ("Config", "ModelForSequenceClassification")}
        config |= {"model_type": "own", "auto_map": names}
        (source / "config.json").write_text(json.dumps(config))
        (source / "code.py").write_text("raise SystemExit('it was executed')")
        said = "trust_remote_code"
    else:
        saved("BertForSequenceClassification", source, scale=1e6, num_labels=1)
        precision, said = "fp16", "fp16"
    code, _, err = export(source, tmp_path / "made", "--precision", precision)
    assert code == 2
    assert "Error: " in err
    assert said in err
    assert [path.name for path in tmp_path.iterdir()] == ["torch"]


def test_nothing_is_overwritten(classifier, tmp_path):
    """A directory that exists, even an empty one, is refused before anything is done."""
    (tmp_path / "made").mkdir()
    code, _, err = export(classifier, tmp_path / "made")
    assert code == 2
    assert "exists, and nothing is overwritten" in err
    assert list((tmp_path / "made").iterdir()) == []


def test_a_killed_export_leaves_no_directory_and_no_process(classifier, tmp_path):
    """Killed while PyTorch works: its process ends, too, and the name is still free."""
    started = subprocess.Popen(**command(classifier, tmp_path / "made"))
    while not any(tmp_path.iterdir()):
        assert started.poll() is None, started.communicate()
        time.sleep(0.05)
    started.kill()
    # The other process has the same stderr: it ends when both have ended.
    started.communicate(timeout=300)
    assert not (tmp_path / "made").exists()
    for left in tmp_path.iterdir():
        assert left.name.startswith(".made-")
        shutil.rmtree(left)
    assert export(classifier, tmp_path / "made")[0] == 0
