"""Against the embedded registry, and with `-m e2e` against a real one, in each way in which registries are met."""

from __future__ import annotations

import pytest
from kmm_oci import Oci, kmm_registries

from kmm.contract import Access, Credential, Forbidden, ImageInfo, Settings, SettingsError, Tls, Unavailable


@pytest.fixture
def oci():
    (found,) = kmm_registries(Settings(options={"allowAddresses": ["127.0.0.0/8"]}))
    yield found
    found.session.close()


@pytest.fixture
def access(registry):
    credential = Credential(username=registry.user, password=registry.password)
    return Access(
        credentials=(credential,) if registry.user else (),
        tls=Tls(insecure=not registry.ca_pem),
        ca_pem=registry.ca_pem or None,
    )


def test_it_serves_every_host(oci):
    assert isinstance(oci, Oci)
    assert (oci.name, tuple(oci.hosts)) == ("oci", ("*",))


def test_an_image_is_there_or_not(oci, registry, access, repository):
    digest = registry.push_image(f"{repository}:1", {"/a": b"a"}, annotations={"k": "v"})
    image = f"{registry.host}/{repository}"
    assert oci.inspect(f"{image}:1", access, 20) == ImageInfo(digest=digest)
    assert oci.inspect(f"{image}@{digest}", access, 20) == ImageInfo(digest=digest)
    assert oci.inspect(f"{image}:2", access, 20) is None


def test_annotations_and_files_come_where_they_are_wanted(oci, registry, access, repository):
    registry.push_image(f"{repository}:1", layers=[{"/opt/x.ko": b"old"}], files={"/opt/x.ko": b"new"})
    image = f"{registry.host}/{repository}:1"
    found = oci.inspect(image, access, 20, ["/opt/x.ko", "/opt/none"])
    assert (dict(found.files), dict(found.annotations)) == ({"/opt/x.ko": b"new"}, {})
    registry.push_image(f"{repository}:1", {"/a": b"a"}, annotations={"k": "v"})
    assert oci.inspect(image, access, 20, annotations=True).annotations == {"k": "v"}


def test_an_index_tells_its_architectures_and_what_its_first_image_holds(oci, registry, access, repository):
    digests = {
        architecture: registry.push_image(
            f"{repository}:{architecture}",
            {"/arch": architecture.encode()},
            architecture=architecture,
            annotations={"a": architecture},
        )
        for architecture in ("arm64", "amd64")
    }
    digest = registry.push_index(f"{repository}:all", digests)
    found = oci.inspect(f"{registry.host}/{repository}:all", access, 20, ["/arch"], annotations=True)
    assert (found.digest, found.architectures) == (digest, ("amd64", "arm64"))
    assert (found.files, found.annotations) == ({"/arch": b"amd64"}, {"a": "amd64"})


def test_wrong_credentials_are_no_proof_that_it_is_missing(oci, registry, access, repository):
    if not registry.user:
        # Nobody is asked: whatever is shown changes nothing.
        wrong = Access(
            credentials=(Credential(username="x", password="wr0ng"),), tls=access.tls, ca_pem=access.ca_pem
        )
        assert oci.inspect(f"{registry.host}/{repository}:1", wrong, 20) is None
        return
    wrong = Credential(username=registry.user, password="wr0ng")
    refused = Access(credentials=(wrong,), tls=access.tls, ca_pem=access.ca_pem)
    with pytest.raises(Forbidden) as error:
        oci.inspect(f"{registry.host}/{repository}:1", refused, 20)
    assert registry.host in str(error.value)
    assert "wr0ng" not in str(error.value)
    both = Access(credentials=(wrong, *access.credentials), tls=access.tls, ca_pem=access.ca_pem)
    assert oci.inspect(f"{registry.host}/{repository}:1", both, 20) is None


def test_this_machine_is_refused_unless_it_is_allowed(registry, access):
    (strict,) = kmm_registries(Settings())
    with pytest.raises(Unavailable, match="not allowed"):
        strict.inspect(f"{registry.host}/a:1", access, 20)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"allowedAddresses": []}, 'unknown option "allowedAddresses"; did you mean "allowAddresses"'),
        ({"allowAddresses": "127.0.0.1"}, "must be a list of networks"),
        ({"allowAddresses": ["here"]}, "allowAddresses: .*here"),
    ],
)
def test_wrong_options_are_refused(options, message):
    with pytest.raises(SettingsError, match=message):
        kmm_registries(Settings(options=options))
