import pytest

from flexmeter.errors import InputError, MessageError
from flexmeter.messages import topics
from flexmeter.messaging.client import matches
from flexmeter.messaging.identity import Identity, identity, may_publish, may_subscribe, to_subject


def allowed(patterns, topic):
    return any(matches(pattern, topic) for pattern in patterns)


def test_a_device_may_publish_its_own_readings_and_nobody_elses():
    who = identity("acme", "m1", "device")
    assert allowed(may_publish(who), topics.readings("acme", "m1"))
    assert allowed(may_publish(who), topics.command_ack("acme", "m1", "set", "1"))
    for topic in (
        topics.readings("acme", "m2"),
        topics.readings("other", "m1"),
        topics.error("acme", "m1"),
        topics.command("acme", "m1", "set", "1"),
        topics.topology("acme", "grid"),
        topics.estimate("acme", "mv", "mv"),
    ):
        assert not allowed(may_publish(who), topic)


def test_a_device_may_read_its_errors_and_commands_but_no_readings():
    who = identity("acme", "m1", "device")
    assert allowed(may_subscribe(who), topics.error("acme", "m1"))
    assert allowed(may_subscribe(who), topics.command("acme", "m1", "set", "1"))
    for topic in (topics.readings("acme", "m1"), topics.error("acme", "m2"), topics.estimate("acme", "lv", "a")):
        assert not allowed(may_subscribe(who), topic)


def test_only_the_topology_service_and_the_platform_may_publish_topology_alerts():
    topic = topics.topology("acme", "grid")
    may = {role: allowed(may_publish(Identity("acme", "x", role)), topic) for role in ("device", "service")}
    assert may == {"device": False, "service": False}
    assert allowed(may_publish(Identity("acme", "x", "topology")), topic)
    assert allowed(may_publish(Identity("acme", "x", "platform")), topic)


def test_nobody_reaches_another_tenant():
    for role in ("device", "service", "topology", "platform"):
        who = identity("acme", "x", role)
        for pattern in (*may_publish(who), *may_subscribe(who)):
            assert pattern.startswith("fm/v1/acme/")


def test_filters_become_subjects():
    assert to_subject("fm/v1/acme/+/cmd/#") == "fm.v1.acme.*.cmd.>"


@pytest.mark.parametrize(("tenant", "name", "role"), [("a b", "x", "device"), ("a", "x/y", "device")])
def test_bad_names_are_refused(tenant, name, role):
    with pytest.raises(MessageError):
        identity(tenant, name, role)


def test_an_unknown_role_is_refused_with_the_known_ones():
    with pytest.raises(InputError, match="device, service, topology, platform"):
        identity("acme", "x", "admin")
