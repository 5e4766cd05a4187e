"""Tenants, tokens, devices, grids and topologies."""

from __future__ import annotations

import stat
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from flexmeter.errors import AccessError, InputError, StorageError
from flexmeter.registry import Device, Registry, Scope, open_registry
from flexmeter.registry.topology import VersionMismatch


class Clock:
    now_ms = 1_000_000

    def __call__(self) -> int:
        return self.now_ms


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def registry(tmp_path: Path, clock: Clock) -> Iterator[Registry]:
    opened = open_registry(tmp_path / "registry.sqlite", clock=clock)
    opened.tenants.add("acme")
    yield opened
    opened.close()


class TestTenants:
    def test_added_once(self, registry: Registry) -> None:
        registry.tenants.add("acme")
        registry.tenants.add("beta")
        assert registry.tenants.names() == ("acme", "beta")

    @pytest.mark.parametrize("name", ["", "a b", "a/b", "ä", "x" * 65, "a.b", "../up"])
    def test_a_name_must_fit_a_topic(self, registry: Registry, name: str) -> None:
        with pytest.raises(InputError, match="tenant"):
            registry.tenants.add(name)

    def test_an_unknown_tenant_is_named(self, registry: Registry) -> None:
        with pytest.raises(InputError, match=r"'nobody'.*acme"):
            registry.tokens.create("nobody", "x", {Scope.READ})


class TestTokens:
    def test_a_token_tells_tenant_and_scopes(self, registry: Registry) -> None:
        token = registry.tokens.create("acme", "estimator", {Scope.READ, Scope.TOPOLOGY})
        found = registry.tokens.authenticate(token)
        assert (found.tenant, found.label) == ("acme", "estimator")
        assert found.scopes == {Scope.READ, Scope.TOPOLOGY}

    def test_only_a_hash_is_kept(self, registry: Registry, tmp_path: Path) -> None:
        token = registry.tokens.create("acme", "x", {Scope.READ})
        secret = token.split("_", 2)[2]
        assert len(secret) >= 43
        registry.close()
        kept = b"".join(file.read_bytes() for file in tmp_path.iterdir())
        assert secret.encode() not in kept

    def test_no_two_tokens_are_alike_and_none_is_there_at_first(self, registry: Registry) -> None:
        assert registry.tokens.all("acme") == ()
        made = {registry.tokens.create("acme", "x", {Scope.READ}) for _ in range(50)}
        assert len(made) == 50

    @pytest.mark.parametrize("change", ["cut", "longer", "other id", "other prefix", "empty", "odd"])
    def test_anything_else_is_refused(self, registry: Registry, change: str) -> None:
        token = registry.tokens.create("acme", "x", {Scope.READ})
        prefix, token_id, secret = token.split("_", 2)
        wrong = {
            "cut": token[:-1],
            "longer": token + "A",
            "other id": f"{prefix}_{'0' * 12}_{secret}",
            "other prefix": f"xx_{token_id}_{secret}",
            "empty": "",
            "odd": "fm_' or 1=1 --_\x00",
        }[change]
        with pytest.raises(AccessError, match="not accepted"):
            registry.tokens.authenticate(wrong)

    def test_expired_and_revoked_tokens_are_refused(self, registry: Registry, clock: Clock) -> None:
        short = registry.tokens.create("acme", "short", {Scope.READ}, expires_ms=clock() + 10)
        long = registry.tokens.create("acme", "long", {Scope.READ})
        registry.tokens.authenticate(short)
        clock.now_ms += 10
        with pytest.raises(AccessError):
            registry.tokens.authenticate(short)
        token_id = registry.tokens.authenticate(long).token_id
        with pytest.raises(InputError):
            registry.tokens.revoke("beta", token_id)  # not its tenant
        registry.tokens.revoke("acme", token_id)
        with pytest.raises(AccessError):
            registry.tokens.authenticate(long)
        records = {record.label: record for record in registry.tokens.all("acme")}
        assert records["long"].revoked_ms == clock()
        assert records["short"].revoked_ms is None

    def test_a_token_without_scope_is_not_made(self, registry: Registry) -> None:
        with pytest.raises(InputError, match="scope"):
            registry.tokens.create("acme", "x", set())


class TestDevices:
    def test_devices_of_a_tenant_and_an_area(self, registry: Registry) -> None:
        registry.tenants.add("beta")
        registry.devices.add("acme", [Device("c1", "g1"), Device("c2", "g1"), Device("c3")])
        registry.devices.add("beta", [Device("c9", "g1")])
        assert registry.devices.of_area("acme", "g1") == ("c1", "c2")
        assert registry.devices.knows("acme", "c3")
        assert not registry.devices.knows("beta", "c3")
        assert [device.name for device in registry.devices.all("acme")] == ["c1", "c2", "c3"]

    def test_a_device_can_move(self, registry: Registry) -> None:
        registry.devices.add("acme", [Device("c1", "g1")])
        registry.devices.add("acme", [Device("c1", "g2")])
        assert registry.devices.all("acme") == (Device("c1", "g2"),)

    def test_all_or_none_are_added(self, registry: Registry) -> None:
        with pytest.raises(InputError, match="device"):
            registry.devices.add("acme", [Device("c1"), Device("not ok")])
        assert registry.devices.all("acme") == ()


