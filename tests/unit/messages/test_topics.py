import pytest
from hypothesis import given
from hypothesis import strategies as st

from flexmeter.errors import MessageError
from flexmeter.messages import topics
from flexmeter.messages.topics import Topic

NAMES = st.from_regex(r"[A-Za-z0-9_-]{1,64}", fullmatch=True).filter(lambda n: n not in ("se", "topology", "alert"))


@given(NAMES, NAMES, NAMES, NAMES)
def test_every_topic_parses_to_what_built_it(tenant, device, name, id):
    built = {
        topics.readings(tenant, device): Topic("readings", tenant, device=device),
        topics.roster(tenant, device): Topic("roster", tenant, device=device),
        topics.event(tenant, device): Topic("event", tenant, device=device),
        topics.state(tenant, device): Topic("state", tenant, device=device),
        topics.error(tenant, device): Topic("error", tenant, device=device),
        topics.command(tenant, device, name, id): Topic("command", tenant, device=device, name=name, id=id),
        topics.command_ack(tenant, device, name, id): Topic("command_ack", tenant, device=device, name=name, id=id),
        topics.estimate(tenant, "lv", name): Topic("estimate", tenant, level="lv", area=name),
        topics.topology(tenant, name): Topic("topology", tenant, name=name),
        topics.alert(tenant, device, name): Topic("alert", tenant, device=device, name=name),
    }
    for topic, parsed in built.items():
        assert topics.parse(topic) == parsed


@pytest.mark.parametrize("name", ["", "a b", "a/b", "a+", "#", "ä", "x" * 65, "a.b"])
def test_a_bad_name_is_refused(name):
    with pytest.raises(MessageError):
        topics.readings("acme", name)


@pytest.mark.parametrize("name", ["se", "topology", "alert"])
def test_a_device_may_not_be_named_like_a_grid_topic(name):
    with pytest.raises(MessageError, match="reserved"):
        topics.readings("acme", name)


@pytest.mark.parametrize(
    "topic", ["", "fm/v1", "fm/v2/acme/d/readings", "fm/v1/acme/d/other", "fm/v1/acme/se/hv/area", "fm/v1/acme/d/cmd/x"]
)
def test_a_foreign_topic_is_refused(topic):
    with pytest.raises(MessageError):
        topics.parse(topic)
