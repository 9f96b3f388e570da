#!/usr/bin/env python3
"""Make a GPU wheel small enough to carry: machine code for other architectures in its shared libraries becomes zeros.

slim_wheel.py IN.whl OUT.whl [--arch 90]   (xgboost-cu13 3.3.0: 59 MB to 17 MB for sm_90; on a GPU untried)
"""

from __future__ import annotations

import argparse
import base64
import hashlib
import struct
import zipfile
from pathlib import Path

MAGIC = struct.pack("<I", 0xBA55ED50)
"""Header of a fat binary: magic, version, its own size, size of the entries."""
ELF = 2
"""Kind of an entry that is machine code; others are PTX."""


def pruned(blob: bytes, arch: int) -> bytes:
    """A shared library whose device code for other architectures is zeros; its length stays."""
    data, place = bytearray(blob), 0
    while (start := data.find(MAGIC, place)) >= 0:
        version, header, size = struct.unpack_from("<HHQ", data, start + 4)
        if version != 1 or header > 64:
            place = start + 4
            continue
        at, end = start + header, start + header + size
        while at < end:
            kind, _, head, length, _, _, _, _, built = struct.unpack_from("<HHIQIIHHI", data, at)
            if head == 0:
                break
            if kind != ELF or built != arch:
                data[at + head : at + head + length] = bytes(length)
            at += head + length
        place = end
    return bytes(data)


def slim(source: Path, target: Path, arch: int) -> None:
    """Write a wheel with pruned libraries and a record that fits them."""
    record = []
    with zipfile.ZipFile(source) as given, zipfile.ZipFile(target, "w", zipfile.ZIP_DEFLATED, compresslevel=9) as made:
        name = next(entry for entry in given.namelist() if entry.endswith(".dist-info/RECORD"))
        for entry in given.namelist():
            if entry == name:
                continue
            blob = given.read(entry)
            if entry.endswith(".so") or ".so." in entry:
                blob = pruned(blob, arch)
            made.writestr(given.getinfo(entry), blob, zipfile.ZIP_DEFLATED)
            digest = base64.urlsafe_b64encode(hashlib.sha256(blob).digest()).rstrip(b"=").decode()
            record.append(f"{entry},sha256={digest},{len(blob)}")
        made.writestr(name, "\n".join([*record, f"{name},,"]) + "\n")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("source", type=Path)
    parser.add_argument("target", type=Path)
    parser.add_argument("--arch", type=int, default=90, help="compute capability to keep, times ten")
    asked = parser.parse_args()
    slim(asked.source, asked.target, asked.arch)
