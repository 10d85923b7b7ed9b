"""Sampled predictions: MC dropout and deep ensembles, in a pool and in a loop."""

import pickle

import numpy as np
import pytest
import torch
from sklearn.base import clone
from sklearn.decomposition import PCA
from sklearn.ensemble import RandomForestClassifier
from sklearn.exceptions import NotFittedError
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV
from sklearn.neural_network import MLPClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from skorch import NeuralNetBinaryClassifier, NeuralNetClassifier
from torch import nn

from skal import ActiveLearningLoop, EntropyQuery, MarginQuery, PoolView, RandomQuery
from skal.net.training import fit_isolated, private_clone
from skal.posterior import DeepEnsemble, EnsembleClassifier, MCDropout
from skal.testing._pools import Network, make_estimator, make_pool
from skal.utils.seeds import isolated_rng


def make_net(module=Network, **params):
    params = {"criterion": nn.CrossEntropyLoss, "max_epochs": 3, "lr": 0.1, **params}
    return NeuralNetClassifier(module, train_split=None, verbose=0, **params)


@pytest.fixture
def blobs():
    rng = np.random.default_rng(0)
    y = rng.permutation(np.arange(90) % 3)
    X = 2 * rng.standard_normal((3, 6))[y] + rng.standard_normal((90, 6))
    return X.astype(np.float32), y


class FunctionalDropout(nn.Module):
    def __init__(self):
        super().__init__()
        self.head = nn.Linear(6, 3)

    def forward(self, x):
        return self.head(nn.functional.dropout(x, 0.5, self.training))


class NotCalled(FunctionalDropout):
    def __init__(self):
        super().__init__()
        self.drop = nn.Dropout(0.5)


class NotUsed(NotCalled):
    def forward(self, x):
        self.drop(x)
        return self.head(x)


class TwoHeads(Network):
    def forward(self, x):
        return super().forward(x), x


