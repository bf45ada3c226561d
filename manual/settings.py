"""Environment variables, settings of the server, and its metrics, as tables."""

import ast
import inspect
import re
from dataclasses import MISSING, fields
from pathlib import Path

from qdrant_rerank import serving
from qdrant_rerank.serving.settings import ServeSettings

__all__ = ["VARIABLES", "metrics_page", "settings_page"]

#: Environment variable -> what it does.
VARIABLES = {
    "QDRANT_URL": "URL of the Qdrant that is searched if none is given",
    "QDRANT_API_KEY": "key of that server; a key in `client=` counts first",
    "QDRANT_PATH": "folder of an embedded Qdrant, if there is no URL",
    "QDRANT_RERANK_CACHE": "folder of downloads and converted files, instead of the hub's cache",
    "HF_HOME": "folder of huggingface_hub",
    "HF_HUB_CACHE": "folder of its downloads",
    "HF_HUB_OFFLINE": "`1`: no request to the hub; a file that is missing is an error",
    "HF_TOKEN": "key for private models of the hub",
    "HUGGING_FACE_HUB_TOKEN": "older name of `HF_TOKEN`; never shown",
    "HF_ENDPOINT": "URL of a mirror of the hub",
    "HF_HUB_ETAG_TIMEOUT": "seconds for a question to the hub",
    "HF_HUB_DOWNLOAD_TIMEOUT": "seconds without progress of a download",
    "FASTEMBED_CACHE_PATH": "fastembed's cache, which is read too",
    "OPENAI_BASE_URL": "URL of `OpenAIEmbedder`, if none is given",
    "OPENAI_API_KEY": "its key, if none is given",
    "ORT_DISABLE_TELEMETRY": "`1` is set unless it is set: ONNX Runtime sends no telemetry",
    "CUDA_VISIBLE_DEVICES": "GPUs that a process sees; `doctor` names it when none is left",
    "SSL_CERT_FILE": "certificates of authorities, for HTTPS with a certificate of your own",
}


def settings_page() -> str:
    """Return Markdown: one table of environment variables, one of the server's settings."""
    parts = [
        "# Settings",
        "Arguments count before environment variables. The options of a search are those of "
        "[SearchOptions](search.md#qdrant_rerank.SearchOptions).",
        "## Environment variables",
        "| variable | what it does |\n|---|---|\n"
        + "\n".join(f"| `{name}` | {about} |" for name, about in VARIABLES.items()),
        "## Settings of the server",
        "Keys of the file of `qdrant-rerank serve --config FILE` (TOML), and arguments of "
        "[ServeSettings](serving.md#qdrant_rerank.serving.ServeSettings). Keys of clients have a "
        "file of their own: `--api-key-file`.",
        "| setting | default | what it does |\n|---|---|---|\n" + "\n".join(_settings()),
    ]
    return "\n\n".join(parts) + "\n"


def _settings() -> list[str]:
    told = dict(
        re.findall(
            r"^    (\w+): (.*?)(?=^    \w+: |\Z)",
            inspect.getdoc(ServeSettings).partition("Attributes:\n")[2].partition("\n\n")[0] + "\n",
            re.DOTALL | re.MULTILINE,
        )
    )
    rows = []
    for field in fields(ServeSettings):
        default = field.default if field.default is not MISSING else "()"
        about = re.sub(r":class:`~?([\w.]+)`", r"`\1`", " ".join(told[field.name].split()))
        rows.append(f"| `{field.name}` | `{default!r}` | {about.replace('|', ' or ')} |")
    return rows


def metrics_page() -> str:
    """Return Markdown: the metrics of ``GET /metrics``, as the code registers them."""
    rows = []
    for path in sorted(Path(serving.__file__).parent.glob("*.py")):
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            if not (isinstance(node, ast.Call) and len(node.args) >= 2):
                continue
            kind = getattr(node.func, "id", getattr(node.func, "attr", ""))
            if kind in {"counter", "histogram", "watch"}:
                texts = [a.value for a in node.args if isinstance(a, ast.Constant)]
                if len(texts) < 2:
                    continue
                name, about, *labels = texts
                kind = "gauge" if kind == "watch" else kind
                rows.append(
                    f"| `qdrant_rerank_{name}{'_total' if kind == 'counter' else ''}` | {kind} "
                    f"| {', '.join(f'`{label}`' for label in labels)} | {about} |"
                )
    return (
        "# Metrics of the server\n\n`GET /metrics` of [the server](../serve.md), as Prometheus "
        "reads them.\n\n"
        "| metric | kind | labels | |\n|---|---|---|---|\n" + "\n".join(sorted(rows)) + "\n"
    )
