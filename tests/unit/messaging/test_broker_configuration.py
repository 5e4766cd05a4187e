import json

from flexmeter.messaging import BrokerSettings, Cluster, Credential, identity
from flexmeter.messaging.broker import configuration


def made(tmp_path, *identities, **settings):
    server = Credential(tmp_path / "s.crt", tmp_path / "s.key", tmp_path / "ca.crt")
    text = configuration(BrokerSettings(tmp_path, **settings), (1, 2, 3), server, identities, "secret")
    return json.loads(text)


def test_every_tenant_has_an_account_with_users_by_certificate(tmp_path):
    content = made(
        tmp_path,
        identity("acme", "con-1", "device"),
        identity("acme", "platform", "platform"),
        identity("b", "x", "device"),
    )
    assert set(content["accounts"]) == {"acme", "b"}
    device, platform = content["accounts"]["acme"]["users"]
    assert device["user"] == "urn:flexmeter:acme:device:con-1"
    assert "fm.v1.acme.con-1.readings" in device["permissions"]["publish"]["allow"]
    assert not any(subject.startswith("$") for subject in device["permissions"]["subscribe"]["allow"])
    assert device["allowed_connection_types"] == ["MQTT"]
    assert platform == {"user": "urn:flexmeter:acme:platform:platform"}


def test_tls_with_certificates_is_never_off(tmp_path):
    content = made(tmp_path, cluster=Cluster("c", 4, ("h:4",)))
    assert content["tls"]["verify_and_map"]
    assert content["mqtt"]["tls"]["verify_and_map"]
    assert content["cluster"]["tls"]["verify"]


def test_a_filter_with_everything_below_also_covers_the_topic_itself(tmp_path):
    (service,) = made(tmp_path, identity("acme", "lv", "service"))["accounts"]["acme"]["users"]
    assert {"fm.v1.acme.>", "fm.v1.acme"} <= set(service["permissions"]["subscribe"]["allow"])


def test_safe_against_a_power_cut_unless_told_otherwise(tmp_path):
    assert made(tmp_path)["jetstream"]["sync_interval"] == "always"
    assert made(tmp_path, sync_interval="2m")["jetstream"]["sync_interval"] == "2m"


def test_nodes_of_a_cluster_show_a_secret_and_list_all_routes(tmp_path):
    cluster = made(tmp_path, cluster=Cluster("c", 4, ("h1:4", "h2:4")))["cluster"]
    assert cluster["routes"] == ["nats-route://node:secret@h1:4", "nats-route://node:secret@h2:4"]
    assert cluster["authorization"]["password"] == "secret"
    assert "cluster" not in made(tmp_path)
