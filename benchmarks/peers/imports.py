"""What a script imports first of each library; nothing else, so that it loads alone."""

IMPORTS = {
    "skal": "from skal import ActiveLearningLoop, BadgeQuery",
    "scikit-activeml": "from skactiveml.classifier import SkorchClassifier\n"
    "from skactiveml.pool import Badge",
    "modAL": "from modAL.models import ActiveLearner",
    "baal": "from baal.active import ActiveLearningLoop, heuristics\n"
    "from baal.modelwrapper import ModelWrapper",
    "small-text": "from small_text import PoolBasedActiveLearner, GreedyCoreset",
    "batchbald_redux": "from batchbald_redux.batchbald import get_batchbald_batch",
}
