from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from kmm_buildah.dockerfile import base_images, instructions, secrets_as_files


def images(text: str, **args: str) -> tuple[str, ...]:
    return base_images(text, args, "arm64")


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("FROM registry.example.com/base:1", ("registry.example.com/base:1",)),
        ("from ubuntu", ("ubuntu",)),
        ("FROM --platform=linux/amd64 a/b AS stage\nFROM Stage\nFROM c", ("a/b", "c")),
        ("FROM scratch\nCOPY --chown=1:1 --from=reg:5000/tools:2 /a /b", ("reg:5000/tools:2",)),
        ("FROM a AS x\nFROM scratch\nCOPY --from=x /a /\nCOPY --from=0 /b /", ("a",)),
        ("FROM scratch\nRUN --mount=type=bind,from=tools,target=/t --network=none ls", ("tools",)),
        ("FROM a\nFROM a\nFROM b", ("a", "b")),
        ("FROM \\\n  # why\n\n  a:1 \\\n  AS x", ("a:1",)),
        ("# escape=`\nFROM `\na:1\nRUN c:\\\\", ("a:1",)),
        ("# syntax=docker/dockerfile:1\n#escape = `\nFROM `\r\na:1", ("a:1",)),
        ("\n# escape=`\nFROM `", ()),
        ("FROM a@sha256:" + "0" * 64, ("a@sha256:" + "0" * 64,)),
        ("FROM dir:a\nFROM docker-archive:auth.json\nCOPY --from=oci:x a /b", ()),
        ("FROM\nFROM -x\nFROM A\nFROM ../x\nCOPY\nfrom", ()),
        ("RUN <<EOF\nFROM nothing\nEOF\nFROM a", ("a",)),
        ("RUN <<-'E' cat\n\tFROM nothing\n\tE\nFROM a", ("a",)),
        ("RUN echo $((1<<x))\nFROM a", ("a",)),
        ("COPY <<A <<B /\nFROM x\nA\nFROM y\nB\nFROM a", ("a",)),
        ("", ()),
    ],
)
def test_the_images_that_a_dockerfile_begins_or_copies_from_are_found(text, found):
    assert images(text) == found


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("ARG B=base\nARG T\nFROM $B:${T:-1}", ("base:1",)),
        ('ARG B="base" T=\'2\'\nFROM "$B:$T"', ("base:2",)),
        ("ARG T=7\nFROM base:$T", ("base:7",)),
        ("ARG T=7\nFROM base:$T-${KERNEL_VERSION}", ("base:7-",)),
        ("ARG X=1\nARG T=$X.2\nFROM base:$T", ("base:1.2",)),
        ("FROM base:${TARGETARCH}", ("base:arm64",)),
        ("FROM base:${T", ()),
    ],
)
def test_variables_mean_what_the_arguments_before_say(text, found):
    assert images(text) == found


def test_the_builds_arguments_win_over_the_dockerfiles_where_it_declares_them():
    assert images("ARG T=7\nFROM base:$T", T="8", U="9") == ("base:8",)
    assert images("FROM base:$T", T="8") == ()


def test_no_more_images_are_named_than_anyone_needs():
    assert len(images("\n".join(f"FROM a{number}" for number in range(1000)))) == 50


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("RUN --mount=type=secret,id=a cat /run/secrets/a", {"a"}),
        ("RUN --mount=id=a,type=secret,required=true --mount=type=secret,id=b x", {"a", "b"}),
        ("RUN --mount=type=secret,id=a,target=/a --mount=type=secret,dst=/b,id=b x", set()),
        ("RUN --mount=type=cache,id=a,target=/a x", set()),
        ("RUN echo --mount=type=secret,id=a", set()),
        ("# RUN --mount=type=secret,id=a", set()),
    ],
)
def test_secrets_that_a_run_mounts_as_files_are_known(text, found):
    assert secrets_as_files(text) == found


@pytest.mark.parametrize("name", ["$A", "$A" * 100_000])
def test_variables_that_grow_without_end_are_no_image(name):
    text = "ARG A=aaaaaaaaaa\n" + "ARG A=$A$A\n" * 100 + f"FROM {name}\nFROM b"
    assert images(text) == ("b",)
    assert images(f"ARG A\nFROM {name}\nFROM b", A="a" * 2**20) == ("b",)


WORDS = st.sampled_from(
    ["FROM", "ARG", "RUN", "COPY", "a", "${", "}", "$", "\\", "\n", " ", "#", "<<E", "E", "`", "=", '"', "--mount=",
     "--from=", ",", "type=secret", "id", "\r", "\x00", "\u2028", "AS", "escape"]
)  # fmt: skip


@given(st.one_of(st.text(), st.lists(WORDS).map("".join)))
def test_whatever_a_dockerfile_holds_it_is_read(text):
    for name, _ in instructions(text):
        assert name
    images(text, a="b")
    secrets_as_files(text)


@pytest.mark.parametrize("part", ["FROM --a x ", 'ARG A="', "RUN <<", "a\\\n", "${A:-"])
def test_a_dockerfile_as_long_as_a_config_map_can_be_is_read(part):
    text = "FROM " + part * (2**20 // len(part))
    images(text)
    secrets_as_files(text)
