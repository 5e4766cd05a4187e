"""`flexmeter run broker`: a node of a broker cluster that has no Event Source, database or API of its own.

It needs the authority's folder and the registry of the node where `flexmeter up` runs, which says who may connect.
"""

from __future__ import annotations

import asyncio
import logging

import httpx

from flexmeter.app.addresses import BrokerAddress, write_address
from flexmeter.app.house import broker_settings, guard_disk, known_clients, only_one
from flexmeter.config import Config
from flexmeter.errors import InputError
from flexmeter.messaging import Broker, open_authority
from flexmeter.pipeline.shared import STREAM
from flexmeter.supervision import Supervisor

log = logging.getLogger(__name__)


async def run_node(config: Config) -> None:
    """Run the node until cancelled."""
    if config.cluster is None:
        raise InputError(
            "run broker: expected a section [cluster] in the configuration; without one use `flexmeter up`"
        )
    only_one(config)
    known = known_clients(config)
    authority = open_authority(config.data_folder / "certificates")
    async with Supervisor() as supervisor:
        platforms = [who for who in known if who.role == "platform"]
        broker = Broker(broker_settings(config), authority, supervisor, platforms)
        address = BrokerAddress(config.broker.host, *broker.choose_ports())
        write_address(config, address)
        async with broker:
            log.info("event=ready node=%s port=%d", config.cluster.node, address.port)
            # A message that nobody has subscribed to is acknowledged and dropped.
            await _first_subscriptions(address, set(config.tenants))
            await broker.admit(known)
            log.info("event=admitted clients=%d", len(known))
            await guard_disk(config, broker)


async def _first_subscriptions(address: BrokerAddress, tenants: set[str]) -> None:
    """Return when the cluster keeps the messages of every tenant for somebody."""
    url = f"http://{address.host}:{address.monitor_port}/jsz?consumers=true"
    async with httpx.AsyncClient(trust_env=False, timeout=10) as client:
        while True:
            try:
                accounts = (await client.get(url)).raise_for_status().json().get("account_details") or []
            except (httpx.HTTPError, ValueError):
                accounts = []
            served = {
                account["name"]
                for account in accounts
                for stream in account.get("stream_detail") or []
                if stream["name"] == STREAM and stream.get("consumer_detail")
            }
            if tenants <= served:
                return
            await asyncio.sleep(0.2)