class TestMCDropout:
    def test_shape_and_distributions(self):
        samples = make_pool().sample_proba(MCDropout(n_draws=7))
        assert samples.shape == (60, 7, 3) and samples.dtype == torch.float32
        torch.testing.assert_close(samples.sum(2), torch.ones(60, 7))
        assert len({s[:, 0].sum().item() for s in samples.unbind(1)}) > 3

    def test_equal_rows_have_equal_draws(self):
        X = np.repeat(np.random.default_rng(0).normal(size=(1, 6)), 60, axis=0)
        samples = make_pool(X=X.astype(np.float32)).sample_proba(MCDropout(30))
        torch.testing.assert_close(samples, samples[:1].expand_as(samples))

    def test_mean_of_linear_dropout_is_the_plain_logit(self):
        """With dropout before a linear head the mean logit is that of no dropout."""

        class Linear(nn.Sequential):
            def __init__(self):
                super().__init__(nn.Dropout(0.5), nn.Linear(6, 3))

        net = make_net(Linear, predict_nonlinearity=None, max_epochs=1)
        net.set_params(predict_nonlinearity=lambda z: torch.log_softmax(z, -1).exp())
        X = np.random.default_rng(0).normal(size=(5, 6)).astype(np.float32)
        with isolated_rng(0):
            net.fit(X, np.array([0, 1, 2, 0, 1]))
        pool = PoolView(net, X, random_state=0)
        samples = pool.sample_proba(MCDropout(4000)).double().log()
        # differences of log-probabilities are those of logits
        gaps = samples[..., 1:] - samples[..., :1]
        plain = pool.log_proba[:, 1:] - pool.log_proba[:, :1]
        error = gaps.mean(1) - plain
        assert (error.abs() < 4 * gaps.std(1) / 4000**0.5).all()

    def test_does_not_depend_on_the_batch_size(self):
        net, other = make_estimator(), make_net(iterator_valid__batch_size=7)
        other.initialize().module_.load_state_dict(net.module_.state_dict())
        samples, again = (
            make_pool(estimator=e).sample_proba(MCDropout()) for e in (net, other)
        )
        torch.testing.assert_close(samples, again)

    def test_network_is_left_as_it_was(self):
        net = make_estimator()
        for i, part in enumerate(net.module_.modules()):
            part.training = i % 2 == 0
        state = {k: v.clone() for k, v in net.module_.state_dict().items()}
        flags = [part.training for part in net.module_.modules()]
        rng = torch.get_rng_state()
        make_pool(estimator=net).sample_proba(MCDropout())
        assert torch.equal(rng, torch.get_rng_state())
        assert flags == [part.training for part in net.module_.modules()]
        after = net.module_.state_dict()
        assert all(torch.equal(v, state[k]) for k, v in after.items())

    def test_seed(self):
        first, same, other = (
            make_pool(random_state=s).sample_proba(MCDropout()) for s in (0, 0, 1)
        )
        assert torch.equal(first, same) and not torch.equal(first, other)
        given = make_pool(random_state=1).sample_proba(MCDropout(), random_state=0)
        assert torch.equal(first, given)

    def test_asked_again_runs_nothing(self):
        pool = make_pool()
        samples = pool.sample_proba(MCDropout())
        pool.estimator.module_.register_forward_pre_hook(lambda *args: 1 / 0)
        assert pool.sample_proba(MCDropout()) is samples

    def test_without_a_seed_draws_are_kept_too(self):
        pool, posterior = make_pool(random_state=None), MCDropout()
        samples = pool.sample_proba(posterior)
        assert torch.equal(samples, pool.sample_proba(posterior))

    def test_in_a_pipeline_and_with_an_output_of_two(self, blobs):
        X, y = blobs
        model = make_pipeline(StandardScaler(), make_net(TwoHeads))
        model[-1].criterion = _FirstLoss
        with isolated_rng(0):
            model.fit(X, y)
        samples = PoolView(model, X, random_state=0).sample_proba(MCDropout(5))
        assert samples.shape == (90, 5, 3)

    def test_binary_classifier(self, blobs):
        X, y = blobs

        class One(nn.Sequential):
            def __init__(self):
                super().__init__(nn.Dropout(0.5), nn.Linear(6, 1), nn.Flatten(0))

        net = NeuralNetBinaryClassifier(One, train_split=None, verbose=0, max_epochs=1)
        with isolated_rng(0):
            net.fit(X, (y > 0).astype(np.float32))
        samples = PoolView(net, X, random_state=0).sample_proba(MCDropout(5))
        assert samples.shape == (90, 5, 2)
        torch.testing.assert_close(samples.sum(2), torch.ones(90, 5))

    @pytest.mark.parametrize("n_draws", [1, 0, -3])
    def test_too_few_draws(self, n_draws):
        with pytest.raises(
            ValueError, match=f"'n_draws' parameter of MCDropout.* Got {n_draws}"
        ):
            make_pool().sample_proba(MCDropout(n_draws))
        with pytest.raises(ValueError, match="'n_draws' parameter"):
            make_pool().sample_proba(MCDropout(2.5))

    def test_needs_a_network(self):
        with pytest.raises(ValueError, match="MCDropout needs a skorch net.*Logistic"):
            make_pool("linear").sample_proba(MCDropout())

    @pytest.mark.parametrize("module", [FunctionalDropout, NotCalled])
    def test_without_active_dropout(self, module):
        net = make_net(module).initialize()
        with pytest.raises(ValueError, match="no active dropout|no dropout layer"):
            PoolView(net, make_pool()._X).sample_proba(MCDropout())

    def test_warns_of_dropout_that_changes_nothing(self):
        net = make_net(NotUsed).initialize()
        with pytest.warns(UserWarning, match="all 5 draws gave the same outputs"):
            samples = PoolView(net, make_pool()._X).sample_proba(MCDropout(5))
        assert torch.equal(samples, samples[:, :1].expand_as(samples))

    @pytest.mark.parametrize("posterior", [MCDropout(), DeepEnsemble()])
    def test_unfitted_network(self, posterior, blobs):
        X, y = blobs
        pool = PoolView(make_net(), X, X_labeled=X, y_labeled=y)
        with pytest.raises(NotFittedError, match="not initialized"):
            pool.sample_proba(posterior)

    @pytest.mark.parametrize("wrap", [lambda net: net, make_pipeline])
    def test_loop_refuses_before_the_first_fit(self, wrap, blobs):
        class NeverFits(NeuralNetClassifier):
            def fit(self, *args, **kwargs):
                raise AssertionError("fitted")

        net = NeverFits(FunctionalDropout, criterion=nn.CrossEntropyLoss)
        loop = ActiveLearningLoop(wrap(net), EntropyQuery(posterior=MCDropout()))
        with pytest.raises(ValueError, match="no active dropout"):
            loop.fit(*blobs)
        loop.set_params(strategy__posterior__n_draws=1)
        with pytest.raises(ValueError, match="n_draws"):
            loop.fit(*blobs)
        loop.set_params(estimator=LogisticRegression(), strategy__posterior__n_draws=9)
        with pytest.raises(ValueError, match="MCDropout needs a skorch net"):
            loop.fit(*blobs)


