"""Keep the libraries quiet and without telemetry; the package imports this before any of them."""

from __future__ import annotations

import gc
import logging
import os
import warnings

# read by the libraries when they are imported, so they are set before that
for _name, _value in {
    "HF_HUB_DISABLE_TELEMETRY": "1",
    "HF_HUB_DISABLE_PROGRESS_BARS": "1",
    "TRL_EXPERIMENTAL_SILENCE": "1",
    "TOKENIZERS_PARALLELISM": "false",
    "BITSANDBYTES_NOWELCOME": "1",
}.items():
    os.environ.setdefault(_name, _value)

_TALKATIVE = ("transformers", "trl", "peft", "accelerate", "datasets", "bitsandbytes", "huggingface_hub", "torch")
for _name in _TALKATIVE:
    logging.getLogger(_name).setLevel(logging.ERROR)


def quiet() -> None:
    """Errors still pass; the libraries' progress bars and warnings don't. Safe to call again."""
    warnings.filterwarnings("ignore", module=rf"({'|'.join(_TALKATIVE)})(\.|$)")
    import datasets
    import huggingface_hub.constants
    import transformers

    huggingface_hub.constants.HF_HUB_DISABLE_TELEMETRY = True  # it may have been imported before us
    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    datasets.disable_progress_bars()
    datasets.logging.set_verbosity_error()
    if not gc.get_freeze_count():
        gc.freeze()  # half a million objects of the libraries, which every stage's trainer would look through
