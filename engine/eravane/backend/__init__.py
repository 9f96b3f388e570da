"""The one seam between CPU and GPU: everything that differs by device, chosen once and never silently."""

from __future__ import annotations

from eravane.backend.choice import choose, why_no_gpu
from eravane.backend.protocol import Backend

__all__ = ["Backend", "choose", "why_no_gpu"]
