from __future__ import annotations

import gzip
import io
import tarfile

import pytest
from oci.test_layers import DIRECTORY, HARD, LINK, Layers, tar
from oci.test_locate import archive, member
from signing.golden import MODULE, golden
from signing.test_compression import pack

from kmm.image_signing import modules
from kmm.image_signing.errors import ImageError, NoModulesError
from kmm.image_signing.modules import Allowance, SignedFile
from kmm.oci.layers import LayerError
from kmm.signing.compression import Compression

SIGNED = MODULE + golden("self-sha256.signature")
EVERY = modules.every("/opt", "6.1.0")


@pytest.fixture
def signed(signer, tmp_path):
    """Sign the modules in layers; return what is said of them, and the new layer's entries and contents by path."""

    def run(wanted, *layers):
        made = modules.sign(
            Layers(*layers).openers, [wanted] if isinstance(wanted, str) else wanted, signer, tmp_path
        )
        assert [each.name for each in tmp_path.iterdir()] == ["layer"]
        data = made.content.read_bytes()
        made.content.unlink()
        assert made.layer.size == len(data)
        with tarfile.open(fileobj=io.BytesIO(data)) as written:
            entries = {each.name: each for each in written}
            contents = {name: written.extractfile(each).read() for name, each in entries.items() if not each.isdir()}
        return made.files, entries, contents

    return run


def test_the_new_layer_has_the_signed_files_and_what_is_above_them_and_nothing_else(signed):
    files, entries, contents = signed(
        "/opt/m/a.ko",
        archive(
            member("opt", tarfile.DIRTYPE, mode=0o711, mtime=5),
            member("opt/m", tarfile.DIRTYPE, mode=0o750, uid=3),
            member("opt/n", tarfile.DIRTYPE),
            member("opt/m/a.ko", content=MODULE, mode=0o640, uid=7, gid=8, mtime=1_700_000_000),
            member("opt/m/b.ko", content=MODULE),
        ),
    )
    assert files == (SignedFile(path="/opt/m/a.ko", replaced=0),)
    assert contents == {"opt/m/a.ko": SIGNED}
    assert [(each.name, each.mode, each.uid, each.gid, each.mtime) for each in entries.values()] == [
        ("opt", 0o711, 0, 0, 5),
        ("opt/m", 0o750, 3, 0, 0),
        ("opt/m/a.ko", 0o640, 7, 8, 1_700_000_000),
    ]


def test_labels_are_kept_and_what_speaks_of_the_old_contents_goes(signed):
    xattrs = {f"SCHILY.xattr.{name}": "x" for name in ("security.selinux", "security.ima", "security.evm", "user.a")}
    _, entries, _ = signed("/a.ko", archive(member("a.ko", content=MODULE, pax_headers=xattrs)))
    assert {key for key in entries["a.ko"].pax_headers if key.startswith("SCHILY")} == {
        "SCHILY.xattr.security.selinux",
        "SCHILY.xattr.user.a",
    }


@pytest.mark.parametrize("how", Compression)
def test_a_compressed_module_stays_compressed_and_older_signatures_go(signed, how):
    data = pack(MODULE + golden("issued-sha512.signature") * 2, how)
    path = f"opt/lib/modules/6.1.0/extra/a.ko{how.value}"
    files, _, contents = signed(EVERY, tar((path, data), ("opt/lib/modules/6.1.0/modules.dep", b"")))
    assert files == (SignedFile(path=f"/{path}", replaced=2),)
    assert contents == {path: pack(SIGNED, how)}


def test_every_module_of_one_kernel_or_of_all(signed):
    layer = tar(("opt/lib/modules/6.1.0/a.ko", MODULE), ("opt/lib/modules/6.2.0/b.ko", MODULE), ("opt/c.ko", MODULE))
    assert [*signed(EVERY, layer)[2]] == ["opt/lib/modules/6.1.0/a.ko"]
    assert len(signed(modules.every("/opt", None), layer)[2]) == 2
    odd = tar(("opt/lib/modules/6[1]*/a.ko", MODULE), ("opt/lib/modules/61/a.ko", MODULE))
    assert [*signed(modules.every("/opt", "6[1]*"), odd)[2]] == ["opt/lib/modules/6[1]*/a.ko"]


def test_links_stay_what_they_are_and_what_they_lead_to_is_signed(signed):
    layer = tar(("m/a.ko", MODULE), ("m/l.ko", LINK, "a.ko"), ("w", LINK, "m"))
    assert signed("/m/*.ko", layer)[2] == signed("/w/l.ko", layer)[2] == {"m/a.ko": SIGNED}


