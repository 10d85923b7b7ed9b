"""BatchBALD beside the published algorithm, which evaluates every row for each pick.

The large profile has the kernel only: the loop would take hours.
"""

import numpy as np
import pytest
import torch

from skal.selection import batch_bald

# Rows, draws, classes, picks, configurations.
SIZES = {
    "fast": (400, 10, 5, 6, 1_000),
    "regular": (2_000, 20, 10, 10, 10_000),
    "large": (20_000, 100, 10, 10, 10_000),
}
CHUNK = 1024  # Rows evaluated at once by the loop, as published.


@pytest.fixture(scope="module")
def data(profile):
    """Softmax of a linear layer under dropout masks that all rows share.

    A tenth of the rows lies between two classes. At the regular size the mean
    probability of the likeliest class is above 0.95 in five sixths of the rows.
    """
    n, n_draws, n_classes, n_select, n_configurations = SIZES[profile]
    rng, width = np.random.default_rng(0), 64
    head = rng.normal(size=(n_classes, width))
    first, second = head[rng.integers(n_classes, size=(2, n))]
    between = 0.5 * rng.random((n, 1)) * (rng.random((n, 1)) < 0.1)
    embeddings = (1 - between) * first + between * second + rng.normal(size=(n, width))
    masks = 2 * (rng.random((n_draws, width)) < 0.5)
    factors = (head[:, None] * masks / 4).reshape(-1, width)
    logits = torch.tensor(embeddings @ factors.T, dtype=torch.float32)
    samples = logits.view(n, n_classes, n_draws).transpose(1, 2).softmax(2)
    return {"samples": samples, "n": n_select, "n_configurations": n_configurations}


class Loop:
    """All configurations times every row, for each pick [Kirsch et al. 2019].

    Exact while the configurations fit; then they are drawn anew for each pick,
    equally many under each draw of the model.
    """

    def __init__(self, data):
        self.samples = data["samples"].double()
        self.limit, self.n = data["n_configurations"], data["n"]
        n_draws = self.samples.shape[1]
        self.joint = torch.ones(1, n_draws, dtype=torch.float64)
        self.sampled = False
        self.generator = torch.Generator().manual_seed(0)

    def run(self):
        samples, picked = self.samples, []
        conditional = -(torch.xlogy(samples, samples).sum(2).mean(1))
        for _ in range(self.n):
            scores = self.entropies() - conditional
            scores[picked] = -torch.inf
            picked.append(int(scores.argmax()))
            self.extend(picked)
        return picked

    def extend(self, picked):
        chosen = self.samples[picked]
        n_classes = chosen.shape[2]
        self.sampled = n_classes ** len(picked) > self.limit
        if self.sampled:
            self.joint = self.draw(chosen)
        else:
            joint = self.joint[:, None] * chosen[-1].T
            self.joint = joint.flatten(0, 1)

    def draw(self, chosen):
        n_draws = chosen.shape[1]
        size = self.limit // n_draws
        joint = torch.ones(n_draws * size, n_draws, dtype=torch.float64)
        for proba in chosen:
            labels = proba.multinomial(size, replacement=True, generator=self.generator)
            joint *= proba.T[labels.flatten()]
        return joint

    def entropies(self):
        return torch.cat([self.entropies_of(x) for x in self.samples.split(CHUNK)])

    def entropies_of(self, rows):
        n_draws, n_classes = rows.shape[1:]
        proba = rows.new_empty(len(rows), len(self.joint), n_classes)
        for i, row in enumerate(rows):
            torch.mm(self.joint, row, out=proba[i])
        proba /= n_draws
        terms = -torch.log(proba) * proba
        if self.sampled:
            terms /= self.joint.mean(1)[None, :, None] * len(self.joint)
        return terms.nan_to_num_(0.0).sum((1, 2))


def loop(data):
    return Loop(data).run()


def kernel(data):
    n = data["n_configurations"]
    return batch_bald(
        data["samples"],
        data["n"],
        max_configurations=n,
        n_particles=n,
        random_state=0,
    ).tolist()


def joint_information(data, picks, n_labels=200_000):
    """Mutual information of all labels and the draw, by independent Monte Carlo."""
    samples = data["samples"][picks].double()
    generator = torch.Generator().manual_seed(1)
    n_draws = samples.shape[1]
    own = torch.arange(n_labels) % n_draws
    log_joint = torch.zeros(n_labels, n_draws, dtype=torch.float64)
    for proba in samples:
        labels = proba[own].multinomial(1, generator=generator).squeeze(1)
        log_joint += proba.T[labels].clamp(min=1e-300).log()
    log_own = log_joint[torch.arange(n_labels), own]
    log_marginal = log_joint.logsumexp(1) - np.log(n_draws)
    return float((log_own - log_marginal).mean())


def test_batch_bald(data, profile, medians_in_turn, extra_memory, table):
    runs = [kernel] if profile == "large" else [kernel, loop]
    picks = {}

    def keep(run):
        picks[run.__name__] = run(data)

    memory = {run.__name__: extra_memory(lambda r=run: keep(r)) for run in runs}
    seconds = medians_in_turn({r.__name__: lambda r=r: r(data) for r in runs})
    found = [f"{joint_information(data, rows):.3f}" for rows in picks.values()]
    n, n_draws, n_classes = data["samples"].shape
    table(
        f"BatchBALD, {data['n']} of {n:,}, {n_draws} draws",
        seconds["kernel"],
        "published loop" if loop in runs else "",
        seconds.get("loop"),
        memory=memory["kernel"],
        n_input=data["samples"].nbytes,
        note=f"joint information {', '.join(found)}",
    )
    if loop in runs:
        exact = 1 + int(np.log(data["n_configurations"]) / np.log(n_classes) + 1e-9)
        assert picks["kernel"][:exact] == picks["loop"][:exact]
