"""API tokens: random, kept only as a hash, each for one tenant and some scopes.

A token reads `fm_<id>_<secret>`; the secret has 256 random bits, so one SHA-256 is enough to keep
it from being found again.
"""

from __future__ import annotations

import hashlib
import hmac
import secrets
from collections.abc import Callable, Collection
from dataclasses import dataclass
from enum import StrEnum

from flexmeter.errors import AccessError, InputError
from flexmeter.registry.database import Database
from flexmeter.registry.tenants import Tenants


class Scope(StrEnum):
    """What a token permits."""

    READ = "read"
    WRITE = "write"
    TOPOLOGY = "topology"
    MONITOR = "monitor"


@dataclass(frozen=True, slots=True)
class Principal:
    """Who asks: the tenant, the token's id and label, and what it permits."""

    tenant: str
    token_id: str
    label: str
    scopes: frozenset[Scope]


@dataclass(frozen=True, slots=True)
class TokenRecord:
    """What is known of a token; never its secret."""

    id: str
    tenant: str
    label: str
    scopes: frozenset[Scope]
    created_ms: int
    expires_ms: int | None
    revoked_ms: int | None


class Tokens:
    """The tokens of all tenants."""

    def __init__(self, database: Database, tenants: Tenants, clock: Callable[[], int]) -> None:
        self._database = database
        self._tenants = tenants
        self._clock = clock

    def create(
        self,
        tenant: str,
        label: str,
        scopes: Collection[Scope],
        *,
        expires_ms: int | None = None,
    ) -> str:
        """Return a new token; it cannot be shown again."""
        self._tenants.require(tenant)
        if not scopes:
            raise InputError(f"token {label!r}: expected at least one scope of {', '.join(Scope)}")
        token_id = secrets.token_hex(6)
        secret = secrets.token_urlsafe(32)
        with self._database.change() as connection:
            connection.execute(
                "insert into tokens values (?, ?, ?, ?, ?, ?, ?, null)",
                [
                    *(token_id, tenant, label, ",".join(sorted(scopes))),
                    *(_hash(secret), self._clock(), expires_ms),
                ],
            )
        return f"fm_{token_id}_{secret}"

    def authenticate(self, token: str) -> Principal:
        """Return whose token it is; an unknown, expired or revoked one raises AccessError."""
        prefix, _, rest = token.partition("_")
        token_id, _, secret = rest.partition("_")
        found = self._database.ask(
            "select tenant, label, scopes, secret_sha256, expires_ms, revoked_ms from tokens where id = ?",
            [token_id],
        )
        tenant, label, scopes, wanted, expires_ms, revoked_ms = found[0] if found else (None,) * 6
        # compared in any case, so that the time taken does not tell which ids exist
        same = hmac.compare_digest(_hash(secret), wanted if isinstance(wanted, bytes) else _hash(""))
        expired = isinstance(expires_ms, int) and expires_ms <= self._clock()
        if prefix != "fm" or not found or not same or expired or revoked_ms is not None:
            raise AccessError("token not accepted")
        return Principal(str(tenant), token_id, str(label), _scopes(str(scopes)))

    def revoke(self, tenant: str, token_id: str) -> None:
        """Withdraw a token from now on; InputError if the tenant has no such token."""
        with self._database.change() as connection:
            changed = connection.execute(
                "update tokens set revoked_ms = coalesce(revoked_ms, ?) where tenant = ? and id = ?",
                [self._clock(), tenant, token_id],
            )
            if changed.rowcount == 0:
                raise InputError(f"token {token_id!r}: tenant {tenant} has no such token")

    def all(self, tenant: str) -> tuple[TokenRecord, ...]:
        """Return what is known of a tenant's tokens."""
        found = self._database.ask(
            "select id, label, scopes, created_ms, expires_ms, revoked_ms from tokens "
            "where tenant = ? order by created_ms, id",
            [tenant],
        )
        return tuple(
            TokenRecord(
                id=str(token_id),
                tenant=tenant,
                label=str(label),
                scopes=_scopes(str(scopes)),
                created_ms=_integer(created_ms) or 0,
                expires_ms=_integer(expires_ms),
                revoked_ms=_integer(revoked_ms),
            )
            for token_id, label, scopes, created_ms, expires_ms, revoked_ms in found
        )


def _hash(secret: str) -> bytes:
    return hashlib.sha256(secret.encode()).digest()


def _scopes(text: str) -> frozenset[Scope]:
    return frozenset(Scope(name) for name in text.split(","))


def _integer(value: object) -> int | None:
    return value if isinstance(value, int) else None
