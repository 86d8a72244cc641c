"""Environment variables that the kit or its libraries read: nonsense in them is named before anything else happens."""

from __future__ import annotations

import os

from repro.errors import BadInput

# what the hub's client takes for "on"; anything else is off there, hence here
ON = ("1", "on", "yes", "true")
OFF = ("", "0", "off", "no", "false")
SWITCHES = ("HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE", "HF_DATASETS_OFFLINE")
NUMBERS = ("OMP_NUM_THREADS", "HF_HUB_DOWNLOAD_TIMEOUT", "HF_HUB_ETAG_TIMEOUT")  # libraries fail to load on other words
ADDRESSES = ("HF_ENDPOINT",)


def faults() -> list[str]:
    """A line for each variable that holds what nobody can follow; an address may hold a password: not shown."""
    found = []
    for name in (*SWITCHES, *NUMBERS, *ADDRESSES):
        value = os.environ.get(name, "").strip()
        if name in SWITCHES and value.lower() not in (*ON, *OFF):
            found.append(f"{name}={value[:20]!r}: expected 1 or 0; mend it, or: unset {name}")
        elif name in NUMBERS and value and not (value.isascii() and value.isdigit() and 0 < int(value[:9]) < 10**6):
            found.append(f"{name}={value[:20]!r}: expected a whole number above 0; mend it, or: unset {name}")
        elif name in ADDRESSES and value and not value.startswith(("http://", "https://")):
            found.append(f"{name}: expected an address with http:// or https://; mend it, or: unset {name}")
    return found


def check() -> None:
    """Raises BadInput with every fault."""
    if found := faults():
        raise BadInput(found)


def offline() -> bool:
    """Whether HF_HUB_OFFLINE (or --offline, which sets it) forbids to ask the hub."""
    return os.environ.get("HF_HUB_OFFLINE", "").strip().lower() in ON
