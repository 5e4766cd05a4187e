"""A textbook dense Gauss-Newton estimator, written from the network's arrays alone, as independent truth."""

import numpy as np

TURN = np.exp(-2j * np.pi / 3 * np.arange(3))


def linear_map(network):
    """V of every (bus, phase) and J of every edge as linear functions of x = (m, Re I, Im I)."""
    n, k = len(network.bus_ids), len(network.injections)
    v = np.zeros((n, 3, 3 + 2 * k), complex)
    j = np.zeros((n, 3, 3 + 2 * k), complex)
    for i in range(k):
        bus, plus, minus = network.injection_bus[i], network.injection_plus[i], network.injection_minus[i]
        for column, unit in ((3 + i, 1), (3 + k + i, 1j)):
            j[bus, plus, column] += unit
            if minus >= 0:
                j[bus, minus, column] -= unit
    for b in range(n - 1, 0, -1):
        j[network.parent[b]] += network.transfer[b].conj().T @ j[b]
    v[0, range(3), range(3)] = TURN
    for b in range(1, n):
        v[b] = network.transfer[b] @ v[network.parent[b]] - network.impedance[b] @ j[b]
    return v, j


def as_real(x):
    return np.stack([x.real, x.imag])


class Dense:
    """Weighted least squares over explicit rows (kind, complex row of V, complex row of J), one scenario."""

    def __init__(self, network):
        self.network = network
        self.v, self.j = linear_map(network)
        k = len(network.injections)
        self.i = np.zeros((k, 3 + 2 * k), complex)
        self.i[range(k), 3 + np.arange(k)] = 1
        self.i[range(k), 3 + k + np.arange(k)] = 1j
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
            self.rows.append((meter.quantity, self.v[n.bus_ids.index(meter.id), phase], None))
        elif meter.at == "head":
            self.rows.append((meter.quantity, self.v[0, phase], self.j[0, phase]))
        else:
            b = n.branch_ids.index(meter.id)
            sign = 1 if n.forward[b] else -1
            if (meter.at == "branch_from") == n.forward[b]:
                p = n.parent[b]
                row = self.v[p, phase], (n.transfer[b].conj().T @ self.j[b])[phase]
            else:
                row = self.v[b, phase], self.j[b, phase]
            self.rows.append((meter.quantity, row[0], sign * row[1]))

    def evaluate(self, x):
        h, jacobian = [], []
        for kind, v_row, i_row in self.rows:
            v = v_row @ x
            if kind == "voltage":
                h.append(abs(v))
                jacobian.append((v.conj() * v_row).real / abs(v))
                continue
            i = i_row @ x
            if kind == "current":
                h.append(abs(i))
                jacobian.append((i.conj() * i_row).real / abs(i))
                continue
            s, ds = v * i.conj(), v_row * i.conj() + v * i_row.conj()
            h.append(s.real if kind == "active_power" else s.imag)
            jacobian.append(ds.real if kind == "active_power" else ds.imag)
        return np.array(h), np.array(jacobian)

    def solve(self, z, sigma, iterations=30):
        n = self.network
        k = len(n.injections)
        x = np.zeros(3 + 2 * k)
        x[:3] = n.nominal_v[0]
        s = n.power_w + 1j * n.power_var + 1.0
        x0 = x.copy()
        for i in range(k):
            current = np.conj(s[i] / (self.terminal(i) @ x0))
            x[3 + i], x[3 + k + i] = current.real, current.imag
        for _ in range(iterations):
            h, jacobian = self.evaluate(x)
            step = np.linalg.lstsq(jacobian / sigma[:, None], (z - h) / sigma, rcond=None)[0]
            x += step
        h, jacobian = self.evaluate(x)
        scaled = jacobian / sigma[:, None]
        self.x, self.h = x, h
        self.covariance = np.linalg.inv(scaled.T @ scaled)
        self.objective = float((((z - h) / sigma) ** 2).sum())
        return self

    def sigma(self, gradient):
        return np.sqrt(np.einsum("ij,jk,ik->i", gradient, self.covariance, gradient))
