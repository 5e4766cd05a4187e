"""Who asks, and whether the token permits it."""

from __future__ import annotations

from collections.abc import Callable

from fastapi import Security
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer

from flexmeter.api.problems import Problem
from flexmeter.errors import AccessError
from flexmeter.registry import Principal, Scope, Tokens

_bearer = HTTPBearer(auto_error=False, description="A token of `flexmeter token create`")
_CHALLENGE = {"WWW-Authenticate": "Bearer"}


def permitting(tokens: Tokens, scope: Scope) -> Callable[..., Principal]:
    """Return a dependency that gives the principal of a token with this scope."""

    def principal(given: HTTPAuthorizationCredentials | None = Security(_bearer)) -> Principal:  # noqa: B008
        if given is None:
            raise Problem(401, "expected a bearer token in the Authorization header", _CHALLENGE)
        try:
            found = tokens.authenticate(given.credentials)
        except AccessError as error:
            raise Problem(401, str(error), _CHALLENGE) from error
        if scope not in found.scopes:
            raise Problem(403, f"token {found.label!r} has no scope {scope.value!r}")
        return found

    return principal
