"""Editing ``server.xml``: the role changes and nothing else does; what cannot be read is never guessed.

Method: properties over generated files (encodings, line ends, comments, CDATA, self-closed and repeated
keys), each prefix of a file as its torn form, and the same over the real file of 5.70.16 where it is at
hand. Not covered: power loss; only the order of fsync and rename, which a power cut would show.
"""

import os
import stat
from pathlib import Path
from xml.etree import ElementTree as Et

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from sidecar.core.model import Role
from sidecar.errors import ConfigError, ServerError
from sidecar.servers import serverxml
from sidecar.servers.document import SIZE_MAX, BadXml, Document
from sidecar.servers.serverxml import BACKUP, DETECTION_MS, NEW, ORIGINAL, TORN, RoleEdit
from sidecar.servers.settings import refuse_embedded, warnings
from tests.harness import disk

ROOT = Path(__file__).parents[2]
OWN = ROOT / "tests/data/server.xml"
REAL = ROOT.parent / "shared/data/aggregate-server-5.70.16.xml"
FILES = [OWN, *([REAL] if REAL.exists() else [])]
ROLES: tuple[Role, Role] = ("active", "standby")
DETECTION = f"<clusterFailureDetectionTime>{DETECTION_MS}</clusterFailureDetectionTime>".encode()


@pytest.fixture(params=FILES, ids=lambda path: path.name)
def whole(request: pytest.FixtureRequest) -> bytes:
    data: bytes = request.param.read_bytes()
    return data


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "server.xml"
    path.write_bytes(OWN.read_bytes())
    return path


def by_text(data: bytes, role: str) -> bytes:
    """The edit, done in another way: on a file whose every key stands in one line."""
    lines = data.split(b"\n")
    for index, line in enumerate(lines):
        if line.startswith(b"  <clusterRole>"):
            lines[index] = b"  <clusterRole>" + role.encode() + b"</clusterRole>"
        if line.startswith(b"  <clusterFailureDetectionTime>"):
            lines[index] = b"  " + DETECTION
    return b"\n".join(lines)


# -- the edit ---------------------------------------------------------------------------------


@pytest.mark.parametrize("role", ROLES)
def test_a_role_changes_two_values_and_no_other_byte(path: Path, whole: bytes, role: Role) -> None:
    path.write_bytes(whole)
    assert serverxml.set_role(path, role) == RoleEdit(True)
    assert path.read_bytes() == by_text(whole, {"active": "1", "standby": "2"}[role])
    assert serverxml.set_role(path, role) == RoleEdit(False)


def test_a_second_edit_of_the_same_role_does_not_touch_the_file(path: Path) -> None:
    serverxml.set_role(path, "active")
    before = path.stat()
    serverxml.set_role(path, "active")
    after = path.stat()
    assert (before.st_ino, before.st_mtime_ns) == (after.st_ino, after.st_mtime_ns)


def test_to_and_fro_ends_where_it_began(path: Path) -> None:
    serverxml.set_role(path, "standby")
    before = path.read_bytes()
    serverxml.set_role(path, "active")
    serverxml.set_role(path, "standby")
    assert path.read_bytes() == before


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("<config><clusterRole/><x/></config>", "<config><clusterRole>7</clusterRole><x/></config>"),
        ("<config><clusterRole /></config>", "<config><clusterRole >7</clusterRole></config>"),
        ("<config><clusterRole a='/>'/></config>", "<config><clusterRole a='/>'>7</clusterRole></config>"),
        ("<config><clusterRole></clusterRole></config>", "<config><clusterRole>7</clusterRole></config>"),
        ("<config><clusterRole>/></clusterRole></config>", "<config><clusterRole>7</clusterRole></config>"),
        (
            "<config><clusterRole> 7</clusterRole ></config>",
            "<config><clusterRole>7</clusterRole ></config>",
        ),
        (
            "<config><clusterRole>1</clusterRole><clusterRole>2</clusterRole></config>",
            "<config><clusterRole>7</clusterRole><clusterRole>7</clusterRole></config>",
        ),
        (
            "<config><!--<clusterRole>1</clusterRole>--><clusterRole>1</clusterRole></config>",
            "<config><!--<clusterRole>1</clusterRole>--><clusterRole>7</clusterRole></config>",
        ),
        (
            "<config><old><clusterRole>1</clusterRole></old><clusterRole>1</clusterRole></config>",
            "<config><old><clusterRole>1</clusterRole></old><clusterRole>7</clusterRole></config>",
        ),
        ("<config><a/></config>", "<config><a/><clusterRole>7</clusterRole></config>"),
        (
            "<config>\r\n\t<a/>\r\n</config>\r\n",
            "<config>\r\n\t<a/>\r\n\t<clusterRole>7</clusterRole>\r\n</config>\r\n",
        ),
        (
            "<config>\n  <a>1</a> <!-- last -->\n</config>",
            "<config>\n  <a>1</a>\n  <clusterRole>7</clusterRole> <!-- last -->\n</config>",
        ),
    ],
)
@pytest.mark.parametrize("encoding", ["ascii", "utf-8-sig", "utf-16", "utf-16-be", "utf-16-le"])
def test_every_shape_of_an_element(before: str, after: str, encoding: str) -> None:
    edited = Document(before.encode(encoding)).with_values({"clusterRole": "7"})
    assert edited == after.encode(encoding)


