from pathlib import Path

import msgspec
import pytest

from flexmeter.messages import decode_readings
from flexmeter.messages.schema import documents

FORMAT = Path(__file__).parents[3] / "docs" / "format"


@pytest.mark.parametrize("name", sorted(documents()))
def test_the_published_schema_is_the_one_in_force(name):
    assert (FORMAT / name).read_text() == documents()[name]


def test_the_example_of_the_page_is_a_valid_batch():
    page = (FORMAT / "README.md").read_text()
    example = page.split("```json\n")[1].split("```")[0]
    assert decode_readings(example.encode()).meters == ("m00042",)


def test_every_field_of_the_readings_schema_is_in_the_cddl():
    schema = msgspec.json.decode(documents()["readings.schema.json"])
    fields = schema["$defs"][schema["$ref"].rsplit("/", 1)[1]]["properties"]
    rule = documents()["flexmeter.cddl"].split("readings = {")[1].split("\n}")[0]
    assert {line.strip(" ?,").split(":")[0] for line in rule.strip().splitlines()} >= set(fields)
