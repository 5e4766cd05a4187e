from pathlib import Path

import pytest
from reader_checks import largest_difference_pu

from flexmeter.errors import GridError, InputError
from flexmeter.grid import encode_grid
from flexmeter.grid.readers import read_opendss

CASES = Path(__file__).parents[2] / "cases" / "readers"
CASE, IEEE13 = CASES / "four_wire.dss", CASES / "ieee13.dss"


def test_four_wire_feeder_equals_opendss_phase_to_neutral() -> None:
    case = read_opendss(CASE)
    assert {kind.neutral for kind in case.grid.line_types} == {"source"}
    assert encode_grid(case.grid)
    assert len(case.grid.line_types[0].r_ohm_per_km) == 4
    assert largest_difference_pu(case.grid, case.voltages) < 1e-6
    assert any("phase to neutral" in text for text in case.grid.assumptions)


def test_ieee_13_bus_feeder_with_its_regulators() -> None:
    case = read_opendss(IEEE13)
    assert {item.phases for item in case.grid.transformers} == {"abc", "a", "b", "c"}
    assert len({item.rated_to_v for item in case.grid.transformers if item.phases != "abc"}) > 1  # taps of their own
    assert len(case.voltages) == 41
    assert largest_difference_pu(case.grid, case.voltages) < 1e-7


def test_neutral_earthed_at_every_bus(tmp_path: Path) -> None:
    script = CASE.read_text().replace("set voltagebases", "\n".join(
        [f"new reactor.{bus} bus1={bus}.4 phases=1 r=1e-4 x=0" for bus in "abc"] + ["set voltagebases"]
    ))  # fmt: skip
    script = script.replace("new load.y phases=1 bus1=c.2.4", "new load.y phases=1 bus1=c.2")
    path = tmp_path / "earthed.dss"
    path.write_text(script)
    case = read_opendss(path)
    assert "everywhere" in {kind.neutral for kind in case.grid.line_types}
    # 0.1 milliohm per earth electrode instead of none
    assert largest_difference_pu(case.grid, case.voltages) < 5e-4


def test_switches_generators_and_open_lines(tmp_path: Path) -> None:
    extra = """new line.sw bus1=lv bus2=d switch=yes
new line.off bus1=d bus2=b length=.1 units=km r1=.2 x1=.1 r0=.5 x0=.3 c1=0 c0=0
new generator.g bus1=d phases=3 kv=.4 kw=5 pf=1 model=1
open line.off 2
set voltagebases"""
    path = tmp_path / "switches.dss"
    path.write_text(CASE.read_text().replace("set voltagebases", extra))
    case = read_opendss(path)
    assert {switch.id: switch.closed for switch in case.grid.switches} == {"switch_sw": True, "switch_off": False}
    generation = [load for load in case.grid.loads if load.kind == "generation"]
    assert sum(generation[0].power_w) == pytest.approx(-5000, rel=1e-3)
    assert largest_difference_pu(case.grid, case.voltages) < 1e-5


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("new transformer.u phases=1 windings=3 buses=(lv.1 e.1 e.2) kvs=(.23 .1 .1) kvas=(5 5 5)", "3, expected 2"),
        ("new transformer.u phases=1 windings=2 buses=(lv.1.2 e.1.2) kvs=(.4 .1) kvas=(5 5)", "neutral at node"),
        ("new transformer.u phases=1 conns=(delta delta) buses=(lv.1.2 e.1.2) kvs=(.4 .1) kvas=(5 5)", "delta winding"),
        ("new transformer.u phases=1 windings=2 buses=(lv.1 e.2) kvs=(.23 .1) kvas=(5 5)", "the same phases"),
        ("new line.x bus1=lv bus2=e length=.1 r1=1 x1=1 r0=1 x0=1\nopen line.x 1 2", "some of its phases"),
        ("new reactor.r bus1=a bus2=b phases=3 x=1", "only reactors that earth a neutral"),
        ("new upfc.u bus1=a.1 bus2=b.1 phases=1", "upfc"),
        ("new line.x bus1=a.1.2.3 bus2=e.2.3.1 length=.1 r1=1 x1=1 r0=1 x0=1", "expected those of bus1"),
        ("new line.x bus1=a bus2=e linecode=unheard_of", "OpenDSS"),
    ],
)
def test_refuses_what_the_model_has_no_counterpart_for(tmp_path: Path, line: str, message: str) -> None:
    path = tmp_path / "bad.dss"
    path.write_text(CASE.read_text().replace("set voltagebases", f"{line}\nset voltagebases"))
    with pytest.raises(InputError, match=message):
        read_opendss(path)


def test_no_file_and_no_circuit(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no such file"):
        read_opendss(tmp_path / "none.dss")
    (tmp_path / "empty.dss").write_text("clear\n")
    with pytest.raises(InputError):
        read_opendss(tmp_path / "empty.dss")


def test_missing_voltage_bases_are_a_finding(tmp_path: Path) -> None:
    path = tmp_path / "bases.dss"
    script = CASE.read_text().replace("set voltagebases=(11 .4)", "").replace("calcvoltagebases", "")
    path.write_text(script)
    with pytest.raises(GridError, match="no voltage base"):
        read_opendss(path)
