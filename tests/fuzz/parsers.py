"""Targets that parse: records, the agent's messages, ELF headers and policies, each made right and then spoilt."""

import os
import struct
import tempfile
from collections.abc import Callable
from functools import cache
from pathlib import Path

from ktls import elf
from ktls.agent import messages as m
from ktls.ciphers import SUITES, CipherSuite, Version
from ktls.errors import AgentProtocolError, PolicyError, ProtocolError, Uncovered
from ktls.records import HEADER_LENGTH, MAX_CIPHERTEXT, ContentType, RecordHeader, RecordProtection, RecordReader
from ktls.session import RxKeys
from policy.lint import warnings
from policy.load import parse
from tests.fuzz.script import Script

ROOT = Path(__file__).resolve().parents[2]
LONGEST = HEADER_LENGTH + MAX_CIPHERTEXT[Version.TLS12]


# --- records ---------------------------------------------------------------------------------------------------------


def records(data: bytes) -> None:
    """A stream gives the same records however it is cut, and nothing but a ProtocolError; each opens or is refused."""
    script = Script(data)
    suite = script.pick(SUITES)
    stream = b"".join(_record(script) for _ in range(script.below(6))) + script.some(40)
    whole = _read(stream, lambda: len(stream) or 1)
    assert _read(stream, lambda: script.below(40) + 1) == whole
    protection = RecordProtection(_keys(suite))
    for record in whole[0]:
        try:
            protection.open(record)
        except ProtocolError:
            continue
        raise AssertionError("a record that nobody sealed has opened")


def _record(script: Script) -> bytes:
    body = script.some(300)
    length = script.pick([len(body), len(body), len(body), script.below(65536)])
    kind = script.pick([*ContentType, script.byte()])
    version = script.pick([0x0303, 0x0301, 0x0303, script.below(65536)])
    return struct.pack(">BHH", kind, version, length) + body


def _read(stream: bytes, size: Callable[[], int]) -> tuple[list[bytes], type[ProtocolError] | None]:
    reader, found = RecordReader(), []
    try:
        while stream:
            count = size()
            reader.feed(stream[:count])
            stream = stream[count:]
            while (record := reader.next_record()) is not None:
                assert RecordHeader.parse(record).length == len(record) - HEADER_LENGTH
                found.append(record)
            assert 0 < reader.want <= LONGEST, "a reader that has no record wants more of one"
    except ProtocolError as error:
        assert reader.want == 0, "a reader that has failed wants nothing"
        return found, type(error)
    return found, None


@cache
def _keys(suite: CipherSuite) -> RxKeys:
    version = max(suite.versions)
    secret = bytes(32 if suite.hash_name == "sha256" else 48) if version is Version.TLS13 else None
    return RxKeys(
        suite=suite,
        version=version,
        secret=secret,
        key=bytes(suite.key_length),
        iv=bytes(suite.fixed_iv_length),
        sequence=0,
    )


# --- the agent's messages --------------------------------------------------------------------------------------------

_PARSERS: tuple[Callable[[bytes], object], ...] = (m.parse_verdict, m.parse_gate_name, m.parse_update)


def messages(data: bytes) -> None:
    """A request, verdict, gate name or update spoilt in some places is a value or an AgentProtocolError."""
    script = Script(data)
    address = script.pick([None, ("192.0.2.1", 443), ("2001:db8::1", 1)])
    name = script.pick([None, "server.example", "a" * m.MAX_NAME])
    request = m.Request(script.pick(list(m.RequestKind)), False, script.byte(), address, name)
    spoilt = _spoil(script, m.pack_request(request))
    try:
        parsed = m.parse_request(spoilt, script.pick([2, 2, 2, script.byte()]))
    except AgentProtocolError:
        pass
    else:
        assert len(spoilt) <= m.MAX_REQUEST
        assert 0 <= parsed.filler <= m.MAX_FILLER
        assert m.parse_request(m.pack_request(parsed), m.DESCRIPTORS) == parsed
    gate = m.GateName(script.pick(list(m.Outcome)), script.byte(), script.pick(["", "s", "spkt"]), script.byte())
    for right, parse_it in zip(
        (m.pack_verdict(m.VerdictCode.DENY, 13), gate.pack(), b"U\1\0\0"), _PARSERS, strict=True
    ):
        try:
            parse_it(_spoil(script, right))
        except AgentProtocolError:
            continue


