"""Components for other frameworks, one module per framework, which importing it needs.

``qdrant_rerank.integrations.langchain``, ``.llama_index``, ``.haystack``, ``.dspy`` and
``.mcp``; each has an extra of the same name in pip's spelling.
"""

from qdrant_rerank.utils import progress  # noqa: F401 - before qdrant_client imports tqdm.auto
