#!/usr/bin/env python3
"""Verifies a Plumbline audit log, written from docs/audit-format.md alone.

Usage: verify_log.py DIR VKEY [--at-rest] [--expect-at-least FILE]
Exits 0 intact, 1 tampered, 2 intact but incomplete (declared), 3 untrusted key, 4 no answer.
Needs Python 3.9 and the PyPI package `cryptography`, for Ed25519; everything else is the standard library.
"""
import argparse, base64, hashlib, json, pathlib, re, struct, sys
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

HEADER, RECORD, CHECKPOINT, CLOSING, PRUNED = 1, 2, 3, 4, 5
MAGIC = b"PLUMBLN\x02"
CRC = []
for n in range(256):
    for _ in range(8):
        n = n >> 1 ^ (0x82F63B78 if n & 1 else 0)
    CRC.append(n)


def crc32c(data):
    crc = 0xFFFFFFFF
    for byte in data:
        crc = crc >> 8 ^ CRC[(crc ^ byte) & 0xFF]
    return crc ^ 0xFFFFFFFF


def sha256(data):
    return hashlib.sha256(data).digest()


def b64(data):
    return base64.b64encode(data).decode()


class Finding(Exception):
    """Something is not as it was written. `place` is (file, offset, record) where it is not the current frame."""

    def __init__(self, why, place=None, code=1):
        super().__init__(why)
        self.place, self.code = place, code


def require(holds, why, **more):
    if not holds:
        raise Finding(why, **more)


class Tree:  # RFC 6962: one perfect subtree for each bit set in the size, the largest first
    def __init__(self, size=0, subtrees=()):
        self.size, self.subtrees = size, list(subtrees)

    def push(self, leaf):
        size = self.size
        while size & 1:
            leaf, size = sha256(b"\1" + self.subtrees.pop() + leaf), size >> 1
        self.subtrees.append(leaf)
        self.size += 1

    def root(self):
        node = self.subtrees[-1] if self.subtrees else sha256(b"")
        for left in reversed(self.subtrees[:-1]):
            node = sha256(b"\1" + left + node)
        return node


class Key:  # C2SP verifier key: <name>+<id>+<base64 of 0x01 and 32 bytes>
    def __init__(self, text):
        self.text = text
        self.name, self.id, data = text.split("+", 2)
        data = base64.b64decode(data, validate=True)
        require(len(data) == 33 and data[0] == 1, "not an Ed25519 key")
        require(sha256(self.name.encode() + b"\n" + data)[:4].hex() == self.id, "the key's id is not its own")
        self.public = Ed25519PublicKey.from_public_bytes(data[1:])


def note_text(note, key):
    """The text of a C2SP signed note if `key` signed it."""
    text, separator, lines = note.decode().rpartition("\n\n")
    require(separator and lines.endswith("\n"), "not a signed note")
    text += "\n"
    require(not re.search(r"[\x00-\x09\x0b-\x1f]", note.decode()), "a control character")
    signed = False
    for line in lines[:-1].split("\n"):
        match = re.fullmatch(r"— ([^\s+]+) (\S+)", line)
        require(match, f"not a signature line: {line!r}")
        signature = base64.b64decode(match[2], validate=True)
        require(len(signature) > 4, "a signature without bytes")
        if match[1] == key.name and signature[:4].hex() == key.id:
            try:
                key.public.verify(signature[4:], text.encode())
            except InvalidSignature:
                raise Finding(f"the signature by {key.text} does not fit") from None
            signed = True
    require(signed, f"no signature by {key.text}")
    return text


def checkpoint(note, key):
    """Origin, size and root that a note signed by `key` promises."""
    lines = note_text(note, key)[:-1].split("\n")
    require(len(lines) >= 3 and lines[0] and "" not in lines[3:], "not a checkpoint")
    require(re.fullmatch(r"0|[1-9][0-9]*", lines[1]), "not a tree size")
    root = base64.b64decode(lines[2], validate=True)
    require(len(root) == 32, "not a root")
    return lines[0], int(lines[1]), root


VECTOR_KEY = "example.com/foo+530d903a+AekyeRrm56hApGFkyQR4ZCbV54Id2LKaANYcrnKv3U2k"
VECTOR_NOTE = ("This is an example message.\n\n— example.com/foo Uw2QOkn8srV1yJGh2VYRlL1Tnagv1YEq6TfXppzi2ONncAlTgK7Ztg1ERYNZ"
               "XsYjOBH3mFXmRKuwHjG1Yu72IneyaQM=\n").encode()