def test_names_of_one_file_stay_names_of_one_file_where_all_are_signed(signed):
    layer = tar(("m/b.ko", MODULE), ("m/a.ko", HARD, "m/b.ko"))
    files, entries, contents = signed("/m/*.ko", layer)
    assert [each.path for each in files] == ["/m/a.ko", "/m/b.ko"]
    assert (entries["m/b.ko"].type, entries["m/b.ko"].linkname) == (tarfile.LNKTYPE, "m/a.ko")
    assert contents == {"m/a.ko": SIGNED, "m/b.ko": SIGNED}
    assert signed("/m/a.ko", layer)[2] == {"m/a.ko": SIGNED}


@pytest.mark.parametrize(
    ("wanted", "error", "said"),
    [
        ("/m/acme", ImageError, "has no /m/acme; what is near: /m/acme.ko, /opt/acme.ko.xz"),
        ("/lib/acme.ko", ImageError, "has no /lib/acme.ko; what is near: /m/acme.ko, /opt/acme.ko.xz"),
        (EVERY, NoModulesError, "has no /opt/lib/modules/6.1.0/**/*.ko; what is near: /opt/acme.ko.xz"),
        ("/zzz", NoModulesError, "has no /zzz"),
        ("/" + "z" * 5000, NoModulesError, "has no /" + "z" * 298 + "…"),
        ("/m", NoModulesError, "has no /m"),
        ("/m/text.ko", ImageError, "cannot be signed: /m/text.ko is no kernel module: it is no ELF file"),
        ("/opt/*", ImageError, "cannot be signed: /opt/acme.ko.xz breaks off"),
    ],
)
def test_what_cannot_be_signed_is_told_with_what_is_near(signed, wanted, error, said):
    layer = tar(("m", DIRECTORY), ("m/acme.ko", MODULE), ("opt/acme.ko.xz", pack(MODULE, Compression.XZ)[:-9]))
    with pytest.raises(error) as caught:
        signed(wanted, layer, tar(("m/text.ko", b"text")))
    assert str(caught.value).startswith(said) or str(caught.value).endswith(said)


def test_what_is_absent_is_told_where_something_is_there(signer, tmp_path):
    wanted = ["/m/b.ko", "/m/acme.ko", *modules.every("/m", None), *modules.every("/n", None)]
    layer = tar(("m/acme.ko", MODULE), ("m/lib/modules/6/acme.ko.gz", pack(MODULE, Compression.GZIP)))
    made = modules.sign(Layers(layer).openers, wanted, signer, tmp_path)
    assert made.absent == ("/m/b.ko", "/n/lib/modules/**/*.ko")
    assert made.why.startswith("has no /m/b.ko, /n/lib/modules/**/*.ko; what is near: /m/acme.ko, /m/lib/")


def test_an_image_without_modules_says_so(signed):
    with pytest.raises(NoModulesError, match=r"^has no /a\.ko, and no kernel module at all$"):
        signed("/a.ko", tar(("b", b"")))


def test_a_module_that_is_a_bomb_is_refused(signed, monkeypatch):
    monkeypatch.setattr(modules, "LIMITS", modules.Limits(file=1000))
    with pytest.raises(LayerError, match="larger than 1000 bytes"):
        signed("/a.ko", gzip.compress(tar(("a.ko", MODULE))))


@pytest.mark.parametrize("how", [Compression.NONE, Compression.XZ])
def test_modules_are_bounded_together_and_the_limit_is_told(signer, tmp_path, how):
    data = pack(MODULE, how)
    replaced = (f"m/2.ko{how.value}", b"dropped" * 10)
    layer = tar(replaced, *[(f"m/{number}.ko{how.value}", data) for number in range(5)])
    wanted = [f"/m/?.ko{how.value}"]

    def size(most):
        allowance = Allowance(most=most)
        modules.sign(Layers(layer).openers, wanted, signer, tmp_path, allowance)
        return allowance.used

    together = size(1 << 30)
    assert together == 5 * len(SIGNED)
    assert size(together) == together
    with pytest.raises(
        ImageError, match=r"larger than [0-9.e-]+ GiB, unpacked: .* with --modules-limit \(of a Module: "
    ):
        size(together - 1)
    with pytest.raises(ImageError, match="together larger than"):
        size(2 * len(data))


def test_no_time_is_left_for_a_layer_that_does_not_end_nor_for_the_next_module(signer, tmp_path):
    layer = gzip.compress(tar(("m/a.ko", MODULE), ("m/b.ko", MODULE), ("zeros", bytes(20 << 20))))
    checks = []

    def until(number):
        def check():
            checks.append(number)
            if len(checks) > number:
                raise TimeoutError

        checks.clear()
        return Allowance(check=check)

    modules.sign(Layers(layer).openers, ["/m/*"], signer, tmp_path, until(1 << 30))
    whole = len(checks)
    assert whole > 20 * 4, "as often as pieces are unpacked"
    for number in (2, whole // 2, whole - 1):
        with pytest.raises(TimeoutError):
            modules.sign(Layers(layer).openers, ["/m/*"], signer, tmp_path, until(number))