class TestGrids:
    def test_versions(self, registry: Registry) -> None:
        first = registry.grids.put("acme", "ring", b"{}", ["s1"], "me")
        assert registry.grids.put("acme", "ring", b"{}", ["s1"], "me") == first
        assert registry.grids.put("acme", "ring", b"{ }", ["s1", "s2"], "me").version == 2
        found = registry.grids.get("acme", "ring")
        assert found is not None
        assert (found.document, found.switches) == (b"{ }", ("s1", "s2"))
        assert registry.grids.names("acme") == ("ring",)
        assert registry.grids.get("acme", "other") is None


class TestTopologies:
    @pytest.fixture
    def ring(self, registry: Registry) -> Registry:
        registry.topologies.start("acme", "ring", ["s1", "s2", "s3"], [True, True, False], "setup")
        return registry

    def test_a_change_is_the_next_version(self, ring: Registry, clock: Clock) -> None:
        clock.now_ms += 5
        changed = ring.topologies.put(
            "acme", "ring", [True, False, True], expected_version=1, author="rec", reason="losses"
        )
        assert (changed.version, changed.closed) == (2, (True, False, True))
        assert changed.time_ms == clock()
        assert ring.topologies.current("acme", "ring") == changed

    def test_a_change_against_another_version_is_refused(self, ring: Registry) -> None:
        put = ring.topologies.put
        put("acme", "ring", [False, True, True], expected_version=1, author="a")
        with pytest.raises(VersionMismatch) as refused:
            put("acme", "ring", [True, False, True], expected_version=1, author="b")
        assert refused.value.current == 2

    def test_wrong_length_and_unknown_grid(self, ring: Registry) -> None:
        with pytest.raises(InputError, match="2 given, expected 3"):
            ring.topologies.put("acme", "ring", [True, True], expected_version=1, author="a")
        with pytest.raises(InputError, match="other"):
            ring.topologies.put("acme", "other", [True], expected_version=1, author="a")
        assert ring.topologies.current("beta", "ring") is None

    def test_the_same_vector_is_no_new_version(self, ring: Registry) -> None:
        same = ring.topologies.put("acme", "ring", [True, True, False], expected_version=1, author="a")
        assert same.version == 1

    def test_loading_the_grid_again_keeps_the_vector(self, ring: Registry) -> None:
        ring.topologies.put("acme", "ring", [False, True, True], expected_version=1, author="a")
        start = ring.topologies.start
        assert start("acme", "ring", ["s1", "s2", "s3"], [True] * 3, "setup").version == 2
        again = start("acme", "ring", ["s1", "s2", "s4"], [True] * 3, "setup")
        assert (again.version, again.switches[2]) == (3, "s4")

    def test_history_is_kept_over_a_restart(self, ring: Registry, tmp_path: Path) -> None:
        for version in (1, 2):
            vector = [version == 1, False, True]
            ring.topologies.put("acme", "ring", vector, expected_version=version, author="a", reason="r")
        ring.close()
        again = open_registry(tmp_path / "registry.sqlite")
        found = again.topologies.history("acme", "ring")
        assert [(t.version, t.closed) for t in found] == [
            (3, (False, False, True)),
            (2, (True, False, True)),
            (1, (True, True, False)),
        ]
        assert [t.version for t in again.topologies.history("acme", "ring", before_version=3, limit=1)] == [2]
        again.close()

    def test_alerts_not_sent_are_known(self, ring: Registry) -> None:
        first = ring.topologies.current("acme", "ring")
        assert ring.topologies.not_alerted() == (("acme", first),)
        assert first is not None
        ring.topologies.alerted("acme", first)
        assert ring.topologies.not_alerted() == ()
        second = ring.topologies.put("acme", "ring", [False] * 3, expected_version=1, author="a")
        assert ring.topologies.not_alerted() == (("acme", second),)

    def test_of_many_at_once_one_wins(self, ring: Registry, tmp_path: Path) -> None:
        """Two processes (here: connections) and several threads change the same version."""
        other = open_registry(tmp_path / "registry.sqlite")
        won: list[int] = []
        barrier = threading.Barrier(8)

        def change(number: int) -> None:
            barrier.wait()
            vector = [bool(number & bit) for bit in (1, 2, 4)]
            try:
                side = (ring if number % 2 else other).topologies
                side.put("acme", "ring", vector, expected_version=1, author=str(number))
            except VersionMismatch:
                return
            won.append(number)

        numbers = [n for n in range(8) if n != 3]  # 3 is the vector in force
        threads = [threading.Thread(target=change, args=[n]) for n in [*numbers, 8]]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        current = ring.topologies.current("acme", "ring")
        assert current is not None
        assert current.version == 2
        assert [str(n) for n in won] == [current.author]
        other.close()


class TestFile:
    def test_only_the_owner_may_read_it(self, registry: Registry, tmp_path: Path) -> None:
        mode = (tmp_path / "registry.sqlite").stat().st_mode
        assert stat.S_IMODE(mode) == 0o600

    def test_backup_is_a_registry(self, registry: Registry, tmp_path: Path) -> None:
        token = registry.tokens.create("acme", "x", {Scope.READ})
        registry.database.backup(tmp_path / "copy.sqlite")
        copy = open_registry(tmp_path / "copy.sqlite")
        assert copy.tokens.authenticate(token).tenant == "acme"
        copy.close()

    def test_a_file_that_is_none_is_refused(self, tmp_path: Path) -> None:
        (tmp_path / "registry.sqlite").write_text("not a database, but long enough " * 40)
        with pytest.raises(StorageError, match="registry"):
            open_registry(tmp_path / "registry.sqlite")