class _FirstLoss(nn.CrossEntropyLoss):
    def forward(self, output, target):
        return super().forward(output[0], target)


class TestDeepEnsemble:
    def test_members_are_models_of_their_own(self, blobs):
        X, y = blobs
        with isolated_rng(0):
            net = make_net().fit(X, y)
        pool = PoolView(net, X, X_labeled=X, y_labeled=y, random_state=0)
        samples = pool.sample_proba(DeepEnsemble(n_members=3))
        assert samples.shape == (90, 3, 3)
        assert torch.equal(samples[:, 0], pool.proba)
        assert len({s[:, 0].sum().item() for s in samples.unbind(1)}) == 3
        again = PoolView(net, X, X_labeled=X, y_labeled=y, random_state=0)
        assert torch.equal(samples, again.sample_proba(DeepEnsemble(n_members=3)))

    @pytest.mark.slow
    def test_processes_change_no_bit(self, blobs):
        X, y = blobs
        with isolated_rng(0):
            net = make_net().fit(X, y)
        samples = [
            PoolView(net, X, X_labeled=X, y_labeled=y, random_state=0).sample_proba(
                DeepEnsemble(n_members=3, n_jobs=n_jobs)
            )
            for n_jobs in (None, 2)
        ]
        assert torch.equal(*samples)

    @pytest.mark.parametrize(
        "estimator",
        [
            make_net(),
            make_pipeline(StandardScaler(), make_net()),
            MLPClassifier((8,), max_iter=20),
            RandomForestClassifier(5, random_state=3),
            make_pipeline(PCA(3), RandomForestClassifier(5)),
        ],
        ids=["net", "pipeline", "mlp", "forest", "pca-forest"],
    )
    @pytest.mark.filterwarnings("ignore:Stochastic Optimizer")
    def test_first_member_is_the_loops_own_model(self, estimator, blobs):
        X, y = blobs
        options = dict(n_rounds=2, n_initial=30, random_state=0)
        posterior = DeepEnsemble(n_members=3)
        strategy = EntropyQuery(posterior=posterior)
        loop = ActiveLearningLoop(estimator, strategy, **options).fit(X, y)
        assert isinstance(loop.estimator_, EnsembleClassifier)
        rows = loop.labeled_indices_
        plain = ActiveLearningLoop(
            estimator, RandomQuery(), initial=rows, n_rounds=0, random_state=0
        ).fit(X, y)
        np.testing.assert_array_equal(loop.predict_proba(X), plain.predict_proba(X))
        np.testing.assert_array_equal(loop.predict(X), plain.predict(X))
        assert loop.score(X, y) == plain.score(X, y)

    def test_first_purchase_is_that_of_the_mean(self, blobs):
        X, y = blobs
        options = dict(n_rounds=1, n_initial=30, batch_size=5, random_state=0)
        strategy = MarginQuery(posterior=DeepEnsemble(n_members=3))
        loop = ActiveLearningLoop(make_net(), strategy, **options).fit(X, y)
        first = ActiveLearningLoop(
            make_net(), strategy, **{**options, "n_rounds": 0}
        ).fit(X, y)
        rest = np.setdiff1d(np.arange(90), first.labeled_indices_)
        members = first.estimator_.members_
        mean = np.mean([m.predict_proba(X[rest]) for m in members], axis=0)
        top = np.sort(mean, axis=1)
        picks = rest[np.argsort(top[:, -1] - top[:, -2])[:5]]
        np.testing.assert_array_equal(loop.labeled_indices_[30:], picks)

    def test_predicts_with_the_mean_when_asked(self, blobs):
        X, y = blobs
        posterior = DeepEnsemble(n_members=3, predict="mean")
        loop = ActiveLearningLoop(
            make_net(), EntropyQuery(posterior=posterior), n_rounds=1, random_state=0
        ).fit(X, y)
        mean = np.mean([m.predict_proba(X) for m in loop.estimator_.members_], axis=0)
        np.testing.assert_allclose(loop.predict_proba(X), mean, rtol=1e-6)
        np.testing.assert_array_equal(loop.predict(X), mean.argmax(1))
        assert loop.score(X, y) == np.mean(mean.argmax(1) == y)
        assert not hasattr(loop, "decision_function")

    @pytest.mark.parametrize("n_jobs", [None, 2])
    def test_mean_of_a_network_with_further_outputs(self, n_jobs, blobs):
        """Local classes come back from other processes, too."""
        X, y = blobs

        class Wide(nn.Linear):
            def __init__(self):
                super().__init__(6, 9)
                nn.init.constant_(self.bias[3:], 20.0)

        ensemble = DeepEnsemble(2, n_jobs=n_jobs, predict="mean").prepare(
            private_clone(make_net(Wide, max_epochs=1, lr=1e-9), 3)
        )
        fit_isolated(ensemble, X, y, 0)
        assert all(isinstance(m.module_, Wide) for m in ensemble.members_)
        assert (ensemble.predict(X) >= 3).all() and ensemble.score(X, y) == 0
        loop = ActiveLearningLoop(
            make_net(Wide, max_epochs=1, lr=1e-9),
            EntropyQuery(posterior=DeepEnsemble(2, predict="mean")),
            n_rounds=0,
        ).fit(X, y)
        assert set(loop.predict(X)) <= {0, 1, 2}

    def test_score_is_that_of_the_model(self, blobs):
        X, y = blobs
        forest = RandomForestClassifier(5, random_state=0)
        search = GridSearchCV(forest, {"max_depth": [2]}, cv=2, scoring="neg_log_loss")
        for predict in (None, "mean"):
            ensemble = DeepEnsemble(2, predict=predict).prepare(search).fit(X, y)
            score = ensemble.score(X, y, sample_weight=y) if predict else (
                ensemble.score(X, y)
            )  # fmt: skip
            expected = (
                np.average(ensemble.predict(X) == y, weights=y) if predict
                else ensemble.members_[0].score(X, y)
            )  # fmt: skip
            assert score == expected and (score >= 0) == (predict == "mean")

    def test_parameters_of_predictions_reach_the_members(self, blobs):
        X, y = blobs

        class Shifts(MLPClassifier):
            def predict_proba(self, X, shift=0):
                return super().predict_proba(X) + shift

        members = DeepEnsemble(2, predict="mean").prepare(Shifts((4,), max_iter=1))
        with pytest.warns(match="Stochastic"):
            members.fit(X, y)
        shifted = members.predict_proba(X, shift=1)
        np.testing.assert_allclose(shifted, members.predict_proba(X) + 1, rtol=1e-6)

    def test_sees_fit_parameters_and_all_classes(self, blobs):
        """Pipelines, weights and classes reach every member as they reach the model."""
        X, y = blobs
        seen = []

        class Watches(MLPClassifier):
            def fit(self, X, y, **params):
                seen.append((len(X), params))
                return super().fit(X, y)

        ensemble = DeepEnsemble(n_members=3).prepare(Watches((4,), max_iter=1))
        with pytest.warns(match="Stochastic"):
            fit_isolated(ensemble, X, y, 0, weight=1)
        assert seen == [(90, {"weight": 1})] * 3

    def test_string_labels_stand_alone(self, blobs):
        X, y = blobs
        names = np.array(["ant", "bee", "cow"])[y]
        forest = RandomForestClassifier(5, random_state=0).fit(X, names)
        pool = PoolView(forest, X, X_labeled=X, y_labeled=names, random_state=0)
        samples = pool.sample_proba(DeepEnsemble(n_members=3))
        np.testing.assert_array_equal(samples[:, 0], forest.predict_proba(X))

    @pytest.mark.parametrize(
        "estimator", [LogisticRegression(), LogisticRegression(random_state=0)]
    )
    def test_identical_members(self, estimator, blobs):
        loop = ActiveLearningLoop(
            make_pipeline(StandardScaler(), estimator),
            EntropyQuery(posterior=DeepEnsemble()),
        )
        with pytest.raises(ValueError, match="identical.*LogisticRegression"):
            loop.fit(*blobs)

    @pytest.mark.filterwarnings("ignore:module is an instance")
    def test_a_module_that_is_an_instance(self, blobs):
        loop = ActiveLearningLoop(
            make_net(Network()), EntropyQuery(posterior=DeepEnsemble())
        )
        with pytest.raises(ValueError, match="module is an instance"):
            loop.fit(*blobs)

    def test_wrong_parameters(self, blobs):
        X, y = blobs
        pool = make_pool()
        for posterior, message in [
            (DeepEnsemble(1), "'n_members' parameter of DeepEnsemble.* Got 1"),
            (DeepEnsemble(n_jobs=0), "'n_jobs' parameter of DeepEnsemble.* Got 0"),
            (DeepEnsemble(predict="vote"), "'predict' parameter of DeepEnsemble"),
        ]:
            with pytest.raises(ValueError, match=message):
                pool.sample_proba(posterior)
            with pytest.raises(ValueError, match=message):
                ActiveLearningLoop(
                    make_net(), EntropyQuery(posterior=posterior)
                ).fit(X, y)  # fmt: skip

    def test_needs_labelled_rows(self):
        pool = PoolView(make_estimator(), make_pool()._X, random_state=0)
        with pytest.raises(ValueError, match="pass X_labeled and y_labeled"):
            pool.sample_proba(DeepEnsemble())

    def test_warm_start_is_refused(self, blobs):
        loop = ActiveLearningLoop(
            make_net(), EntropyQuery(posterior=DeepEnsemble()), warm_start=True
        )
        with pytest.raises(ValueError, match="starts every member afresh"):
            loop.fit(*blobs)

    def test_clone_and_pickle(self, blobs):
        X, y = blobs
        loop = ActiveLearningLoop(
            make_net(),
            EntropyQuery(posterior=DeepEnsemble(2)),
            n_rounds=1,
            n_initial=30,
            random_state=0,
        ).fit(X, y)
        again = pickle.loads(pickle.dumps(loop))
        np.testing.assert_array_equal(again.predict_proba(X), loop.predict_proba(X))
        assert repr(clone(loop.strategy)) == repr(loop.strategy)