def test_a_declared_encoding_is_kept() -> None:
    text = "<?xml version='1.0' encoding='windows-1251'?>\r\n<config>\r\n <a>Насосная</a>\r\n</config>"
    edited = Document(text.encode("cp1251")).with_values({"b": "1", "c": "2"})
    expected = text.replace("</a>", "</a>\r\n <b>1</b>\r\n <c>2</c>")
    assert edited.decode("cp1251") == expected


NAMES = st.sampled_from(["clusterRole", "clientPort", "clusterFailureDetectionTime", "x", "Яч"])
CONTENTS = st.sampled_from(
    [
        *("", "0", "1", " 2 ", "\n", "a &amp; b", "&#49;", "/>", "жы", "<?pi clusterRole?>"),
        *("<![CDATA[<clusterRole>3</clusterRole>]]>", "<!-- 1 -->2", "<clusterRole>4</clusterRole>"),
    ]
)
BLANKS = st.sampled_from(["", "\n", "\r\n  ", "\t", "<!-- <clusterRole>5</clusterRole> -->", "<?pi?>"])


@st.composite
def _element(draw: st.DrawFn) -> str:
    name, content = draw(NAMES), draw(CONTENTS)
    empty = [f"<{name}/>", f"<{name} a='/>' />"]
    return draw(BLANKS) + draw(
        st.sampled_from([f"<{name}>{content}</{name}>", *(empty if not content else [])])
    )


@st.composite
def files(draw: st.DrawFn) -> tuple[bytes, str]:
    encoding = draw(st.sampled_from(["utf-8", "utf-8-sig", "utf-16", "utf-16-le", "cp1251"]))
    named = encoding == "cp1251"
    head = (
        "<?xml version='1.0' encoding='windows-1251'?>" if named else draw(st.sampled_from(["", "<!---->"]))
    )
    body = "".join(draw(st.lists(_element(), min_size=1, max_size=6)))
    text = f"{head}<config>{body}{draw(BLANKS)}</config>{draw(st.sampled_from(['', chr(10)]))}"
    return text.encode(encoding), encoding


def shape(data: bytes, encoding: str) -> list[tuple[str, str]]:
    """Every key and its text, by another parser."""
    text = data.decode(encoding).split("?>", 1)[1] if encoding == "cp1251" else data.decode(encoding)
    parser = Et.XMLParser(target=Et.TreeBuilder(insert_comments=False, insert_pis=False))
    root = Et.fromstring(text.replace("\r\n", "\n"), parser)
    return [(child.tag, (child.text or "") + "".join(sub.tail or "" for sub in child)) for child in root]


@given(files(), st.sampled_from(["1", "2"]))
@settings(max_examples=300, deadline=None)
def test_any_file_gets_the_role_and_keeps_the_rest(file: tuple[bytes, str], role: str) -> None:
    data, encoding = file
    wanted = {"clusterRole": role, "clusterFailureDetectionTime": "86400000"}
    edited = Document(data).with_values(wanted)
    after = shape(edited, encoding)
    missing = [(key, value) for key, value in wanted.items() if key not in dict(shape(data, encoding))]
    assert after == [(key, wanted.get(key, text)) for key, text in shape(data, encoding)] + missing
    assert Document(edited).with_values(wanted) == edited
    assert outside(Document(data), wanted) == outside(Document(edited), wanted, skip_last=len(missing))


