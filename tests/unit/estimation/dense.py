"""A textbook dense Gauss-Newton estimator, written from the network's arrays alone, as independent truth.

Loops are linear constraints, taken care of by a basis of their null space; free head angles are three more unknowns,
with the angles between phases held by pseudo-readings of 0 +- `spread`.
"""

import numpy as np
from scipy.linalg import null_space

TURN = np.exp(-2j * np.pi / 3 * np.arange(3))


def linear_map(network, free_angles=False):
    """V of every (bus, phase), J of every edge, I and loop currents as linear functions of the unknowns.

    Unknowns: (m, Re I, Im I, Re x, Im x), with the real and imaginary parts of the head voltages for m if free.
    """
    n, k, n_loop = len(network.bus_ids), len(network.injections), len(network.loops)
    heads = 6 if free_angles else 3
    size = heads + 2 * k + 6 * n_loop
    v, j = np.zeros((n, 3, size), complex), np.zeros((n, 3, size), complex)
    i, x = np.zeros((k, size), complex), np.zeros((n_loop, 3, size), complex)
    i[range(k), heads + np.arange(k)] = 1
    i[range(k), heads + k + np.arange(k)] = 1j
    columns = heads + 2 * k + np.arange(3 * n_loop)
    x.reshape(-1, size)[range(3 * n_loop), columns] = 1
    x.reshape(-1, size)[range(3 * n_loop), columns + 3 * n_loop] = 1j
    for row in range(k):
        bus, plus, minus = network.injection_bus[row], network.injection_plus[row], network.injection_minus[row]
        j[bus, plus] += i[row]
        if minus >= 0:
            j[bus, minus] -= i[row]
    for loop, current in zip(network.loops, x, strict=True):
        j[loop.from_bus] += loop.transfer.conj().T @ current
        j[loop.to_bus] -= current
    for b in range(n - 1, 0, -1):
        j[network.parent[b]] += network.transfer[b].conj().T @ j[b]
    v[0, range(3), range(3)] = 1 if free_angles else TURN
    if free_angles:
        v[0, range(3), 3 + np.arange(3)] = 1j
    for b in range(1, n):
        v[b] = network.transfer[b] @ v[network.parent[b]] - network.impedance[b] @ j[b]
    return v, j, i, x


def feasible(network, v, x):
    """A basis of the unknowns whose loops are closed and whose absent phases carry nothing."""
    rows = []
    for loop, current in zip(network.loops, x, strict=True):
        gap = loop.transfer @ v[loop.from_bus] - v[loop.to_bus] - loop.impedance @ current
        rows += [gap[p] if "abc"[p] in loop.phases else current[p] for p in range(3)]
    if not rows:
        return np.eye(v.shape[2])
    rows = np.array(rows)
    rows /= np.abs(rows).max(axis=1, keepdims=True)
    return null_space(np.vstack([rows.real, rows.imag]), rcond=1e-10)


