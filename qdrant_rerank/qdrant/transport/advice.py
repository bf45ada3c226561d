"""What a caller can do about a refusal or an unreachable server, from the client's own words.

No I/O but the environment's, where proxies are named.
"""

import re
import ssl
from typing import Any
from urllib.parse import urlsplit, urlunsplit
from urllib.request import getproxies, proxy_bypass

__all__ = ["full_url", "missing_replicas", "strict_mode", "unreachable"]

START = "Is Qdrant running there? To start one: docker run -p 6333:6333 -p 6334:6334 qdrant/qdrant."
# Names that Qdrant's strict mode has for what it limits, and what is to be lowered here.
STRICT = {
    "limit": "candidates, and SearchOptions(dense_candidates=..., sparse_candidates=...)",
    "timeout": "SearchOptions(timeout_s=...) or deadline_s",
    "hnsw_ef": "hnsw_ef of SearchOptions(search_params=...)",
    "oversampling": "the oversampling of SearchOptions(search_params=...)",
    "upsert limit": "add(batch_size=...)",
    "search batch size": "the number of queries of search_batch",
}
STRICT_LIMIT = re.compile(r'Limit exceeded (\S+) > (\S+) for "([^"]+)"')
STRICT_INDEX = re.compile(r'Index required but not found for "([^"]+)"')
REPLICAS = re.compile(r"(\d+) of (\d+) read operations failed")
UNAVAILABLE = "code: 'The service is currently unavailable'"  # of another node of a cluster


def strict_mode(said: str) -> str | None:
    """Return what strict mode forbids, and what to change; None for any other refusal.

    Args:
        said: the server's words.
    """
    if limit := STRICT_LIMIT.search(said):
        asked, allowed, name = limit.groups()
        ours = STRICT.get(name, f"what Qdrant calls {name!r}, such as in the filter")
        return (
            f"the collection's strict mode allows {allowed} at most, and {asked} was asked. Lower "
            f"{ours}"
        )
    if "Exact search disabled" in said:
        return (
            "the collection's strict mode allows no exact search. Leave exact=True out of "
            "SearchOptions(search_params=...)"
        )
    if index := STRICT_INDEX.search(said):
        return (
            f"the collection's strict mode allows no filter on {index[1]!r}, which has no index. "
            f"Make one: CollectionSettings(payload_indexes={{{index[1]!r}: ...}}), or "
            "client.create_payload_index"
        )
    if "larger than rate limiter capacity" in said:
        return (
            "one request is more than the collection's strict mode allows per minute. Search for "
            "fewer queries at a time, or by fewer branches"
        )
    return None


def missing_replicas(said: str, asked: Any) -> str | None:
    """Return how many replicas did not answer, and what to change; None for any other failure.

    Args:
        said: the server's words.
        asked: the ``consistency`` of the search, or None.
    """
    short = REPLICAS.search(said)
    if short is None and UNAVAILABLE not in said:
        return None
    seen = "a node that is needed did not answer"
    if short:
        seen = f"{short[1]} of {short[2]} replicas that were asked did not answer"
    if asked is None:
        return f"{seen}. Start the missing nodes, or pass SearchOptions(retries=...)"
    return (
        f"consistency={asked!r} was asked, and {seen}. Start the missing nodes, lower "
        "SearchOptions(consistency=...), or pass retries="
    )


def full_url(url: str, port: int | None) -> str:
    """Return a URL with the port that qdrant-client adds where there is none."""
    parts = urlsplit(url if "//" in url else f"//{url}")
    try:
        missing = parts.port is None and bool(parts.hostname)
    except ValueError:
        return url
    if not missing or port is None:
        return url
    full = urlunsplit(parts._replace(netloc=f"{parts.netloc}:{port}"))
    return full if "//" in url else full.removeprefix("//")


def unreachable(source: BaseException, url: str, port: int | None) -> str:
    """Return what to do about a server that cannot be reached.

    Args:
        source: what httpx or gRPC says.
        url: the URL as given.
        port: the port that is added where the URL has none.
    """
    said = str(source)
    if "CERTIFICATE_VERIFY_FAILED" in said:
        return (
            "Its certificate is not trusted here. Set SSL_CERT_FILE to the file of the authority "
            "that signed it, or pass QdrantClient(verify='that.pem')."
        )
    if "SSL" in said or isinstance(source.__cause__, ssl.SSLError):
        return "It does not speak TLS at this port. Is the URL http://, or another port?"
    if "illegal" in said:  # request line, status line
        return "It does not speak HTTP at this port. Is the URL https://, or another port?"
    advice = START
    if full_url(url, port) != url:
        advice = (
            f"The URL has no port, so {port} was tried; write it, such as :443 for https. {START}"
        )
    parts = urlsplit(url)
    proxy = getproxies().get(parts.scheme)
    if proxy and parts.hostname and not proxy_bypass(parts.hostname):
        advice = (
            f"It was asked through the proxy {proxy}, of the environment; NO_PROXY="
            f"{parts.hostname} goes around it. {advice}"
        )
    return advice