def outside(document: Document, keys: dict[str, str], skip_last: int = 0) -> list[tuple[str, str, bytes]]:
    """Every element but those *keys*, as it stands in the file."""
    count = len(document.elements) - skip_last
    return [
        (element.name, element.text, document.data[element.start : element.end])
        for element in document.elements[:count]
        if element.name not in keys
    ]


# -- torn files -------------------------------------------------------------------------------


def test_no_prefix_of_a_file_is_taken_for_whole(whole: bytes) -> None:
    for length in range(len(whole)):
        with pytest.raises(BadXml):
            Document(whole[:length])


def test_every_prefix_is_repaired_from_the_backup(path: Path, whole: bytes) -> None:
    path.write_bytes(whole)
    serverxml.set_role(path, "standby")
    standby = path.read_bytes()
    for length in {0, 1, 7, 8, 9, 20, *range(0, len(standby), 97), len(standby) - 1}:
        path.write_bytes(standby[:length])
        edit = serverxml.set_role(path, "active")
        assert edit.changed
        assert edit.repaired is not None
        assert path.read_bytes() == by_text(whole, "1")
        assert serverxml._beside(path, TORN).read_bytes() == standby[:length]


@given(length=st.integers(0, len(OWN.read_bytes()) - 1), role=st.sampled_from(ROLES))
@settings(max_examples=30, deadline=None)
@example(length=0, role="active")
def test_a_torn_file_without_backup_is_refused_and_kept(
    tmp_path_factory: pytest.TempPathFactory, length: int, role: Role
) -> None:
    path = tmp_path_factory.mktemp("torn") / "server.xml"
    torn = OWN.read_bytes()[:length]
    path.write_bytes(torn)
    with pytest.raises(ServerError, match=r"damaged .*no sound backup server\.xml\.sidecar-backup"):
        serverxml.set_role(path, role)
    with pytest.raises(ServerError, match="damaged"):
        serverxml.read(path)
    assert [entry.name for entry in path.parent.iterdir()] == ["server.xml"]
    assert path.read_bytes() == torn


@pytest.mark.parametrize(
    "junk", [b"\0" * 4096, b" \n", b"<config></config>", b"<other><a/></other>", b"\xff"]
)
def test_what_is_no_configuration_is_torn_too(path: Path, junk: bytes) -> None:
    serverxml.set_role(path, "standby")
    path.write_bytes(junk)
    assert serverxml.set_role(path, "standby").repaired


def test_a_file_with_a_hole_of_zeros_is_torn(whole: bytes) -> None:
    """What ext4 can leave after a power cut: the right length, the end never written."""
    half = len(whole) // 2
    with pytest.raises(BadXml):
        Document(whole[:half] + bytes(len(whole) - half))


def test_a_torn_file_is_never_backed_up(path: Path) -> None:
    serverxml.set_role(path, "standby")
    good = serverxml._beside(path, BACKUP).read_bytes()
    path.write_bytes(path.read_bytes()[:100])
    serverxml.set_role(path, "active")
    assert serverxml._beside(path, BACKUP).read_bytes() == good
    assert serverxml.read(path).torn is None


def test_a_damaged_backup_repairs_nothing(path: Path) -> None:
    serverxml.set_role(path, "standby")
    serverxml._beside(path, BACKUP).write_bytes(b"<config><clusterRole>1</clu")
    path.write_bytes(b"")
    with pytest.raises(ServerError, match="no sound backup"):
        serverxml.set_role(path, "standby")


def test_the_backup_follows_what_the_operator_and_the_server_change(path: Path) -> None:
    serverxml.set_role(path, "standby")
    path.write_bytes(path.read_bytes().replace(b"8443", b"9443"))
    serverxml.set_role(path, "standby")
    path.write_bytes(b"")
    serverxml.set_role(path, "active")
    assert serverxml.read(path).ports["webAppsSslPort"] == 9443


def test_the_first_file_is_kept_for_ever(path: Path) -> None:
    serverxml.set_role(path, "standby")
    path.write_bytes(path.read_bytes().replace(b"8443", b"9443"))
    serverxml.set_role(path, "active")
    assert serverxml._beside(path, ORIGINAL).read_bytes() == OWN.read_bytes()