def check_the_specifications_own_vector():
    assert note_text(VECTOR_NOTE, Key(VECTOR_KEY)) == "This is an example message.\n"
    try:
        note_text(VECTOR_NOTE.replace(b"example message", b"exemple message"), Key(VECTOR_KEY))
    except Finding:
        return
    raise AssertionError("a changed note verifies")


class Verifier:
    def __init__(self, key):
        self.key, self.origin = key, None
        self.tree, self.prev, self.epoch = Tree(), "0" * 64, None  # epoch: (number, max_unsigned, Key)
        self.signed = None  # records under the last checkpoint; None until a segment's opening checkpoint
        self.next = ("opening",)  # or ("any",) or ("force", epoch, who must sign)
        self.pins = []  # [size, root, note that must be in the segments or None, name]
        self.gaps, self.torn = 0, 0
        self.pruned, self.declared = [], []
        self.kept = {}  # first record of a segment: [first after it, [leaf hashes that outlive pruning], place]
        self.segment_start = 0
        self.place = ("", 0, 0)

    def segment(self, path, length, is_last):
        name = path.name
        data = path.read_bytes()[:length]
        self.place = (name, 0, self.tree.size)
        require(data[:8] == MAGIC, f"magic bytes {data[:8]!r}")
        at, number = 8, 0
        self.signed, last_record = None, None
        self.segment_start = self.tree.size
        self.kept[self.segment_start] = [None, [], (name, 8, self.tree.size)]
        while at < len(data):
            self.place = (name, at, self.tree.size)
            try:
                frame = self.frame(data, at, is_last)
            except Finding:
                # Behind what was published, at the end of the log, it is what a writer was at when it ended.
                if not is_last or self.signed is None or any(pin[2] for pin in self.pins):
                    raise
                frame = None
            if frame is None:
                self.torn = len(data) - at
                break
            kind, payload, size = frame
            require((kind == HEADER) == (number == 0), "a header where none belongs, or none where one does")
            if kind == HEADER:
                self.header(payload, int(name[8:28]))
            elif self.signed is None and kind in (RECORD, PRUNED):
                raise Finding("no checkpoint after the header")
            elif kind == RECORD:
                self.record(payload, last_record)
                last_record = self.place
            elif kind == PRUNED:
                self.pruned_hashes(payload)
            else:
                self.checkpoint(payload, kind == CLOSING)
            at, number = at + size, number + 1
        self.place = (name, at, self.tree.size)
        self.kept[self.segment_start][0] = self.tree.size
        require(number > 0, "no header")
        if not is_last:
            require(self.signed == self.tree.size and self.next == ("any",), "a segment ends without a checkpoint")

    def frame(self, data, at, is_last):
        """Kind, payload and size of the frame at `at`; None for an unfinished one at the end of the log."""
        rest = len(data) - at
        if rest < 12 or not any(data[at:]):
            require(is_last, "an unfinished frame before another segment")
            return None
        length, crc, flags = struct.unpack_from("<III", data, at)
        require(1 <= length <= 65535, f"a frame of {length} bytes")
        require(flags in (HEADER, RECORD, CHECKPOINT, CLOSING, PRUNED), f"a frame of kind {flags:#x}")
        if 12 + length > rest:
            require(is_last, "an unfinished frame before another segment")
            return None
        payload = data[at + 12 : at + 12 + length]
        require(crc32c(data[at : at + 4] + data[at + 8 : at + 12] + payload) == crc, "the CRC does not fit")
        return flags, payload, 12 + length

    def header(self, payload, in_name):
        text = payload.decode()
        lines = text.split("\n")
        require(lines[0] == "plumbline audit segment v2", "not a segment header")
        fields = [line.partition(" ")[::2] for line in lines[1:-1]]
        names = [field for field, _ in fields]
        subtrees = [base64.b64decode(value, validate=True) for field, value in fields if field == "subtree"]
        require(names == ["origin", "key", "epoch", "first_seq", "prev", "root"] + ["subtree"] * len(subtrees), "header")
        origin, key, epoch, first_seq, prev, root = (value for _, value in fields[:6])
        require(key == self.key.text, f"signed by {key}", code=3)
        require(re.fullmatch(r"0|[1-9][0-9]*", first_seq) and int(first_seq) == in_name, "not the number in the name")
        require(self.key.name == origin, "the key has another name than the log")
        if self.origin is None:
            self.origin = origin
        require(origin == self.origin, "a segment of another log")
        require(int(first_seq) == self.tree.size, f"record {first_seq} does not follow")
        require(subtrees == self.tree.subtrees and root == b64(self.tree.root()), "another tree than before")
        require(prev == self.prev, "another record before than there was")
        in_force = "none" if self.epoch is None else f"{self.epoch[0]} {self.epoch[1]} {self.epoch[2].text}"
        require(epoch == in_force, "another epoch than is in force")
        require(text.endswith("\n"), "header")
        self.check_pins()

    def record(self, payload, last_record):
        size, quoted = self.tree.size, json.dumps(self.origin, ensure_ascii=False)[1:-1]
        begins = f',"metadata":{{"sequence":{size},"log_name":"{quoted}","uid":"{quoted}/{size}"'.encode()
        match = re.match(rb'\{"class_uid":([0-9]{1,20})', payload)
        in_place = match and payload[match.end() :].startswith(begins)
        in_place = in_place and payload[match.end() + len(begins) :][:1] in (b",", b"}")
        ends = payload.endswith(b'"prev":"' + self.prev.encode() + b'"}}}')
        if not in_place or not ends:
            # Which of the two is at fault decides where it is said to be.
            place = None
            try:
                parsed = json.loads(payload)
                if parsed["metadata"]["sequence"] == size and parsed["unmapped"]["plumbline"]["prev"] != self.prev:
                    place = last_record
            except (ValueError, KeyError, TypeError):
                pass
            raise Finding("the record does not stand in its place, or the one before was changed", place=place)
        statement = None
        if int(match[1]) == 1008:
            own = json.loads(payload)["unmapped"]["plumbline"]
            statement = own.get("statement")
            self.gaps += own.get("kind") == "loss" or (statement is not None and "recovered" in statement)
        self.next = self.follow(statement)
        if statement and "pruned" in statement:
            self.declared.append(statement["pruned"])
        leaf = sha256(b"\0" + payload)
        if int(match[1]) in (1008, 6002):
            self.kept[self.segment_start][1].append(leaf)
        self.push(leaf)
        if statement is None and self.next == ("any",) and self.tree.size - self.signed > self.epoch[1]:
            raise Finding("too many records without a checkpoint")

    def follow(self, statement):
        """What must come after a record with this statement."""
        if statement and "recovered" in statement:
            return ("opening",)
        require(self.next[0] != "force", "an epoch was opened, and no checkpoint follows")
        epoch = statement.get("epoch") if statement else None
        if self.next == ("any",) and epoch is None:
            return ("any",)
        require(epoch, "an epoch must be opened here")
        number = 0 if self.epoch is None else self.epoch[0] + 1
        opener = "node" if self.next == ("opening",) else "epoch"
        require(epoch["number"] == number and epoch["opened_by"] == opener, "not the epoch that is next")
        key = Key(epoch["key"])
        require(key.name == f"{self.origin}/e{number}", "the epoch's key has another name")
        return ("force", (number, epoch["max_unsigned"], key), key if opener == "node" else self.epoch[2])

    def pruned_hashes(self, payload):
        require(len(payload) % 32 == 0, "not whole hashes")
        require(self.next == ("any",), "pruned records where an epoch must be opened")
        self.pruned.append((self.tree.size, self.tree.size + len(payload) // 32, self.place))
        for at in range(0, len(payload), 32):
            self.push(payload[at : at + 32])

    def push(self, leaf):
        self.tree.push(leaf)
        self.prev = leaf.hex()
        self.check_pins()

    def checkpoint(self, note, closing):
        promised = checkpoint(note, self.key)
        require(promised == (self.origin, self.tree.size, self.tree.root()), f"the checkpoint promises {promised}")
        require(self.next != ("opening",) or self.signed is None, "an epoch must be opened here")
        signer = self.next[2] if self.next[0] == "force" else self.epoch and self.epoch[2]
        if signer:
            note_text(note, signer)
        if self.next[0] == "force":
            self.epoch, self.next = self.next[1], ("any",)
        if closing:
            self.next = ("opening",)
        self.signed = self.tree.size
        for pin in self.pins:
            pin[2] = None if pin[2] == note else pin[2]

    def check_pins(self):
        for size, root, _, name in self.pins:
            require(size != self.tree.size or root == self.tree.root(), f"{name} is of another history")


def verify(directory, vkey, at_rest, expected, verifier):
    published = directory / "checkpoint"
    note = published.read_bytes() if published.exists() else None
    paths = sorted(path for path in directory.iterdir() if re.fullmatch(r"segment-[0-9]{20}\.plog", path.name))
    lengths = [path.stat().st_size for path in paths]
    if not paths:
        verifier.place = ("checkpoint", 0, 0)
        require(note is None, "a checkpoint, and no records")
        raise FileNotFoundError("no audit log")
    # Only a log whose key is trusted can have a checkpoint that is wrong.
    probe = Verifier(verifier.key)
    try:
        probe.segment(paths[0], lengths[0], len(paths) == 1)
    except Finding as finding:
        if finding.code == 3 or probe.place[1] <= 8:
            verifier.place = probe.place
            raise
    for name, text in (("the expected checkpoint", expected), ("the file checkpoint", note)):
        if text is None:
            continue
        verifier.place = ("checkpoint", 0, 0)
        origin, size, root = checkpoint(text, verifier.key)
        require(origin == probe.origin, f"{name} is of another log", place=(paths[0].name, 8, 0))
        verifier.pins.append([size, root, text if text == note and name == "the file checkpoint" else None, name])
    for index, (path, length) in enumerate(zip(paths, lengths)):
        verifier.segment(path, length, index == len(paths) - 1)
    for size, _, unmet, name in verifier.pins:
        require(size <= verifier.tree.size, f"{name} signs {size} records: the log was cut or rolled back")
        require(unmet is None, f"{name} is not in the segments")
    tail = verifier.tree.size - (verifier.signed if verifier.signed is not None else verifier.tree.size)
    require(not at_rest or tail + verifier.torn == 0, "records after the last checkpoint of a log at rest")
    for pruning in verifier.declared:
        end, leaves, place = verifier.kept.get(pruning["from"], (0, [], ("", 0, pruning["from"])))
        fits = end == pruning["to"] and len(leaves) == pruning["kept"]
        fits = fits and sha256(b"".join(leaves)).hex() == pruning["kept_sha256"]
        require(fits, "records that outlive pruning are missing or others", place=place)
    for start, end, place in verifier.pruned:
        while True:
            covering = [one["to"] for one in verifier.declared if one["from"] <= start < one["to"]]
            if start >= end or not covering:
                break
            start = max(covering)
        require(start >= end, "pruned records that no record declares", place=place)
    verifier.place = ("checkpoint", 0, 0)
    require(note is not None or verifier.tree.size == 0, "the file checkpoint is missing")


def main():
    parser = argparse.ArgumentParser()
    parser.error = lambda message: (print(f"no answer: {message}", file=sys.stderr), sys.exit(4))
    parser.add_argument("dir", type=pathlib.Path)
    parser.add_argument("vkey")
    parser.add_argument("--at-rest", action="store_true")
    parser.add_argument("--expect-at-least", type=pathlib.Path)
    arguments = parser.parse_args()
    check_the_specifications_own_vector()
    try:
        verifier = Verifier(Key(arguments.vkey))
        expected = arguments.expect_at_least.read_bytes() if arguments.expect_at_least else None
    except Exception as error:
        print(f"no answer: {error!a}")
        return 4
    try:
        verify(arguments.dir, arguments.vkey, arguments.at_rest, expected, verifier)
    except OSError as error:
        print(f"no answer: {error}")
        return 4
    except Exception as error:  # whatever hostile bytes provoke, the answer is the place
        place = getattr(error, "place", None) or verifier.place
        code = getattr(error, "code", 1)
        word = "UNTRUSTED KEY" if code == 3 else "TAMPERED"
        # Text from the log must not drive the terminal.
        print("%s at %s, offset %d, record seq %d: " % (word, *place) + f"{type(error).__name__} {str(error)!a}")
        return code
    word = "incomplete" if verifier.gaps else "intact"
    print(f"{word} {verifier.tree.size} records root {b64(verifier.tree.root())}")
    return 2 if verifier.gaps else 0


if __name__ == "__main__":
    sys.exit(main())
