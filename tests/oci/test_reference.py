from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kmm.oci import reference
from kmm.oci.reference import Reference, parse

SHA = "sha256:" + "0123456789abcdef" * 4


@pytest.mark.parametrize(
    ("text", "domain", "path", "tag", "digest"),
    [
        ("a", "", "a", "", ""),
        ("a/b", "", "a/b", "", ""),
        ("a:1", "", "a", "1", ""),
        ("localhost:5000", "", "localhost", "5000", ""),
        ("a:1/b", "a:1", "b", "", ""),
        ("localhost/a", "localhost", "a", "", ""),
        ("localhost:5000/a", "localhost:5000", "a", "", ""),
        ("registry:5000/a/b", "registry:5000", "a/b", "", ""),
        ("registry:5000/a/b:5000", "registry:5000", "a/b", "5000", ""),
        ("registry/a/b", "", "registry/a/b", "", ""),
        ("Registry/a/b", "Registry", "a/b", "", ""),
        ("Registry.Example.com/a", "Registry.Example.com", "a", "", ""),
        ("quay.io/a/b/c/d:v1.0_x-Y", "quay.io", "a/b/c/d", "v1.0_x-Y", ""),
        ("10.0.0.1/a", "10.0.0.1", "a", "", ""),
        ("[fe80::1]:5000/a:b", "[fe80::1]:5000", "a", "b", ""),
        ("[::1]/a", "[::1]", "a", "", ""),
        (f"a@{SHA}", "", "a", "", SHA),
        (f"quay.io:443/a/b:1@{SHA}", "quay.io:443", "a/b", "1", SHA),
        (f"registry:5000/a@{SHA}", "registry:5000", "a", "", SHA),
        ("a__b/c.d/e---f:_", "", "a__b/c.d/e---f", "_", ""),
        ("a:" + "t" * 128, "", "a", "t" * 128, ""),
    ],
)
def test_a_reference_is_read_by_the_distribution_grammar_and_written_as_it_was(text, domain, path, tag, digest):
    found = parse(text)
    assert found == Reference(domain=domain, path=path, tag=tag, digest=digest)
    assert str(found) == text


@pytest.mark.parametrize(
    ("text", "host", "repository"),
    [
        ("a/b:1", "docker.io", "a/b"),
        (f"registry:5000/a/b:1@{SHA}", "registry:5000", "registry:5000/a/b"),
        ("localhost/a", "localhost", "localhost/a"),
    ],
)
def test_a_reference_knows_its_registry_and_its_repository(text, host, repository):
    assert (parse(text).host, parse(text).repository) == (host, repository)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "names no repository"),
        (":1", "names no repository"),
        ("A", "names no repository"),
        ("quay.io/A", "names no repository"),
        ("quay.io/", "names no repository"),
        ("/a", "names no repository"),
        ("a//b", "names no repository"),
        ("a___b", "names no repository"),
        ("a..b", "names no repository"),
        ("-a", "names no repository"),
        ("a b", "names no repository"),
        ("a\n", "names no repository"),
        ("https://quay.io/a", "has a registry that is no host name"),
        ("a:", "has a tag that is none"),
        ("a:-x", "has a tag that is none"),
        ("a:.x", "has a tag that is none"),
        ("a:1+2", "has a tag that is none"),
        ("a:1\n", "has a tag that is none"),
        ("a:é", "has a tag that is none"),
        ("a:b:c", "has a tag that is none"),
        ("a:" + "t" * 129, "has a tag of 129 characters, 128 are allowed"),
        ("a@", "has a digest that is none"),
        ("a@sha256:abc", "has a digest that is none"),
        (f"a@{SHA}@{SHA}", "has a digest that is none"),
        (f"a@{SHA}:1", "has a digest that is none"),
        (f"@{SHA}", "names no repository"),
        ("registry:port/a", "has a registry that is no host name"),
        ("-x.com/a", "has a registry that is no host name"),
        ("a..com/a", "has a registry that is no host name"),
        ("user:password@quay.io/a", "has a digest that is none"),
        ("quay.io/" + "a" * 300, "has a repository of more than 255 characters"),
    ],
)
def test_what_is_no_reference_says_why(text, said):
    with pytest.raises(reference.ReferenceError) as raised:
        parse(text)
    assert said in str(raised.value)
    assert len(str(raised.value)) < 400


def test_a_long_text_is_not_repeated_whole():
    with pytest.raises(reference.ReferenceError) as raised:
        parse("A" * 30_000)
    assert len(str(raised.value)) < 300


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("quay.io:443/a/b:6.1", "quay.io:443/a/b:6.1-n_m_kmm_unsigned"),
        ("registry:5000/a", "registry:5000/a:n_m_kmm_unsigned"),
        (f"a:1@{SHA}", "a:1-n_m_kmm_unsigned"),
        (f"registry:5000/a@{SHA}", "registry:5000/a:n_m_kmm_unsigned"),
    ],
)
def test_a_suffix_goes_behind_the_tag_or_is_the_tag_and_never_keeps_the_digest(text, expected):
    assert str(parse(text).with_suffix("-n_m_kmm_unsigned")) == expected


def test_a_suffix_that_makes_the_tag_too_long_is_an_error():
    suffix = "-n_m_kmm_unsigned"
    whole = parse("a:" + "t" * (128 - len(suffix))).with_suffix(suffix)
    assert len(whole.tag) == 128
    with pytest.raises(reference.ReferenceError, match="has a tag of 129 characters"):
        parse("a:" + "t" * (129 - len(suffix))).with_suffix(suffix)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("a", "a:v1"),
        ("registry:5000/a", "registry:5000/a:v1"),
        (f"registry:5000/a:2@{SHA}", "registry:5000/a:v1"),
    ],
)
def test_another_tag_never_keeps_the_digest(text, expected):
    assert str(parse(text).with_tag("v1")) == expected


@pytest.mark.parametrize("tag", ["", "a b", "5000/evil", f"v1@{SHA}", "-v", "a:b", "v" * 129])
def test_another_tag_that_is_none_is_an_error(tag):
    with pytest.raises(reference.ReferenceError, match="tag"):
        parse("a").with_tag(tag)


@given(st.text("aA0.:/@_-[]\n", max_size=30))
def test_no_text_ends_in_anything_but_a_reference_that_is_written_alike_or_a_reference_error(text):
    try:
        found = parse(text)
    except reference.ReferenceError:
        return
    assert str(found) == text
