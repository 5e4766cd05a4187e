from flexmeter.app.tenants import bounds
from flexmeter.config import Config, IngestConfig, QuotaConfig
from flexmeter.messaging.broker import MAX_UNACKNOWLEDGED


def test_event_sources_together_store_and_hold_no_more_than_the_tenant_may():
    for sources in (1, 4):
        config = Config(
            tenants=("acme",),
            ingest=IngestConfig(mode="stream", sources=sources),
            quota=QuotaConfig(tenant_values_per_s=8000),
        )
        one = bounds(config)
        assert one["quota"].values_per_s * sources == 8000
        assert one["gathering"].max_waiting_messages * sources == MAX_UNACKNOWLEDGED
