"""What `flexmeter init` makes."""

from __future__ import annotations

import os
from pathlib import Path

from flexmeter.app.identities import OPERATOR, PLATFORM
from flexmeter.config import read_config, write_config
from flexmeter.errors import InputError
from flexmeter.messages.topics import check_name
from flexmeter.messaging import Identity, open_authority
from flexmeter.registry import Device, Scope, open_registry


def set_up(folder: Path, tenant: str, device: str) -> dict[str, Path]:
    """Make configuration, authority, credentials, registry with a first device, and an API token; return the files."""
    check_name(tenant, "tenant")
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"{folder}: {error.strerror or error}") from error
    file = folder / "flexmeter.toml"
    write_config(file, tenant)
    config = read_config(file)
    authority = open_authority(config.data_folder / "certificates")
    authority.client(Identity(tenant, PLATFORM, "platform"))
    authority.client(Identity(tenant, OPERATOR, "service"))
    credential = authority.client(Identity(tenant, device, "device"))
    registry = open_registry(config.data_folder / "registry.sqlite")
    try:
        registry.tenants.add(tenant)
        registry.devices.add(tenant, [Device(device)])
        token = registry.tokens.create(tenant, "init", list(Scope))
    finally:
        registry.close()
    token_file = config.data_folder / f"{tenant}.token"
    with os.fdopen(os.open(token_file, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w") as output:
        output.write(token + "\n")
    return {
        "configuration": file,
        "authority": authority.certificate_file,
        "device": credential.certificate,
        "token": token_file,
    }
