"""Archives that are not what they seem."""

from __future__ import annotations

import stat
import struct
import zipfile

import pytest

from catchment.errors import PluginError
from catchment.registries import archive as archives
from tests.registries.server import zipped


@pytest.fixture
def unpack(tmp_path):
    """Unpacks `program` from an archive into a folder of its own."""

    def do(content, *members):
        path = tmp_path / "x.zip"
        path.write_bytes(content)
        to = tmp_path / "cache" / "plugin"
        to.parent.mkdir(exist_ok=True)
        to.unlink(missing_ok=True)
        archives.unpack(path, members or ("program",), to, "plugin `x`")
        return to

    return do


def linked(name, target, kind):
    member = zipfile.ZipInfo(name)
    member.create_system = 3
    member.external_attr = (kind | 0o777) << 16
    return member, target


def test_only_the_program_is_taken_out(unpack, tmp_path):
    content = zipped(("../../evil", b"1"), ("/etc/evil", b"2"), ("program", b"3"), ("README", b"4"))

    to = unpack(content)

    assert to.read_bytes() == b"3"
    assert sorted(path.name for path in tmp_path.rglob("*") if path.is_file()) == ["plugin", "x.zip"]
    assert not (tmp_path.parent / "evil").exists()


def test_the_first_known_name_is_taken(unpack):
    assert unpack(zipped(("b", b"2"), ("a", b"1")), "a", "b").read_bytes() == b"1"


@pytest.mark.parametrize("kind", [stat.S_IFLNK, stat.S_IFCHR, stat.S_IFIFO, stat.S_IFDIR, stat.S_IFSOCK])
def test_what_is_no_plain_file_is_refused(unpack, kind):
    with pytest.raises(PluginError, match="'program' in the archive is no plain file"):
        unpack(zipped(linked("program", b"/bin/sh", kind)))


@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_two_programs_are_refused(unpack):
    with pytest.raises(PluginError, match="has 'program' 2 times"):
        unpack(zipped(("program", b"1"), ("program", b"2")))


def test_a_bomb_is_refused_before_it_fills_the_disk(unpack, monkeypatch):
    monkeypatch.setattr(archives, "_SMALL_BYTES", 1 << 20)
    content = zipped(("program", bytes(20 << 20)))
    assert len(content) < 30_000

    with pytest.raises(PluginError, match="is larger than 2,"):
        unpack(content * 1)


def test_a_large_file_is_refused_whatever_it_claims(unpack, monkeypatch):
    monkeypatch.setattr(archives, "LARGEST_BYTES", 1000)
    content = bytearray(zipped(("program", bytes(5000))))
    # The claim of 10 bytes, in both headers.
    for signature, offset in ((b"PK\x03\x04", 22), (b"PK\x01\x02", 24)):
        struct.pack_into("<I", content, content.index(signature) + offset, 10)

    with pytest.raises(PluginError, match=r"archive is damaged|is larger than 1,000 bytes"):
        unpack(bytes(content))
    with pytest.raises(PluginError, match="is larger than 1,000 bytes"):
        unpack(zipped(("program", bytes(5000))))


def test_every_cut_of_an_archive_is_an_error_and_no_crash(unpack):
    content = zipped(("program", bytes(range(256)) * 20))

    for length in range(0, len(content), 7):
        with pytest.raises(PluginError, match="the archive"):
            unpack(content[:length])


def test_no_changed_byte_passes_unseen(unpack):
    content = zipped(("program", bytes(range(256)) * 4))
    good = unpack(content).read_bytes()

    for position in range(len(content)):
        changed = bytearray(content)
        changed[position] ^= 0x41
        try:
            found = unpack(bytes(changed)).read_bytes()
        except PluginError:
            continue
        # A byte of a date, or a mode that says nothing.
        assert found == good


def test_an_archive_with_a_password_is_refused(unpack):
    content = bytearray(zipped(("program", b"x")))
    for signature, offset in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):
        content[content.index(signature) + offset] |= 1

    with pytest.raises(PluginError, match=r"the archive is damaged: .*encrypted"):
        unpack(bytes(content))