def _spoil(script: Script, data: bytes) -> bytes:
    """Change, insert and cut a few bytes."""
    spoilt = bytearray(data)
    for _ in range(script.below(4)):
        at = script.below(len(spoilt) + 1)
        match script.below(3):
            case 0:
                spoilt[at : at + 1] = bytes([script.byte()])
            case 1:
                spoilt[at:at] = script.some(80)
            case _:
                del spoilt[at:]
    return bytes(spoilt)


# --- ELF headers -----------------------------------------------------------------------------------------------------

_LOADER = b"/lib64/ld-linux-x86-64.so.2\0"
_NOTE = struct.pack("<III4s8s", 4, 8, 4, b"Go\0\0", b"build id")


def headers(data: bytes) -> None:
    """A program's headers spoilt in some places give an image or a refusal; a first line gives a path or none."""
    script = Script(data)
    ident = b"\x7fELF" + bytes([2, 1, 1]) + bytes(9)
    head = struct.pack("<16sHHIQQQIHHHHHH", ident, 3, 62, 1, 0, 64, 0, 0, 64, 56, 2, 64, 0, 0)
    note = struct.pack("<IIQQQQQQ", 4, 4, 176 + len(_LOADER), 0, 0, len(_NOTE), len(_NOTE), 4)
    interpreter = struct.pack("<IIQQQQQQ", elf.PT_INTERP, 4, 176, 0, 0, len(_LOADER), len(_LOADER), 1)
    program = _spoil(script, head + note + interpreter + _LOADER + _NOTE)
    path = elf.script_interpreter(script.pick([b"#!", b"#! \t", b""]) + script.rest())
    assert path is None or 0 < len(os.fsencode(path)) < elf.SCRIPT_HEAD
    fd = os.memfd_create("program")
    try:
        os.write(fd, program)
        image = elf.read_image(Path(f"/proc/self/fd/{fd}"))
        assert image.bits in (32, 64)
    except Uncovered:
        pass
    finally:
        os.close(fd)


# --- policies --------------------------------------------------------------------------------------------------------

_FILES = ("web.pem", "web.key", "ca.pem", "ca.crl")
_KEYRING = '[keyring.web]\ncertificate = "web.pem"\nprivate_key = "web.key"\ntrust = ["ca.pem"]\ncrl = ["ca.crl"]\n'
_VALUES = (
    b"0", b"-1", b"1e999", b"nan", b"9" * 30, b'""', b'"web"', b"[]", b"{}", b"true", b'"1-65535"', b'"*"', b"12:00:00",
    b"1979-05-27", b'["::1/128"]', b'"\\u0000"', b'"\xc3\xa9"', b"[[1]]", b'{ from = "22:00", to = "06:00" }',
)  # fmt: skip


@cache
def _folder() -> Path:
    folder = Path(tempfile.mkdtemp(prefix="ktls-fuzz-"))
    for name in _FILES:
        (folder / name).write_text("something")
    return folder


@cache
def _policies() -> list[list[bytes]]:
    texts = [path.read_bytes() for path in sorted((ROOT / "policies").glob("*.toml"))]
    return [text.splitlines() for text in [*texts, b"version = 1\n" + _KEYRING.encode()]]


def policies(data: bytes) -> None:
    """A real policy with lines lost, doubled, moved and spoilt is a policy, or problems each with its place."""
    script = Script(data)
    lines = list(script.pick(_policies()))
    while script:
        at = script.below(len(lines))
        match script.below(6):
            case 0:
                del lines[at]
            case 1:
                lines.insert(at, script.pick(lines))
            case 2:
                lines[at] = _spoil(script, lines[at])
            case 3:
                lines[at] = lines[at].partition(b"=")[0] + b"= " + script.pick(_VALUES)
            case 4:
                lines.insert(at, script.pick(script.pick(_policies())))
            case _:
                key, _, value = script.pick(lines).partition(b"=")
                lines[at] = script.pick([key, lines[at].partition(b"=")[0]]) + b"=" + value
        if not lines:
            break
    path = _folder() / "policy.toml"
    try:
        policy = parse(b"\n".join(lines), path)
    except PolicyError as error:
        wrong = error.message.splitlines()
    else:
        wrong = list(warnings(policy))
    assert all(line.startswith(f"{path}:") for line in wrong), wrong