def test_reading_a_torn_file_says_so(path: Path) -> None:
    serverxml.set_role(path, "standby")
    path.write_bytes(b"<config>")
    settings = serverxml.read(path)
    assert settings.torn
    assert any("backup" in warning for warning in warnings(settings))


# -- the file in the file system ----------------------------------------------------------------


@pytest.mark.skipif(os.geteuid() != 0, reason="only root may give a file away")
def test_mode_and_owner_stay(path: Path) -> None:
    path.chmod(0o640)
    os.chown(path, 1234, 4321)
    serverxml.set_role(path, "active")
    for file in (path, serverxml._beside(path, BACKUP), serverxml._beside(path, ORIGINAL)):
        found = file.stat()
        assert (stat.S_IMODE(found.st_mode), found.st_uid, found.st_gid) == (0o640, 1234, 4321)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root may give a file away")
def test_bug_copies_kept_the_mode_that_the_file_had_once(path: Path) -> None:
    """The password of the database stands in them, too."""
    path.chmod(0o644)
    serverxml.set_role(path, "active")
    path.write_bytes(path.read_bytes()[:100])
    serverxml.set_role(path, "standby")
    path.chmod(0o440)
    os.chown(path, 1234, 4321)
    serverxml.set_role(path, "standby")
    for suffix in ("", BACKUP, ORIGINAL, TORN):
        found = serverxml._beside(path, suffix).stat()
        assert (stat.S_IMODE(found.st_mode), found.st_uid, found.st_gid) == (0o440, 1234, 4321), suffix


@pytest.mark.skipif(os.geteuid() != 0, reason="only root may give a file away")
@pytest.mark.parametrize("hard", [True, False])
def test_no_file_of_somebody_else_is_given_to_the_server(path: Path, tmp_path: Path, hard: bool) -> None:
    serverxml.set_role(path, "standby")
    other, copy = tmp_path / "shadow", serverxml._beside(path, TORN)
    other.touch(0o600)
    (copy.hardlink_to if hard else copy.symlink_to)(other)
    os.chown(path, 1234, 4321)
    serverxml.set_role(path, "active")
    assert (stat.S_IMODE(other.stat().st_mode), other.stat().st_uid) == (0o600, 0)


def test_extended_attributes_stay(path: Path) -> None:
    try:
        os.setxattr(path, "user.label", b"plant")
    except OSError:
        pytest.skip("this file system has no extended attributes")
    serverxml.set_role(path, "active")
    assert os.getxattr(path, "user.label") == b"plant"


def test_a_link_stays_a_link(path: Path, tmp_path: Path) -> None:
    link = tmp_path / "elsewhere" / "server.xml"
    link.parent.mkdir()
    link.symlink_to("../server.xml")
    serverxml.set_role(link, "active")
    assert link.is_symlink()
    assert serverxml.read(path).cluster_role == "1"


def test_nothing_of_our_own_is_left_behind(path: Path) -> None:
    serverxml._beside(path, NEW).write_text("from a sidecar that was killed")
    serverxml.set_role(path, "active")
    names = {entry.name for entry in path.parent.iterdir()}
    assert names == {"server.xml", "server.xml" + BACKUP, "server.xml" + ORIGINAL}


def test_a_full_disk_changes_nothing(path: Path) -> None:
    """A folder in the way of the new file stands for every write that fails."""
    serverxml._beside(path, NEW).mkdir()
    with pytest.raises(ServerError, match="cannot be written"):
        serverxml.set_role(path, "active")
    assert path.read_bytes() == OWN.read_bytes()


