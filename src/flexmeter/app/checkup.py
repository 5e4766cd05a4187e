"""What `flexmeter doctor` looks at: can the platform work, does it, and is every message accounted for."""

from __future__ import annotations

import datetime
import os
import shutil
import ssl
import subprocess
from collections.abc import Iterator
from pathlib import Path

import httpx
import msgspec
from cryptography import x509

from flexmeter.app.addresses import api_address, broker_address
from flexmeter.app.tenants import letters_path
from flexmeter.config import Config, read_config
from flexmeter.errors import FlexmeterError
from flexmeter.messaging.broker import find_server
from flexmeter.pipeline import DeadLetters

_EXPIRES_SOON = datetime.timedelta(days=30)


class Check(msgspec.Struct, frozen=True):
    """One thing that was looked at."""

    name: str
    ok: bool
    detail: str


def check_up(config_file: Path) -> list[Check]:
    """Return all checks, of a platform that runs or does not."""
    try:
        config = read_config(config_file)
    except FlexmeterError as error:
        return [Check("configuration", False, str(error))]
    checks = [Check("configuration", True, str(config_file)), _broker_program(), _folder(config), _disk(config)]
    checks += [*_certificates(config), _broker(config), *_api(config), *_letters(config)]
    return checks


def _broker_program() -> Check:
    try:
        program = find_server()
        version = subprocess.run([program, "--version"], capture_output=True, text=True, check=True, timeout=10)
    except (FlexmeterError, OSError, subprocess.SubprocessError) as error:
        return Check("broker program", False, str(error))
    return Check("broker program", True, version.stdout.strip())


def _folder(config: Config) -> Check:
    folder = config.data_folder
    if not folder.exists():
        return Check("data folder", False, f"{folder} is not there; `flexmeter init` makes it")
    return Check("data folder", os.access(folder, os.W_OK), f"{folder}")


def _disk(config: Config) -> Check:
    folder = config.data_folder if config.data_folder.exists() else config.folder
    free_mb = shutil.disk_usage(folder).free >> 20
    least = config.data.min_free_mb
    return Check("disk", free_mb > least, f"{free_mb} MB free, the broker stops accepting below {least} MB")


def _certificates(config: Config) -> Iterator[Check]:
    now = datetime.datetime.now(datetime.UTC)
    for path in sorted((config.data_folder / "certificates").glob("*.crt")):
        certificate = x509.load_pem_x509_certificate(path.read_bytes())
        end = certificate.not_valid_after_utc
        if path.name == "ca.crt" or end < now + _EXPIRES_SOON:
            yield Check(f"certificate {path.stem}", end > now + _EXPIRES_SOON, f"valid until {end:%Y-%m-%d}")


def _broker(config: Config) -> Check:
    try:
        address = broker_address(config)
        url = f"http://{address.host}:{address.monitor_port}"
        status = httpx.get(f"{url}/healthz", timeout=5, trust_env=False).json()["status"]
        streams = httpx.get(f"{url}/jsz", timeout=5, trust_env=False).json()
    except (FlexmeterError, httpx.HTTPError, KeyError, ValueError) as error:
        return Check("broker", False, str(error))
    waiting = f"{streams['messages']} messages in {streams['bytes'] >> 20} MB of streams"
    return Check("broker", status == "ok", f"port {address.port}, {status}, {waiting}")


def _api(config: Config) -> Iterator[Check]:
    """Yield readiness and, per tenant, whether received = stored + duplicate + rejected + queued."""
    try:
        token = (config.data_folder / f"{config.tenants[0]}.token").read_text().strip()
        with httpx.Client(
            base_url=api_address(config).url,
            headers={"Authorization": f"Bearer {token}"},
            verify=ssl.create_default_context(cafile=str(config.data_folder / "certificates" / "ca.crt")),
            timeout=5,
            trust_env=False,
        ) as client:
            ready = client.get("/readyz")
            metrics = client.get("/metrics").raise_for_status().text
    except (FlexmeterError, httpx.HTTPError, OSError) as error:
        yield Check("platform", False, str(error))
        return
    yield Check("platform", ready.is_success, "ready" if ready.is_success else ready.text)
    for tenant in config.tenants:
        received = _metric(metrics, f'flexmeter_messages_received_total{{tenant="{tenant}"}}')
        parts = {
            state: _metric(metrics, f'flexmeter_messages_total{{tenant="{tenant}",state="{state}"}}')
            for state in ("stored", "duplicate", "rejected")
        }
        parts["queued"] = _metric(metrics, f'flexmeter_messages_queued{{tenant="{tenant}"}}')
        account = " + ".join(f"{count:.0f} {state}" for state, count in parts.items())
        yield Check(f"messages of {tenant}", received == sum(parts.values()), f"{received:.0f} received = {account}")
        missing = _metric(metrics, f'flexmeter_sequence_missing{{tenant="{tenant}"}}')
        yield Check(f"sequence of {tenant}", missing == 0, f"{missing:.0f} numbered batches never came")


def _letters(config: Config) -> Iterator[Check]:
    for tenant in config.tenants:
        path = letters_path(config, tenant)
        if path.exists():
            counts = DeadLetters(path).counts()
            text = ", ".join(f"{count} {reason}" for reason, count in counts.items()) or "none"
            yield Check(f"dead letters of {tenant}", True, text)


def _metric(text: str, name: str) -> float:
    for line in text.splitlines():
        if line.startswith(name):
            return float(line.rsplit(" ", 1)[1])
    return 0.0
