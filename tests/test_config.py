from __future__ import annotations

import pytest

from kmm.config import read_config, variables
from kmm.errors import ConfigError


@pytest.fixture
def write(tmp_path):
    def write(text):
        path = tmp_path / "kmm.yaml"
        path.write_text(text)
        return path

    return write


def test_without_a_file_and_variables_all_is_default():
    config = read_config({})
    assert config.plugins.allow == ()
    assert config.operator_namespace is None
    assert config.namespace == "openshift-kmm"
    assert config.settings_of("anything").options == {}


def test_a_file_is_read_and_variables_win(write):
    path = write("plugins: {allow: [a], options: {kaniko: {image: x}}}")
    assert read_config({}, path).plugins.allow == ("a",)
    config = read_config({"KMM_PLUGINS_ALLOW": "b, c ,", "KMM_CONFIG": str(path)})
    assert config.plugins.allow == ("b", "c")
    assert config.settings_of("kaniko").options == {"image": "x"}
    assert config.settings_of("buildah").options == {}


def test_what_an_image_brings_holds_where_nothing_else_is_said(write, tmp_path):
    image = tmp_path / "image.yaml"
    image.write_text("plugins: {allow: [a, b], options: {kaniko: {image: x}}}")
    brought = {"KMM_DEFAULTS": str(image)}
    assert read_config(brought).plugins.allow == ("a", "b")
    path = write("plugins: {options: {kaniko: {mirror: m}}}")
    config = read_config(brought, path)
    assert config.plugins.allow == ("a", "b")
    assert config.settings_of("kaniko").options == {"image": "x", "mirror": "m"}
    assert read_config(brought, write("plugins: {allow: [c]}")).plugins.allow == ("c",)
    assert read_config(brought, write("plugins: {allow: []}")).plugins.allow == ()
    assert read_config(brought | {"KMM_PLUGINS_ALLOW": "d"}).plugins.allow == ("d",)
    image.write_text("plugins: {alow: []}")
    with pytest.raises(ConfigError, match=r'^the environment and .*image\.yaml: plugins\.alow: .*"allow"'):
        read_config(brought)
    with pytest.raises(ConfigError, match=r"none\.yaml: cannot be read"):
        read_config({"KMM_DEFAULTS": str(tmp_path / "none.yaml")})


def test_what_the_go_operators_manifests_set_is_taken():
    config = read_config(
        {
            "OPERATOR_NAMESPACE": "kmm",
            "RELATED_IMAGES_SIGN": "s",
            "RELATED_IMAGES_MUST_GATHER": "g",
            "KMM_MANAGED": "1",
        }
    )
    assert (config.operator_namespace, config.namespace) == ("kmm", "kmm")
    assert config.settings_of("x").images == {"sign": "s", "must-gather": "g"}


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("plugin: {}", 'plugin: is not a known field; did you mean "plugins"?'),
        ("plugins: {alow: []}", 'plugins.alow: is not a known field; did you mean "allow"?'),
        ("plugins: {allow: acme}", "plugins.allow: must be a list, not a string"),
        ("plugins: {options: {kaniko: 5}}", "plugins.options.kaniko: must be an object"),
        ("[]", "must be one object"),
        ("a: 1\n---\nb: 2", "must be one object"),
        ("a: [", "is not YAML"),
        ("", "is empty"),
    ],
)
def test_a_wrong_file_is_one_clear_line(write, text, said):
    path = write(text)
    with pytest.raises(ConfigError) as raised:
        read_config({}, path)
    assert str(raised.value).startswith(f"{path}: ")
    assert said in str(raised.value)


def test_a_file_that_is_not_there_says_so(tmp_path):
    with pytest.raises(ConfigError, match="cannot be read: No such file or directory"):
        read_config({}, tmp_path / "none.yaml")


def test_an_unknown_variable_is_refused_with_the_nearest():
    with pytest.raises(ConfigError, match='KMM_PLUGIN_ALLOW is unknown; did you mean "KMM_PLUGINS_ALLOW"'):
        read_config({"KMM_PLUGIN_ALLOW": "x"})


@pytest.mark.parametrize("name", ["SERVICE_HOST", "SERVICE_PORT", "SERVICE_PORT_HTTPS", "PORT", "PORT_443_TCP_ADDR"])
def test_what_kubernetes_sets_for_services_is_not_ours(name):
    assert read_config({f"KMM_OPERATOR_WEBHOOK_{name}": "tcp://192.0.2.1"}) == read_config({})


def test_every_key_that_a_variable_can_set_is_listed():
    assert variables() == {
        "KMM_PLUGINS_ALLOW": ("plugins", "allow"),
        "KMM_PRIVILEGED_NAMESPACES": ("privilegedNamespaces",),
        "KMM_MAX_UNAVAILABLE": ("maxUnavailable",),
        "KMM_BUILDER": ("builder",),
        "KMM_SIGNER": ("signer",),
        "KMM_MAX_BUILDS": ("maxBuilds",),
        "KMM_DEVICE_PLUGIN": ("devicePlugin",),
        "KMM_METRICS_ADDRESS": ("metricsAddress",),
        "KMM_HEALTH_ADDRESS": ("healthAddress",),
        "KMM_LEASE_DURATION_SECONDS": ("leaseDurationSeconds",),
        "KMM_CA_FILE": ("caFile",),
        "KMM_PULL_SECRET_FILE": ("pullSecretFile",),
    }


def test_variables_set_words_lists_and_numbers():
    config = read_config(
        {"KMM_BUILDER": "buildah", "KMM_PRIVILEGED_NAMESPACES": "a, b", "KMM_LEASE_DURATION_SECONDS": "30"}
    )
    assert (config.builder, config.privileged_namespaces, config.lease_duration_seconds) == (
        "buildah",
        ("a", "b"),
        30,
    )
    with pytest.raises(ConfigError, match="leaseDurationSeconds"):
        read_config({"KMM_LEASE_DURATION_SECONDS": "long"})
