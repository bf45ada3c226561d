"""Progress bars: a widget in a notebook that can show one, else a line on stderr."""

from importlib.util import find_spec
from typing import TYPE_CHECKING

# tqdm.auto warns in a notebook without ipywidgets, though the bar on stderr is all right there.
if TYPE_CHECKING or find_spec("ipywidgets") is None:
    from tqdm import tqdm
else:
    from tqdm.auto import tqdm

__all__ = ["tqdm"]
