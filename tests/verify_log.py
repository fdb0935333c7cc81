#!/usr/bin/env python3
"""Verifies a Plumbline audit log at rest (its last frame finished), written from docs/audit-format.md alone.

Usage: verify_log.py DIR VKEY. Prints `intact N records root R` and exits 0, or `TAMPERED at PLACE` and exits 1.
Needs Python 3.9 and the PyPI package `cryptography`, for Ed25519; everything else is the standard library.
"""
import base64, hashlib, json, pathlib, re, struct, sys
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

CRC = []
for n in range(256):
    for _ in range(8):
        n = n >> 1 ^ (0x82F63B78 if n & 1 else 0)
    CRC.append(n)

def crc32c(data, crc=0xFFFFFFFF):
    for byte in data:
        crc = crc >> 8 ^ CRC[(crc ^ byte) & 0xFF]
    return crc ^ 0xFFFFFFFF

def sha256(data):
    return hashlib.sha256(data).digest()

def push(subtrees, size, leaf):  # RFC 6962: one perfect subtree for each bit set in the size, largest first
    while size & 1:
        leaf, size = sha256(b"\1" + subtrees.pop() + leaf), size >> 1
    subtrees.append(leaf)

def root(subtrees):
    node = subtrees[-1] if subtrees else sha256(b"")
    for left in reversed(subtrees[:-1]):
        node = sha256(b"\1" + left + node)
    return base64.b64encode(node).decode()

def check_note(note, vkey, origin, size, subtrees):  # C2SP signed note with the three lines of a checkpoint
    name, key_id, key = vkey.split("+", 2)
    text, _, signatures = note.decode().rpartition("\n\n")
    line = re.search(rf"^— {re.escape(name)} (\S+)$", signatures, re.M)
    signature = base64.b64decode(line[1], validate=True)
    assert signature[:4].hex() == key_id, "signed with another key"
    Ed25519PublicKey.from_public_bytes(base64.b64decode(key)[1:]).verify(signature[4:], (text + "\n").encode())
    assert text.split("\n")[:3] == [origin, str(size), root(subtrees)], f"the checkpoint says {text!r}"

def verify(directory, vkey, place):
    place[:] = ["checkpoint", 0, 0]
    published, framed = (directory / "checkpoint").read_bytes(), False
    size, prev, subtrees = 0, "0" * 64, []
    for path in sorted(directory.glob("segment-*.plog")):
        data, at, kinds = path.read_bytes(), 8, []
        place[:] = [path.name, 0, size]
        assert data[:8] == b"PLUMBLN\x01" and path.name == f"segment-{size:020}.plog", "magic or name"
        while at < len(data):
            place[:] = [path.name, at, size]
            length, crc, flags = struct.unpack_from("<III", data, at)
            payload = data[at + 12 : at + 12 + length]
            assert len(payload) == length and crc32c(data[at : at + 4] + data[at + 8 : at + 12] + payload) == crc, "frame"
            assert (flags == 1) == (at == 8) and (len(kinds) != 1 or flags in (3, 4)), "order of frames"
            if flags == 1:
                lines = payload.decode().splitlines()
                origin = lines[1].removeprefix("origin ")
                subtree_lines = [f"subtree {base64.b64encode(tree).decode()}" for tree in subtrees]
                assert lines == ["plumbline audit segment v1", f"origin {origin}", f"key {vkey}", f"first_seq {size}",
                                 f"prev {prev}", f"root {root(subtrees)}", *subtree_lines], "segment header"
            elif flags == 2:
                record = json.loads(payload)
                assert record["metadata"]["sequence"] == size and record["metadata"]["log_name"] == origin, "sequence"
                assert record["unmapped"]["plumbline"]["prev"] == prev, "this record or the one before it was changed"
                leaf = sha256(b"\0" + payload)
                push(subtrees, size, leaf)
                size, prev = size + 1, leaf.hex()
            else:
                assert flags in (3, 4), "kind of frame"
                check_note(payload, vkey, origin, size, subtrees)
                framed = framed or payload == published
            kinds.append(flags)
            at += 12 + length
    assert framed, "the published checkpoint is not in the segments"
    return size, root(subtrees)

place = ["", 0, 0]
try:
    print("intact %d records root %s" % verify(pathlib.Path(sys.argv[1]), sys.argv[2], place))
except Exception as error:  # whatever hostile bytes provoke, the answer is the place
    print("TAMPERED at %s, offset %d, record %d: " % tuple(place) + f"{type(error).__name__} {error}")
    sys.exit(1)