class Dense:
    """Weighted least squares over explicit rows (kind, complex row of V, complex row of J), one scenario."""

    def __init__(self, network, spread=None):
        self.network, self.spread = network, spread
        v, j, i, x = linear_map(network, spread is not None)
        self.basis = feasible(network, v, x)
        self.v, self.j, self.i, self.x_loop = v @ self.basis, j @ self.basis, i @ self.basis, x @ self.basis
        self.rows = []

    def terminal(self, i):
        n = self.network
        v = self.v[n.injection_bus[i], n.injection_plus[i]].copy()
        if n.injection_minus[i] >= 0:
            v -= self.v[n.injection_bus[i], n.injection_minus[i]]
        return v

    def meter(self, meter):
        n, phase = self.network, "abc".find(meter.phase[0])
        if meter.at == "load":
            i = n.injections.index((meter.id, meter.phase))
            self.rows.append((meter.quantity, self.terminal(i), self.i[i]))
        elif meter.at == "bus":
            v = self.v[n.bus_ids.index(meter.id)]
            between = v["abc".find(meter.phase[1])] if len(meter.phase) == 2 else 0
            self.rows.append((meter.quantity, v[phase] - between, None))
        elif meter.at == "head":
            self.rows.append((meter.quantity, self.v[0, phase], self.j[0, phase]))
        elif meter.id in n.branch_ids:
            b = n.branch_ids.index(meter.id)
            sign = 1 if n.forward[b] else -1
            if (meter.at == "branch_from") == n.forward[b]:
                p = n.parent[b]
                row = self.v[p, phase], (n.transfer[b].conj().T @ self.j[b])[phase]
            else:
                row = self.v[b, phase], self.j[b, phase]
            self.rows.append((meter.quantity, row[0], sign * row[1]))
        else:
            k = [loop.branch for loop in n.loops].index(meter.id)
            loop, x = n.loops[k], self.x_loop[k]
            if meter.at == "branch_from":
                row = self.v[loop.from_bus, phase], (loop.transfer.conj().T @ x)[phase]
            else:
                row = self.v[loop.to_bus, phase], x[phase]
            self.rows.append((meter.quantity, *row))

    def evaluate(self, x):
        values, jacobian = [], []
        for kind, v_row, i_row in self.rows:
            value, row = quantity(kind, v_row, i_row, x)
            values.append(value)
            jacobian.append(row)
        if self.spread is not None:
            value, row = self.deviations(x)
            values += list(value)
            jacobian += list(row)
        return np.array(values), np.array(jacobian)

    def deviations(self, x):
        """Two orthogonal combinations of the three phases' angles, less 0, -120, 120 degrees."""
        v = self.v[0] @ x
        angle = np.angle(v * TURN.conj() / np.mean(v * TURN.conj()))
        row = (v.conj()[:, None] * self.v[0]).imag / np.abs(v)[:, None] ** 2
        mix = null_space(np.ones((1, 3))).T
        return mix @ angle, mix @ row

    def start(self):
        n = self.network
        k = len(n.injections)
        heads = 3 if self.spread is None else 6
        full = np.zeros(self.basis.shape[0])
        head = n.nominal_v[0] * TURN
        full[:heads] = n.nominal_v[0] if self.spread is None else np.concatenate([head.real, head.imag])
        x0 = self.basis.T @ full
        for i in range(k):
            current = np.conj((n.power_w[i] + 1j * n.power_var[i] + 1.0) / (self.terminal(i) @ x0))
            full[heads + i], full[heads + k + i] = current.real, current.imag
        return self.basis.T @ full

    def solve(self, z, sigma, iterations=30, start=None):
        x = self.start() if start is None else start
        if self.spread is not None:
            z, sigma = np.append(z, [0.0, 0.0]), np.append(sigma, [self.spread] * 2)
        for _ in range(iterations):
            h, jacobian = self.evaluate(x)
            step = np.linalg.lstsq(jacobian / sigma[:, None], self.off(z, h) / sigma, rcond=None)[0]
            x = x + step
        h, jacobian = self.evaluate(x)
        scaled = jacobian / sigma[:, None]
        self.x, self.h = x, h
        self.covariance = np.linalg.inv(scaled.T @ scaled)
        self.objective = float(((self.off(z, h) / sigma) ** 2).sum())
        return self

    def off(self, z, h):
        off = z - h
        for row, (kind, _, _) in enumerate(self.rows):
            if kind.endswith("angle"):
                off[row] = np.angle(np.exp(1j * off[row]))
        return off

    def sigma(self, gradient):
        return np.sqrt(np.einsum("ij,jk,ik->i", gradient, self.covariance, gradient))


def quantity(kind, v_row, i_row, x):
    """Value and gradient of one reading."""
    if kind.startswith("voltage") or kind.startswith("current"):
        row = v_row if kind.startswith("voltage") else i_row
        c = row @ x
        part = kind.split("_")[-1]
        if part == "real":
            return c.real, row.real
        if part == "imaginary":
            return c.imag, row.imag
        if part == "angle":
            return np.angle(c), (c.conj() * row).imag / abs(c) ** 2
        return abs(c), (c.conj() * row).real / abs(c)
    v, i = v_row @ x, i_row @ x
    s, ds = v * i.conj(), v_row * i.conj() + v * i_row.conj()
    return (s.real, ds.real) if kind == "active_power" else (s.imag, ds.imag)
