# The reranking server with its bundled model; it needs no network when it runs.
#   docker build -t qdrant-rerank .
#   docker run --rm -p 127.0.0.1:8080:8080 -v ./keys:/run/secrets/keys:ro qdrant-rerank
FROM python:3.13-slim AS build
WORKDIR /source
COPY pyproject.toml constraints.txt README.md LICENSE CHANGELOG.md ./
COPY qdrant_rerank qdrant_rerank
RUN python -m venv /server \
 && /server/bin/pip install --no-cache-dir --constraint constraints.txt '.[cpu,serve]'

FROM python:3.13-slim
RUN useradd --system --uid 10001 --no-create-home --home-dir /tmp server
COPY --from=build /server /server
ENV PATH=/server/bin:$PATH \
    PYTHONUNBUFFERED=1 \
    PYTHONDONTWRITEBYTECODE=1 \
    HF_HUB_OFFLINE=1 \
    QDRANT_RERANK_CACHE=/tmp/qdrant-rerank
USER server
EXPOSE 8080
STOPSIGNAL SIGTERM
# With TLS or another port: -e HEALTH_URL=https://127.0.0.1:9000/health
ENV HEALTH_URL=http://127.0.0.1:8080/health
HEALTHCHECK --interval=5s --timeout=3s --start-period=30s --retries=3 \
    CMD ["python", "-c", "import os, ssl, urllib.request as u; u.urlopen(os.environ['HEALTH_URL'], timeout=2, context=ssl._create_unverified_context())"]
ENTRYPOINT ["qdrant-rerank", "serve", "--host", "0.0.0.0", "--port", "8080"]
# Without keys the server does not start where others can connect: mount a file with them, or pass
# --insecure instead.
CMD ["--api-key-file", "/run/secrets/keys"]
