from contextlib import suppress
from pathlib import Path

import numpy as np
import opendssdirect
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from flexmeter.errors import InputError
from flexmeter.grid.readers import read_dss
from flexmeter.powerflow import compile_network, powerflow

SCRIPT = """clear
Set DefaultBaseFrequency=50 ! comment
new circuit.test basekv=20 pu=1.02
~ mvasc3=200 mvasc1=210
// another comment
New LineCode.nayy nphases=3 R1=.206 X1=.08 R0=.824 X0=.3 C1=260 C0=150 units=km
New Transformer.t buses=(sourcebus lv) conns=(delta wye) kVs=(20 0.4) kVAs=(400 400) XHL=4 %loadloss=1.1
New Line.l1 bus1=lv bus2=a linecode=nayy length=250 units=m
New Line.l2 bus1=a.1.2.3 bus2=b linecode=nayy length=0.3 units=km
new load.one bus1=b.2 phases=1 kv=0.23 kw=6 pf=0.95
new load.three bus1=a kv=0.4 kw=20 kvar=4 vminpu=0.8 vmaxpu=1.2
new load.z bus1=b kv=0.4 kw=9 pf=-0.9 model=2
batchedit load.t.* kw=21
redirect more.dss
set voltagebases=[20 .4]
calcvoltagebases
solve
"""


@pytest.fixture
def script(tmp_path: Path) -> Path:
    (tmp_path / "more.dss").write_text("edit load.one kw=7\n")
    path = tmp_path / "test.dss"
    path.write_text(SCRIPT)
    return path


def test_load_flow_equals_opendss(script: Path) -> None:
    grid = read_dss(script).grid
    network = compile_network(grid)
    ours = powerflow(network).voltage_v[:, 0]
    text = opendssdirect.Text.Command
    text(f"compile ({script})")
    text("set tolerance=1e-9")
    text("solve")
    names = opendssdirect.Circuit.AllNodeNames()
    theirs = dict(zip((name.lower() for name in names), opendssdirect.Circuit.AllBusVMag(), strict=True))
    for value, (bus, phase) in zip(ours, network.nodes, strict=True):
        assert abs(value) == pytest.approx(theirs[f"{bus}.{'abc'.index(phase) + 1}"], rel=2e-6)


def test_reads_what_the_script_says(script: Path) -> None:
    case = read_dss(script)
    grid = case.grid
    assert {bus.id: bus.voltage_v for bus in grid.buses} == {"sourcebus": 20e3, "lv": 400.0, "a": 400.0, "b": 400.0}
    assert [line.length_km for line in grid.lines] == pytest.approx([0.25, 0.3])
    loads = {load.id: load for load in grid.loads}
    assert loads["one"].power_w == (7000.0,)
    assert loads["three"].power_w == pytest.approx((7000.0,) * 3)
    assert loads["z"].zip == (1.0, 0.0, 0.0)
    assert loads["z"].power_var[0] < 0
    assert grid.frequency_hz == 50
    assert np.shape(grid.line_types[0].c_nf_per_km) == (3, 3)


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("new capacitor.c bus1=a", "class 'capacitor' is not known"),
        ("new line.l9 bus1=a bus2=q linecode=none", "linecode: 'none' does not exist"),
        ("new line.l9 bus1=a bus2=q rmatrix=(1 2)", "line property 'rmatrix' is not known"),
        ("new load.x a 3", "expected name=value"),
        ("edit load.nobody kw=1", "load.nobody does not exist"),
        ("new load.x bus1=a kw=many", "'many', expected a number"),
        ("new load.x bus1=a.5 phases=1", "expected bus.1.2.3"),
        ("new load.x bus1=a pf=0", "pf: 0.0"),
        ("new load.x bus1=a conn=delta", "expected conn=wye"),
        ("redirect nowhere.dss", "cannot be read"),
        ("redirect test.dss", "20 levels"),
        ("transmogrify", "command 'transmogrify' is not known"),
        ("new transformer.u buses=(a) conns=(wye wye) kVs=(1 1) kVAs=(1 1)", "expected 2 values"),
        ("new line.l9 bus1=x bus2=y linecode=nayy length=1 units=parsec", "units: 'parsec'"),
        ("new line.l9 bus1=x bus2=y linecode=nayy", "no source or transformer is tied to it"),
        ("batchedit load.( kw=1", "no regular expression"),
    ],
)
def test_refuses_what_it_does_not_know(script: Path, line: str, message: str) -> None:
    script.write_text(SCRIPT + line + "\n")
    with pytest.raises(InputError, match=message.replace("(", r"\(")):
        read_dss(script)


def test_script_without_circuit(tmp_path: Path) -> None:
    (tmp_path / "x.dss").write_text("set frequency=50\n")
    with pytest.raises(InputError, match="no circuit"):
        read_dss(tmp_path / "x.dss")


_WORDS = st.sampled_from([*SCRIPT.split(), "=", "(", ")", "[", "nan", "-1", "1e999", "~", "'", "\x00", "load.one.2"])


@settings(max_examples=150, deadline=None)
@given(st.lists(st.lists(_WORDS, max_size=8).map(" ".join), max_size=6), st.binary(max_size=20))
def test_never_fails_but_by_input_error(
    tmp_path_factory: pytest.TempPathFactory, lines: list[str], tail: bytes
) -> None:
    path = tmp_path_factory.mktemp("fuzz") / "test.dss"
    body = SCRIPT.replace("redirect more.dss\n", "") + "\n".join(lines)
    path.write_bytes(body.encode() + tail)
    with suppress(InputError):
        read_dss(path)
