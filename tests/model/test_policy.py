"""The configuration: a TOML document is a whole policy, or an error that names the setting, and nothing else."""

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bursar.errors import InvalidPolicy
from bursar.model.policy import Policy, check_policy, parse_policy, policy_from

SECTIONS = list(Policy.__struct_fields__)
SETTINGS = [f"{section}.{setting}" for section in SECTIONS for setting in getattr(Policy(), section).__struct_fields__]
VALUE = st.sampled_from(["1", "-1", "0", "0.5", "nan", "inf", "true", '"4XB"', '"512MiB"', '""', "[]", "{}", "{memory = 1}", "2026-01-01", "9223372036854775808", "9" * 5000, "{"])


def test_an_empty_document_is_the_default():
    """Nobody has to write a configuration."""
    assert parse_policy("") == Policy()


def test_the_defaults_pass_their_own_check():
    """What the structs say would be accepted from a file."""
    assert check_policy(Policy()) == Policy()


def test_a_policy_survives_the_socket():
    """`reload` sends it as JSON; what arrives is what was read."""
    policy = parse_policy('[node]\nslots = {browser = 4}\ncapacity = {memory = "8GiB"}\n[queue]\nwait_s = 5.0\n')
    assert policy_from(msgspec.json.decode(msgspec.json.encode(policy))) == policy


def test_custom_slots_become_resources():
    """A slot that the node declares can be requested by name."""
    assert "browser" in parse_policy("node.slots.browser = 4").resources()


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("quue.length = 3", "configuration: quue is not a setting"),
        ("queue.lenght = 3", "configuration: queue.lenght is not a setting"),
        ("queue.length = -1", "configuration: queue.length must be int >= 0, got -1"),
        ("queue.length = 99999999999999999999", "configuration: queue.length must be int <= 1000000, got 99999999999999999999"),
        ("queue.wait_s = nan", "configuration: queue.wait_s must be float > 0.0, got nan"),
        ("queue.wait_s = '5'", "configuration: queue.wait_s must be float, got '5'"),
        ("node.reserve_share = 3.0", "configuration: node.reserve_share must be float <= 1.0, got 3.0"),
        ("node = 3", "configuration: node must be table, got 3"),
        ("node.capacity.bogus = 1", "configuration: node.capacity names 'bogus'"),
        ("node.capacity.memory = -1", "configuration: node.capacity memory must be an amount such as 512MiB, got -1"),
        ("defaults.request_memory = '4XB'", "configuration: defaults.request_memory must be an amount such as 512MiB, got '4XB'"),
        ("node.slots.cpu = 1", "configuration: node.slots.cpu is a resource that every node has"),
        ("node.slots.'a b' = 1", "configuration: node.slots must be 1 to 64 letters"),
        ("node.cpus = '0-x'", "configuration: node.cpus must be numbers such as 0-3,6 (at most 8191), got '0-x'; write for example node.cpus=0-3"),
        ("node.cpus = '3-1'", "configuration: node.cpus must be numbers such as 0-3,6"),
        ("node.gpus = [1, 1]", "configuration: node.gpus names a device twice, got [1, 1]"),
        ("node.gpus = 2", "configuration: node.gpus must be array"),
        ("node.capacity.gpu = 1", "configuration: node.capacity names 'gpu'"),
        ("node.reserve.file_size = 1", "configuration: node.reserve names 'file_size'"),
        ("node.slots.gpu = 1", "configuration: node.slots.gpu is a name that bursar uses itself; choose another, or list devices in node.gpus"),
        ("node.slots.cores = 1", "configuration: node.slots.cores is a name that bursar uses itself"),
        ("logs.most = '1MiB'", "configuration: logs.keep must be at most logs.most (1MiB), got 2MiB"),
        ("queue = ", "configuration is not TOML"),
        (b"\xff", "configuration is not TOML"),
        (f"queue.length = {'9' * 5000}", "configuration is not TOML"),
        (f"x = {'[' * 5000}", "configuration is not TOML"),
    ],
)
def test_a_bad_document_names_the_setting_and_its_value(text, sentence):
    """One line: where, what was found, what would do."""
    with pytest.raises(InvalidPolicy) as caught:
        parse_policy(text)
    assert str(caught.value).startswith(sentence)
    assert "\n" not in str(caught.value)


@given(st.text() | st.binary())
def test_any_text_is_a_policy_or_an_invalid_policy(text):
    """No other exception comes out, whatever is in the file."""
    try:
        parse_policy(text)
    except InvalidPolicy:
        return


@given(st.dictionaries(st.sampled_from([*SETTINGS, *SECTIONS, "node.slots.browser", "node.capacity.memory"]), VALUE, max_size=4))
def test_any_value_of_any_setting_is_a_policy_or_an_invalid_policy(written):
    """Right names with wrong values, settings as tables and tables as settings."""
    try:
        policy = parse_policy("\n".join(f"{setting} = {value}" for setting, value in written.items()))
    except InvalidPolicy:
        return
    assert check_policy(policy) == policy