def test_a_write_is_whole_or_not_at_all(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The content is on the disk before it gets its name, and the name before anybody goes on."""
    steps = disk.recorded(monkeypatch)
    serverxml.set_role(path, "standby")
    serverxml.set_role(path, "active")

    assert steps[-3:] == [f"server.xml{NEW}", "to server.xml", path.parent.name]


# -- refusals -----------------------------------------------------------------------------------


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(ServerError, match=r"server\.xml: missing: give server\.home"):
        serverxml.read(tmp_path / "server.xml")


def test_a_missing_file_with_a_backup_is_not_made_up(path: Path) -> None:
    serverxml.set_role(path, "active")
    path.unlink()
    with pytest.raises(ServerError, match="restore it, perhaps from"):
        serverxml.set_role(path, "active")


def test_a_pipe_does_not_hold_us_up(path: Path) -> None:
    path.unlink()
    os.mkfifo(path)
    with pytest.raises(ServerError, match="not a regular file"):
        serverxml.read(path)


def test_a_doctype_is_refused() -> None:
    bomb = b'<!DOCTYPE config [<!ENTITY a "aa"><!ENTITY f SYSTEM "file:///etc/passwd">]><config><x>&f;</x></config>'
    with pytest.raises(BadXml, match="DOCTYPE"):
        Document(bomb)


@pytest.mark.parametrize(
    ("before", "after", "says"),
    [
        (b"<config>", b"<!DOCTYPE config>\n<config>", "a DOCTYPE is not allowed: take it out"),
        (b"<config>", b"<?xml version='1.0' encoding='GBK'?><config>", "its encoding is not known here"),
        (b"<config>", b"<?xml version='1.0' encoding='none'?><config>", "its encoding is not known here"),
        (b"</config>", b"<a>" + b"x" * SIZE_MAX + b"</a></config>", "larger than"),
    ],
)
def test_bug_a_sound_file_was_taken_for_torn_and_replaced_by_its_backup(
    path: Path, before: bytes, after: bytes, says: str
) -> None:
    """And what lay behind the first 4 MB was lost."""
    serverxml.set_role(path, "standby")
    content = path.read_bytes().replace(before, after)
    path.write_bytes(content)
    for attempt in (lambda: serverxml.set_role(path, "active"), lambda: serverxml.read(path)):
        with pytest.raises(ConfigError, match=rf"^{path}: {says}"):
            attempt()
    assert path.read_bytes() == content
    assert not serverxml._beside(path, TORN).exists()


def test_a_huge_file_is_refused() -> None:
    with pytest.raises(BadXml, match="larger"):
        Document(b"<config><a>" + b"x" * SIZE_MAX + b"</a></config>")


@pytest.mark.parametrize(
    ("before", "after", "message"),
    [
        ("<clientPort>6460", "<clientPort>none", "clientPort: not a port"),
        ("<clientPort>6460", "<clientPort>", "clientPort: not a port"),
        ("<clientPort>6460", "<clientPort>6_460", "clientPort: not a port"),
        ("<clientPort>6460", "<clientPort>0", "clientPort: 0 is not a port"),
        ("<webAppsSslPort>8443", "<webAppsSslPort>65536", "webAppsSslPort: 65536 is not a port"),
        ("<webAppsSslPort>8443", "<webAppsSslPort>6460", "webAppsSslPort: port 6460 is clientPort already"),
        ("<webAppsNonSslPort>8080", "<webAppsNonSslPort>7800", "webAppsNonSslPort: port 7800"),
        ("<clientPort>6460", "<clientPort>1</clientPort><clientPort>2", "clientPort: there 2 times"),
    ],
)
def test_a_bad_port_is_named(path: Path, before: str, after: str, message: str) -> None:
    text = path.read_text()
    assert before in text
    path.write_text(text.replace(before, after))
    with pytest.raises(ConfigError, match=message):
        serverxml.read(path)


@pytest.mark.parametrize("off", ["0", ""])
def test_bug_no_server_could_have_its_web_or_heartbeat_port_off(path: Path, off: str) -> None:
    values = {"webAppsSslPort": off, "clusterHeartbeatPort": off, "webAppsNonSslPort": off}
    path.write_bytes(Document(path.read_bytes()).with_values(values))

    found = serverxml.read(path)

    assert found.ports == found.serving_ports == {"clientPort": 6460}


@pytest.mark.parametrize("name", ["vm", "localhost", "10.0.0", "10.0.0.1:6460", "*"])
def test_bug_a_server_at_the_address_of_a_name_was_not_looked_for_there(path: Path, name: str) -> None:
    """A standby that activated itself was not noticed."""
    path.write_bytes(Document(path.read_bytes()).with_values({"serverIp": name}))

    with pytest.raises(ConfigError, match=r"serverIp: '.*' is no address, .*: give the address"):
        serverxml.read(path)


@pytest.mark.parametrize(
    ("url", "embedded"),
    [
        ("jdbc:hsqldb:file:database/server", "jdbc:hsqldb:file:"),
        ("jdbc:hsqldb:mem:x", "jdbc:hsqldb:mem:"),
        ("jdbc:hsqldb:database/server", "jdbc:hsqldb:"),
        ("JDBC:HSQLDB:file:/x", "jdbc:hsqldb:file:"),
        ("jdbc:derby:db;create=true", "jdbc:derby:"),
        ("jdbc:h2:~/test", "jdbc:h2:"),
        ("jdbc:h2:file:/x;AUTO_SERVER=TRUE", "jdbc:h2:file:"),
        ("jdbc:sqlite:/x.db", "jdbc:sqlite:"),
        ("jdbc:hsqldb:hsql://db:9001/x", None),
        ("jdbc:derby://db:1527/x", None),
        ("jdbc:h2:tcp://db/x", None),
        ("jdbc:postgresql://db/x", None),
        ("jdbc:mysql://a,b/x", None),
        ("jdbc:oracle:thin:@db:1521:x", None),
        ("", None),
    ],
)
def test_an_embedded_database_is_refused(path: Path, url: str, embedded: str | None) -> None:
    data = Document(path.read_bytes()).with_values({"databaseUrl": url})
    path.write_bytes(data)
    settings = serverxml.read(path)
    assert settings.embedded_database == embedded
    if embedded:
        with pytest.raises(ConfigError, match=r"databaseUrl: .*embedded database"):
            refuse_embedded(settings)
    else:
        refuse_embedded(settings)


def test_the_message_about_a_database_holds_no_password(path: Path) -> None:
    url = "jdbc:h2:file:/x;USER=sa;PASSWORD=hunter2"
    path.write_bytes(Document(path.read_bytes()).with_values({"databaseUrl": url}))
    settings = serverxml.read(path)
    with pytest.raises(ConfigError) as caught:
        refuse_embedded(settings)
    assert "hunter2" not in str(caught.value) + repr(settings)


@pytest.mark.skipif(not REAL.exists(), reason="the real file is not at hand")
def test_the_real_file_is_refused_for_a_cluster() -> None:
    settings = serverxml.read(REAL)
    ports = {"clientPort": 7460, "webAppsSslPort": 7443, "clusterHeartbeatPort": 7800}
    assert settings.client_port == 7460
    assert settings.ports | ports == settings.ports
    with pytest.raises(ConfigError, match=r"databaseUrl: jdbc:hsqldb:file:"):
        refuse_embedded(settings)
    assert any("clusterHeartbeatInterfaceAddress" in warning for warning in warnings(settings))


def test_our_own_file_is_fine(path: Path) -> None:
    settings = serverxml.read(path)
    refuse_embedded(settings)
    assert warnings(settings) == []


@pytest.mark.parametrize(
    ("values", "key"),
    [
        ({"clusterHeartbeatInterfaceAddress": "127.0.0.1"}, "clusterHeartbeatInterfaceAddress"),
        ({"clusterFailoverReadonly": "true"}, "clusterFailoverReadonly"),
        ({"databaseUrl": ""}, "databaseUrl"),
        ({"databaseUrl": "jdbc:mysql://localhost:3306/ag"}, "databaseUrl"),
        ({"databaseUrl": "jdbc:oracle:thin:@127.0.0.1:1521:x"}, "databaseUrl"),
    ],
)
def test_doubtful_settings_are_warned_about(path: Path, values: dict[str, str], key: str) -> None:
    path.write_bytes(Document(path.read_bytes()).with_values(values))
    (warning,) = warnings(serverxml.read(path))
    assert f": {key}: " in warning


def test_bug_a_backup_with_a_value_that_is_refused_now_kept_the_sidecar_from_starting(path: Path) -> None:
    """It was of an earlier version, and the file itself had been mended."""
    backup = path.with_name(path.name + BACKUP)
    backup.write_bytes(Document(path.read_bytes()).with_values({"serverIp": "plant-host"}))
    path.write_bytes(Document(path.read_bytes()).with_values({"serverIp": "10.0.0.1"}))

    assert serverxml.read_started(path).server_ip == "10.0.0.1"
