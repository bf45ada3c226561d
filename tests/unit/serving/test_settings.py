"""Settings and keys: what is refused before anything is served."""

import math

import pytest

from qdrant_rerank.errors import InvalidInputError
from qdrant_rerank.hub.specs import DEFAULT_RERANKER
from qdrant_rerank.serving.keys import Keys, read_keys
from qdrant_rerank.serving.settings import ServeSettings

KEY, OTHER = "0815-not-a-secret-of-anyone", "4711-nor-is-this-one-here"


def test_without_a_word_the_bundled_model_is_served_on_loopback():
    """It answers offline, and to this machine alone."""
    settings = ServeSettings()
    assert (settings.models, settings.host) == ((DEFAULT_RERANKER,), "127.0.0.1")
    settings.require_safe()


@pytest.mark.parametrize(
    ("wrong", "expected"),
    [
        ({"port": 70_000}, "port is 70000; expected 0 to 65535"),
        ({"port": "80"}, "port is '80'; expected a whole number"),
        ({"models": "a"}, "models is a str; expected a list of texts"),
        ({"models": 5}, "models is an int; expected a list of texts"),
        ({"models": []}, "models is empty"),
        ({"models": [" "]}, "none of them blank"),
        ({"timeout_s": 0}, "timeout_s is 0; expected seconds above 0"),
        ({"timeout_s": True}, "timeout_s is True"),
        ({"keep_alive_s": math.inf}, "keep_alive_s is inf; expected seconds above 0"),
        ({"max_documents": 0}, "max_documents is 0"),
        ({"queue_tokens": None}, "queue_tokens is None"),
        ({"host": None}, "host is a NoneType"),
        ({"insecure": 1}, "insecure is 1; expected true or false"),
        ({"keyfile": "k"}, "keyfile is given without certfile"),
        ({"activation": "identity"}, "activation is 'identity'"),
        ({"precision": "fp64"}, "precision is 'fp64'"),
    ],
)
def test_wrong_values_are_named(wrong, expected):
    """With what was expected."""
    with pytest.raises(InvalidInputError, match=expected):
        ServeSettings(**wrong)


def test_a_configuration_file_has_the_same_names(tmp_path):
    """A mistake in it names the file."""
    path = tmp_path / "serve.toml"
    path.write_text('models = ["a", "b=c"]\nport = 9000\ntimeout_s = 2.5\n')
    settings = ServeSettings.read(path)
    assert (settings.models, settings.port, settings.timeout_s) == (("a", "b=c"), 9000, 2.5)
    path.write_text("prot = 1")
    with pytest.raises(InvalidInputError, match=r"serve.toml has the unknown key 'prot'; .*port"):
        ServeSettings.read(path)
    path.write_text(f'api_keys = ["{KEY}"]')
    with pytest.raises(InvalidInputError, match="--api-key-file") as error:
        ServeSettings.read(path)
    assert KEY not in str(error.value)
    path.write_text("port = ")
    with pytest.raises(InvalidInputError, match="is not TOML"):
        ServeSettings.read(path)
    with pytest.raises(InvalidInputError, match="nowhere"):
        ServeSettings.read(tmp_path / "nowhere")


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "10.0.0.1", "example.invalid"])
def test_others_are_not_served_without_keys(host):
    """Unless the user says so."""
    with pytest.raises(InvalidInputError, match="--api-key-file FILE"):
        ServeSettings(host=host).require_safe()
    ServeSettings(host=host, insecure=True).require_safe()
    ServeSettings(host=host, api_keys=[KEY]).require_safe()


def test_the_settings_do_not_show_their_keys():
    """In a log or in a notebook."""
    assert KEY not in repr(ServeSettings(api_keys=[KEY]))


def test_every_key_of_a_file_opens(tmp_path):
    """Comments and blank lines are none."""
    path = tmp_path / "keys"
    path.write_text(f"# ours\n{KEY}\n\n  {OTHER}  \n")
    keys = Keys(read_keys(path))
    assert keys
    assert keys.allow(f"Bearer {KEY}".encode())
    assert keys.allow(f"bearer  {OTHER} ".encode())
    for wrong in (None, b"", KEY.encode(), b"Bearer", b"Bearer ", f"Basic {KEY}".encode()):
        assert not keys.allow(wrong)
    assert not keys.allow(f"Bearer {KEY[:-1]}".encode())
    assert not keys.allow(f"Bearer {KEY}\xff".encode("latin-1"))
    assert not Keys(())
    assert Keys(()).allow(None)


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (b"", "has no key"),
        (b"# only this\n", "has no key"),
        (b"short\n", "Line 1 of the key file"),
        (b"0123456789abcdef ghijk\n", "without blanks"),
        (b"\xff\xfe0123456789abcdef", "it is not UTF-8"),
        ("\n0123456789abcdefé\n".encode(), "Line 2"),
    ],
)
def test_a_key_file_that_is_none(tmp_path, content, expected):
    """The message has no key."""
    path = tmp_path / "keys"
    path.write_bytes(content)
    with pytest.raises(InvalidInputError, match=expected) as error:
        read_keys(path)
    assert "0123456789abcdef" not in str(error.value)
    with pytest.raises(InvalidInputError, match="cannot be read"):
        read_keys(tmp_path)
