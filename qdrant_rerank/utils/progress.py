"""Progress bars: a widget in a notebook that can show one, else a line on stderr.

Importing ``tqdm.auto`` in a notebook without ipywidgets warns once, though the line on stderr does
well there. It is imported here without the warning, before huggingface_hub and fastembed import it.
"""

import warnings

from tqdm import TqdmWarning

with warnings.catch_warnings():
    warnings.simplefilter("ignore", TqdmWarning)
    from tqdm.auto import tqdm

__all__ = ["tqdm"]
