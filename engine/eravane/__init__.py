"""eravane: a GPU-accelerated batch engine for the Numerai tournament."""

from __future__ import annotations

__version__ = "0.1.0"
